//! Delayed messages: they wait in `SCHEDULE_TOPIC_XXXX`, one queue a delay level, and are stored
//! again under their own topic when their time has come (4.9's `ScheduleMessageService`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rocketmq_remoting::bodies::DelayOffsetTable;
use rocketmq_remoting::fastjson;
use rocketmq_store::{
    Appended, ConfigFile, DELAY, NewMessage, SCHEDULE_TOPIC, StoreError, decode_message, properties, property,
    push_property,
};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::clock;
use crate::config::BrokerConfig;
use crate::topics::TRANS_HALF_TOPIC;

/// The topic that a waiting message is for.
const REAL_TOPIC: &str = "REAL_TOPIC";
/// And its queue.
const REAL_QID: &str = "REAL_QID";
/// How often the queues are looked at, as in Java.
const SCAN_PERIOD: Duration = Duration::from_millis(100);
/// Entries of one level that are looked at before the next level's turn.
const ROUND_MAX: usize = 256;

/// The delay level that a message asks for, from 1; one beyond the last is the last.
pub(crate) fn level_of(text: &[u8], config: &BrokerConfig) -> Option<i32> {
    let level: i32 = property(text, DELAY)?.parse().ok()?;
    (level > 0).then(|| level.min(config.message_delay_level.0.len() as i32))
}

/// Stores a message where it waits for its time.
pub(crate) fn append(broker: &Broker, message: &NewMessage<'_>, level: i32) -> Result<Appended, StoreError> {
    let mut text = message.properties.to_vec();
    push_property(&mut text, REAL_TOPIC, message.topic);
    push_property(&mut text, REAL_QID, &message.queue_id.to_string());
    broker.store.append(&NewMessage { topic: SCHEDULE_TOPIC, queue_id: level - 1, properties: &text, ..*message })
}

/// How far each level is delivered: `config/delayOffset.json`.
pub(crate) struct DelayOffsets {
    offsets: Mutex<BTreeMap<i32, i64>>,
    file: ConfigFile,
}

impl DelayOffsets {
    pub(crate) fn open(config_dir: &Path) -> anyhow::Result<Self> {
        let file = ConfigFile::new(config_dir.join("delayOffset.json"));
        let table: DelayOffsetTable = file
            .load(|text| fastjson::from_slice(text.as_bytes()).map_err(|error| error.to_string()))?
            .unwrap_or_default();
        Ok(Self { offsets: Mutex::new(table.offset_table), file })
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

    /// Writes the file.
    pub(crate) fn persist(&self) -> anyhow::Result<()> {
        Ok(self.file.persist(&fastjson::to_string_pretty(&self.to_wire()))?)
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
    let mut ticks = tokio::time::interval(SCAN_PERIOD);
    let levels = broker.config().message_delay_level.0.clone();
    let mut persisted = broker.delay_offsets.to_wire();
    let mut next_persist = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for (index, delay) in levels.iter().enumerate() {
            deliver_level(&broker, index as i32 + 1, delay.as_millis() as i64);
        }
        if tokio::time::Instant::now() >= next_persist {
            next_persist += broker.config().flush_delay_offset_interval;
            let now = broker.delay_offsets.to_wire();
            if now != persisted {
                match broker.delay_offsets.persist() {
                    Ok(()) => persisted = now,
                    Err(error) => tracing::error!("delayOffset.json could not be written: {error:#}"),
                }
            }
        }
    }
}

fn deliver_level(broker: &Broker, level: i32, delay_millis: i64) {
    let queue_id = level - 1;
    let mut offset = broker.delay_offsets.get(level);
    let end = broker.store.max_offset(SCHEDULE_TOPIC, queue_id);
    let begin = broker.store.min_offset(SCHEDULE_TOPIC, queue_id);
    if offset < begin || offset > end {
        tracing::warn!(level, offset, begin, end, "the delay offset lies outside the queue and is moved into it");
        offset = offset.clamp(begin, end);
        broker.delay_offsets.set(level, offset);
    }
    if offset == end {
        return;
    }
    let now = clock::now_millis();
    for entry in broker.store.queue_entries(SCHEDULE_TOPIC, queue_id, offset, ROUND_MAX) {
        // A delivery time further away than the level's delay comes of a clock that was set back.
        let due = entry.tags_code <= now || entry.tags_code > now + delay_millis;
        if !due {
            return;
        }
        if let Some(unit) = broker.store.message_at(entry.offset)
            && let Err(error) = deliver_one(broker, &unit)
        {
            tracing::warn!(level, offset = entry.queue_offset, %error, "a delayed message waits: it could not be stored");
            return;
        }
        broker.delay_offsets.set(level, entry.queue_offset + 1);
    }
}

/// Stores a message under its own topic. One that names none is dropped, and said so.
fn deliver_one(broker: &Broker, unit: &[u8]) -> Result<(), StoreError> {
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
    let mut text = Vec::with_capacity(message.properties.len() + 16);
    for (name, value) in properties(message.properties).filter(|(name, _)| *name != DELAY && *name != "WAIT") {
        push_property(&mut text, name, value);
    }
    push_property(&mut text, "WAIT", "false");
    broker.store.append(&NewMessage {
        topic,
        queue_id,
        flag: message.flag,
        sys_flag: message.sys_flag,
        born_timestamp: message.born_timestamp,
        born_host: message.born_host,
        store_host: broker.store_host,
        reconsume_times: message.reconsume_times,
        prepared_transaction_offset: 0,
        body: message.body,
        properties: &text,
    })?;
    Ok(())
}
