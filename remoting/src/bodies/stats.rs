//! Offsets of topics and groups as tools show them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{QueueKey, SubscriptionData};

/// What a queue holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicOffset {
    /// Store time of the newest message, in milliseconds since 1970.
    pub last_update_timestamp: i64,
    /// The offset of the next message.
    pub max_offset: i64,
    /// The offset of the oldest message.
    pub min_offset: i64,
}

/// Answer to `GET_TOPIC_STATS_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicStats {
    /// By queue.
    pub offset_table: BTreeMap<QueueKey, TopicOffset>,
}

/// How far a group has come in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OffsetWrapper {
    /// The offset of the next message to be stored.
    pub broker_offset: i64,
    /// The offset of the next message to be consumed.
    pub consumer_offset: i64,
    /// Store time of the last message consumed, in milliseconds since 1970.
    pub last_timestamp: i64,
    /// 5.x: the offset of the next message to be pulled; tools show its distance as "Inflight".
    pub pull_offset: i64,
}

/// Answer to `GET_CONSUME_STATS`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStats {
    /// Messages consumed in a second.
    pub consume_tps: f64,
    /// By queue.
    pub offset_table: BTreeMap<QueueKey, OffsetWrapper>,
}

/// Answer to `INVOKE_BROKER_TO_RESET_OFFSET`, and what clients are told to go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResetOffset {
    /// The next offset to consume, by queue.
    pub offset_table: BTreeMap<QueueKey, i64>,
}

/// One entry of a consume queue, as `queryCq` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueEntry {
    /// The group's filter lets it pass.
    pub eval: bool,
    /// Where the message lies in the commit log, in bytes.
    pub physic_offset: i64,
    /// Its length in bytes.
    pub physic_size: i32,
    /// Hash of its tag.
    pub tags_code: i64,
}

/// Answer to `QUERY_CONSUME_QUEUE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueEntryList {
    /// The offset of the next message.
    pub max_queue_index: i64,
    /// The offset of the oldest message.
    pub min_queue_index: i64,
    /// The entries asked for.
    pub queue_data: Vec<QueueEntry>,
    /// The group's subscription, where a group is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    /// What the broker knows of the group's SQL92 expression, as text, where a group is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
}
