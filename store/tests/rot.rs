//! Bits that change in old consume queue and index files, which opening a store does not look at: each is found, and
//! the file made anew from the log.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rocketmq_store::{MessageStore, QueueEntry, StoreConfig, java_string_hash};
use support::{bodies_of, config, copy_dir, message, settle, tempdir};

const COUNT: i64 = 150;
const UNIT: usize = 20;
const QUEUE_FILE: usize = 10 * UNIT;
const SLOTS: usize = 20;
const ENTRIES: usize = 40;

/// Whose store it is, as far as the files tell.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Writer {
    Ours,
    /// Nothing of ours lies beside RocketMQ's files.
    Java,
}

fn small(dir: &Path) -> StoreConfig {
    StoreConfig {
        mapped_file_size_commit_log: 4096,
        mapped_file_size_consume_queue: QUEUE_FILE as u64,
        max_hash_slot_num: SLOTS as u32,
        max_index_num: ENTRIES as u32,
        derived_checked_at_open: 1,
        ..config(dir)
    }
}

fn tag(i: i64) -> &'static str {
    ["red", "green", "blue"][(i % 3) as usize]
}

/// A closed store: one queue of messages with three tags and a key each, and now and then one of another queue.
fn closed(dir: &Path, writer: Writer) {
    let store = MessageStore::open(small(dir)).unwrap();
    for i in 0..COUNT {
        let properties = format!("UNIQ_KEY\u{1}K{i}\u{2}TAGS\u{1}{}\u{2}", tag(i));
        store.append(&message("T", 0, &body(i), properties.as_bytes())).unwrap();
        if i % 4 == 0 {
            store.append(&message("Other", 1, b"o", b"")).unwrap();
        }
    }
    settle(&store);
    store.shutdown();
    if writer == Writer::Java {
        fs::remove_file(dir.join("derived.manifest")).unwrap();
        fs::remove_file(dir.join("flushed")).unwrap();
    }
}

fn body(i: i64) -> Vec<u8> {
    vec![i as u8; 10 + i as usize % 50]
}

/// Bodies of the messages that `matches` takes, as a consumer pulls them.
fn pull(store: &MessageStore, matches: &mut dyn FnMut(&QueueEntry) -> bool) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut offset = 0;
    while offset < COUNT {
        let got = store.get_messages("T", 0, offset, 32, 1 << 20, matches);
        assert!(got.next_begin_offset > offset, "stuck at {offset}: {got:?}");
        offset = got.next_begin_offset;
        bodies.extend(bodies_of(&got));
    }
    bodies
}

/// Everything is found: in order, by each tag and by each key.
fn assert_whole(store: &MessageStore, what: &str) {
    assert!(pull(store, &mut |_| true).into_iter().eq((0..COUNT).map(body)), "{what}: not all are pulled");
    for color in ["red", "green", "blue"] {
        let code = i64::from(java_string_hash(color));
        let found = pull(store, &mut |entry| entry.tags_code == code);
        let expected = (0..COUNT).filter(|i| tag(*i) == color).map(body);
        assert!(found.into_iter().eq(expected), "{what}: not all of {color} are pulled");
    }
    for i in 0..COUNT {
        let found = store.query("T", &format!("K{i}"), 8, 0, i64::MAX).messages;
        assert_eq!(found.len(), 1, "{what}: by key {i}");
    }
}

fn wait_checked(store: &MessageStore) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !store.is_checked() {
        assert!(Instant::now() < deadline, "the check does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn files(dir: PathBuf) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn flip(file: &Path, at: usize, bit: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).unwrap();
}

/// Opens a copy of a store with one bit flipped, waits for the check, and looks at everything, now and after the next
/// opening. Returns how many files were made anew.
fn opened_with(from: &Path, file: &Path, at: usize, bit: usize) -> u64 {
    let copy = tempdir();
    copy_dir(from, copy.path());
    let file = copy.path().join(file);
    let good = fs::read(&file).unwrap();
    flip(&file, at, bit);
    let what = format!("bit {bit} of byte {at} of {}", file.display());
    let store = MessageStore::open(small(copy.path())).unwrap();
    wait_checked(&store);
    assert_whole(&store, &what);
    let mended = store.stats().mended_files;
    store.shutdown();
    drop(store);
    assert!(mended == 0 || fs::read(&file).unwrap() == good, "{what}: not made as it was");
    let store = MessageStore::open(small(copy.path())).unwrap();
    wait_checked(&store);
    assert_eq!(store.stats().mended_files, 0, "{what}: once more");
    assert_whole(&store, &what);
    mended
}

fn queue_files(root: &Path) -> Vec<PathBuf> {
    let files = files(root.join("consumequeue/T/0"));
    assert!(files.len() > 10);
    files.into_iter().map(|file| file.strip_prefix(root).unwrap().to_owned()).collect()
}

fn index_files(root: &Path) -> Vec<PathBuf> {
    let files = files(root.join("index"));
    assert!(files.len() > 3);
    files.into_iter().map(|file| file.strip_prefix(root).unwrap().to_owned()).collect()
}

#[test]
fn each_field_of_an_old_unit_of_ours_is_mended() {
    let dir = tempdir();
    closed(dir.path(), Writer::Ours);
    let files = queue_files(dir.path());
    for (number, unit) in [(0, 0), (0, 9), (5, 4)] {
        for at in unit * UNIT..(unit + 1) * UNIT {
            assert_eq!(opened_with(dir.path(), &files[number], at, (at * 5) % 8), 1);
        }
    }
}

/// There is no checksum: the units are compared with the log.
#[test]
fn each_field_of_a_unit_of_javas_is_mended() {
    let dir = tempdir();
    closed(dir.path(), Writer::Java);
    let files = queue_files(dir.path());
    for (number, unit) in [(0, 1), (5, 4)] {
        for at in unit * UNIT..(unit + 1) * UNIT {
            assert_eq!(opened_with(dir.path(), &files[number], at, (at * 5) % 8), 1);
        }
    }
    // The newest messages are dispatched again when the store is opened, so those of the newest files are right then.
    for file in &files[files.len() - 3..] {
        for at in 2 * UNIT..3 * UNIT {
            opened_with(dir.path(), file, at, 3);
        }
    }
}

#[test]
fn an_old_index_file_of_ours_is_mended() {
    let dir = tempdir();
    closed(dir.path(), Writer::Ours);
    let len = fs::metadata(&files(dir.path().join("index"))[0]).unwrap().len() as usize;
    let entries = 40 + 4 * SLOTS;
    for (number, file) in index_files(dir.path()).iter().take(2).enumerate() {
        for at in (number..len).step_by(7) {
            let mended = opened_with(dir.path(), file, at, at % 8);
            // The header is looked at when the store is opened; the first entry is not used.
            let is_old = (40..entries).contains(&at) || at >= entries + 20;
            assert!(mended == 1 || !is_old, "byte {at} of index file {number}");
        }
    }
}

#[test]
fn an_index_file_of_javas_is_mended() {
    let dir = tempdir();
    closed(dir.path(), Writer::Java);
    let len = fs::metadata(&files(dir.path().join("index"))[0]).unwrap().len() as usize;
    let files = index_files(dir.path());
    let mut mended = 0;
    for file in [&files[0], &files[1], files.last().unwrap()] {
        for at in (0..len).step_by(11) {
            mended += opened_with(dir.path(), file, at, at % 8);
        }
    }
    assert!(mended > 50, "{mended}");
}

/// What a consumer reads before the check comes by is right too, and mended for good.
#[test]
fn a_reader_finds_the_message_of_a_damaged_unit() {
    let dir = tempdir();
    closed(dir.path(), Writer::Ours);
    let file = queue_files(dir.path())[3].clone();
    for at in 4 * UNIT..5 * UNIT - 8 {
        let copy = tempdir();
        copy_dir(dir.path(), copy.path());
        let store = MessageStore::open(small(copy.path())).unwrap();
        wait_checked(&store);
        // The file is mapped: the store sees what changes in it.
        let opened = fs::File::options().write(true).open(copy.path().join(&file)).unwrap();
        let good = fs::read(copy.path().join(&file)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&opened, &[good[at] ^ 0x41], at as u64).unwrap();
        assert!(pull(&store, &mut |_| true).into_iter().eq((0..COUNT).map(body)), "byte {at}");
        assert_eq!(store.stats().found_again_messages, 1, "byte {at}");
        wait_checked(&store);
        assert_eq!(fs::read(copy.path().join(&file)).unwrap(), good, "byte {at}");
        assert_eq!(store.stats().mended_files, 1, "byte {at}");
    }
}

/// A start soon followed by another must not look at the same first files only.
#[test]
fn a_check_goes_on_behind_the_last_file() {
    let dir = tempdir();
    closed(dir.path(), Writer::Ours);
    let store = MessageStore::open(small(dir.path())).unwrap();
    wait_checked(&store);
    store.shutdown();
    let noted = fs::read_to_string(dir.path().join("derived.manifest")).unwrap();
    let old = index_files(dir.path());
    let last = format!("\"compared_last\":\"{}\"", old[old.len() - 2].display());
    assert!(noted.contains(&last), "{last}: {noted}");
}
