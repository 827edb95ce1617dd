//! The commit log: all messages of all topics, in the order they were stored.
//!
//! Owns the append lock, physical offsets, store timestamps and the published end. Appends take one short lock;
//! readers take none and never see past the published end. May not: know consume queues beyond taking the next
//! offset of the one a message goes to, or flush.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::allocate::Allocator;
use crate::error::StoreError;
use crate::mapped_file::{MappedFile, MappedWriter, Slice};
use crate::mapped_file_queue::MappedFileQueue;
use crate::message::{self, BLANK_MIN, Head, MAGIC_BLANK, UNIT_MIN};

/// See the module.
#[derive(Debug)]
pub(crate) struct CommitLog {
    pub(crate) files: MappedFileQueue,
    pub(crate) allocator: Allocator,
    /// End of what readers may see.
    published: AtomicU64,
    /// Store time of the newest message, ms.
    last_store_timestamp: AtomicI64,
    /// When the append lock was taken (ms since the epoch), 0 while it is free.
    locked_since: AtomicI64,
    state: Mutex<AppendState>,
}

#[derive(Debug)]
struct AppendState {
    writer: Option<MappedWriter>,
    /// Equals `published`, here without synchronisation.
    end: u64,
}

/// Where a run of units landed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) queue_offset: i64,
    pub(crate) store_timestamp: i64,
    /// The allocator's thread has something to do.
    pub(crate) wake_allocator: bool,
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl CommitLog {
    /// A log over recovered files: `files` are published up to `end` and zero behind it.
    pub(crate) fn new(files: MappedFileQueue, allocator: Allocator, end: u64, last_store_timestamp: i64) -> Self {
        let writer = files.find(end).and_then(|f| f.writer());
        Self {
            files,
            allocator,
            published: AtomicU64::new(end),
            last_store_timestamp: AtomicI64::new(last_store_timestamp),
            locked_since: AtomicI64::new(0),
            state: Mutex::new(AppendState { writer, end }),
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Start of the oldest file; the log's end while there is none.
    pub(crate) fn min_offset(&self) -> u64 {
        self.files.first_start().unwrap_or_else(|| self.end())
    }

    pub(crate) fn last_store_timestamp(&self) -> i64 {
        self.last_store_timestamp.load(Ordering::Acquire)
    }

    /// How long the append lock has been held by whoever holds it now.
    pub(crate) fn lock_held_for(&self) -> Duration {
        match self.locked_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis((now_ms() - since).max(0) as u64),
        }
    }

    /// Appends encoded units as one run that no file boundary splits. `take_queue_offset` is called once, under the
    /// lock and only when the run has its place, so no offset is lost to a full disk; its `None` gives the whole
    /// append back to the caller as `Ok(None)`.
    pub(crate) fn append(
        &self,
        units: &mut [u8],
        take_queue_offset: impl FnOnce() -> Option<i64>,
        offset_step: i64,
    ) -> Result<Option<Written>, StoreError> {
        let max = self.files.file_size() as usize - BLANK_MIN;
        if units.len() > max {
            return Err(StoreError::MessageTooLarge { size: units.len(), max });
        }
        let mut state = self.state.lock();
        let now = now_ms();
        self.locked_since.store(now, Ordering::Relaxed);
        let result = self.append_locked(&mut state, units, take_queue_offset, offset_step, now);
        self.locked_since.store(0, Ordering::Relaxed);
        result
    }

    fn append_locked(
        &self,
        state: &mut AppendState,
        units: &mut [u8],
        take_queue_offset: impl FnOnce() -> Option<i64>,
        offset_step: i64,
        now: i64,
    ) -> Result<Option<Written>, StoreError> {
        self.make_room(state, units.len())?;
        let Some(writer) = &mut state.writer else {
            return Err(StoreError::Closed);
        };
        let Some(first_queue_offset) = take_queue_offset() else {
            return Ok(None);
        };
        let store_timestamp = now.max(self.last_store_timestamp.load(Ordering::Relaxed));
        let offset = state.end;
        let (mut at, mut queue_offset) = (0, first_queue_offset);
        while at < units.len() {
            let size = message::read_u32(units, at) as usize;
            message::patch(&mut units[at..at + size], queue_offset, offset + at as u64, store_timestamp);
            queue_offset += offset_step;
            at += size;
        }
        writer.append(units, 0)?;
        state.end += units.len() as u64;
        self.published.store(state.end, Ordering::Release);
        // After the end: a flush that reads the time first covers every message of that time.
        self.last_store_timestamp.fetch_max(store_timestamp, Ordering::AcqRel);
        let wake_allocator = self.look_ahead(state, offset);
        Ok(Some(Written { offset, end: state.end, queue_offset: first_queue_offset, store_timestamp, wake_allocator }))
    }

    /// Ensures a writer with room for `len` bytes and the blank record behind them.
    fn make_room(&self, state: &mut AppendState, len: usize) -> Result<(), StoreError> {
        if let Some(writer) = &mut state.writer {
            let left = (writer.file().end() - state.end) as usize;
            if len + BLANK_MIN <= left {
                return Ok(());
            }
            if left > 0 {
                let mut blank = [0; BLANK_MIN];
                blank[..4].copy_from_slice(&(left as u32).to_be_bytes());
                blank[4..].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
                writer.append(&blank, left - BLANK_MIN)?;
                state.end = writer.file().end();
                self.published.store(state.end, Ordering::Release);
            }
            state.writer = None;
        }
        self.open_next(state)
    }

    fn open_next(&self, state: &mut AppendState) -> Result<(), StoreError> {
        let file = if let Some(file) = self.files.find(state.end) {
            file
        } else {
            let file = self.allocator.take(&self.files, state.end)?;
            self.files.push(&file);
            file
        };
        state.writer = file.writer();
        Ok(())
    }

    /// Orders the next file when the current one is half full, and pages ahead of the end.
    fn look_ahead(&self, state: &AppendState, before: u64) -> bool {
        let Some(writer) = &state.writer else { return false };
        let file = writer.file();
        let half = file.start + self.files.file_size() / 2;
        let crossed = before < half && state.end >= half;
        if crossed {
            self.allocator.order(file.end());
        }
        self.allocator.written(file, state.end) || crossed
    }

    /// Runs `f` while no append can happen.
    pub(crate) fn with_appends_stopped<T>(&self, f: impl FnOnce() -> T) -> T {
        let _state = self.state.lock();
        f()
    }

    /// Appends replicated bytes as they are. They must continue the log; an empty log starts where they start,
    /// which must be the beginning of a file. Nothing is written when an error is returned, except that a file
    /// boundary inside `bytes` may have been reached.
    pub(crate) fn append_raw(&self, offset: u64, mut bytes: &[u8]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if self.files.first_start().is_none() && state.end == 0 && offset != 0 {
            let file_size = self.files.file_size();
            if !offset.is_multiple_of(file_size) {
                return Err(StoreError::UnalignedStart { offset, file_size });
            }
            state.end = offset;
            self.published.store(offset, Ordering::Release);
        }
        if offset != state.end {
            return Err(StoreError::NotContiguous { offset, expected: state.end });
        }
        while !bytes.is_empty() {
            if state.writer.as_ref().is_none_or(|w| w.file().end() == state.end) {
                state.writer = None;
                self.open_next(state)?;
            }
            let Some(writer) = &mut state.writer else { return Err(StoreError::Closed) };
            let left = (writer.file().end() - state.end) as usize;
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            writer.append(now, 0)?;
            state.end += now.len() as u64;
            self.published.store(state.end, Ordering::Release);
            bytes = later;
        }
        Ok(())
    }

    /// Notes the store time of a replicated message, which `append_raw` does not look into.
    pub(crate) fn saw_store_timestamp(&self, timestamp: i64) {
        self.last_store_timestamp.fetch_max(timestamp, Ordering::AcqRel);
    }

    /// The file that holds `offset`, where in it, and up to where it may be read.
    pub(crate) fn locate(&self, offset: u64) -> Option<(Arc<MappedFile>, usize, usize)> {
        if offset >= self.end() {
            return None;
        }
        let file = self.files.find(offset)?;
        let at = (offset - file.start) as usize;
        let readable = file.published();
        (at < readable).then_some((file, at, readable))
    }

    /// Up to `max` bytes from `offset`, within one file.
    pub(crate) fn read_raw(&self, offset: u64, max: usize) -> Option<Bytes> {
        let (file, at, readable) = self.locate(offset)?;
        file.slice(at, readable.min(at.saturating_add(max))).map(Slice::into_bytes)
    }

    /// All that is readable of the file that holds `offset`, and where the file starts.
    pub(crate) fn file_at(&self, offset: u64) -> Option<(u64, Slice)> {
        let (file, _, readable) = self.locate(offset)?;
        Some((file.start, file.slice(0, readable)?))
    }

    /// The unit at `offset`, whatever its size; `None` unless it says itself that it belongs there.
    pub(crate) fn unit_at(&self, offset: u64) -> Option<Bytes> {
        let (file, at, readable) = self.locate(offset)?;
        let bytes = file.slice(at, readable)?;
        let Head::Message(size) = message::head(&bytes) else { return None };
        let unit = bytes.get(..size)?;
        (message::read_u64(unit, message::AT_PHYSICAL_OFFSET) == offset).then(|| bytes.part(at, at + size).into_bytes())
    }

    /// Whether a whole record begins at `offset`: replication may leave the beginning of one at the end.
    pub(crate) fn has_whole_record(&self, offset: u64) -> bool {
        let Some((file, at, readable)) = self.locate(offset) else { return false };
        let Some(bytes) = file.slice(at, readable) else { return false };
        match message::head(&bytes) {
            Head::Message(size) | Head::Blank(size) => size <= readable - at,
            Head::Short | Head::Bad => false,
        }
    }

    /// Store time of the unit at `offset`.
    pub(crate) fn store_timestamp(&self, offset: u64, size: usize) -> Option<i64> {
        let (file, at, readable) = self.locate(offset)?;
        let end = at.checked_add(size).filter(|end| *end <= readable && size >= UNIT_MIN)?;
        store_timestamp_of(&file.slice(at, end)?)
    }

    /// Start of the file behind the one that holds `offset`.
    pub(crate) fn roll_next(&self, offset: u64) -> u64 {
        let size = self.files.file_size();
        offset - offset % size + size
    }
}

/// Store time of a whole unit.
pub(crate) fn store_timestamp_of(unit: &[u8]) -> Option<i64> {
    if !matches!(message::head(unit), Head::Message(_)) || unit.len() < UNIT_MIN {
        return None;
    }
    let at = message::store_timestamp_at(message::read_i32(unit, message::AT_SYS_FLAG));
    Some(message::read_i64(unit, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::hot_files::HotFiles;
    use crate::mapped_file::Allocation;
    use crate::mapped_file_queue::Layout;
    use crate::message::{NewMessage, encode};

    fn log(dir: &std::path::Path, size: u64) -> CommitLog {
        let layout = Layout {
            dir: dir.to_owned(),
            file_size: size,
            allocation: Allocation::Full,
            disk: Disk::default(),
            hot: HotFiles::new(2),
        };
        let files = MappedFileQueue::new(layout, Vec::new());
        CommitLog::new(files, Allocator::new(false), 0, 0)
    }

    fn unit(body: usize) -> Vec<u8> {
        let body = vec![b'x'; body];
        let m = NewMessage { body: &body, ..NewMessage::sample() };
        let mut out = Vec::new();
        encode(&m, false, &mut out).unwrap();
        out
    }

    #[test]
    fn the_end_of_a_file_is_a_blank_record() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 1024);
        // 92 + 408 = 500 bytes each: the second leaves 24, the third goes to the next file.
        let offsets: Vec<_> =
            (0..3).map(|i| log.append(&mut unit(408), || Some(i), 1).unwrap().unwrap().offset).collect();
        assert_eq!(offsets, [0, 500, 1024]);
        let disk = std::fs::read(MappedFile::path_in(dir.path(), 0)).unwrap();
        assert_eq!(disk[1000..1008], [0, 0, 0, 24, 0xCB, 0xD4, 0x31, 0x94]);
        assert_eq!(log.end(), 1524);
        assert_eq!(message::read_u64(&log.unit_at(1024).unwrap(), 28), 1024);
    }

    #[test]
    fn exactly_eight_bytes_must_stay_free() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 1024);
        log.append(&mut unit(1024 - 8 - 92), || Some(0), 1).unwrap();
        assert_eq!(log.end(), 1016);
        assert_eq!(log.append(&mut unit(1), || Some(0), 1).unwrap().unwrap().offset, 1024);
        let disk = std::fs::read(MappedFile::path_in(dir.path(), 0)).unwrap();
        assert_eq!(disk[1016..], [0, 0, 0, 8, 0xCB, 0xD4, 0x31, 0x94]);
        assert!(matches!(
            log.append(&mut unit(1025 - 8 - 92), || Some(0), 1),
            Err(StoreError::MessageTooLarge { size: 1017, max: 1016 })
        ));
    }

    #[test]
    fn raw_bytes_must_continue_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 1024);
        assert!(matches!(log.append_raw(100, b"x"), Err(StoreError::UnalignedStart { .. })));
        log.append_raw(2048, &[1; 1000]).unwrap();
        log.append_raw(3048, &[2; 100]).unwrap();
        assert_eq!((log.min_offset(), log.end()), (2048, 3148));
        assert!(matches!(log.append_raw(3000, b"x"), Err(StoreError::NotContiguous { offset: 3000, expected: 3148 })));
        assert_eq!(log.read_raw(3040, 100).unwrap().len(), 32, "within one file");
        assert_eq!(log.read_raw(3072, 5).unwrap(), &[2; 5][..]);
        assert!(log.read_raw(3148, 5).is_none() && log.read_raw(0, 5).is_none());
    }
}
