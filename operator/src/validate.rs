//! Turns the resource as users write it into one that the rest of the operator may trust.
//!
//! No I/O. What the schema and the CEL rules already refuse is checked again where planning on it would be wrong:
//! a resource may be older than its rules. Nothing after this module looks at the raw spec.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use thiserror::Error;

use crate::crd::{
    Flush, OWNED_CONFIG_KEYS, Placement, PullPolicy, Replication, Resources, RocketMQCluster, ScaleDownPolicy, Tls,
    WhenDeleted,
};

/// How long consumers have where a policy with a deadline names none.
const DEADLINE_SECONDS: i64 = 600;

/// What the operator itself is set to, for all clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Image of name servers whose cluster names none.
    pub namesrv_image: String,
    /// Image of brokers whose cluster names none.
    pub broker_image: String,
}

impl Default for Defaults {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            namesrv_image: format!("rocketmq-rs/namesrv:{version}"),
            broker_image: format!("rocketmq-rs/broker:{version}"),
        }
    }
}

/// A cluster whose every field has been checked and whose every default has been filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedCluster {
    /// Name of the resource, and `brokerClusterName`.
    pub name: String,
    /// Where it lives.
    pub namespace: String,
    /// Owner of everything that is made for it; none when the resource does not live in an API server.
    pub owner: Option<OwnerReference>,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Broker groups wanted.
    pub replicas: i32,
    /// Slaves of every master.
    pub slaves: i32,
    /// As to slaves, when a send is answered.
    pub replication: Replication,
    /// As to disk, when a send is answered.
    pub flush: Flush,
    /// Name servers wanted.
    pub name_servers: i32,
    /// Resources of a name server.
    pub name_server_resources: Option<Resources>,
    /// Size of each broker's volume.
    pub storage_size: String,
    /// Storage class, or the default class.
    pub storage_class: Option<String>,
    /// What becomes of volumes.
    pub when_deleted: WhenDeleted,
    /// The user's keys of `broker.conf`.
    pub config: BTreeMap<String, String>,
    /// Image of the name servers.
    pub namesrv_image: String,
    /// Image of the brokers.
    pub broker_image: String,
    /// When images are pulled, or Kubernetes' default.
    pub pull_policy: Option<PullPolicy>,
    /// Resources of a broker.
    pub broker_resources: Option<Resources>,
    /// Where pods may run.
    pub placement: Placement,
    /// What becomes of a group that is scaled away.
    pub scale_down: ScaleDownPolicy,
    /// After how many seconds such a group goes though it is not empty; never where there is none.
    pub scale_down_deadline: Option<i64>,
    /// TLS, where it is set.
    pub tls: Option<Tls>,
}

/// Why a resource cannot be planned. Each names the field.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Invalid {
    /// A number is outside of what the schema allows.
    #[error("spec.{field} is {value}, accepted are {minimum} to {maximum}")]
    OutOfRange {
        /// Path below spec.
        field: &'static str,
        /// What was given.
        value: i32,
        /// Least accepted.
        minimum: i32,
        /// Most accepted.
        maximum: i32,
    },
    /// The name would make names that Kubernetes refuses.
    #[error("metadata.name {0:?} must begin with a letter, hold only a-z, 0-9 and - and have 37 characters at most")]
    Name(String),
    /// The operator sets this key itself.
    #[error("spec.config.{0} is set by the operator and cannot be given here")]
    OwnedKey(String),
    /// Not the name of a property.
    #[error("spec.config has the key {0:?}, accepted are letters, digits, '.', '_' and '-'")]
    Key(String),
    /// A value would not stay on its line.
    #[error("spec.config.{0} holds a line end")]
    Value(String),
    /// Synchronous replication to nobody.
    #[error("spec.replication Sync needs spec.slaves of at least 1")]
    SyncWithoutSlaves,
    /// Waiting knows no deadline.
    #[error("spec.scaleDown.deadlineSeconds needs the policy Retain or Discard")]
    DeadlineWithoutPolicy,
    /// Not a quantity, or nothing.
    #[error("spec.storage.size {0:?} is not a positive quantity such as 10Gi")]
    Size(String),
}

impl ValidatedCluster {
    /// Checks `cluster` and fills it up with `defaults`.
    pub fn new(cluster: &RocketMQCluster, defaults: &Defaults) -> Result<Self, Invalid> {
        let spec = &cluster.spec;
        let name = cluster.metadata.name.clone().unwrap_or_default();
        if !is_usable_name(&name) {
            return Err(Invalid::Name(name));
        }
        in_range("replicas", spec.replicas, 0, 64)?;
        in_range("slaves", spec.slaves, 0, 4)?;
        in_range("nameServers.replicas", spec.name_servers.replicas, 1, 5)?;
        if spec.replication == Replication::Sync && spec.slaves == 0 {
            return Err(Invalid::SyncWithoutSlaves);
        }
        if !is_positive_quantity(&spec.storage.size) {
            return Err(Invalid::Size(spec.storage.size.clone()));
        }
        check_config(&spec.config)?;
        let deadline = spec.scale_down.deadline_seconds;
        let scale_down_deadline = match spec.scale_down.policy {
            ScaleDownPolicy::Wait if deadline.is_some() => return Err(Invalid::DeadlineWithoutPolicy),
            ScaleDownPolicy::Wait => None,
            ScaleDownPolicy::Retain | ScaleDownPolicy::Discard => Some(deadline.unwrap_or(DEADLINE_SECONDS).max(0)),
        };
        let image = spec.image.clone().unwrap_or_default();
        Ok(Self {
            namespace: cluster.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            owner: cluster.controller_owner_ref(&()),
            generation: cluster.metadata.generation,
            replicas: spec.replicas,
            slaves: spec.slaves,
            replication: spec.replication,
            flush: spec.flush,
            name_servers: spec.name_servers.replicas,
            name_server_resources: spec.name_servers.resources.clone(),
            storage_size: spec.storage.size.clone(),
            storage_class: spec.storage.storage_class_name.clone(),
            when_deleted: spec.storage.when_deleted,
            config: spec.config.clone(),
            namesrv_image: image.namesrv.unwrap_or_else(|| defaults.namesrv_image.clone()),
            broker_image: image.broker.unwrap_or_else(|| defaults.broker_image.clone()),
            pull_policy: image.pull_policy,
            broker_resources: spec.resources.clone(),
            placement: spec.placement.clone().unwrap_or_default(),
            scale_down: spec.scale_down.policy,
            scale_down_deadline,
            tls: spec.tls.clone(),
            name,
        })
    }
}

fn in_range(field: &'static str, value: i32, minimum: i32, maximum: i32) -> Result<(), Invalid> {
    if (minimum..=maximum).contains(&value) {
        Ok(())
    } else {
        Err(Invalid::OutOfRange { field, value, minimum, maximum })
    }
}

fn is_usable_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 37
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(inner)
}

fn is_positive_quantity(text: &str) -> bool {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let known = ["", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"].contains(&unit);
    known
        && !number.starts_with('.')
        && !number.ends_with('.')
        && number.parse::<f64>().is_ok_and(|number| number > 0.0)
}

fn check_config(config: &BTreeMap<String, String>) -> Result<(), Invalid> {
    for (key, value) in config {
        if OWNED_CONFIG_KEYS.contains(&key.as_str()) {
            return Err(Invalid::OwnedKey(key.clone()));
        }
        let accepted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if key.is_empty() || !key.chars().all(accepted) {
            return Err(Invalid::Key(key.clone()));
        }
        if value.contains(['\n', '\r']) {
            return Err(Invalid::Value(key.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::RocketMQClusterSpec;

    fn cluster(spec: &serde_json::Value) -> RocketMQCluster {
        let spec: RocketMQClusterSpec = serde_json::from_value(spec.clone()).unwrap();
        RocketMQCluster::new("demo", spec)
    }

    fn validate(spec: &serde_json::Value) -> Result<ValidatedCluster, Invalid> {
        ValidatedCluster::new(&cluster(spec), &Defaults::default())
    }

    #[test]
    fn an_empty_spec_is_a_working_cluster() {
        let cluster = validate(&serde_json::json!({})).unwrap();
        assert_eq!((cluster.replicas, cluster.slaves, cluster.name_servers), (1, 1, 2));
        assert_eq!(cluster.storage_size, "10Gi");
        assert!(cluster.broker_image.starts_with("rocketmq-rs/broker:"));
    }

    #[test]
    fn every_fault_names_its_field() {
        let faults = [
            (serde_json::json!({ "replicas": 65 }), "spec.replicas"),
            (serde_json::json!({ "slaves": -1 }), "spec.slaves"),
            (serde_json::json!({ "nameServers": { "replicas": 0 } }), "spec.nameServers.replicas"),
            (serde_json::json!({ "replication": "Sync", "slaves": 0 }), "spec.replication"),
            (serde_json::json!({ "storage": { "size": "0Gi" } }), "spec.storage.size"),
            (serde_json::json!({ "storage": { "size": "10X" } }), "spec.storage.size"),
            (serde_json::json!({ "storage": { "size": "1." } }), "spec.storage.size"),
            (serde_json::json!({ "config": { "brokerId": "1" } }), "spec.config.brokerId"),
            (serde_json::json!({ "config": { "a b": "1" } }), "spec.config"),
            (serde_json::json!({ "scaleDown": { "deadlineSeconds": 1 } }), "spec.scaleDown.deadlineSeconds"),
            (serde_json::json!({ "config": { "a": "1\nbrokerId=1" } }), "spec.config.a"),
        ];
        for (spec, field) in faults {
            let fault = validate(&spec).unwrap_err().to_string();
            assert!(fault.starts_with(field), "{spec}: {fault}");
        }
    }

    #[test]
    fn names_must_fit_what_is_made_of_them() {
        for (name, usable) in [
            ("demo", true),
            ("a-1", true),
            ("1a", false),
            ("a.b", false),
            ("a-", false),
            ("", false),
            (&"a".repeat(37), true),
            (&"a".repeat(38), false),
        ] {
            assert_eq!(is_usable_name(name), usable, "{name}");
        }
    }
}
