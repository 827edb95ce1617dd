//! One count and what it was over the last minute, hour and day (`StatsItem` in Java).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::SAMPLE_INTERVAL_MS;

/// A count that is sampled.
#[derive(Debug, Default)]
pub(super) struct Item {
    value: AtomicU64,
    /// How often something was added.
    times: AtomicU64,
    history: Mutex<History>,
}

/// What a count was over three windows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StatsData {
    /// The last minute, in samples of ten seconds.
    pub(crate) minute: Window,
    /// The last hour, in samples of ten minutes.
    pub(crate) hour: Window,
    /// The last day, in samples of an hour.
    pub(crate) day: Window,
}

/// What a count was over one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Window {
    /// What was added.
    pub(crate) sum: u64,
    /// That, in a second.
    pub(crate) tps: f64,
    /// That, at a time.
    pub(crate) per_time: f64,
}

impl Item {
    pub(super) fn add(&self, value: u64) {
        self.value.fetch_add(value, Ordering::Relaxed);
        self.times.fetch_add(1, Ordering::Relaxed);
    }

    /// What was added since the start.
    pub(super) fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    pub(super) fn sample(&self, now_ms: i64) {
        let point = Point {
            at_ms: now_ms,
            value: self.value.load(Ordering::Relaxed),
            times: self.times.load(Ordering::Relaxed),
        };
        self.history.lock().push(point);
    }

    pub(super) fn data(&self) -> StatsData {
        let history = self.history.lock();
        StatsData { minute: history.minute.window(), hour: history.hour.window(), day: history.day.window() }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    at_ms: i64,
    value: u64,
    times: u64,
}

#[derive(Debug)]
struct History {
    samples: u64,
    minute: Series,
    hour: Series,
    day: Series,
}

impl Default for History {
    fn default() -> Self {
        Self { samples: 0, minute: Series::new(1, 7), hour: Series::new(60, 7), day: Series::new(360, 25) }
    }
}

/// Samples from which an item's hour and day show something: a minute after it came to be.
const FIRST_LONG_SAMPLE: u64 = 6;

impl History {
    fn push(&mut self, point: Point) {
        self.samples += 1;
        self.minute.push(point);
        for points in [&mut self.hour, &mut self.day] {
            if self.samples % points.stride == FIRST_LONG_SAMPLE {
                points.push(point);
            }
        }
    }
}

/// The points of one window, oldest first.
#[derive(Debug)]
struct Series {
    points: VecDeque<Point>,
    /// Samples from one point to the next.
    stride: u64,
    max: usize,
}

impl Series {
    fn new(stride: u64, max: usize) -> Self {
        Self { points: VecDeque::new(), stride, max }
    }

    fn push(&mut self, point: Point) {
        if self.points.is_empty() {
            // Before the first point there was nothing, for one interval at least.
            let at_ms = point.at_ms - SAMPLE_INTERVAL_MS * self.stride as i64;
            self.points.push_back(Point { at_ms, ..Point::default() });
        }
        self.points.push_back(point);
        if self.points.len() > self.max {
            self.points.pop_front();
        }
    }

    fn window(&self) -> Window {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else {
            return Window::default();
        };
        let sum = last.value - first.value;
        let times = last.times - first.times;
        let elapsed_ms = last.at_ms - first.at_ms;
        Window {
            sum,
            tps: if elapsed_ms > 0 { sum as f64 * 1000.0 / elapsed_ms as f64 } else { 0.0 },
            per_time: if times > 0 { sum as f64 / times as f64 } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_the_last_six_intervals() {
        let item = Item::default();
        for tick in 1..=10 {
            item.add(10);
            item.add(20);
            item.sample(tick * 10_000);
        }
        let minute = item.data().minute;
        assert_eq!(minute, Window { sum: 180, tps: 3.0, per_time: 15.0 });
    }

    #[test]
    fn hour_and_day_show_after_a_minute_and_then_in_their_own_steps() {
        let item = Item::default();
        item.add(60);
        for tick in 1..=6 {
            assert_eq!(item.data().hour, Window::default());
            item.sample(tick * 10_000);
        }
        assert_eq!(item.data().hour, Window { sum: 60, tps: 0.1, per_time: 60.0 });
        assert_eq!(item.data().day.sum, 60);
        item.add(40);
        for tick in 7..=66 {
            assert_eq!(item.data().hour.sum, 60);
            item.sample(tick * 10_000);
        }
        assert_eq!(item.data().hour.sum, 100);
        assert_eq!(item.data().day.sum, 60);
        for tick in 67..=10_000 {
            item.sample(tick * 10_000);
        }
        assert_eq!((item.data().hour.sum, item.data().day.sum), (0, 0), "nothing came for a day");
    }
}
