//! Looks at a cluster on Kubernetes: live stateful sets, pods, and what the masters answer that the plan asks.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::broker_admin::BrokerAdmin;
use crate::build::broker::{self, Role};
use crate::build::labels;
use crate::crd::RocketMQClusterStatus;
use crate::plan::{Observed, questions};
use crate::validate::ValidatedCluster;

/// The label by which a stateful set says from which revision of its template a pod was made.
const REVISION: &str = "controller-revision-hash";
/// What a container waits for that will not come about by waiting.
const FAILURES: [&str; 7] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// How long a pod may wait for a node or a volume before that counts as a failure: volumes are often made at that time.
const UNSCHEDULABLE_SECONDS: i64 = 60;

/// By what the operator reaches a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    /// The pod's name in the cluster's DNS.
    Name,
    /// The pod's address: for an operator that runs where the cluster's DNS is not asked.
    PodIp,
}

/// A look at a cluster.
#[derive(Clone, Debug)]
pub struct Seen {
    /// For the plan.
    pub observed: Observed,
    /// Where the masters that were asked take requests, by ordinal.
    pub masters: BTreeMap<i32, String>,
    /// Generation of each stateful set whose pods were compared with its template.
    pub generations: BTreeMap<String, i64>,
}

/// What can be seen of `cluster` now; `status` is the one written last.
pub async fn observe(
    client: &Client,
    admin: &BrokerAdmin,
    dial: Dial,
    cluster: &ValidatedCluster,
    status: RocketMQClusterStatus,
) -> Result<Seen, kube::Error> {
    let of_cluster = ListParams::default().labels(&labels::cluster_query(&cluster.name));
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
    let sets = sets.list(&of_cluster).await?;
    let pods = pods.list(&of_cluster).await?;
    let pods: BTreeMap<String, Pod> = pods.items.into_iter().map(|pod| (pod.name_any(), pod)).collect();
    let mut observed = Observed { status, ..Observed::nothing(Timestamp::now()) };
    let mut generations = BTreeMap::new();
    let mut revisions = BTreeMap::new();
    for set in &sets.items {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        match set.labels().get(labels::ROLE).map(String::as_str) {
            Some("master") => observed.masters = Some(replicas),
            Some(role) => {
                if let Some(index) = role.strip_prefix("slave-").and_then(|text| text.parse().ok()) {
                    observed.slaves.insert(index, replicas);
                }
            }
            None => {}
        }
        // A set that has not been looked at since it was changed does not know its newest revision yet.
        let status = set.status.as_ref().filter(|status| status.observed_generation == set.metadata.generation);
        if let (Some(generation), Some(revision)) =
            (set.metadata.generation, status.and_then(|status| status.update_revision.as_deref()))
        {
            generations.insert(set.name_any(), generation);
            revisions.insert(set.name_any(), revision);
        }
    }
    for (name, pod) in &pods {
        if is_ready(pod) {
            observed.ready_pods.insert(name.clone());
        } else if let Some(why) = failure(pod, observed.now) {
            observed.stuck.insert(name.clone(), why);
        }
        // Slaves go before masters, so what is outdated is known of all sets or of none.
        let known = revisions.len() == sets.items.len() && pod.metadata.deletion_timestamp.is_none();
        let revision = name.rsplit_once('-').filter(|_| known).and_then(|(set, _)| revisions.get(set));
        if revision.is_some_and(|revision| pod.labels().get(REVISION).is_none_or(|of_pod| of_pod != revision)) {
            observed.outdated.insert(name.clone());
        }
    }
    observed.pods = pods.keys().cloned().collect();
    let questions = questions(cluster, &observed);
    let asked: BTreeSet<i32> = questions.tables.iter().chain(&questions.access).copied().collect();
    let masters: BTreeMap<i32, String> =
        asked.into_iter().map(|ordinal| (ordinal, address(dial, cluster, &pods, ordinal))).collect();
    ask(admin, cluster, &mut observed, &masters).await;
    Ok(Seen { observed, masters, generations })
}

/// Puts the plan's questions to the masters, all at a time.
pub async fn ask(
    admin: &BrokerAdmin,
    cluster: &ValidatedCluster,
    observed: &mut Observed,
    masters: &BTreeMap<i32, String>,
) {
    let questions = questions(cluster, observed);
    let questions = &questions;
    let answers = masters.iter().map(|(ordinal, address)| async move {
        let tables = if questions.tables.contains(ordinal) { Some(admin.tables(address).await) } else { None };
        // In this order: what a sealed master holds can only become less.
        let access = if questions.access.contains(ordinal) { Some(admin.access(address).await) } else { None };
        let backlog =
            if questions.backlogs.contains(ordinal) { Some(admin.backlog(&cluster.name, address).await) } else { None };
        (*ordinal, tables, access, backlog)
    });
    for (ordinal, tables, access, backlog) in join_all(answers).await {
        observed.tables.extend(tables.map(|answer| (ordinal, answer.map_err(|fault| fault.to_string()))));
        observed.access.extend(access.map(|answer| (ordinal, answer.map_err(|fault| fault.to_string()))));
        observed.backlogs.extend(backlog.map(|answer| (ordinal, answer.map_err(|fault| fault.to_string()))));
    }
}

/// Where the master of the group `ordinal` takes requests.
fn address(dial: Dial, cluster: &ValidatedCluster, pods: &BTreeMap<String, Pod>, ordinal: i32) -> String {
    let ip = pods
        .get(&broker::pod_name(cluster, Role::Master, ordinal))
        .and_then(|pod| pod.status.as_ref())
        .and_then(|status| status.pod_ip.as_deref());
    match (dial, ip) {
        (Dial::PodIp, Some(ip)) => format!("{ip}:{}", broker::PORT),
        _ => broker::address(cluster, Role::Master, ordinal),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why the pod will not become ready by itself, as far as Kubernetes says.
fn failure(pod: &Pod, now: Timestamp) -> Option<String> {
    let status = pod.status.as_ref()?;
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let waits_long = |since: Option<&Time>| {
        since.is_some_and(|since| now.as_second().saturating_sub(since.0.as_second()) >= UNSCHEDULABLE_SECONDS)
    };
    if let Some(condition) = scheduled
        && condition.reason.as_deref() == Some("Unschedulable")
        && waits_long(condition.last_transition_time.as_ref())
    {
        return Some(format!("Unschedulable: {}", condition.message.as_deref().unwrap_or_default()));
    }
    let mut waiting =
        status.container_statuses.iter().flatten().filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    waiting.find_map(|waiting| {
        let reason = waiting.reason.as_deref().filter(|reason| FAILURES.contains(reason))?;
        Some(format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "status": status })).unwrap()
    }

    fn waiting(reason: &str) -> Pod {
        pod(&serde_json::json!({
            "containerStatuses": [{
                "name": "broker", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": reason, "message": "why" } },
            }],
        }))
    }

    #[test]
    fn only_what_does_not_pass_by_itself_is_a_failure() {
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(failure(&waiting("ImagePullBackOff"), now).as_deref(), Some("ImagePullBackOff: why"));
        assert_eq!(failure(&waiting("ContainerCreating"), now), None);
        assert_eq!(failure(&pod(&serde_json::json!({})), now), None);
    }

    #[test]
    fn a_pod_without_a_node_fails_after_a_while() {
        let since = |second: i64| {
            pod(&serde_json::json!({
                "conditions": [{
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node",
                    "lastTransitionTime": Timestamp::from_second(second).unwrap().to_string(),
                }],
            }))
        };
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(failure(&since(941), now), None);
        assert_eq!(failure(&since(940), now).as_deref(), Some("Unschedulable: no node"));
    }
}
