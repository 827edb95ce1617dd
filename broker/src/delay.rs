//! Delayed messages: they wait in `SCHEDULE_TOPIC_XXXX`, one queue a delay level, and are stored
//! again under their own topic when their time has come (4.9's `ScheduleMessageService`).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rocketmq_remoting::bodies::DelayOffsetTable;
use rocketmq_remoting::fastjson;
use rocketmq_store::{
    Appended, ConfigFile, DELAY, GetStatus, MessageStore, NewMessage, QueueEntry, SCHEDULE_TOPIC, StoreError,
    decode_message, properties, property, push_property,
};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::clock;
use crate::config::BrokerConfig;
use crate::timer;
use crate::topics::TRANS_HALF_TOPIC;

/// The topic that a waiting message is for.
const REAL_TOPIC: &str = "REAL_TOPIC";
/// And its queue.
const REAL_QID: &str = "REAL_QID";
/// How often the queues are looked at, as in Java.
const SCAN_PERIOD: Duration = Duration::from_millis(100);
/// Messages of one level that are delivered before the next level's turn.
const ROUND_MAX: usize = 1024;
/// Queue entries that are read at once where the first one is due.
const READ_AT_ONCE: usize = 256;

/// The delay level that a message asks for, from 1; one beyond the last is the last.
pub(crate) fn level_of(text: &[u8], config: &BrokerConfig) -> Option<i32> {
    let level: i32 = property(text, DELAY)?.parse().ok()?;
    (level > 0).then(|| level.min(config.message_delay_level.0.len() as i32))
}

/// Stores a message where it waits for its time. The queue keeps the time by the level in the
/// properties, so that is always the level which is meant; wishes of 5.x for a time are set aside.
pub(crate) fn append(broker: &Broker, message: &NewMessage<'_>, level: i32) -> Result<Appended, StoreError> {
    let mut text = Vec::with_capacity(message.properties.len() + timer::ADDED_PROPERTIES_MAX);
    for (name, value) in properties(message.properties).filter(|(name, _)| *name != DELAY && !timer::is_wish(name)) {
        push_property(&mut text, name, value);
    }
    push_property(&mut text, DELAY, &level.to_string());
    push_property(&mut text, REAL_TOPIC, message.topic);
    push_property(&mut text, REAL_QID, &message.queue_id.to_string());
    broker.store.append(&NewMessage { topic: SCHEDULE_TOPIC, queue_id: level - 1, properties: &text, ..*message })
}

/// How far each level is delivered: `config/delayOffset.json`.
pub(crate) struct DelayOffsets {
    offsets: Mutex<BTreeMap<i32, i64>>,
    file: ConfigFile,
    /// What is to be written as soon as the log is on disk up to there.
    candidate: Mutex<Option<(DelayOffsetTable, u64)>>,
    written: Mutex<DelayOffsetTable>,
}

impl DelayOffsets {
    pub(crate) fn open(config_dir: &Path) -> anyhow::Result<Self> {
        let file = ConfigFile::new(config_dir.join("delayOffset.json"));
        let table: DelayOffsetTable = file
            .load(|text| fastjson::from_slice(text.as_bytes()).map_err(|error| error.to_string()))?
            .unwrap_or_default();
        let (written, offsets) = (Mutex::new(table.clone()), Mutex::new(table.offset_table));
        Ok(Self { offsets, file, candidate: Mutex::new(None), written })
    }

    /// All offsets in their wire form.
    pub(crate) fn to_wire(&self) -> DelayOffsetTable {
        DelayOffsetTable { offset_table: self.offsets.lock().clone() }
    }

    /// Takes over the master's offsets, where they are ahead of ours.
    pub(crate) fn merge(&self, table: &DelayOffsetTable) {
        let mut offsets = self.offsets.lock();
        for (level, theirs) in &table.offset_table {
            let ours = offsets.entry(*level).or_insert(0);
            *ours = (*ours).max(*theirs);
        }
    }

    /// Writes the file. What was delivered must be on disk.
    pub(crate) fn persist(&self) -> anyhow::Result<()> {
        self.write(self.to_wire())
    }

    /// Writes the offsets of an earlier moment, or of now, of which all that was delivered is on disk:
    /// a power cut must not take a delivered message and leave the offset behind it.
    fn persist_flushed(&self, store: &MessageStore) -> anyhow::Result<()> {
        let mut candidate = self.candidate.lock();
        let (table, log_end) = candidate.take().unwrap_or_else(|| (self.to_wire(), store.max_physical_offset()));
        if table == *self.written.lock() {
            return Ok(());
        }
        if store.flushed_offset() < log_end {
            *candidate = Some((table, log_end));
            return Ok(());
        }
        self.write(table)
    }

    fn write(&self, table: DelayOffsetTable) -> anyhow::Result<()> {
        self.file.persist(&fastjson::to_string_pretty(&table))?;
        *self.written.lock() = table;
        Ok(())
    }

    fn get(&self, level: i32) -> i64 {
        self.offsets.lock().get(&level).copied().unwrap_or(0)
    }

    fn set(&self, level: i32, offset: i64) {
        self.offsets.lock().insert(level, offset);
    }
}

/// Delivers until `shutdown`; for masters only.
pub(crate) async fn deliver(broker: Arc<Broker>, shutdown: CancellationToken) {
    let levels = broker.config().message_delay_level.0.clone();
    let pause = broker.config().flush_delay_offset_interval;
    let began = Instant::now();
    let mut levels = Levels::new(&levels);
    let mut next_persist = began + pause;
    let mut is_busy = false;
    while !shutdown.is_cancelled() {
        if !is_busy {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(SCAN_PERIOD) => {}
            }
        }
        let delivering = Arc::clone(&broker);
        let pass = tokio::task::spawn_blocking(move || {
            let times = Times { wall_ms: clock::now_millis(), running_ms: began.elapsed().as_millis() as i64 };
            let is_busy = levels.pass(&delivering.store, &delivering.delay_offsets, delivering.store_host, times);
            if Instant::now() >= next_persist {
                next_persist = Instant::now() + pause;
                if let Err(error) = delivering.delay_offsets.persist_flushed(&delivering.store) {
                    tracing::error!("delayOffset.json could not be written: {error:#}");
                }
            }
            (levels, next_persist, is_busy)
        });
        match pass.await {
            Ok(done) => (levels, next_persist, is_busy) = done,
            Err(panic) => {
                tracing::error!("a pass over the delay levels failed: {panic}");
                levels = Levels::new(&broker.config().message_delay_level.0);
                next_persist = Instant::now();
                is_busy = false;
            }
        }
    }
}

/// The two clocks of a pass, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// Since 1970; may jump.
    wall_ms: i64,
    /// Since some moment; never jumps.
    running_ms: i64,
}

/// The levels and what is remembered of each between passes.
struct Levels(Vec<Level>);

struct Level {
    /// From 1.
    number: i32,
    delay_ms: i64,
    /// Since when, by the running clock, the first message has seemed to be further away than its
    /// delay: since the clock was set back, or since the start with a shorter delay.
    too_far_since_ms: Option<i64>,
}

impl Levels {
    fn new(delays: &[Duration]) -> Self {
        let level = |(index, delay): (usize, &Duration)| Level {
            number: index as i32 + 1,
            delay_ms: delay.as_millis() as i64,
            too_far_since_ms: None,
        };
        Self(delays.iter().enumerate().map(level).collect())
    }

    /// Delivers what is due, a bounded number of each level; true where more is.
    fn pass(&mut self, store: &MessageStore, offsets: &DelayOffsets, host: SocketAddr, times: Times) -> bool {
        let mut is_busy = false;
        for level in &mut self.0 {
            is_busy |= level.deliver(store, offsets, host, times);
        }
        is_busy
    }
}

impl Level {
    /// Looks at the first message only, unless that is due.
    fn deliver(&mut self, store: &MessageStore, offsets: &DelayOffsets, host: SocketAddr, times: Times) -> bool {
        let (level, queue_id) = (self.number, self.number - 1);
        let mut offset = offsets.get(level);
        let end = store.max_offset(SCHEDULE_TOPIC, queue_id);
        let begin = store.min_offset(SCHEDULE_TOPIC, queue_id);
        if offset < begin || offset > end {
            tracing::warn!(level, offset, begin, end, "the delay offset lies outside the queue and is moved into it");
            offset = offset.max(begin).min(end);
            offsets.set(level, offset);
        }
        let mut room = ROUND_MAX;
        let mut at_once = 1;
        while room > 0 && offset < end {
            let entries = store.queue_entries(SCHEDULE_TOPIC, queue_id, offset, at_once.min(room));
            if entries.is_empty() {
                let Some(next) = behind_hole(store, SCHEDULE_TOPIC, queue_id, offset) else { return false };
                tracing::error!(level, from = offset, to = next, "a hole in the queue of a delay level is passed over");
                offset = next;
                offsets.set(level, offset);
            }
            for entry in entries {
                if !self.is_due(&entry, times) {
                    return false;
                }
                if let Err(error) = deliver_entry(store, host, &entry) {
                    let offset = entry.queue_offset;
                    tracing::warn!(level, offset, %error, "a delayed message waits: it could not be stored");
                    return false;
                }
                room -= 1;
                offset = entry.queue_offset + 1;
                offsets.set(level, offset);
            }
            at_once = READ_AT_ONCE;
        }
        offset < end
    }

    /// Whether a message's time has come. One that seems to be further away than the level's delay
    /// was stored before the clock was set back; Java delivers it at once, and so too early. Here
    /// it waits its delay from the moment that this is noticed.
    fn is_due(&mut self, entry: &QueueEntry, times: Times) -> bool {
        if entry.tags_code <= times.wall_ms.saturating_add(self.delay_ms) {
            self.too_far_since_ms = None;
            return entry.tags_code <= times.wall_ms;
        }
        let since_ms = *self.too_far_since_ms.get_or_insert_with(|| {
            let (level, offset) = (self.number, entry.queue_offset);
            tracing::warn!(level, offset, "the clock was set back or the level's delay shortened");
            times.running_ms
        });
        times.running_ms - since_ms >= self.delay_ms
    }
}

/// Delivers one message; what can never be delivered is passed over, and said so: the messages
/// behind it are not to wait for it.
fn deliver_entry(store: &MessageStore, host: SocketAddr, entry: &QueueEntry) -> Result<(), StoreError> {
    let (queue_offset, offset) = (entry.queue_offset, entry.offset);
    let Some(unit) = store.message_at(entry.offset) else {
        tracing::error!(queue_offset, offset, "a delayed message is lost: the log does not have it any more");
        return Ok(());
    };
    match deliver_one(store, host, &unit) {
        Err(error) if is_hopeless(&error) => {
            tracing::error!(queue_offset, offset, %error, "a delayed message can never be stored and is dropped");
            Ok(())
        }
        result => result,
    }
}

/// Whether storing the same message can never succeed, however often it is tried.
pub(crate) fn is_hopeless(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::TopicLength { .. }
            | StoreError::TopicName { .. }
            | StoreError::PropertiesTooLong { .. }
            | StoreError::MessageTooLarge { .. }
            | StoreError::QueueId { .. }
    )
}

/// Where a queue can be read again, if a file of it is missing at `offset`.
pub(crate) fn behind_hole(store: &MessageStore, topic: &str, queue_id: i32, offset: i64) -> Option<i64> {
    let result = store.get_messages(topic, queue_id, offset, 1, 1, &mut |_| false);
    let is_hole = result.status == GetStatus::OffsetFoundNull && result.next_begin_offset > offset;
    is_hole.then(|| result.next_begin_offset.min(result.max_offset))
}

/// Stores a message under its own topic. One that names none is dropped, and said so.
fn deliver_one(store: &MessageStore, host: SocketAddr, unit: &[u8]) -> Result<(), StoreError> {
    let Ok(message) = decode_message(unit) else {
        tracing::error!("a delayed message does not decode and is dropped");
        return Ok(());
    };
    let queue_id = property(message.properties, REAL_QID).and_then(|text| text.parse().ok());
    let (Some(topic), Some(queue_id)) = (property(message.properties, REAL_TOPIC), queue_id) else {
        tracing::error!(offset = message.physical_offset, "a delayed message without its topic is dropped");
        return Ok(());
    };
    if topic == TRANS_HALF_TOPIC {
        tracing::error!(offset = message.physical_offset, "a delayed half message is dropped");
        return Ok(());
    }
    store.append(&NewMessage {
        topic,
        queue_id,
        flag: message.flag,
        sys_flag: message.sys_flag,
        born_timestamp: message.born_timestamp,
        born_host: message.born_host,
        store_host: host,
        reconsume_times: message.reconsume_times,
        prepared_transaction_offset: 0,
        body: message.body,
        // The level too: consumers ask for it (`getDelayTimeLevel`), and Java's brokers keep it.
        properties: message.properties,
    })?;
    Ok(())
}
