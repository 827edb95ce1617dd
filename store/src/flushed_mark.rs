//! `flushed`: up to which log offset everything is on disk, noted after each flush.
//!
//! ```text
//! log offset 8 | CRC-32 of it 4
//! ```
//!
//! RocketMQ has no such file and ignores it. It is written before anybody is told of the flush, and not synced
//! itself: a killed process leaves the newest note, a power loss an older one, and either is true. Recovery tells by
//! it damage (below: what follows is kept) from a write that was torn (behind: the log ends there).

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::message::{read_u32, read_u64};

const SIZE: usize = 12;

/// See the module.
#[derive(Debug)]
pub(crate) struct FlushedMark {
    path: PathBuf,
    file: File,
    disk: Disk,
}

impl FlushedMark {
    /// Opens or makes the file; also says what it notes, 0 when it is new or damaged.
    pub(crate) fn open(root: &Path, disk: Disk) -> Result<(Self, u64), StoreError> {
        let path = root.join("flushed");
        let file = disk.open(&path)?;
        let mut raw = [0; SIZE];
        disk.read_at(&path, 0, &mut raw)?;
        let noted = if read_u32(&raw, 8) == crc32fast::hash(&raw[..8]) { read_u64(&raw, 0) } else { 0 };
        Ok((Self { path, file, disk }, noted))
    }

    /// Notes that everything below `offset` is on disk.
    pub(crate) fn note(&self, offset: u64) -> Result<(), StoreError> {
        let mut raw = [0; SIZE];
        raw[..8].copy_from_slice(&offset.to_be_bytes());
        let crc = crc32fast::hash(&raw[..8]);
        raw[8..].copy_from_slice(&crc.to_be_bytes());
        self.disk.write_at(&self.file, &self.path, 0, &raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_damage_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FlushedMark::open(dir.path(), Disk::default()).unwrap();
        let (mark, noted) = open();
        assert_eq!(noted, 0);
        mark.note(0x0102_0304_0506).unwrap();
        assert_eq!(open().1, 0x0102_0304_0506);
        let path = dir.path().join("flushed");
        let good = std::fs::read(&path).unwrap();
        for at in 0..SIZE {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(open().1, 0, "byte {at}");
        }
    }
}
