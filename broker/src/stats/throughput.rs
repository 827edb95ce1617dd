//! Rates of the whole broker (`StoreStatsService` in Java).

use std::collections::VecDeque;
use std::fmt::Write as _;

use rocketmq_store::StoreStats;

use super::SAMPLE_INTERVAL_MS;

/// The windows of a rate, in samples: ten seconds, a minute, ten minutes.
const WINDOWS: [usize; 3] = [1, 6, 60];

/// The samples of the last ten minutes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Throughput(VecDeque<(i64, StoreStats)>);

/// Rates as tools want them: three numbers with blanks between, by window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Messages put.
    pub(crate) put: String,
    /// Pulls that found something.
    pub(crate) get_found: String,
    /// Pulls that found nothing.
    pub(crate) get_missed: String,
    /// Pulls.
    pub(crate) get_total: String,
    /// Messages handed out.
    pub(crate) got: String,
}

const _: () = assert!(SAMPLE_INTERVAL_MS == 10_000, "the first window is ten seconds, one sample");

impl Throughput {
    pub(super) fn push(&mut self, now_ms: i64, store: &StoreStats) {
        self.0.push_back((now_ms, *store));
        if self.0.len() > WINDOWS[2] + 1 {
            self.0.pop_front();
        }
    }

    pub(super) fn rates(&self) -> Rates {
        Rates {
            put: self.rate(|store| store.put_times_total),
            get_found: self.rate(|store| store.get_found_times),
            get_missed: self.rate(|store| store.get_miss_times),
            get_total: self.rate(|store| store.get_found_times + store.get_miss_times),
            got: self.rate(|store| store.get_transferred_messages),
        }
    }

    /// A window that is longer than the broker runs is cut short.
    fn rate(&self, count: impl Fn(&StoreStats) -> u64) -> String {
        let mut text = String::new();
        for window in WINDOWS {
            let first = self.0.len().saturating_sub(window + 1);
            let rate = match (self.0.get(first), self.0.back()) {
                (Some(first), Some(last)) if last.0 > first.0 => {
                    (count(&last.1) - count(&first.1)) as f64 * 1000.0 / (last.0 - first.0) as f64
                }
                _ => 0.0,
            };
            let blank = if text.is_empty() { "" } else { " " };
            // Writing into a string cannot fail.
            let _ = write!(text, "{blank}{rate:?}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_three_windows_from_the_start() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.rates().put, "0.0 0.0 0.0");
        for tick in 1..=100 {
            let put_times_total = if tick <= 98 { 0 } else { 100 };
            let store = StoreStats { put_times_total, get_miss_times: tick as u64 * 20, ..StoreStats::default() };
            throughput.push(tick * 10_000, &store);
        }
        assert_eq!(throughput.0.len(), 61);
        let rates = throughput.rates();
        assert_eq!(rates.put, format!("0.0 {:?} {:?}", 100.0 / 60.0, 100.0 / 600.0));
        assert_eq!(rates.get_total, "2.0 2.0 2.0");
    }
}
