//! Which topics and consumer groups a new broker group must be given, from the tables of those that serve.
//!
//! Pure. A table is what a broker answered; the broker's own system topics and groups are never copied.

use std::collections::BTreeMap;

use rocketmq_remoting::bodies::{SubscriptionGroup, TopicConfig};

/// All topics and consumer groups of one broker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// By topic name.
    pub topics: BTreeMap<String, TopicConfig>,
    /// By group name.
    pub groups: BTreeMap<String, SubscriptionGroup>,
}

/// What one broker lacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Missing {
    /// Topics to create, by name.
    pub topics: Vec<TopicConfig>,
    /// Consumer groups to create, by name.
    pub groups: Vec<SubscriptionGroup>,
}

impl Missing {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.groups.is_empty()
    }
}

/// What `target` lacks of what `source` has.
pub fn missing(cluster: &str, source: &Tables, target: &Tables) -> Missing {
    let topics = source
        .topics
        .values()
        .filter(|topic| !target.topics.contains_key(&topic.topic_name))
        .filter(|topic| !is_system_topic(cluster, &topic.topic_name))
        .cloned()
        .collect();
    let groups = source
        .groups
        .iter()
        .filter(|(name, _)| !target.groups.contains_key(*name) && !is_system_group(name))
        .map(|(_, group)| group.clone())
        .collect();
    Missing { topics, groups }
}

/// All of `tables` in one; where two know a name, the earlier one counts.
pub fn union<'a>(tables: impl IntoIterator<Item = &'a Tables>) -> Tables {
    let mut all = Tables::default();
    for table in tables {
        for (name, topic) in &table.topics {
            all.topics.entry(name.clone()).or_insert_with(|| topic.clone());
        }
        for (name, group) in &table.groups {
            all.groups.entry(name.clone()).or_insert_with(|| group.clone());
        }
    }
    all
}

/// Whether a broker makes this topic by itself, so that copying it would be refused or wrong.
///
/// The fixed names and the prefix are those of 4.9 and 5.3; the cluster's and the brokers' own names are topics too.
pub fn is_system_topic(cluster: &str, topic: &str) -> bool {
    const NAMES: [&str; 10] = [
        "TBW102",
        "AUTO_CREATE_TOPIC_KEY",
        "SELF_TEST_TOPIC",
        "BenchmarkTest",
        "SCHEDULE_TOPIC_XXXX",
        "OFFSET_MOVED_EVENT",
        "TRANS_CHECK_MAX_TIME_TOPIC",
        "CHECKPOINT_TOPIC",
        "DefaultHeartBeatSyncerTopic",
        "DefaultCluster_REPLY_TOPIC",
    ];
    let own_name =
        topic.strip_prefix("broker-").is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()));
    NAMES.contains(&topic)
        || topic == cluster
        || topic.strip_suffix("_REPLY_TOPIC") == Some(cluster)
        || topic.get(..8).is_some_and(|prefix| prefix.eq_ignore_ascii_case("rmq_sys_"))
        || own_name
}

/// Whether a broker makes this consumer group by itself.
pub fn is_system_group(group: &str) -> bool {
    const NAMES: [&str; 13] = [
        "TOOLS_CONSUMER",
        "FILTERSRV_CONSUMER",
        "SELF_TEST_C_GROUP",
        "SELF_TEST_P_GROUP",
        "CID_ONS-HTTP-PROXY",
        "CID_ONSAPI_PULL",
        "CID_ONSAPI_PERMISSION",
        "CID_ONSAPI_OWNER",
        "CLIENT_INNER_PRODUCER",
        "DEFAULT_PRODUCER",
        "DEFAULT_CONSUMER",
        "SCHEDULE_CONSUMER",
        "__MONITOR_CONSUMER",
    ];
    NAMES.contains(&group) || group.starts_with("CID_RMQ_SYS_") || group.starts_with("CID_DefaultHeartBeatSyncerTopic")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(topics: &[&str], groups: &[&str]) -> Tables {
        Tables {
            topics: topics.iter().map(|name| ((*name).to_owned(), TopicConfig::new(*name, 8, 6))).collect(),
            groups: groups.iter().map(|name| ((*name).to_owned(), SubscriptionGroup::default())).collect(),
        }
    }

    #[test]
    fn user_retry_and_dead_letter_topics_are_copied_system_topics_are_not() {
        let source = tables(
            &[
                "TBW102",
                "demo",
                "broker-0",
                "demo_REPLY_TOPIC",
                "RMQ_SYS_TRANS_HALF_TOPIC",
                "rmq_sys_wheel_timer",
                "orders",
                "%RETRY%g",
                "%DLQ%g",
                "broker-orders",
                "known",
            ],
            &["g", "TOOLS_CONSUMER", "CID_RMQ_SYS_TRANS"],
        );
        let missing = missing("demo", &source, &tables(&["known"], &[]));
        let names: Vec<&str> = missing.topics.iter().map(|topic| topic.topic_name.as_str()).collect();
        assert_eq!(names, ["%DLQ%g", "%RETRY%g", "broker-orders", "orders"]);
        assert_eq!(missing.groups.len(), 1);
    }

    #[test]
    fn nothing_is_missing_from_a_copy() {
        let source = tables(&["a", "b"], &["g"]);
        assert!(missing("demo", &source, &source).is_empty());
    }

    #[test]
    fn the_earlier_table_counts() {
        let mut first = tables(&["a"], &[]);
        first.topics.get_mut("a").unwrap().read_queue_nums = 3;
        let all = union([&first, &tables(&["a", "b"], &["g"])]);
        assert_eq!(all.topics["a"].read_queue_nums, 3);
        assert_eq!((all.topics.len(), all.groups.len()), (2, 1));
    }
}
