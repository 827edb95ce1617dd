//! The table of consume queues: topic → queue id → queue.
//!
//! Owns the `consumequeue` directory. Look-ups take no lock: both levels are copied when a queue is added. May not:
//! write units.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::consume_queue::ConsumeQueue;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::manifest::Manifest;
use crate::mapped_file_queue::Layout;
use crate::recovery::LastStop;

type Queues = Vec<Arc<ConsumeQueue>>;
/// Looked up for each message, by names that the broker has checked: the hash is a fast one.
type Topics = HashMap<Arc<str>, Arc<ArcSwap<Queues>>, foldhash::fast::RandomState>;

/// See the module.
#[derive(Debug)]
pub(crate) struct ConsumeQueues {
    /// Of each queue, but for its directory; `dir` is that of all.
    layout: Layout,
    topics: ArcSwap<Topics>,
    /// Serialises changes of the table.
    change: Mutex<()>,
}

impl ConsumeQueues {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, topics: ArcSwap::default(), change: Mutex::new(()) }
    }

    fn layout_of(&self, topic: &str, queue_id: &str) -> Layout {
        Layout { dir: self.layout.dir.join(topic).join(queue_id), ..self.layout.clone() }
    }

    /// Loads every queue on disk; returns the table and the queues that must be dispatched again from the start. `noted`
    /// is the manifest, and of how many bytes at a queue's end the checksums are compared.
    pub(crate) fn recover(
        layout: Layout,
        log_end: u64,
        last_stop: LastStop,
        noted: Option<(&Manifest, usize)>,
    ) -> Result<(Self, Vec<Arc<ConsumeQueue>>), StoreError> {
        let (table, mut damaged) = (Self::new(layout), Vec::new());
        let Layout { dir, disk, .. } = &table.layout;
        let mut topics = Topics::default();
        for topic in directories(dir, disk)? {
            let mut queues = Queues::new();
            for id in directories(&dir.join(&topic), disk)? {
                let Ok(queue_id) = id.parse::<i32>() else { continue };
                let layout = table.layout_of(&topic, &id);
                let held = noted.and_then(|(m, checked)| Some((m.queues.get(&topic)?.get(&queue_id)?, checked)));
                let r = ConsumeQueue::recover(topic.as_str().into(), queue_id, layout, log_end, last_stop, held)?;
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
        // Mostly all are there. A look at the others costs more than it seems: another core writes to them.
        let likely = usize::try_from(queue_id).ok().and_then(|at| queues.get(at)).filter(|q| q.queue_id == queue_id);
        if let Some(queue) = likely {
            return Some(Arc::clone(queue));
        }
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
        let name: Arc<str> = topic.into();
        let layout = self.layout_of(topic, &queue_id.to_string());
        let queue = Arc::new(ConsumeQueue::empty(Arc::clone(&name), queue_id, layout));
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

    /// Takes these queues of a topic out of the table and deletes their files, all that can be. Under the append lock.
    pub(crate) fn destroy(&self, topic: &str, is_meant: impl Fn(&ConsumeQueue) -> bool) -> Result<(), StoreError> {
        let mut result = Ok(());
        for queue in self.remove(topic, is_meant) {
            result = result.and(queue.destroy());
        }
        if result.is_ok() && self.of_topic(topic).is_empty() {
            self.layout.disk.remove_dir(&self.layout.dir.join(topic))?;
        }
        result
    }

    fn remove(&self, topic: &str, is_meant: impl Fn(&ConsumeQueue) -> bool) -> Queues {
        let _change = self.change.lock();
        let topics = self.topics.load();
        let Some(queues) = topics.get(topic) else { return Queues::new() };
        let (gone, kept): (Queues, Queues) = self.of_topic(topic).into_iter().partition(|queue| is_meant(queue));
        if kept.is_empty() {
            let mut changed = Topics::clone(&topics);
            changed.remove(topic);
            self.topics.store(Arc::new(changed));
        } else {
            queues.store(Arc::new(kept));
        }
        for queue in &gone {
            queue.retire();
        }
        gone
    }

    /// The queues of a topic.
    pub(crate) fn of_topic(&self, topic: &str) -> Queues {
        self.topics.load().get(topic).map(|queues| Queues::clone(&queues.load())).unwrap_or_default()
    }

    pub(crate) fn all(&self) -> Vec<Arc<ConsumeQueue>> {
        self.topics.load().values().flat_map(|queues| Queues::clone(&queues.load())).collect()
    }
}

/// Names of the directories in `dir`, which may be missing.
fn directories(dir: &Path, disk: &Disk) -> Result<Vec<String>, StoreError> {
    Ok(disk.list(dir)?.into_iter().filter(|e| e.file_len.is_none()).map(|e| e.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot_files::HotFiles;
    use crate::mapped_file::Allocation;

    #[test]
    fn queues_are_found_by_topic_and_id_and_come_back_from_disk() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout {
            dir: dir.path().to_owned(),
            file_size: 200,
            allocation: Allocation::OnDemand,
            disk: Disk::default(),
            hot: HotFiles::new(1),
        };
        let table = ConsumeQueues::new(layout.clone());
        for id in [3, 0, 2] {
            let queue = table.find_or_create("%RETRY%g", id);
            queue.push(0, u64::from(id.unsigned_abs()) * 100, 100, 0, true).unwrap();
        }
        assert!(table.find("%RETRY%g", 1).is_none() && table.find("other", 0).is_none());
        assert!(Arc::ptr_eq(&table.find_or_create("%RETRY%g", 3), &table.find("%RETRY%g", 3).unwrap()));
        let (again, damaged) = ConsumeQueues::recover(layout, 1000, LastStop::Clean, None).unwrap();
        assert!(damaged.is_empty());
        assert_eq!(again.all().iter().map(|q| q.queue_id).collect::<Vec<_>>(), [0, 2, 3]);
        let queues = again.all();
        again.destroy("%RETRY%g", |queue| queue.queue_id == 2).unwrap();
        assert_eq!(again.of_topic("%RETRY%g").iter().map(|q| q.queue_id).collect::<Vec<_>>(), [0, 3]);
        again.destroy("%RETRY%g", |_| true).unwrap();
        assert!(queues.iter().all(|queue| queue.take_offsets(1).is_none()), "retired");
        assert!(again.all().is_empty() && !dir.path().join("%RETRY%g").exists());
    }
}
