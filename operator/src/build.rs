//! Pure builders of Kubernetes objects from a validated cluster. No I/O, no clock, no chance.

pub mod broker;
pub mod broker_config;
pub mod labels;
pub mod namesrv;
pub mod pod;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
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
    /// Pods.
    StatefulSet(Box<StatefulSet>),
}

impl Object {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::ConfigMap(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::StatefulSet(object) => &object.metadata,
        }
    }

    /// Name of the object.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
}

/// All objects of `cluster` with `groups` broker groups, in the order in which they are applied: what pods refer to
/// comes before the pods.
pub fn objects(cluster: &ValidatedCluster, groups: i32) -> Vec<Object> {
    let mut objects = vec![
        Object::ConfigMap(Box::new(broker_config::config_map(cluster))),
        Object::Service(Box::new(namesrv::service(cluster))),
        Object::Service(Box::new(broker::service(cluster))),
        Object::StatefulSet(Box::new(namesrv::stateful_set(cluster))),
        Object::StatefulSet(Box::new(broker::stateful_set(cluster, broker::Role::Master, groups))),
    ];
    objects.extend(
        (1..=cluster.slaves).map(|index| {
            Object::StatefulSet(Box::new(broker::stateful_set(cluster, broker::Role::Slave(index), groups)))
        }),
    );
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
