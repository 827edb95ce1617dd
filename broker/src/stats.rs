//! What the broker counts: messages put and got, by topic, queue and group, and their rates.
//!
//! Counting is atomic additions behind a read lock on the table of names; [`BrokerStats::sample`],
//! called every [`SAMPLE_INTERVAL`], turns counts into the windows that tools ask for
//! (`BrokerStatsManager`, `BrokerStats` and `StoreStatsService` in Java). What the store counts
//! itself is not counted twice. Keeps nothing on disk.

mod item;
mod table;
mod throughput;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rocketmq_store::StoreStats;

use item::Item;
pub(crate) use item::{StatsData, Window};
use table::Table;
use throughput::{Rates, Throughput};

/// How often [`BrokerStats::sample`] is to be called.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
const SAMPLE_INTERVAL_MS: i64 = SAMPLE_INTERVAL.as_millis() as i64;

/// All counts of a broker.
#[derive(Debug, Default)]
pub(crate) struct BrokerStats {
    /// By topic.
    topic_put: Table,
    /// By `topic@queueId`.
    queue_put: Table,
    /// By `topic@group`.
    group_get: Table,
    /// By `topic@queueId@group`.
    queue_get: Table,
    /// By `topic@group`; nothing counts its bytes.
    send_back: Table,
    broker_put: Item,
    broker_get: Item,
    /// Sends that were refused.
    put_failed: AtomicU64,
    throughput: Mutex<Throughput>,
    days: Mutex<Days>,
}

/// Totals at the last two midnights, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Days {
    day: Option<jiff::civil::Date>,
    /// Messages put before yesterday's midnight.
    pub(crate) put_yesterday_morning: u64,
    /// Messages put before today's midnight.
    pub(crate) put_today_morning: u64,
    /// Messages got before yesterday's midnight.
    pub(crate) got_yesterday_morning: u64,
    /// Messages got before today's midnight.
    pub(crate) got_today_morning: u64,
}

impl BrokerStats {
    /// A send stored `count` messages of `bytes` bytes in all.
    pub(crate) fn put(&self, topic: &str, queue_id: i32, count: u64, bytes: u64) {
        self.topic_put.add(format_args!("{topic}"), count, bytes);
        self.queue_put.add(format_args!("{topic}@{queue_id}"), count, bytes);
        self.broker_put.add(count);
    }

    /// A send was refused.
    pub(crate) fn put_failed(&self) {
        self.put_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A pull found `count` messages of `bytes` bytes in all.
    pub(crate) fn get(&self, group: &str, topic: &str, queue_id: i32, count: u64, bytes: u64) {
        self.group_get.add(format_args!("{topic}@{group}"), count, bytes);
        self.queue_get.add(format_args!("{topic}@{queue_id}@{group}"), count, bytes);
        self.broker_get.add(count);
    }

    /// A consumer sent a message back.
    pub(crate) fn sent_back(&self, group: &str, topic: &str) {
        self.send_back.add(format_args!("{topic}@{group}"), 1, 0);
    }

    /// Forgets a topic.
    pub(crate) fn forget_topic(&self, topic: &str) {
        for table in self.tables() {
            table.retain(|key| key.split('@').next() != Some(topic));
        }
    }

    /// Forgets a group.
    pub(crate) fn forget_group(&self, group: &str) {
        for table in [&self.group_get, &self.queue_get, &self.send_back] {
            table.retain(|key| key.rsplit('@').next() != Some(group));
        }
    }

    /// Takes one sample of everything; `store` is what the store has counted.
    pub(crate) fn sample(&self, store: &StoreStats, now_ms: i64) {
        for table in self.tables() {
            table.sample(now_ms);
        }
        self.broker_put.sample(now_ms);
        self.broker_get.sample(now_ms);
        self.throughput.lock().push(now_ms, store);
        self.roll_day(store, now_ms);
    }

    /// One statistic by RocketMQ's name for it. Those of the whole broker (`BROKER_*`) are found
    /// by any key.
    pub(crate) fn data(&self, name: &str, key: &str) -> Option<StatsData> {
        let table = |table: &Table| table.find(key);
        match name {
            "TOPIC_PUT_NUMS" => table(&self.topic_put).map(|flow| flow.nums.data()),
            "TOPIC_PUT_SIZE" => table(&self.topic_put).map(|flow| flow.size.data()),
            "QUEUE_PUT_NUMS" => table(&self.queue_put).map(|flow| flow.nums.data()),
            "QUEUE_PUT_SIZE" => table(&self.queue_put).map(|flow| flow.size.data()),
            "GROUP_GET_NUMS" => table(&self.group_get).map(|flow| flow.nums.data()),
            "GROUP_GET_SIZE" => table(&self.group_get).map(|flow| flow.size.data()),
            "QUEUE_GET_NUMS" => table(&self.queue_get).map(|flow| flow.nums.data()),
            "QUEUE_GET_SIZE" => table(&self.queue_get).map(|flow| flow.size.data()),
            "SNDBCK_PUT_NUMS" => table(&self.send_back).map(|flow| flow.nums.data()),
            "BROKER_PUT_NUMS" => Some(self.broker_put.data()),
            "BROKER_GET_NUMS" => Some(self.broker_get.data()),
            _ => None,
        }
    }

    /// Messages that a group got of a topic in a second, over the last minute.
    pub(crate) fn group_get_tps(&self, group: &str, topic: &str) -> f64 {
        self.group_get.find(&format!("{topic}@{group}")).map_or(0.0, |flow| flow.nums.data().minute.tps)
    }

    /// Messages and bytes put since the start, by topic.
    pub(crate) fn topic_puts(&self) -> Vec<(String, u64, u64)> {
        self.topic_put.totals()
    }

    /// Messages and bytes got since the start, by `topic@group`.
    pub(crate) fn group_gets(&self) -> Vec<(String, u64, u64)> {
        self.group_get.totals()
    }

    /// Sends that were refused since the start.
    pub(crate) fn put_failed_times(&self) -> u64 {
        self.put_failed.load(Ordering::Relaxed)
    }

    /// Totals at the last two midnights.
    pub(crate) fn days(&self) -> Days {
        *self.days.lock()
    }

    /// Rates over ten seconds, a minute and ten minutes.
    pub(crate) fn rates(&self) -> Rates {
        self.throughput.lock().rates()
    }

    fn tables(&self) -> [&Table; 5] {
        [&self.topic_put, &self.queue_put, &self.group_get, &self.queue_get, &self.send_back]
    }

    fn roll_day(&self, store: &StoreStats, now_ms: i64) {
        let Ok(now) = jiff::Timestamp::from_millisecond(now_ms) else { return };
        let today = now.to_zoned(jiff::tz::TimeZone::system()).date();
        let mut days = self.days.lock();
        if days.day.is_some_and(|day| day != today) {
            days.put_yesterday_morning = days.put_today_morning;
            days.got_yesterday_morning = days.got_today_morning;
            days.put_today_morning = store.put_times_total;
            days.got_today_morning = store.get_transferred_messages;
        }
        days.day = Some(today);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_found_by_javas_names_and_keys() {
        let stats = BrokerStats::default();
        stats.put("T", 3, 2, 200);
        stats.get("g", "T", 3, 1, 100);
        stats.sent_back("g", "T");
        stats.sample(&StoreStats::default(), 10_000);
        let sum = |name, key| stats.data(name, key).map(|data| data.minute.sum);
        assert_eq!(sum("TOPIC_PUT_NUMS", "T"), Some(2));
        assert_eq!(sum("TOPIC_PUT_SIZE", "T"), Some(200));
        assert_eq!(sum("QUEUE_PUT_NUMS", "T@3"), Some(2));
        assert_eq!(sum("GROUP_GET_NUMS", "T@g"), Some(1));
        assert_eq!(sum("QUEUE_GET_SIZE", "T@3@g"), Some(100));
        assert_eq!(sum("SNDBCK_PUT_NUMS", "T@g"), Some(1));
        assert_eq!(sum("BROKER_PUT_NUMS", "C"), Some(2));
        assert_eq!(sum("TOPIC_PUT_NUMS", "U"), None);
        assert_eq!(sum("NONE", "T"), None);
        assert!((stats.group_get_tps("g", "T") - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_deleted_topic_or_group_is_forgotten() {
        let stats = BrokerStats::default();
        stats.put("T", 0, 1, 1);
        stats.put("TT", 0, 1, 1);
        stats.get("g", "T", 0, 1, 1);
        stats.get("g", "TT", 0, 1, 1);
        stats.get("h", "TT", 0, 1, 1);
        stats.forget_topic("T");
        assert!(stats.data("TOPIC_PUT_NUMS", "T").is_none());
        assert!(stats.data("QUEUE_GET_NUMS", "T@0@g").is_none());
        stats.forget_group("g");
        assert!(stats.data("GROUP_GET_NUMS", "TT@g").is_none());
        assert!(stats.data("GROUP_GET_NUMS", "TT@h").is_some());
        assert!(stats.data("QUEUE_PUT_NUMS", "TT@0").is_some());
    }

    #[test]
    fn totals_are_kept_at_midnight() {
        const DAY_MS: i64 = 86_400_000;
        let stats = BrokerStats::default();
        let store = |put_times_total, get_transferred_messages| StoreStats {
            put_times_total,
            get_transferred_messages,
            ..StoreStats::default()
        };
        stats.sample(&store(5, 0), 0);
        assert_eq!(stats.days().put_today_morning, 0);
        stats.sample(&store(5, 0), DAY_MS);
        assert_eq!((stats.days().put_yesterday_morning, stats.days().put_today_morning), (0, 5));
        stats.sample(&store(7, 3), 2 * DAY_MS);
        assert_eq!((stats.days().put_yesterday_morning, stats.days().put_today_morning), (5, 7));
        assert_eq!(stats.days().got_today_morning, 3);
    }
}
