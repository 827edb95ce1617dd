//! The broker's topics: `config/topics.json`, and the rules by which topics come to be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rocketmq_remoting::bodies::{DataVersion, PERM_INHERIT, PERM_READ, PERM_WRITE, TopicConfig, TopicConfigTable};
use rocketmq_remoting::fastjson;
use rocketmq_store::SCHEDULE_TOPIC;
use tokio::sync::watch;

use crate::config::BrokerConfig;
use crate::timer::TIMER_TOPIC;
use crate::versioned_table::{Entries, TableFile, VersionedTable};

/// The template of topics that are made by the first send.
pub(crate) const DEFAULT_TOPIC: &str = "TBW102";
const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
const BENCHMARK_TOPIC: &str = "BenchmarkTest";
const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
pub(crate) const TRANS_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub(crate) const TRANS_OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub(crate) const TRANS_CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Messages that a group consumes again.
pub(crate) const RETRY_PREFIX: &str = "%RETRY%";
/// Messages that a group gave up.
pub(crate) const DLQ_PREFIX: &str = "%DLQ%";
const SYSTEM_PREFIX: &str = "rmq_sys_";
/// `TopicSysFlag.FLAG_UNIT`: a topic of producers that belong to a unit.
pub(crate) const FLAG_UNIT: i32 = 1;
/// `TopicSysFlag.FLAG_UNIT_SUB`: a retry topic of a group that belongs to a unit.
pub(crate) const FLAG_UNIT_SUB: i32 = 2;
/// Characters of a topic's name at most.
pub(crate) const NAME_MAX: usize = 127;

impl TableFile for TopicConfigTable {
    type Entry = TopicConfig;

    fn parse(text: &str) -> Result<Self, String> {
        fastjson::from_slice(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn text(&self) -> String {
        fastjson::to_string_pretty(self)
    }

    fn into_parts(self) -> (DataVersion, BTreeMap<String, TopicConfig>) {
        (self.data_version, self.topic_config_table)
    }

    fn from_parts(data_version: DataVersion, topic_config_table: BTreeMap<String, TopicConfig>) -> Self {
        Self { data_version, topic_config_table }
    }
}

/// All topics of this broker.
pub(crate) struct TopicTable {
    table: VersionedTable<TopicConfigTable>,
    system: BTreeSet<String>,
    /// `autoCreateTopicEnable`, which may change while the broker runs.
    auto_create: AtomicBool,
    /// Changes whenever the table does, so that the name servers hear of it.
    changed: watch::Sender<u64>,
}

impl TopicTable {
    /// Opens `config/topics.json` and adds the system topics that every broker has (4.9's
    /// `TopicConfigManager`).
    pub(crate) fn open(config_dir: &Path, config: &BrokerConfig) -> anyhow::Result<Self> {
        let topics = Self {
            table: VersionedTable::open(config_dir.join("topics.json"))?,
            system: system_names(config),
            auto_create: AtomicBool::new(config.auto_create_topic_enable),
            changed: watch::Sender::new(0),
        };
        for (name, topic) in &topics.to_wire().topic_config_table {
            // Of a Java broker of 5.x, whose files were taken over.
            if topic.attributes.get("queue.type").is_some_and(|kind| kind == "BatchCQ") {
                tracing::warn!(
                    "topic {name} has queue.type=BatchCQ: this broker writes no queues of batches, its messages are stored one by one"
                );
            }
        }
        let wanted = system_topics(config);
        let auto_create = config.auto_create_topic_enable;
        topics.update(|entries| {
            let mut changed = false;
            for topic in wanted {
                if !entries.contains_key(&*topic.topic_name) {
                    entries.insert(topic.topic_name.as_str().into(), Arc::new(topic));
                    changed = true;
                }
            }
            // A template that was loaded although it is switched off makes no topics any more.
            if let Some(template) = entries.get_mut(DEFAULT_TOPIC)
                && !auto_create
                && template.perm & PERM_INHERIT != 0
            {
                Arc::make_mut(template).perm = PERM_READ | PERM_WRITE;
                changed = true;
            }
            changed
        })?;
        Ok(topics)
    }

    fn update(&self, change: impl FnOnce(&mut Entries<TopicConfig>) -> bool) -> anyhow::Result<bool> {
        let changed = self.table.update(change)?;
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(changed)
    }

    /// Puts another `autoCreateTopicEnable` in force.
    pub(crate) fn set_auto_create(&self, auto_create: bool) {
        self.auto_create.store(auto_create, Ordering::Relaxed);
    }

    /// The topic of that name.
    pub(crate) fn get(&self, topic: &str) -> Option<Arc<TopicConfig>> {
        self.table.get(topic)
    }

    /// The whole table in its wire form.
    pub(crate) fn to_wire(&self) -> TopicConfigTable {
        self.table.to_wire()
    }

    /// Names of all topics, in no order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.table.snapshot().entries.keys().map(ToString::to_string).collect()
    }

    /// Tells of every change of the table.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Names that users may not create, sorted (answer to `GET_SYSTEM_TOPIC_LIST_FROM_BROKER`).
    pub(crate) fn system_names(&self) -> &BTreeSet<String> {
        &self.system
    }

    /// Whether the name is one of the system's.
    pub(crate) fn is_system(&self, topic: &str) -> bool {
        self.system.contains(topic) || topic.starts_with(SYSTEM_PREFIX)
    }

    /// Has the name servers told anew: what they are told of the topics depends on a setting that
    /// has changed.
    pub(crate) fn touch(&self) -> anyhow::Result<()> {
        self.update(|_| true)?;
        Ok(())
    }

    /// Creates or changes topics, all or none.
    pub(crate) fn put(&self, topics: impl IntoIterator<Item = TopicConfig>) -> anyhow::Result<()> {
        self.update(|entries| {
            let mut changed = false;
            for topic in topics {
                tracing::info!("create or update topic {topic:?}");
                entries.insert(topic.topic_name.as_str().into(), Arc::new(topic));
                changed = true;
            }
            changed
        })?;
        Ok(())
    }

    /// Removes a topic; false where there is none.
    pub(crate) fn delete(&self, topic: &str) -> anyhow::Result<bool> {
        self.update(|entries| entries.remove(topic).is_some())
    }

    /// The topic of that name, made with these settings where there is none.
    pub(crate) fn get_or_create(&self, topic: TopicConfig) -> anyhow::Result<Arc<TopicConfig>> {
        if let Some(known) = self.get(&topic.topic_name) {
            return Ok(known);
        }
        let name = topic.topic_name.clone();
        self.update(|entries| {
            if entries.contains_key(&*name) {
                return false;
            }
            tracing::info!("create new topic {topic:?}");
            entries.insert(name.as_str().into(), Arc::new(topic));
            true
        })?;
        self.get(&name).ok_or_else(|| anyhow::anyhow!("topic[{name}] was deleted as it was made"))
    }

    /// Adds a topic where there is none of that name. It is written by the next
    /// [`write_unwritten`](Self::write_unwritten): for retry topics, which their consumers make again.
    pub(crate) fn add_unwritten(&self, topic: TopicConfig) {
        let name = topic.topic_name.clone();
        if self.get(&name).is_none() && self.table.get_or_add_unwritten(&name, topic).1 {
            tracing::info!("create new topic {name}");
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Writes the topics that were added unwritten. Waits for the disk.
    pub(crate) fn write_unwritten(&self) -> anyhow::Result<()> {
        self.table.write_unwritten()
    }

    /// A topic made by the first send to it, after `template`: as many queues as the producer asks
    /// for and the template has at most (4.9's `createTopicInSendMessageMethod`). `None` where the
    /// template is not there or does not pass on its settings.
    pub(crate) fn create_for_send(
        &self,
        topic: &str,
        template: &str,
        queue_nums: i32,
        sys_flag: i32,
    ) -> anyhow::Result<Option<Arc<TopicConfig>>> {
        if template == DEFAULT_TOPIC && !self.auto_create.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(template_config) = self.get(template).filter(|found| found.perm & PERM_INHERIT != 0) else {
            return Ok(None);
        };
        let queues = queue_nums.min(template_config.write_queue_nums).max(0);
        let config = TopicConfig {
            topic_sys_flag: sys_flag,
            topic_filter_type: template_config.topic_filter_type.clone(),
            ..TopicConfig::new(topic, queues, template_config.perm & !PERM_INHERIT)
        };
        tracing::info!("Create new topic by default topic:[{template}] config:[{config:?}]");
        self.get_or_create(config).map(Some)
    }

    /// Marks these topics, and no others, as ordered: the name servers keep that (4.9's
    /// `updateOrderTopicConfig`).
    pub(crate) fn set_ordered(&self, ordered: &BTreeSet<String>) -> anyhow::Result<()> {
        self.update(|entries| {
            let mut changed = false;
            for (name, topic) in entries.iter_mut() {
                let order = ordered.contains(&**name);
                if topic.order != order {
                    Arc::make_mut(topic).order = order;
                    changed = true;
                }
            }
            changed
        })?;
        Ok(())
    }

    /// Takes over the master's table. One without any topic is no table of a master, and is refused.
    pub(crate) fn replace(&self, table: TopicConfigTable) -> anyhow::Result<bool> {
        anyhow::ensure!(!table.topic_config_table.is_empty(), "the master's topic table is empty");
        let changed = self.table.replace(table)?;
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(changed)
    }
}

/// Why a topic's name is not accepted (4.9's `TopicValidator`).
pub(crate) fn check_name(topic: &str) -> Result<(), String> {
    if topic.trim().is_empty() {
        return Err("The specified topic is blank.".to_owned());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'-' | b'_');
    if !topic.bytes().all(legal) {
        return Err("The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$".to_owned());
    }
    if topic.len() > NAME_MAX {
        return Err("The specified topic is longer than topic max length.".to_owned());
    }
    Ok(())
}

/// Topics that clients may not send to: 4.9's `TopicValidator.NOT_ALLOWED_SEND_TOPIC_SET`, and the
/// timer's.
pub(crate) fn is_send_forbidden(topic: &str) -> bool {
    matches!(
        topic,
        SCHEDULE_TOPIC
            | TRANS_HALF_TOPIC
            | TRANS_OP_HALF_TOPIC
            | TRANS_CHECK_MAX_TIME_TOPIC
            | SELF_TEST_TOPIC
            | OFFSET_MOVED_EVENT
            | TIMER_TOPIC
    )
}

/// The topic of a group's redeliveries.
pub(crate) fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic of a group's dead letters.
pub(crate) fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

fn system_names(config: &BrokerConfig) -> BTreeSet<String> {
    [
        DEFAULT_TOPIC,
        SCHEDULE_TOPIC,
        BENCHMARK_TOPIC,
        TRANS_HALF_TOPIC,
        "RMQ_SYS_TRACE_TOPIC",
        TRANS_OP_HALF_TOPIC,
        TRANS_CHECK_MAX_TIME_TOPIC,
        SELF_TEST_TOPIC,
        OFFSET_MOVED_EVENT,
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([
        config.broker_cluster_name.clone(),
        config.broker_name.clone(),
        format!("{}_REPLY_TOPIC", config.broker_cluster_name),
    ])
    .collect()
}

fn system_topics(config: &BrokerConfig) -> Vec<TopicConfig> {
    let both = PERM_READ | PERM_WRITE;
    let inherited = |enabled: bool| PERM_INHERIT | if enabled { both } else { 0 };
    let delay_levels = config.message_delay_level.0.len() as i32;
    let mut topics = vec![
        TopicConfig::new(SELF_TEST_TOPIC, 1, both),
        TopicConfig::new(BENCHMARK_TOPIC, 1024, both),
        TopicConfig::new(&config.broker_cluster_name, 16, inherited(config.cluster_topic_enable)),
        TopicConfig::new(&config.broker_name, 1, inherited(config.broker_topic_enable)),
        TopicConfig::new(OFFSET_MOVED_EVENT, 1, both),
        TopicConfig::new(SCHEDULE_TOPIC, delay_levels, both),
        TopicConfig::new(format!("{}_REPLY_TOPIC", config.broker_cluster_name), 1, both),
    ];
    if config.auto_create_topic_enable {
        topics.push(TopicConfig::new(DEFAULT_TOPIC, config.default_topic_queue_nums, both | PERM_INHERIT));
    }
    if config.trace_topic_enable {
        topics.push(TopicConfig::new(&config.msg_trace_topic_name, 1, both));
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, auto_create: bool) -> TopicTable {
        let config = BrokerConfig { auto_create_topic_enable: auto_create, ..BrokerConfig::default() };
        TopicTable::open(dir, &config).unwrap()
    }

    #[test]
    fn a_first_send_makes_a_topic_after_the_template() {
        let dir = tempfile::tempdir().unwrap();
        let topics = open(dir.path(), true);
        let made = topics.create_for_send("T", DEFAULT_TOPIC, 4, 0).unwrap().unwrap();
        assert_eq!((made.write_queue_nums, made.perm), (4, 6));
        let made = topics.create_for_send("U", DEFAULT_TOPIC, 400, 0).unwrap().unwrap();
        assert_eq!(made.write_queue_nums, 8, "no more queues than the template has");
        assert!(topics.create_for_send("V", "T", 4, 0).unwrap().is_none(), "T does not pass on its settings");
        let again = open(dir.path(), true);
        assert_eq!(again.get("T").unwrap().write_queue_nums, 4, "it is in the file");
        assert_eq!(again.to_wire().data_version, topics.to_wire().data_version);
    }

    #[test]
    fn without_auto_create_a_template_from_an_older_file_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), true));
        let topics = open(dir.path(), false);
        assert!(topics.create_for_send("T", DEFAULT_TOPIC, 4, 0).unwrap().is_none());
    }

    #[test]
    fn changes_are_told_and_empty_tables_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let topics = open(dir.path(), true);
        let mut changes = topics.changes();
        topics.put([TopicConfig::new("T", 1, 6)]).unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(!topics.delete("none").unwrap());
        assert!(!changes.has_changed().unwrap());
        assert!(topics.replace(TopicConfigTable::default()).is_err());
        assert!(topics.get("T").is_some());
    }

    #[test]
    fn names_are_checked_as_java_does() {
        assert!(check_name("%RETRY%a-b_1|c").is_ok());
        assert!(check_name(" ").unwrap_err().contains("blank"));
        assert!(check_name("a b").unwrap_err().contains("illegal"));
        assert!(check_name(&"a".repeat(128)).unwrap_err().contains("longer"));
    }
}
