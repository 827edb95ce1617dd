//! Reading by queue: pulls, look-ups by time (`DefaultMessageStore.getMessage` and its neighbours).
//!
//! No lock is taken here. May not: know consumers or subscriptions; the caller's filter decides.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::commit_log::CommitLog;
use crate::consume_queue::{ConsumeQueue, UNIT, is_filler, is_message};
use crate::core::Core;
use crate::mapped_file::Slice;
use crate::mend;
use crate::message::{MessageView, decode_message};
use crate::results::{GetResult, GetStatus, QueueEntry, TimeBoundary};

/// Queue bytes one pull looks at, at least.
const SCAN_BYTES_MIN: usize = 16_000;

/// Units and bytes at the end of a queue and of the log that are taken to be in memory without asking.
const RECENT_UNITS: i64 = 1000;
const RECENT_BYTES: u64 = 64 << 20;

/// Which messages a reader wants, in two steps: `message` is asked only where `entry` says yes.
#[allow(missing_debug_implementations)] // closures have none
pub struct Wanted<'a> {
    /// By the queue's entry.
    pub entry: &'a mut dyn FnMut(&QueueEntry) -> bool,
    /// By the stored message.
    pub message: &'a mut dyn FnMut(&MessageView<'_>) -> bool,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Added {
    Yes,
    /// The reader does not want it.
    Unwanted,
    /// The log has no such message.
    Absent,
}

/// Collects units; neighbours in the log become one slice.
#[derive(Default)]
struct Collected {
    /// The log file of the message looked at last, and where it starts.
    file: Option<(u64, Slice)>,
    run: Option<Run>,
    messages: Vec<Bytes>,
    count: usize,
    bytes: usize,
}

/// Neighbours in one file, positions in the file.
struct Run {
    file: Slice,
    from: usize,
    to: usize,
}

impl Collected {
    /// Adds the message a queue's unit points to, where it is there, not another one, and wanted.
    fn add(
        &mut self,
        log: &CommitLog,
        queue: &ConsumeQueue,
        unit: &QueueEntry,
        wanted: &mut dyn FnMut(&MessageView<'_>) -> bool,
    ) -> Added {
        let Some(end) = unit.offset.checked_add(u64::from(unit.size)) else { return Added::Absent };
        let holds = |(start, file): &(u64, Slice)| *start <= unit.offset && end <= start + file.len() as u64;
        if !self.file.as_ref().is_some_and(holds) {
            self.file = log.file_at(unit.offset);
        }
        let Some((start, file)) = self.file.as_ref().filter(|file| holds(file)) else { return Added::Absent };
        let (from, to) = ((unit.offset - start) as usize, (end - start) as usize);
        let bytes = &file[from..to];
        // A damaged unit may point to the beginning of a wrong message, and a client cannot get past a damaged one.
        let message = decode_message(bytes).ok();
        let is_its_own = |m: &MessageView<'_>| {
            (m.total_size, m.queue_offset, m.queue_id) == (unit.size, unit.queue_offset, queue.queue_id)
                && *m.topic == *queue.topic
        };
        let Some(message) = message.filter(is_its_own) else {
            return Added::Absent;
        };
        if !wanted(&message) {
            return Added::Unwanted;
        }
        match &mut self.run {
            Some(run) if run.to == from && run.file.is_of(file) => run.to = to,
            run => {
                let next = Run { file: file.clone(), from, to };
                self.messages.extend(run.replace(next).map(Run::into_bytes));
            }
        }
        self.count += 1;
        self.bytes += unit.size as usize;
        Added::Yes
    }

    fn finish(&mut self) {
        self.messages.extend(self.run.take().map(Run::into_bytes));
    }
}

impl Run {
    fn into_bytes(self) -> Bytes {
        self.file.part(self.from, self.to).into_bytes()
    }
}

/// Limits of one pull.
struct Limits {
    count: usize,
    bytes: usize,
    hot: (usize, usize),
    cold: (usize, usize),
}

impl Limits {
    /// Whether one more unit would be too much (`isTheBatchFull`); the first always fits.
    fn reached(&self, collected: &Collected, size: usize, cold: bool) -> bool {
        if collected.count == 0 {
            return false;
        }
        let (count, bytes) = if cold { self.cold } else { self.hot };
        collected.count >= self.count.min(count) || collected.bytes + size > self.bytes.min(bytes)
    }
}

impl Core {
    pub(crate) fn get_messages(
        &self,
        topic: &str,
        queue_id: i32,
        offset: i64,
        max_count: usize,
        max_bytes: usize,
        wanted: &mut Wanted<'_>,
    ) -> GetResult {
        let started = Instant::now();
        let result = match self.queues.find(topic, queue_id) {
            Some(queue) => self.get_from(&queue, offset, max_count, max_bytes, wanted),
            None => answer(GetStatus::NoMatchedLogicQueue, 0, 0, 0),
        };
        self.counters.get(u64::from(result.message_count), started.elapsed());
        result
    }

    fn get_from(
        &self,
        queue: &ConsumeQueue,
        offset: i64,
        max_count: usize,
        max_bytes: usize,
        wanted: &mut Wanted<'_>,
    ) -> GetResult {
        let (min, max) = (queue.min_offset(), queue.max_offset());
        let early = |status, next| answer(status, next, min, max);
        if max == 0 {
            return early(GetStatus::NoMessageInQueue, 0);
        }
        if offset < min {
            return early(GetStatus::OffsetTooSmall, min);
        }
        if offset == max {
            return early(GetStatus::OffsetOverflowOne, offset);
        }
        if offset > max {
            return early(GetStatus::OffsetOverflowBadly, max);
        }
        let limits = Limits {
            count: max_count.max(1),
            bytes: max_bytes,
            hot: (
                self.config.max_transfer_count_on_message_in_memory,
                self.config.max_transfer_bytes_on_message_in_memory,
            ),
            cold: (
                self.config.max_transfer_count_on_message_in_disk,
                self.config.max_transfer_bytes_on_message_in_disk,
            ),
        };
        let scan = (SCAN_BYTES_MIN / UNIT as usize).max(max_count);
        let read = queue.read(offset, |units| self.collect(queue, units.take(scan), offset, &limits, wanted));
        match read {
            Some(result) => GetResult { min_offset: min, max_offset: max, ..result },
            None => early(GetStatus::OffsetFoundNull, queue.roll_next_file(offset)),
        }
    }

    fn collect(
        &self,
        queue: &ConsumeQueue,
        units: impl Iterator<Item = QueueEntry>,
        offset: i64,
        limits: &Limits,
        wanted: &mut Wanted<'_>,
    ) -> GetResult {
        let log_end = self.log.end();
        let mut status = GetStatus::NoMatchedMessage;
        let mut next = offset;
        let mut skip_below = 0;
        let mut last_physical = 0;
        let mut cold = false;
        let mut collected = Collected::default();
        for mut unit in units {
            if !is_message(&unit)
                && !is_filler(&unit)
                && let Some(found) = self.found_again(queue, &unit)
            {
                unit = found;
            }
            if !is_message(&unit) || unit.offset < skip_below {
                next = unit.queue_offset + 1;
                continue;
            }
            last_physical = unit.offset;
            cold = log_end.saturating_sub(unit.offset) > self.hot_bytes;
            if limits.reached(&collected, unit.size as usize, cold) {
                break;
            }
            next = unit.queue_offset + 1;
            if !(wanted.entry)(&unit) {
                continue;
            }
            let mut added = collected.add(&self.log, queue, &unit, wanted.message);
            // Of a queue's messages retention takes the beginning, and moves the minimum first.
            if added == Added::Absent
                && unit.queue_offset >= queue.min_offset()
                && let Some(found) = self.found_again(queue, &unit)
            {
                unit = found;
                added = if (wanted.entry)(&found) {
                    collected.add(&self.log, queue, &found, wanted.message)
                } else {
                    Added::Unwanted
                };
            }
            match added {
                Added::Yes => {
                    status = GetStatus::Found;
                    skip_below = 0;
                    continue;
                }
                Added::Unwanted => {
                    skip_below = 0;
                    continue;
                }
                Added::Absent => {}
            }
            if collected.count == 0 {
                status = GetStatus::MessageWasRemoving;
            }
            if unit.offset < self.log.min_offset() {
                skip_below = self.log.roll_next(unit.offset);
            } else {
                tracing::error!(?unit, "the queue points to no message of its own, the entry is passed over");
            }
        }
        collected.finish();
        GetResult {
            next_begin_offset: next,
            message_count: collected.count as u32,
            bytes: collected.bytes,
            messages: collected.messages,
            max_physical_offset_pulling: last_physical,
            suggest_pulling_from_slave: cold,
            ..answer(status, 0, 0, 0)
        }
    }

    /// The entry that ought to be in the place of one that is of no message; the file is made anew meanwhile.
    fn found_again(&self, queue: &ConsumeQueue, wrong: &QueueEntry) -> Option<QueueEntry> {
        self.check.found(queue, wrong.queue_offset);
        let found = mend::found_again(self, queue, wrong.queue_offset).filter(|found| found != wrong)?;
        self.counters.found_again.fetch_add(1, Ordering::Relaxed);
        tracing::error!(?wrong, ?found, topic = %queue.topic, queue_id = queue.queue_id, "the queue's entry is damaged");
        Some(found)
    }

    /// Whether a pull from here would wait for the disk. What was written last is in memory; of older data the kernel
    /// is asked.
    pub(crate) fn reads_disk(&self, topic: &str, queue_id: i32, offset: i64, max_bytes: usize) -> bool {
        let Some(queue) = self.queues.find(topic, queue_id) else { return false };
        let behind = queue.max_offset().saturating_sub(offset);
        if behind <= 0 {
            return false;
        }
        if behind > RECENT_UNITS && !queue.is_resident(offset, SCAN_BYTES_MIN) {
            return true;
        }
        let Some(unit) = queue.entry(offset) else { return false };
        if self.log.end().saturating_sub(unit.offset) <= RECENT_BYTES {
            return false;
        }
        let Some((start, file)) = self.log.file_at(unit.offset) else { return false };
        let from = (unit.offset - start) as usize;
        let bytes = max_bytes.min(self.config.max_transfer_bytes_on_message_in_disk).max(unit.size as usize);
        !file.part(from, file.len().min(from + bytes)).is_resident()
    }

    pub(crate) fn store_time(&self, topic: &str, queue_id: i32, offset: i64) -> Option<i64> {
        self.store_time_in(&*self.queues.find(topic, queue_id)?, offset)
    }

    fn store_time_in(&self, queue: &ConsumeQueue, offset: i64) -> Option<i64> {
        let unit = queue.entry(offset)?;
        self.log.store_timestamp(unit.offset, unit.size as usize)
    }

    pub(crate) fn earliest_store_time(&self, topic: &str, queue_id: i32) -> i64 {
        self.queues.find(topic, queue_id).and_then(|queue| self.store_time_in(&queue, queue.min_offset())).unwrap_or(-1)
    }

    /// The offset whose message was stored at or around `timestamp` (`ConsumeQueue.getOffsetInQueueByTime`). 0 for an
    /// unknown queue.
    pub(crate) fn offset_by_time(&self, topic: &str, queue_id: i32, timestamp: i64, boundary: TimeBoundary) -> i64 {
        let Some(queue) = self.queues.find(topic, queue_id) else { return 0 };
        let (min, max) = (queue.min_offset(), queue.max_offset());
        if min >= max {
            return min;
        }
        let time = |offset| self.store_time_in(&queue, offset);
        // Messages the log lost meanwhile lie before everything it has.
        let first_with = |is_before: &dyn Fn(i64) -> bool| {
            queue.partition_point(|u| time(u.queue_offset).is_none_or(is_before)).max(min)
        };
        let first_not_before = first_with(&|t| t < timestamp);
        match boundary {
            TimeBoundary::First => first_not_before,
            TimeBoundary::Last => (first_with(&|t| t <= timestamp) - 1).max(min),
            TimeBoundary::Nearest if first_not_before >= max => max - 1,
            TimeBoundary::Nearest if first_not_before == min => min,
            TimeBoundary::Nearest => match (time(first_not_before - 1), time(first_not_before)) {
                (Some(before), Some(after)) if timestamp - before <= after - timestamp => first_not_before - 1,
                _ => first_not_before,
            },
        }
    }

    pub(crate) fn queue_entries(&self, topic: &str, queue_id: i32, index: i64, count: usize) -> Vec<QueueEntry> {
        let Some(queue) = self.queues.find(topic, queue_id) else { return Vec::new() };
        let mut entries: Vec<QueueEntry> = Vec::new();
        let mut next = index.max(queue.min_offset());
        while entries.len() < count {
            let before = next;
            let room = count - entries.len();
            queue.read(next, |units| {
                for unit in units.take(room) {
                    next = unit.queue_offset + 1;
                    entries.extend(Some(unit).filter(is_message));
                }
            });
            if next == before {
                break;
            }
        }
        entries
    }
}

fn answer(status: GetStatus, next: i64, min: i64, max: i64) -> GetResult {
    GetResult {
        status,
        next_begin_offset: next,
        min_offset: min,
        max_offset: max,
        messages: Vec::new(),
        message_count: 0,
        bytes: 0,
        max_physical_offset_pulling: 0,
        suggest_pulling_from_slave: false,
    }
}
