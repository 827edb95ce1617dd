//! Consumer groups as brokers keep them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DataVersion;

/// One consumer group (`SubscriptionGroupConfig` in Java).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools)] // RocketMQ's own switches
pub struct SubscriptionGroup {
    /// 5.x: what else is said of the group, such as its `priority.factor`. Left out where there is nothing, as in 4.9.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The broker that pulls are suggested to go to, normally 0.
    pub broker_id: i64,
    /// Broadcasting consumers are welcome.
    pub consume_broadcast_enable: bool,
    /// The group may consume.
    pub consume_enable: bool,
    /// Kept for tools.
    pub consume_from_min_enable: bool,
    /// The group.
    pub group_name: String,
    /// Members hear of each other's coming and going.
    pub notify_consumer_ids_changed_enable: bool,
    /// Redeliveries before a message goes to the dead-letter queue.
    pub retry_max_times: i32,
    /// Queues of the retry topic.
    pub retry_queue_nums: i32,
    /// Where slow consumers are sent, if slaves may be read.
    pub which_broker_when_consume_slowly: i64,
    /// What only 5.x knows, such as `groupRetryPolicy`: kept for its tools, and for a broker of 5.x that gets the file back.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

impl Default for SubscriptionGroup {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            group_name: String::new(),
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            which_broker_when_consume_slowly: 1,
            more: BTreeMap::new(),
        }
    }
}

/// Body of `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST` (`SubscriptionGroupList` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupList {
    /// The groups.
    pub group_config_list: Vec<SubscriptionGroup>,
}

/// All groups of a broker (`SubscriptionGroupWrapper`; also the file `subscriptionGroup.json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupTable {
    /// Changes with the table.
    pub data_version: DataVersion,
    /// By name.
    pub subscription_group_table: BTreeMap<String, SubscriptionGroup>,
}
