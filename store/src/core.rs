//! What the store's threads and its callers share.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::commit_log::CommitLog;
use crate::config::StoreConfig;
use crate::consume_queues::ConsumeQueues;
use crate::dispatcher::{Dispatch, ListenerSlot};
use crate::flush::Syncer;
use crate::health::Health;
use crate::index::Index;
use crate::stats::Counters;
use crate::store_lock::StoreLock;

/// See the module.
pub(crate) struct Core {
    pub(crate) config: StoreConfig,
    pub(crate) health: Health,
    pub(crate) counters: Counters,
    pub(crate) log: CommitLog,
    pub(crate) queues: ConsumeQueues,
    pub(crate) index: Option<Index>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) listener: ListenerSlot,
    /// Everything below is in queues and index.
    pub(crate) dispatched: AtomicU64,
    /// Store time of the message dispatched last, ms.
    pub(crate) dispatched_timestamp: AtomicI64,
    /// The published end, for who follows the log.
    pub(crate) appended: watch::Sender<u64>,
    /// Everything below is on disk.
    pub(crate) flushed: watch::Sender<u64>,
    /// Highest end a sender waits for.
    pub(crate) flush_wanted: AtomicU64,
    /// One flush at a time.
    pub(crate) flushing: Mutex<()>,
    pub(crate) syncer: Box<dyn Syncer>,
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

/// Wakes one of the store's threads, once it runs.
#[derive(Debug, Default)]
pub(crate) struct Waker(OnceLock<Thread>);

impl Waker {
    pub(crate) fn set(&self, thread: Thread) {
        let _ = self.0.set(thread);
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

    pub(crate) fn dispatch(&self) -> Dispatch<'_> {
        Dispatch {
            queues: &self.queues,
            index: self.index.as_ref(),
            delay_levels: &self.config.message_delay_levels,
            counters: &self.counters,
        }
    }
}
