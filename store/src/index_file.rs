//! One index file: a hash table on disk from `topic#key` to log offsets.
//!
//! ```text
//! header 40: beginTimestamp 8 | endTimestamp 8 | beginPhyOffset 8 | endPhyOffset 8 | hashSlotCount 4 | indexCount 4
//! slots: 4 each, number of the newest entry, 0 empty
//! entries: 20 each: key hash 4 | log offset 8 | seconds since beginTimestamp 4 | previous entry of the slot 4
//! ```
//!
//! Entry 0 is never used and `indexCount` starts at 1. One thread writes, any may search. May not: read the log.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::hot_files::HotFiles;
use crate::index_checksums::{self, HeldIndexFile, IndexChecksums, Scope};
use crate::mapped_file::{MappedWords, WordFile};
use crate::message::{read_i64, read_u32, read_u64};

pub(crate) const AT_BEGIN_TIMESTAMP: usize = 0;
pub(crate) const AT_END_TIMESTAMP: usize = 8;
pub(crate) const AT_BEGIN_PHYSICAL: usize = 16;
pub(crate) const AT_END_PHYSICAL: usize = 24;
pub(crate) const AT_SLOT_COUNT: usize = 32;
pub(crate) const AT_INDEX_COUNT: usize = 36;
pub(crate) const HEADER: usize = 40;
pub(crate) const SLOT: usize = 4;
pub(crate) const ENTRY: usize = 20;

/// Sizes of an index file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexShape {
    pub(crate) slots: u32,
    pub(crate) entries: u32,
}

impl IndexShape {
    pub(crate) fn file_len(self) -> usize {
        self.entry_at(self.entries)
    }

    pub(crate) fn entry_at(self, number: u32) -> usize {
        HEADER + self.slots as usize * SLOT + number as usize * ENTRY
    }

    fn slot_at(self, hash: u32) -> usize {
        HEADER + (hash % self.slots) as usize * SLOT
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: WordFile,
    shape: IndexShape,
    header: Header,
    checksums: Mutex<IndexChecksums>,
    /// Of header and slots, once they do not change any more.
    table: OnceLock<u32>,
}

/// The header's fields, here so that most files need not be mapped.
#[derive(Debug, Default)]
struct Header {
    begin_timestamp: AtomicI64,
    end_timestamp: AtomicI64,
    end_physical: AtomicU64,
    slot_count: AtomicU32,
    index_count: AtomicU32,
}

impl Header {
    /// Writes the fields that may have changed.
    fn store(&self, words: &MappedWords) {
        words.set_i64(AT_BEGIN_TIMESTAMP, self.begin_timestamp.load(Ordering::Relaxed));
        words.set_i64(AT_END_TIMESTAMP, self.end_timestamp.load(Ordering::Relaxed));
        words.set_i64(AT_END_PHYSICAL, self.end_physical.load(Ordering::Relaxed) as i64);
        words.set(AT_SLOT_COUNT, self.slot_count.load(Ordering::Relaxed));
        words.set(AT_INDEX_COUNT, self.index_count.load(Ordering::Relaxed));
    }
}

/// Log offsets at both ends of a file.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// Of the first message: header and entry say the same, unless one of them is damaged.
    pub(crate) first: RangeInclusive<u64>,
    /// Of the last message.
    pub(crate) last: u64,
    /// How many entries that has here.
    pub(crate) of_last: usize,
}

/// Hash of a `topic#key` (`IndexFile.indexKeyHashMethod`).
pub(crate) fn key_hash(java_hash: i32) -> u32 {
    java_hash.checked_abs().unwrap_or(0) as u32
}

impl IndexFile {
    /// Creates the file; header and slots are allocated, entries as they come.
    pub(crate) fn create(
        path: PathBuf,
        shape: IndexShape,
        disk: &Disk,
        hot: &Arc<HotFiles>,
    ) -> Result<Self, StoreError> {
        let file = WordFile::create(path, shape.file_len(), shape.entry_at(0), disk, hot)?;
        let header = Header { index_count: AtomicU32::new(1), ..Header::default() };
        header.store(&file.words()?);
        Ok(Self { file, shape, header, checksums: Mutex::default(), table: OnceLock::new() })
    }

    /// Opens a file of full length.
    pub(crate) fn open(path: PathBuf, shape: IndexShape, disk: &Disk, hot: &Arc<HotFiles>) -> Result<Self, StoreError> {
        let mut raw = [0; HEADER];
        disk.read_at(&path, 0, &mut raw)?;
        let header = Header {
            begin_timestamp: AtomicI64::new(read_i64(&raw, AT_BEGIN_TIMESTAMP)),
            end_timestamp: AtomicI64::new(read_i64(&raw, AT_END_TIMESTAMP)),
            end_physical: AtomicU64::new(read_u64(&raw, AT_END_PHYSICAL)),
            slot_count: AtomicU32::new(read_u32(&raw, AT_SLOT_COUNT)),
            // Never more than the file holds, whatever the disk says; entry 0 is no entry.
            index_count: AtomicU32::new(read_u32(&raw, AT_INDEX_COUNT).clamp(1, shape.entries)),
        };
        let file = WordFile::of(path, shape.file_len(), disk, hot);
        Ok(Self { file, shape, header, checksums: Mutex::default(), table: OnceLock::new() })
    }

    /// Compares the header with the last entry of a file that was closed. The lower end counts: what is indexed twice does no
    /// harm, what is not is missed.
    pub(crate) fn settle_end(&self, disk: &Disk) -> Result<(), StoreError> {
        let mut raw = [0; 8];
        disk.read_at(self.path(), (self.shape.entry_at(self.count().saturating_sub(1)) + 4) as u64, &mut raw)?;
        self.header.end_physical.fetch_min(read_u64(&raw, 0), Ordering::Relaxed);
        Ok(())
    }

    /// The file, which nobody writes to any more, under the name that it has now.
    pub(crate) fn renamed(&self, path: PathBuf, disk: &Disk, hot: &Arc<HotFiles>) -> Self {
        let Header { begin_timestamp, end_timestamp, end_physical, slot_count, index_count } = &self.header;
        let header = Header {
            begin_timestamp: AtomicI64::new(begin_timestamp.load(Ordering::Acquire)),
            end_timestamp: AtomicI64::new(end_timestamp.load(Ordering::Acquire)),
            end_physical: AtomicU64::new(end_physical.load(Ordering::Acquire)),
            slot_count: AtomicU32::new(slot_count.load(Ordering::Acquire)),
            index_count: AtomicU32::new(index_count.load(Ordering::Acquire)),
        };
        let file = WordFile::of(path, self.shape.file_len(), disk, hot);
        Self { file, shape: self.shape, header, checksums: Mutex::default(), table: OnceLock::new() }
    }

    /// What the manifest notes of the file; header and slots too when it `is_final`.
    pub(crate) fn held(&self, is_final: bool, disk: &Disk) -> Result<HeldIndexFile, StoreError> {
        let count = self.count();
        let table = match self.table.get() {
            Some(known) => Some(*known),
            None if is_final => {
                let table = index_checksums::table(self.path(), self.shape, disk)?;
                Some(*self.table.get_or_init(|| table))
            }
            None => None,
        };
        Ok(HeldIndexFile {
            name: self.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            count,
            begin_timestamp: self.begin_timestamp(),
            blocks: self.checksums.lock().follow(self.path(), self.shape, count, disk)?,
            table,
        })
    }

    /// Whether the file is what was noted of it, as far as `scope` goes; entries may have been added since unless it
    /// `is_final`.
    pub(crate) fn is_as_held(
        &self,
        held: &HeldIndexFile,
        scope: Scope,
        is_final: bool,
        disk: &Disk,
    ) -> Result<bool, StoreError> {
        let as_many = if is_final { self.count() == held.count } else { self.count() >= held.count };
        if !as_many || held.count == 0 || self.begin_timestamp() != held.begin_timestamp {
            return Ok(false);
        }
        if is_final
            && scope.table
            && let Some(table) = held.table
            && index_checksums::table(self.path(), self.shape, disk)? != table
        {
            return Ok(false);
        }
        let verified = IndexChecksums::verified(self.path(), self.shape, held, scope.believed, disk)?;
        Ok(verified.map(|checksums| *self.checksums.lock() = checksums).is_some())
    }

    /// Takes over what was noted of header and slots when nobody wrote any more.
    pub(crate) fn believe_table(&self, noted: Option<u32>) {
        if let Some(noted) = noted {
            let _ = self.table.set(noted);
        }
    }

    /// Whether a file that is not written any more is what was noted of it, `None` when not all of it was. Between its
    /// reads, of so many bytes, `read` is asked whether to go on; `None` also when it says `false`.
    pub(crate) fn is_as_noted(
        &self,
        disk: &Disk,
        read: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Option<bool>, StoreError> {
        /// About a megabyte.
        const ENTRIES_AT_ONCE: u32 = 50_000;
        let count = self.count();
        let Some(table) = self.table.get() else { return Ok(None) };
        let Some(blocks) = self.checksums.lock().of_blocks(count) else { return Ok(None) };
        let mut found = IndexChecksums::default();
        for next in (1..count).step_by(ENTRIES_AT_ONCE as usize) {
            let to = count.min(next + ENTRIES_AT_ONCE);
            found.follow(self.path(), self.shape, to, disk)?;
            if !read((to - next) as usize * ENTRY) {
                return Ok(None);
            }
        }
        let is_same = found.of_blocks(count).is_some_and(|found| found == blocks)
            && index_checksums::table(self.path(), self.shape, disk)? == *table;
        Ok(read(self.shape.entry_at(0)).then_some(is_same))
    }

    /// What the entries at both ends say; `None` without entries.
    pub(crate) fn ends(&self) -> Result<Option<Ends>, StoreError> {
        let words = self.file.words()?;
        let count = self.count();
        let physical = |number| words.get_i64(self.shape.entry_at(number) + 4) as u64;
        Ok((count > 1).then(|| {
            let (noted, first, last) = (words.get_i64(AT_BEGIN_PHYSICAL) as u64, physical(1), physical(count - 1));
            Ends {
                first: noted.min(first)..=noted.max(first),
                last,
                of_last: (1..count).rev().take_while(|number| physical(*number) == last).count(),
            }
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Number of the next entry.
    pub(crate) fn count(&self) -> u32 {
        self.header.index_count.load(Ordering::Acquire)
    }

    pub(crate) fn begin_timestamp(&self) -> i64 {
        self.header.begin_timestamp.load(Ordering::Acquire)
    }

    pub(crate) fn end_timestamp(&self) -> i64 {
        self.header.end_timestamp.load(Ordering::Acquire)
    }

    pub(crate) fn end_physical(&self) -> u64 {
        self.header.end_physical.load(Ordering::Acquire)
    }

    /// Adds an entry; `false` when the file is full.
    pub(crate) fn put(&self, hash: u32, physical: u64, timestamp: i64) -> Result<bool, StoreError> {
        let number = self.count();
        if number >= self.shape.entries {
            return Ok(false);
        }
        let at = self.shape.entry_at(number);
        self.file.ensure_allocated(at, at + ENTRY)?;
        let words = self.file.words()?;
        if number <= 1 {
            words.set_i64(AT_BEGIN_PHYSICAL, physical as i64);
            self.header.begin_timestamp.store(timestamp, Ordering::Relaxed);
        }
        let begin = self.begin_timestamp();
        let seconds =
            if begin <= 0 { 0 } else { (timestamp.saturating_sub(begin) / 1000).clamp(0, i64::from(i32::MAX)) };
        let slot = self.shape.slot_at(hash);
        let previous = self.valid_entry(words.get(slot), number);
        words.set(at, hash);
        words.set_i64(at + 4, physical as i64);
        words.set(at + 12, seconds as u32);
        words.set(at + 16, previous);
        words.set(slot, number);
        if previous == 0 {
            self.header.slot_count.fetch_add(1, Ordering::Relaxed);
        }
        self.header.end_physical.store(physical, Ordering::Relaxed);
        self.header.end_timestamp.store(timestamp, Ordering::Relaxed);
        // The count last: only now do searches believe the entry.
        self.header.index_count.store(number + 1, Ordering::Release);
        self.header.store(&words);
        Ok(true)
    }

    /// An entry number below `limit`, else 0.
    fn valid_entry(&self, number: u32, limit: u32) -> u32 {
        if number < limit.min(self.shape.entries) { number } else { 0 }
    }

    /// Whether entries of this file may lie between the two times (ms).
    pub(crate) fn overlaps(&self, begin: i64, end: i64) -> bool {
        begin <= self.end_timestamp() && end >= self.begin_timestamp()
    }

    /// Visits log offsets stored under `hash` between the two times (ms), newest first, until `visit` says `false`.
    pub(crate) fn search(
        &self,
        hash: u32,
        begin: i64,
        end: i64,
        visit: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), StoreError> {
        let words = self.file.words()?;
        let base = self.begin_timestamp();
        let mut number = self.valid_entry(words.get(self.shape.slot_at(hash)), self.count());
        while number > 0 {
            let at = self.shape.entry_at(number);
            let time = base.saturating_add(i64::from(words.get(at + 12) as i32) * 1000);
            if words.get(at) == hash && (begin..=end).contains(&time) {
                let physical = words.get_i64(at + 4) as u64;
                if !visit(physical) {
                    break;
                }
            }
            if time < begin {
                break;
            }
            // Chains lead downwards only, so a damaged one ends too.
            number = self.valid_entry(words.get(at + 16), number);
        }
        Ok(())
    }

    /// Makes the file consistent again after a crash: entries up to the first that is unwritten, out of order or
    /// points to or behind log offset `end` are kept, and slots, chains and header are computed from them.
    pub(crate) fn repair(&self, end: u64) -> Result<(), StoreError> {
        let words = self.file.words()?;
        let count = self.count();
        let mut last_physical = 0;
        let mut good = 1;
        while good < count {
            let at = self.shape.entry_at(good);
            let physical = words.get_i64(at + 4) as u64;
            let unwritten = physical == 0 && words.get(at) == 0;
            if unwritten || physical < last_physical || physical >= end {
                break;
            }
            last_physical = physical;
            good += 1;
        }
        self.file.ensure_allocated(HEADER, self.shape.entry_at(good))?;
        for slot in 0..self.shape.slots as usize {
            let at = HEADER + slot * SLOT;
            if words.get(at) != 0 {
                words.set(at, 0);
            }
        }
        let mut used_slots = 0;
        for number in 1..good {
            let at = self.shape.entry_at(number);
            let slot = self.shape.slot_at(words.get(at));
            let previous = words.get(slot);
            used_slots += u32::from(previous == 0);
            if words.get(at + 16) != previous {
                words.set(at + 16, previous);
            }
            words.set(slot, number);
        }
        self.header.slot_count.store(used_slots, Ordering::Relaxed);
        if good < count || self.end_physical() != last_physical {
            let seconds = if good > 1 { words.get(self.shape.entry_at(good - 1) + 12) } else { 0 };
            let end = self.begin_timestamp().saturating_add(i64::from(seconds as i32) * 1000);
            self.header.end_timestamp.store(end, Ordering::Relaxed);
            self.header.end_physical.store(last_physical, Ordering::Relaxed);
        }
        self.header.index_count.store(good, Ordering::Release);
        self.header.store(&words);
        *self.checksums.lock() = IndexChecksums::default();
        Ok(())
    }

    /// Brings everything written so far to the disk.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync(0, self.shape.entry_at(self.count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: IndexShape = IndexShape { slots: 4, entries: 10 };

    fn found(file: &IndexFile, hash: u32) -> Vec<u64> {
        let mut found = Vec::new();
        file.search(hash, 0, i64::MAX, &mut |physical| {
            found.push(physical);
            true
        })
        .unwrap();
        found
    }

    fn create(path: &Path) -> IndexFile {
        IndexFile::create(path.to_owned(), SHAPE, &Disk::default(), &HotFiles::new(1)).unwrap()
    }

    #[test]
    fn bytes_lie_where_rocketmq_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("20260101000000000");
        let file = create(&path);
        assert!(file.put(5, 100, 10_000).unwrap());
        assert!(file.put(9, 200, 12_500).unwrap());
        let disk = std::fs::read(&path).unwrap();
        assert_eq!(disk.len(), 40 + 16 + 200);
        let long = |at: usize| i64::from_be_bytes(disk[at..at + 8].try_into().unwrap());
        let int = |at: usize| i32::from_be_bytes(disk[at..at + 4].try_into().unwrap());
        assert_eq!((long(0), long(8), long(16), long(24)), (10_000, 12_500, 100, 200));
        assert_eq!((int(32), int(36)), (1, 3), "one slot used, next entry 3");
        assert_eq!(int(40 + 4), 2, "slot 1 points to the newest");
        assert!(disk[56..76].iter().all(|b| *b == 0), "entry 0 is never used");
        assert_eq!((int(96), long(100), int(108), int(112)), (9, 200, 2, 1));
        assert_eq!((found(&file, 5), found(&file, 9)), (vec![100], vec![200]));
    }

    #[test]
    fn a_full_file_takes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(&dir.path().join("i"));
        for i in 1..10 {
            assert!(file.put(1, i * 10, 1000).unwrap());
        }
        assert!(!file.put(1, 1000, 1000).unwrap());
        assert_eq!(found(&file, 1), (1..10).rev().map(|i| i * 10).collect::<Vec<_>>());
    }

    #[test]
    fn repair_recomputes_everything_from_the_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        for garbage in [0_u32, 3, u32::MAX] {
            let file = create(&path);
            for i in 1..8 {
                file.put(u32::try_from(i % 3).unwrap() + 1, i * 10, 1000).unwrap();
            }
            let words = file.file.words().unwrap();
            for slot in 0..4 {
                words.set(HEADER + slot * SLOT, garbage);
            }
            words.set(SHAPE.entry_at(7) + 16, garbage);
            file.repair(60).unwrap();
            assert_eq!((file.count(), file.end_physical()), (6, 50));
            assert_eq!(found(&file, 2), [40, 10]);
            assert_eq!(found(&file, 3), [50, 20]);
        }
    }

    #[test]
    fn no_file_content_panics_or_loops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        for byte in [0xFF, 0x7F, 0x01] {
            std::fs::write(&path, vec![byte; SHAPE.file_len()]).unwrap();
            let file = create(&path);
            found(&file, 1);
            file.put(1, 1, 1).unwrap();
            file.repair(1000).unwrap();
        }
    }

    #[test]
    fn hash_of_the_minimum_is_zero() {
        assert_eq!((key_hash(i32::MIN), key_hash(-5), key_hash(5)), (0, 5, 5));
    }
}
