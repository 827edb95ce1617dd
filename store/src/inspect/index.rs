//! Reads one index file: header, slots, entries, and the chain of a key.
//!
//! May not: read the log; it answers with log offsets, some of them of other keys of the same hash.

use std::path::{Path, PathBuf};

use super::segment::{Window, list};
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::index_file::{
    AT_BEGIN_PHYSICAL, AT_BEGIN_TIMESTAMP, AT_END_PHYSICAL, AT_END_TIMESTAMP, AT_INDEX_COUNT, AT_SLOT_COUNT, ENTRY,
    HEADER, IndexShape, SLOT, key_hash,
};
use crate::message::{read_i64, read_u32, read_u64};
use crate::properties::{java_hash_onto, java_string_hash};

/// Bytes read at once.
const CHUNK: usize = 1 << 18;
const CHUNK_OF_LOOKUP: usize = 512;

/// The first 40 bytes of an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexHeader {
    /// Store time of the first message, ms.
    pub begin_timestamp: i64,
    /// Store time of the last message, ms.
    pub end_timestamp: i64,
    /// Log offset of the first message.
    pub begin_physical: u64,
    /// Log offset of the last message.
    pub end_physical: u64,
    /// Slots in use.
    pub slot_count: u32,
    /// Number of the next entry: the first one is 1.
    pub index_count: u32,
}

/// One entry of an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its number in the file, from 1.
    pub number: u32,
    /// Hash of `topic#key`.
    pub hash: u32,
    /// Log offset of the message.
    pub physical: u64,
    /// Seconds between the file's first message and this one.
    pub seconds: i32,
    /// The entry before in the same slot, 0 for none.
    pub previous: u32,
}

/// One index file.
#[derive(Debug)]
pub struct IndexReader {
    path: PathBuf,
    shape: IndexShape,
    entries: Window,
    slots: Window,
    chain: Window,
}

impl IndexReader {
    /// Names the file; its shape is `maxHashSlotNum` and `maxIndexNum` of the settings.
    pub fn new(path: &Path, config: &StoreConfig) -> Self {
        let shape = IndexShape { slots: config.max_hash_slot_num.max(1), entries: config.max_index_num };
        Self {
            path: path.to_owned(),
            shape,
            entries: Window::new(path, CHUNK),
            slots: Window::new(path, CHUNK),
            chain: Window::new(path, CHUNK_OF_LOOKUP),
        }
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes a file of this shape has.
    pub fn expected_len(&self) -> u64 {
        self.shape.file_len() as u64
    }

    /// Slots of this shape.
    pub fn slot_number(&self) -> u32 {
        self.shape.slots
    }

    /// Byte of the file where an entry lies.
    pub fn entry_at(&self, number: u32) -> u64 {
        self.shape.entry_at(number) as u64
    }

    /// Byte of the file where a slot lies.
    pub fn slot_at(slot: u32) -> u64 {
        (HEADER + slot as usize * SLOT) as u64
    }

    /// The slot of a hash.
    pub fn slot_of(&self, hash: u32) -> u32 {
        hash % self.shape.slots
    }

    /// Reads the header anew; `None` when the file is shorter than one.
    pub fn header(&mut self) -> Result<Option<IndexHeader>, StoreError> {
        self.slots.forget();
        let bytes = self.slots.get(0, HEADER)?;
        if bytes.len() < HEADER {
            return Ok(None);
        }
        Ok(Some(IndexHeader {
            begin_timestamp: read_i64(bytes, AT_BEGIN_TIMESTAMP),
            end_timestamp: read_i64(bytes, AT_END_TIMESTAMP),
            begin_physical: read_u64(bytes, AT_BEGIN_PHYSICAL),
            end_physical: read_u64(bytes, AT_END_PHYSICAL),
            slot_count: read_u32(bytes, AT_SLOT_COUNT),
            index_count: read_u32(bytes, AT_INDEX_COUNT),
        }))
    }

    /// Number behind the last entry, as the header says and no more than the file can hold.
    pub fn count(&mut self) -> Result<u32, StoreError> {
        Ok(self.header()?.map_or(1, |h| h.index_count.clamp(1, self.shape.entries.max(1))))
    }

    /// An entry; `None` when the file ends before it.
    pub fn entry(&mut self, number: u32) -> Result<Option<IndexEntry>, StoreError> {
        let at = self.entry_at(number);
        Ok(decode(self.entries.get(at, ENTRY)?, number))
    }

    /// Number of the newest entry of a slot; `None` when the file ends before it.
    pub fn slot(&mut self, slot: u32) -> Result<Option<u32>, StoreError> {
        let bytes = self.slots.get(Self::slot_at(slot), SLOT)?;
        Ok((bytes.len() == SLOT).then(|| read_u32(bytes, 0)))
    }

    /// The entries of a hash, newest first, found by the chain of its slot.
    pub fn search(&mut self, hash: u32) -> Result<Vec<IndexEntry>, StoreError> {
        let mut found = Vec::new();
        let mut limit = self.count()?;
        let slot = self.slot_of(hash);
        let mut number = self.slot(slot)?.unwrap_or(0);
        self.chain.forget();
        // Chains lead downwards only, so a damaged one ends too.
        while (1..limit).contains(&number) {
            let at = self.entry_at(number);
            let Some(entry) = decode(self.chain.get(at, ENTRY)?, number) else { break };
            if entry.hash == hash {
                found.push(entry);
            }
            (limit, number) = (number, entry.previous);
        }
        Ok(found)
    }
}

fn decode(bytes: &[u8], number: u32) -> Option<IndexEntry> {
    (bytes.len() == ENTRY).then(|| IndexEntry {
        number,
        hash: read_u32(bytes, 0),
        physical: read_u64(bytes, 4),
        seconds: read_u32(bytes, 12) as i32,
        previous: read_u32(bytes, 16),
    })
}

/// The hash under which a message of `topic` is indexed for `key` (`IndexFile.indexKeyHashMethod`).
pub fn key_hash_of(topic: &str, key: &str) -> u32 {
    key_hash(java_hash_onto(java_hash_onto(java_string_hash(topic), "#"), key))
}

/// The index files of a directory, oldest first (names of 17 digits), and the names of other files.
pub fn index_files(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), StoreError> {
    let is_index = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.len() == 17 && name.bytes().all(|b| b.is_ascii_digit())
    };
    Ok(list(dir)?.into_iter().partition(is_index))
}
