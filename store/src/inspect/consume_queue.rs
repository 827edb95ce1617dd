//! Reads a consume queue from its files: 20-byte units by queue offset.
//!
//! May not: read the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::commit_log::is_gone;
use super::segment::{SegmentFile, Window, list, segment_files};
use crate::consume_queue::{FILLER_SIZE, UNIT, decode};
use crate::error::StoreError;
use crate::results::QueueEntry;

/// Bytes read at once: small, for all queues are read side by side.
const CHUNK: usize = 200 * UNIT as usize;
/// Bytes read at once where one queue is read alone.
const CHUNK_OF_SCAN: usize = 50_000 * UNIT as usize;

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// It points to a message.
    Message,
    /// It stands for a queue offset without message (`ConsumeQueue.fillPreBlank`).
    Filler,
    /// Nothing was written: all zeroes.
    Unwritten,
    /// None of these.
    Bad,
}

impl UnitKind {
    /// The kind of a unit.
    pub fn of(unit: &QueueEntry) -> Self {
        match (unit.size, unit.offset, unit.tags_code) {
            (0, 0, 0) => Self::Unwritten,
            (FILLER_SIZE, 0, 0) => Self::Filler,
            (1..FILLER_SIZE, ..) => Self::Message,
            _ => Self::Bad,
        }
    }
}

/// One queue's files.
#[derive(Debug)]
pub struct QueueReader {
    dir: PathBuf,
    files: Vec<SegmentFile>,
    file_size: u64,
    window: Option<Window>,
}

impl QueueReader {
    /// Lists the files of a queue; `file_size` is the usual size of queue files, by which missing ones are named.
    pub fn open(dir: &Path, file_size: u64) -> Result<Self, StoreError> {
        Ok(Self { dir: dir.to_owned(), files: segment_files(dir)?.0, file_size: file_size.max(UNIT), window: None })
    }

    /// The queue's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lists the files anew and lets go of what was read: somebody may have written meanwhile.
    pub fn refresh(&mut self) -> Result<(), StoreError> {
        self.files = segment_files(&self.dir)?.0;
        self.window = None;
        Ok(())
    }

    /// The files as they were listed.
    pub fn files(&self) -> &[SegmentFile] {
        &self.files
    }

    /// Queue offset of the first unit there is room for.
    pub fn first(&self) -> i64 {
        self.files.first().map_or(0, |f| f.start.div_ceil(UNIT) as i64)
    }

    /// Queue offset behind the last unit there is room for.
    pub fn room(&self) -> i64 {
        self.files.iter().map(SegmentFile::end).max().map_or(0, |end| (end / UNIT) as i64)
    }

    /// File and byte in it where the unit of a queue offset lies, or would lie.
    pub fn place(&self, queue_offset: i64) -> (PathBuf, u64) {
        let byte = (queue_offset.max(0) as u64).saturating_mul(UNIT);
        if let Some(file) = self.holder(byte) {
            return (file.path.clone(), byte - file.start);
        }
        let start = byte / self.file_size * self.file_size;
        (SegmentFile::path_in(&self.dir, start), byte - start)
    }

    fn holder(&self, byte: u64) -> Option<&SegmentFile> {
        let at = self.files.partition_point(|f| f.start <= byte);
        self.files[..at].last().filter(|f| byte.saturating_add(UNIT) <= f.end())
    }

    /// The unit of a queue offset, written or not; `None` where there is no file.
    pub fn unit(&mut self, queue_offset: i64) -> Result<Option<QueueEntry>, StoreError> {
        self.read(queue_offset, CHUNK)
    }

    /// The same for reading many units in order.
    pub fn scan(&mut self, queue_offset: i64) -> Result<Option<QueueEntry>, StoreError> {
        self.read(queue_offset, CHUNK_OF_SCAN)
    }

    /// Lets go of what was read.
    pub(crate) fn forget(&mut self) {
        self.window = None;
    }

    fn read(&mut self, queue_offset: i64, chunk: usize) -> Result<Option<QueueEntry>, StoreError> {
        if queue_offset < 0 {
            return Ok(None);
        }
        let byte = (queue_offset as u64).saturating_mul(UNIT);
        let Some(file) = self.holder(byte) else { return Ok(None) };
        let at = byte - file.start;
        if self.window.as_ref().is_none_or(|w| w.path() != file.path) {
            self.window = Some(Window::new(&file.path, chunk));
        }
        let Some(window) = &mut self.window else { return Ok(None) };
        match window.get(at, UNIT as usize) {
            Ok(bytes) if bytes.len() == UNIT as usize => Ok(Some(decode(bytes, queue_offset))),
            Ok(_) => Ok(None),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Queue offset behind the last written unit.
    pub fn end(&mut self) -> Result<i64, StoreError> {
        for index in (0..self.files.len()).rev() {
            let file = &self.files[index];
            let (first, behind) = (file.start.div_ceil(UNIT) as i64, (file.end() / UNIT) as i64);
            let mut end = None;
            for queue_offset in first..behind {
                if self.scan(queue_offset)?.is_some_and(|u| UnitKind::of(&u) != UnitKind::Unwritten) {
                    end = Some(queue_offset + 1);
                }
            }
            if let Some(end) = end {
                return Ok(end);
            }
        }
        Ok(self.first())
    }
}

/// The directories of all queues: topic → queue id → directory. What is not named by a queue id is no queue.
pub fn queue_dirs(dir: &Path) -> Result<BTreeMap<String, BTreeMap<i32, PathBuf>>, StoreError> {
    let mut topics = BTreeMap::new();
    for topic in list(dir)?.into_iter().filter(|p| p.is_dir()) {
        let Some(name) = topic.file_name().and_then(|n| n.to_str()).map(str::to_owned) else { continue };
        let queues = list(&topic)?.into_iter().filter(|p| p.is_dir());
        let by_id = queues.filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let id = name.parse::<i32>().ok().filter(|id| id.to_string() == name)?;
            Some((id, path))
        });
        topics.insert(name, by_id.collect());
    }
    Ok(topics)
}
