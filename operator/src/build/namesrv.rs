//! The name servers: one stateful set and the headless service by which brokers find all of them.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{self, NAMESRV};
use super::{broker, metadata, pod, tls};
use crate::validate::ValidatedCluster;

/// Port of every name server.
pub const PORT: i32 = 9876;
/// Name of the container.
pub const CONTAINER: &str = "namesrv";

/// Name of the stateful set and of its service.
pub fn name(cluster: &ValidatedCluster) -> String {
    format!("{}-namesrv", cluster.name)
}

/// Where brokers find name servers: one name that stands for all of them, so that their number may change.
pub fn address(cluster: &ValidatedCluster) -> String {
    format!("{}.{}.svc:{PORT}", name(cluster), cluster.namespace)
}

/// The headless service. It also names servers that are not ready: a broker that asks one in vain asks the next.
pub fn service(cluster: &ValidatedCluster) -> Service {
    let selector = labels::component_selector(cluster, NAMESRV);
    Service {
        metadata: metadata(cluster, name(cluster), labels::with_manager(selector.clone())),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector),
            ports: Some(vec![service_port("remoting", PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// A port of a headless service that leads to the container port of the same name.
pub(super) fn service_port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}

/// The stateful set. Name servers keep nothing, so their updates are left to Kubernetes.
pub fn stateful_set(cluster: &ValidatedCluster) -> StatefulSet {
    let selector = labels::role_selector(cluster, NAMESRV, NAMESRV);
    let labels = labels::with_manager(selector.clone());
    StatefulSet {
        metadata: metadata(cluster, name(cluster), labels.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(cluster.name_servers),
            service_name: Some(name(cluster)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod_spec(cluster)),
            },
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod_spec(cluster: &ValidatedCluster) -> PodSpec {
    PodSpec {
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(cluster.namesrv_image.clone()),
            image_pull_policy: cluster.pull_policy.map(|policy| policy.as_str().to_owned()),
            // The root file system is read-only, and what is kept there may go with the pod: it is the settings of ordered topics.
            args: Some(
                [format!("listenPort={PORT}"), "kvConfigPath=/tmp/namesrv/kvConfig.json".to_owned()]
                    .into_iter()
                    .flat_map(|setting| ["--set".to_owned(), setting])
                    .chain(tls::args(cluster))
                    .collect(),
            ),
            ports: Some(vec![pod::port("remoting", PORT)]),
            startup_probe: Some(pod::tcp_probe("remoting", 1, 60)),
            readiness_probe: Some(pod::tcp_probe("remoting", 5, 2)),
            liveness_probe: Some(pod::tcp_probe("remoting", 10, 6)),
            resources: Some(pod::resources(cluster.name_server_resources.as_ref(), "50m", "64Mi")),
            security_context: Some(pod::container_security()),
            volume_mounts: Some(std::iter::once(pod::mount("tmp", "/tmp", false)).chain(tls::mount(cluster)).collect()),
            ..Container::default()
        }],
        volumes: Some(std::iter::once(pod::scratch("tmp")).chain(tls::volume(cluster)).collect()),
        security_context: Some(pod::pod_security()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(30),
        ..broker::placed(cluster, labels::component_selector(cluster, NAMESRV), None)
    }
}
