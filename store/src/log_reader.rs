//! Reads the commit log record by record, also past damage.
//!
//! Owns the rule by which messages are found again behind bytes that are none: a message says itself at which log
//! offset it lies, and its body has a checksum. May not: decide what damage means.

use std::ops::Range;

use memchr::memmem;

use crate::mapped_file::Slice;
use crate::mapped_file_queue::MappedFileQueue;
use crate::message::{self, Head, MAGIC_V1, MAGIC_V2, MessageView, decode_message};

/// What lies at a position of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Record<'a> {
    /// A message whose lengths add up and that belongs there; its body was not looked at.
    Message(MessageView<'a>),
    /// The blank record that ends a file, bytes.
    Blank(usize),
}

/// A position in the log.
#[derive(Debug)]
pub(crate) struct LogReader<'a> {
    files: &'a MappedFileQueue,
    /// Damage is passed over when messages follow that begin before this.
    past_damage: u64,
    /// Zeroes behind this are the end, not damage.
    written: u64,
    /// What was passed over, log offsets.
    damage: Vec<Range<u64>>,
    /// The published bytes of the file being read, and where it starts.
    file: Option<(u64, Slice)>,
    offset: u64,
}

impl<'a> LogReader<'a> {
    /// Reads from `offset` to the end of what the files publish, or the first bytes that are no record.
    pub(crate) fn new(files: &'a MappedFileQueue, offset: u64) -> Self {
        Self { files, past_damage: 0, written: 0, damage: Vec::new(), file: None, offset }
    }

    /// Does not stop at bytes that are no record when messages follow them that begin before log offset `end`.
    /// Zeroes from `written` on are the end all the same: a file is allocated in full, and to search all of it for
    /// messages takes long.
    pub(crate) fn past_damage_below(self, end: u64, written: u64) -> Self {
        Self { past_damage: end, written, ..self }
    }

    /// What was passed over, log offsets.
    pub(crate) fn into_damage(self) -> Vec<Range<u64>> {
        self.damage
    }

    /// Log offset behind the record that was read last.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record.
    pub(crate) fn next_record(&mut self) -> Option<Record<'_>> {
        let mut size = self.size_here();
        if size.is_none() && self.offset < self.past_damage && self.skip_to_next_message() {
            size = self.size_here();
        }
        let at = self.offset;
        self.offset += size?;
        self.record_at(at)
    }

    /// Bytes of the record at `offset`, if one is there.
    fn size_here(&mut self) -> Option<u64> {
        self.load();
        match self.record_at(self.offset)? {
            Record::Message(view) => Some(view.total_size.into()),
            Record::Blank(size) => Some(size as u64),
        }
    }

    /// The record at `offset`, which the loaded file holds.
    fn record_at(&self, offset: u64) -> Option<Record<'_>> {
        let (start, bytes) = self.file.as_ref()?;
        let rest = bytes.get(offset.checked_sub(*start)? as usize..)?;
        match message::head(rest) {
            Head::Message(_) => {
                let view = decode_message(rest).ok().filter(|view| view.physical_offset == offset)?;
                Some(Record::Message(view))
            }
            Head::Blank(size) if size as u64 == start + self.files.file_size() - offset => Some(Record::Blank(size)),
            Head::Blank(_) | Head::Short | Head::Bad => None,
        }
    }

    /// Makes `file` the one that holds `offset`.
    fn load(&mut self) {
        let size = self.files.file_size();
        if !self.file.as_ref().is_some_and(|(start, _)| (*start..start + size).contains(&self.offset)) {
            let file = self.files.find(self.offset);
            self.file = file.and_then(|file| Some((file.start, file.slice(0, file.published())?)));
        }
    }

    /// Goes to the next message behind bytes that are none: whole, with the right checksum, and saying of itself
    /// that it lies there. `false`, and no move, when there is none: then this is the end of the log.
    fn skip_to_next_message(&mut self) -> bool {
        let damaged = self.offset;
        let mut reader = LogReader::new(self.files, damaged);
        loop {
            reader.load();
            let Some((start, bytes)) = &reader.file else { return false };
            let file_end = start + self.files.file_size();
            let mut from = (reader.offset - start) as usize;
            if reader.offset == damaged {
                // A record that can take the place of the damage must fit.
                let least = bytes.get(from..from + message::ROLLED_BACK_MIN).unwrap_or_default();
                if damaged >= self.written && least.iter().all(|b| *b == 0) {
                    return false;
                }
                from += message::ROLLED_BACK_MIN;
            }
            let rest = bytes.get(from..).unwrap_or_default();
            if let Some(found) = next_message(rest, start + from as u64) {
                if found >= self.past_damage {
                    return false;
                }
                tracing::error!(
                    offset = damaged,
                    bytes = found - damaged,
                    "no messages, passed over: the log is damaged"
                );
                self.damage.push(damaged..found);
                self.offset = found;
                return true;
            }
            reader.offset = file_end;
        }
    }
}

/// Log offset of the first good message in `bytes`, which begin at log offset `at`.
fn next_message(bytes: &[u8], at: u64) -> Option<u64> {
    let good = |magic_at: usize| {
        let start = magic_at.checked_sub(message::AT_MAGIC)?;
        let view = decode_message(&bytes[start..]).ok()?;
        (view.physical_offset == at + start as u64 && view.crc_matches()).then_some(view.physical_offset)
    };
    let first = |magic: u32| memmem::find_iter(bytes, &magic.to_be_bytes()).find_map(good);
    [MAGIC_V1, MAGIC_V2].into_iter().filter_map(first).min()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::Disk;
    use crate::hot_files::HotFiles;
    use crate::mapped_file::Allocation;
    use crate::mapped_file_queue::Layout;
    use crate::message::{NewMessage, encode, patch};

    const FILE: u64 = 1000;

    fn layout(dir: &Path) -> Layout {
        Layout {
            dir: dir.to_owned(),
            file_size: FILE,
            allocation: Allocation::Full,
            disk: Disk::default(),
            hot: HotFiles::new(2),
        }
    }

    fn open(dir: &Path) -> MappedFileQueue {
        let layout = layout(dir);
        let files = [0, FILE, 2 * FILE].map(|start| layout.open(start)).into();
        MappedFileQueue::new(layout, files)
    }

    /// Three files of four messages of 200 to 203 bytes and a blank record each.
    fn files(dir: &Path) -> (MappedFileQueue, Vec<u64>) {
        let mut offsets = Vec::new();
        for start in [0, FILE, 2 * FILE] {
            let mut bytes = Vec::new();
            for i in 0..4 {
                let body = vec![b'x'; 108 + i];
                let m = NewMessage { body: &body, ..NewMessage::sample() };
                let at = bytes.len();
                encode(&m, false, &mut bytes).unwrap();
                patch(&mut bytes[at..], 0, start + at as u64, 5);
                offsets.push(start + at as u64);
            }
            bytes.extend_from_slice(&(FILE as u32 - bytes.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&message::MAGIC_BLANK.to_be_bytes());
            bytes.resize(FILE as usize, 0);
            std::fs::write(layout(dir).path(start), bytes).unwrap();
        }
        (open(dir), offsets)
    }

    fn read(files: &MappedFileQueue) -> Vec<u64> {
        let mut reader = LogReader::new(files, 0).past_damage_below(u64::MAX, u64::MAX);
        let mut found = Vec::new();
        while let Some(record) = reader.next_record() {
            if let Record::Message(view) = record {
                found.push(view.physical_offset);
            }
        }
        found
    }

    #[test]
    fn a_damaged_byte_costs_one_message_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (_, offsets) = files(dir.path());
        let path = layout(dir.path()).path(FILE);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            for flip in [0x01, 0x80] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                std::fs::write(&path, bytes).unwrap();
                let found = read(&open(dir.path()));
                let hit = offsets.iter().rposition(|o| *o <= FILE + at as u64).unwrap();
                let lost: Vec<u64> = offsets.iter().filter(|o| !found.contains(o)).copied().collect();
                assert!(lost.is_empty() || lost == [offsets[hit]], "byte {at}: lost {lost:?}");
            }
        }
    }

    #[test]
    fn the_end_is_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (all, offsets) = files(dir.path());
        assert_eq!(read(&all), offsets);
        let mut reader = LogReader::new(&all, 3 * FILE).past_damage_below(u64::MAX, u64::MAX);
        assert!(reader.next_record().is_none());
        assert_eq!(reader.offset(), 3 * FILE);
    }
}
