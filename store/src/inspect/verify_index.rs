//! The index against the log: every key of a message has an entry, every entry its message; slots and chains lead
//! where they should.
//!
//! Entries are in the order of the log, so both are read side by side. Where damage has broken that order, keys are
//! searched as a query does. May not: read consume queues.

use std::fs;
use std::path::{Path, PathBuf};

use super::commit_log::LogLookup;
use super::finding::FindingKind;
use super::index::{IndexEntry, IndexHeader, IndexReader, index_files, key_hash_of};
use super::verify::{Reporter, Summary};
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::message::{MessageView, sys_flag};
use crate::properties::{DispatchProperties, TAGS, property};

/// Faults of slots and entries that are told one by one for each file.
const TOLD_ONE_BY_ONE: u64 = 20;

/// Messages in a row whose keys are not in the index.
#[derive(Debug)]
struct Missing {
    path: PathBuf,
    at: u64,
    first: u64,
    last: u64,
    keys: u64,
    first_key: String,
    /// They lie behind everything that is indexed.
    at_end: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct IndexCheck {
    dir: PathBuf,
    shape: String,
    readers: Vec<IndexReader>,
    /// Begin timestamps of the files.
    begins: Vec<i64>,
    /// Entries are in the order of the log.
    sorted: bool,
    /// Messages that have keys, where there is no index to hold them against.
    unindexed: u64,
    /// There are no index files.
    none: bool,
    /// File and entry that come next.
    next: (usize, u32),
    /// Entry count of the file that is being read.
    count: u32,
    log_begin: Option<u64>,
    missing: Option<Missing>,
    entries: u64,
    lookup: LogLookup,
}

impl IndexCheck {
    pub(crate) fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let (files, _) = index_files(&config.index_dir())?;
        Ok(Self {
            dir: config.index_dir(),
            shape: format!("maxHashSlotNum={} and maxIndexNum={}", config.max_hash_slot_num, config.max_index_num),
            readers: files.iter().map(|path| IndexReader::new(path, config)).collect(),
            begins: Vec::new(),
            sorted: true,
            unindexed: 0,
            none: false,
            next: (0, 1),
            count: 0,
            log_begin: None,
            missing: None,
            entries: 0,
            lookup: LogLookup::open(&config.commit_log_dir())?,
        })
    }

    /// Each file for itself.
    pub(crate) fn check_files(&mut self, reporter: &mut Reporter<'_>) -> Result<(), StoreError> {
        self.none = self.readers.is_empty();
        let mut last = 0;
        for mut reader in std::mem::take(&mut self.readers) {
            let path = reader.path().to_owned();
            let len = match fs::metadata(&path) {
                Ok(meta) => meta.len(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(StoreError::io("stat", &path, e)),
            };
            let expected = reader.expected_len();
            if len != expected {
                let what = format!("{len} bytes, {} make {expected}; its entries are not read", self.shape);
                reporter.tell(FindingKind::FileSize, &path, len.min(expected), what);
                continue;
            }
            let Some(header) = reader.header()? else { continue };
            self.sorted &= check_file(&mut reader, &header, &mut last, reporter)?;
            self.begins.push(header.begin_timestamp);
            self.readers.push(reader);
        }
        Ok(())
    }

    /// A message of the log, in order.
    pub(crate) fn saw(
        &mut self,
        m: &MessageView<'_>,
        path: &Path,
        at: u64,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), StoreError> {
        if self.none {
            self.unindexed += u64::from(!keys(m).is_empty());
            return Ok(());
        }
        let log_begin = *self.log_begin.get_or_insert(m.physical_offset);
        let mut found = Vec::new();
        while let Some((file, entry)) = self.peek()? {
            if entry.physical > m.physical_offset {
                break;
            }
            self.next.1 += 1;
            self.entries += 1;
            if entry.physical == m.physical_offset {
                found.push((file, entry));
            } else if entry.physical >= log_begin {
                self.judge(file, &entry, reporter)?;
            }
        }
        for (file, entry) in &found {
            check_entry(&self.readers[*file], self.begins[*file], entry, m, reporter);
        }
        for key in keys(m) {
            let hash = key_hash_of(m.topic, key);
            if found.iter().any(|(_, entry)| entry.hash == hash) || self.find(hash, m.physical_offset)? {
                continue;
            }
            let at_end = self.next.0 >= self.readers.len() || self.peek()?.is_none();
            match &mut self.missing {
                Some(missing) => {
                    missing.last = m.physical_offset;
                    missing.keys += 1;
                }
                None => {
                    self.missing = Some(Missing {
                        path: path.to_owned(),
                        at,
                        first: m.physical_offset,
                        last: m.physical_offset,
                        keys: 1,
                        first_key: format!("{}#{key}", m.topic),
                        at_end,
                    });
                }
            }
        }
        if !found.is_empty() && self.missing.as_ref().is_some_and(|missing| missing.last < m.physical_offset) {
            self.tell_missing(reporter);
        }
        Ok(())
    }

    /// The log was read: judges what is left. `was_indexed`: the checkpoint says that there was an index.
    pub(crate) fn finish(
        mut self,
        was_indexed: bool,
        lookup: LogLookup,
        summary: &mut Summary,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), StoreError> {
        self.tell_missing(reporter);
        if self.unindexed > 0 {
            let what = format!("there are no index files, and {} messages have keys", self.unindexed);
            let kind = if was_indexed { FindingKind::MissingFile } else { FindingKind::Note };
            reporter.tell(kind, &self.dir, 0, what);
        }
        self.lookup = lookup;
        let log_end = summary.log_end;
        while let Some((file, entry)) = self.peek()? {
            self.next.1 += 1;
            self.entries += 1;
            // What a running broker has written since is beyond what was seen.
            if entry.physical >= summary.log_begin && !(reporter.open && entry.physical >= log_end) {
                self.judge(file, &entry, reporter)?;
            }
        }
        (summary.index_files, summary.index_entries) = (self.readers.len() as u64, self.entries);
        Ok(())
    }

    /// The next entry, its file's number with it; zeroed ones were told of and are passed over.
    fn peek(&mut self) -> Result<Option<(usize, IndexEntry)>, StoreError> {
        while let Some(reader) = self.readers.get_mut(self.next.0) {
            if self.next.1 >= self.count {
                // A running broker may have added some.
                self.count = reader.count()?;
            }
            if self.next.1 < self.count {
                match reader.entry(self.next.1)? {
                    Some(entry) if !is_zero(&entry) => return Ok(Some((self.next.0, entry))),
                    _ => self.next.1 += 1,
                }
                continue;
            }
            if self.next.0 + 1 == self.readers.len() {
                return Ok(None);
            }
            self.next = (self.next.0 + 1, 1);
            self.count = 0;
        }
        Ok(None)
    }

    /// Searches as a query does: only where the order is broken can that find what was not found in order.
    fn find(&mut self, hash: u32, physical: u64) -> Result<bool, StoreError> {
        if self.sorted {
            return Ok(false);
        }
        for reader in &mut self.readers {
            if reader.search(hash)?.iter().any(|entry| entry.physical == physical) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An entry that was not met in the order of the log.
    fn judge(&mut self, file: usize, entry: &IndexEntry, reporter: &mut Reporter<'_>) -> Result<(), StoreError> {
        let reader = &self.readers[file];
        if let Some(m) = self.lookup.message_at(entry.physical)? {
            check_entry(reader, self.begins[file], entry, &m, reporter);
        } else {
            let what = format!("entry {}: no message begins at log offset {}", entry.number, entry.physical);
            reporter.tell(FindingKind::IndexTarget, reader.path(), reader.entry_at(entry.number), what);
        }
        Ok(())
    }

    fn tell_missing(&mut self, reporter: &mut Reporter<'_>) {
        let Some(Missing { path, at, first, last, keys, first_key, at_end }) = self.missing.take() else { return };
        // What a running broker has not indexed yet, or a killed one not any more, is no fault.
        let kind =
            if at_end && (reporter.open || reporter.aborted) { FindingKind::Note } else { FindingKind::MissingKey };
        let what = if keys == 1 {
            format!("key {first_key} of the message at log offset {first} is not in the index")
        } else {
            format!(
                "{keys} keys of the messages from log offset {first} to {last} are not in the index, the first is {first_key}"
            )
        };
        reporter.tell(kind, &path, at, what);
    }
}

/// An entry against the message it points to; `begin` is the file's begin timestamp.
fn check_entry(reader: &IndexReader, begin: i64, entry: &IndexEntry, m: &MessageView<'_>, reporter: &mut Reporter<'_>) {
    let at = reader.entry_at(entry.number);
    let mut tell = |kind, what: String| {
        let what = format!("entry {}: the message at log offset {} {what}", entry.number, entry.physical);
        reporter.tell(kind, reader.path(), at, what);
    };
    if !has_hash(m, entry.hash) {
        tell(FindingKind::IndexTarget, format!("has no key of hash {}", entry.hash));
    }
    let seconds = m.store_timestamp.saturating_sub(begin) / 1000;
    let seconds = if begin <= 0 { 0 } else { seconds.clamp(0, i64::from(i32::MAX)) };
    if i64::from(entry.seconds) != seconds {
        let what = format!("was stored {seconds} s behind the file's first, the entry says {}", entry.seconds);
        tell(FindingKind::WrongField, what);
    }
}

/// What a message is indexed under (`IndexService.buildIndex`).
fn keys<'a>(m: &MessageView<'a>) -> Vec<&'a str> {
    if !sys_flag::is_indexed(m.sys_flag) {
        return Vec::new();
    }
    let found = DispatchProperties::scan(m.properties);
    let words = found.keys.into_iter().flat_map(|keys| keys.split(' ')).filter(|word| !word.is_empty());
    found.uniq_key.into_iter().chain(words).collect()
}

/// Whether a message may be indexed under a hash: that of a key, or of its tags (newer 5.x, as `topic#T#tags`).
fn has_hash(m: &MessageView<'_>, hash: u32) -> bool {
    keys(m).into_iter().any(|key| key_hash_of(m.topic, key) == hash)
        || property(m.properties, TAGS).is_some_and(|tags| key_hash_of(m.topic, &format!("T#{tags}")) == hash)
}

fn is_zero(entry: &IndexEntry) -> bool {
    (entry.hash, entry.physical, entry.seconds, entry.previous) == (0, 0, 0, 0)
}

/// Holds header, entries and slots of one file against each other. `last` is the newest log offset so far. Returns
/// whether the entries are in the order of the log.
fn check_file(
    reader: &mut IndexReader,
    header: &IndexHeader,
    last: &mut u64,
    reporter: &mut Reporter<'_>,
) -> Result<bool, StoreError> {
    let path = reader.path().to_owned();
    let count = reader.count()?;
    if header.index_count > count && !(reporter.open && header.index_count == 0) {
        let what = format!("indexCount is {}, the file has room up to {count}", header.index_count);
        reporter.tell(FindingKind::IndexHeader, &path, 36, what);
    }
    let mut faults = 0;
    let mut told = |at: u64, what: String, reporter: &mut Reporter<'_>| {
        faults += 1;
        if faults <= TOLD_ONE_BY_ONE {
            reporter.tell(FindingKind::IndexChain, &path, at, what);
        }
    };
    let mut newest = vec![0_u32; reader.slot_number() as usize];
    let (mut sorted, mut used) = (true, 0_u32);
    let (mut first, mut zeroes) = (None, Zeroes::default());
    for number in 1..count {
        let Some(entry) = reader.entry(number)? else { break };
        if is_zero(&entry) {
            zeroes.add(number);
            continue;
        }
        first.get_or_insert(entry.physical);
        sorted &= entry.physical >= *last;
        *last = entry.physical;
        let slot = reader.slot_of(entry.hash) as usize;
        if entry.previous != newest[slot] && !zeroes.contains(entry.previous) {
            let what = format!(
                "entry {number} leads to entry {}, the one before in its slot is {}",
                entry.previous, newest[slot]
            );
            told(reader.entry_at(number) + 16, what, reporter);
        }
        used += u32::from(newest[slot] == 0);
        newest[slot] = number;
    }
    for slot in 0..reader.slot_number() {
        let (Some(number), newest) = (reader.slot(slot)?, newest[slot as usize]) else { break };
        // Entries that came since the count was read are behind it.
        let since = reporter.open && number >= count;
        if number != newest && !zeroes.contains(number) && !since {
            let what = format!("slot {slot} leads to entry {number}, its newest is {newest}");
            told(IndexReader::slot_at(slot), what, reporter);
        }
    }
    if faults > TOLD_ONE_BY_ONE {
        let what = format!("{} more slots and entries lead where they should not", faults - TOLD_ONE_BY_ONE);
        reporter.tell(FindingKind::IndexChain, &path, 0, what);
    }
    for (from, to) in &zeroes.0 {
        let what = format!("entries {from} to {to} are unwritten");
        reporter.tell(FindingKind::IndexTarget, &path, reader.entry_at(*from), what);
        sorted = false;
    }
    if !reporter.open && count > 1 {
        check_header(&path, header, (first.unwrap_or(0), *last), (used, count - 1), reporter);
    }
    Ok(sorted)
}

/// `range`: the log offsets of the first and the last entry; `used`: slots in use, and entries.
fn check_header(path: &Path, header: &IndexHeader, range: (u64, u64), used: (u32, u32), reporter: &mut Reporter<'_>) {
    let mut tell = |at, what: String| reporter.tell(FindingKind::IndexHeader, path, at, what);
    if header.begin_timestamp > header.end_timestamp {
        tell(0, format!("beginTimestamp {} is behind endTimestamp {}", header.begin_timestamp, header.end_timestamp));
    }
    if header.begin_physical != range.0 {
        tell(16, format!("beginPhyOffset is {}, the first entry's is {}", header.begin_physical, range.0));
    }
    if header.end_physical != range.1 {
        tell(24, format!("endPhyOffset is {}, the last entry's is {}", header.end_physical, range.1));
    }
    // Before 4.5 every entry was counted.
    if header.slot_count != used.0 && header.slot_count != used.1 {
        tell(32, format!("hashSlotCount is {}, {} slots are in use", header.slot_count, used.0));
    }
}

/// Numbers of entries that are all zeroes, as ranges, both ends included.
#[derive(Debug, Default)]
struct Zeroes(Vec<(u32, u32)>);

impl Zeroes {
    fn add(&mut self, number: u32) {
        match self.0.last_mut() {
            Some((_, to)) if *to + 1 == number => *to = number,
            _ => self.0.push((number, number)),
        }
    }

    fn contains(&self, number: u32) -> bool {
        let at = self.0.partition_point(|(_, to)| *to < number);
        self.0.get(at).is_some_and(|(from, _)| *from <= number)
    }
}
