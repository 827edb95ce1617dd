//! TLS of name servers and brokers: the Secret's volume, and RocketMQ's `tls.*` keys that name its files.
//!
//! The operator never reads the Secret; the kubelet hands it to the pods.

use k8s_openapi::api::core::v1::{SecretVolumeSource, Volume, VolumeMount};

use super::pod;
use crate::crd::TlsMode;
use crate::validate::ValidatedCluster;

const VOLUME: &str = "tls";
const PATH: &str = "/etc/rocketmq-tls";

/// The volume, where the cluster has TLS.
pub fn volume(cluster: &ValidatedCluster) -> Option<Volume> {
    cluster.tls.as_ref().map(|tls| Volume {
        name: VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(tls.secret_name.clone()),
            // For the group of the pod, which is not the files' owner.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    })
}

/// Where the container finds it.
pub fn mount(cluster: &ValidatedCluster) -> Option<VolumeMount> {
    cluster.tls.as_ref().map(|_| pod::mount(VOLUME, PATH, true))
}

/// The keys as arguments. Connections between the cluster's own processes are TLS in either mode, so that the change
/// from one mode to the other cuts nobody off.
pub fn args(cluster: &ValidatedCluster) -> Vec<String> {
    let Some(tls) = &cluster.tls else { return Vec::new() };
    let mode = match tls.mode {
        TlsMode::Permissive => "permissive",
        TlsMode::Enforcing => "enforcing",
    };
    let mut settings = vec![
        "tls.enable=true".to_owned(),
        format!("tls.server.mode={mode}"),
        format!("tls.server.certPath={PATH}/tls.crt"),
        format!("tls.server.keyPath={PATH}/tls.key"),
    ];
    if tls.verify {
        settings.push("tls.client.authServer=true".to_owned());
        settings.push(format!("tls.client.trustCertPath={PATH}/ca.crt"));
    }
    settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{broker, namesrv};
    use crate::crd::RocketMQCluster;
    use crate::validate::Defaults;
    use k8s_openapi::api::apps::v1::StatefulSet;

    fn sets(spec: serde_json::Value) -> Vec<StatefulSet> {
        let cluster = RocketMQCluster::new("demo", serde_json::from_value(spec).unwrap());
        let cluster = ValidatedCluster::new(&cluster, &Defaults::default()).unwrap();
        vec![
            namesrv::stateful_set(&cluster),
            broker::stateful_set(&cluster, broker::Role::Master, 1),
            broker::stateful_set(&cluster, broker::Role::Slave(1), 1),
        ]
    }

    fn text(set: &StatefulSet) -> String {
        serde_json::to_string(&set.spec.as_ref().unwrap().template).unwrap()
    }

    #[test]
    fn every_pod_has_the_secret_and_the_keys_that_name_its_files() {
        for set in sets(serde_json::json!({ "tls": { "secretName": "mine", "mode": "Enforcing", "verify": true } })) {
            let text = text(&set);
            for part in [
                r#""secretName":"mine""#,
                r#""mountPath":"/etc/rocketmq-tls""#,
                "tls.enable=true",
                "tls.server.mode=enforcing",
                "tls.server.certPath=/etc/rocketmq-tls/tls.crt",
                "tls.server.keyPath=/etc/rocketmq-tls/tls.key",
                "tls.client.authServer=true",
                "tls.client.trustCertPath=/etc/rocketmq-tls/ca.crt",
            ] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
    }

    #[test]
    fn without_it_nothing_of_it_is_there() {
        for set in sets(serde_json::json!({})) {
            assert!(!text(&set).contains("tls"), "{}", text(&set));
        }
        for set in sets(serde_json::json!({ "tls": { "secretName": "mine" } })) {
            assert!(text(&set).contains("tls.server.mode=permissive") && !text(&set).contains("authServer"));
        }
    }
}
