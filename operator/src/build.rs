//! Pure builders of Kubernetes objects from a validated cluster. No I/O, no clock, no chance.

pub mod broker;
pub mod broker_config;
pub mod disruption;
pub mod labels;
pub mod namesrv;
pub mod pod;
pub mod tls;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use crate::validate::ValidatedCluster;

/// One object that a cluster is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Object {
    /// Configuration; boxed, as the next, for its size.
    ConfigMap(Box<ConfigMap>),
    /// Names and ports.
    Service(Box<Service>),
    /// How many pods may be evicted at a time.
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    /// Pods.
    StatefulSet(Box<StatefulSet>),
}

impl Object {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::ConfigMap(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::PodDisruptionBudget(object) => &object.metadata,
            Self::StatefulSet(object) => &object.metadata,
        }
    }

    /// Name of the object.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
}

/// How many pods the sets of masters and of slaves have. Slaves go before their master, so they may be fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Masters.
    pub masters: i32,
    /// Slaves of every index.
    pub slaves: i32,
}

impl Sizes {
    /// Whole groups.
    pub fn of(groups: i32) -> Self {
        Self { masters: groups, slaves: groups }
    }
}

/// All objects of `cluster` with broker sets of these sizes, in the order in which they are applied: what pods refer to
/// comes before the pods.
pub fn objects(cluster: &ValidatedCluster, sizes: Sizes) -> Vec<Object> {
    let mut objects = vec![
        Object::ConfigMap(Box::new(broker_config::config_map(cluster))),
        Object::Service(Box::new(namesrv::service(cluster))),
        Object::Service(Box::new(broker::service(cluster))),
        Object::PodDisruptionBudget(Box::new(disruption::budget(cluster, labels::NAMESRV, namesrv::name(cluster)))),
        Object::PodDisruptionBudget(Box::new(disruption::budget(
            cluster,
            labels::BROKER,
            broker::service_name(cluster),
        ))),
        Object::StatefulSet(Box::new(namesrv::stateful_set(cluster))),
        Object::StatefulSet(Box::new(broker::stateful_set(cluster, broker::Role::Master, sizes.masters))),
    ];
    objects.extend((1..=cluster.slaves).map(|index| {
        Object::StatefulSet(Box::new(broker::stateful_set(cluster, broker::Role::Slave(index), sizes.slaves)))
    }));
    objects
}

/// Metadata of an object of `cluster`.
fn metadata(cluster: &ValidatedCluster, name: String, labels: labels::Labels) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels),
        owner_references: cluster.owner.clone().map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}
