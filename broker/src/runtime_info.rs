//! The key-value table of `GET_BROKER_RUNTIME_INFO`, under the keys of RocketMQ 4.9 and those of
//! 5.x that tools look at.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::Path;

use rocketmq_remoting::bodies::KvTable;
use rocketmq_remoting::{VERSION, VERSION_NAME};
use rocketmq_store::{PUT_LATENCY_BOUNDS_MS, PUT_LATENCY_NAMES, SCHEDULE_TOPIC, StoreStats};

use crate::broker::Broker;
use crate::clock;
use crate::ha::master::promise;

/// Everything at once.
pub(crate) fn table(broker: &Broker) -> KvTable {
    let mut entries = Entries::default();
    broker_entries(broker, &mut entries);
    traffic_entries(broker, &mut entries);
    store_entries(broker, &mut entries);
    queue_entries(broker, &mut entries);
    KvTable { table: entries.0 }
}

#[derive(Default)]
struct Entries(BTreeMap<String, String>);

impl Entries {
    fn put(&mut self, key: impl Into<String>, value: impl Display) {
        self.0.insert(key.into(), value.to_string());
    }
}

fn broker_entries(broker: &Broker, entries: &mut Entries) {
    entries.put("brokerVersion", VERSION);
    entries.put("brokerVersionDesc", VERSION_NAME);
    entries.put("brokerActive", true);
    entries.put("bootTimestamp", broker.boot_timestamp);
    entries.put("runtime", duration((clock::now_millis() - broker.boot_timestamp) / 1000));
    entries.put("startAcceptSendRequestTimeStamp", broker.config().start_accept_send_request_time_stamp);
    for (level, offset) in broker.delay_offsets.to_wire().offset_table {
        let end = broker.store.max_offset(SCHEDULE_TOPIC, level - 1);
        entries.put(format!("scheduleMessageOffset_{level}"), format!("{offset},{end}"));
    }
    let standing = broker.replication.standing(&broker.config(), broker.epoch);
    entries.put("haRole", standing.role.name());
    entries.put("haEpoch", standing.epoch);
    entries.put("haConfirmedOffset", standing.confirmed);
    entries.put("haPromise", promise(&broker.config()));
    let (timer, rates) = (broker.timer.standing(), broker.timer.rates());
    entries.put("timerReadBehind", timer.late_ms / 1000);
    entries.put("timerOffsetBehind", timer.not_taken);
    entries.put("timerCongestNum", timer.pending);
    entries.put("timerEnqueueTps", format!("{:.1}", rates.taken));
    entries.put("timerDequeueTps", format!("{:.1}", rates.delivered));
}

fn traffic_entries(broker: &Broker, entries: &mut Entries) {
    let store = broker.store.stats();
    let days = broker.stats.days();
    entries.put("msgPutTotalYesterdayMorning", days.put_yesterday_morning);
    entries.put("msgPutTotalTodayMorning", days.put_today_morning);
    entries.put("msgPutTotalTodayNow", store.put_times_total);
    entries.put("msgGetTotalYesterdayMorning", days.got_yesterday_morning);
    entries.put("msgGetTotalTodayMorning", days.got_today_morning);
    entries.put("msgGetTotalTodayNow", store.get_transferred_messages);
    entries.put("putMessageTimesTotal", store.put_times_total);
    entries.put("putMessageFailedTimes", broker.stats.put_failed_times());
    entries.put("putMessageSizeTotal", store.put_size_total);
    let average = store.put_size_total as f64 / store.put_times_total.max(1) as f64;
    entries.put("putMessageAverageSize", format!("{average:?}"));
    entries.put("putMessageEntireTimeMax", store.put_entire_time_max_ms);
    entries.put("putMessageDistributeTime", distribution(&store));
    entries.put("putLatency99", format!("{:.2}", put_within_ms(&store, 0.99) as f64));
    entries.put("putLatency999", format!("{:.2}", put_within_ms(&store, 0.999) as f64));
    entries.put("getMessageEntireTimeMax", store.get_entire_time_max_ms);
    let rates = broker.stats.rates();
    entries.put("putTps", rates.put);
    entries.put("getFoundTps", rates.get_found);
    entries.put("getMissTps", rates.get_missed);
    entries.put("getTotalTps", rates.get_total);
    // 4.9 and 5.x spell it differently.
    entries.put("getTransferedTps", &rates.got);
    entries.put("getTransferredTps", rates.got);
}

fn store_entries(broker: &Broker, entries: &mut Entries) {
    let store = &broker.store;
    let config = broker.config();
    let end = store.max_physical_offset();
    entries.put("commitLogMinOffset", store.min_physical_offset());
    entries.put("commitLogMaxOffset", end);
    entries.put("dispatchMaxBuffer", 0);
    entries.put("dispatchBehindBytes", end.saturating_sub(store.dispatched_offset()));
    entries.put("remainHowManyDataToFlush", bytes(end.saturating_sub(store.flushed_offset())));
    // No second pool of buffers before the log: Java's number for that.
    entries.put("remainTransientStoreBufferNumbs", i32::MAX);
    entries.put("pageCacheLockTimeMills", store.lock_held_for().as_millis());
    entries.put("earliestMessageTimeStamp", store.earliest_message_time());
    let ratio = ratio(store.disk_ratio());
    let root = &config.store_path_root_dir;
    let log = config.store_path_commit_log.clone().unwrap_or_else(|| root.join("commitlog"));
    entries.put("commitLogDiskRatio", &ratio);
    entries.put(format!("commitLogDiskRatio_{}", log.display()), &ratio);
    entries.put("consumeQueueDiskRatio", ratio);
    if let Some(capacity) = capacity(&log) {
        entries.put("commitLogDirCapacity", capacity);
    }
}

/// Queues before thread pools: there are none, so nothing waits in them.
fn queue_entries(broker: &Broker, entries: &mut Entries) {
    let config = broker.config();
    let pools = [
        ("sendThreadPool", config.send_in_flight_max),
        ("pullThreadPool", config.pull_held_max),
        ("litePullThreadPool", config.pull_held_max),
        ("queryThreadPool", 20_000),
        ("ackThreadPool", 100_000),
    ];
    for (pool, capacity) in pools {
        entries.put(format!("{pool}QueueSize"), 0);
        entries.put(format!("{pool}QueueCapacity"), capacity);
        entries.put(format!("{pool}QueueHeadWaitTimeMills"), 0);
    }
    entries.put("EndTransactionQueueSize", 0);
    entries.put("EndTransactionThreadPoolQueueCapacity", 100_000);
}

/// `[ 0 days, 0 hours, 12 minutes, 46 seconds ]`.
fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60 % 60, seconds / 3600 % 24, seconds / 86_400);
    format!("[ {days} days, {hours} hours, {minutes} minutes, {} seconds ]", seconds % 60)
}

/// `[<=0ms]:n [0~10ms]:n … `, with Java's blank at the end.
fn distribution(store: &StoreStats) -> String {
    let mut text = String::new();
    for (name, count) in PUT_LATENCY_NAMES.iter().zip(store.put_latency) {
        // Writing into a string cannot fail.
        let _ = write!(text, "{name}:{count} ");
    }
    text
}

/// The time within which `share` of the appends were done, in milliseconds: the upper end of the
/// class it falls in, and no more than the longest.
fn put_within_ms(store: &StoreStats, share: f64) -> u64 {
    let wanted = (store.put_latency.iter().sum::<u64>() as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (count, bound_ms) in store.put_latency.iter().zip(PUT_LATENCY_BOUNDS_MS) {
        seen += count;
        if seen >= wanted {
            return bound_ms.min(store.put_entire_time_max_ms);
        }
    }
    store.put_entire_time_max_ms
}

/// Java's way to write a small number that it keeps as a double: two digits are enough here.
fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// `Total : 252.0 GiB, Free : 73.1 GiB.`
fn capacity(dir: &Path) -> Option<String> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    let of = |blocks: u64| bytes(blocks.saturating_mul(disk.f_frsize));
    Some(format!("Total : {}, Free : {}.", of(disk.f_blocks), of(disk.f_bavail)))
}

/// `0 B`, `1.5 KiB`, `252.0 GiB`.
fn bytes(count: u64) -> String {
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_java_writes_them() {
        assert_eq!(duration(3 * 86_400 + 3_600 + 60 + 1), "[ 3 days, 1 hours, 1 minutes, 1 seconds ]");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(252 << 30), "252.0 GiB");
        assert_eq!(ratio(0.179), "0.18");
        assert!(capacity(Path::new("/")).unwrap().ends_with("iB."));
    }

    #[test]
    fn latencies_come_from_the_classes() {
        let mut store = StoreStats { put_entire_time_max_ms: 40, ..StoreStats::default() };
        assert_eq!(put_within_ms(&store, 0.99), 0);
        store.put_latency[0] = 98;
        store.put_latency[1] = 1;
        store.put_latency[2] = 1;
        assert_eq!(put_within_ms(&store, 0.5), 0);
        assert_eq!(put_within_ms(&store, 0.99), 10);
        assert_eq!(put_within_ms(&store, 0.999), 40);
        assert!(distribution(&store).starts_with("[<=0ms]:98 [0~10ms]:1 [10~50ms]:1 [50~100ms]:0 "));
        assert!(distribution(&store).ends_with("[10s~]:0 "));
    }
}
