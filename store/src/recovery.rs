//! Brings a store up after a clean stop or a crash.
//!
//! What the manifest proves to be on disk is not read again, however long it is. The rest of the log is read: from
//! the message the manifest names or, without a manifest (a Java broker's store), from the third-last file (clean
//! stop) or the file the checkpoint names (crash). Bytes that are no message are damage when messages follow that are
//! known to be on disk: they are replaced by a record that every reader passes over, and kept aside. Otherwise they
//! were being written when the power went: they end the log, and it is cut there with its queues.
//!
//! Then everything behind that start is dispatched again; queues and index that turn out damaged, short or missing
//! are dispatched from the log's first file. Derived files never keep the store from opening. May not: run while
//! anything else writes.

mod queue_order;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::allocate::Allocator;
use crate::checkpoint::Timestamps;
use crate::commit_log::{CommitLog, store_timestamp_of};
use crate::config::StoreConfig;
use crate::consume_queue::{ConsumeQueue, Push};
use crate::consume_queues::ConsumeQueues;
use crate::core::LastDispatched;
use crate::disk::Disk;
use crate::dispatcher::Dispatch;
use crate::error::StoreError;
use crate::hot_files::HotFiles;
use crate::index::{HeldIndex, Index, Trusted};
use crate::index_file::IndexShape;
use crate::log_reader::{LogReader, Record};
use crate::manifest::Manifest;
use crate::mapped_file::{Allocation, MappedFile};
use crate::mapped_file_queue::{Layout, MappedFileQueue};
use crate::message::{self, MessageView, decode_message, sys_flag};
use crate::properties::DispatchProperties;
use crate::recovery::queue_order::{Place, QueueOrder};
use crate::stats::Counters;
use crate::topic_deletion;

/// Files at the end that a clean start without manifest reads again.
const FILES_READ: usize = 3;
/// Log files that stay mapped: the one written, the ones before it, and those that slow consumers read.
const MAPPED_LOG_FILES: usize = 16;
/// Queue files that stay mapped; the kernel's own limit for a process is 65,530 mappings of all kinds.
const MAPPED_QUEUE_FILES: usize = 16_384;

/// How the store was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastStop {
    /// No `abort` file: everything was flushed.
    Clean,
    /// The process or the machine went down.
    Crash,
}

/// What the small files of the store say of the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) last_stop: LastStop,
    /// Everything below was on disk, see [`crate::flushed_mark`].
    pub(crate) flushed: u64,
    pub(crate) checkpoint: Timestamps,
}

/// What recovery hands to the store.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log: CommitLog,
    pub(crate) queues: ConsumeQueues,
    pub(crate) index: Option<Index>,
    /// Everything below is on disk; behind it the page cache may hold what the disk does not.
    pub(crate) durable: u64,
    pub(crate) last_dispatched: Option<LastDispatched>,
    /// See [`Manifest::deleted`].
    pub(crate) deleted: BTreeMap<String, u64>,
    /// See [`Manifest::unchecked`].
    pub(crate) unchecked: Option<Range<u64>>,
    /// See [`Manifest::compared_last`].
    pub(crate) compared_last: Option<String>,
}

/// See the module.
pub(crate) fn recover(
    config: &StoreConfig,
    disk: &Disk,
    found: Found,
    counters: &Counters,
) -> Result<Recovered, StoreError> {
    let last_stop = found.last_stop;
    let layout = Layout {
        dir: config.commit_log_dir(),
        file_size: config.mapped_file_size_commit_log,
        allocation: Allocation::Full,
        disk: disk.clone(),
        hot: HotFiles::new(MAPPED_LOG_FILES),
    };
    let (files, cut_at) = open_log_files(&layout)?;
    if files.is_empty() && found.checkpoint.physic > 0 {
        let checkpoint = config.store_path_root_dir.join("checkpoint");
        return Err(StoreError::NoLog { dir: layout.dir, checkpoint, until: found.checkpoint.physic });
    }
    let files = MappedFileQueue::new(layout, files);
    let manifest = Manifest::load(&config.store_path_root_dir, disk);
    // Of a file that was cut later the manifest proves nothing, whatever its checksums say of the bodies.
    let is_whole = |m: &&Manifest| cut_at.is_none_or(|cut| m.dispatched <= cut);
    let proven = manifest.as_ref().filter(is_whole).and_then(|m| proven_tail(&files, m));
    let read_from = proven.unwrap_or_else(|| {
        let safe = found.checkpoint.safe(config.message_index_safe);
        Tail::at(start_without_manifest(&files, last_stop, safe))
    });
    let written = found.flushed.max(proven.map_or(0, |tail| tail.end));
    let flushed = if last_stop == LastStop::Clean { u64::MAX } else { written };
    let durable = flushed.min(cut_at.unwrap_or(u64::MAX));
    let known = Known { flushed, durable, written };
    let (tail, damage) = read_log(&files, read_from, config.check_crc_on_recover, known);
    if tail.end < written {
        tracing::error!(
            end = tail.end,
            written,
            "the commit log ends before what was on disk: its newest messages are gone"
        );
    }
    let files = mend_log(files, &damage, config, disk)?;
    let files = cut_log(files, tail.end, config, disk)?;
    let timestamp = tail.last.map_or(0, |last| last.timestamp);
    let log = CommitLog::new(files, Allocator::new(config.warm_mapped_file_enable), tail.end, timestamp);
    tracing::info!(?last_stop, from = read_from.end, end = tail.end, "commit log recovered");

    let layout = Layout {
        dir: config.consume_queue_dir(),
        file_size: config.consume_queue_file_size(),
        allocation: Allocation::OnDemand,
        disk: disk.clone(),
        hot: HotFiles::new(MAPPED_QUEUE_FILES),
    };
    let proven_manifest = manifest.as_ref().filter(|_| proven.is_some());
    let noted = proven_manifest.map(|manifest| (manifest, config.derived_checked_at_open));
    let (queues, damaged) = ConsumeQueues::recover(layout, tail.end, last_stop, noted)?;
    let shape = IndexShape { slots: config.max_hash_slot_num, entries: config.max_index_num };
    let index = config
        .message_index_enable
        .then(|| {
            let trusted = trusted_index(found, manifest.as_ref());
            let held = proven_manifest.map_or_else(HeldIndex::default, |m| HeldIndex {
                files: &m.index,
                is_final: last_stop == LastStop::Clean && m.dispatched == tail.end,
                checked: config.derived_checked_at_open,
            });
            Index::recover(config.index_dir(), shape, tail.end, trusted, held, disk.clone())
        })
        .transpose()?;
    // Notes of another log say nothing.
    let deleted = proven_manifest.map_or_else(BTreeMap::new, |m| m.deleted.clone());
    topic_deletion::finish(&queues, &deleted)?;
    let from = dispatch_start(&log, read_from.end, manifest.as_ref(), &queues, index.as_ref(), !damaged.is_empty())?;
    let dispatch =
        Dispatch { queues: &queues, index: index.as_ref(), delay_levels: &config.message_delay_levels, counters };
    redispatch(&log, dispatch, from, last_stop, &deleted)?;
    settle_queues(&log, &queues, manifest.as_ref());
    let durable = durable.clamp(log.min_offset(), tail.end);
    let unchecked = unchecked(&log, last_stop, proven_manifest);
    let compared_last = manifest.and_then(|manifest| manifest.compared_last);
    Ok(Recovered { log, queues, index, durable, last_dispatched: tail.last, deleted, unchecked, compared_last })
}

/// The log that queues and index are yet to be compared with. What was dispatched by another broker, or before anything
/// was noted, was read by recovery in part only.
fn unchecked(log: &CommitLog, last_stop: LastStop, manifest: Option<&Manifest>) -> Option<Range<u64>> {
    let (min, end) = (log.min_offset(), log.end());
    let left = manifest.and_then(|manifest| manifest.unchecked);
    let (from, to) = match (manifest, last_stop) {
        (None, _) => (min, end),
        (Some(manifest), LastStop::Clean) if manifest.dispatched < end => {
            (left.map_or(manifest.dispatched, |(from, _)| from), end)
        }
        (Some(_), _) => left?,
    };
    Some(from.max(min)..to.min(end)).filter(|range| !range.is_empty())
}

/// Opens the log's files, all published to their ends. A short file among the last ones was torn when it was created
/// or cut later: it is brought to its size, and reading it finds its end. Also returns where the first such file ended.
fn open_log_files(layout: &Layout) -> Result<(Vec<MappedFile>, Option<u64>), StoreError> {
    let found = layout.scan()?;
    let file_size = layout.file_size;
    let is_torn = |i: usize, size: u64| size < file_size && i + FILES_READ >= found.len();
    let mut expected = found.first().map(|(start, _)| *start);
    // All are looked at before one is changed: opened with another size set, the store is to open again with the right one.
    for (i, (start, size)) in found.iter().enumerate() {
        let path = layout.path(*start);
        if (*size != file_size && !is_torn(i, *size)) || !start.is_multiple_of(file_size) {
            return Err(StoreError::WrongFileSize { path, size: *size, expected: file_size });
        }
        if let Some(expected) = expected
            && expected != *start
        {
            return Err(StoreError::MissingFile { path, expected });
        }
        expected = Some(start + file_size);
    }
    let mut files = Vec::with_capacity(found.len());
    let mut cut_at = None;
    for (i, (start, size)) in found.iter().enumerate() {
        let mut file = layout.open(*start);
        if is_torn(i, *size) {
            file.restore_len()?;
            cut_at = cut_at.or(Some(start + size));
        }
        files.push(file);
    }
    Ok((files, cut_at))
}

/// Up to where the log was read, or need not be.
#[derive(Debug, Clone, Copy)]
struct Tail {
    end: u64,
    last: Option<LastDispatched>,
}

impl Tail {
    fn at(end: u64) -> Self {
        Self { end, last: None }
    }
}

/// The end that the manifest names, if the log still has the message before it: then it is the log the manifest
/// was written for, and everything below was on disk.
fn proven_tail(files: &MappedFileQueue, manifest: &Manifest) -> Option<Tail> {
    let last = manifest.last_message?;
    let mut reader = LogReader::new(files, last);
    let Some(Record::Message(view)) = reader.next_record() else { return None };
    let tail = LastDispatched { offset: last, end: last + u64::from(view.total_size), timestamp: view.store_timestamp };
    (tail.end == manifest.dispatched && view.crc_matches()).then_some(Tail { end: tail.end, last: Some(tail) })
}

/// Start of the file from which the log is read.
fn start_without_manifest(files: &MappedFileQueue, last_stop: LastStop, safe_timestamp: i64) -> u64 {
    let files = files.all();
    let first = match last_stop {
        LastStop::Clean => files.len().saturating_sub(FILES_READ),
        // The newest file whose first message was stored when everything was on disk.
        LastStop::Crash => {
            let stored_before = |file: &std::sync::Arc<MappedFile>| {
                let bytes = file.slice(0, file.len());
                bytes.and_then(|b| store_timestamp_of(&b)).is_some_and(|t| t > 0 && t <= safe_timestamp)
            };
            files.iter().rposition(stored_before).unwrap_or(0)
        }
    };
    files.get(first).map_or(0, |f| f.start)
}

/// Log offsets up to which something is known.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Everything below was on disk once.
    flushed: u64,
    /// And no file was cut below since.
    durable: u64,
    /// This much is known to have been written: zeroes behind it are the end.
    written: u64,
}

/// Reads messages from `from` on, and says where the log ends and what of it is damaged. Below `flushed` everything was
/// on disk once, so messages behind damage count. Behind `durable` (also: behind where a file was cut) the last message
/// may lack its end: the CRC covers the body only, so properties that end in the zeroes of an unwritten page are taken
/// as unwritten.
fn read_log(files: &MappedFileQueue, from: Tail, check_crc: bool, known: Known) -> (Tail, Vec<Range<u64>>) {
    let mut tail = from;
    let mut before_last = from;
    let mut last_ends_in_zero = false;
    let mut reader = LogReader::new(files, from.end).past_damage_below(known.flushed, known.written);
    while let Some(record) = reader.next_record() {
        let mut last = tail.last;
        let mut ends_in_zero = false;
        if let Record::Message(view) = record {
            let offset = view.physical_offset;
            if check_crc && !view.crc_matches() {
                tracing::error!(offset, topic = view.topic, "CRC mismatch");
                if offset >= known.flushed {
                    break;
                }
            }
            let end = offset + u64::from(view.total_size);
            let timestamp = last.map_or(view.store_timestamp, |last| last.timestamp.max(view.store_timestamp));
            last = Some(LastDispatched { offset, end, timestamp });
            ends_in_zero = view.properties.last() == Some(&0);
        }
        before_last = tail;
        last_ends_in_zero = ends_in_zero;
        tail = Tail { end: reader.offset(), last };
    }
    let torn = last_ends_in_zero && tail.end > known.durable;
    (if torn { before_last } else { tail }, reader.into_damage())
}

/// Replaces damage, which begins and ends at records, by one record of the same length that no reader looks into: a
/// rolled back message, or the blank record where nothing good follows in the file. What was there is kept in
/// `<root>/damaged`.
fn mend_log(
    files: MappedFileQueue,
    damage: &[Range<u64>],
    config: &StoreConfig,
    disk: &Disk,
) -> Result<MappedFileQueue, StoreError> {
    let (layout, mut files) = files.into_parts();
    for range in damage {
        for file in files.iter_mut().filter(|f| f.start < range.end && range.start < f.end()) {
            let from = range.start.max(file.start);
            let (at, to) = ((from - file.start) as usize, (range.end.min(file.end()) - file.start) as usize);
            let Some(bytes) = file.slice(at, to).map(|bytes| bytes.to_vec()) else { continue };
            keep_aside(&bytes, from, config, disk)?;
            let record = match file.slice(to, file.len()).and_then(|next| store_timestamp_of(&next)) {
                Some(timestamp) => message::rolled_back(&bytes, from, timestamp)?,
                None => message::blank(bytes.len()),
            };
            file.replace(at, &record)?;
        }
    }
    Ok(MappedFileQueue::new(layout, files))
}

fn keep_aside(bytes: &[u8], offset: u64, config: &StoreConfig, disk: &Disk) -> Result<(), StoreError> {
    let dir = config.store_path_root_dir.join("damaged");
    disk.create_dir(&dir)?;
    let path = MappedFile::path_in(&dir, offset);
    tracing::error!(offset, bytes = bytes.len(), kept = %path.display(), "the commit log is damaged and is mended");
    let file = disk.open(&path)?;
    disk.write_at(&file, &path, 0, bytes)?;
    disk.sync_file(&file, &path)?;
    disk.sync_dir(&dir)
}

/// Cuts the log at `end`. Whole files behind it that hold anything are moved to `<root>/cut`, not deleted.
fn cut_log(files: MappedFileQueue, end: u64, config: &StoreConfig, disk: &Disk) -> Result<MappedFileQueue, StoreError> {
    let (layout, mut files) = files.into_parts();
    while files.last().is_some_and(|f| f.start >= end && f.start > files[0].start) {
        let Some(file) = files.pop() else { break };
        if file.slice(0, 8).is_some_and(|head| head[..] == [0; 8]) {
            disk.remove(file.path())?;
        } else {
            let aside = config.store_path_root_dir.join("cut");
            tracing::error!(file = %file.path().display(), "not a continuation of the log, moved to {}", aside.display());
            disk.create_dir(&aside)?;
            disk.rename(file.path(), &MappedFile::path_in(&aside, file.start))?;
            disk.sync_dir(&aside)?;
        }
        disk.sync_dir(&layout.dir)?;
    }
    if let Some(last) = files.last_mut()
        && end < last.end()
    {
        // All its blocks must be there: writing to a mapped hole on a full disk kills.
        last.restore_blocks()?;
        // Old bytes behind the end could pass for messages after the next crash.
        last.truncate((end - last.start) as usize)?;
    }
    // A file may be there whose making failed before its name was durable.
    disk.sync_dir(&layout.dir)?;
    Ok(MappedFileQueue::new(layout, files))
}

/// What of the index is believed: after a crash what the manifest or, of a Java broker's store, the checkpoint says
/// was on disk (`IndexService.load`).
fn trusted_index(found: Found, manifest: Option<&Manifest>) -> Trusted {
    match (found.last_stop, manifest) {
        (LastStop::Clean, _) => Trusted::ALL,
        (LastStop::Crash, Some(manifest)) => {
            manifest.index_end.map_or(Trusted { offset: 0, timestamp: -1 }, |offset| Trusted { offset, ..Trusted::ALL })
        }
        (LastStop::Crash, None) => Trusted { timestamp: found.checkpoint.index, ..Trusted::ALL },
    }
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
        let indexed = index.map_or(read_from, |index| index.end_physical().unwrap_or(all));
        return Ok(if queues.all().is_empty() { all } else { read_from.min(indexed).max(all) });
    };
    let log_was_cut = manifest.dispatched > log.end();
    let mut incomplete = false;
    for (topic, queue_id, held) in manifest.held().filter(|(_, _, held)| held.max > 0) {
        let queue = queues.find(topic, queue_id);
        let max = queue.as_ref().map_or(0, |q| q.max_offset());
        // Expired with the log, most likely: the messages that are still there tell.
        let late = queue.is_some_and(|q| q.first_unit() > held.first);
        if max == 0 || late || (max < held.max && !log_was_cut) {
            tracing::warn!(%topic, queue_id, ?held, max, "consume queue entries are missing, all are dispatched again");
            incomplete = true;
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
fn redispatch(
    log: &CommitLog,
    dispatch: Dispatch<'_>,
    from: u64,
    last_stop: LastStop,
    deleted: &BTreeMap<String, u64>,
) -> Result<(), StoreError> {
    let all = log.min_offset();
    let is_deleted = |m: &MessageView<'_>| deleted.get(m.topic).is_some_and(|end| m.physical_offset < *end);
    let indexed = dispatch.index.and_then(Index::end_physical);
    let mut again_from_all = false;
    let mut reset = BTreeSet::new();
    let mut enqueue = |m: &MessageView<'_>| {
        // What was reset waits for the second walk, which begins with its first message.
        if !reset.is_empty() && reset.contains(&(m.topic.to_owned(), m.queue_id)) {
            return Ok(());
        }
        match dispatch.enqueue(m, &DispatchProperties::scan(m.properties), from == all)? {
            Some((Push::Gap(_), _)) => again_from_all = true,
            Some((push @ (Push::Lost | Push::Known | Push::Conflict), _)) => {
                let queue = dispatch.queues.find(m.topic, m.queue_id);
                if let Some(queue) = queue.filter(|queue| push == Push::Lost || !is_known(log, queue, m)) {
                    queue.reset()?;
                    reset.insert((m.topic.to_owned(), m.queue_id));
                    again_from_all = true;
                }
            }
            _ => {}
        }
        Ok(())
    };
    walk_queues(log, dispatch.queues, from, is_deleted, &mut enqueue, |m| {
        // A crash may have come between two keys of the newest indexed message; twice does no harm there.
        let again = |indexed| m.physical_offset == indexed && last_stop == LastStop::Crash;
        if indexed.is_none_or(|indexed| m.physical_offset > indexed || again(indexed)) {
            dispatch.index(m, &DispatchProperties::scan(m.properties))?;
        }
        Ok(())
    })?;
    if again_from_all {
        tracing::warn!("consume queues lack messages, all are dispatched again");
        let mut enqueue =
            |m: &MessageView<'_>| dispatch.enqueue(m, &DispatchProperties::scan(m.properties), true).map(|_| ());
        walk_queues(log, dispatch.queues, all, is_deleted, &mut enqueue, |_| Ok(()))?;
    }
    Ok(())
}

/// Visits every message from `from`, and hands those to `enqueue`, in the order of their queues, that are not deleted
/// and whose queue offset is believed.
fn walk_queues(
    log: &CommitLog,
    queues: &ConsumeQueues,
    from: u64,
    is_deleted: impl Fn(&MessageView<'_>) -> bool,
    enqueue: &mut dyn FnMut(&MessageView<'_>) -> Result<(), StoreError>,
    mut visit: impl FnMut(&MessageView<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut order = QueueOrder::default();
    walk(log, from, |m| {
        visit(m)?;
        if is_deleted(m) || !sys_flag::enters_queue(m.sys_flag) {
            return Ok(());
        }
        let place = Place { queue_offset: m.queue_offset, physical: m.physical_offset };
        let last = || {
            let queue = queues.find(m.topic, m.queue_id).filter(|q| q.max_physical() <= m.physical_offset)?;
            Some(queue.max_offset() - 1).filter(|last| *last >= 0)
        };
        let verdict = order.next(m.topic, m.queue_id, place, last);
        if let Some(damaged) = verdict.damaged {
            tracing::error!(topic = m.topic, queue_id = m.queue_id, ?damaged, "the queue offset is damaged");
        }
        if let Some(before) = verdict.before {
            enqueue_at(log, before, enqueue)?;
        }
        if verdict.itself { enqueue(m) } else { Ok(()) }
    })?;
    for rest in order.finish() {
        for place in &rest.believed {
            enqueue_at(log, *place, enqueue)?;
        }
        if rest.next_offset > 0 {
            tracing::warn!(?rest, "the queue's last message does not follow the one before it");
            queues.find_or_create(&rest.topic, rest.queue_id).settle_next_offset(rest.next_offset);
        }
    }
    Ok(())
}

fn enqueue_at(
    log: &CommitLog,
    place: Place,
    enqueue: &mut dyn FnMut(&MessageView<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let Some(unit) = log.unit_at(place.physical) else { return Ok(()) };
    decode_message(&unit).map_or(Ok(()), |m| enqueue(&m))
}

/// Whether a queue that passed over a message is right: the unit in its place is its own, or that of another message
/// (the topic was deleted and made again). A damaged unit is of no message.
fn is_known(log: &CommitLog, queue: &ConsumeQueue, m: &MessageView<'_>) -> bool {
    let unit = queue.entry(m.queue_offset).or_else(|| queue.entry(queue.max_offset() - 1));
    unit.is_none_or(|unit| {
        let place = (m.topic, m.queue_id, unit.queue_offset, unit.size);
        let is_there = |v: MessageView<'_>| (v.topic, v.queue_id, v.queue_offset, v.total_size) == place;
        (unit.offset, unit.size) == (m.physical_offset, m.total_size)
            || log.unit_at(unit.offset).is_some_and(|bytes| decode_message(&bytes).is_ok_and(is_there))
    })
}

/// Visits every message from `from`, which is the start of one.
fn walk(
    log: &CommitLog,
    from: u64,
    mut visit: impl FnMut(&MessageView<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut reader = LogReader::new(&log.files, from).past_damage_below(u64::MAX, u64::MAX);
    while let Some(record) = reader.next_record() {
        if let Record::Message(view) = record {
            visit(&view)?;
        }
    }
    Ok(())
}

/// Gives each queue its range. No offset is given out twice: not even those of messages that the log lost.
fn settle_queues(log: &CommitLog, queues: &ConsumeQueues, manifest: Option<&Manifest>) {
    for (topic, queue_id, held) in manifest.into_iter().flat_map(Manifest::held) {
        queues.find_or_create(topic, queue_id).settle_next_offset(held.next.max(held.max));
    }
    let min = log.min_offset();
    for queue in queues.all() {
        queue.settle_next_offset(0);
        queue.correct_min(min);
    }
}
