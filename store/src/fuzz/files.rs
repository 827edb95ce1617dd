//! Targets that are a run of files: log, consume queue, index.

use std::fs;
use std::path::Path;

use super::{empty, inputs, tempdir, write_run};
use crate::consume_queue::{ConsumeQueue, Push, UNIT, is_message};
use crate::disk::Disk;
use crate::hot_files::HotFiles;
use crate::index::{HeldIndex, Index, Trusted};
use crate::index_file::{IndexFile, IndexShape};
use crate::log_reader::{LogReader, Record};
use crate::manifest::Held;
use crate::mapped_file::{Allocation, MappedFile};
use crate::mapped_file_queue::{Layout, MappedFileQueue};
use crate::message::{ROLLED_BACK_MIN, decode_message};
use crate::recovery::LastStop;

/// Bytes of a log file.
pub(super) const LOG_FILE: u64 = 1024;
/// Bytes of a queue file: ten units.
const QUEUE_FILE: u64 = 10 * UNIT;
/// Where the log ends that the queues point into.
const LOG_END: u64 = 4500;
pub(super) const INDEX: IndexShape = IndexShape { slots: 8, entries: 8 };
/// Two of one slot.
pub(super) const INDEX_HASHES: [u32; 4] = [1, 9, 2, 0x7FFF_FFFF];

fn layout(dir: &Path, file_size: u64) -> Layout {
    Layout {
        dir: dir.to_owned(),
        file_size,
        allocation: Allocation::OnDemand,
        disk: Disk::default(),
        hot: HotFiles::new(2),
    }
}

pub(super) fn queue_layout(dir: &Path) -> Layout {
    layout(dir, QUEUE_FILE)
}

/// What reading a log gave.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    /// Offset and bytes of each record, and whether it is a message.
    records: Vec<(u64, u64, bool)>,
    damage: Vec<std::ops::Range<u64>>,
    end: u64,
}

fn read(files: &MappedFileQueue) -> Read {
    let mut reader = LogReader::new(files, 0).past_damage_below(u64::MAX, u64::MAX);
    let mut records = Vec::new();
    while let Some(record) = reader.next_record() {
        let (size, offset) = match record {
            Record::Message(view) => (u64::from(view.total_size), Some(view.physical_offset)),
            Record::Blank(size) => (size as u64, None),
        };
        let start = reader.offset() - size;
        assert!(offset.is_none_or(|offset| offset == start), "a message of another place at {start}");
        records.push((start, size, offset.is_some()));
    }
    let end = reader.offset();
    Read { records, damage: reader.into_damage(), end }
}

#[test]
fn logs() {
    let dir = tempdir();
    inputs("log", |bytes| {
        empty(dir.path());
        let layout = layout(dir.path(), LOG_FILE);
        let starts = (0..).map(|i| i * LOG_FILE);
        let mut whole = bytes.to_vec();
        whole.resize(whole.len().next_multiple_of(LOG_FILE as usize), 0);
        let count = write_run(starts.clone().map(|start| layout.path(start)), &whole, LOG_FILE as usize);
        let files = MappedFileQueue::new(layout.clone(), starts.take(count).map(|start| layout.open(start)).collect());
        let found = read(&files);
        assert_eq!(read(&files), found, "the second look differs");

        // Records and damage lie side by side, from the beginning to the end.
        let mut pieces: Vec<_> = found.records.iter().map(|(start, size, _)| *start..start + size).collect();
        pieces.extend(found.damage.iter().cloned());
        pieces.sort_by_key(|piece| piece.start);
        let end = pieces.iter().fold(0, |end, piece| {
            assert!(piece.start == end && piece.end > end, "{pieces:?}");
            piece.end
        });
        assert!(end == found.end && end <= whole.len() as u64, "{found:?}");
        assert!(found.damage.iter().all(|d| d.end - d.start >= ROLLED_BACK_MIN as u64), "{found:?}");

        // No good message is passed over, but for one inside another record or so near to damage that nothing fits.
        for (number, file) in whole.chunks(LOG_FILE as usize).enumerate() {
            for at in 0..file.len() {
                let offset = number as u64 * LOG_FILE + at as u64;
                let good = decode_message(&file[at..]).is_ok_and(|v| v.physical_offset == offset && v.crc_matches());
                let within = |start: u64, size: u64| start <= offset && offset < start + size;
                let seen = found.records.iter().any(|(start, size, _)| within(*start, *size));
                let near = |start| within(start, ROLLED_BACK_MIN as u64);
                let hidden = found.damage.iter().any(|damage| near(damage.start)) || near(found.end);
                assert!(!good || seen || hidden, "the message at {offset} is passed over: {found:?}");
            }
        }
    });
}

/// Opens a queue and looks at all of it, then goes on with it and opens it again.
fn use_queue(dir: &Path, last_stop: LastStop, held: Option<&Held>) -> Vec<(i64, u64, u32, i64)> {
    let recover = |log_end, held: Option<&Held>| {
        let held = held.map(|held| (held, usize::MAX));
        ConsumeQueue::recover("T".into(), 0, queue_layout(dir), log_end, last_stop, held).unwrap()
    };
    let queue = recover(LOG_END, held).queue;
    let (first, max) = (queue.first_unit(), queue.max_offset());
    assert!((first <= max || max == 0) && queue.max_physical() <= LOG_END);
    let mut units = Vec::new();
    let mut next = first;
    while next < max {
        let read = queue.read(next, |units| units.collect::<Vec<_>>()).expect("below the maximum");
        assert!(!read.is_empty());
        next += read.len() as i64;
        units.extend(read);
    }
    assert_eq!(next.max(max), max, "read behind the maximum");
    for limit in [0, 1000, LOG_END, u64::MAX] {
        let found = queue.partition_point(|unit| unit.offset < limit);
        assert!((first..=max).contains(&found) || max == 0, "{found} is outside of {first}..{max}");
    }
    queue.correct_min(1000);
    assert!((first..=max).contains(&queue.min_offset()) || max == 0);
    queue.delete_expired(1000).unwrap();
    queue.flush(0).unwrap();

    let more = queue.push(max, LOG_END, 10, 99, true).unwrap();
    assert_eq!((more, queue.entry(max).map(|unit| unit.tags_code)), (Push::Written, Some(99)));
    let noted = queue.held().unwrap();
    assert_eq!((noted.max, noted.next), (max + 1, max + 1));
    let again = recover(LOG_END + 10, Some(&noted));
    assert_eq!((again.damaged, again.queue.max_offset()), (false, max + 1), "not the same when opened again");
    units.iter().filter(|unit| is_message(unit)).map(|u| (u.queue_offset, u.offset, u.size, u.tags_code)).collect()
}

#[test]
fn consume_queues() {
    let dir = tempdir();
    let (held, good) = {
        let whole = tempdir();
        let queue = super::corpus::queue(whole.path(), false);
        (queue.held().unwrap(), use_queue(whole.path(), LastStop::Clean, None))
    };
    assert_eq!((held.max, good.len()), (45, 45));
    inputs("consume_queue", |bytes| {
        for (first, last_stop, with_held) in [
            (0, LastStop::Clean, false),
            (0, LastStop::Crash, false),
            (0, LastStop::Clean, true),
            (0, LastStop::Crash, true),
            (40, LastStop::Clean, false),
        ] {
            empty(dir.path());
            let starts = (first..).map(|i| MappedFile::path_in(dir.path(), i * QUEUE_FILE));
            write_run(starts, bytes, QUEUE_FILE as usize);
            let found = use_queue(dir.path(), last_stop, Some(&held).filter(|_| with_held));
            // What the manifest vouches for is what was written, or nothing.
            let held = held.max as usize;
            if with_held && found.len() >= held {
                assert_eq!(found[..held], good[..held]);
            }
        }
    });
}

fn search(index: &Index, keys: &[&str]) -> Vec<Vec<u64>> {
    let most = index.file_count() * INDEX.entries as usize;
    let all = |key: &&str| {
        let mut found = Vec::new();
        index.search("T", key, i64::MIN, i64::MAX, &mut |physical| {
            found.push(physical);
            assert!(found.len() <= most, "a search that does not end");
            true
        });
        found
    };
    keys.iter().map(all).collect()
}

#[test]
fn index_files() {
    const KEYS: [&str; 3] = ["a", "b", "new"];
    let dir = tempdir();
    inputs("index", |bytes| {
        for trusted in [
            Trusted::ALL,
            Trusted { offset: 1200, ..Trusted::ALL },
            Trusted { offset: 0, timestamp: -1 },
            Trusted { timestamp: 9000, ..Trusted::ALL },
        ] {
            empty(dir.path());
            let names = (1_u64..).map(|i| dir.path().join(format!("{i:017}")));
            write_run(names, bytes, INDEX.file_len());
            let recover = |trusted| {
                Index::recover(dir.path().into(), INDEX, 1850, trusted, HeldIndex::default(), Disk::default()).unwrap()
            };
            let index = recover(trusted);
            let found = search(&index, &KEYS);
            assert!(index.end_physical().is_none_or(|end| end < 1850 && end <= trusted.offset), "{index:?}");
            if trusted.offset == 0 {
                assert_eq!(index.file_count(), 0);
            }
            let state = (index.file_count(), index.end_physical(), index.end_timestamp());
            drop(index);
            let index = recover(Trusted::ALL);
            assert_eq!((index.file_count(), index.end_physical(), index.end_timestamp()), state);
            assert_eq!(search(&index, &KEYS), found, "not the same when opened again");
            index.put("T", "new", 1849, 99_000).unwrap();
            assert_eq!(search(&index, &["new"])[0].first(), Some(&1849), "{index:?}");
            index.delete_expired(500).unwrap();
            index.flush().unwrap();
        }
    });
}

#[test]
fn one_index_file() {
    let dir = tempdir();
    let path = dir.path().join("1");
    inputs("index", |bytes| {
        let mut bytes = bytes.to_vec();
        bytes.resize(INDEX.file_len(), 0);
        fs::write(&path, bytes).unwrap();
        let file = IndexFile::open(path.clone(), INDEX, &Disk::default(), &HotFiles::new(1)).unwrap();
        let search = |file: &IndexFile| {
            INDEX_HASHES.map(|hash| {
                let mut found = Vec::new();
                let mut visit = |physical| {
                    found.push(physical);
                    assert!(found.len() < INDEX.entries as usize, "a search that does not end");
                    true
                };
                file.search(hash, i64::MIN, i64::MAX, &mut visit).unwrap();
                found
            })
        };
        search(&file);
        file.repair(900).unwrap();
        let repaired = search(&file);
        assert!(repaired.iter().flatten().all(|physical| *physical < 900), "{repaired:?}");
        file.repair(900).unwrap();
        assert_eq!(search(&file), repaired);
        let before = file.count();
        let taken = file.put(9, 901, 1).unwrap();
        assert_eq!((taken, file.count()), (before < INDEX.entries, INDEX.entries.min(before + 1)));
        file.sync().unwrap();
    });
}
