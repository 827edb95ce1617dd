//! What the store's threads and its callers share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::check::Check;
use crate::checkpoint::Checkpoint;
use crate::commit_log::CommitLog;
use crate::config::{FlushDiskType, StoreConfig};
use crate::consume_queues::ConsumeQueues;
use crate::disk::Disk;
use crate::dispatcher::{Dispatch, ListenerSlot};
use crate::flushed_mark::FlushedMark;
use crate::health::Health;
use crate::index::Index;
use crate::stats::Counters;
use crate::store_lock::StoreLock;
use crate::turn::Turn;

/// See the module.
pub(crate) struct Core {
    pub(crate) config: StoreConfig,
    pub(crate) health: Health,
    pub(crate) counters: Counters,
    pub(crate) log: CommitLog,
    pub(crate) queues: ConsumeQueues,
    pub(crate) index: Option<Index>,
    /// See [`crate::manifest::Manifest::deleted`].
    pub(crate) deleted: Mutex<BTreeMap<String, u64>>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) check: Check,
    pub(crate) listener: ListenerSlot,
    /// Everything below is in queues and index.
    pub(crate) dispatched: AtomicU64,
    /// The message dispatched last.
    pub(crate) last_dispatched: Mutex<Option<LastDispatched>>,
    /// Everything below is in the manifest on disk: how far queues have got is known without the log.
    pub(crate) manifested: AtomicU64,
    /// The published end, for who follows the log.
    pub(crate) appended: watch::Sender<u64>,
    /// Everything below is on disk.
    pub(crate) flushed: watch::Sender<u64>,
    /// Highest end a sender waits for.
    pub(crate) flush_wanted: AtomicU64,
    pub(crate) flushed_mark: FlushedMark,
    /// One flush at a time.
    pub(crate) flushing: Mutex<()>,
    pub(crate) disk: Disk,
    /// Of who dispatches.
    pub(crate) dispatching: Turn,
    /// One checkpoint at a time.
    pub(crate) checkpointing: Mutex<()>,
    /// One deletion of expired files at a time.
    pub(crate) cleaning: Mutex<()>,
    /// A queue or index file could not be flushed: the checkpoint must not advance any more.
    pub(crate) derived_failed: AtomicBool,
    /// Bytes of RAM that count as holding the log's tail.
    pub(crate) hot_bytes: u64,
    /// How long log files are kept, ms; it may change while the store is open.
    pub(crate) file_reserved_ms: AtomicU64,
    pub(crate) abort_file: PathBuf,
    pub(crate) lock: Mutex<Option<StoreLock>>,
    pub(crate) dispatcher: Waker,
    pub(crate) flusher: Waker,
    pub(crate) allocator: Waker,
}

/// The newest message of queues and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastDispatched {
    /// Log offset.
    pub(crate) offset: u64,
    /// Log offset behind it.
    pub(crate) end: u64,
    /// Store time, ms.
    pub(crate) timestamp: i64,
}

/// Wakes one of the store's threads, once it runs.
#[derive(Debug, Default)]
pub(crate) struct Waker(OnceLock<Thread>);

impl Waker {
    pub(crate) fn set(&self, thread: Thread) {
        let _ = self.0.set(thread);
    }

    /// Whether there is a thread to be woken.
    pub(crate) fn is_there(&self) -> bool {
        self.0.get().is_some()
    }

    pub(crate) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl Core {
    pub(crate) fn file_reserved_time(&self) -> Duration {
        Duration::from_millis(self.file_reserved_ms.load(Ordering::Relaxed))
    }

    /// Up to where the log may reach consumers: with synchronous flush only what a power loss cannot take back.
    pub(crate) fn dispatchable_end(&self) -> u64 {
        match self.config.flush_disk_type {
            FlushDiskType::AsyncFlush => self.log.end(),
            FlushDiskType::SyncFlush => self.flushed_offset(),
        }
    }

    pub(crate) fn dispatch(&self) -> Dispatch<'_> {
        Dispatch {
            queues: &self.queues,
            index: self.index.as_ref(),
            delay_levels: &self.config.message_delay_levels,
            counters: &self.counters,
        }
    }
}
