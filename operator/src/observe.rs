//! Looks at a cluster on Kubernetes: live stateful sets, ready pods, and the tables of the masters the plan asks for.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::broker_admin::BrokerAdmin;
use crate::build::broker::{self, Role};
use crate::build::labels;
use crate::crd::RocketMQClusterStatus;
use crate::plan::{Observed, wants_tables};
use crate::validate::ValidatedCluster;

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
    /// Where the masters that were asked for their tables take requests, by ordinal.
    pub masters: BTreeMap<i32, String>,
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
    let ready: BTreeMap<String, Pod> =
        pods.items.into_iter().filter(is_ready).map(|pod| (pod.name_any(), pod)).collect();
    let mut observed = Observed { status, ..Observed::nothing(Timestamp::now()) };
    observed.ready_pods = ready.keys().cloned().collect::<BTreeSet<String>>();
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
    }
    let masters: BTreeMap<i32, String> = wants_tables(cluster, &observed)
        .into_iter()
        .map(|ordinal| (ordinal, address(dial, cluster, &ready, ordinal)))
        .collect();
    let questions = masters.iter().map(|(ordinal, address)| async {
        let tables = admin.tables(address).await;
        (*ordinal, tables.map_err(|fault| fault.to_string()))
    });
    observed.tables = join_all(questions).await.into_iter().collect();
    Ok(Seen { observed, masters })
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
