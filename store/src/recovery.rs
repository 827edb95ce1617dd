//! Brings a store up after a clean stop or a crash.
//!
//! The log is read from the third-last file (clean stop) or from the file the checkpoint names (crash); the first
//! bytes that are no message end it, and log and queues are cut there. Then everything behind that start is
//! dispatched again; queues and index that turn out damaged, short or missing are dispatched from the log's first
//! file. Derived files never keep the store from opening. May not: run while anything else writes.

use std::fs;
use std::path::Path;

use crate::allocate::Allocator;
use crate::checkpoint::Timestamps;
use crate::commit_log::{CommitLog, store_timestamp_of};
use crate::config::StoreConfig;
use crate::config_file::sync_dir;
use crate::consume_queue::Push;
use crate::consume_queues::ConsumeQueues;
use crate::dispatcher::Dispatch;
use crate::error::StoreError;
use crate::index::Index;
use crate::index_file::IndexShape;
use crate::manifest::Manifest;
use crate::mapped_file::{Allocation, MappedFile};
use crate::mapped_file_queue::{MappedFileQueue, remove_if_there};
use crate::message::{self, Head, MessageView, decode_message};
use crate::stats::Counters;

/// Files at the end that a clean start reads again.
const FILES_READ: usize = 3;

/// How the store was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastStop {
    /// No `abort` file: everything was flushed.
    Clean,
    /// The process or the machine went down.
    Crash,
}

/// What recovery hands to the store.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log: CommitLog,
    pub(crate) queues: ConsumeQueues,
    pub(crate) index: Option<Index>,
}

/// See the module.
pub(crate) fn recover(
    config: &StoreConfig,
    last_stop: LastStop,
    checkpoint: Timestamps,
    counters: &Counters,
) -> Result<Recovered, StoreError> {
    let dir = config.commit_log_dir();
    let (files, short) = open_log_files(&dir, config.mapped_file_size_commit_log)?;
    let torn = short || last_stop == LastStop::Crash;
    let first = match last_stop {
        LastStop::Clean => files.len().saturating_sub(FILES_READ),
        LastStop::Crash => crash_start(&files, checkpoint.safe(config.message_index_safe)),
    };
    let start = files.get(first).map_or(0, |f| f.start);
    let tail = read_log(&files[first..], start, config.check_crc_on_recover, torn);
    let files = cut_log(files, tail.end, &config.store_path_root_dir)?;
    let files = MappedFileQueue::new(dir, config.mapped_file_size_commit_log, Allocation::Full, files);
    let log = CommitLog::new(files, Allocator::new(config.warm_mapped_file_enable), tail.end, tail.store_timestamp);
    tracing::info!(?last_stop, from = start, end = tail.end, "commit log recovered");

    let (queues, damaged) =
        ConsumeQueues::recover(&config.consume_queue_dir(), config.consume_queue_file_size(), tail.end)?;
    let shape = IndexShape { slots: config.max_hash_slot_num, entries: config.max_index_num };
    let index = config
        .message_index_enable
        .then(|| Index::recover(config.index_dir(), shape, tail.end, last_stop == LastStop::Crash))
        .transpose()?;
    let manifest = Manifest::load(&config.store_path_root_dir);
    let from = dispatch_start(&log, start, manifest.as_ref(), &queues, index.as_ref(), !damaged.is_empty())?;
    let dispatch =
        Dispatch { queues: &queues, index: index.as_ref(), delay_levels: &config.message_delay_levels, counters };
    redispatch(&log, dispatch, from, last_stop)?;
    let min = log.min_offset();
    for queue in queues.all() {
        queue.settle_next_offset();
        queue.correct_min(min);
    }
    Ok(Recovered { log, queues, index })
}

/// Maps the log's files, all published to their ends. A short file among the last ones was torn when it was created
/// or cut later: it is brought to its size, and reading it finds its end. The flag says that there was one.
fn open_log_files(dir: &Path, file_size: u64) -> Result<(Vec<MappedFile>, bool), StoreError> {
    let found = MappedFileQueue::scan(dir)?;
    let mut expected = found.first().map(|(start, _)| *start);
    for (i, (start, size)) in found.iter().enumerate() {
        let path = MappedFile::path_in(dir, *start);
        let torn = *size < file_size && i + FILES_READ >= found.len();
        if (*size != file_size && !torn) || !start.is_multiple_of(file_size) {
            return Err(StoreError::WrongFileSize { path, size: *size, expected: file_size });
        }
        if let Some(expected) = expected
            && expected != *start
        {
            return Err(StoreError::MissingFile { path, expected });
        }
        expected = Some(start + file_size);
    }
    let open = |start: u64| MappedFile::open(dir, start, file_size as usize, Allocation::Full);
    let files: Result<_, _> = found.iter().map(|(start, _)| open(*start)).collect();
    Ok((files?, found.iter().any(|(_, size)| *size < file_size)))
}

/// The newest file whose first message was stored when everything was on disk; else the first file.
fn crash_start(files: &[MappedFile], safe_timestamp: i64) -> usize {
    let stored_before = |file: &MappedFile| {
        let bytes = file.slice(0, file.len()).unwrap_or_default();
        store_timestamp_of(bytes).is_some_and(|t| t > 0 && t <= safe_timestamp)
    };
    files.iter().rposition(stored_before).unwrap_or(0)
}

#[derive(Clone, Copy)]
struct Tail {
    end: u64,
    store_timestamp: i64,
}

/// Reads messages until something is none. With `torn` writes the last message may lack its end: the CRC covers the
/// body only, so properties that end in the zeroes of an unwritten page are taken as unwritten.
fn read_log(files: &[MappedFile], start: u64, check_crc: bool, torn: bool) -> Tail {
    let mut tail = Tail { end: start, store_timestamp: 0 };
    let mut before_last = tail;
    let mut last_ends_in_zero = false;
    'files: for file in files {
        let bytes = file.slice(0, file.len()).unwrap_or_default();
        let mut at = 0;
        while at < bytes.len() {
            let offset = file.start + at as u64;
            let (size, timestamp, ends_in_zero) = match message::head(&bytes[at..]) {
                Head::Message(size) => {
                    let Ok(view) = decode_message(&bytes[at..]) else { break 'files };
                    if view.physical_offset != offset {
                        break 'files;
                    }
                    if check_crc && !view.crc_matches() {
                        tracing::error!(offset, topic = view.topic, "CRC mismatch");
                        // Without torn writes this is rot: the messages behind it are good.
                        if torn {
                            break 'files;
                        }
                    }
                    (size, view.store_timestamp, view.properties.last() == Some(&0))
                }
                Head::Blank(size) if at + size == bytes.len() => (size, 0, false),
                Head::Blank(_) | Head::Short | Head::Bad => break 'files,
            };
            before_last = tail;
            last_ends_in_zero = ends_in_zero;
            at += size;
            tail = Tail { end: file.start + at as u64, store_timestamp: tail.store_timestamp.max(timestamp) };
        }
    }
    if torn && last_ends_in_zero { before_last } else { tail }
}

/// Cuts the log at `end`. Whole files behind it that hold anything are moved to `<root>/cut`, not deleted.
fn cut_log(mut files: Vec<MappedFile>, end: u64, root: &Path) -> Result<Vec<MappedFile>, StoreError> {
    while files.last().is_some_and(|f| f.start >= end && f.start > files[0].start) {
        let Some(file) = files.pop() else { break };
        if file.slice(0, 8) == Some(&[0; 8]) {
            remove_if_there(file.path())?;
        } else {
            let aside = root.join("cut");
            tracing::error!(file = %file.path().display(), "not a continuation of the log, moved to {}", aside.display());
            fs::create_dir_all(&aside).map_err(|e| StoreError::io("create", &aside, e))?;
            let to = MappedFile::path_in(&aside, file.start);
            fs::rename(file.path(), &to).map_err(|e| StoreError::io("move to", &to, e))?;
        }
        if let Some(dir) = file.path().parent() {
            sync_dir(dir)?;
        }
    }
    if let Some(last) = files.last_mut()
        && end < last.end()
    {
        // Old bytes behind the end could pass for messages after the next crash.
        last.truncate((end - last.start) as usize)?;
    }
    Ok(files)
}

/// From where the log is dispatched again.
fn dispatch_start(
    log: &CommitLog,
    read_from: u64,
    manifest: Option<&Manifest>,
    queues: &ConsumeQueues,
    index: Option<&Index>,
    damaged: bool,
) -> Result<u64, StoreError> {
    let all = log.min_offset();
    if damaged {
        return Ok(all);
    }
    let Some(manifest) = manifest else {
        // A Java broker's store, or ours killed young: without any queue nothing was ever dispatched.
        return Ok(if queues.all().is_empty() { all } else { read_from });
    };
    let log_was_cut = manifest.dispatched > log.end();
    let mut incomplete = false;
    for (topic, queue_id, held) in
        manifest.queues.iter().flat_map(|(topic, queues)| queues.iter().map(move |(id, held)| (topic, *id, *held)))
    {
        let queue = queues.find(topic, queue_id);
        let max = queue.as_ref().map_or(0, |q| q.max_offset());
        let late = queue.filter(|q| q.first_unit() > held.first);
        if max == 0 || late.is_some() || (max < held.max && !log_was_cut) {
            tracing::warn!(%topic, queue_id, ?held, max, "consume queue entries are missing, all are dispatched again");
            incomplete = true;
        }
        if let Some(queue) = late {
            queue.reset()?;
        }
    }
    if incomplete {
        return Ok(all);
    }
    if let Some(index) = index {
        let lost_files = index.file_count() < manifest.index_files;
        let lost_entries = index.end_physical() < manifest.index_end && !log_was_cut;
        if lost_files {
            tracing::warn!("index files are missing, all messages are indexed again");
            index.clear()?;
            return Ok(all);
        }
        if lost_entries {
            tracing::warn!("index entries are missing, messages are indexed again");
            return Ok(index.end_physical().map_or(all, |end| end.max(all)).min(read_from));
        }
    }
    Ok(read_from.min(manifest.dispatched).max(all))
}

/// Dispatches everything from `from`; when that shows that a queue lacks older entries, everything.
fn redispatch(log: &CommitLog, dispatch: Dispatch<'_>, from: u64, last_stop: LastStop) -> Result<(), StoreError> {
    let all = log.min_offset();
    let indexed = dispatch.index.and_then(Index::end_physical);
    let mut gaps = false;
    walk(log, from, |m| {
        match dispatch.enqueue(m, from == all)? {
            Some((Push::Gap(_), _)) => gaps = true,
            Some((Push::Lost, _)) => {
                dispatch.queues.find_or_create(m.topic, m.queue_id).reset()?;
                gaps = true;
                // From here on it is filled like a queue that is new.
                dispatch.enqueue(m, from == all)?;
            }
            _ => {}
        }
        // A crash may have come between two keys of the newest indexed message; twice does no harm there.
        let again = |indexed| m.physical_offset == indexed && last_stop == LastStop::Crash;
        if indexed.is_none_or(|indexed| m.physical_offset > indexed || again(indexed)) {
            dispatch.index(m)?;
        }
        Ok(())
    })?;
    if gaps {
        tracing::warn!("consume queues have gaps, all messages are dispatched again");
        walk(log, all, |m| dispatch.enqueue(m, true).map(|_| ()))?;
    }
    Ok(())
}

/// Visits every message from `from`, which is the start of one.
fn walk(
    log: &CommitLog,
    from: u64,
    mut visit: impl FnMut(&MessageView<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut offset = from;
    while let Some((file, at, readable)) = log.locate(offset) {
        let bytes: &[u8] = file.slice(at, readable).unwrap_or_default();
        match message::head(bytes) {
            Head::Message(size) => {
                if let Ok(view) = decode_message(bytes) {
                    visit(&view)?;
                }
                offset += size as u64;
            }
            Head::Blank(size) => offset += size as u64,
            Head::Short | Head::Bad => {
                // Rot in a file that recovery does not read: what is behind it in this file cannot be found.
                tracing::error!(offset, "not a message, the rest of the file is passed over");
                offset = file.end();
            }
        }
    }
    Ok(())
}
