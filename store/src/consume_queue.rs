//! One consume queue: 20-byte units that point into the commit log, by queue offset.
//!
//! ```text
//! commit log offset 8 | message size 4 | tags code 8
//! ```
//!
//! Owns the queue's files, its range and the next offset an append gets. Only the dispatcher writes units; readers
//! take no lock. May not: read the commit log.

mod tail;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::StoreError;
use crate::manifest::Held;
use crate::mapped_file::{MappedFile, MappedWriter};
use crate::mapped_file_queue::{Layout, MappedFileQueue};
use crate::message::{UNIT_MIN, read_i64, read_u32, read_u64};
use crate::recovery::LastStop;
use crate::results::QueueEntry;
use crate::unit_checksums::UnitChecksums;

/// Bytes of a unit.
pub(crate) const UNIT: u64 = 20;
/// Size field of units that stand for queue offsets without message (`ConsumeQueue.fillPreBlank`).
pub(crate) const FILLER_SIZE: u32 = 0x7FFF_FFFF;

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
    checksums: Mutex<Option<UnitChecksums>>,
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
    /// It was dispatched once, but its unit lies before the queue's first file, or is damaged.
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
    pub(crate) fn empty(topic: Arc<str>, queue_id: i32, layout: Layout) -> Self {
        let files = MappedFileQueue::new(layout, Vec::new());
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
            checksums: Mutex::new(None),
        }
    }

    /// Loads what is on disk, cut where it stops making sense and where the log ends. What the manifest says the
    /// queue `held` is not read unit by unit but must have the checksums noted there; so many bytes at its end are
    /// compared. After a crash that is all that is believed: the messages behind it are dispatched again, and a unit may
    /// be torn.
    pub(crate) fn recover(
        topic: Arc<str>,
        queue_id: i32,
        layout: Layout,
        log_end: u64,
        last_stop: LastStop,
        held: Option<(&Held, usize)>,
    ) -> Result<Recovered, StoreError> {
        let found = layout.scan()?;
        let loaded = tail::load_files(&layout, &found)?.and_then(|files| {
            let (tail, checksums) = match held.filter(|(held, _)| tail::covers(&files, held)) {
                Some((held, checked)) => tail::held_tail(&files, held, checked)?,
                None => (tail::full_files_tail(&files, log_end)?, None),
            };
            Some((files, tail, checksums))
        });
        let Some((mut files, tail, checksums)) = loaded else {
            tracing::warn!(%topic, queue_id, "the consume queue's files are damaged, they are rebuilt");
            let next = AtomicI64::new(tail::end_of_other_size(&layout, &found));
            for (start, _) in found {
                layout.disk.remove(&layout.path(start))?;
            }
            return Ok(Recovered { queue: Self { next, ..Self::empty(topic, queue_id, layout) }, damaged: true });
        };
        let is_all = checksums.is_some() && last_stop == LastStop::Crash;
        let tail = if is_all { tail } else { tail::read_tail(&files, tail, log_end) };
        let end = tail.end;
        while files.last().is_some_and(|f| f.start >= end && f.start > files[0].start) {
            if let Some(file) = files.pop() {
                layout.disk.remove(file.path())?;
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
        let queue = Self::empty(topic, queue_id, layout.clone());
        let queue = Self {
            files: MappedFileQueue::new(layout, files),
            max: AtomicI64::new((end / UNIT) as i64),
            min: AtomicI64::new(first),
            next: AtomicI64::new((end / UNIT) as i64),
            max_physical: AtomicU64::new(tail.max_physical),
            // What was found is on disk or in the page cache; the first flush goes over the last file again.
            flushed: AtomicU64::new(first as u64 * UNIT),
            checksums: Mutex::new(checksums),
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

    /// Lets appends continue behind what was dispatched, and at `least`; never goes back. A queue that has no unit
    /// left is empty at that offset.
    pub(crate) fn settle_next_offset(&self, least: i64) {
        let next = self.next.fetch_max(self.max_offset().max(least), Ordering::Relaxed).max(least);
        if self.files.first_start().is_none() {
            self.min.fetch_max(next, Ordering::Release);
            self.max.fetch_max(next, Ordering::Release);
        }
    }

    /// What the manifest notes of the queue, `None` when it never had a message.
    pub(crate) fn held(&self) -> Option<Held> {
        let max = self.max_offset();
        let next = self.next.load(Ordering::Relaxed).max(max);
        let Some(first) = self.files.first_start().filter(|_| max > 0) else {
            return (next > 0).then(|| Held { next, ..Held::default() });
        };
        let mut checksums = self.checksums.lock();
        let sums = checksums.take().filter(|sums| sums.first <= first);
        let sums = checksums.insert(sums.unwrap_or_else(|| UnitChecksums::starting_at(first)));
        let crcs = if sums.follow(&self.files, first, max as u64 * UNIT) { sums.of_files() } else { Vec::new() };
        Some(Held { first: (first / UNIT) as i64, max, next, crcs })
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
            // Torn when it was written, or damaged since.
            let torn = self
                .entry(queue_offset)
                .is_some_and(|unit| unit.offset == physical && (unit.size, unit.tags_code) != (size, tags_code));
            return Ok(if lost || torn { Push::Lost } else { Push::Known });
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
        if gap > 0 && !fill {
            return Ok(Push::Gap(gap));
        }
        if self.files.first_start().is_none() {
            // Only the file that holds the offset is made, filled from its start.
            let units = (self.files.file_size() / UNIT) as i64;
            expected = queue_offset / units * units;
            self.flushed.store(expected as u64 * UNIT, Ordering::Release);
            self.min.store(queue_offset, Ordering::Release);
            self.max.store(expected, Ordering::Release);
        } else if gap as u64 * UNIT > self.files.file_size() && !self.may_lack(gap, queue_offset, physical) {
            return Ok(Push::Conflict);
        }
        for offset in expected..queue_offset {
            self.write(&mut writer, offset, 0, FILLER_SIZE, 0)?;
            // Should a later one fail, the next try goes on behind this.
            self.max.store(offset + 1, Ordering::Release);
        }
        self.write(&mut writer, queue_offset, physical, size, tags_code)?;
        self.max_physical.store(behind, Ordering::Release);
        self.max.store(queue_offset + 1, Ordering::Release);
        self.next.fetch_max(queue_offset + 1, Ordering::Relaxed);
        Ok(Push::Written)
    }

    /// Whether so many messages may be missing before one: its offset was given out, or they had room in the log. A damaged
    /// offset must not fill the disk.
    fn may_lack(&self, gap: i64, queue_offset: i64, physical: u64) -> bool {
        let room = physical.saturating_sub(self.max_physical()) / UNIT_MIN as u64;
        queue_offset < self.next.load(Ordering::Relaxed) || gap as u64 <= room
    }

    /// Whether the unit at this offset is the next one and its file is there.
    pub(crate) fn has_room(&self, offset: i64) -> bool {
        offset == self.max_offset()
            && self.writer.lock().as_ref().is_some_and(|writer| writer.file().end() > offset as u64 * UNIT)
    }

    fn write(
        &self,
        writer: &mut Option<MappedWriter>,
        offset: i64,
        physical: u64,
        size: u32,
        tags_code: i64,
    ) -> Result<(), StoreError> {
        let unit = encode(&QueueEntry { queue_offset: offset, offset: physical, size, tags_code });
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
        Some(visit(Units { bytes: &file.slice(from, to)?, next: offset }))
    }

    /// The queue's files, oldest first.
    pub(crate) fn files(&self) -> Arc<Vec<Arc<MappedFile>>> {
        self.files.all()
    }

    /// Whether a file still is one of the queue's.
    pub(crate) fn has(&self, file: &Arc<MappedFile>) -> bool {
        self.files.has(file)
    }

    /// The file that holds the unit at `offset`.
    pub(crate) fn file_of(&self, offset: i64) -> Option<Arc<MappedFile>> {
        self.files.find(u64::try_from(offset).ok()?.checked_mul(UNIT)?)
    }

    /// The checksum that the units of a full file had when they were written, where that is known.
    pub(crate) fn noted_checksum(&self, file: &MappedFile) -> Option<u32> {
        self.checksums.lock().as_ref()?.of_file(file.start, self.files.file_size())
    }

    /// Notes a file's units as they are now.
    pub(crate) fn believe_units(&self, file: &Arc<MappedFile>, units: &[u8]) {
        if let Some(checksums) = self.checksums.lock().as_mut()
            && self.has(file)
        {
            checksums.replace(file.start, units, self.files.file_size());
        }
    }

    /// Puts other units into the place of those that `file` held when it had as many bytes; what was added since stays.
    /// The new file is made in the directory `aside`. `false` when the file is gone meanwhile.
    pub(crate) fn replace_units(
        &self,
        file: &Arc<MappedFile>,
        mut units: Vec<u8>,
        aside: &Path,
    ) -> Result<bool, StoreError> {
        let mut writer = self.writer.lock();
        let Some(added) = file.slice(units.len(), file.published()) else { return Ok(false) };
        units.extend_from_slice(&added);
        let is_written = writer.as_ref().is_some_and(|writer| Arc::ptr_eq(writer.file(), file));
        let mut checksums = self.checksums.lock();
        let replaced = self.files.replace(file, &units, aside);
        // It may have failed behind the moment at which the new file took the name.
        let new = self.files.find(file.start).filter(|now| is_written && !Arc::ptr_eq(now, file));
        if let Some(new) = new {
            *writer = new.writer();
        }
        let is_there = replaced?.is_some();
        if let Some(checksums) = checksums.as_mut().filter(|_| is_there) {
            checksums.replace(file.start, &units, self.files.file_size());
        }
        Ok(is_there)
    }

    /// Whether the units from `offset` on that one pull looks at are in memory.
    pub(crate) fn is_resident(&self, offset: i64, bytes: usize) -> bool {
        let at = offset.max(0) as u64 * UNIT;
        let units = self.files.find(at).and_then(|file| {
            let from = (at - file.start) as usize;
            file.slice(from, file.published().min(from + bytes))
        });
        units.is_none_or(|units| units.is_resident())
    }

    /// One unit, filler or not; `None` outside the queue.
    pub(crate) fn unit(&self, offset: i64) -> Option<QueueEntry> {
        self.read(offset, |mut units| units.next())?
    }

    /// One entry, `None` outside the queue and for fillers.
    pub(crate) fn entry(&self, offset: i64) -> Option<QueueEntry> {
        self.unit(offset).filter(is_message)
    }

    /// Start of the queue file behind the one that would hold `offset`.
    pub(crate) fn roll_next_file(&self, offset: i64) -> i64 {
        let units = (self.files.file_size() / UNIT) as i64;
        (offset / units + 1).saturating_mul(units)
    }

    /// Offset of the first message at which `before` is false, the maximum if there is none. `before` must be true
    /// for the messages up to some offset and false from there on; filler units may lie anywhere.
    pub(crate) fn partition_point(&self, before: impl Fn(&QueueEntry) -> bool) -> i64 {
        self.partition_point_in(self.first_unit()..self.max_offset(), before)
    }

    fn partition_point_in(&self, offsets: Range<i64>, before: impl Fn(&QueueEntry) -> bool) -> i64 {
        let Range { start: mut low, end: mut high } = offsets;
        let mut found = high;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_message(middle, high) {
                Some(unit) if before(&unit) => low = unit.queue_offset + 1,
                Some(unit) => (found, high) = (unit.queue_offset, middle),
                None => high = middle,
            }
        }
        found
    }

    /// The first message of `from..to`.
    fn first_message(&self, from: i64, to: i64) -> Option<QueueEntry> {
        let mut next = from;
        while next < to {
            let found = self.read(next, |units| {
                let count = (to - next) as usize;
                next += count.min(units.bytes.len() / UNIT as usize) as i64;
                units.take(count).find(is_message)
            })?;
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Moves the minimum up to what the log still has (`correctMinOffset`).
    pub(crate) fn correct_min(&self, log_min: u64) {
        let is_gone = |unit: &QueueEntry| unit.offset < log_min;
        let first = self.first_unit();
        let mut min = self.partition_point(is_gone);
        // One damaged unit may have led the search past messages that are there.
        while let Some(there) = self.first_message((min - 2).max(first), min).filter(|unit| !is_gone(unit)) {
            min = self.partition_point_in(first..there.queue_offset, is_gone);
        }
        self.min.store(min, Ordering::Release);
    }

    /// Deletes files whose messages the log has no more; the last file stays, it knows the maximum.
    pub(crate) fn delete_expired(&self, log_min: u64) -> Result<usize, StoreError> {
        let files = self.files.all();
        let expired = files
            .iter()
            .take(files.len().saturating_sub(1))
            .take_while(|f| {
                let Some(bytes) = f.slice(0, f.len()) else { return false };
                // Backwards, for the last one tells; all of them, for it may be damaged.
                let mut backwards = bytes.rchunks_exact(UNIT as usize).map(|raw| decode(raw, 0)).filter(is_message);
                backwards.all(|unit| unit.offset < log_min)
            })
            .count();
        self.files.remove(&files[..expired])?;
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
            match file.sync((from - file.start) as usize, (end - file.start) as usize) {
                Ok(()) => from = end,
                Err(error) if self.has(&file) => return Err(error),
                // Deleted or made anew meanwhile: what is there now is looked at.
                Err(_) => {}
            }
        }
        self.flushed.store(to, Ordering::Release);
        Ok(())
    }

    /// Offset of the first unit of the first file.
    pub(crate) fn first_unit(&self) -> i64 {
        self.files.first_start().map_or(0, |start| (start / UNIT) as i64)
    }

    /// Forgets all units, to be dispatched again; the next offset stays, for the log may have lost their messages.
    pub(crate) fn reset(&self) -> Result<(), StoreError> {
        let next = self.next.load(Ordering::Relaxed).max(self.max_offset());
        *self.writer.lock() = None;
        self.max_physical.store(0, Ordering::Release);
        self.clear()?;
        self.next.store(next, Ordering::Relaxed);
        Ok(())
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.max.store(0, Ordering::Release);
        self.min.store(0, Ordering::Release);
        self.next.store(0, Ordering::Relaxed);
        self.flushed.store(0, Ordering::Release);
        *self.checksums.lock() = None;
        self.files.clear()
    }

    /// Deletes the queue's files and directory.
    pub(crate) fn destroy(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        *writer = None;
        self.clear()?;
        self.files.remove_dir()
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

/// Whether a unit stands for a queue offset without message.
pub(crate) fn is_filler(unit: &QueueEntry) -> bool {
    (unit.offset, unit.size, unit.tags_code) == (0, FILLER_SIZE, 0)
}

pub(crate) fn encode(unit: &QueueEntry) -> [u8; UNIT as usize] {
    let mut raw = [0; UNIT as usize];
    raw[..8].copy_from_slice(&unit.offset.to_be_bytes());
    raw[8..12].copy_from_slice(&unit.size.to_be_bytes());
    raw[12..].copy_from_slice(&unit.tags_code.to_be_bytes());
    raw
}

pub(crate) fn decode(unit: &[u8], queue_offset: i64) -> QueueEntry {
    QueueEntry { queue_offset, offset: read_u64(unit, 0), size: read_u32(unit, 8), tags_code: read_i64(unit, 12) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::Disk;
    use crate::hot_files::HotFiles;
    use crate::mapped_file::{Allocation, MappedFile};

    fn layout(dir: &Path) -> Layout {
        Layout {
            dir: dir.to_owned(),
            file_size: 200,
            allocation: Allocation::OnDemand,
            disk: Disk::default(),
            hot: HotFiles::new(3),
        }
    }

    fn empty(dir: &Path) -> ConsumeQueue {
        ConsumeQueue::empty("T".into(), 0, layout(dir))
    }

    fn recover(dir: &Path, log_end: u64) -> Recovered {
        ConsumeQueue::recover("T".into(), 0, layout(dir), log_end, LastStop::Clean, None).unwrap()
    }

    fn fill(queue: &ConsumeQueue, count: i64) {
        for i in 0..count {
            assert_eq!(queue.push(i, i as u64 * 100, 100, i + 7, true).unwrap(), Push::Written);
        }
    }

    fn copy_of(dir: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        copy
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

    /// Otherwise the messages behind were in no queue though they had been acknowledged, and their offsets were given out again.
    #[test]
    fn as_many_messages_may_be_missing_as_there_was_room_for_or_offsets_were_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let queue = empty(dir.path());
        fill(&queue, 3);
        assert_eq!(queue.push(103, 300 + 100 * 90, 100, 9, true).unwrap(), Push::Conflict);
        assert_eq!(queue.push(103, 300 + 100 * 91, 100, 9, true).unwrap(), Push::Written);
        queue.settle_next_offset(400);
        assert_eq!(queue.take_offsets(1), Some(400));
        assert_eq!(queue.push(401, 9_500, 100, 9, true).unwrap(), Push::Conflict);
        assert_eq!(queue.push(400, 9_500, 100, 9, true).unwrap(), Push::Written);
        assert_eq!((queue.entry(103).is_some(), queue.entry(399), queue.max_offset()), (true, None, 401));
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

    /// Of a queue whose messages have all expired the files were the last trace.
    #[test]
    fn files_of_another_size_are_rebuilt_and_their_offsets_not_given_out_again() {
        for (count, last) in [(35, 35), (40, 40), (0, 0)] {
            let dir = tempfile::tempdir().unwrap();
            let queue = empty(dir.path());
            fill(&queue, count);
            queue.files.push(&Arc::new(queue.files.create(count.cast_unsigned().div_ceil(10) * 200).unwrap()));
            for file_size in [100, 400, 20, 220] {
                let copy = copy_of(dir.path());
                let layout = Layout { file_size, ..layout(copy.path()) };
                let r = ConsumeQueue::recover("T".into(), 0, layout, 9999, LastStop::Clean, None).unwrap();
                r.queue.settle_next_offset(0);
                let damaged = count > 0 || file_size < 200;
                assert_eq!((r.damaged, r.queue.max_offset(), r.queue.take_offsets(1)), (damaged, last, Some(last)));
                assert_eq!((std::fs::read_dir(copy.path()).unwrap().count() == 0), damaged, "{count} {file_size}");
            }
        }
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

    /// Otherwise the message after the fillers counted as entered, and was in no queue after a kill.
    #[test]
    fn the_manifest_may_end_among_fillers() {
        let dir = tempfile::tempdir().unwrap();
        let queue = empty(dir.path());
        fill(&queue, 3);
        assert_eq!(queue.push(25, 4_000, 100, 9, true).unwrap(), Push::Written);
        for max in 3..=26 {
            let copy = copy_of(dir.path());
            let mut sums = UnitChecksums::starting_at(0);
            assert!(sums.follow(&queue.files, 0, max as u64 * UNIT));
            let held = Held { first: 0, max, next: 26, crcs: sums.of_files() };
            let held = Some((&held, 1 << 20));
            let r = ConsumeQueue::recover("T".into(), 0, layout(copy.path()), 9999, LastStop::Crash, held).unwrap();
            let is_in = max == 26;
            assert_eq!((r.damaged, r.queue.max_offset()), (false, max));
            assert_eq!(r.queue.max_physical(), if is_in { 4_100 } else { 300 }, "{max}");
            let again = r.queue.push(25, 4_000, 100, 9, true).unwrap();
            assert_eq!(again, if is_in { Push::Known } else { Push::Written }, "{max}");
            assert_eq!(r.queue.entry(25).map(|unit| unit.offset), Some(4_000));
        }
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
    fn a_damaged_unit_hides_nothing_before_it_and_deletes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        fill(&empty(dir.path()), 35);
        // At which the search begins, and the last one of a file.
        for unit in [17, 19] {
            let file = MappedFile::path_in(dir.path(), 200);
            let good = std::fs::read(&file).unwrap();
            let mut bytes = good.clone();
            bytes[(unit - 10) * 20..][..8].fill(0);
            std::fs::write(&file, bytes).unwrap();
            let queue = recover(dir.path(), 3500).queue;
            for log_min in [0, 500, 1200] {
                queue.correct_min(log_min);
                assert_eq!(queue.min_offset(), log_min as i64 / 100, "unit {unit}");
            }
            assert_eq!(queue.delete_expired(500).unwrap(), 0, "unit {unit}");
            drop(queue);
            std::fs::write(&file, good).unwrap();
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

    #[test]
    fn several_at_once_delete_what_is_expired_and_no_more() {
        for _ in 0..30 {
            let dir = tempfile::tempdir().unwrap();
            let queue = empty(dir.path());
            fill(&queue, 95);
            let at_once = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        at_once.wait();
                        queue.delete_expired(3050).unwrap();
                    });
                }
            });
            assert_eq!((queue.first_unit(), queue.min_offset(), queue.max_offset()), (30, 31, 95));
            assert!(MappedFile::path_in(dir.path(), 600).exists());
        }
    }
}
