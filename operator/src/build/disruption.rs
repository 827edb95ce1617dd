//! Disruption budgets: how many pods of a kind a node's drain may take away at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{labels, metadata};
use crate::validate::ValidatedCluster;

/// One of them at a time, so that no group loses master and slave together. A pod that is not ready may always go:
/// keeping it would only keep its node from being drained.
pub fn budget(cluster: &ValidatedCluster, component: &str, name: String) -> PodDisruptionBudget {
    let selector = labels::component_selector(cluster, component);
    PodDisruptionBudget {
        metadata: metadata(cluster, name, labels::with_manager(selector.clone())),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(selector), ..LabelSelector::default() }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
