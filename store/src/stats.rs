//! Counters of the store: how many messages, bytes, hits, and how long an append took.
//!
//! Relaxed atomics; reading them is a snapshot of each counter, not of all at one instant.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds (exclusive from the second on) of the append time classes, ms; the last class is open.
/// The classes of `StoreStatsService.putMessageDistributeTime`.
pub const PUT_LATENCY_BOUNDS_MS: [u64; 12] = [0, 10, 50, 100, 200, 500, 1000, 2000, 3000, 4000, 5000, 10_000];

/// Names of the classes as RocketMQ's runtime info has them.
pub const PUT_LATENCY_NAMES: [&str; 13] = [
    "[<=0ms]",
    "[0~10ms]",
    "[10~50ms]",
    "[50~100ms]",
    "[100~200ms]",
    "[200~500ms]",
    "[500ms~1s]",
    "[1~2s]",
    "[2~3s]",
    "[3~4s]",
    "[4~5s]",
    "[5~10s]",
    "[10s~]",
];

/// A reading of all counters since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Messages appended (`putMessageTimesTotal`).
    pub put_times_total: u64,
    /// Bytes appended, whole units (`putMessageSizeTotal`).
    pub put_size_total: u64,
    /// Appends refused or failed (`putMessageFailedTimes`).
    pub put_failed_times: u64,
    /// Longest append, ms (`putMessageEntireTimeMax`).
    pub put_entire_time_max_ms: u64,
    /// Appends per time class, see [`PUT_LATENCY_NAMES`].
    pub put_latency: [u64; 13],
    /// Pulls that found a message (`getMessageTimesTotalFound`).
    pub get_found_times: u64,
    /// Pulls that found none (`getMessageTimesTotalMiss`).
    pub get_miss_times: u64,
    /// Messages handed out by pulls (`getMessageTransferedMsgCount`).
    pub get_transferred_messages: u64,
    /// Longest pull, ms (`getMessageEntireTimeMax`).
    pub get_entire_time_max_ms: u64,
    /// Messages the dispatcher has put into queues.
    pub dispatched_messages: u64,
    /// Messages whose queue offset contradicted their queue and which are not reachable by it.
    pub dispatch_conflicts: u64,
    /// Index entries written.
    pub index_entries: u64,
    /// Flushes of the log.
    pub flush_times: u64,
    /// Older files of queues and index that were compared with what was noted of them.
    pub checked_files: u64,
    /// Files of queues and index that were found damaged and made anew from the log.
    pub mended_files: u64,
    /// Messages found in the log though their queue's unit was damaged.
    pub found_again_messages: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    put_times: AtomicU64,
    put_size: AtomicU64,
    put_failed: AtomicU64,
    put_max: AtomicU64,
    put_latency: [AtomicU64; 13],
    get_found: AtomicU64,
    get_miss: AtomicU64,
    get_messages: AtomicU64,
    get_max: AtomicU64,
    pub(crate) dispatched: AtomicU64,
    pub(crate) dispatch_conflicts: AtomicU64,
    pub(crate) index_entries: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) checked_files: AtomicU64,
    pub(crate) mended_files: AtomicU64,
    pub(crate) found_again: AtomicU64,
}

impl Counters {
    pub(crate) fn put(&self, messages: u64, bytes: u64, took: Duration) {
        self.put_times.fetch_add(messages, Relaxed);
        self.put_size.fetch_add(bytes, Relaxed);
        let ms = took.as_millis() as u64;
        raise(&self.put_max, ms);
        self.put_latency[latency_class(ms)].fetch_add(1, Relaxed);
    }

    pub(crate) fn put_failed(&self) {
        self.put_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn get(&self, messages: u64, took: Duration) {
        if messages > 0 { &self.get_found } else { &self.get_miss }.fetch_add(1, Relaxed);
        self.get_messages.fetch_add(messages, Relaxed);
        raise(&self.get_max, took.as_millis() as u64);
    }

    pub(crate) fn read(&self) -> StoreStats {
        StoreStats {
            put_times_total: self.put_times.load(Relaxed),
            put_size_total: self.put_size.load(Relaxed),
            put_failed_times: self.put_failed.load(Relaxed),
            put_entire_time_max_ms: self.put_max.load(Relaxed),
            put_latency: std::array::from_fn(|i| self.put_latency[i].load(Relaxed)),
            get_found_times: self.get_found.load(Relaxed),
            get_miss_times: self.get_miss.load(Relaxed),
            get_transferred_messages: self.get_messages.load(Relaxed),
            get_entire_time_max_ms: self.get_max.load(Relaxed),
            dispatched_messages: self.dispatched.load(Relaxed),
            dispatch_conflicts: self.dispatch_conflicts.load(Relaxed),
            index_entries: self.index_entries.load(Relaxed),
            flush_times: self.flushes.load(Relaxed),
            checked_files: self.checked_files.load(Relaxed),
            mended_files: self.mended_files.load(Relaxed),
            found_again_messages: self.found_again.load(Relaxed),
        }
    }
}

/// Most readings do not raise the maximum: look before writing to the shared line.
fn raise(max: &AtomicU64, value: u64) {
    if value > max.load(Relaxed) {
        max.fetch_max(value, Relaxed);
    }
}

fn latency_class(ms: u64) -> usize {
    if ms == 0 {
        return 0;
    }
    PUT_LATENCY_BOUNDS_MS[1..].iter().position(|bound| ms < *bound).map_or(12, |i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_falls_into_its_class() {
        for (ms, name) in [(0, "[<=0ms]"), (1, "[0~10ms]"), (10, "[10~50ms]"), (999, "[500ms~1s]"), (10_000, "[10s~]")]
        {
            assert_eq!(PUT_LATENCY_NAMES[latency_class(ms)], name);
        }
    }

    #[test]
    fn a_reading_holds_what_was_counted() {
        let c = Counters::default();
        c.put(3, 300, Duration::from_millis(12));
        c.put_failed();
        c.get(2, Duration::ZERO);
        c.get(0, Duration::ZERO);
        let s = c.read();
        assert_eq!((s.put_times_total, s.put_size_total, s.put_failed_times), (3, 300, 1));
        assert_eq!((s.put_entire_time_max_ms, s.put_latency[2]), (12, 1));
        assert_eq!((s.get_found_times, s.get_miss_times, s.get_transferred_messages), (1, 1, 2));
    }
}
