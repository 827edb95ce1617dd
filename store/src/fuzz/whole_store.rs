//! The whole: a small store with one of its files damaged opens with every message that is not, or says which file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use rocketmq_fuzz::{StdRng, mutate, rounds};

use super::{empty, inputs, tempdir, write_run};
use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::dispatcher;
use crate::error::StoreError;
use crate::flushed_mark::FlushedMark;
use crate::message::{NewMessage, decode_message, sys_flag};
use crate::properties::{UNIQ_KEY, property};
use crate::results::{GetStatus, QueueEntry};
use crate::store::MessageStore;
use crate::worker::Signal;

const LOG_FILE: u64 = 4096;
const LOG_FILE_OF_CORPUS: u64 = super::files::LOG_FILE;

/// How a store was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Closed.
    Clean,
    /// Killed in its second life, everything flushed.
    Killed,
    /// Killed before it ever noted what its queues hold, everything flushed.
    KilledYoung,
}

/// A message that the store took.
#[derive(Debug)]
struct Sent {
    topic: &'static str,
    queue_id: i32,
    queue_offset: i64,
    offset: u64,
    unit: Vec<u8>,
}

/// A store's directory, and what it must hold.
struct Base {
    left: Left,
    files: BTreeMap<PathBuf, Vec<u8>>,
    sent: Vec<Sent>,
}

fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        store_path_root_dir: dir.to_owned(),
        mapped_file_size_commit_log: LOG_FILE,
        mapped_file_size_consume_queue: 200,
        max_hash_slot_num: 10,
        max_index_num: 12,
        max_message_size: 2000,
        disk_space_warning_level_ratio: 100,
        clean_file_forcibly_enable: false,
        ..StoreConfig::default()
    }
}

fn open(dir: &Path) -> Result<MessageStore, StoreError> {
    MessageStore::recover(config(dir), Disk::default())
}

fn append(store: &MessageStore, topic: &'static str, queue_id: i32, number: usize) -> Sent {
    let properties = format!("UNIQ_KEY\u{1}K{number}\u{2}TAGS\u{1}t{}\u{2}", number % 3);
    let body = vec![number as u8; 10 + number * 37 % 500];
    let host = "127.0.0.1:10911".parse().unwrap();
    let m = NewMessage {
        topic,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: &body,
        properties: properties.as_bytes(),
    };
    let at = store.append(&m).unwrap();
    let unit = store.message_at(at.offset).unwrap().to_vec();
    Sent { topic, queue_id, queue_offset: at.queue_offset, offset: at.offset, unit }
}

fn settle(store: &MessageStore) {
    store.core().flush_log(0).unwrap();
    while dispatcher::advance(store.core(), &Signal::never()).unwrap_or(false) {}
    assert_eq!(store.dispatched_offset(), store.max_physical_offset());
}

fn files_below(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(root, &path, found);
        } else {
            found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
}

impl Base {
    fn build(left: Left) -> Self {
        let dir = tempdir();
        let mut sent = Vec::new();
        let lives: &[usize] = if left == Left::KilledYoung { &[50] } else { &[35, 15] };
        for (life, count) in lives.iter().enumerate() {
            let store = open(dir.path()).unwrap();
            for _ in 0..*count {
                let number = sent.len();
                let (topic, queue_id) = if number % 5 == 4 { ("%RETRY%g", 1) } else { ("T", number as i32 % 2) };
                sent.push(append(&store, topic, queue_id, number));
            }
            settle(&store);
            if left == Left::Clean || (life == 0 && left == Left::Killed) {
                store.shutdown();
            }
        }
        let mut files = BTreeMap::new();
        files_below(dir.path(), dir.path(), &mut files);
        // Its bytes mean nothing.
        files.remove(Path::new("lock"));
        Self { left, files, sent }
    }

    /// One file's name and its new bytes, `None` when it is gone.
    fn damage(&self, rng: &mut StdRng) -> (&Path, Option<Vec<u8>>) {
        let any = |rng: &mut StdRng| self.files.iter().nth(rng.random_range(0..self.files.len())).unwrap();
        let (name, bytes) = any(rng);
        let mut bytes = bytes.clone();
        match rng.random_range(0..12) {
            0 => return (name, None),
            1 => bytes.extend((0..rng.random_range(1..5000)).map(|i| if i % 2 == 0 { 0 } else { 0xA5 })),
            2 => bytes.fill(0),
            3 => {
                let from = rng.random_range(0..=bytes.len());
                let to = rng.random_range(from..=bytes.len());
                bytes[from..to].fill(0);
            }
            _ => {
                let other = any(rng).1.clone();
                for _ in 0..rng.random_range(1..4) {
                    mutate(rng, &mut bytes, std::slice::from_ref(&other));
                }
            }
        }
        (name, Some(bytes))
    }

    fn write(&self, dir: &Path, damaged: &Path, bytes: Option<&[u8]>) {
        for (name, good) in &self.files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match bytes {
                _ if name != damaged => fs::write(path, good).unwrap(),
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => {}
            }
        }
    }

    /// The messages that the damage did not touch.
    fn untouched(&self, damaged: &Path, bytes: Option<&[u8]>) -> Vec<&Sent> {
        let file = damaged.to_str().unwrap().strip_prefix("commitlog/").map(|name| name.parse::<u64>().unwrap());
        let kept = |sent: &&Sent| {
            let Some(at) = file.and_then(|start| sent.offset.checked_sub(start)).filter(|at| *at < LOG_FILE) else {
                return true;
            };
            bytes.and_then(|bytes| bytes.get(at as usize..at as usize + sent.unit.len())) == Some(&sent.unit)
        };
        self.sent.iter().filter(kept).collect()
    }
}

/// Of each queue that has any.
type Entries = BTreeMap<(String, i32), Vec<QueueEntry>>;

fn entries(store: &MessageStore) -> Entries {
    let mut all = Entries::new();
    for topic in store.topics_with_queues() {
        for queue in &topic.queues {
            let entries = store.queue_entries(&topic.topic, queue.queue_id, 0, usize::MAX);
            if !entries.is_empty() {
                all.insert((topic.topic.clone(), queue.queue_id), entries);
            }
        }
    }
    all
}

/// The message is in its place of the log, and in its place of its queue.
fn check(store: &MessageStore, sent: &Sent) {
    let Sent { topic, queue_id, queue_offset, offset, unit } = sent;
    let what = format!("{topic}-{queue_id} {queue_offset} at {offset}");
    assert_eq!(store.message_at(*offset).as_deref(), Some(&unit[..]), "{what} in the log");
    let got = store.get_messages(topic, *queue_id, *queue_offset, 1, 1, &mut |_| true);
    assert_eq!((got.status, got.message_count), (GetStatus::Found, 1), "{what} in its queue: {got:?}");
    assert_eq!(got.messages[0], unit, "{what} in its queue");
    let key = decode_message(unit).ok().and_then(|m| property(m.properties, UNIQ_KEY)).unwrap();
    let by_key = store.query(topic, key, 8, 0, i64::MAX).messages;
    assert!(by_key.iter().any(|found| found == unit), "{what} by its key: {by_key:?}");
}

/// Says what was played when it fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Opens the store with one file damaged, goes on with it, closes or kills it, and opens it again.
fn play(base: &Base, name: &Path, bytes: Option<&[u8]>, close: bool) {
    let dir = tempdir();
    base.write(dir.path(), name, bytes);
    let is_log = name.starts_with("commitlog");
    let change = match bytes {
        None => "deleted".to_owned(),
        Some(bytes) => {
            let good = &base.files[name];
            let at = good.iter().zip(bytes).position(|(a, b)| a != b);
            format!("{} bytes instead of {}, the first other one at {at:?}", bytes.len(), good.len())
        }
    };
    let what = Told(format!("{:?}, {} damaged: {change}", base.left, name.display()));
    let store = match open(dir.path()) {
        Ok(store) => store,
        Err(refused) => {
            let refused = refused.to_string();
            let file = name.file_name().unwrap().to_str().unwrap();
            let hole = file.parse::<u64>().ok().map(|start| format!("offset {start},"));
            let named = refused.contains(file) || hole.is_some_and(|hole| refused.contains(&hole));
            assert!(is_log && named, "{}: {refused}", what.0);
            return;
        }
    };
    let untouched = base.untouched(name, bytes);
    // Without its oldest file a log is one whose oldest messages expired.
    let untouched: Vec<&Sent> =
        untouched.into_iter().filter(|sent| sent.offset >= store.min_physical_offset()).collect();
    for sent in &untouched {
        check(&store, sent);
    }
    let before = entries(&store);

    // Of a log that was killed and lost its tail, or whose last message is damaged, nobody knows which offsets were given
    // out there.
    let all_known = !is_log || base.left == Left::Clean;
    let mut added = Vec::new();
    for ((topic, queue_id), next) in [(("T", 0), 20), (("T", 1), 20), (("%RETRY%g", 1), 10), (("New", 0), 0)] {
        let sent = append(&store, topic, queue_id, 200 + added.len());
        let taken = base.sent.iter().filter(|s| untouched.iter().any(|u| u.offset == s.offset));
        let taken = taken.filter(|s| (s.topic, s.queue_id) == (topic, queue_id)).map(|s| s.queue_offset).max();
        let given = sent.queue_offset;
        assert!(taken.is_none_or(|taken| given > taken), "{topic}-{queue_id}: offset {given}");
        assert!(given == next || !all_known, "{topic}-{queue_id}: offset {given} instead of {next}");
        added.push(sent);
    }
    settle(&store);
    if close {
        store.shutdown();
    }
    drop(store);
    let store = open(dir.path()).unwrap_or_else(|e| panic!("the second time: {e}"));
    for sent in untouched.into_iter().chain(&added) {
        check(&store, sent);
    }
    let mut after = entries(&store);
    for sent in &added {
        let last = after.get_mut(&(sent.topic.to_owned(), sent.queue_id)).and_then(Vec::pop);
        assert_eq!(last.map(|last| (last.queue_offset, last.offset)), Some((sent.queue_offset, sent.offset)));
    }
    after.retain(|_, entries| !entries.is_empty());
    assert_eq!(after, before, "not the same when opened again");
    // What a consumer is given was put into that queue, damaged or not.
    for (topic, queue_id) in after.into_keys() {
        for offset in 0..store.max_offset(&topic, queue_id) {
            let got = store.get_messages(&topic, queue_id, offset, 1, 1, &mut |_| true);
            for m in got.messages.iter().map(|unit| decode_message(unit).unwrap()) {
                assert!(m.queue_offset >= offset && sys_flag::enters_queue(m.sys_flag), "{topic}-{queue_id}: {m:?}");
            }
        }
    }
}

/// A log of anything, without anything else: it opens, twice to the same, and goes on.
#[test]
fn a_log_of_anything() {
    let dir = tempdir();
    inputs("log", |bytes| {
        for flushed in [0, bytes.len() as u64 / 2, u64::MAX] {
            empty(dir.path());
            let log = dir.path().join("commitlog");
            fs::create_dir(&log).unwrap();
            let paths = (0..).map(|i| log.join(format!("{:020}", i * LOG_FILE_OF_CORPUS)));
            write_run(paths, bytes, LOG_FILE_OF_CORPUS as usize);
            // Left by a kill.
            fs::write(dir.path().join("abort"), "").unwrap();
            FlushedMark::open(dir.path(), Disk::default()).unwrap().0.note(flushed).unwrap();
            let config = StoreConfig { mapped_file_size_commit_log: LOG_FILE_OF_CORPUS, ..config(dir.path()) };
            let open = || MessageStore::recover(config.clone(), Disk::default()).unwrap();
            let store = open();
            let (end, found) = (store.max_physical_offset(), entries(&store));
            drop(store);
            let store = open();
            assert_eq!((store.max_physical_offset(), entries(&store)), (end, found));
            let added = append(&store, "T", 2, 300);
            assert!(added.offset >= end);
            settle(&store);
            check(&store, &added);
            drop(store);
            check(&open(), &added);
        }
    });
}

fn bases() -> [Base; 3] {
    [Left::Clean, Left::Killed, Left::KilledYoung].map(Base::build)
}

#[test]
fn one_damaged_file() {
    let bases = bases();
    rounds("whole_store", Duration::from_secs(3), |rng| {
        let base = &bases[rng.random_range(0..bases.len())];
        let (name, bytes) = base.damage(rng);
        play(base, name, bytes.as_deref(), rng.random_bool(0.5));
    });
}

/// NATS (Jepsen, 2025): one flipped bit in one file of one node lost acknowledged messages.
#[test]
fn one_bit_in_each_file() {
    for base in bases() {
        for (number, (name, good)) in base.files.iter().enumerate() {
            let step = (good.len() / 3).max(1);
            for at in (number % 20..good.len()).step_by(step) {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << (at % 8);
                play(&base, name, Some(&bytes), at % 2 == 0);
            }
        }
    }
}
