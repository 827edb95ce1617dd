//! Checksums of an index file, kept up as entries are added.
//!
//! RocketMQ's index has none: one changed bit of a slot or an entry hides a key. The manifest notes these, as it does
//! those of the consume queues. Entries never change once they are written and are summed in blocks; header and slots
//! change with each entry and are summed when nobody writes any more. May not: write.

use std::path::Path;

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::index_file::{ENTRY, IndexShape};

/// Entries of a block: 10 MB.
const BLOCK: u32 = 500_000;
const READ_AT_ONCE: usize = 1 << 20;

/// What the manifest notes of an index file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldIndexFile {
    /// The file's name.
    pub(crate) name: String,
    /// Number of the next entry.
    pub(crate) count: u32,
    /// `beginTimestamp` of the header.
    pub(crate) begin_timestamp: i64,
    /// CRC-32 of the entries from 1 on, of each block.
    pub(crate) blocks: Vec<u32>,
    /// CRC-32 of header and slots, when nobody wrote any more.
    #[serde(default)]
    pub(crate) table: Option<u32>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct IndexChecksums {
    full: Vec<u32>,
    growing: Hasher,
    /// First entry that is not summed.
    next: u32,
}

impl Default for IndexChecksums {
    fn default() -> Self {
        Self { full: Vec::new(), growing: Hasher::new(), next: 1 }
    }
}

impl IndexChecksums {
    /// Sums the entries before `count`, and returns the checksum of each block.
    pub(crate) fn follow(
        &mut self,
        path: &Path,
        shape: IndexShape,
        count: u32,
        disk: &Disk,
    ) -> Result<Vec<u32>, StoreError> {
        while self.next < count {
            let block_end = (self.full.len() as u32 + 1) * BLOCK + 1;
            let to = count.min(block_end);
            sum(&mut self.growing, path, shape.entry_at(self.next)..shape.entry_at(to), disk)?;
            self.next = to;
            if to == block_end {
                self.full.push(std::mem::take(&mut self.growing).finalize());
            }
        }
        Ok(self.of_blocks(self.next).unwrap_or_default())
    }

    /// The checksum of each block, when all entries before `count` are summed.
    pub(crate) fn of_blocks(&self, count: u32) -> Option<Vec<u32>> {
        let growing = (self.next > self.full.len() as u32 * BLOCK + 1).then(|| self.growing.clone().finalize());
        (self.next == count).then(|| self.full.iter().copied().chain(growing).collect())
    }

    /// Compares the entries with what was noted of them, but for the first blocks, as many as `believed`. `None` when they
    /// are others.
    pub(crate) fn verified(
        path: &Path,
        shape: IndexShape,
        held: &HeldIndexFile,
        believed: usize,
        disk: &Disk,
    ) -> Result<Option<Self>, StoreError> {
        if !held.blocks.is_empty() && believed >= held.blocks.len() {
            // The last one too: nobody adds to it any more.
            return Ok(Some(Self { full: held.blocks.clone(), growing: Hasher::new(), next: held.count }));
        }
        let full = (held.count.saturating_sub(1) / BLOCK) as usize;
        let believed = &held.blocks[..believed.min(full).min(held.blocks.len())];
        let next = believed.len() as u32 * BLOCK + 1;
        let mut sums = Self { full: believed.to_vec(), growing: Hasher::new(), next };
        let found = sums.follow(path, shape, held.count, disk)?;
        Ok((found == held.blocks).then_some(sums))
    }
}

/// Checksum of header and slots.
pub(crate) fn table(path: &Path, shape: IndexShape, disk: &Disk) -> Result<u32, StoreError> {
    let mut crc = Hasher::new();
    sum(&mut crc, path, 0..shape.entry_at(0), disk)?;
    Ok(crc.finalize())
}

fn sum(crc: &mut Hasher, path: &Path, range: std::ops::Range<usize>, disk: &Disk) -> Result<(), StoreError> {
    let mut buffer = vec![0; range.len().min(READ_AT_ONCE)];
    for at in range.clone().step_by(READ_AT_ONCE) {
        let part = &mut buffer[..(range.end - at).min(READ_AT_ONCE)];
        part.fill(0);
        disk.read_at(path, at as u64, part)?;
        crc.update(part);
    }
    Ok(())
}

/// What is compared of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Blocks at the beginning that are not.
    pub(crate) believed: usize,
    /// Whether header and slots are.
    pub(crate) table: bool,
}

/// What is compared of each file, oldest first: the newest bytes of all, as many as `checked`. To open a store must not
/// take longer and longer.
pub(crate) fn scopes(held: &[HeldIndexFile], shape: IndexShape, checked: usize) -> Vec<Scope> {
    let mut left = checked.max(1);
    let mut scopes: Vec<Scope> = held
        .iter()
        .rev()
        .map(|file| {
            let blocks = left.div_ceil(BLOCK as usize * ENTRY);
            let scope = Scope { believed: file.blocks.len().saturating_sub(blocks), table: left > 0 };
            left = left.saturating_sub(shape.entry_at(file.count) - if scope.table { 0 } else { shape.entry_at(0) });
            scope
        })
        .collect();
    scopes.reverse();
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: IndexShape = IndexShape { slots: 10, entries: 2 * BLOCK + 10 };

    #[test]
    fn blocks_are_the_same_however_they_grew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        let bytes: Vec<u8> = (0..SHAPE.file_len()).map(|i| (i * 7 / 3) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let disk = Disk::default();
        let mut grown = IndexChecksums::default();
        let mut blocks = Vec::new();
        for count in [1, 2, 100, BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK + 5] {
            blocks = grown.follow(&path, SHAPE, count, &disk).unwrap();
            assert_eq!(IndexChecksums::default().follow(&path, SHAPE, count, &disk).unwrap(), blocks, "{count}");
        }
        let of = |from, to| crc32fast::hash(&bytes[SHAPE.entry_at(from)..SHAPE.entry_at(to)]);
        assert_eq!(blocks, [of(1, BLOCK + 1), of(BLOCK + 1, 2 * BLOCK + 1), of(2 * BLOCK + 1, 2 * BLOCK + 5)]);
        let held = HeldIndexFile { count: 2 * BLOCK + 5, blocks, ..HeldIndexFile::default() };
        for believed in 0..5 {
            assert!(IndexChecksums::verified(&path, SHAPE, &held, believed, &disk).unwrap().is_some());
        }
        let mut damaged = bytes.clone();
        damaged[SHAPE.entry_at(3)] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(IndexChecksums::verified(&path, SHAPE, &held, 0, &disk).unwrap().is_none());
        assert!(IndexChecksums::verified(&path, SHAPE, &held, 1, &disk).unwrap().is_some(), "not looked at");
    }

    #[test]
    fn only_the_newest_bytes_are_compared() {
        let shape = IndexShape { slots: 5_000_000, entries: 20_000_000 };
        let full = HeldIndexFile { count: shape.entries, blocks: vec![0; 40], ..HeldIndexFile::default() };
        let newest = HeldIndexFile { count: 10, blocks: vec![0], ..HeldIndexFile::default() };
        let scopes = scopes(&[full.clone(), full, newest], shape, 64 << 20);
        assert_eq!(scopes[2], Scope { believed: 0, table: true });
        assert_eq!((scopes[1].table, scopes[0].table), (true, false));
        assert!((33..=36).contains(&scopes[1].believed) && scopes[0].believed == 40, "{scopes:?}");
    }
}
