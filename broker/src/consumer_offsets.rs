//! How far each consumer group has come: `config/consumerOffset.json`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use rocketmq_remoting::bodies::OffsetTable;
use rocketmq_remoting::fastjson;
use rocketmq_store::ConfigFile;

/// The next offset to consume by queue.
type Queues = Mutex<BTreeMap<i32, i64>>;

/// Offsets of all groups, in memory; [`persist`](Self::persist) writes the file.
pub(crate) struct ConsumerOffsets {
    /// By group, then by topic: looked up on each pull without making a key.
    groups: RwLock<HashMap<String, HashMap<String, Queues>>>,
    dirty: AtomicBool,
    file: Mutex<ConfigFile>,
}

impl ConsumerOffsets {
    /// Opens `config/consumerOffset.json`.
    pub(crate) fn open(config_dir: &Path) -> anyhow::Result<Self> {
        let file = ConfigFile::new(config_dir.join("consumerOffset.json"));
        let table: OffsetTable = file
            .load(|text| fastjson::from_slice(text.as_bytes()).map_err(|error| error.to_string()))?
            .unwrap_or_default();
        let offsets = Self { groups: RwLock::default(), dirty: AtomicBool::new(false), file: Mutex::new(file) };
        offsets.for_each(&table, Self::commit);
        offsets.dirty.store(false, Ordering::Relaxed);
        Ok(offsets)
    }

    fn for_each(&self, table: &OffsetTable, mut apply: impl FnMut(&Self, &str, &str, i32, i64)) {
        for (key, queues) in &table.offset_table {
            // Neither topics nor groups contain an @.
            let Some((topic, group)) = key.split_once('@') else {
                tracing::warn!("consumer offset under {key:?} dropped: the key is not topic@group");
                continue;
            };
            for (queue_id, offset) in queues {
                apply(self, group, topic, *queue_id, *offset);
            }
        }
    }

    /// Runs `action` on the queues of a group's topic, made where they are not there.
    fn with_queues<R>(&self, group: &str, topic: &str, action: impl FnOnce(&mut BTreeMap<i32, i64>) -> R) -> R {
        {
            let groups = self.groups.read();
            if let Some(queues) = groups.get(group).and_then(|topics| topics.get(topic)) {
                return action(&mut queues.lock());
            }
        }
        let mut groups = self.groups.write();
        let queues = groups.entry(group.to_owned()).or_default().entry(topic.to_owned()).or_default();
        action(queues.get_mut())
    }

    /// Stores the next offset to consume. It may go back: that is how a group is reset.
    pub(crate) fn commit(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        self.with_queues(group, topic, |queues| queues.insert(queue_id, offset));
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// The next offset to consume, where the group has one. A negative one, which clients commit that do not know
    /// theirs yet, is as good as none (4.9's `ConsumerOffsetManager.queryOffset` says -1 for both).
    pub(crate) fn get(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let groups = self.groups.read();
        let queues = groups.get(group)?.get(topic)?.lock();
        queues.get(&queue_id).copied().filter(|offset| *offset >= 0)
    }

    /// The group's offsets in a topic, by queue.
    pub(crate) fn queues_of(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let groups = self.groups.read();
        groups.get(group).and_then(|topics| topics.get(topic)).map(|queues| queues.lock().clone()).unwrap_or_default()
    }

    /// Topics that the group has offsets in.
    pub(crate) fn topics_of(&self, group: &str) -> BTreeSet<String> {
        self.groups.read().get(group).map(|topics| topics.keys().cloned().collect()).unwrap_or_default()
    }

    /// Groups that have offsets in the topic.
    pub(crate) fn groups_of(&self, topic: &str) -> BTreeSet<String> {
        let groups = self.groups.read();
        groups.iter().filter(|(_, topics)| topics.contains_key(topic)).map(|(group, _)| group.clone()).collect()
    }

    /// Gives `to` the offsets of `from`, in one topic or in all (`CLONE_GROUP_OFFSET`).
    pub(crate) fn clone_group(&self, from: &str, to: &str, topic: Option<&str>) {
        let source = self.to_wire();
        self.for_each(&source, |offsets, group, found, queue_id, offset| {
            if group == from && topic.is_none_or(|topic| topic == found) {
                offsets.commit(to, found, queue_id, offset);
            }
        });
    }

    /// Forgets a group.
    pub(crate) fn delete_group(&self, group: &str) {
        if self.groups.write().remove(group).is_some() {
            self.dirty.store(true, Ordering::Relaxed);
        }
    }

    /// All offsets in their wire form.
    pub(crate) fn to_wire(&self) -> OffsetTable {
        let groups = self.groups.read();
        let entries = groups.iter().flat_map(|(group, topics)| {
            topics.iter().map(move |(topic, queues)| (format!("{topic}@{group}"), queues.lock().clone()))
        });
        OffsetTable { offset_table: entries.collect() }
    }

    /// Takes over the master's offsets, where they are ahead of ours: an older master must not
    /// send consumers back (apache/rocketmq#1094, #1440).
    pub(crate) fn merge(&self, table: &OffsetTable) {
        self.for_each(table, |offsets, group, topic, queue_id, theirs| {
            let advanced = offsets.with_queues(group, topic, |queues| {
                let ours = queues.entry(queue_id).or_insert(-1);
                let ahead = theirs > *ours;
                *ours = theirs.max(*ours);
                ahead
            });
            if advanced {
                offsets.dirty.store(true, Ordering::Relaxed);
            }
        });
    }

    /// Writes the file where something has changed since it was last written.
    pub(crate) fn persist(&self) -> anyhow::Result<()> {
        let file = self.file.lock();
        if !self.dirty.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let text = fastjson::to_string_pretty(&self.to_wire());
        file.persist(&text).inspect_err(|_| self.dirty.store(true, Ordering::Relaxed))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_survive_in_javas_form() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = ConsumerOffsets::open(dir.path()).unwrap();
        offsets.commit("g", "T", 0, 3);
        offsets.commit("g", "T", 1, 4);
        offsets.commit("h", "%RETRY%h", 0, 1);
        offsets.persist().unwrap();
        let text = std::fs::read_to_string(dir.path().join("consumerOffset.json")).unwrap();
        assert!(text.contains("\"T@g\":{0:3,1:4\n\t\t}"), "{text}");
        let again = ConsumerOffsets::open(dir.path()).unwrap();
        assert_eq!(again.get("g", "T", 1), Some(4));
        assert_eq!(again.get("g", "T", 2), None);
        again.commit("g", "T", 2, -1);
        assert_eq!(again.get("g", "T", 2), None, "it says that its client knows none");
        assert_eq!(again.topics_of("h"), BTreeSet::from(["%RETRY%h".to_owned()]));
        assert_eq!(again.groups_of("T"), BTreeSet::from(["g".to_owned()]));
    }

    #[test]
    fn a_master_that_is_behind_sends_nobody_back() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = ConsumerOffsets::open(dir.path()).unwrap();
        offsets.commit("g", "T", 0, 10);
        let queues = BTreeMap::from([(0, 5), (1, 7)]);
        offsets.merge(&OffsetTable { offset_table: BTreeMap::from([("T@g".to_owned(), queues)]) });
        assert_eq!((offsets.get("g", "T", 0), offsets.get("g", "T", 1)), (Some(10), Some(7)));
        offsets.clone_group("g", "copy", Some("T"));
        assert_eq!(offsets.get("copy", "T", 0), Some(10));
        offsets.delete_group("g");
        assert_eq!(offsets.get("g", "T", 0), None);
    }
}
