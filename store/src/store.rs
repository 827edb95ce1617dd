//! The message store as the broker sees it: one facade over log, queues, index and their threads.
//!
//! May not: do work of its own beyond joining the parts.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::check::{self, Check};
use crate::checkpoint::Checkpoint;
use crate::config::{FlushDiskType, StoreConfig};
use crate::consume_queue::ConsumeQueue;
use crate::core::{Core, Waker};
use crate::disk::Disk;
use crate::dispatcher::{self, ArrivalListener, ListenerSlot};
use crate::error::StoreError;
use crate::flush;
use crate::flushed_mark::FlushedMark;
use crate::gathering;
use crate::get::Wanted;
use crate::health::Health;
use crate::message::{self, Appended, NewMessage, sys_flag};
use crate::recovery::{self, Found, LastStop};
use crate::results::{GetResult, QueryResult, QueueEntry, QueueRange, TimeBoundary, TopicQueues};
use crate::retention;
use crate::stats::{Counters, StoreStats};
use crate::store_lock::StoreLock;
use crate::turn::Turn;
use crate::worker::Worker;

/// Room for everything of a unit but its body.
const UNIT_OVERHEAD_MAX: usize = 64 << 10;
/// How long a stop or a topic's deletion waits for the dispatcher.
const DISPATCH_WAIT: Duration = Duration::from_secs(10);
/// Longest encode buffer a thread keeps.
const BUFFER_KEPT: usize = 1 << 20;

thread_local! {
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// RocketMQ's message store on one directory. Dropped without [`MessageStore::shutdown`] it leaves the disk as a
/// killed process does: nothing is lost, and the next start recovers.
pub struct MessageStore {
    core: Arc<Core>,
    workers: Mutex<Vec<Worker>>,
}

impl std::fmt::Debug for MessageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageStore")
            .field("root", &self.core.config.store_path_root_dir)
            .field("min", &self.min_physical_offset())
            .field("max", &self.max_physical_offset())
            .finish_non_exhaustive()
    }
}

impl MessageStore {
    /// Opens the store, recovers it, and starts its threads. Fails with the file's name when the log cannot be
    /// continued; never because of queues, index or checkpoint.
    pub fn open(config: StoreConfig) -> Result<Arc<Self>, StoreError> {
        Self::open_on(config, Disk::default())
    }

    pub(crate) fn open_on(config: StoreConfig, disk: Disk) -> Result<Arc<Self>, StoreError> {
        let store = Self::recover(config, disk)?;
        *store.workers.lock() = start_workers(&store.core)?;
        Ok(Arc::new(store))
    }

    /// Opens the store without its threads.
    pub(crate) fn recover(config: StoreConfig, disk: Disk) -> Result<Self, StoreError> {
        config.validate()?;
        let root = config.store_path_root_dir.clone();
        for dir in [&root, &config.commit_log_dir()] {
            disk.create_dir(dir)?;
            // It may be there since a start that failed before its name was durable.
            disk.sync_dir(dir.parent().unwrap_or(dir))?;
        }
        let lock = StoreLock::take(&root.join("lock"))?;
        let abort_file = root.join("abort");
        let last_stop = if disk.len(&abort_file)?.is_some() { LastStop::Crash } else { LastStop::Clean };
        disk.open(&abort_file)?;
        disk.sync_dir(&root)?;
        let checkpoint = Checkpoint::open(&root.join("checkpoint"), disk.clone())?;
        let counters = Counters::default();
        let (flushed_mark, flushed) = FlushedMark::open(&root, disk.clone())?;
        let found = Found { last_stop, flushed, checkpoint: checkpoint.get() };
        let recovered = recovery::recover(&config, &disk, found, &counters)?;
        flushed_mark.note(recovered.durable)?;
        let end = recovered.log.end();
        let core = Arc::new(Core {
            health: Health::default(),
            counters,
            dispatched: AtomicU64::new(end),
            last_dispatched: Mutex::new(recovered.last_dispatched),
            manifested: AtomicU64::new(0),
            log: recovered.log,
            queues: recovered.queues,
            index: recovered.index,
            deleted: Mutex::new(recovered.deleted),
            checkpoint,
            check: Check::new(recovered.unchecked, recovered.compared_last),
            listener: ListenerSlot::empty(),
            appended: watch::Sender::new(end),
            flushed: watch::Sender::new(recovered.durable),
            flush_wanted: AtomicU64::new(0),
            flushed_mark,
            flushing: Mutex::new(()),
            dispatching: Turn::default(),
            checkpointing: Mutex::new(()),
            cleaning: Mutex::new(()),
            disk,
            derived_failed: AtomicBool::new(false),
            hot_bytes: hot_bytes(config.access_message_in_memory_max_ratio),
            file_reserved_ms: AtomicU64::new(config.file_reserved_time.as_millis() as u64),
            abort_file,
            lock: Mutex::new(Some(lock)),
            dispatcher: Waker::default(),
            flusher: Waker::default(),
            allocator: Waker::default(),
            config,
        });
        if last_stop == LastStop::Crash {
            // What recovery found may be in the page cache only.
            core.flush_log(0)?;
            if let Err(error) = core.checkpoint_all() {
                tracing::error!(%error, "the checkpoint could not be written, the next start recovers again");
            }
        }
        Ok(Self { core, workers: Mutex::default() })
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The settings the store was opened with.
    pub fn config(&self) -> &StoreConfig {
        &self.core.config
    }

    /// Whom the dispatcher tells of new queue entries; replaces the one before.
    pub fn set_arrival_listener(&self, listener: ArrivalListener) {
        dispatcher::set_listener(&self.core.listener, listener);
    }

    /// Appends one message. It can be read by offset at once, through its queue as soon as it is dispatched.
    pub fn append(&self, message: &NewMessage<'_>) -> Result<Appended, StoreError> {
        self.append_all(std::slice::from_ref(message))
    }

    /// Appends messages of one queue, side by side in one file and with consecutive queue offsets, or none of them.
    pub fn append_batch(&self, messages: &[NewMessage<'_>]) -> Result<Appended, StoreError> {
        let Some((first, rest)) = messages.split_first() else {
            return Err(StoreError::Batch { reason: "it is empty" });
        };
        if rest.iter().any(|m| m.topic != first.topic || m.queue_id != first.queue_id) {
            return Err(StoreError::Batch { reason: "its messages differ in topic or queue" });
        }
        if messages.len() > 1 && messages.iter().any(|m| sys_flag::transaction(m.sys_flag) != 0) {
            return Err(StoreError::Batch { reason: "it holds transaction messages" });
        }
        self.append_all(messages)
    }

    fn append_all(&self, messages: &[NewMessage<'_>]) -> Result<Appended, StoreError> {
        let started = coarse_now();
        let result = ENCODED.with_borrow_mut(|buffer| {
            buffer.clear();
            let result = self.encode_and_append(messages, buffer);
            if buffer.capacity() > BUFFER_KEPT {
                *buffer = Vec::new();
            }
            result
        });
        match &result {
            Ok(a) => {
                self.core.health.recovered();
                self.core.counters.put(a.count.into(), a.end - a.offset, coarse_now().saturating_sub(started));
            }
            Err(error) => {
                if matches!(error, StoreError::Io { .. }) {
                    self.core.health.set_failing(error);
                }
                self.core.counters.put_failed();
            }
        }
        result
    }

    fn encode_and_append(&self, messages: &[NewMessage<'_>], buffer: &mut Vec<u8>) -> Result<Appended, StoreError> {
        let core = &*self.core;
        core.health.writable()?;
        let max = core.config.max_message_size;
        let body: usize = messages.iter().map(|m| m.body.len()).sum();
        if body > max {
            return Err(StoreError::MessageTooLarge { size: body, max });
        }
        for m in messages {
            let size = message::encode(m, core.config.auto_message_version_on_topic_len, buffer)?;
            if size > max + UNIT_OVERHEAD_MAX {
                return Err(StoreError::MessageTooLarge { size, max: max + UNIT_OVERHEAD_MAX });
            }
        }
        let first = &messages[0];
        let count = messages.len();
        let queued = sys_flag::enters_queue(first.sys_flag);
        loop {
            let queue: Option<Arc<ConsumeQueue>> =
                queued.then(|| core.queues.find_or_create(first.topic, first.queue_id));
            // Under the append lock: a store that is being closed must not take one more.
            let take = || {
                core.health.writable().ok()?;
                queue.as_ref().map_or(Some(0), |q| q.take_offsets(count as i64))
            };
            let Some(written) = core.log.append(buffer, take, i64::from(queued))? else {
                core.health.writable()?;
                continue;
            };
            self.announce(written.end);
            if written.wake_allocator {
                core.allocator.wake();
            }
            return Ok(Appended {
                offset: written.offset,
                end: written.end,
                queue_offset: written.queue_offset,
                store_timestamp: written.store_timestamp,
                count: count as u32,
            });
        }
    }

    /// Runs `run`, and tells those who follow the log of all that it appends on this thread at once, when it ends: for requests
    /// that came together.
    pub fn together<R>(&self, run: impl FnOnce() -> R) -> R {
        gathering::gather(self.address(), |end| self.announce_now(end), run)
    }

    /// What tells this store from others.
    fn address(&self) -> usize {
        Arc::as_ptr(&self.core).addr()
    }

    fn announce(&self, end: u64) {
        if !gathering::note(self.address(), end) {
            self.announce_now(end);
        }
    }

    fn announce_now(&self, end: u64) {
        match self.core.config.flush_disk_type {
            FlushDiskType::AsyncFlush => dispatcher::help(&self.core),
            // Which dispatches what it has flushed.
            FlushDiskType::SyncFlush => self.core.flusher.wake(),
        }
        // Who begins to follow the log asks for its end then; without followers nobody need be told.
        if self.core.appended.receiver_count() > 0 {
            self.tell_followers(end);
        }
    }

    fn tell_followers(&self, end: u64) {
        // Appends announce outside their lock, so an older end may come later.
        self.core.appended.send_if_modified(|now| {
            let newer = end > *now;
            *now = end.max(*now);
            newer
        });
    }

    /// Waits until everything below `end` is on disk: what `SEND_OK` means with `SYNC_FLUSH`. Needs a runtime with
    /// timers.
    pub async fn flushed(&self, end: u64) -> Result<(), StoreError> {
        self.core.wait_flushed(end).await
    }

    /// Up to `max_count` messages and `max_bytes` bytes of a queue from `offset` on, those whose entry `matches`.
    /// The first match is given whatever its size. What RocketMQ limits for hot and cold data applies too.
    pub fn get_messages(
        &self,
        topic: &str,
        queue_id: i32,
        offset: i64,
        max_count: usize,
        max_bytes: usize,
        matches: &mut dyn FnMut(&QueueEntry) -> bool,
    ) -> GetResult {
        let mut wanted = Wanted { entry: matches, message: &mut |_| true };
        self.core.get_messages(topic, queue_id, offset, max_count, max_bytes, &mut wanted)
    }

    /// As [`MessageStore::get_messages`], with a second look at the stored message. How many entries one call looks at
    /// is limited all the same, so it may find nothing and say where to go on.
    pub fn get_messages_where(
        &self,
        topic: &str,
        queue_id: i32,
        offset: i64,
        max_count: usize,
        max_bytes: usize,
        mut wanted: Wanted<'_>,
    ) -> GetResult {
        self.core.get_messages(topic, queue_id, offset, max_count, max_bytes, &mut wanted)
    }

    /// Whether [`MessageStore::get_messages`] from here would wait for the disk: then it belongs on a thread that may.
    pub fn reads_disk(&self, topic: &str, queue_id: i32, offset: i64, max_bytes: usize) -> bool {
        self.core.reads_disk(topic, queue_id, offset, max_bytes)
    }

    /// The next offset of a queue to become readable, 0 for an unknown one.
    pub fn max_offset(&self, topic: &str, queue_id: i32) -> i64 {
        self.core.queues.find(topic, queue_id).map_or(0, |q| q.max_offset())
    }

    /// The first readable offset of a queue, 0 for an unknown one.
    pub fn min_offset(&self, topic: &str, queue_id: i32) -> i64 {
        self.core.queues.find(topic, queue_id).map_or(0, |q| q.min_offset())
    }

    /// Store time (ms) of the message at a queue offset.
    pub fn store_time(&self, topic: &str, queue_id: i32, offset: i64) -> Option<i64> {
        self.core.store_time(topic, queue_id, offset)
    }

    /// The queue offset whose message was stored at `timestamp` (ms) or around it, 0 for an unknown queue.
    pub fn offset_by_time(&self, topic: &str, queue_id: i32, timestamp: i64, boundary: TimeBoundary) -> i64 {
        self.core.offset_by_time(topic, queue_id, timestamp, boundary)
    }

    /// Store time (ms) of a queue's first message, -1 without.
    pub fn earliest_store_time(&self, topic: &str, queue_id: i32) -> i64 {
        self.core.earliest_store_time(topic, queue_id)
    }

    /// Store time (ms) of the log's first message, -1 without (`getEarliestMessageTime`).
    pub fn earliest_message_time(&self) -> i64 {
        let first = self.core.log.unit_at(self.min_physical_offset());
        first.and_then(|unit| crate::commit_log::store_timestamp_of(&unit)).unwrap_or(-1)
    }

    /// The message at a log offset; `None` unless one begins there.
    pub fn message_at(&self, physical: u64) -> Option<Bytes> {
        self.core.log.unit_at(physical)
    }

    /// Messages of a topic with a key, stored between two times (ms); the newest `max` of them.
    pub fn query(&self, topic: &str, key: &str, max: usize, begin: i64, end: i64) -> QueryResult {
        self.core.query(topic, key, max, begin, end)
    }

    /// Up to `count` entries of a queue from `index` on.
    pub fn queue_entries(&self, topic: &str, queue_id: i32, index: i64, count: usize) -> Vec<QueueEntry> {
        self.core.queue_entries(topic, queue_id, index, count)
    }

    /// Where the log begins.
    pub fn min_physical_offset(&self) -> u64 {
        self.core.log.min_offset()
    }

    /// Where the log ends.
    pub fn max_physical_offset(&self) -> u64 {
        self.core.log.end()
    }

    /// Everything below is on disk.
    pub fn flushed_offset(&self) -> u64 {
        self.core.flushed_offset()
    }

    /// Everything below is in queues and index.
    pub fn dispatched_offset(&self) -> u64 {
        self.core.dispatched.load(Ordering::Acquire)
    }

    /// Up to `max` bytes of the log from `offset`, within one file: what replication sends.
    pub fn read_raw(&self, offset: u64, max: usize) -> Option<Bytes> {
        self.core.log.read_raw(offset, max)
    }

    /// Appends replicated bytes, which must continue the log, or begin a file of an empty one. They may end inside
    /// a message. A store that takes raw bytes must not be appended to otherwise before it is opened again.
    pub fn append_raw(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.core.health.writable()?;
        self.core.log.append_raw(offset, bytes)?;
        self.announce(self.core.log.end());
        Ok(())
    }

    /// The log's end, each time it moves.
    pub fn appended(&self) -> watch::Receiver<u64> {
        let followed = self.core.appended.subscribe();
        self.tell_followers(self.max_physical_offset());
        followed
    }

    /// Whether messages are stored, and why not: the store refuses them, or the disk refused the last one.
    pub fn writable(&self) -> Result<(), StoreError> {
        self.core.health.appendable()
    }

    /// Whether a flush or the log itself failed: nothing is accepted until the store is opened again.
    pub fn is_poisoned(&self) -> bool {
        self.core.health.poisoned().is_some()
    }

    /// How long the current append has held the log's lock: a second means that the disk chokes
    /// (`isOSPageCacheBusy`).
    pub fn lock_held_for(&self) -> Duration {
        self.core.log.lock_held_for()
    }

    /// Waits until all whole messages of the log are in queues and index.
    pub(crate) fn wait_dispatched(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + DISPATCH_WAIT;
        // The end of replicated bytes may be half a message, which is never dispatched.
        while self.core.log.has_whole_record(self.dispatched_offset()) {
            if Instant::now() >= deadline || self.is_poisoned() {
                let (dispatched, end) = (self.dispatched_offset(), self.max_physical_offset());
                return Err(StoreError::DispatchBehind { dispatched, end });
            }
            self.core.dispatcher.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Every topic that has queues, by name, with their ranges.
    pub fn topics_with_queues(&self) -> Vec<TopicQueues> {
        let mut topics = std::collections::BTreeMap::<String, Vec<QueueRange>>::new();
        for queue in self.core.queues.all() {
            topics.entry(queue.topic.to_string()).or_default().push(QueueRange {
                queue_id: queue.queue_id,
                min_offset: queue.min_offset(),
                max_offset: queue.max_offset(),
            });
        }
        topics.into_iter().map(|(topic, queues)| TopicQueues { topic, queues }).collect()
    }

    /// Used share (0 to 1) of the log's partition, -1 when it cannot be read.
    pub fn disk_ratio(&self) -> f64 {
        retention::disk_ratio(&self.core.config.commit_log_dir()).unwrap_or(-1.0)
    }

    /// The counters.
    pub fn stats(&self) -> StoreStats {
        self.core.counters.read()
    }

    /// Whether every file of queues and index was compared, in the background, since the store was opened, and what was
    /// found damaged is made anew.
    pub fn is_checked(&self) -> bool {
        self.core.check.is_idle()
    }

    /// Keeps log files for another time from now on (`fileReservedTime`).
    pub fn set_file_reserved_time(&self, time: Duration) {
        self.core.file_reserved_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Deletes expired files whatever the hour; returns how many log files went (at most 10 a call).
    pub fn clean_expired(&self) -> Result<usize, StoreError> {
        retention::clean_now(&self.core)
    }

    /// Stops accepting, flushes everything, writes the checkpoint and frees the directory. Idempotent. After a
    /// failure the `abort` file stays, so that the next start recovers.
    pub fn shutdown(&self) {
        let core = &*self.core;
        if !core.health.close() {
            return;
        }
        // Whoever is inside an append finishes; later ones see the store closed.
        core.log.with_appends_stopped(|| ());
        let dispatched = self.wait_dispatched();
        for worker in self.workers.lock().drain(..) {
            worker.stop();
        }
        match dispatched.and_then(|()| core.checkpoint_closed()) {
            Ok(()) if !core.derived_failed.load(Ordering::Acquire) => {
                if let Err(e) = core.disk.remove(&core.abort_file) {
                    tracing::error!(error = %e, "the abort file stays, the next start recovers");
                }
            }
            Ok(()) => {}
            Err(e) => tracing::error!(error = %e, "not everything is on disk, the next start recovers"),
        }
        core.lock.lock().take();
    }
}

fn start_workers(core: &Arc<Core>) -> Result<Vec<Worker>, StoreError> {
    let allocator = {
        let core = Arc::clone(core);
        Worker::spawn("store-allocate", move |signal| {
            core.log.allocator.run(&core.log.files, &signal);
        })?
    };
    core.allocator.set(allocator.thread());
    let dispatcher = spawn(core, "store-dispatch", dispatcher::follow)?;
    core.dispatcher.set(dispatcher.thread());
    let flusher = spawn(core, "store-flush-log", flush::flush_log_loop)?;
    core.flusher.set(flusher.thread());
    let queues = spawn(core, "store-flush-queue", flush::flush_queues_loop)?;
    let cleaner = spawn(core, "store-clean", retention::clean_loop)?;
    let check = spawn(core, "store-check", check::check_loop)?;
    core.check.waker.set(check.thread());
    Ok(vec![check, cleaner, allocator, dispatcher, queues, flusher])
}

fn spawn(core: &Arc<Core>, name: &'static str, work: fn(&Core, &crate::worker::Signal)) -> Result<Worker, StoreError> {
    let core = Arc::clone(core);
    Worker::spawn(name, move |signal| work(&core, &signal))
}

/// A clock of some milliseconds' step that costs a quarter of the exact one: the latencies that are counted start at
/// one millisecond.
fn coarse_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Bytes behind the log's end that RAM is taken to hold.
fn hot_bytes(percent: u8) -> u64 {
    let info = rustix::system::sysinfo();
    #[allow(clippy::unnecessary_cast, reason = "the field's width differs between platforms")]
    let ram = (info.totalram as u64).saturating_mul(info.mem_unit.into());
    ram / 100 * u64::from(percent)
}
