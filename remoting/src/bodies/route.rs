//! What name servers tell of topics and brokers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a topic lives (`TopicRouteData` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicRoute {
    /// The groups that serve it.
    pub broker_datas: Vec<BrokerData>,
    /// Of a feature long gone; clients want the field.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// `brokerName:queues;…` of an ordered topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// Its queues on each of them.
    pub queue_datas: Vec<QueueData>,
}

/// The queues of a topic on one broker group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueData {
    /// The group.
    pub broker_name: String,
    /// See [`TopicConfig`](super::TopicConfig).
    pub perm: i32,
    /// Queues that consumers see.
    pub read_queue_nums: i32,
    /// Unit bits; some old peers write `topicSynFlag`.
    #[serde(alias = "topicSynFlag")]
    pub topic_sys_flag: i32,
    /// Queues that producers see.
    pub write_queue_nums: i32,
}

/// A broker group: a master and its slaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerData {
    /// `host:port` by broker id; 0 is the master.
    pub broker_addrs: BTreeMap<i64, String>,
    /// The group.
    pub broker_name: String,
    /// The cluster it belongs to.
    pub cluster: String,
}

/// All brokers (`ClusterInfo` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterInfo {
    /// By broker name.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Broker names by cluster.
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

/// The members of one broker group, as 5.x brokers ask for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerMemberGroup {
    /// `host:port` by broker id.
    pub broker_addrs: BTreeMap<i64, String>,
    /// The group.
    pub broker_name: String,
    /// The cluster.
    pub cluster: String,
}

/// Answer to `GET_BROKER_MEMBER_GROUP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerMemberGroupBody {
    /// The group that was asked for.
    pub broker_member_group: BrokerMemberGroup,
}
