//! What of a consume queue's files is believed when it is opened: where its units end.
//!
//! May not: change files, but for bringing a short one to its length.

use super::{FILLER_SIZE, UNIT, Units, decode, is_message};
use crate::error::StoreError;
use crate::manifest::Held;
use crate::mapped_file::MappedFile;
use crate::mapped_file_queue::Layout;
use crate::unit_checksums::UnitChecksums;

/// Files at the end that recovery reads unit by unit without a manifest; of older ones it looks at both ends.
const FILES_READ_BY_RECOVERY: usize = 3;

/// Opens the files of a queue; `None` when they do not form one.
pub(super) fn load_files(layout: &Layout, found: &[(u64, u64)]) -> Result<Option<Vec<MappedFile>>, StoreError> {
    let file_size = layout.file_size;
    for (i, (start, size)) in found.iter().enumerate() {
        let last = i + 1 == found.len();
        let fits = *size == file_size || (last && *size < file_size);
        let follows = i == 0 || found[i - 1].0 + file_size == *start;
        if !fits || !follows || !start.is_multiple_of(file_size) {
            return Ok(None);
        }
    }
    let mut files = Vec::with_capacity(found.len());
    for (start, size) in found {
        let mut file = layout.open(*start);
        if *size != file_size {
            file.restore_len()?;
        }
        files.push(file);
    }
    Ok(Some(files))
}

/// The offset behind the last unit of files that form a queue of another file size, 0 of others. Its messages may have
/// expired, and then nothing else tells of it in a Java broker's store.
pub(super) fn end_of_other_size(layout: &Layout, found: &[(u64, u64)]) -> i64 {
    let Some((first, size)) = found.first().copied() else { return 0 };
    let start = |i: usize| (i as u64).checked_mul(size)?.checked_add(first);
    let is_next = |(i, file): (usize, &(u64, u64))| (start(i), size) == (Some(file.0), file.1);
    let is_size = size != layout.file_size && size > 0 && i32::try_from(size).is_ok() && size.is_multiple_of(UNIT);
    if !is_size || !first.is_multiple_of(size) || !found.iter().enumerate().all(is_next) {
        return 0;
    }
    let layout = Layout { file_size: size, ..layout.clone() };
    let end = found.iter().rev().find_map(|(start, _)| {
        let last = layout.open(*start).slice(0, size as usize)?.iter().rposition(|byte| *byte != 0)?;
        Some((start + last as u64) / UNIT + 1)
    });
    end.unwrap_or(first / UNIT) as i64
}

/// Whether the files hold all the units that the manifest speaks of, from the same first file on.
pub(super) fn covers(files: &[MappedFile], held: &Held) -> bool {
    let (first, end) = (held.first as u64 * UNIT, held.max as u64 * UNIT);
    let as_many = |file: &MappedFile| held.crcs.len() as u64 == (end - first).div_ceil(file.len() as u64);
    files.first().is_some_and(|f| f.start == first && first < end && as_many(f))
        && files.last().is_some_and(|f| end <= f.end())
}

/// The end of the units that the manifest speaks of, `None` when their checksums are not those noted there. Of a very
/// long queue only the newest `checked` bytes are looked at: to open a store must not take longer and longer.
pub(super) fn held_tail(files: &[MappedFile], held: &Held, checked: usize) -> Option<(Tail, Option<UnitChecksums>)> {
    let end = held.max as u64 * UNIT;
    let believed = held.crcs.len().saturating_sub(checked.div_ceil(files[0].len()).max(1));
    let mut sums = UnitChecksums::of_full(files[0].start, &held.crcs[..believed], files[0].len());
    for (file, crc) in files.iter().zip(&held.crcs).skip(believed) {
        let units = file.slice(0, file.len().min((end - file.start) as usize))?;
        sums.add(&units, file.len());
        if sums.of_files().last() != Some(crc) {
            return None;
        }
    }
    Some((Tail { end, max_physical: behind_newest_message(files, end)? }, Some(sums)))
}

/// The log offset behind the newest message of the units below queue byte `end`, 0 without one. Not the last unit's: the
/// manifest may have been written while the last ones were fillers, whose message was yet to be entered.
fn behind_newest_message(files: &[MappedFile], end: u64) -> Option<u64> {
    for file in files.iter().rev().filter(|file| file.start < end) {
        let units = file.slice(0, file.len().min((end - file.start) as usize))?;
        let newest = units.rchunks_exact(UNIT as usize).map(|unit| decode(unit, 0)).find(is_message);
        if let Some(newest) = newest {
            return Some(newest.offset.saturating_add(u64::from(newest.size)));
        }
    }
    Some(0)
}

/// The end of the files before the last ones. They are full: both ends of each must say so, in log order; `None`
/// when they do not.
pub(super) fn full_files_tail(files: &[MappedFile], log_end: u64) -> Option<Tail> {
    let full = files.len().saturating_sub(FILES_READ_BY_RECOVERY);
    let mut tail = Tail { end: files.first().map_or(0, |f| f.start), max_physical: 0 };
    let mut before = None;
    for file in &files[..full] {
        for at in [0, file.len() - UNIT as usize] {
            let unit = decode(&file.slice(at, at + UNIT as usize)?, 0);
            let behind = unit.offset.saturating_add(u64::from(unit.size));
            let misplaced = behind > log_end || before.is_some_and(|b| unit.offset < b);
            if unit.size == 0 || unit.size > FILLER_SIZE || (is_message(&unit) && misplaced) {
                return None;
            }
            if is_message(&unit) {
                before = Some(unit.offset);
                tail.max_physical = behind;
            }
        }
        tail.end = file.end();
    }
    Some(tail)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    /// Queue bytes that make sense.
    pub(super) end: u64,
    /// Log offset behind the newest message.
    pub(super) max_physical: u64,
}

/// Reads on from `tail` up to the first unit that is unwritten, out of order, or points behind the log.
pub(super) fn read_tail(files: &[MappedFile], mut tail: Tail, log_end: u64) -> Tail {
    let mut at = tail.end;
    let from = tail.end;
    for file in files.iter().filter(|f| f.end() > from) {
        let from = from.saturating_sub(file.start) as usize;
        let Some(bytes) = file.slice(from, file.len()) else { return tail };
        let units = Units { bytes: &bytes, next: 0 };
        for unit in units {
            let behind = unit.offset.saturating_add(u64::from(unit.size));
            at += UNIT;
            if is_message(&unit) && unit.offset >= tail.max_physical && behind <= log_end {
                // Fillers before it count with it.
                tail = Tail { end: at, max_physical: behind };
            } else if unit.size != FILLER_SIZE || unit.offset != 0 {
                return tail;
            }
        }
    }
    tail
}
