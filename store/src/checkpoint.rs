//! The `checkpoint` file: up to which store time log, queues and index are on disk.
//!
//! ```text
//! physicMsgTimestamp 8 | logicsMsgTimestamp 8 | indexMsgTimestamp 8 | …, 4096 bytes in all
//! ```
//!
//! 5.x keeps more behind these three fields; those bytes stay as they are.

use std::fs::File;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::message::read_i64;

pub(crate) const SIZE: u64 = 4096;
/// Subtracted when the recovery start is chosen: clocks of several messages share a millisecond, and Java does so.
const MARGIN_MS: i64 = 3000;

/// Store times, ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timestamps {
    pub(crate) physic: i64,
    pub(crate) logics: i64,
    pub(crate) index: i64,
}

impl Timestamps {
    /// Every message stored up to here is on disk in all its forms (`StoreCheckpoint.getMinTimestamp`).
    pub(crate) fn safe(self, with_index: bool) -> i64 {
        let min = self.physic.min(self.logics);
        let min = if with_index { min.min(self.index) } else { min };
        min.saturating_sub(MARGIN_MS).max(0)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    file: File,
    disk: Disk,
    now: Mutex<Timestamps>,
}

impl Checkpoint {
    /// Opens the file, made new when missing; a short one reads as zero where bytes are missing.
    pub(crate) fn open(path: &Path, disk: Disk) -> Result<Self, StoreError> {
        let file = disk.open(path)?;
        disk.resize(&file, path, SIZE)?;
        let mut raw = [0; 24];
        disk.read_at(path, 0, &mut raw)?;
        let now = Timestamps { physic: read_i64(&raw, 0), logics: read_i64(&raw, 8), index: read_i64(&raw, 16) };
        Ok(Self { path: path.to_owned(), file, disk, now: Mutex::new(now) })
    }

    pub(crate) fn get(&self) -> Timestamps {
        *self.now.lock()
    }

    /// Notes what was flushed and writes it durably. The caller has flushed first.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Timestamps)) -> Result<(), StoreError> {
        let mut now = self.now.lock();
        change(&mut now);
        let mut raw = [0; 24];
        raw[..8].copy_from_slice(&now.physic.to_be_bytes());
        raw[8..16].copy_from_slice(&now.logics.to_be_bytes());
        raw[16..].copy_from_slice(&now.index.to_be_bytes());
        self.disk.write_at(&self.file, &self.path, 0, &raw)?;
        self.disk.sync_file(&self.file, &self.path)
    }

    /// Notes without writing: the next [`Checkpoint::update`] carries it.
    pub(crate) fn note_physic(&self, timestamp: i64) {
        let mut now = self.now.lock();
        now.physic = now.physic.max(timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_longs_and_the_rest_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        std::fs::write(&path, [9; 4096]).unwrap();
        let c = Checkpoint::open(&path, Disk::default()).unwrap();
        c.update(|t| *t = Timestamps { physic: 20_000, logics: 10_000, index: 5000 }).unwrap();
        let disk = std::fs::read(&path).unwrap();
        assert_eq!(disk.len(), 4096);
        assert_eq!(disk[..8], 20_000_i64.to_be_bytes());
        assert!(disk[24..].iter().all(|b| *b == 9));
        let again = Checkpoint::open(&path, Disk::default()).unwrap().get();
        assert_eq!((again.safe(false), again.safe(true)), (7000, 2000));
    }

    #[test]
    fn missing_or_short_is_the_beginning_of_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        assert_eq!(Checkpoint::open(&path, Disk::default()).unwrap().get().safe(true), 0);
        std::fs::write(&path, [0, 0, 0]).unwrap();
        assert_eq!(Checkpoint::open(&path, Disk::default()).unwrap().get(), Timestamps::default());
    }
}
