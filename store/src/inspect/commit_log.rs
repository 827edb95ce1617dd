//! Reads a commit log from its files: record by record in order, or one message by its offset.
//!
//! A record is a message whose head says that it lies where it lies, or the blank record that ends a file. What is
//! neither is passed over up to the next record, and reported. May not: judge bodies; the CRC is the caller's.

use std::io;
use std::path::{Path, PathBuf};

use super::segment::{SegmentFile, Window, segment_files};
use crate::error::StoreError;
use crate::message::{
    self, AT_PHYSICAL_OFFSET, AT_SYS_FLAG, BLANK_MIN, Head, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, MessageView, UNIT_MIN,
    decode_message, read_i32, read_u32, read_u64, store_timestamp_at, sys_flag,
};

/// Bytes read at once in order, and for one message.
const CHUNK: usize = 1 << 20;
const CHUNK_OF_LOOKUP: usize = 4 << 10;
/// Enough for every field before the body, IPv6 hosts included.
const FIXED_MAX: usize = UNIT_MIN + 24;
/// Most bytes behind the body: two lengths of two bytes and what they can say.
const BEHIND_BODY_MAX: usize = 2 * (2 + u16::MAX as usize);

/// What lies in the log.
#[derive(Debug, Clone)]
pub enum Record<'a> {
    /// A message.
    Message(MessageView<'a>),
    /// The record that fills the end of a file.
    Blank {
        /// Its log offset.
        offset: u64,
        /// Its bytes, up to the file's end.
        size: u64,
    },
    /// Bytes that are no record.
    PassedOver(PassedOver),
}

/// Bytes of one file that are no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The file.
    pub path: PathBuf,
    /// Log offset of the file's first byte.
    pub file_start: u64,
    /// Log offset of the first byte passed over.
    pub from: u64,
    /// Log offset behind the last byte passed over.
    pub to: u64,
    /// Why no record begins at `from`.
    pub reason: String,
    /// No record follows, in this file or a later one: a torn end, or one that is being written.
    pub at_end: bool,
}

/// Reads a log in order.
#[derive(Debug)]
pub struct LogReader {
    files: Vec<SegmentFile>,
    file: usize,
    offset: u64,
    window: Option<Window>,
    ended: bool,
}

impl LogReader {
    /// Lists the files of the log; reading begins with the first.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let (files, _) = segment_files(dir)?;
        let offset = files.first().map_or(0, |f| f.start);
        Ok(Self { files, file: 0, offset, window: None, ended: false })
    }

    /// The files as they were listed.
    pub fn files(&self) -> &[SegmentFile] {
        &self.files
    }

    /// Offset of the log's first byte.
    pub fn begin(&self) -> u64 {
        self.files.first().map_or(0, |f| f.start)
    }

    /// Log offset behind the last record that was given out; at the end of reading: up to where the log was seen.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at a log offset, which need not be a record's: then what lies before the next one is passed over.
    pub fn seek(&mut self, offset: u64) {
        self.file = self.files.partition_point(|f| f.end() <= offset);
        self.offset = self.files.get(self.file).map_or(offset, |f| f.start.max(offset));
        self.ended = false;
        self.window = None;
    }

    /// The next record; `None` at the end of the log.
    pub fn advance(&mut self) -> Result<Option<Record<'_>>, StoreError> {
        loop {
            if self.ended || !self.enter_file() {
                return Ok(None);
            }
            match self.probe_here() {
                Ok(Probe::Message(size)) => return self.message(size).map(Some),
                Ok(Probe::Blank(size)) => {
                    let offset = self.offset;
                    self.offset += size;
                    return Ok(Some(Record::Blank { offset, size }));
                }
                Ok(Probe::Nothing(reason)) => {
                    if let Some(passed) = self.pass_over(reason)? {
                        return Ok(Some(Record::PassedOver(passed)));
                    }
                }
                // The file was deleted by retention since it was listed.
                Err(e) if is_gone(&e) && self.file + 1 < self.files.len() => self.seek(self.files[self.file].end()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes `window` that of the file that holds `offset`; `false` behind the last one.
    fn enter_file(&mut self) -> bool {
        while let Some(file) = self.files.get(self.file) {
            if self.offset < file.end() {
                if self.window.as_ref().is_none_or(|w| w.path() != file.path) {
                    self.window = Some(Window::new(&file.path, CHUNK));
                }
                return true;
            }
            self.file += 1;
            // A file may be missing in between.
            if let Some(next) = self.files.get(self.file) {
                self.offset = next.start;
            }
        }
        false
    }

    fn probe_here(&mut self) -> Result<Probe, StoreError> {
        match (&mut self.window, self.files.get(self.file)) {
            (Some(window), Some(file)) => probe(window, file, self.offset),
            _ => Ok(Probe::Nothing(String::new())),
        }
    }

    fn message(&mut self, size: usize) -> Result<Record<'_>, StoreError> {
        let Self { files, file, offset, window, .. } = self;
        let (start, at) = (files[*file].start, *offset);
        *offset += size as u64;
        let window = window.get_or_insert_with(|| Window::new(&files[*file].path, CHUNK));
        // The probe has just decoded these very bytes.
        match decode_message(window.get(at - start, size)?) {
            Ok(view) => Ok(Record::Message(view)),
            Err(e) => Err(StoreError::io("read", &files[*file].path, io::Error::other(e))),
        }
    }

    /// Finds the next record behind bytes that are none. `None` when there is nothing to report: the log ends here,
    /// or what was not there a moment ago is there now.
    fn pass_over(&mut self, reason: String) -> Result<Option<PassedOver>, StoreError> {
        let (index, from) = (self.file, self.offset);
        let file = self.files[index].clone();
        let next = find_record(&file, from + 1)?;
        let follows = match next {
            Some(_) => true,
            None => self.any_record_from(index + 1)?,
        };
        let to = match next {
            Some(next) => Some(next),
            None if follows => Some(file.end()),
            // Files are allocated ahead: zeroes to the end are no part of the log.
            None => last_written(&file, from)?.map(|last| last + 1),
        };
        // All this took a while: a running broker may have written the record since.
        if let Some(window) = &mut self.window {
            window.forget();
        }
        if !matches!(self.probe_here()?, Probe::Nothing(_)) {
            return Ok(None);
        }
        self.ended = !follows;
        let Some(to) = to else { return Ok(None) };
        if follows {
            self.offset = to;
        }
        Ok(Some(PassedOver { path: file.path, file_start: file.start, from, to, reason, at_end: !follows }))
    }

    fn any_record_from(&self, index: usize) -> Result<bool, StoreError> {
        for file in self.files.get(index..).unwrap_or_default() {
            if find_record(file, file.start)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Finds single messages by their offset.
#[derive(Debug)]
pub struct LogLookup {
    files: Vec<SegmentFile>,
    window: Option<Window>,
}

impl LogLookup {
    /// Lists the files of the log.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { files: segment_files(dir)?.0, window: None })
    }

    /// The message that begins at `offset`; `None` when none does.
    pub fn message_at(&mut self, offset: u64) -> Result<Option<MessageView<'_>>, StoreError> {
        let at = self.files.partition_point(|f| f.end() <= offset);
        let Some(file) = self.files.get(at).filter(|f| f.start <= offset) else { return Ok(None) };
        if self.window.as_ref().is_none_or(|w| w.path() != file.path) {
            self.window = None;
        }
        let window = self.window.get_or_insert_with(|| Window::new(&file.path, CHUNK_OF_LOOKUP));
        let size = match probe(window, file, offset) {
            Ok(Probe::Message(size)) => size,
            Ok(_) => {
                window.forget();
                return Ok(None);
            }
            Err(e) if is_gone(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(decode_message(window.get(offset - file.start, size)?).ok())
    }
}

/// Whether the file is not there (any more).
pub(crate) fn is_gone(e: &StoreError) -> bool {
    matches!(e, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

enum Probe {
    Message(usize),
    Blank(u64),
    /// No record, and why.
    Nothing(String),
}

/// What begins at a log offset of a file. No more than the fields before the body is read of what turns out to be none.
fn probe(window: &mut Window, file: &SegmentFile, offset: u64) -> Result<Probe, StoreError> {
    let at = offset - file.start;
    let left = file.len - at;
    let bytes = window.get(at, FIXED_MAX)?;
    let size = match message::head(bytes) {
        Head::Message(size) => size,
        Head::Blank(size) if size as u64 == left => return Ok(Probe::Blank(left)),
        Head::Blank(size) => {
            return Ok(nothing(format!("a blank record of {size} bytes, {left} are left in the file")));
        }
        Head::Short => return Ok(nothing("fewer than 8 bytes are left in the file".to_owned())),
        Head::Bad if bytes.iter().all(|b| *b == 0) => return Ok(nothing("zeroes".to_owned())),
        Head::Bad => {
            let (size, magic) = (read_u32(bytes, 0), read_u32(bytes, BLANK_MIN - 4));
            return Ok(nothing(format!("size {size} with magic {magic:#010x} is the head of no record")));
        }
    };
    if size as u64 > left {
        return Ok(nothing(format!("a message of {size} bytes, {left} are left in the file")));
    }
    if let Some(reason) = implausible(bytes, size, offset) {
        return Ok(nothing(reason));
    }
    Ok(match decode_message(window.get(at, size)?) {
        Ok(_) => Probe::Message(size),
        Err(e) => nothing(e.to_string()),
    })
}

fn nothing(reason: String) -> Probe {
    Probe::Nothing(reason)
}

/// Why the head of a message cannot be right, by the fields before its body.
fn implausible(bytes: &[u8], size: usize, offset: u64) -> Option<String> {
    if bytes.len() < UNIT_MIN.min(size) {
        return Some("the file ends inside the message".to_owned());
    }
    let own = read_u64(bytes, AT_PHYSICAL_OFFSET);
    if own != offset {
        return Some(format!("a message that says it lies at log offset {own}"));
    }
    let flags = read_i32(bytes, AT_SYS_FLAG);
    let host = if flags & sys_flag::STORE_HOST_V6 == 0 { 8 } else { 20 };
    // storeTimestamp 8, storeHost, reconsumeTimes 4, preparedTransactionOffset 8, bodyLength 4
    let body_length_at = store_timestamp_at(flags) + 8 + host + 12;
    if bytes.len() < body_length_at + 4 {
        return Some("the message is shorter than its fields".to_owned());
    }
    let body = read_u32(bytes, body_length_at) as usize;
    let behind = size.checked_sub(body_length_at + 4).and_then(|rest| rest.checked_sub(body));
    if behind.is_none_or(|behind| behind > BEHIND_BODY_MAX) {
        return Some(format!("a message of {size} bytes with a body of {body}"));
    }
    None
}

/// The next record of a file at or behind a log offset.
fn find_record(file: &SegmentFile, from: u64) -> Result<Option<u64>, StoreError> {
    let (mut window, mut candidate) = (Window::new(&file.path, CHUNK), Window::new(&file.path, CHUNK_OF_LOOKUP));
    let mut offset = from.max(file.start);
    while offset < file.end() {
        let bytes = window.get(offset - file.start, CHUNK)?;
        if bytes.len() < BLANK_MIN {
            return Ok(None);
        }
        let last = bytes.len() - BLANK_MIN;
        let mut at = 0;
        while at <= last {
            // Unwritten space is long.
            if bytes[at..].len() >= 4096 && bytes[at..at + 4096].iter().all(|b| *b == 0) {
                at += 4096 - BLANK_MIN + 1;
                continue;
            }
            let until = (at + 4096 - BLANK_MIN).min(last);
            for here in at..=until {
                let magic = bytes[here + 4];
                if (magic == MAGIC_V1.to_be_bytes()[0] || magic == MAGIC_BLANK.to_be_bytes()[0])
                    && matches!(read_u32(bytes, here + 4), MAGIC_V1 | MAGIC_V2 | MAGIC_BLANK)
                    && !matches!(probe(&mut candidate, file, offset + here as u64)?, Probe::Nothing(_))
                {
                    return Ok(Some(offset + here as u64));
                }
            }
            at = until + 1;
        }
        offset += last as u64 + 1;
    }
    Ok(None)
}

/// Log offset of the last byte of a file at or behind `from` that is not zero.
fn last_written(file: &SegmentFile, from: u64) -> Result<Option<u64>, StoreError> {
    let mut window = Window::new(&file.path, CHUNK);
    let (mut offset, mut last) = (from, None);
    while offset < file.end() {
        let bytes = window.get(offset - file.start, CHUNK)?;
        if bytes.is_empty() {
            break;
        }
        if let Some(at) = bytes.iter().rposition(|b| *b != 0) {
            last = Some(offset + at as u64);
        }
        offset += bytes.len() as u64;
    }
    Ok(last)
}
