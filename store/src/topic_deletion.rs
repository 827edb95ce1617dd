//! Deletes the queues of a topic while its messages stay in the log.
//!
//! A deletion takes place when the manifest says up to which log offset the topic's messages belong to no queue any more;
//! the files go afterwards, at the next start those that could not. May not: know topic configurations.

use std::collections::BTreeMap;
use std::io;

use crate::consume_queues::ConsumeQueues;
use crate::core::Core;
use crate::error::StoreError;
use crate::manifest::Manifest;
use crate::store::MessageStore;

impl MessageStore {
    /// Deletes all queues of a topic; its messages stay in the log until they expire. The topic may be made again
    /// at once and its offsets start over. On an error nothing is deleted: where the deletion cannot be noted on disk, a
    /// crash would bring the topic back.
    pub fn delete_topic(&self, topic: &str) -> Result<(), StoreError> {
        let core = self.core();
        let is_there = core.log.with_appends_stopped(|| {
            self.wait_dispatched()?;
            Ok::<_, StoreError>(!core.queues.of_topic(topic).is_empty())
        })?;
        if !is_there {
            return Ok(());
        }
        let _one = core.checkpointing.lock();
        // All else goes to the disk before an append has to wait.
        let Some(noted) = core.write_checkpoint(false)? else {
            let failed = io::Error::other("a file could not be flushed before, nothing is noted until the next start");
            return Err(StoreError::io("delete a topic from", &core.config.consume_queue_dir(), failed));
        };
        // Under the lock to the end: a queue of the same name that is made meanwhile has the same files.
        core.log.with_appends_stopped(|| {
            // What is not dispatched yet would bring the queues back.
            self.wait_dispatched()?;
            // A log that ended before that offset after a power loss would give it to new messages of the topic.
            core.flush_log(0)?;
            // From here on a start takes the rest away, whatever becomes of the files.
            core.note_deletion(noted, topic)?;
            if let Err(error) = core.queues.destroy(topic, |_| true) {
                tracing::error!(%error, topic, "files of the deleted topic are left until the next start");
            }
            Ok(())
        })
    }
}

impl Core {
    /// Notes on disk that the messages of a topic that are in the log now belong to no queue any more; `noted` is what is
    /// there.
    fn note_deletion(&self, mut noted: Manifest, topic: &str) -> Result<(), StoreError> {
        let (root, end) = (&self.config.store_path_root_dir, self.log.end());
        let queues = noted.queues.remove(topic);
        let before = noted.deleted.insert(topic.to_owned(), end);
        if let Err(error) = noted.persist(root, &self.disk) {
            // It may be there all the same.
            noted.queues.extend(queues.map(|queues| (topic.to_owned(), queues)));
            match before {
                Some(end) => noted.deleted.insert(topic.to_owned(), end),
                None => noted.deleted.remove(topic),
            };
            if let Err(error) = noted.persist(root, &self.disk) {
                tracing::error!(%error, topic, "whether the topic is deleted is for the next checkpoint to say");
            }
            return Err(error);
        }
        self.deleted.lock().insert(topic.to_owned(), end);
        Ok(())
    }
}

/// Takes away queues of deleted topics whose files a crash has left.
pub(crate) fn finish(queues: &ConsumeQueues, deleted: &BTreeMap<String, u64>) -> Result<(), StoreError> {
    for (topic, end) in deleted {
        // The topic may have been made again.
        queues.destroy(topic, |queue| queue.max_physical() <= *end)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use parking_lot::Mutex;

    use super::*;
    use crate::config::StoreConfig;
    use crate::disk::{Call, Disk, Faults};
    use crate::dispatcher;
    use crate::failing_disk::FailingDisk;
    use crate::message::NewMessage;
    use crate::worker::Signal;

    /// No file of the topic is deleted.
    fn keeps_queues(call: &Call<'_>) -> Option<i32> {
        matches!(call, Call::Remove(path) if path.components().any(|part| part.as_os_str() == "T")).then_some(5)
    }

    fn open(dir: &Path, disk: Disk) -> MessageStore {
        let config = StoreConfig {
            store_path_root_dir: dir.to_owned(),
            mapped_file_size_commit_log: 16 << 10,
            mapped_file_size_consume_queue: 200,
            ..StoreConfig::default()
        };
        MessageStore::recover(config, disk).unwrap()
    }

    /// Appends so many messages; returns the queue offset of the first.
    fn append(store: &MessageStore, count: i64) -> i64 {
        let first = store.max_offset("T", 0);
        for i in 0..count {
            assert_eq!(store.append(&NewMessage::sample()).unwrap().queue_offset, first + i);
        }
        store.core().flush_log(0).unwrap();
        while dispatcher::advance(store.core(), &Signal::never()).unwrap_or(false) {}
        first
    }

    /// The log offsets of the queue.
    fn queue(store: &MessageStore) -> Vec<u64> {
        store.queue_entries("T", 0, 0, usize::MAX).iter().map(|entry| entry.offset).collect()
    }

    #[test]
    fn nothing_is_deleted_that_cannot_be_noted() {
        let dir = tempfile::tempdir().unwrap();
        let (faults, disk) = FailingDisk::new(|call| {
            matches!(call, Call::Rename(_, to) if to.ends_with("derived.manifest")).then_some(5)
        });
        let store = open(dir.path(), disk);
        append(&store, 25);
        faults.set(true);
        let refused = store.delete_topic("T").unwrap_err().to_string();
        assert!(refused.contains("derived.manifest"), "{refused}");
        assert_eq!((queue(&store).len(), append(&store, 1)), (25, 25));
        faults.set(false);
        store.core().checkpoint_all().unwrap();
        drop(store);
        let store = open(dir.path(), Disk::default());
        assert_eq!(queue(&store).len(), 26);
        store.delete_topic("T").unwrap();
        assert_eq!((queue(&store).len(), append(&store, 1)), (0, 0));
    }

    /// The topic is made again with another queue only.
    #[test]
    fn a_queue_that_could_not_be_deleted_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (faults, disk) = FailingDisk::new(keeps_queues);
        let store = open(dir.path(), disk);
        append(&store, 5);
        faults.set(true);
        store.delete_topic("T").unwrap();
        faults.set(false);
        store.append(&NewMessage { queue_id: 1, ..NewMessage::sample() }).unwrap();
        append(&store, 0);
        drop(store);
        let store = open(dir.path(), Disk::default());
        assert_eq!((queue(&store).len(), store.max_offset("T", 1)), (0, 1));
        assert!(!dir.path().join("consumequeue/T/0").exists());
    }

    /// A disk on which the first flush of a queue file takes until somebody says that it is done.
    #[derive(Debug)]
    struct SlowFlush {
        is_first: AtomicBool,
        begun: Sender<()>,
        goes_on: Mutex<Receiver<()>>,
    }

    impl Faults for SlowFlush {
        fn call(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
            if let Call::SyncRange(path, ..) = call
                && path.components().any(|part| part.as_os_str() == "consumequeue")
                && self.is_first.swap(false, Ordering::Relaxed)
            {
                self.begun.send(()).unwrap();
                self.goes_on.lock().recv().unwrap();
            }
            run()
        }
    }

    /// It failed, and no checkpoint, expiry or deletion of a topic took place until the next start.
    #[test]
    fn a_flush_of_files_that_are_deleted_meanwhile_does_not_fail() {
        let dir = tempfile::tempdir().unwrap();
        let ((begun, has_begun), (go_on, goes_on)) = (channel(), channel());
        let faults = SlowFlush { is_first: AtomicBool::new(true), begun, goes_on: Mutex::new(goes_on) };
        let store = open(dir.path(), Disk::with_faults(Arc::new(faults)));
        append(&store, 25);
        std::thread::scope(|scope| {
            let flush = scope.spawn(|| store.core().flush_queues(0));
            has_begun.recv().unwrap();
            store.delete_topic("T").unwrap();
            go_on.send(()).unwrap();
            flush.join().unwrap().unwrap();
        });
        assert!(!store.core().derived_failed.load(Ordering::Relaxed));
        append(&store, 3);
        store.delete_topic("T").unwrap();
    }

    #[test]
    fn files_that_cannot_be_deleted_give_nothing_back() {
        for (before, after) in [(5, 0), (5, 3), (5, 15), (25, 0), (25, 3), (25, 12), (25, 40)] {
            let dir = tempfile::tempdir().unwrap();
            let (faults, disk) = FailingDisk::new(keeps_queues);
            let store = open(dir.path(), disk);
            append(&store, before);
            faults.set(true);
            store.delete_topic("T").unwrap();
            let from = store.max_physical_offset();
            faults.set(false);
            append(&store, after);
            let expected = queue(&store);
            assert!(expected.len() as i64 == after && expected.iter().all(|offset| *offset >= from));
            if (1..10).contains(&after) {
                // What RocketMQ reads of it ends where it ends.
                let units = std::fs::read(dir.path().join("consumequeue/T/0/00000000000000000000")).unwrap();
                assert!(units[20 * after as usize..].iter().all(|byte| *byte == 0));
            }
            drop(store);
            drop(open(dir.path(), Disk::default()));
            let store = open(dir.path(), Disk::default());
            assert_eq!((queue(&store), append(&store, 1)), (expected, after), "{before} before, {after} after");
        }
    }
}
