//! A timer message in its three forms: as it is sent, as it waits, as it is delivered.
//!
//! Owns the properties of RIP-43 (5.x's `HookUtils.transformTimerMessage` and
//! `TimerMessageStore.convert`). May not keep or store anything.

use rocketmq_store::{
    MessageStore, MessageView, NewMessage, StoreError, UNIQ_KEY, decode_message, properties, property, push_property,
};

/// Where timer messages wait, in queue 0.
pub(crate) const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
pub(super) const TIMER_QUEUE: i32 = 0;

/// The topic that a waiting message is for, and its queue.
const REAL_TOPIC: &str = "REAL_TOPIC";
const REAL_QID: &str = "REAL_QID";
/// What a sender may ask for; the first that is there counts.
const DELAY_SEC: &str = "TIMER_DELAY_SEC";
const DELAY_MS: &str = "TIMER_DELAY_MS";
pub(crate) const DELIVER_MS: &str = "TIMER_DELIVER_MS";
/// The unique key of a pending message that must not be delivered.
pub(crate) const DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
/// Begin of the precision step before the one in which the message is delivered: a message of 12.0
/// and one of 11.2 s both carry 11 s and are delivered from 12 s on.
pub(crate) const OUT_MS: &str = "TIMER_OUT_MS";
const ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
const DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
const ROLL_TIMES: &str = "TIMER_ROLL_TIMES";

/// Bytes that waiting, rolling and delivery add to the properties, beside the topic's name: seven
/// names, six numbers of up to twenty digits, separators.
pub(crate) const ADDED_PROPERTIES_MAX: usize = 256;

/// The coarsest precision there is, in milliseconds (`setTimerPrecisionMs` of 5.x).
pub(super) const PRECISION_MAX_MS: i64 = 1000;

/// A precision that Java has: what is set, rounded down to 100, 200, 500 or 1000 ms.
pub(crate) fn precision_ms(set: i64) -> i64 {
    [1000, 500, 200].into_iter().find(|candidate| set >= *candidate).unwrap_or(100)
}

/// The properties are no sane wish for a time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Illegal;

/// When a sender wants the message delivered, in milliseconds since 1970; `None` for an ordinary
/// message. A message that was delivered once already is an ordinary one.
pub(crate) fn wanted(text: &[u8], now: i64) -> Result<Option<i64>, Illegal> {
    if property(text, OUT_MS).is_some() {
        return Ok(None);
    }
    let number = |text: &str| text.parse::<i64>().map_err(|_| Illegal);
    if let Some(seconds) = property(text, DELAY_SEC) {
        return later(now, number(seconds)?, 1000).map(Some);
    }
    if let Some(millis) = property(text, DELAY_MS) {
        return later(now, number(millis)?, 1).map(Some);
    }
    property(text, DELIVER_MS).map(number).transpose()
}

fn later(now: i64, delay: i64, unit_ms: i64) -> Result<i64, Illegal> {
    delay.checked_mul(unit_ms).and_then(|ms| now.checked_add(ms)).ok_or(Illegal)
}

/// Whether a sender asks for a time, be it a sane one.
pub(crate) fn asks_for_time(text: &[u8]) -> bool {
    properties(text).any(|(name, _)| is_wish(name))
}

/// Whether the property asks for a time; a delay level sets it aside.
pub(crate) fn is_wish(name: &str) -> bool {
    matches!(name, DELAY_SEC | DELAY_MS | DELIVER_MS)
}

/// `TIMER_OUT_MS` of a message to be delivered at `deliver_ms`.
pub(crate) fn out_ms(deliver_ms: i64, precision_ms: i64) -> i64 {
    (deliver_ms - 1).div_euclid(precision_ms) * precision_ms
}

/// Stores a message where it waits. The properties in `message` are the sender's.
pub(crate) fn append_waiting(
    store: &MessageStore,
    message: &NewMessage<'_>,
    out_ms: i64,
) -> Result<rocketmq_store::Appended, StoreError> {
    let mut text = message.properties.to_vec();
    push_property(&mut text, OUT_MS, &out_ms.to_string());
    push_property(&mut text, REAL_TOPIC, message.topic);
    push_property(&mut text, REAL_QID, &message.queue_id.to_string());
    store.append(&NewMessage { topic: TIMER_TOPIC, queue_id: TIMER_QUEUE, properties: &text, ..*message })
}

/// A waiting message.
pub(super) struct Waiting<'a> {
    pub(super) view: MessageView<'a>,
    pub(super) out_ms: i64,
    real_topic: &'a str,
    real_queue: i32,
    uniq_key: Option<&'a str>,
    /// The key of the message to be deleted, if it is a deletion.
    pub(super) deletes: Option<&'a str>,
    roll_times: i64,
}

impl<'a> Waiting<'a> {
    /// Reads a stored unit; the error says why it can never be delivered.
    pub(super) fn read(unit: &'a [u8]) -> Result<Self, String> {
        let view = decode_message(unit).map_err(|error| error.to_string())?;
        let (mut out_ms, mut real_topic, mut real_queue) = (None, None, None);
        let (mut uniq_key, mut deletes, mut roll_times) = (None, None, 0);
        for (name, value) in properties(view.properties) {
            match name {
                OUT_MS => out_ms = value.parse().ok(),
                REAL_TOPIC => real_topic = Some(value),
                REAL_QID => real_queue = value.parse().ok(),
                UNIQ_KEY => uniq_key = Some(value),
                DEL_UNIQKEY => deletes = Some(value),
                ROLL_TIMES => roll_times = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        Ok(Self {
            view,
            // No sum with a time that far away may overflow.
            out_ms: out_ms.filter(|ms: &i64| ms.abs() < i64::MAX / 4).ok_or("it has no TIMER_OUT_MS")?,
            real_topic: real_topic.ok_or("it has no REAL_TOPIC")?,
            real_queue: real_queue.filter(|id| *id >= 0).ok_or("it has no REAL_QID")?,
            uniq_key,
            deletes,
            roll_times,
        })
    }

    /// Whether a deletion's key means this message. It is the unique key, behind `topic+` from 5.3.2 on
    /// and, by `appendTopicForTimerDeleteKey`, only if wanted in 5.5.
    pub(super) fn is_meant_by(&self, key: &str) -> bool {
        self.uniq_key.is_some_and(|mine| match key.strip_suffix(mine) {
            Some("") => true,
            Some(before) => before.strip_suffix('+') == Some(self.real_topic),
            None => false,
        })
    }

    /// Stores it under its own topic; `(topic, queue, bytes of the body)`.
    pub(super) fn deliver(
        &self,
        store: &MessageStore,
        now: i64,
        host: std::net::SocketAddr,
    ) -> Result<(&'a str, i32, usize), StoreError> {
        let text = self.stamped(now, &[]);
        self.append(store, self.real_topic, self.real_queue, &text, host)?;
        Ok((self.real_topic, self.real_queue, self.view.body.len()))
    }

    /// Stores it once more where it waits, before the log's retention takes it.
    pub(super) fn roll(
        &self,
        store: &MessageStore,
        now: i64,
        out_ms: i64,
        host: std::net::SocketAddr,
    ) -> Result<(), StoreError> {
        let (times, out_ms) = ((self.roll_times + 1).to_string(), out_ms.to_string());
        let text = self.stamped(now, &[(ROLL_TIMES, &times), (OUT_MS, &out_ms)]);
        self.append(store, TIMER_TOPIC, TIMER_QUEUE, &text, host)
    }

    /// The properties with the times of this pass, and with others replaced.
    fn stamped(&self, now: i64, replaced: &[(&str, &str)]) -> Vec<u8> {
        let (enqueued, dequeued) = (self.view.store_timestamp.to_string(), now.to_string());
        let mut text = Vec::with_capacity(self.view.properties.len() + ADDED_PROPERTIES_MAX);
        let is_kept = |name: &str| {
            name != ENQUEUE_MS && name != DEQUEUE_MS && !replaced.iter().any(|(replaced, _)| *replaced == name)
        };
        for (name, value) in properties(self.view.properties).filter(|(name, _)| is_kept(name)) {
            push_property(&mut text, name, value);
        }
        let stamps = [(ENQUEUE_MS, &*enqueued), (DEQUEUE_MS, &*dequeued)];
        for (name, value) in replaced.iter().copied().chain(stamps) {
            push_property(&mut text, name, value);
        }
        text
    }

    fn append(
        &self,
        store: &MessageStore,
        topic: &str,
        queue_id: i32,
        text: &[u8],
        host: std::net::SocketAddr,
    ) -> Result<(), StoreError> {
        store.append(&NewMessage {
            topic,
            queue_id,
            flag: self.view.flag,
            sys_flag: self.view.sys_flag,
            born_timestamp: self.view.born_timestamp,
            born_host: self.view.born_host,
            store_host: host,
            reconsume_times: self.view.reconsume_times,
            prepared_transaction_offset: 0,
            body: self.view.body,
            properties: text,
        })?;
        Ok(())
    }

    /// Whether the index knows a copy of this message under its own topic.
    pub(super) fn was_delivered(&self, store: &MessageStore) -> bool {
        self.has_copy(store, self.real_topic, |_| true)
    }

    /// Whether the index knows a later copy of this message that waits.
    pub(super) fn was_rolled(&self, store: &MessageStore) -> bool {
        self.has_copy(store, TIMER_TOPIC, |copy| copy.queue_offset > self.view.queue_offset)
    }

    fn has_copy(&self, store: &MessageStore, topic: &str, is_copy: impl Fn(&MessageView<'_>) -> bool) -> bool {
        /// Copies that one key has at most: a producer that tries again sends it a few times.
        const COPIES_MAX: usize = 32;
        let Some(key) = self.uniq_key else { return false };
        // The index keeps times in seconds.
        let begin = self.view.store_timestamp - 2000;
        let found = store.query(topic, key, COPIES_MAX, begin, i64::MAX);
        found.messages.iter().any(|unit| {
            decode_message(unit).is_ok_and(|copy| {
                let dequeued = property(copy.properties, DEQUEUE_MS).is_some();
                // A producer may send the same key again, for another time.
                let same = property(copy.properties, UNIQ_KEY) == Some(key)
                    && property(copy.properties, OUT_MS) == property(self.view.properties, OUT_MS)
                    && property(copy.properties, REAL_QID).and_then(|id| id.parse().ok()) == Some(self.real_queue)
                    && property(copy.properties, REAL_TOPIC) == Some(self.real_topic);
                dequeued
                    && same
                    && copy.topic == topic
                    && copy.born_timestamp == self.view.born_timestamp
                    && is_copy(&copy)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut text = Vec::new();
        for (name, value) in pairs {
            push_property(&mut text, name, value);
        }
        text
    }

    #[test]
    fn wishes_are_read_as_java_reads_them() {
        let wish = |pairs: &[(&str, &str)]| wanted(&text(pairs), 1_000_000);
        assert_eq!(wish(&[]), Ok(None));
        assert_eq!(wish(&[(DELAY_SEC, "3"), (DELAY_MS, "5")]), Ok(Some(1_003_000)));
        assert_eq!(wish(&[(DELAY_MS, "5"), (DELIVER_MS, "7")]), Ok(Some(1_000_005)));
        assert_eq!(wish(&[(DELIVER_MS, "7")]), Ok(Some(7)));
        assert_eq!(wish(&[(DELIVER_MS, "7"), (OUT_MS, "6")]), Ok(None), "it was delivered already");
        for bad in ["x", "1.5", "99999999999999999999"] {
            assert_eq!(wish(&[(DELIVER_MS, bad)]), Err(Illegal), "{bad}");
        }
        assert_eq!(wish(&[(DELAY_SEC, "9223372036854775807")]), Err(Illegal), "it overflows");
        assert_eq!(wish(&[(DELAY_MS, "9223372036854775807")]), Err(Illegal), "it overflows");
    }

    #[test]
    fn no_time_is_rounded_to_before_it() {
        for precision in [100, 200, 500, 1000] {
            for deliver in 10_000..12_100 {
                let due = out_ms(deliver, precision) + precision;
                assert!((deliver..deliver + precision).contains(&due), "{deliver} at {precision}");
            }
        }
        // As Java has it: a whole step goes one back.
        assert_eq!((out_ms(12_000, 1000), out_ms(12_001, 1000)), (11_000, 12_000));
        assert_eq!(
            [1, 100, 199, 200, 499, 500, 999, 1000, 5000].map(precision_ms).map(|p| p / 100),
            [1, 1, 1, 2, 2, 5, 5, 10, 10]
        );
    }
}
