//! One consume queue: 20-byte units that point into the commit log, by queue offset.
//!
//! ```text
//! commit log offset 8 | message size 4 | tags code 8
//! ```
//!
//! Owns the queue's files, its range and the next offset an append gets. Only the dispatcher writes units; readers
//! take no lock. May not: read the commit log.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::StoreError;
use crate::mapped_file::{Allocation, MappedFile, MappedWriter};
use crate::mapped_file_queue::{MappedFileQueue, remove_if_there};
use crate::message::{read_i64, read_u32, read_u64};
use crate::results::QueueEntry;

/// Bytes of a unit.
pub(crate) const UNIT: u64 = 20;
/// Size field of units that stand for queue offsets without message (`ConsumeQueue.fillPreBlank`).
const FILLER_SIZE: u32 = 0x7FFF_FFFF;
/// Files at the end that recovery reads unit by unit; of older ones it looks at both ends.
const FILES_READ_BY_RECOVERY: usize = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct ConsumeQueue {
    pub(crate) topic: Arc<str>,
    pub(crate) queue_id: i32,
    files: MappedFileQueue,
    writer: Mutex<Option<MappedWriter>>,
    /// Units readers may see: the next queue offset to be written.
    max: AtomicI64,
    /// First unit whose message the log still has.
    min: AtomicI64,
    /// Log offset behind the newest message of the queue.
    max_physical: AtomicU64,
    /// The offset the next append gets. Only touched under the append lock and while nothing is appended.
    next: AtomicI64,
    /// The topic was deleted: appends must look the queue up again.
    retired: AtomicBool,
    /// Bytes known to be on disk.
    flushed: AtomicU64,
}

/// What became of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// Written at its offset.
    Written,
    /// The queue has it already.
    Known,
    /// Its offset lies this far behind the queue's end: units are missing before it.
    Gap(i64),
    /// It was dispatched once, but its unit lies before the queue's first file.
    Lost,
    /// Its offset is taken by another message, or impossible.
    Conflict,
}

/// What recovery found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) queue: ConsumeQueue,
    /// The files were not a queue any more and were deleted: all units must be dispatched again.
    pub(crate) damaged: bool,
}

impl ConsumeQueue {
    /// A queue without files.
    pub(crate) fn empty(topic: Arc<str>, queue_id: i32, dir: PathBuf, file_size: u64) -> Self {
        let files = MappedFileQueue::new(dir, file_size, Allocation::OnDemand, Vec::new());
        Self {
            topic,
            queue_id,
            files,
            writer: Mutex::new(None),
            max: AtomicI64::new(0),
            min: AtomicI64::new(0),
            max_physical: AtomicU64::new(0),
            next: AtomicI64::new(0),
            retired: AtomicBool::new(false),
            flushed: AtomicU64::new(0),
        }
    }

    /// Loads what is on disk, cut where it stops making sense and where the log ends.
    pub(crate) fn recover(
        topic: Arc<str>,
        queue_id: i32,
        dir: PathBuf,
        file_size: u64,
        log_end: u64,
    ) -> Result<Recovered, StoreError> {
        let found = MappedFileQueue::scan(&dir)?;
        let Some(mut files) = load_files(&dir, &found, file_size, log_end)? else {
            tracing::warn!(%topic, queue_id, "the consume queue's files are damaged, they are rebuilt");
            for (start, _) in found {
                remove_if_there(&MappedFile::path_in(&dir, start))?;
            }
            return Ok(Recovered { queue: Self::empty(topic, queue_id, dir, file_size), damaged: true });
        };
        let tail = read_tail(&files, log_end);
        let end = tail.end;
        while files.last().is_some_and(|f| f.start >= end && f.start > files[0].start) {
            if let Some(file) = files.pop() {
                remove_if_there(file.path())?;
            }
        }
        if let Some(last) = files.last_mut() {
            let at = end.saturating_sub(last.start) as usize;
            if last.slice(at, last.len()).is_some_and(|rest| rest.iter().any(|b| *b != 0)) {
                last.truncate(at)?;
            } else {
                last.reopen_at(at);
            }
        }
        let first = files.first().map_or(0, |f| (f.start / UNIT) as i64);
        let queue = Self::empty(topic, queue_id, dir.clone(), file_size);
        let queue = Self {
            files: MappedFileQueue::new(dir, file_size, Allocation::OnDemand, files),
            max: AtomicI64::new((end / UNIT) as i64),
            min: AtomicI64::new(first),
            next: AtomicI64::new((end / UNIT) as i64),
            max_physical: AtomicU64::new(tail.max_physical),
            // What was found is on disk or in the page cache; the first flush goes over the last file again.
            flushed: AtomicU64::new(first as u64 * UNIT),
            ..queue
        };
        *queue.writer.lock() = queue.files.find(end).and_then(|f| f.writer());
        Ok(Recovered { queue, damaged: false })
    }

    pub(crate) fn max_offset(&self) -> i64 {
        self.max.load(Ordering::Acquire)
    }

    pub(crate) fn min_offset(&self) -> i64 {
        self.min.load(Ordering::Acquire)
    }

    pub(crate) fn max_physical(&self) -> u64 {
        self.max_physical.load(Ordering::Acquire)
    }

    /// Gives out `count` offsets, `None` when the topic was deleted. Only under the append lock.
    pub(crate) fn take_offsets(&self, count: i64) -> Option<i64> {
        if self.retired.load(Ordering::Relaxed) {
            return None;
        }
        let first = self.next.load(Ordering::Relaxed);
        self.next.store(first + count, Ordering::Relaxed);
        Some(first)
    }

    /// Lets appends continue behind what was dispatched; never goes back.
    pub(crate) fn settle_next_offset(&self) {
        self.next.fetch_max(self.max_offset(), Ordering::Relaxed);
    }

    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Enters a message. Log order is the order of calls; a message the queue has is passed over. With `fill` missing
    /// offsets before it become filler units, without they are reported and nothing is written.
    pub(crate) fn push(
        &self,
        queue_offset: i64,
        physical: u64,
        size: u32,
        tags_code: i64,
        fill: bool,
    ) -> Result<Push, StoreError> {
        let behind = physical.saturating_add(u64::from(size));
        if behind <= self.max_physical() && self.max_offset() > 0 {
            let lost = (0..self.first_unit()).contains(&queue_offset);
            return Ok(if lost { Push::Lost } else { Push::Known });
        }
        if !(0..i64::MAX / 64).contains(&queue_offset) {
            return Ok(Push::Conflict);
        }
        let mut writer = self.writer.lock();
        let mut expected = self.max_offset();
        if queue_offset < expected {
            if queue_offset != 0 {
                return Ok(Push::Conflict);
            }
            // The topic was deleted and made again: the log says its offsets start over.
            tracing::warn!(topic = %self.topic, queue_id = self.queue_id, had = expected, "queue starts over");
            *writer = None;
            self.clear()?;
            expected = 0;
        }
        let gap = queue_offset - expected;
        if gap > 0 {
            if !fill {
                return Ok(Push::Gap(gap));
            }
            if expected == 0 {
                // Only the file that holds the offset is made, filled from its start.
                let units = (self.files.file_size() / UNIT) as i64;
                expected = queue_offset / units * units;
                self.flushed.store(expected as u64 * UNIT, Ordering::Release);
                self.min.store(queue_offset, Ordering::Release);
            } else if gap as u64 * UNIT > self.files.file_size() {
                return Ok(Push::Conflict);
            }
            for offset in expected..queue_offset {
                self.write(&mut writer, offset, 0, FILLER_SIZE, 0)?;
            }
        }
        self.write(&mut writer, queue_offset, physical, size, tags_code)?;
        self.max_physical.store(behind, Ordering::Release);
        self.max.store(queue_offset + 1, Ordering::Release);
        self.next.fetch_max(queue_offset + 1, Ordering::Relaxed);
        Ok(Push::Written)
    }

    fn write(
        &self,
        writer: &mut Option<MappedWriter>,
        offset: i64,
        physical: u64,
        size: u32,
        tags_code: i64,
    ) -> Result<(), StoreError> {
        let mut unit = [0; UNIT as usize];
        unit[..8].copy_from_slice(&physical.to_be_bytes());
        unit[8..12].copy_from_slice(&size.to_be_bytes());
        unit[12..].copy_from_slice(&tags_code.to_be_bytes());
        if let Some(writer) = writer
            && writer.append(&unit, 0)?
        {
            return Ok(());
        }
        let file = Arc::new(self.files.create(offset as u64 * UNIT)?);
        self.files.push(&file);
        *writer = file.writer();
        if let Some(writer) = writer {
            writer.append(&unit, 0)?;
        }
        Ok(())
    }

    /// Hands `visit` the units from `offset` to the end of their file or the queue; `None` when there are none.
    pub(crate) fn read<T>(&self, offset: i64, visit: impl FnOnce(Units<'_>) -> T) -> Option<T> {
        let max = self.max_offset();
        if offset < 0 || offset >= max {
            return None;
        }
        let file = self.files.find(offset as u64 * UNIT)?;
        let from = (offset as u64 * UNIT - file.start) as usize;
        let to = ((max as u64 * UNIT).min(file.end()) - file.start) as usize;
        Some(visit(Units { bytes: file.slice(from, to)?, next: offset }))
    }

    /// One entry, `None` outside the queue and for fillers.
    pub(crate) fn entry(&self, offset: i64) -> Option<QueueEntry> {
        self.read(offset, |mut units| units.next())?.filter(is_message)
    }

    /// Start of the queue file behind the one that would hold `offset`.
    pub(crate) fn roll_next_file(&self, offset: i64) -> i64 {
        let units = (self.files.file_size() / UNIT) as i64;
        (offset / units + 1).saturating_mul(units)
    }

    /// First offset at which `before` is false; it must be true for a prefix of the queue.
    pub(crate) fn partition_point(&self, before: impl Fn(&QueueEntry) -> bool) -> i64 {
        let (mut low, mut high) = (self.first_unit(), self.max_offset());
        while low < high {
            let middle = low + (high - low) / 2;
            let unit = self.read(middle, |mut units| units.next()).flatten();
            if unit.is_none_or(|u| !is_message(&u) || before(&u)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Moves the minimum up to what the log still has (`correctMinOffset`).
    pub(crate) fn correct_min(&self, log_min: u64) {
        let min = self.partition_point(|unit| unit.offset < log_min);
        self.min.store(min, Ordering::Release);
    }

    /// Deletes files whose messages the log has no more; the last file stays, it knows the maximum.
    pub(crate) fn delete_expired(&self, log_min: u64) -> Result<usize, StoreError> {
        let files = self.files.all();
        let expired = files
            .iter()
            .take(files.len().saturating_sub(1))
            .take_while(|f| {
                let last = f.slice(f.len() - UNIT as usize, f.len()).map(|raw| decode(raw, 0));
                last.is_some_and(|unit| !is_message(&unit) || unit.offset < log_min)
            })
            .count();
        self.files.remove_oldest(expired)?;
        self.correct_min(log_min);
        Ok(expired)
    }

    /// Flushes when at least `least_pages` (0: any) pages are dirty.
    pub(crate) fn flush(&self, least_pages: u32) -> Result<(), StoreError> {
        let mut from = self.flushed.load(Ordering::Acquire);
        let to = self.max_offset() as u64 * UNIT;
        if from >= to || to - from < u64::from(least_pages) * 4096 {
            return Ok(());
        }
        while from < to {
            let Some(file) = self.files.find(from) else {
                // Deleted meanwhile: go on where files are.
                match self.files.first_start() {
                    Some(first) if first > from => from = first,
                    _ => return Ok(()),
                }
                continue;
            };
            let end = to.min(file.end());
            file.sync((from - file.start) as usize, (end - file.start) as usize)
                .map_err(|e| StoreError::io("flush", file.path(), e))?;
            from = end;
        }
        self.flushed.store(to, Ordering::Release);
        Ok(())
    }

    /// Offset of the first unit of the first file.
    pub(crate) fn first_unit(&self) -> i64 {
        self.files.first_start().map_or(0, |start| (start / UNIT) as i64)
    }

    /// Forgets all units, to be dispatched again.
    pub(crate) fn reset(&self) -> Result<(), StoreError> {
        *self.writer.lock() = None;
        self.max_physical.store(0, Ordering::Release);
        self.clear()
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.max.store(0, Ordering::Release);
        self.min.store(0, Ordering::Release);
        self.next.store(0, Ordering::Relaxed);
        self.flushed.store(0, Ordering::Release);
        self.files.clear()
    }

    /// Deletes the queue's files and directory.
    pub(crate) fn destroy(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        *writer = None;
        self.clear()?;
        match fs::remove_dir(self.files.dir()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("delete", self.files.dir(), e)),
            _ => Ok(()),
        }
    }
}

/// Units of a queue in order, fillers and all.
#[derive(Debug, Clone)]
pub(crate) struct Units<'a> {
    bytes: &'a [u8],
    next: i64,
}

impl Iterator for Units<'_> {
    type Item = QueueEntry;

    fn next(&mut self) -> Option<QueueEntry> {
        let (unit, rest) = self.bytes.split_at_checked(UNIT as usize)?;
        self.bytes = rest;
        let entry = decode(unit, self.next);
        self.next += 1;
        Some(entry)
    }
}

/// Whether a unit points to a message: it is neither filler nor unwritten.
pub(crate) fn is_message(unit: &QueueEntry) -> bool {
    unit.size != 0 && unit.size < FILLER_SIZE
}

fn decode(unit: &[u8], queue_offset: i64) -> QueueEntry {
    QueueEntry { queue_offset, offset: read_u64(unit, 0), size: read_u32(unit, 8), tags_code: read_i64(unit, 12) }
}

/// Maps the files of a queue; `None` when they do not form one.
fn load_files(
    dir: &std::path::Path,
    found: &[(u64, u64)],
    file_size: u64,
    log_end: u64,
) -> Result<Option<Vec<MappedFile>>, StoreError> {
    for (i, (start, size)) in found.iter().enumerate() {
        let last = i + 1 == found.len();
        let fits = *size == file_size || (last && *size < file_size);
        let follows = i == 0 || found[i - 1].0 + file_size == *start;
        if !fits || !follows || !start.is_multiple_of(file_size) {
            return Ok(None);
        }
    }
    let mut files = Vec::with_capacity(found.len());
    for (start, _) in found {
        files.push(MappedFile::open(dir, *start, file_size as usize, Allocation::OnDemand)?);
    }
    // Files before the last ones are full: both ends of each must say so, in log order.
    let full = files.len().saturating_sub(FILES_READ_BY_RECOVERY);
    let mut before = None;
    for file in &files[..full] {
        for at in [0, file.len() - UNIT as usize] {
            let Some(unit) = file.slice(at, at + UNIT as usize).map(|raw| decode(raw, 0)) else {
                return Ok(None);
            };
            let misplaced =
                unit.offset.saturating_add(u64::from(unit.size)) > log_end || before.is_some_and(|b| unit.offset < b);
            if unit.size == 0 || unit.size > FILLER_SIZE || (is_message(&unit) && misplaced) {
                return Ok(None);
            }
            before = is_message(&unit).then_some(unit.offset).or(before);
        }
    }
    Ok(Some(files))
}

struct Tail {
    /// Queue bytes that make sense.
    end: u64,
    max_physical: u64,
}

/// Reads the last files up to the first unit that is unwritten, out of order, or points behind the log.
fn read_tail(files: &[MappedFile], log_end: u64) -> Tail {
    let full = files.len().saturating_sub(FILES_READ_BY_RECOVERY);
    let mut tail = Tail { end: files.first().map_or(0, |f| f.start), max_physical: 0 };
    if let Some(unit) =
        files[..full].last().and_then(|f| f.slice(f.len() - UNIT as usize, f.len())).map(|raw| decode(raw, 0))
    {
        tail.end = files[full].start;
        if is_message(&unit) {
            tail.max_physical = unit.offset.saturating_add(u64::from(unit.size));
        }
    }
    for file in &files[full..] {
        let units = Units { bytes: file.slice(0, file.len()).unwrap_or_default(), next: 0 };
        for unit in units {
            let filler = unit.size == FILLER_SIZE && unit.offset == 0 && tail.max_physical == 0;
            let behind = unit.offset.saturating_add(u64::from(unit.size));
            let message = is_message(&unit) && unit.offset >= tail.max_physical && behind <= log_end;
            if !filler && !message {
                return tail;
            }
            if message {
                tail.max_physical = behind;
            }
            tail.end += UNIT;
        }
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn empty(dir: &Path) -> ConsumeQueue {
        ConsumeQueue::empty("T".into(), 0, dir.to_owned(), 200)
    }

    fn recover(dir: &Path, log_end: u64) -> Recovered {
        ConsumeQueue::recover("T".into(), 0, dir.to_owned(), 200, log_end).unwrap()
    }

    fn fill(queue: &ConsumeQueue, count: i64) {
        for i in 0..count {
            assert_eq!(queue.push(i, i as u64 * 100, 100, i + 7, true).unwrap(), Push::Written);
        }
    }

    #[test]
    fn units_lie_where_rocketmq_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let queue = empty(dir.path());
        fill(&queue, 12);
        let disk = std::fs::read(MappedFile::path_in(dir.path(), 200)).unwrap();
        assert_eq!(disk.len(), 200);
        assert_eq!(disk[20..40], [0, 0, 0, 0, 0, 0, 4, 76, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 18]);
        assert!(disk[40..].iter().all(|b| *b == 0));
        assert_eq!(queue.entry(11).unwrap().tags_code, 18);
        assert_eq!(queue.read(8, |units| units.count()), Some(2), "to the end of the file");
        assert!(queue.entry(12).is_none() && queue.entry(-1).is_none());
    }

    #[test]
    fn dispatching_again_changes_nothing_and_gaps_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let queue = empty(dir.path());
        fill(&queue, 3);
        assert_eq!(queue.push(2, 200, 100, 9, true).unwrap(), Push::Known);
        assert_eq!(queue.push(5, 500, 100, 9, false).unwrap(), Push::Gap(2));
        assert_eq!(queue.push(1, 500, 100, 9, true).unwrap(), Push::Conflict);
        assert_eq!(queue.push(-1, 500, 100, 9, true).unwrap(), Push::Conflict);
        assert_eq!(queue.push(1000, 500, 100, 9, true).unwrap(), Push::Conflict);
        assert_eq!(queue.max_offset(), 3);
        assert_eq!(queue.push(5, 500, 100, 9, true).unwrap(), Push::Written);
        assert!(queue.entry(4).is_none() && queue.entry(5).is_some());
        assert_eq!(queue.push(0, 700, 100, 9, true).unwrap(), Push::Written, "topic made again");
        assert_eq!(queue.max_offset(), 1);
    }

    #[test]
    fn a_queue_may_begin_late() {
        let dir = tempfile::tempdir().unwrap();
        let queue = empty(dir.path());
        queue.push(23, 5000, 100, 1, true).unwrap();
        let disk = std::fs::read(MappedFile::path_in(dir.path(), 400)).unwrap();
        assert_eq!(disk[..20], [0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((queue.min_offset(), queue.max_offset()), (23, 24));
        drop(queue);
        let r = recover(dir.path(), 6000);
        r.queue.correct_min(0);
        assert_eq!((r.damaged, r.queue.min_offset(), r.queue.max_offset()), (false, 23, 24));
    }

    #[test]
    fn recovery_cuts_at_the_logs_end() {
        let dir = tempfile::tempdir().unwrap();
        fill(&empty(dir.path()), 35);
        for (log_end, units) in [(3500, 35), (3499, 34), (1000, 10), (999, 9), (0, 0)] {
            let r = recover(dir.path(), log_end);
            assert_eq!((r.damaged, r.queue.max_offset()), (false, units), "log end {log_end}");
            assert_eq!(r.queue.max_physical(), units as u64 * 100);
        }
        let queue = recover(dir.path(), 0).queue;
        fill(&queue, 3);
        assert_eq!(recover(dir.path(), 9999).queue.max_offset(), 3, "nothing stale behind");
    }

    #[test]
    fn damaged_files_are_noticed() {
        for damage in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            fill(&empty(dir.path()), 60);
            let first = MappedFile::path_in(dir.path(), 0);
            match damage {
                0 => std::fs::write(&first, [0; 200]).unwrap(),
                1 => std::fs::write(&first, [0; 100]).unwrap(),
                2 => std::fs::remove_file(MappedFile::path_in(dir.path(), 200)).unwrap(),
                _ => std::fs::write(&first, [1; 300]).unwrap(),
            }
            let r = recover(dir.path(), 9999);
            assert_eq!((r.damaged, r.queue.max_offset()), (true, 0), "damage {damage}");
            assert!(!first.exists());
        }
    }

    #[test]
    fn old_files_go_and_the_last_stays() {
        let dir = tempfile::tempdir().unwrap();
        let queue = empty(dir.path());
        fill(&queue, 25);
        assert_eq!(queue.delete_expired(1150).unwrap(), 1);
        assert_eq!(queue.min_offset(), 12);
        assert!(!MappedFile::path_in(dir.path(), 0).exists());
        assert_eq!(queue.delete_expired(99_999).unwrap(), 1);
        assert_eq!((queue.min_offset(), queue.max_offset()), (25, 25));
        queue.flush(0).unwrap();
        queue.destroy().unwrap();
        assert!(!dir.path().exists());
        std::fs::create_dir(dir.path()).unwrap();
    }
}
