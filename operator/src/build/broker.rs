//! The brokers: one stateful set of masters, one for each slave index, and the headless service that names them all.
//!
//! The ordinal is the identity. Pod i of every set belongs to the group `broker-i`; which place it has in the group is
//! said by its set. Kubernetes hands the ordinal over as a label of the pod, which the arguments refer to openly.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm,
    PodAntiAffinity, PodSpec, PodTemplateSpec, Service, ServiceSpec, Volume, VolumeResourceRequirements,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::labels::{self, BROKER, Labels, POD_INDEX};
use super::{broker_config, metadata, namesrv, pod, tls};
use crate::crd::{Replication, ScaleDownPolicy, WhenDeleted};
use crate::validate::ValidatedCluster;

/// Port of requests.
pub const PORT: i32 = 10911;
/// Port of the replication stream.
pub const HA_PORT: i32 = 10912;
/// Port of probes and metrics.
pub const HTTP_PORT: i32 = 8080;
/// Name of the container.
pub const CONTAINER: &str = "broker";
/// How long a broker may take to flush and to bring its slaves up to date before it is killed.
pub const GRACE_SECONDS: i64 = 60;

const CONFIG_PATH: &str = "/etc/rocketmq";
const DATA_PATH: &str = "/data";

/// Which place a broker has in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// brokerId 0
    Master,
    /// The slave of this index, which is its brokerId; from 1.
    Slave(i32),
}

impl Role {
    /// Value of the role label, and last part of the stateful set's name.
    pub fn label(self) -> String {
        match self {
            Self::Master => "master".to_owned(),
            Self::Slave(index) => format!("slave-{index}"),
        }
    }

    /// The broker's id in its group.
    pub fn broker_id(self) -> i32 {
        match self {
            Self::Master => 0,
            Self::Slave(index) => index,
        }
    }
}

/// Name of the group with this ordinal, as clients see it.
pub fn group_name(ordinal: i32) -> String {
    format!("broker-{ordinal}")
}

/// Name of the service of all brokers.
pub fn service_name(cluster: &ValidatedCluster) -> String {
    format!("{}-broker", cluster.name)
}

/// Name of the stateful set of that role.
pub fn set_name(cluster: &ValidatedCluster, role: Role) -> String {
    format!("{}-broker-{}", cluster.name, role.label())
}

/// Name of a pod.
pub fn pod_name(cluster: &ValidatedCluster, role: Role, ordinal: i32) -> String {
    format!("{}-{ordinal}", set_name(cluster, role))
}

/// Where a broker takes requests; a name, so that it stays when the pod moves.
pub fn address(cluster: &ValidatedCluster, role: Role, ordinal: i32) -> String {
    format!("{}.{}.{}.svc:{PORT}", pod_name(cluster, role, ordinal), service_name(cluster), cluster.namespace)
}

/// The headless service that gives every broker its name. A slave must find its master before either is ready.
pub fn service(cluster: &ValidatedCluster) -> Service {
    let selector = labels::component_selector(cluster, BROKER);
    Service {
        metadata: metadata(cluster, service_name(cluster), labels::with_manager(selector.clone())),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector),
            ports: Some(vec![
                namesrv::service_port("remoting", PORT),
                namesrv::service_port("ha", HA_PORT),
                namesrv::service_port("http", HTTP_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The stateful set of that role, with one pod for each of `groups`.
///
/// `OnDelete`, because Kubernetes knows neither that a slave goes before its master nor that only one of a group may be away.
pub fn stateful_set(cluster: &ValidatedCluster, role: Role, groups: i32) -> StatefulSet {
    let selector = labels::role_selector(cluster, BROKER, &role.label());
    let labels = labels::with_manager(selector.clone());
    let annotations = [("rocketmq.rs/broker-conf".to_owned(), broker_config::mark(cluster))];
    StatefulSet {
        metadata: metadata(cluster, set_name(cluster, role), labels.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(groups),
            service_name: Some(service_name(cluster)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels.clone()),
                    annotations: Some(annotations.into()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(cluster, role)),
            },
            volume_claim_templates: Some(vec![claim(cluster, labels)]),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                // Unless told otherwise, a group that is scaled away and back again finds its messages.
                when_scaled: Some(
                    match cluster.scale_down {
                        ScaleDownPolicy::Wait | ScaleDownPolicy::Retain => "Retain",
                        ScaleDownPolicy::Discard => "Delete",
                    }
                    .to_owned(),
                ),
                when_deleted: Some(
                    match cluster.when_deleted {
                        WhenDeleted::Retain => "Retain",
                        WhenDeleted::Delete => "Delete",
                    }
                    .to_owned(),
                ),
            }),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn claim(cluster: &ValidatedCluster, labels: Labels) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some("data".to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: cluster.storage_class.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(cluster.storage_size.clone()))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn pod_spec(cluster: &ValidatedCluster, role: Role) -> PodSpec {
    PodSpec {
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(cluster.broker_image.clone()),
            image_pull_policy: cluster.pull_policy.map(|policy| policy.as_str().to_owned()),
            env: Some(vec![
                pod::field_env("POD_INDEX", &format!("metadata.labels['{POD_INDEX}']")),
                pod::field_env("POD_NAME", "metadata.name"),
                pod::field_env("POD_NAMESPACE", "metadata.namespace"),
            ]),
            args: Some(args(cluster, role)),
            ports: Some(vec![pod::port("remoting", PORT), pod::port("ha", HA_PORT), pod::port("http", HTTP_PORT)]),
            // Recovery reads the end of the log and may rebuild queues: up to an hour before it counts as dead.
            startup_probe: Some(pod::http_probe("/livez", "http", 2, 1800)),
            readiness_probe: Some(pod::http_probe("/readyz", "http", 3, 3)),
            liveness_probe: Some(pod::http_probe("/livez", "http", 10, 6)),
            resources: Some(pod::resources(cluster.broker_resources.as_ref(), "100m", "256Mi")),
            security_context: Some(pod::container_security()),
            volume_mounts: Some(
                [
                    pod::mount("config", CONFIG_PATH, true),
                    pod::mount("data", DATA_PATH, false),
                    pod::mount("tmp", "/tmp", false),
                ]
                .into_iter()
                .chain(tls::mount(cluster))
                .collect(),
            ),
            ..Container::default()
        }],
        volumes: Some(
            [
                Volume {
                    name: "config".to_owned(),
                    config_map: Some(ConfigMapVolumeSource {
                        name: broker_config::name(cluster),
                        ..ConfigMapVolumeSource::default()
                    }),
                    ..Volume::default()
                },
                pod::scratch("tmp"),
            ]
            .into_iter()
            .chain(tls::volume(cluster))
            .collect(),
        ),
        security_context: Some(pod::pod_security()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        ..placed(cluster, labels::component_selector(cluster, BROKER), Some(POD_INDEX))
    }
}

fn args(cluster: &ValidatedCluster, role: Role) -> Vec<String> {
    let broker_role = match (role, cluster.replication) {
        (Role::Master, Replication::Async) => "ASYNC_MASTER",
        (Role::Master, Replication::Sync) => "SYNC_MASTER",
        (Role::Slave(_), _) => "SLAVE",
    };
    let host = format!("$(POD_NAME).{}.$(POD_NAMESPACE).svc", service_name(cluster));
    let settings = [
        ("brokerName", "broker-$(POD_INDEX)".to_owned()),
        ("brokerId", role.broker_id().to_string()),
        ("brokerRole", broker_role.to_owned()),
        ("brokerIP1", host.clone()),
        ("brokerIP2", host),
        ("listenPort", PORT.to_string()),
        ("haListenPort", HA_PORT.to_string()),
        ("httpPort", HTTP_PORT.to_string()),
        ("storePathRootDir", format!("{DATA_PATH}/store")),
    ];
    let mut args = vec!["-c".to_owned(), format!("{CONFIG_PATH}/{}", broker_config::FILE)];
    for (key, value) in settings {
        args.extend(["--set".to_owned(), format!("{key}={value}")]);
    }
    args.extend(tls::args(cluster));
    args.extend(["-n".to_owned(), namesrv::address(cluster)]);
    args
}

/// A pod spec that says where its pod may run.
///
/// Unless the user says otherwise, pods of `selector` that have the same value of the label `same` avoid each other's
/// nodes: for brokers that label is the ordinal, so a master and its slaves part and everything else is free to share.
pub(super) fn placed(cluster: &ValidatedCluster, selector: Labels, same: Option<&str>) -> PodSpec {
    let placement = &cluster.placement;
    let apart = || Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    label_selector: Some(LabelSelector { match_labels: Some(selector), ..LabelSelector::default() }),
                    match_label_keys: same.map(|key| vec![key.to_owned()]),
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    };
    let constraints = &placement.topology_spread_constraints;
    PodSpec {
        affinity: Some(placement.affinity.clone().unwrap_or_else(apart)),
        node_selector: (!placement.node_selector.is_empty()).then(|| placement.node_selector.clone()),
        tolerations: (!placement.tolerations.is_empty()).then(|| placement.tolerations.clone()),
        topology_spread_constraints: (!constraints.is_empty()).then(|| constraints.clone()),
        ..PodSpec::default()
    }
}
