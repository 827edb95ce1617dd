//! The `RocketMQCluster` resource: spec, status, defaults and CEL rules.
//!
//! Owns the shape users write and read, nothing of what is done with it. Every optional field is left out when it is
//! unset: a `null` would be taken for a value by transition rules, and server-side apply would own it.

#![expect(unreachable_pub, reason = "the derive repeats the spec in a private module to make its schema")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{CustomResourceExt, Rule};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a cluster shall be. All of it has defaults: `spec: {}` is a working cluster of one master and one slave.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rocketmq.rs",
    version = "v1alpha1",
    kind = "RocketMQCluster",
    plural = "rocketmqclusters",
    namespaced,
    status = "RocketMQClusterStatus",
    shortname = "rmq",
    shortname = "rmqc",
    category = "rocketmq",
    derive = "PartialEq",
    doc = "A RocketMQ cluster: name servers and broker groups, each a master and its slaves.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "GroupsReady", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Slaves", type_ = "integer", json_path = ".spec.slaves"),
    printcolumn(name = "Replication", type_ = "string", json_path = ".spec.replication"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Doing",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Reconciling\")].reason"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 37")
        .message("metadata.name may have 37 characters at most: the names of stateful sets and their revisions are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must begin with a letter and hold only a-z, 0-9 and -: services are named after it"),
    cel
)]
#[x_kube(
    validation = Rule::new("self.replication != 'Sync' || self.slaves > 0")
        .message("replication Sync needs slaves of at least 1: a synchronous master without a slave answers every send with SLAVE_NOT_AVAILABLE"),
    validation = Rule::new("self.storage.size == oldSelf.storage.size")
        .message("storage.size cannot be changed: the claims of a stateful set are immutable and volumes are not resized yet"),
    validation = Rule::new("has(self.storage.storageClassName) == has(oldSelf.storage.storageClassName) && (!has(self.storage.storageClassName) || self.storage.storageClassName == oldSelf.storage.storageClassName)")
        .message("storage.storageClassName cannot be changed: volumes stay in the class they were made in"),
    validation = Rule::new("self.scaleDown.policy != 'Wait' || !has(self.scaleDown.deadlineSeconds)")
        .message("scaleDown.deadlineSeconds needs the policy Retain or Discard: Wait waits until everything is consumed"),
    validation = Rule::new("!has(self.tls) || self.tls.mode != 'Enforcing' || has(oldSelf.tls)")
        .message("tls.mode of a running cluster goes to Enforcing by way of Permissive: pods that are not restarted yet would be cut off"),
    validation = Rule::new("has(self.tls) || !has(oldSelf.tls) || oldSelf.tls.mode != 'Enforcing'")
        .message("tls of a running cluster is taken away by way of the mode Permissive: pods that are not restarted yet would be cut off"),
)]
#[serde(rename_all = "camelCase")]
pub struct RocketMQClusterSpec {
    /// Broker groups, each a master and its slaves. This is what `kubectl scale` changes.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: i32,
    /// Slaves of every master; 0 is a multi-master cluster.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 4))]
    pub slaves: i32,
    /// `Async`: a send is answered once the master has it. `Sync`: once a slave has it too.
    #[serde(default)]
    pub replication: Replication,
    /// `Async`: a send is answered once it is in memory. `Sync`: once it is on disk.
    #[serde(default)]
    pub flush: Flush,
    /// The name servers.
    #[serde(default)]
    pub name_servers: NameServers,
    /// The volume of every broker.
    #[serde(default)]
    pub storage: Storage,
    /// Further keys of `broker.conf`, the same for every broker. Keys that the operator sets itself are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "config_schema")]
    #[x_kube(
        validation = owned("brokerPermission"), validation = owned("startAcceptSendRequestTimeStamp"),
        validation = owned("brokerName"), validation = owned("brokerId"), validation = owned("brokerRole"),
        validation = owned("brokerClusterName"), validation = owned("flushDiskType"), validation = owned("namesrvAddr"),
        validation = owned("listenPort"), validation = owned("haListenPort"), validation = owned("httpPort"),
        validation = owned("brokerIP1"), validation = owned("brokerIP2"), validation = owned("haMasterAddress"),
        validation = owned("rocketmqHome"), validation = owned("brokerConfigPath"),
        validation = owned("fetchNamesrvAddrByAddressServer"), validation = owned("storePathRootDir"),
        validation = owned("storePathCommitLog"), validation = owned("storePathConsumeQueue"),
        validation = owned("storePathIndex"), validation = owned("storeCheckpoint"), validation = owned("abortFile"),
    )]
    pub config: BTreeMap<String, String>,
    /// Container images; the operator's own settings fill what is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Requests and limits of every broker container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where brokers and name servers may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// What becomes of a group that is scaled away and still holds messages.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// TLS on the ports of name servers and brokers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// The keys of `broker.conf` that the operator sets itself, which `spec.config` may therefore not hold.
pub const OWNED_CONFIG_KEYS: [&str; 23] = [
    "brokerPermission",
    "startAcceptSendRequestTimeStamp",
    "brokerName",
    "brokerId",
    "brokerRole",
    "brokerClusterName",
    "flushDiskType",
    "namesrvAddr",
    "listenPort",
    "haListenPort",
    "httpPort",
    "brokerIP1",
    "brokerIP2",
    "haMasterAddress",
    "rocketmqHome",
    "brokerConfigPath",
    "fetchNamesrvAddrByAddressServer",
    "storePathRootDir",
    "storePathCommitLog",
    "storePathConsumeQueue",
    "storePathIndex",
    "storeCheckpoint",
    "abortFile",
];

/// One rule for each key: looking a key up costs the API server next to nothing, walking all keys of a map costs more
/// than it allows, and the message can name the key.
fn owned(key: &str) -> Rule {
    Rule::new(format!("!('{key}' in self)"))
        .message(format!("config.{key} is set by the operator and cannot be given here").as_str())
}

/// When a master answers a send, as to its slaves.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// `ASYNC_MASTER`
    #[default]
    Async,
    /// `SYNC_MASTER`, double write
    Sync,
}

/// When a broker answers a send, as to its disk.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flush {
    /// `ASYNC_FLUSH`
    #[default]
    Async,
    /// `SYNC_FLUSH`
    Sync,
}

/// The name servers of a cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct NameServers {
    /// How many; each knows every broker, so one is enough to serve and two survive the loss of one.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: i32,
    /// Requests and limits of the name server container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

impl Default for NameServers {
    fn default() -> Self {
        Self { replicas: two(), resources: None }
    }
}

/// The volume of every broker.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of each broker's volume, a Kubernetes quantity.
    #[serde(default = "ten_gibibytes")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"))]
    pub size: String,
    /// Storage class; the default class when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What happens to the volumes when the cluster is deleted.
    #[serde(default)]
    pub when_deleted: WhenDeleted,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: ten_gibibytes(), storage_class_name: None, when_deleted: WhenDeleted::default() }
    }
}

/// What becomes of a group that is scaled away. It takes no messages from the first moment on; what it holds is still
/// consumed from it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDown {
    /// When the group goes, and its volumes.
    #[serde(default)]
    pub policy: ScaleDownPolicy,
    /// With `Retain` and `Discard`: how long consumers have, in seconds; 600 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub deadline_seconds: Option<i64>,
}

/// When a group that is scaled away goes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleDownPolicy {
    /// Once every message has been consumed, however long that takes. Its volumes stay.
    #[default]
    Wait,
    /// The same, or at the deadline. Its volumes stay, and a group that grows again has what was not consumed.
    Retain,
    /// The same, or at the deadline. Its volumes go, with what was not consumed.
    Discard,
}

/// TLS on the ports of name servers and brokers, which serve it and plain connections on one port.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// A Secret of type `kubernetes.io/tls` in the cluster's namespace: `tls.crt`, `tls.key`, and `ca.crt` for `verify`.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Whether plain connections are served too.
    #[serde(default)]
    pub mode: TlsMode,
    /// Whether brokers believe only servers that `ca.crt` of the Secret vouches for.
    #[serde(default)]
    pub verify: bool,
}

/// Which connections are served.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Both sorts: `tls.server.mode=permissive`.
    #[default]
    Permissive,
    /// TLS only: `tls.server.mode=enforcing`.
    Enforcing,
}

/// What happens to the volumes of a deleted cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDeleted {
    /// They stay, and a cluster of the same name finds its messages again.
    #[default]
    Retain,
    /// They go with the cluster.
    Delete,
}

/// Container images.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Image of the name servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub namesrv: Option<String>,
    /// Image of the brokers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub broker: Option<String>,
    /// When the images are pulled; Kubernetes decides by the tag when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
}

/// When an image is pulled.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has none.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The word Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Requests and limits of a container, as in a pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub requests: BTreeMap<String, IntOrString>,
    /// What the container may not exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub limits: BTreeMap<String, IntOrString>,
}

/// Where pods may run. The inner fields are Kubernetes' own and are checked when the pods are made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_objects_schema")]
    pub tolerations: Vec<Toleration>,
    /// Takes the place of the operator's own affinity, which keeps a master and its slaves on different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "open_object_schema")]
    pub affinity: Option<Affinity>,
    /// How pods spread over zones or nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_objects_schema")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// What the operator has seen and decided.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RocketMQClusterStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Broker groups that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Broker groups whose master and slaves are all ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the masters, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Ready, Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// One entry for each broker group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupStatus>,
}

/// A condition of the cluster, with the fields of Kubernetes' own condition type.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Reconciling` or `Stalled`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// When `status` last changed, RFC 3339.
    pub last_transition_time: String,
    /// The generation of the spec that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// How one broker group is doing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// The name clients see, `broker-<ordinal>`.
    pub broker_name: String,
    /// Whether the master is ready.
    pub master_ready: bool,
    /// Slaves that are ready.
    pub slaves_ready: i32,
    /// Where the group is in its life.
    pub state: GroupState,
    /// How far a group has come that is being emptied, or that is being opened again after that was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// It was added since and its master has never been ready, so that nobody can have sent it anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untouched: bool,
}

/// How far a group has come that is being emptied. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// When it began; the deadline counts from here.
    pub since: String,
    /// Since when the master has been seen to take no messages, without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_since: Option<String>,
    /// Messages that are left, each counted for every consumer group that lacks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<i64>,
    /// What it waits for, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waiting_for: String,
}

/// Where a broker group is in its life. A healthy one starts, copies topics and serves.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// The master has never been ready.
    Starting,
    /// The master is ready, topics and consumer groups of the others are being created on it.
    CopyingTopics,
    /// It has all topics, and master and slaves are ready.
    Serving,
    /// The master serves, a slave is missing.
    SlaveMissing,
    /// It has served, the master is not ready now.
    MasterDown,
    /// It is scaled away: it takes no messages, and goes once what it holds is consumed.
    Draining,
}

impl GroupState {
    /// Whether the group has been given the topics of the others. One that was being emptied is given them again: others
    /// may have been made since. The status is where this is kept, so that it
    /// outlives the operator.
    pub fn has_joined(self) -> bool {
        matches!(self, Self::Serving | Self::SlaveMissing | Self::MasterDown)
    }
}

/// The custom resource definition, as it is installed.
///
/// The derived one demands `spec`; here it has a default, so that a manifest may leave it out altogether. The default is
/// written in full, because API servers hold it against the rules before they fill anything in.
pub fn definition() -> CustomResourceDefinition {
    let mut definition = RocketMQCluster::crd();
    let defaults = spec_defaults();
    for version in &mut definition.spec.versions {
        let properties = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|schema| schema.properties.as_mut());
        if let Some(spec) = properties.and_then(|properties| properties.get_mut("spec")) {
            spec.default = Some(JSON(defaults.clone()));
        }
    }
    definition
}

/// What `spec: {}` stands for.
fn spec_defaults() -> serde_json::Value {
    serde_json::json!({
        "replicas": one(),
        "slaves": one(),
        "replication": Replication::default(),
        "flush": Flush::default(),
        "nameServers": NameServers::default(),
        "storage": Storage::default(),
        "scaleDown": ScaleDown::default(),
    })
}

fn one() -> i32 {
    1
}

fn two() -> i32 {
    2
}

fn ten_gibibytes() -> String {
    "10Gi".to_owned()
}

/// Values are bounded because a rule's cost is reckoned from the largest value, and a line end would smuggle in a key.
fn config_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 256,
        "additionalProperties": { "type": "string", "maxLength": 1024, "pattern": r"^[^\r\n]*$" },
    })
}

fn quantities_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": { "x-kubernetes-int-or-string": true },
    })
}

fn open_object_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn open_objects_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    })
}

fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<Condition>();
    json_schema!({
        "type": "array",
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(spec: serde_json::Value) -> RocketMQCluster {
        RocketMQCluster::new("demo", serde_json::from_value(spec).unwrap())
    }

    /// What the rules say of `spec`, changed from `old` if there is one; empty when they accept.
    fn refusal(spec: serde_json::Value, old: Option<serde_json::Value>) -> String {
        let new = cluster(spec);
        let result = match old {
            Some(old) => new.validate_cel_update(&cluster(old)),
            None => new.validate_cel(),
        };
        result.err().map(|faults| faults.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_default_of_spec_is_what_an_empty_one_becomes() {
        assert_eq!(serde_json::to_value(cluster(json!({})).spec).unwrap(), spec_defaults());
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(refusal(json!({}), None), "");
        assert_eq!(refusal(json!({}), Some(json!({}))), "");
    }

    #[test]
    fn synchronous_replication_needs_a_slave() {
        assert_eq!(refusal(json!({ "replication": "Sync", "slaves": 1 }), None), "");
        assert_eq!(refusal(json!({ "replication": "Async", "slaves": 0 }), None), "");
        let text = refusal(json!({ "replication": "Sync", "slaves": 0 }), None);
        assert!(text.contains("SLAVE_NOT_AVAILABLE"), "{text}");
    }

    #[test]
    fn the_size_of_volumes_stays() {
        let old = json!({ "storage": { "size": "10Gi" }, "replicas": 1 });
        let same = json!({ "storage": { "size": "10Gi" }, "replicas": 2 });
        assert_eq!(refusal(same, Some(old.clone())), "");
        for size in ["5Gi", "20Gi"] {
            let text = refusal(json!({ "storage": { "size": size } }), Some(old.clone()));
            assert!(text.contains("storage.size cannot be changed"), "{text}");
        }
    }

    #[test]
    fn the_storage_class_stays() {
        let with = |class: &str| json!({ "storage": { "storageClassName": class } });
        assert_eq!(refusal(with("fast"), Some(with("fast"))), "");
        for (new, old) in [(with("slow"), with("fast")), (with("fast"), json!({})), (json!({}), with("fast"))] {
            let text = refusal(new, Some(old));
            assert!(text.contains("storage.storageClassName cannot be changed"), "{text}");
        }
    }

    #[test]
    fn each_key_of_the_operator_is_refused_by_name_and_others_are_not() {
        assert_eq!(refusal(json!({ "config": { "fileReservedTime": "48" } }), None), "");
        for key in OWNED_CONFIG_KEYS {
            let text = refusal(json!({ "config": { key: "x" } }), None);
            assert!(text.contains(&format!("config.{key} is set by the operator")), "{key}: {text}");
        }
    }

    #[test]
    fn a_deadline_is_for_policies_that_have_one() {
        for policy in ["Retain", "Discard"] {
            assert_eq!(refusal(json!({ "scaleDown": { "policy": policy, "deadlineSeconds": 5 } }), None), "");
            assert_eq!(refusal(json!({ "scaleDown": { "policy": policy } }), None), "");
        }
        let text = refusal(json!({ "scaleDown": { "deadlineSeconds": 5 } }), None);
        assert!(text.contains("scaleDown.deadlineSeconds needs the policy"), "{text}");
    }

    #[test]
    fn tls_is_enforced_and_given_up_by_way_of_permissive() {
        let tls = |mode: &str| json!({ "tls": { "secretName": "s", "mode": mode } });
        let (none, permissive, enforcing) = (json!({}), tls("Permissive"), tls("Enforcing"));
        assert_eq!(refusal(enforcing.clone(), None), "", "a new cluster may begin with it");
        for (old, new) in [
            (&none, &permissive),
            (&permissive, &enforcing),
            (&enforcing, &permissive),
            (&permissive, &none),
            (&enforcing, &enforcing),
        ] {
            assert_eq!(refusal(new.clone(), Some(old.clone())), "", "{old} to {new}");
        }
        let text = refusal(enforcing.clone(), Some(none.clone()));
        assert!(text.contains("goes to Enforcing by way of Permissive"), "{text}");
        let text = refusal(none, Some(enforcing));
        assert!(text.contains("taken away by way of the mode Permissive"), "{text}");
    }

    #[test]
    fn names_are_bounded() {
        let named = |name: &str| {
            let spec = serde_json::from_value(json!({})).unwrap();
            RocketMQCluster::new(name, spec).validate_cel().err().map(|faults| faults.to_string())
        };
        assert_eq!(named(&"a".repeat(37)), None);
        assert!(named(&"a".repeat(38)).unwrap().contains("37 characters"));
        assert_eq!(named("a-1"), None);
        for name in ["1a", "a.b", "a-"] {
            assert!(named(name).unwrap().contains("must begin with a letter"), "{name}");
        }
    }

    #[test]
    fn the_installed_definition_is_the_one_of_this_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crd.yaml");
        let installed = std::fs::read_to_string(path).unwrap();
        let current = crate::manifest::definition_yaml().unwrap();
        assert!(installed == current, "write it anew: rocketmq-operator crd > deploy/crd.yaml");
    }

    #[test]
    fn no_number_has_a_format_that_api_servers_do_not_know() {
        let text = crate::manifest::definition_yaml().unwrap();
        assert!(!text.contains("uint"), "unsigned formats draw a warning at every apply");
    }
}
