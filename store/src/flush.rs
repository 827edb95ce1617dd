//! Brings log, queues and index to the disk, and lets senders wait for it.
//!
//! Owns the flushed position. One msync serves every sender that waits (group commit). A failed msync poisons the
//! store: the kernel may have dropped the dirty pages, so no later success would prove anything; the position never
//! moves past the failure and the checkpoint stays. May not: block an async thread.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::time::timeout_at;

use crate::config::FlushDiskType;
use crate::core::Core;
use crate::dispatcher;
use crate::error::StoreError;
use crate::manifest::Manifest;
use crate::worker::Signal;

impl Core {
    pub(crate) fn flushed_offset(&self) -> u64 {
        *self.flushed.borrow()
    }

    /// Waits until everything below `end` is on disk.
    pub(crate) async fn wait_flushed(&self, end: u64) -> Result<(), StoreError> {
        let mut flushed = self.flushed.subscribe();
        let deadline = tokio::time::Instant::now() + self.config.sync_flush_timeout;
        self.flush_wanted.fetch_max(end, Ordering::AcqRel);
        loop {
            if *flushed.borrow_and_update() >= end {
                return Ok(());
            }
            if let Some(poisoned) = self.health.poisoned() {
                return Err(poisoned);
            }
            self.flusher.wake();
            match timeout_at(deadline, flushed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(StoreError::Closed),
                Err(_) => return Err(StoreError::FlushTimeout { end }),
            }
        }
    }

    /// Flushes the log when at least `least_pages` (0: any) pages are dirty.
    pub(crate) fn flush_log(&self, least_pages: u32) -> Result<(), StoreError> {
        let _one = self.flushing.lock();
        if let Some(poisoned) = self.health.poisoned() {
            return Err(poisoned);
        }
        let mut from = self.flushed_offset();
        let timestamp = self.log.last_store_timestamp();
        let end = self.log.end();
        if from >= end || end - from < u64::from(least_pages) * 4096 {
            return Ok(());
        }
        while from < end {
            let Some(file) = self.log.files.find(from) else {
                // An empty log that replication started further on.
                match self.log.files.first_start() {
                    Some(first) if first > from => from = first,
                    _ => break,
                }
                continue;
            };
            let to = end.min(file.end());
            file.sync((from - file.start) as usize, (to - file.start) as usize).inspect_err(|e| self.poison(e))?;
            from = to;
        }
        // Before anybody is told: recovery must not take for torn what was acknowledged.
        self.flushed_mark.note(end).inspect_err(|e| self.poison(e))?;
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.checkpoint.note_physic(timestamp);
        self.flushed.send_modify(|flushed| *flushed = end);
        if self.config.flush_disk_type == FlushDiskType::SyncFlush {
            // Only now may it reach consumers.
            dispatcher::help(self);
        }
        Ok(())
    }

    fn poison(&self, error: &StoreError) {
        self.health.poison(error);
        // Wakes the senders that wait; they see the poison.
        self.flushed.send_modify(|_| {});
    }

    /// Flushes queues with many dirty pages.
    pub(crate) fn flush_queues(&self, least_pages: u32) -> Result<(), StoreError> {
        for queue in self.queues.all() {
            queue.flush(least_pages).inspect_err(|e| self.derived_failed(e))?;
        }
        Ok(())
    }

    /// Flushes everything and writes checkpoint and manifest, unless something could not be flushed.
    pub(crate) fn checkpoint_all(&self) -> Result<(), StoreError> {
        self.checkpoint(false)
    }

    /// The same at the end, when nobody writes any more.
    pub(crate) fn checkpoint_closed(&self) -> Result<(), StoreError> {
        self.checkpoint(true)
    }

    fn checkpoint(&self, is_closed: bool) -> Result<(), StoreError> {
        // An older manifest must not take the place of a newer one.
        let _one = self.checkpointing.lock();
        self.write_checkpoint(is_closed).map(drop)
    }

    /// The same under that lock; returns what is noted now, `None` when something could not be flushed.
    pub(crate) fn write_checkpoint(&self, is_closed: bool) -> Result<Option<Manifest>, StoreError> {
        self.flush_log(0)?;
        // Read before the flush: what is noted must be on disk when it is noted.
        let manifest = self.manifest(is_closed);
        let timestamp = self.last_dispatched.lock().map_or(0, |last| last.timestamp);
        self.flush_queues(0)?;
        if let Some(index) = &self.index {
            index.flush().inspect_err(|e| self.derived_failed(e))?;
        }
        if self.derived_failed.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.checkpoint.update(|t| {
            t.logics = t.logics.max(timestamp);
            t.index = t.index.max(self.index.as_ref().map_or(0, crate::index::Index::full_until));
        })?;
        manifest.persist(&self.config.store_path_root_dir, &self.disk)?;
        self.manifested.fetch_max(manifest.dispatched, Ordering::AcqRel);
        Ok(Some(manifest))
    }

    fn derived_failed(&self, error: &StoreError) {
        tracing::error!(%error, "a derived file could not be flushed: the checkpoint stays until the next start");
        self.derived_failed.store(true, Ordering::Release);
    }

    fn manifest(&self, is_closed: bool) -> Manifest {
        let last = *self.last_dispatched.lock();
        let mut manifest = Manifest {
            dispatched: last.map_or_else(|| self.dispatched.load(Ordering::Acquire), |last| last.end),
            last_message: last.map(|last| last.offset),
            index_end: self.index.as_ref().and_then(crate::index::Index::end_physical),
            index_files: self.index.as_ref().map_or(0, crate::index::Index::file_count),
            index: self.index.as_ref().map_or_else(Vec::new, |index| index.held(is_closed)),
            unchecked: self.check.unchecked.lock().clone().map(|range| (range.start, range.end)),
            compared_last: self.check.last.lock().clone(),
            // What the log has lost needs no note.
            deleted: {
                let mut deleted = self.deleted.lock();
                let min = self.log.min_offset();
                deleted.retain(|_, end| *end > min);
                deleted.clone()
            },
            ..Manifest::default()
        };
        for queue in self.queues.all() {
            if let Some(held) = queue.held() {
                let queues = manifest.queues.entry(queue.topic.to_string()).or_default();
                queues.insert(queue.queue_id, held);
            }
        }
        manifest
    }
}

/// The log flusher's work, until it is stopped.
pub(crate) fn flush_log_loop(core: &Core, signal: &Signal) {
    let config = &core.config;
    let mut last_round = Instant::now();
    let mut last_thorough = Instant::now();
    while !signal.stopped() {
        let wanted = match config.flush_disk_type {
            FlushDiskType::SyncFlush => core.log.end(),
            FlushDiskType::AsyncFlush => core.flush_wanted.load(Ordering::Acquire).min(core.log.end()),
        };
        if wanted > core.flushed_offset() && core.health.poisoned().is_none() {
            // The error is in the health, where senders find it.
            let _ = core.flush_log(0);
            continue;
        }
        let left = config.flush_interval_commit_log.saturating_sub(last_round.elapsed());
        if !left.is_zero() {
            signal.wait(left);
            continue;
        }
        last_round = Instant::now();
        let thorough = last_thorough.elapsed() >= config.flush_commit_log_thorough_interval;
        if thorough {
            last_thorough = last_round;
        }
        let _ = core.flush_log(if thorough { 0 } else { config.flush_commit_log_least_pages });
    }
}

/// The queue flusher's work, until it is stopped.
pub(crate) fn flush_queues_loop(core: &Core, signal: &Signal) {
    let config = &core.config;
    let mut last_thorough = Instant::now();
    loop {
        signal.pause(config.flush_interval_consume_queue);
        if signal.stopped() {
            return;
        }
        let result = if last_thorough.elapsed() >= config.flush_consume_queue_thorough_interval {
            last_thorough = Instant::now();
            core.checkpoint_all()
        } else {
            core.flush_queues(config.flush_consume_queue_least_pages)
        };
        if let Err(e) = result {
            tracing::error!(error = %e, "flushing queues failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::Duration;

    use super::*;
    use crate::disk::{Call, Disk, Faults};
    use crate::{MessageStore, NewMessage, StoreConfig};

    /// A disk that fails on order and counts.
    #[derive(Debug, Default)]
    struct FailingDisk {
        fails: AtomicBool,
        stalls: AtomicBool,
        syncs: AtomicUsize,
    }

    impl Faults for FailingDisk {
        fn call(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
            let Call::SyncRange(path, ..) = call else { return run() };
            if !path.parent().is_some_and(|dir| dir.ends_with("commitlog")) {
                return run();
            }
            self.syncs.fetch_add(1, Ordering::Relaxed);
            while self.stalls.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if self.fails.load(Ordering::Relaxed) {
                return Err(io::Error::from_raw_os_error(5));
            }
            run()
        }
    }

    fn open(dir: &std::path::Path, disk: &Arc<FailingDisk>) -> Arc<MessageStore> {
        let config = StoreConfig {
            store_path_root_dir: dir.to_owned(),
            mapped_file_size_commit_log: 64 << 10,
            mapped_file_size_consume_queue: 2000,
            max_hash_slot_num: 100,
            max_index_num: 400,
            flush_interval_commit_log: Duration::from_mins(1),
            sync_flush_timeout: Duration::from_millis(300),
            ..StoreConfig::default()
        };
        MessageStore::open_on(config, Disk::with_faults(Arc::clone(disk) as Arc<dyn Faults>)).unwrap()
    }

    fn message() -> NewMessage<'static> {
        NewMessage { body: b"body", ..NewMessage::sample() }
    }

    #[tokio::test]
    async fn one_sync_serves_all_who_wait() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FailingDisk::default());
        let store = open(dir.path(), &disk);
        let ends: Vec<u64> = (0..100).map(|_| store.append(&message()).unwrap().end).collect();
        futures_join(ends.iter().map(|end| store.flushed(*end))).await;
        assert_eq!(store.flushed_offset(), ends[99]);
        let syncs = disk.syncs.load(Ordering::Relaxed);
        assert!(syncs <= 2, "{syncs} syncs for 100 waiters");
    }

    async fn futures_join(waits: impl Iterator<Item = impl Future<Output = Result<(), StoreError>>>) {
        let mut waits: Vec<_> = waits.map(Box::pin).collect();
        std::future::poll_fn(|cx| {
            waits.retain_mut(|wait| match wait.as_mut().poll(cx) {
                std::task::Poll::Ready(result) => {
                    result.unwrap();
                    false
                }
                std::task::Poll::Pending => true,
            });
            if waits.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    #[tokio::test]
    async fn a_failed_sync_poisons_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FailingDisk::default());
        let store = open(dir.path(), &disk);
        let good = store.append(&message()).unwrap().end;
        store.flushed(good).await.unwrap();
        disk.fails.store(true, Ordering::Relaxed);
        let bad = store.append(&message()).unwrap().end;
        assert!(matches!(store.flushed(bad).await, Err(StoreError::Poisoned { .. })));
        // The disk works again, but what it lost in between stays lost.
        disk.fails.store(false, Ordering::Relaxed);
        assert!(matches!(store.append(&message()), Err(StoreError::Poisoned { .. })));
        assert!(matches!(store.flushed(bad).await, Err(StoreError::Poisoned { .. })));
        assert_eq!((store.flushed_offset(), store.is_poisoned()), (good, true));
        assert!(store.writable().unwrap_err().to_string().contains("flush"));
        store.flushed(good).await.unwrap();
        store.shutdown();
        assert!(dir.path().join("abort").exists(), "the next start must recover");
    }

    #[tokio::test]
    async fn a_slow_disk_times_out_and_catches_up() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FailingDisk::default());
        let store = open(dir.path(), &disk);
        disk.stalls.store(true, Ordering::Relaxed);
        let end = store.append(&message()).unwrap().end;
        assert!(matches!(store.flushed(end).await, Err(StoreError::FlushTimeout { .. })));
        disk.stalls.store(false, Ordering::Relaxed);
        store.flushed(end).await.unwrap();
        store.append(&message()).unwrap();
    }
}
