//! Makes a damaged consume queue file or index file anew from the log, while the store is in use.
//!
//! The new file is made beside the old one and takes its name, so that a reader sees the one or the other, and a crash
//! leaves the one or the other. Owns the rule by which a unit's message is found again: the log is read between the
//! queue's units before and behind that are right. May not: decide what is damaged, or change the log.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::consume_queue::{ConsumeQueue, FILLER_SIZE, UNIT, decode, encode};
use crate::core::Core;
use crate::error::StoreError;
use crate::index::Index;
use crate::index_file::IndexFile;
use crate::log_reader::{LogReader, Record};
use crate::mapped_file::MappedFile;
use crate::message::{MessageView, decode_message, sys_flag};
use crate::properties::{DispatchProperties, SCHEDULE_TOPIC};
use crate::results::QueueEntry;

/// Units before or behind that are looked at for one that is right.
const NEIGHBOURS: i64 = 1000;
/// Log bytes in which a reader looks for the message of a damaged unit: as long as it may wait.
const FOUND_AGAIN_WITHIN: u64 = 64 << 20;
const READ_AT_ONCE: usize = 64 << 10;

/// Whether to go on after so many bytes were read; it may wait first.
pub(crate) type GoOn<'a> = &'a mut dyn FnMut(usize) -> bool;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mended {
    /// It was made anew: units that are others now, or entries.
    Changed(u64),
    /// The log says nothing else than the file.
    Unchanged,
    /// It is gone: expired, or its topic was deleted.
    Gone,
    /// Asked not to go on.
    Stopped,
}

/// Directory in which files are made before they take their names. Not beside them: RocketMQ takes all that lies
/// there for its own.
fn aside(core: &Core) -> PathBuf {
    core.config.store_path_root_dir.join("mending")
}

/// Deletes what a crash has left half made.
pub(crate) fn clear_aside(core: &Core) {
    let dir = aside(core);
    for left in core.disk.list(&dir).unwrap_or_default() {
        if let Err(error) = core.disk.remove(&dir.join(left.name)) {
            tracing::warn!(%error, "a half made file is left");
        }
    }
}

/// Whether a unit points to the message of its place. The tags code of a delayed message is a time that depends on the
/// settings of its day, and is believed.
pub(crate) fn is_right(core: &Core, queue: &ConsumeQueue, unit: &QueueEntry) -> bool {
    let Some(bytes) = core.log.unit_at(unit.offset) else { return false };
    let Ok(m) = decode_message(&bytes) else { return false };
    is_in_place(core, queue, &m, unit.queue_offset)
        && m.total_size == unit.size
        && (m.topic == SCHEDULE_TOPIC || tags_code(core, &m) == unit.tags_code)
}

fn is_in_place(core: &Core, queue: &ConsumeQueue, m: &MessageView<'_>, queue_offset: i64) -> bool {
    (m.topic, m.queue_id, m.queue_offset) == (&*queue.topic, queue.queue_id, queue_offset) && is_queued(core, m)
}

/// Whether a message belongs to a queue.
pub(crate) fn is_queued(core: &Core, m: &MessageView<'_>) -> bool {
    sys_flag::enters_queue(m.sys_flag) && core.deleted.lock().get(m.topic).is_none_or(|end| m.physical_offset >= *end)
}

/// The unit of a message.
pub(crate) fn unit_of(core: &Core, m: &MessageView<'_>) -> QueueEntry {
    QueueEntry {
        queue_offset: m.queue_offset,
        offset: m.physical_offset,
        size: m.total_size,
        tags_code: tags_code(core, m),
    }
}

fn tags_code(core: &Core, m: &MessageView<'_>) -> i64 {
    let found = DispatchProperties::scan(m.properties);
    found.tags_code(m.topic, m.store_timestamp, &core.config.message_delay_levels)
}

/// The log between the messages of the nearest right units before and behind these offsets of a queue.
fn between(core: &Core, queue: &ConsumeQueue, offsets: Range<i64>) -> Range<u64> {
    let first = queue.min_offset().max(offsets.start - NEIGHBOURS);
    let last = queue.max_offset().min(offsets.end + NEIGHBOURS);
    let mut right = |offset| queue.unit(offset).filter(|unit| is_right(core, queue, unit));
    let from = (first..offsets.start).rev().find_map(&mut right);
    let to = (offsets.end..last).find_map(&mut right);
    let min = core.log.min_offset();
    from.map_or(min, |unit| unit.offset + u64::from(unit.size)).max(min)
        ..to.map_or_else(|| core.dispatched.load(Ordering::Acquire), |unit| unit.offset)
}

/// Visits the messages that begin in the range, which begins with a record. Returns the log offset behind the last record,
/// before the range's end when `go_on` said so; an error when the log cannot be read to there.
pub(crate) fn walk(
    core: &Core,
    range: Range<u64>,
    go_on: GoOn<'_>,
    visit: &mut dyn FnMut(&MessageView<'_>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let log = &core.log;
    let mut reader = LogReader::new(&log.files, range.start).past_damage_below(u64::MAX, u64::MAX);
    while reader.offset() < range.end {
        let before = reader.offset();
        match reader.next_record() {
            Some(Record::Message(m)) if m.physical_offset < range.end => visit(&m)?,
            Some(_) => {}
            None => {
                let min = log.min_offset();
                if min <= before {
                    let ended = io::Error::other(format!("nothing can be read from {before} on"));
                    return Err(StoreError::io("read", &core.config.commit_log_dir(), ended));
                }
                // It expired meanwhile.
                reader = LogReader::new(&log.files, min).past_damage_below(u64::MAX, u64::MAX);
            }
        }
        if !go_on((reader.offset() - before) as usize) {
            break;
        }
    }
    Ok(reader.offset())
}

/// The entry that belongs into the place of a unit that is not right, where the log near by has its message.
pub(crate) fn found_again(core: &Core, queue: &ConsumeQueue, queue_offset: i64) -> Option<QueueEntry> {
    let range = between(core, queue, queue_offset..queue_offset + 1);
    if range.end.saturating_sub(range.start) > FOUND_AGAIN_WITHIN {
        return None;
    }
    let mut found = None;
    let walked = walk(core, range, &mut |_| true, &mut |m| {
        if is_in_place(core, queue, m, queue_offset) {
            found = Some(unit_of(core, m));
        }
        Ok(())
    });
    found.filter(|_| walked.is_ok())
}

/// Compares the units of a file with the log, and makes it anew when they differ.
pub(crate) fn queue_file(
    core: &Core,
    queue: &ConsumeQueue,
    file: &Arc<MappedFile>,
    go_on: GoOn<'_>,
) -> Result<Mended, StoreError> {
    let mut units = read_units(core, file);
    let unit_at = |at: usize, raw: &[u8]| decode(raw, (file.start / UNIT) as i64 + at as i64);
    let first = (file.start / UNIT) as i64;
    let offsets = first..first + (units.len() as u64 / UNIT) as i64;
    let range = between(core, queue, offsets.clone());
    let mut changed = BTreeSet::new();
    let end = range.end;
    let walked_to = walk(core, range, go_on, &mut |m| {
        if !offsets.contains(&m.queue_offset) || !is_in_place(core, queue, m, m.queue_offset) {
            return Ok(());
        }
        let at = (m.queue_offset - first) as usize;
        let raw = &mut units[at * UNIT as usize..][..UNIT as usize];
        let (is, ought) = (unit_at(at, raw), unit_of(core, m));
        // Of two messages for one place the log's last one counts, unless the unit is right: its topic was made again.
        if is != ought && (changed.contains(&at) || !is_right(core, queue, &is) || is.offset == ought.offset) {
            raw.copy_from_slice(&encode(&ought));
            changed.insert(at);
        }
        Ok(())
    })?;
    if walked_to < end {
        return Ok(Mended::Stopped);
    }
    if changed.is_empty() {
        // As right as the log allows: the next start need not look for what is not there.
        queue.believe_units(file, &units);
        return Ok(Mended::Unchanged);
    }
    if !queue.replace_units(file, units, &aside(core))? {
        return Ok(Mended::Gone);
    }
    // It is found by the units.
    queue.correct_min(core.log.min_offset());
    Ok(Mended::Changed(changed.len() as u64))
}

/// The units of a file. What the disk does not give is taken for offsets without message.
fn read_units(core: &Core, file: &MappedFile) -> Vec<u8> {
    let filler = encode(&QueueEntry { queue_offset: 0, offset: 0, size: FILLER_SIZE, tags_code: 0 });
    let len = file.published();
    let mut units: Vec<u8> = filler.iter().copied().cycle().take(len).collect();
    let mut piece = vec![0; READ_AT_ONCE];
    for at in (0..len).step_by(READ_AT_ONCE) {
        let to = len.min(at + READ_AT_ONCE);
        let piece = &mut piece[..to - at];
        match core.disk.read_at(file.path(), at as u64, piece) {
            Ok(read) => units[at..at + read].copy_from_slice(&piece[..read]),
            Err(error) => tracing::error!(%error, at, "part of a consume queue file cannot be read"),
        }
    }
    units
}

/// Makes an index file anew.
pub(crate) fn index_file(
    core: &Core,
    index: &Index,
    old: &Arc<IndexFile>,
    go_on: GoOn<'_>,
) -> Result<Mended, StoreError> {
    let new = index.make_aside(old, &aside(core))?;
    let mended = fill_and_replace(core, index, old, &new, go_on);
    if !matches!(mended, Ok(Mended::Changed(_))) {
        core.disk.remove(new.path())?;
    }
    mended
}

fn fill_and_replace(
    core: &Core,
    index: &Index,
    old: &Arc<IndexFile>,
    new: &IndexFile,
    go_on: GoOn<'_>,
) -> Result<Mended, StoreError> {
    let files = index.files();
    let Some(number) = files.iter().position(|file| Arc::ptr_eq(file, old)) else { return Ok(Mended::Gone) };
    // The last message of the file before may have some of its keys here, and so may the first one of the file behind.
    let (from, mut skipped) = match number.checked_sub(1) {
        Some(before) => end_of(&files[before])?,
        None => (0, 0),
    };
    let split = from;
    let from = from.max(core.log.min_offset());
    let behind = files.get(number + 1).map(|behind| first_of(behind)).transpose()?.flatten();
    let mut add = |new: &IndexFile, m: &MessageView<'_>| {
        if !sys_flag::is_indexed(m.sys_flag) {
            return Ok(());
        }
        for key in DispatchProperties::scan(m.properties).index_keys() {
            if skipped > 0 && split == m.physical_offset {
                skipped -= 1;
            } else if !Index::put_aside(new, m.topic, key, m.physical_offset, m.store_timestamp)?
                && behind != Some(m.physical_offset)
            {
                let no_room = io::Error::other("it has no room for all keys of its messages");
                return Err(StoreError::io("rebuild", old.path(), no_room));
            }
        }
        Ok(())
    };
    let to = |physical: u64| core.log.unit_at(physical).map_or(physical + 1, |unit| physical + unit.len() as u64);
    let mut done = to(behind.unwrap_or_else(|| old.end_physical()));
    if walk(core, from..done, go_on, &mut |m| add(new, m))? < done {
        return Ok(Mended::Stopped);
    }
    let replaced = index.replace(old, new, &mut |new| {
        let end = to(old.end_physical());
        if behind.is_none() && end > done {
            walk(core, done..end, &mut |_| true, &mut |m| add(new, m))?;
            done = end;
        }
        Ok(())
    })?;
    Ok(if replaced { Mended::Changed(u64::from(new.count()) - 1) } else { Mended::Gone })
}

/// Log offset of a file's last message, and how many entries that has there; the lower offset where header and entry
/// differ.
fn end_of(file: &IndexFile) -> Result<(u64, usize), StoreError> {
    let noted = file.end_physical();
    Ok(file
        .ends()?
        .map_or((0, 0), |ends| if ends.last == noted { (noted, ends.of_last) } else { (noted.min(ends.last), 0) }))
}

/// Log offset of a file's first message; the later one that makes sense, where header and entry differ.
fn first_of(file: &IndexFile) -> Result<Option<u64>, StoreError> {
    let first = file.ends()?.map(|ends| ends.first);
    Ok(first.map(|first| if *first.end() <= file.end_physical() { *first.end() } else { *first.start() }))
}
