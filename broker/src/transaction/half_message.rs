//! A half message in each of its forms: as it is sent, as it waits, as it is asked about again, as it is committed.
//!
//! Owns the properties that make it one (`TransactionalMessageBridge` and `EndTransactionProcessor` of 4.9). May not decide
//! what becomes of it.

use std::time::Duration;

use rocketmq_store::{
    Appended, MessageStore, MessageView, NewMessage, StoreError, UNIQ_KEY, decode_message, properties, property,
    push_property, sys_flag,
};

use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::delay;
use crate::topics::{TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC};

/// The queue of the half topic, and of the topic of ends: there is one each.
pub(super) const QUEUE: i32 = 0;

/// The topic that the message is for, and its queue.
const REAL_TOPIC: &str = "REAL_TOPIC";
const REAL_QID: &str = "REAL_QID";
/// `true` makes a message a half one.
const PREPARED: &str = "TRAN_MSG";
/// The group whose members may be asked.
const PRODUCER_GROUP: &str = "PGROUP";
/// How often they were.
const CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
/// Seconds during which the producer does not want to be asked.
const IMMUNITY_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
/// Of a half message that was stored again: where in the queue the first one lies. Java sets it only while nobody may be
/// asked; a Java broker does not look at it otherwise.
const FIRST_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";

/// Bytes that waiting and being asked about add to the properties, beside the names of topic and group: seven names, the
/// cluster's, three numbers of up to twenty digits, separators.
const ADDED_PROPERTIES_MAX: usize = 512;

/// Whether a sender means a half message. A message that an old client (before 4.6.1) sends back with a delay is none, for
/// all that its properties say.
pub(crate) fn is_half(flags: i32, reconsume_times: i32, text: &[u8], config: &BrokerConfig) -> bool {
    let is_prepared = sys_flag::transaction(flags) == sys_flag::TRANSACTION_PREPARED
        || property(text, PREPARED).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    is_prepared && !(reconsume_times > 0 && delay::level_of(text, config).is_some())
}

/// Bytes by which its properties grow at most while it waits.
pub(crate) fn properties_added(topic: &str, group: &str) -> usize {
    ADDED_PROPERTIES_MAX + topic.len() + group.len()
}

/// Stores a half message where it waits. Its properties are the sender's, and so is what they wish of delay: that counts from
/// the commit on. What only a broker may say is taken off, for a message may be sent on with all its properties.
pub(crate) fn append_half(broker: &Broker, message: &NewMessage<'_>, group: &str) -> Result<Appended, StoreError> {
    let mut text = Vec::with_capacity(message.properties.len() + properties_added(message.topic, group));
    let is_ours = |name: &str| matches!(name, REAL_TOPIC | REAL_QID | PREPARED | CHECK_TIMES | FIRST_OFFSET);
    for (name, value) in properties(message.properties).filter(|(name, _)| !is_ours(name)) {
        push_property(&mut text, name, value);
    }
    // A name with separators in it would become further properties.
    let is_name = !group.is_empty() && !group.contains(char::is_control);
    if property(message.properties, PRODUCER_GROUP).is_none() && is_name {
        push_property(&mut text, PRODUCER_GROUP, group);
    }
    push_property(&mut text, PREPARED, "true");
    push_property(&mut text, REAL_TOPIC, message.topic);
    push_property(&mut text, REAL_QID, &message.queue_id.to_string());
    broker.store.append(&NewMessage {
        topic: TRANS_HALF_TOPIC,
        queue_id: QUEUE,
        sys_flag: message.sys_flag & !sys_flag::TRANSACTION_ROLLBACK,
        properties: &text,
        ..*message
    })
}

/// A half message that waits.
pub(super) struct HalfMessage<'a> {
    pub(super) view: MessageView<'a>,
    pub(super) real_topic: &'a str,
    pub(super) real_queue: i32,
    pub(super) group: &'a str,
    pub(super) uniq_key: Option<&'a str>,
    /// Which of those that are stored again and again: the place of the first one in the queue. It names the transaction.
    pub(super) root: i64,
    /// How often its producers were asked.
    check_times: Option<i32>,
    immunity: Option<Duration>,
}

/// What is to be done about a half message whose transaction is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It is too young.
    Later,
    /// Its producer does not want to be asked yet, but it must not hold up those behind it.
    Immune,
    /// Its producers are to be asked.
    Check,
    /// They were asked often enough, or the log will soon forget it.
    GiveUp,
}

/// The first one of a half message that lies at that place of the queue.
pub(super) fn root_at(store: &MessageStore, offset: i64) -> Option<i64> {
    let entry = store.queue_entries(TRANS_HALF_TOPIC, QUEUE, offset, 1).into_iter().next()?;
    let unit = store.message_at(entry.offset).filter(|_| entry.queue_offset == offset)?;
    HalfMessage::read(store, &unit).ok().map(|half| half.root)
}

impl<'a> HalfMessage<'a> {
    /// Reads a stored unit; the error says why it is no half message.
    pub(super) fn read(store: &MessageStore, unit: &'a [u8]) -> Result<Self, String> {
        let half = Self::read_alone(unit)?;
        let root = property(half.view.properties, FIRST_OFFSET).and_then(|text| text.parse().ok());
        let root = root.filter(|root| half.is_stored_at(store, *root)).unwrap_or(half.view.queue_offset);
        Ok(Self { root, ..half })
    }

    /// Without a look at the others.
    fn read_alone(unit: &'a [u8]) -> Result<Self, String> {
        let view = decode_message(unit).map_err(|error| error.to_string())?;
        let (mut real_topic, mut real_queue, mut group) = (None, None, "");
        let (mut uniq_key, mut check_times, mut immunity) = (None, None, None);
        for (name, value) in properties(view.properties) {
            match name {
                REAL_TOPIC => real_topic = Some(value),
                REAL_QID => real_queue = value.parse().ok(),
                PRODUCER_GROUP => group = value,
                UNIQ_KEY => uniq_key = Some(value),
                CHECK_TIMES => check_times = value.parse().ok(),
                IMMUNITY_SECONDS => immunity = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
        Ok(Self {
            view,
            real_topic: real_topic.ok_or("it has no REAL_TOPIC")?,
            real_queue: real_queue.filter(|id| *id >= 0).ok_or("it has no REAL_QID")?,
            group,
            uniq_key,
            root: view.queue_offset,
            check_times,
            immunity,
        })
    }

    /// Its place in the queue.
    pub(super) fn offset(&self) -> i64 {
        self.view.queue_offset
    }

    /// Whether the same message lies at an earlier place of the queue. A sender may have said anything.
    fn is_stored_at(&self, store: &MessageStore, offset: i64) -> bool {
        let earlier = (0..self.offset()).contains(&offset);
        let entries = if earlier { store.queue_entries(TRANS_HALF_TOPIC, QUEUE, offset, 1) } else { Vec::new() };
        let entry = entries.first().filter(|entry| entry.queue_offset == offset);
        let unit = entry.and_then(|entry| store.message_at(entry.offset));
        unit.as_deref().and_then(|unit| HalfMessage::read_alone(unit).ok()).is_some_and(|first| {
            first.view.born_timestamp == self.view.born_timestamp
                && first.view.body_crc == self.view.body_crc
                && (first.uniq_key, first.group) == (self.uniq_key, self.group)
        })
    }

    /// What is to be done now, in milliseconds since 1970. The client's clock counts only where the broker's own says nothing:
    /// of a message that was stored again.
    pub(super) fn due(&self, now: i64, config: &BrokerConfig) -> Due {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        if self.check_times.is_some_and(|times| times >= config.transaction_check_max) {
            return Due::GiveUp;
        }
        let is_first = self.check_times.is_none() && self.root == self.offset();
        let age = now.saturating_sub(if is_first { self.view.store_timestamp } else { self.view.born_timestamp });
        if age > millis(config.reserved_time()) {
            return Due::GiveUp;
        }
        // A clock that was set back does not make anybody wait longer.
        let is_below = |time: Duration| (0..millis(time)).contains(&age);
        let immunity = self.immunity.unwrap_or(config.transaction_time_out);
        if is_below(immunity.min(config.transaction_time_out)) {
            Due::Later
        } else if is_below(immunity) {
            Due::Immune
        } else {
            Due::Check
        }
    }

    /// Stores it again at the end of the queue, where it is looked at in another round.
    pub(super) fn renew(&self, broker: &Broker, due: Due) -> Result<Appended, StoreError> {
        // Java counts also the rounds in which it does not ask, and so gives up messages that it never asked about.
        let times = self.check_times.unwrap_or(0).saturating_add(i32::from(due == Due::Check));
        self.append(broker, TRANS_HALF_TOPIC, (times > 0 || self.check_times.is_some()).then_some(times))
    }

    /// Stores it again to be asked about as if nobody had been asked yet.
    pub(super) fn resume(&self, broker: &Broker) -> Result<Appended, StoreError> {
        self.append(broker, TRANS_HALF_TOPIC, Some(0))
    }

    /// Stores it where an operator finds it.
    pub(super) fn give_up(&self, broker: &Broker) -> Result<Appended, StoreError> {
        self.append(broker, TRANS_CHECK_MAX_TIME_TOPIC, self.check_times)
    }

    fn append(&self, broker: &Broker, topic: &str, check_times: Option<i32>) -> Result<Appended, StoreError> {
        let mut text = Vec::with_capacity(self.view.properties.len() + ADDED_PROPERTIES_MAX);
        let is_replaced = |name: &str| matches!(name, CHECK_TIMES | FIRST_OFFSET);
        for (name, value) in properties(self.view.properties).filter(|(name, _)| !is_replaced(name)) {
            push_property(&mut text, name, value);
        }
        if let Some(times) = check_times {
            push_property(&mut text, CHECK_TIMES, &times.to_string());
        }
        push_property(&mut text, FIRST_OFFSET, &self.root.to_string());
        broker.store.append(&NewMessage {
            topic,
            queue_id: QUEUE,
            sys_flag: self.view.sys_flag & !sys_flag::TRANSACTION_ROLLBACK,
            ..self.copy(broker, &text)
        })
    }

    /// The properties as consumers get them. `TRAN_MSG` stays: by it Java's consumers know that the unique key is the
    /// transaction's id (`PullAPIWrapper`). 4.9 leaves `REAL_TOPIC` and `REAL_QID` among them too, 5.x does not.
    pub(super) fn committed_properties(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.view.properties.len());
        let is_ours = |name: &str| matches!(name, REAL_TOPIC | REAL_QID | FIRST_OFFSET);
        for (name, value) in properties(self.view.properties).filter(|(name, _)| !is_ours(name)) {
            push_property(&mut text, name, value);
        }
        text
    }

    /// The message for consumers, to be stored under its own topic.
    pub(super) fn committed<'m>(&'m self, broker: &Broker, text: &'m [u8]) -> NewMessage<'m> {
        let kept = self.view.sys_flag & !sys_flag::TRANSACTION_ROLLBACK;
        NewMessage {
            topic: self.real_topic,
            queue_id: self.real_queue,
            sys_flag: kept | sys_flag::TRANSACTION_COMMIT,
            prepared_transaction_offset: self.view.physical_offset as i64,
            ..self.copy(broker, text)
        }
    }

    fn copy<'m>(&'m self, broker: &Broker, text: &'m [u8]) -> NewMessage<'m> {
        NewMessage {
            topic: self.view.topic,
            queue_id: self.view.queue_id,
            flag: self.view.flag,
            sys_flag: self.view.sys_flag,
            born_timestamp: self.view.born_timestamp,
            born_host: self.view.born_host,
            store_host: broker.store_host,
            reconsume_times: self.view.reconsume_times,
            prepared_transaction_offset: 0,
            body: self.view.body,
            properties: text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::testing::{BORN_MS, stored};

    const HOUR_MS: i64 = 3_600_000;

    fn due(pairs: &[(&str, &str)], age: impl Fn(&MessageView<'_>) -> i64) -> Due {
        let pairs = [&[(REAL_TOPIC, "T"), (REAL_QID, "0")], pairs].concat();
        let (_dir, store, unit) = stored(TRANS_HALF_TOPIC, "x", &pairs);
        let half = HalfMessage::read(&store, &unit).unwrap();
        let config = BrokerConfig { file_reserved_time: 2, transaction_check_max: 3, ..BrokerConfig::default() };
        half.due(age(&half.view), &config)
    }

    #[test]
    fn the_first_question_waits_by_the_brokers_clock() {
        let at = |age: i64| due(&[], move |view| view.store_timestamp + age);
        assert_eq!([at(0), at(5_999), at(6_000), at(2 * HOUR_MS)], [Due::Later, Due::Later, Due::Check, Due::Check]);
        assert_eq!(at(2 * HOUR_MS + 1), Due::GiveUp);
        assert_eq!(at(-1), Due::Check, "the clock was set back");
    }

    #[test]
    fn a_message_that_was_asked_about_is_as_old_as_its_sender_says() {
        let at = |times: &str, age: i64| due(&[(CHECK_TIMES, times)], move |_| BORN_MS + age);
        assert_eq!([at("1", 6_000), at("2", HOUR_MS), at("3", 6_000)], [Due::Check, Due::Check, Due::GiveUp]);
        assert_eq!([at("0", 6_000), at("1", 2 * HOUR_MS + 1)], [Due::Check, Due::GiveUp]);
        assert_eq!(at("many", HOUR_MS), Due::Check);
    }

    #[test]
    fn producers_may_want_more_time_or_less() {
        let at = |seconds: &str, age: i64| due(&[(IMMUNITY_SECONDS, seconds)], move |view| view.store_timestamp + age);
        assert_eq!([at("60", 5_999), at("60", 6_000), at("60", 60_000)], [Due::Later, Due::Immune, Due::Check]);
        assert_eq!([at("1", 999), at("1", 1_000)], [Due::Later, Due::Check]);
        for nonsense in ["-1", "soon"] {
            assert_eq!([at(nonsense, 5_999), at(nonsense, 6_000)], [Due::Later, Due::Check], "{nonsense}");
        }
        assert_eq!(at("18446744073709551615", HOUR_MS), Due::Immune);
    }

    #[test]
    fn what_lacks_its_topic_or_queue_is_no_half_message() {
        for pairs in [&[(REAL_TOPIC, "T")][..], &[(REAL_QID, "0")], &[(REAL_TOPIC, "T"), (REAL_QID, "-1")]] {
            let (_dir, store, unit) = stored(TRANS_HALF_TOPIC, "x", pairs);
            assert!(HalfMessage::read(&store, &unit).is_err(), "{pairs:?}");
            assert!(HalfMessage::read(&store, &unit[..unit.len() - 1]).is_err());
        }
    }

    #[test]
    fn who_sends_half_messages() {
        let config = BrokerConfig::default();
        let half = |flags, times, text: &str| is_half(flags, times, text.as_bytes(), &config);
        assert!(half(0, 0, "TRAN_MSG\u{1}True\u{2}") && half(sys_flag::TRANSACTION_PREPARED, 0, ""));
        assert!(half(0, 1, "TRAN_MSG\u{1}true\u{2}") && half(0, 0, "TRAN_MSG\u{1}true\u{2}DELAY\u{1}1\u{2}"));
        assert!(!half(0, 1, "TRAN_MSG\u{1}true\u{2}DELAY\u{1}1\u{2}"), "an old client sends it back");
        assert!(!half(sys_flag::TRANSACTION_COMMIT, 0, "TRAN_MSG\u{1}false\u{2}"));
    }
}
