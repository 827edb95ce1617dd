//! Topics as brokers keep them and name servers learn of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DataVersion;

/// Consumers may read the topic.
pub const PERM_READ: i32 = 4;
/// Producers may write it.
pub const PERM_WRITE: i32 = 2;
/// New topics may be made after it.
pub const PERM_INHERIT: i32 = 1;

/// One topic (`TopicConfig` in Java).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfig {
    /// 5.x: what else is said of the topic, such as its `message.type`. Left out where there is nothing, as in 4.9.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Consumers read it in the order of the name servers' `ORDER_TOPIC_CONFIG`.
    pub order: bool,
    /// Of [`PERM_READ`], [`PERM_WRITE`] and [`PERM_INHERIT`].
    pub perm: i32,
    /// Queues that consumers see.
    pub read_queue_nums: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    /// The topic.
    pub topic_name: String,
    /// Unit bits, kept for peers that use them.
    pub topic_sys_flag: i32,
    /// Queues that producers see.
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: PERM_READ | PERM_WRITE,
            read_queue_nums: 16,
            topic_filter_type: "SINGLE_TAG".into(),
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

impl TopicConfig {
    /// A topic of that many queues to read and write.
    pub fn new(name: impl Into<String>, queues: i32, perm: i32) -> Self {
        Self { topic_name: name.into(), read_queue_nums: queues, write_queue_nums: queues, perm, ..Self::default() }
    }
}

/// Body of `UPDATE_AND_CREATE_TOPIC_LIST` (`CreateTopicListRequestBody` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigList {
    /// The topics.
    pub topic_config_list: Vec<TopicConfig>,
}

/// All topics of a broker (`TopicConfigSerializeWrapper`; also the file `topics.json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigTable {
    /// Changes with the table.
    pub data_version: DataVersion,
    /// By name.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
}
