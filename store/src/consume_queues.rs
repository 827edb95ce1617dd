//! The table of consume queues: topic → queue id → queue.
//!
//! Owns the `consumequeue` directory. Look-ups take no lock: both levels are copied when a queue is added. May not:
//! write units.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::consume_queue::ConsumeQueue;
use crate::error::StoreError;

type Queues = Vec<Arc<ConsumeQueue>>;
type Topics = HashMap<Arc<str>, Arc<ArcSwap<Queues>>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct ConsumeQueues {
    dir: PathBuf,
    file_size: u64,
    topics: ArcSwap<Topics>,
    /// Serialises changes of the table.
    change: Mutex<()>,
}

impl ConsumeQueues {
    pub(crate) fn new(dir: PathBuf, file_size: u64) -> Self {
        Self { dir, file_size, topics: ArcSwap::default(), change: Mutex::new(()) }
    }

    /// Loads every queue on disk; returns the table and the queues that must be dispatched again from the start.
    pub(crate) fn recover(
        dir: &Path,
        file_size: u64,
        log_end: u64,
    ) -> Result<(Self, Vec<Arc<ConsumeQueue>>), StoreError> {
        let (table, mut damaged) = (Self::new(dir.to_owned(), file_size), Vec::new());
        let mut topics = Topics::new();
        for topic in directories(dir)? {
            let mut queues = Queues::new();
            for id in directories(&dir.join(&topic))? {
                let Ok(queue_id) = id.parse::<i32>() else { continue };
                let path = dir.join(&topic).join(&id);
                let r = ConsumeQueue::recover(topic.as_str().into(), queue_id, path, file_size, log_end)?;
                let queue = Arc::new(r.queue);
                if r.damaged {
                    damaged.push(Arc::clone(&queue));
                }
                queues.push(queue);
            }
            queues.sort_by_key(|q| q.queue_id);
            topics.insert(topic.as_str().into(), Arc::new(ArcSwap::from_pointee(queues)));
        }
        table.topics.store(Arc::new(topics));
        Ok((table, damaged))
    }

    pub(crate) fn find(&self, topic: &str, queue_id: i32) -> Option<Arc<ConsumeQueue>> {
        let topics = self.topics.load();
        let queues = topics.get(topic)?.load();
        let at = queues.binary_search_by_key(&queue_id, |q| q.queue_id).ok()?;
        Some(Arc::clone(&queues[at]))
    }

    /// The queue, put into the table if it is new. Nothing is created on disk before the first unit.
    pub(crate) fn find_or_create(&self, topic: &str, queue_id: i32) -> Arc<ConsumeQueue> {
        if let Some(queue) = self.find(topic, queue_id) {
            return queue;
        }
        let _change = self.change.lock();
        if let Some(queue) = self.find(topic, queue_id) {
            return queue;
        }
        let path = self.dir.join(topic).join(queue_id.to_string());
        let name: Arc<str> = topic.into();
        let queue = Arc::new(ConsumeQueue::empty(Arc::clone(&name), queue_id, path, self.file_size));
        let topics = self.topics.load();
        if let Some(queues) = topics.get(topic) {
            let mut changed = Queues::clone(&queues.load());
            let at = changed.partition_point(|q| q.queue_id < queue_id);
            changed.insert(at, Arc::clone(&queue));
            queues.store(Arc::new(changed));
        } else {
            let mut changed = Topics::clone(&topics);
            changed.insert(name, Arc::new(ArcSwap::from_pointee(vec![Arc::clone(&queue)])));
            self.topics.store(Arc::new(changed));
        }
        queue
    }

    /// Takes a topic out of the table and retires its queues. Under the append lock.
    pub(crate) fn remove(&self, topic: &str) -> Vec<Arc<ConsumeQueue>> {
        let _change = self.change.lock();
        let mut changed = Topics::clone(&self.topics.load());
        let Some(queues) = changed.remove(topic) else { return Vec::new() };
        self.topics.store(Arc::new(changed));
        let queues = Queues::clone(&queues.load());
        for queue in &queues {
            queue.retire();
        }
        queues
    }

    /// Deletes the emptied directory of a topic.
    pub(crate) fn remove_dir(&self, topic: &str) -> Result<(), StoreError> {
        let path = self.dir.join(topic);
        match fs::remove_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete", &path, e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<ConsumeQueue>> {
        self.topics.load().values().flat_map(|queues| Queues::clone(&queues.load())).collect()
    }
}

/// Names of the directories in `dir`, which may be missing.
fn directories(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("list", dir, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| StoreError::io("list", dir, e))?;
        let kind = entry.file_type().map_err(|e| StoreError::io("stat", &entry.path(), e))?;
        if kind.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_found_by_topic_and_id_and_come_back_from_disk() {
        let dir = tempfile::tempdir().unwrap();
        let table = ConsumeQueues::new(dir.path().to_owned(), 200);
        for id in [3, 0, 2] {
            let queue = table.find_or_create("%RETRY%g", id);
            queue.push(0, u64::from(id.unsigned_abs()) * 100, 100, 0, true).unwrap();
        }
        assert!(table.find("%RETRY%g", 1).is_none() && table.find("other", 0).is_none());
        assert!(Arc::ptr_eq(&table.find_or_create("%RETRY%g", 3), &table.find("%RETRY%g", 3).unwrap()));
        let (again, damaged) = ConsumeQueues::recover(dir.path(), 200, 1000).unwrap();
        assert!(damaged.is_empty());
        assert_eq!(again.all().iter().map(|q| q.queue_id).collect::<Vec<_>>(), [0, 2, 3]);
        for queue in again.remove("%RETRY%g") {
            assert_eq!(queue.take_offsets(1), None, "retired");
            queue.destroy().unwrap();
        }
        again.remove_dir("%RETRY%g").unwrap();
        assert!(again.all().is_empty() && !dir.path().join("%RETRY%g").exists());
    }
}
