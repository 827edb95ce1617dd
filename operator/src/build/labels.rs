//! Labels and selectors. Selectors cannot be changed once a stateful set exists, so neither can what is said here.

use std::collections::BTreeMap;

use crate::validate::ValidatedCluster;

/// Labels, or the labels a selector demands.
pub type Labels = BTreeMap<String, String>;

/// The label that tells masters from slaves, and the slaves of one index from those of another.
pub const ROLE: &str = "rocketmq.rs/role";
/// Set by Kubernetes on every pod of a stateful set: its ordinal.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// Component of name servers.
pub const NAMESRV: &str = "namesrv";
/// Component of brokers.
pub const BROKER: &str = "broker";

const NAME: &str = "app.kubernetes.io/name";
const INSTANCE: &str = "app.kubernetes.io/instance";
const COMPONENT: &str = "app.kubernetes.io/component";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Query for what the operator made, of any cluster.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=rocketmq-operator";

/// Selects all pods of one component, whatever their role.
pub fn component_selector(cluster: &ValidatedCluster, component: &str) -> Labels {
    [(NAME, "rocketmq"), (INSTANCE, cluster.name.as_str()), (COMPONENT, component)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Selects the pods of one stateful set.
pub fn role_selector(cluster: &ValidatedCluster, component: &str, role: &str) -> Labels {
    let mut labels = component_selector(cluster, component);
    labels.insert(ROLE.to_owned(), role.to_owned());
    labels
}

/// `selector` with what is only said, not selected by.
pub fn with_manager(mut selector: Labels) -> Labels {
    selector.insert(MANAGED_BY.to_owned(), "rocketmq-operator".to_owned());
    selector
}

/// The label selector in the form of a query, as list calls and autoscalers take it.
pub fn query(selector: &Labels) -> String {
    let terms: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    terms.join(",")
}

/// Query that selects every pod of the cluster.
pub fn cluster_query(name: &str) -> String {
    format!("{NAME}=rocketmq,{INSTANCE}={name}")
}
