//! Pending messages by the time of their delivery: the near ones in memory, the rest in files.
//!
//! A slot is ten minutes of delivery times and one append-only file `timerslots/<begin in ms>` of
//! records of 20 bytes, big-endian: `i64` delivery time (ms) | `i64` queue offset, times two, plus 1
//! for a deletion | `u32` CRC-32 of the files' generation and the two. A slot is read into memory
//! when it is less than ten minutes away, so memory holds at most twenty minutes of messages, 16
//! bytes each, and what came since the files were written last.
//!
//! Files are never synced: how many records are good stands in the progress file, a record that a
//! power cut tore has a wrong check sum, and whoever finds one builds all slots anew from the log.
//! May not look at messages.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::progress::{Position, SlotsManifest};

/// Milliseconds of a slot.
pub(super) const SLOT_MS: i64 = 600_000;
/// Bytes of a record.
pub(super) const RECORD: usize = 20;

/// A pending message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) at: Position,
    /// It deletes another one.
    pub(super) deletes: bool,
}

/// A pending message of a known time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) queue_offset: i64,
    pub(super) deletes: bool,
}

/// One slot's file and what is to be written to it.
#[derive(Debug, Default)]
struct Slot {
    written: u64,
    unwritten: Vec<Pending>,
}

/// All pending messages.
#[derive(Debug)]
pub(super) struct Slots {
    dir: PathBuf,
    generation: i64,
    /// By the slot's begin; also those that were read into memory, until all of them is delivered.
    by_begin: BTreeMap<i64, Slot>,
    /// Messages in memory, by delivery time.
    near: BTreeMap<i64, Vec<Due>>,
    near_count: usize,
    far_count: u64,
    /// Slots that begin before are in `near`.
    near_until_ms: i64,
    /// Slots that end here or before are over; a message that comes late for one joins the next.
    over_until_ms: i64,
    /// Slots that are over and whose files are still there.
    over: Vec<i64>,
}

/// Files that are not what the progress file says they are: build anew from the log.
#[derive(Debug, thiserror::Error)]
#[error("slot file {}: {reason}", path.display())]
pub(super) struct SlotDamage {
    path: PathBuf,
    reason: String,
}

impl Slots {
    /// No messages; files of before are removed.
    pub(super) fn empty(dir: &Path, generation: i64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let slots = Self {
            dir: dir.to_owned(),
            generation,
            by_begin: BTreeMap::new(),
            near: BTreeMap::new(),
            near_count: 0,
            far_count: 0,
            near_until_ms: i64::MIN,
            over_until_ms: 0,
            over: Vec::new(),
        };
        slots.remove_others()?;
        Ok(slots)
    }

    /// The messages of the files. Contents are checked when they are read.
    pub(super) fn open(dir: &Path, manifest: &SlotsManifest) -> Result<Self, SlotDamage> {
        let damage = |path: &Path, error: &io::Error| SlotDamage { path: path.to_owned(), reason: error.to_string() };
        fs::create_dir_all(dir).map_err(|error| damage(dir, &error))?;
        let mut slots = Self {
            dir: dir.to_owned(),
            generation: manifest.generation,
            by_begin: BTreeMap::new(),
            near: BTreeMap::new(),
            near_count: 0,
            far_count: 0,
            near_until_ms: i64::MIN,
            over_until_ms: manifest.over_until_ms,
            over: Vec::new(),
        };
        for (begin, count) in &manifest.counts {
            let path = slots.path(*begin);
            let wanted = count.saturating_mul(RECORD as u64);
            let length = fs::metadata(&path).map_err(|error| damage(&path, &error))?.len();
            if length < wanted {
                return Err(SlotDamage { path, reason: format!("it has {length} bytes, {wanted} were written") });
            }
            slots.by_begin.insert(*begin, Slot { written: *count, unwritten: Vec::new() });
            slots.far_count += count;
        }
        slots.remove_others().map_err(|error| damage(dir, &error))?;
        Ok(slots)
    }

    fn path(&self, begin: i64) -> PathBuf {
        self.dir.join(begin.to_string())
    }

    /// Removes files of no slot. What is no file of ours stays; a directory that has a slot's name gets another.
    fn remove_others(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let begin = entry.file_name().to_str().and_then(|name| name.parse::<i64>().ok());
            if let Some(begin) = begin.filter(|begin| !self.by_begin.contains_key(begin)) {
                if entry.file_type()?.is_dir() {
                    fs::rename(entry.path(), self.dir.join(format!("{begin}.aside")))?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Messages that are pending, deletions among them.
    pub(super) fn len(&self) -> u64 {
        self.far_count + self.near_count as u64
    }

    /// Messages held in memory.
    #[cfg(test)]
    pub(super) fn in_memory(&self) -> usize {
        self.near_count + self.by_begin.values().map(|slot| slot.unwritten.len()).sum::<usize>()
    }

    /// The number of these files.
    pub(super) fn generation(&self) -> i64 {
        self.generation
    }

    /// Adds a message, whatever its time.
    pub(super) fn insert(&mut self, pending: Pending) {
        let begin = slot_begin(pending.at.due_ms).max(self.over_until_ms);
        self.by_begin.entry(begin).or_default().unwritten.push(pending);
        if begin < self.near_until_ms { self.insert_near(pending) } else { self.far_count += 1 }
    }

    fn insert_near(&mut self, pending: Pending) {
        let due = Due { queue_offset: pending.at.queue_offset, deletes: pending.deletes };
        self.near.entry(pending.at.due_ms).or_default().push(due);
        self.near_count += 1;
    }

    /// Reads the slots that are near at `now`, and all up to `delivered_ms`, but for the messages that
    /// are done with. Whoever marks messages up to there as delivered must know what is left of them,
    /// also where the clock was set back.
    pub(super) fn read_near(
        &mut self,
        now: i64,
        delivered_ms: i64,
        is_past: impl Fn(&Pending) -> bool,
    ) -> Result<(), SlotDamage> {
        let until = slot_begin(now.max(0)) + 2 * SLOT_MS;
        // Slot `over_until_ms` holds what came late.
        let until =
            until.max(slot_begin(delivered_ms.max(0)) + SLOT_MS).max(self.over_until_ms.saturating_add(SLOT_MS));
        if until <= self.near_until_ms {
            return Ok(());
        }
        let begins: Vec<i64> = self.by_begin.range(self.near_until_ms..until).map(|(begin, _)| *begin).collect();
        for begin in begins {
            let records = self.read_file(begin)?;
            let slot = &self.by_begin[&begin];
            self.far_count = self.far_count.saturating_sub(slot.written + slot.unwritten.len() as u64);
            let pending: Vec<Pending> =
                records.into_iter().chain(slot.unwritten.iter().copied()).filter(|pending| !is_past(pending)).collect();
            for pending in pending {
                self.insert_near(pending);
            }
        }
        self.near_until_ms = until;
        Ok(())
    }

    fn read_file(&self, begin: i64) -> Result<Vec<Pending>, SlotDamage> {
        let written = self.by_begin[&begin].written as usize;
        if written == 0 {
            return Ok(Vec::new());
        }
        let path = self.path(begin);
        let damage = |reason: String| SlotDamage { path: path.clone(), reason };
        let mut bytes = Vec::with_capacity(written * RECORD);
        File::open(&path)
            .and_then(|file| file.take((written * RECORD) as u64).read_to_end(&mut bytes))
            .map_err(|error| damage(error.to_string()))?;
        let (records, _) = bytes.as_chunks::<RECORD>();
        if records.len() < written {
            return Err(damage(format!("it has {} records, {written} were written", records.len())));
        }
        let read = records.iter().map(|record| decode(record, self.generation)).collect::<Option<Vec<_>>>();
        read.ok_or_else(|| damage("a record's check sum is wrong".to_owned()))
    }

    /// The earliest message in memory that is no deletion; the place before it where there are only
    /// deletions.
    pub(super) fn first(&self) -> Option<Position> {
        let (due_ms, slot) = self.near.first_key_value()?;
        let offset = slot.iter().filter(|due| !due.deletes).map(|due| due.queue_offset).min();
        Some(Position { due_ms: *due_ms, queue_offset: offset.unwrap_or(i64::MAX) })
    }

    /// Takes out all messages of the earliest time that has come, by queue offset.
    pub(super) fn take_due(&mut self, now: i64) -> Option<(i64, Vec<Due>)> {
        let entry = self.near.first_entry().filter(|entry| *entry.key() <= now)?;
        let (due_ms, mut slot) = entry.remove_entry();
        self.near_count -= slot.len();
        slot.sort_unstable();
        Some((due_ms, slot))
    }

    /// Gives back what was taken out and could not be delivered.
    pub(super) fn put_back(&mut self, due_ms: i64, rest: impl IntoIterator<Item = Due>) {
        let slot = self.near.entry(due_ms).or_default();
        let before = slot.len();
        slot.extend(rest);
        self.near_count += slot.len() - before;
        if slot.is_empty() {
            self.near.remove(&due_ms);
        }
    }

    /// Lets go of slots of which nothing is left at `now`.
    pub(super) fn close_over(&mut self, now: i64) {
        let first = self.near.first_key_value().map_or(i64::MAX, |(due_ms, _)| *due_ms);
        let until = slot_begin(now.min(first)).min(self.near_until_ms);
        while let Some(entry) = self.by_begin.first_entry().filter(|entry| *entry.key() < until) {
            let (begin, slot) = entry.remove_entry();
            if slot.written > 0 {
                self.over.push(begin);
            }
        }
        self.over_until_ms = self.over_until_ms.max(until);
    }

    /// Appends to the files what is not in them.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (begin, slot) in &mut self.by_begin {
            if slot.unwritten.is_empty() {
                continue;
            }
            bytes.clear();
            for pending in &slot.unwritten {
                bytes.extend_from_slice(&encode(pending, self.generation));
            }
            let path = self.dir.join(begin.to_string());
            let file = File::options().create(true).truncate(false).write(true).open(path)?;
            // At its place, and not at the end: an attempt that failed half-way is written over.
            file.write_all_at(&bytes, slot.written * RECORD as u64)?;
            slot.written += slot.unwritten.len() as u64;
            slot.unwritten = Vec::new();
        }
        Ok(())
    }

    /// What the files hold, all of it written.
    pub(super) fn manifest(&self, taken: i64, superseded: u64) -> SlotsManifest {
        let counts =
            self.by_begin.iter().filter(|(_, slot)| slot.written > 0).map(|(begin, slot)| (*begin, slot.written));
        let (generation, over_until_ms) = (self.generation, self.over_until_ms);
        SlotsManifest { generation, taken, superseded, over_until_ms, counts: counts.collect() }
    }

    /// Removes files of slots that are over and that this manifest does not name.
    pub(super) fn remove_over(&mut self, persisted: &SlotsManifest) -> io::Result<()> {
        let mut kept = Vec::new();
        for begin in std::mem::take(&mut self.over) {
            if persisted.counts.contains_key(&begin) {
                kept.push(begin);
            } else {
                match fs::remove_file(self.path(begin)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        self.over = kept;
        Ok(())
    }
}

fn slot_begin(due_ms: i64) -> i64 {
    due_ms.div_euclid(SLOT_MS) * SLOT_MS
}

fn check_sum(generation: i64, fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_be_bytes());
    hasher.update(fields);
    hasher.finalize()
}

fn encode(pending: &Pending, generation: i64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&pending.at.due_ms.to_be_bytes());
    let offset = pending.at.queue_offset << 1 | i64::from(pending.deletes);
    record[8..16].copy_from_slice(&offset.to_be_bytes());
    let sum = check_sum(generation, &record[..16]);
    record[16..].copy_from_slice(&sum.to_be_bytes());
    record
}

fn decode(record: &[u8; RECORD], generation: i64) -> Option<Pending> {
    let (fields, sum) = record.split_last_chunk::<4>()?;
    let (due_ms, offset) = fields.split_first_chunk::<8>()?;
    let offset = i64::from_be_bytes(offset.try_into().ok()?);
    (u32::from_be_bytes(*sum) == check_sum(generation, fields)).then(|| Pending {
        at: Position { due_ms: i64::from_be_bytes(*due_ms), queue_offset: offset >> 1 },
        deletes: offset & 1 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(due_ms: i64, queue_offset: i64) -> Pending {
        Pending { at: Position { due_ms, queue_offset }, deletes: queue_offset % 7 == 0 }
    }

    fn drain(slots: &mut Slots, now: i64) -> Vec<(i64, i64)> {
        slots.read_near(now, 0, |_| false).unwrap();
        let mut taken = Vec::new();
        while let Some((due_ms, slot)) = slots.take_due(now) {
            taken.extend(slot.into_iter().map(|due| (due_ms, due.queue_offset)));
        }
        slots.close_over(now);
        taken
    }

    #[test]
    fn messages_come_out_by_time_from_memory_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = Slots::empty(dir.path(), 1).unwrap();
        let base = 1_000 * SLOT_MS;
        assert!(drain(&mut slots, base).is_empty());
        for (offset, due) in [(1, 5 * SLOT_MS), (2, 1000), (3, 5 * SLOT_MS), (4, 1000), (5, 3 * SLOT_MS + 1)] {
            slots.insert(pending(base + due, offset));
        }
        slots.write().unwrap();
        let manifest = slots.manifest(6, 0);
        assert_eq!(manifest.counts.values().sum::<u64>(), 5);
        let mut again = Slots::open(dir.path(), &manifest).unwrap();
        for slots in [&mut slots, &mut again] {
            assert_eq!(slots.len(), 5);
            assert!(drain(slots, base + 999).is_empty(), "never early");
            assert_eq!(drain(slots, base + 1000), [(base + 1000, 2), (base + 1000, 4)]);
            assert_eq!(drain(slots, base + 4 * SLOT_MS), [(base + 3 * SLOT_MS + 1, 5)]);
            // One that is long overdue joins a slot that is there.
            slots.insert(pending(base + 7, 6));
            assert_eq!(drain(slots, base + 4 * SLOT_MS), [(base + 7, 6)]);
            assert_eq!(drain(slots, base + 6 * SLOT_MS).len(), 2);
            assert_eq!(slots.len(), 0);
        }
        slots.write().unwrap();
        slots.remove_over(&slots.manifest(7, 0)).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// Nothing was delivered any more, for the slots could not be built anew.
    #[test]
    fn a_directory_in_the_place_of_a_slot_is_moved_out_of_the_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("0")).unwrap();
        fs::write(dir.path().join("0/x"), "x").unwrap();
        let mut slots = Slots::empty(dir.path(), 7).unwrap();
        slots.insert(pending(10, 1));
        slots.write().unwrap();
        assert!(dir.path().join("0").is_file() && dir.path().join("0.aside/x").is_file());
        Slots::open(dir.path(), &slots.manifest(2, 0)).unwrap();
    }

    #[test]
    fn a_file_torn_at_any_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = Slots::empty(dir.path(), 7).unwrap();
        for offset in 0..5 {
            slots.insert(pending(offset * 10, offset));
        }
        slots.write().unwrap();
        let manifest = slots.manifest(5, 0);
        let path = dir.path().join("0");
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len(), 5 * RECORD);
        let reads = || Slots::open(dir.path(), &manifest).and_then(|mut slots| slots.read_near(0, 0, |_| false));
        reads().unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(reads().is_err(), "cut at {cut}");
            let mut zeroed = whole.clone();
            zeroed[cut..].fill(0);
            fs::write(&path, &zeroed).unwrap();
            assert!(reads().is_err(), "zero from {cut} on");
            let mut flipped = whole.clone();
            flipped[cut] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert!(reads().is_err(), "flipped at {cut}");
        }
        fs::remove_file(&path).unwrap();
        assert!(reads().is_err());
        // Records behind the last good one are no damage: they were written before the crash.
        fs::write(&path, [&whole[..], &[9; 33]].concat()).unwrap();
        reads().unwrap();
        let stale = SlotsManifest { generation: 8, ..manifest.clone() };
        let mut slots = Slots::open(dir.path(), &stale).unwrap();
        assert!(slots.read_near(0, 0, |_| false).is_err(), "files of another generation");
    }
}
