//! Small tables: key-value, topic and group lists, offsets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Text by text (`KVTable` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// The entries.
    pub table: BTreeMap<String, String>,
}

/// Names of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicList {
    /// A broker that knows the system topics, where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    /// The names.
    pub topic_list: Vec<String>,
}

/// Names of consumer groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupList {
    /// The names.
    pub group_list: Vec<String>,
}

/// Consumer offsets: by `topic@group`, then by queue (`consumerOffset.json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OffsetTable {
    /// The next offset to consume.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Answer to `QUERY_CORRECTION_OFFSET` (`QueryCorrectionOffsetBody` in Java).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CorrectionOffsets {
    /// Offset by queue.
    pub correction_offsets: BTreeMap<i32, i64>,
}

/// How far each delay level is delivered (`delayOffset.json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DelayOffsetTable {
    /// Queue offset by delay level, from 1.
    pub offset_table: BTreeMap<i32, i64>,
}
