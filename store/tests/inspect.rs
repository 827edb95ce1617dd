//! Looking into a store's files without opening it: what is whole is called whole, each damage is named with its
//! file and place, and nothing is changed.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rocketmq_store::inspect::{
    Finding, FindingKind, IndexReader, LogLookup, LogReader, QueueReader, Record, Summary, UnitKind, index_files,
    key_hash_of, rebuild, verify,
};
use rocketmq_store::{MessageStore, StoreConfig, StoreError, sys_flag};
use support::{config, copy_dir, message, settle, tempdir, view_of_queues};

const LOG_FILE: u64 = 16 << 10;
const QUEUE_FILE: u64 = 400;

/// A stopped store with several files of every kind: ordinary, delayed, half, prepared and IPv6 messages.
fn build(dir: &Path) -> StoreConfig {
    let config = config(dir);
    let store = MessageStore::open(config.clone()).unwrap();
    for i in 0..200 {
        let text = format!("TAGS\u{1}t{}\u{2}KEYS\u{1}k{i} all\u{2}UNIQ_KEY\u{1}U{i}\u{2}", i % 3);
        let body = vec![b'a' + (i % 26) as u8; 200 + i as usize];
        let mut m = message("A", i % 3, &body, text.as_bytes());
        match i {
            10 => m.topic = "RMQ_SYS_TRANS_HALF_TOPIC",
            20 => m.sys_flag = sys_flag::TRANSACTION_PREPARED,
            30 => m.sys_flag = sys_flag::TRANSACTION_ROLLBACK,
            40 => m.born_host = "[::1]:7".parse().unwrap(),
            _ => {}
        }
        store.append(&m).unwrap();
        if i % 50 == 0 {
            let delayed = format!("{text}DELAY\u{1}3\u{2}");
            store.append(&message("SCHEDULE_TOPIC_XXXX", 2, &body, delayed.as_bytes())).unwrap();
            store.append(&message(&"long".repeat(40), 0, b"", b"")).unwrap();
        }
    }
    settle(&store);
    store.shutdown();
    config
}

/// One store for all damages; each works on its own copy.
struct Sample {
    dir: tempfile::TempDir,
    copy: tempfile::TempDir,
}

impl Sample {
    fn new() -> Self {
        let sample = Self { dir: tempdir(), copy: tempfile::tempdir().unwrap() };
        build(sample.dir.path());
        sample
    }

    /// A fresh copy.
    fn fresh(&mut self) -> PathBuf {
        self.copy = tempdir();
        copy_dir(self.dir.path(), self.copy.path());
        self.copy.path().to_owned()
    }

    /// Findings after `damage` to one file.
    fn after(&mut self, file: &str, damage: impl FnOnce(&mut Vec<u8>)) -> Vec<Finding> {
        let root = self.fresh();
        let path = root.join(file);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        faults(&root)
    }

    fn root(&self) -> &Path {
        self.copy.path()
    }
}

fn look(root: &Path, topics: Option<&BTreeSet<String>>) -> (Summary, Vec<Finding>) {
    let mut findings = Vec::new();
    let summary = verify(&config(root), topics, &mut |f| findings.push(f.clone())).unwrap();
    assert_eq!(summary.findings + summary.notes, findings.len() as u64);
    (summary, findings)
}

fn faults(root: &Path) -> Vec<Finding> {
    look(root, None).1.into_iter().filter(|f| f.kind.is_fault()).collect()
}

/// Asserts that one of the findings is of this kind, at this byte of this file.
#[track_caller]
fn named(findings: &[Finding], kind: FindingKind, path: &Path, at: u64) {
    let found = findings.iter().any(|f| f.kind == kind && f.path == path && f.at == at);
    assert!(found, "{kind} at byte {at} of {} is not in {findings:#?}", path.display());
}

/// Where each message lies: log offset, topic, queue, queue offset, size.
fn messages(root: &Path) -> Vec<(u64, String, i32, i64, u64)> {
    let mut log = LogReader::open(&root.join("commitlog")).unwrap();
    let mut all = Vec::new();
    while let Some(record) = log.advance().unwrap() {
        if let Record::Message(m) = record {
            all.push((m.physical_offset, m.topic.to_owned(), m.queue_id, m.queue_offset, m.total_size.into()));
        }
    }
    all
}

fn log_file(offset: u64) -> (String, usize) {
    let start = offset / LOG_FILE * LOG_FILE;
    (format!("commitlog/{start:020}"), (offset - start) as usize)
}

fn queue_file(topic: &str, id: i32, queue_offset: i64) -> (String, usize) {
    let byte = queue_offset as u64 * 20;
    let start = byte / QUEUE_FILE * QUEUE_FILE;
    (format!("consumequeue/{topic}/{id}/{start:020}"), (byte - start) as usize)
}

fn first_index_file(root: &Path) -> String {
    let path = index_files(&root.join("index")).unwrap().0.remove(0);
    path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

/// Every file with its bytes, lengths of directories left out.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), Vec::new());
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn a_whole_store_has_no_findings_and_is_not_touched() {
    let dir = tempdir();
    build(dir.path());
    let before = contents(dir.path());
    let (summary, findings) = look(dir.path(), None);
    assert_eq!(findings, [], "{summary:?}");
    assert_eq!((summary.open, summary.log_begin, summary.messages), (false, 0, 208));
    assert_eq!((summary.topics, summary.queues, summary.units), (4, 6, 206));
    assert_eq!((summary.index_files, summary.index_entries), (5, 609));
    assert_eq!(summary.log_end, messages(dir.path()).iter().map(|m| m.0 + m.4).max().unwrap());
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn an_empty_store_has_no_findings() {
    let dir = tempdir();
    MessageStore::open(config(dir.path())).unwrap().shutdown();
    assert_eq!(faults(dir.path()), []);
}

#[test]
fn what_readers_give_is_what_the_store_gives() {
    let dir = tempdir();
    let config = build(dir.path());
    let log = messages(dir.path());
    let mut lookup = LogLookup::open(&config.commit_log_dir()).unwrap();
    for (offset, topic, ..) in log.iter().rev() {
        assert_eq!(lookup.message_at(*offset).unwrap().unwrap().topic, topic);
        assert!(lookup.message_at(offset + 1).unwrap().is_none());
    }
    assert!(lookup.message_at(u64::MAX).unwrap().is_none());
    let mut log_reader = LogReader::open(&config.commit_log_dir()).unwrap();
    log_reader.seek(log[7].0 + 1);
    let Some(Record::PassedOver(passed)) = log_reader.advance().unwrap() else { panic!("inside a message") };
    assert_eq!((passed.from, passed.to, passed.at_end), (log[7].0 + 1, log[8].0, false));
    let Some(Record::Message(m)) = log_reader.advance().unwrap() else { panic!("the message behind") };
    assert_eq!(m.physical_offset, log[8].0);

    let store = MessageStore::open(config.clone()).unwrap();
    let mut queue = QueueReader::open(&config.consume_queue_dir().join("A/1"), QUEUE_FILE).unwrap();
    let expected = store.queue_entries("A", 1, 0, usize::MAX);
    assert_eq!((queue.first(), queue.end().unwrap()), (0, expected.len() as i64));
    for unit in &expected {
        assert_eq!(queue.unit(unit.queue_offset).unwrap(), Some(*unit));
    }
    let behind = queue.unit(expected.len() as i64).unwrap().unwrap();
    assert_eq!(UnitKind::of(&behind), UnitKind::Unwritten);
    assert_eq!((queue.unit(-1).unwrap(), queue.unit(i64::MAX).unwrap()), (None, None));
    let found = store.query("A", "k77", 10, 0, i64::MAX);
    store.shutdown();
    let mut offsets = Vec::new();
    for path in index_files(&config.index_dir()).unwrap().0 {
        let entries = IndexReader::new(&path, &config).search(key_hash_of("A", "k77")).unwrap();
        offsets.extend(entries.into_iter().map(|e| e.physical));
    }
    assert_eq!((found.messages.len(), offsets), (1, vec![log[77 + 4].0]), "two messages each at 0 and 50 lie before");
}

#[test]
fn damage_to_the_log_is_named() {
    let mut sample = Sample::new();
    let root = sample.fresh();
    let log = messages(&root);
    let (offset, topic, queue, queue_offset, size) = log[100].clone();
    let (file, at) = log_file(offset);
    let (unit_file, unit_at) = queue_file(&topic, queue, queue_offset);
    assert!(at > 0 && log_file(log[101].0).0 == file);
    let properties = properties_len(&root, offset);

    let found = sample.after(&file, |b| b[at + 90] ^= 1);
    named(&found, FindingKind::CrcMismatch, &sample.root().join(&file), at as u64);
    assert_eq!(found.len(), 1);

    // The head: size, magic, physical offset. The message is gone and the next one is found.
    for byte in [2, 5, 35] {
        let found = sample.after(&file, |b| b[at + byte] ^= 0x10);
        named(&found, FindingKind::DamagedRegion, &sample.root().join(&file), at as u64);
        named(&found, FindingKind::UnitTarget, &sample.root().join(&unit_file), unit_at as u64);
        let region = found.iter().find(|f| f.kind == FindingKind::DamagedRegion).unwrap();
        assert!(region.what.starts_with(&format!("{size} bytes at log offset {offset} ")), "{}", region.what);
    }

    // Queue offset, queue id, topic: the message is another one now.
    let topic_at = at + size as usize - properties - 2 - topic.len();
    for (byte, kind) in [
        (at + 27, FindingKind::WrongMessage),
        (at + 15, FindingKind::WrongMessage),
        (topic_at, FindingKind::WrongMessage),
    ] {
        let found = sample.after(&file, |b| b[byte] ^= 4);
        named(&found, kind, &sample.root().join(&unit_file), unit_at as u64);
    }

    // A page of zeroes takes several messages.
    let found = sample.after(&file, |b| b[at..at + 2000].fill(0));
    named(&found, FindingKind::DamagedRegion, &sample.root().join(&file), at as u64);
    assert!(found.iter().filter(|f| f.kind == FindingKind::UnitTarget).count() >= 2, "{found:#?}");

    // To the end of the file: messages follow in the next one.
    let found = sample.after(&file, |b| b[at..].fill(0));
    named(&found, FindingKind::DamagedRegion, &sample.root().join(&file), at as u64);
    assert!(found[0].what.ends_with("messages follow"), "{}", found[0].what);

    // The last message: nothing follows.
    let last = log.last().unwrap();
    let (file, at) = log_file(last.0);
    let found = sample.after(&file, |b| b[at + 4] ^= 1);
    named(&found, FindingKind::DamagedRegion, &sample.root().join(&file), at as u64);
    let (unit_file, unit_at) = queue_file(&last.1, last.2, last.3);
    named(&found, FindingKind::UnitTarget, &sample.root().join(unit_file), unit_at as u64);

    let found = sample.after(&file, |b| b.truncate(at + 50));
    named(&found, FindingKind::FileSize, &sample.root().join(&file), at as u64 + 50);
    named(&found, FindingKind::DamagedRegion, &sample.root().join(&file), at as u64);
}

fn properties_len(root: &Path, offset: u64) -> usize {
    let mut lookup = LogLookup::open(&root.join("commitlog")).unwrap();
    lookup.message_at(offset).unwrap().unwrap().properties.len()
}

#[test]
fn missing_files_are_named() {
    let mut sample = Sample::new();
    let root = sample.fresh();
    let file = root.join(format!("commitlog/{LOG_FILE:020}"));
    fs::remove_file(&file).unwrap();
    let found = faults(&root);
    named(&found, FindingKind::MissingFile, &file, 0);
    assert!(
        found.iter().any(|f| f.kind == FindingKind::UnitTarget)
            && found.iter().any(|f| f.kind == FindingKind::IndexTarget)
    );

    for start in [0, QUEUE_FILE, 2 * QUEUE_FILE, 3 * QUEUE_FILE] {
        let root = sample.fresh();
        let file = root.join(format!("consumequeue/A/1/{start:020}"));
        fs::remove_file(&file).unwrap();
        let found = faults(&root);
        named(&found, FindingKind::MissingUnit, &file, 0);
        let inside = start > 0 && start < 3 * QUEUE_FILE;
        assert_eq!(found.iter().any(|f| f.kind == FindingKind::MissingFile && f.path == file), inside);
    }

    let root = sample.fresh();
    fs::remove_file(root.join(first_index_file(&root))).unwrap();
    let found = faults(&root);
    named(&found, FindingKind::MissingKey, &root.join(log_file(0).0), 0);
    assert_eq!(found.len(), 1, "{found:#?}");

    fs::remove_dir_all(root.join("index")).unwrap();
    named(&faults(&root), FindingKind::MissingFile, &root.join("index"), 0);

    let root = sample.fresh();
    fs::remove_file(root.join("checkpoint")).unwrap();
    named(&faults(&root), FindingKind::Checkpoint, &root.join("checkpoint"), 0);
}

#[test]
fn a_queue_without_files_is_a_fault_unless_its_topic_was_deleted() {
    let mut sample = Sample::new();
    let root = sample.fresh();
    fs::remove_dir_all(root.join("consumequeue/A")).unwrap();
    assert_eq!(faults(&root), [], "nobody knows the topic");
    let topics = BTreeSet::from(["A".to_owned()]);
    let (_, found) = look(&root, Some(&topics));
    named(&found, FindingKind::MissingUnit, &root.join("consumequeue/A/1"), 0);

    let root = sample.fresh();
    fs::remove_dir_all(root.join("consumequeue/A/1")).unwrap();
    named(&faults(&root), FindingKind::MissingUnit, &root.join("consumequeue/A/1"), 0);
    let (summary, _) = look(&root, Some(&BTreeSet::new()));
    assert_eq!((summary.findings, summary.notes), (0, 1));
}

#[test]
fn a_topic_that_was_deleted_and_made_again_is_no_fault() {
    let dir = tempdir();
    let config = config(dir.path());
    let store = MessageStore::open(config).unwrap();
    for (count, delete) in [(50, true), (20, true), (30, false)] {
        for _ in 0..count {
            store.append(&message("T", 0, &[7; 100], b"TAGS\x01a")).unwrap();
        }
        settle(&store);
        if delete {
            store.delete_topic("T").unwrap();
        }
    }
    store.shutdown();
    let (summary, found) = look(dir.path(), Some(&BTreeSet::from(["T".to_owned()])));
    assert_eq!((summary.findings, summary.units), (0, 30), "{found:#?}");
    assert!(summary.notes > 0 && found.iter().all(|f| f.what.contains("deleted and made again")), "{found:#?}");
}

#[test]
fn a_log_whose_old_files_expired_is_whole() {
    let dir = tempdir();
    // Nobody but this test deletes.
    let config = StoreConfig { delete_when: Vec::new(), disk_max_used_space_ratio: 100, ..build(dir.path()) };
    let store = MessageStore::open(config).unwrap();
    store.set_file_reserved_time(std::time::Duration::ZERO);
    let deleted = store.clean_expired().unwrap();
    assert!(deleted > 1);
    store.append(&message("A", 0, b"x", b"")).unwrap();
    settle(&store);
    store.shutdown();
    let (summary, found) = look(dir.path(), None);
    assert_eq!((summary.findings, summary.log_begin), (0, deleted as u64 * LOG_FILE), "{found:#?}");
}

#[test]
fn damage_to_a_queue_is_named() {
    let mut sample = Sample::new();
    let (file, at) = queue_file("A", 1, 30);
    let place = |sample: &Sample, unit: usize| (sample.root().join(&file), (at + 20 * unit) as u64);

    // Log offset, size, tags code.
    for (byte, kind) in [(7, FindingKind::UnitTarget), (11, FindingKind::WrongField), (19, FindingKind::WrongField)] {
        let found = sample.after(&file, |b| b[at + byte] ^= 1);
        let (path, at) = place(&sample, 0);
        named(&found, kind, &path, at);
        assert_eq!(found.len(), 1, "{found:#?}");
    }
    // To a message of another queue.
    let other = messages(&sample.fresh()).into_iter().find(|m| m.2 == 2 && m.1 == "A").unwrap();
    let found = sample.after(&file, |b| b[at..at + 8].copy_from_slice(&other.0.to_be_bytes()));
    named(&found, FindingKind::WrongMessage, &place(&sample, 0).0, at as u64);

    let found = sample.after(&file, |b| {
        let (one, two) = b.split_at_mut(at + 20);
        one[at..].swap_with_slice(&mut two[..20]);
    });
    for unit in [0, 1] {
        let (path, at) = place(&sample, unit);
        named(&found, FindingKind::WrongMessage, &path, at);
    }
    let found = sample.after(&file, |b| b[at..at + 60].fill(0));
    named(&found, FindingKind::BadUnit, &place(&sample, 0).0, at as u64);
    assert_eq!(found.len(), 1, "{found:#?}");
    // A filler where the log has a message.
    let found = sample.after(&file, |b| {
        b[at..at + 20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    });
    named(&found, FindingKind::MissingUnit, &place(&sample, 0).0, at as u64);

    let found = sample.after(&file, |b| b.truncate(at + 30));
    named(&found, FindingKind::FileSize, &place(&sample, 0).0, at as u64 + 30);

    // The end of the queue.
    let last = messages(&sample.fresh()).into_iter().rfind(|m| m.2 == 1).unwrap();
    let (file, at) = queue_file("A", 1, last.3);
    let found = sample.after(&file, |b| b[at..at + 20].fill(0));
    named(&found, FindingKind::MissingUnit, &sample.root().join(&file), at as u64);

    // The delivery time of a delayed message.
    let (file, at) = queue_file("SCHEDULE_TOPIC_XXXX", 2, 1);
    let found = sample.after(&file, |b| b[at + 18] ^= 1);
    named(&found, FindingKind::WrongField, &sample.root().join(&file), at as u64);
}

#[test]
fn damage_to_the_index_is_named() {
    let mut sample = Sample::new();
    let root = sample.fresh();
    let file = first_index_file(&root);
    let entry = |number: usize| 40 + 50 * 4 + number * 20;
    let path = |sample: &Sample| sample.root().join(&file);
    let bytes = fs::read(root.join(&file)).unwrap();

    // Hash, log offset, seconds.
    for (byte, kind) in [(3, FindingKind::IndexTarget), (11, FindingKind::IndexTarget), (15, FindingKind::WrongField)] {
        let found = sample.after(&file, |b| b[entry(9) + byte] ^= 1);
        named(&found, kind, &path(&sample), entry(9) as u64);
    }
    // The chain: find an entry that has one before it.
    let chained = (1..100).find(|n| bytes[entry(*n) + 16..entry(*n) + 20] != [0; 4]).unwrap();
    let found = sample.after(&file, |b| b[entry(chained) + 16..entry(chained) + 20].fill(0));
    named(&found, FindingKind::IndexChain, &path(&sample), entry(chained) as u64 + 16);
    assert_eq!(found.len(), 1, "{found:#?}");
    let slot = (0..50).find(|slot| bytes[40 + slot * 4..44 + slot * 4] != [0; 4]).unwrap();
    let found = sample.after(&file, |b| b[40 + slot * 4 + 3] ^= 1);
    named(&found, FindingKind::IndexChain, &path(&sample), 40 + slot as u64 * 4);

    let found = sample.after(&file, |b| b[entry(5)..entry(8)].fill(0));
    named(&found, FindingKind::IndexTarget, &path(&sample), entry(5) as u64);
    assert!(found.iter().any(|f| f.kind == FindingKind::MissingKey && f.what.contains("k0")), "{found:#?}");

    for (byte, at) in [(23, 16), (31, 24), (35, 32)] {
        let found = sample.after(&file, |b| b[byte] ^= 1);
        named(&found, FindingKind::IndexHeader, &path(&sample), at);
    }
    let found = sample.after(&file, |b| b[36] = 0x7F);
    named(&found, FindingKind::IndexHeader, &path(&sample), 36);
    let found = sample.after(&file, |b| b.truncate(1000));
    named(&found, FindingKind::FileSize, &path(&sample), 1000);
    assert!(found.iter().any(|f| f.kind == FindingKind::MissingKey));
}

#[test]
fn checkpoint_and_abort_are_looked_at() {
    let mut sample = Sample::new();
    for (byte, at) in [(0, 0), (8, 8), (17, 16)] {
        let found = sample.after("checkpoint", |b| b[byte] ^= 0x40);
        named(&found, FindingKind::Checkpoint, &sample.root().join("checkpoint"), at);
    }
    let found = sample.after("checkpoint", |b| b.truncate(100));
    named(&found, FindingKind::FileSize, &sample.root().join("checkpoint"), 100);
    let root = sample.fresh();
    fs::write(root.join("abort"), "").unwrap();
    named(&faults(&root), FindingKind::Abort, &root.join("abort"), 0);
}

#[test]
fn no_bytes_make_a_panic() {
    let mut sample = Sample::new();
    let files: Vec<PathBuf> =
        contents(&sample.fresh()).into_iter().filter(|(p, _)| p.is_file()).map(|(p, _)| p).collect();
    let files: Vec<PathBuf> = files.iter().map(|p| p.strip_prefix(sample.root()).unwrap().to_owned()).collect();
    let files = files.into_iter().filter(|f| !f.starts_with("consumequeue/A/0") && !f.starts_with("consumequeue/A/2"));
    for file in files {
        for byte in [0xFF, 0x7F, 0x01] {
            sample.after(file.to_str().unwrap(), |b| b.fill(byte));
        }
        sample.after(file.to_str().unwrap(), Vec::clear);
    }
}

#[test]
fn every_byte_of_a_message_that_anything_else_tells_of_is_checked() {
    let mut sample = Sample::new();
    let root = sample.fresh();
    let (offset, topic, .., size) = messages(&root)[60].clone();
    let (file, at) = log_file(offset);
    let properties = properties_len(&root, offset);
    let body = size as usize - 91 - topic.len() - properties;
    let mut unnoticed = Vec::new();
    // Of the body, its first bytes stand for all.
    for byte in (0..100).chain(88 + body..size as usize) {
        if sample.after(&file, |b| b[at + byte] ^= 1).is_empty() {
            unnoticed.push(byte);
        }
    }
    // flag; sysFlag (the bits flipped), times and hosts, reconsumeTimes and preparedTransactionOffset: nothing else in
    // the store repeats these, but for seconds of storeTimestamp in the index.
    unnoticed.retain(|byte| !matches!(byte, 16..20 | 36..84));
    assert_eq!(unnoticed, [] as [usize; 0]);
}

#[test]
fn the_rest_of_a_deleted_topic_is_not_brought_back() {
    let dir = tempdir();
    let config = build(dir.path());
    let store = MessageStore::open(config.clone()).unwrap();
    store.append(&message("Gone", 0, b"x", b"")).unwrap();
    settle(&store);
    store.delete_topic("Gone").unwrap();
    store.shutdown();
    let known = BTreeSet::from(["A".to_owned()]);
    let rebuilt = rebuild(&config, Some(&known), true).unwrap();
    assert_eq!(rebuilt.deleted_topics, [] as [String; 0], "our own stores note what was deleted");
    assert!(!dir.path().join("consumequeue/Gone").exists());
    // A Java broker's store has no such note.
    for name in ["derived.manifest", "derived.manifest.bak"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let rebuilt = rebuild(&config, Some(&known), true).unwrap();
    assert_eq!((rebuilt.deleted_topics, rebuilt.messages), (vec!["Gone".to_owned()], 209));
    assert!(!dir.path().join("consumequeue/Gone").exists());
    assert_eq!(rebuilt.queues.iter().map(|q| q.after).sum::<u64>(), 206, "queues that were there stay");
    for name in ["derived.manifest", "derived.manifest.bak"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let rebuilt = rebuild(&config, None, true).unwrap();
    assert_eq!(rebuilt.queues.iter().map(|q| q.after).sum::<u64>(), 207, "nobody can say which topics are known");
}

#[test]
fn a_killed_store_lacks_only_what_was_not_dispatched() {
    for count in [1, 30, 300] {
        let dir = tempdir();
        let store = MessageStore::open(config(dir.path())).unwrap();
        for i in 0..count {
            store.append(&message("T", i % 3, &[1; 300], format!("UNIQ_KEY\u{1}{i}").as_bytes())).unwrap();
        }
        // No settling, no shutdown: this is what a kill leaves.
        drop(store);
        let (summary, found) = look(dir.path(), None);
        named(&found, FindingKind::Abort, &dir.path().join("abort"), 0);
        assert_eq!((summary.findings, summary.messages), (1, count as u64), "{found:#?}");
        MessageStore::open(config(dir.path())).unwrap().shutdown();
        let (summary, found) = look(dir.path(), None);
        assert_eq!((summary.findings, summary.notes, summary.units), (0, 0, count as u64), "{found:#?}");
    }
}

#[test]
fn rebuilding_gives_the_same_queues_and_keeps_the_old_files() {
    for damaged in [false, true] {
        let dir = tempdir();
        let config = build(dir.path());
        let store = MessageStore::open(config.clone()).unwrap();
        let before = view_of_queues(&store);
        store.shutdown();
        if damaged {
            let (file, at) = queue_file("A", 1, 30);
            let mut bytes = fs::read(dir.path().join(&file)).unwrap();
            bytes[at..at + 100].fill(0);
            fs::write(dir.path().join(&file), bytes).unwrap();
            fs::remove_file(dir.path().join(first_index_file(dir.path()))).unwrap();
        }
        let log_before = support::log_bytes(dir.path());
        // Sizes are found from the files.
        let unsized_config = StoreConfig {
            mapped_file_size_commit_log: 1 << 30,
            mapped_file_size_consume_queue: 6_000_000,
            ..config.clone()
        };
        let rebuilt = rebuild(&unsized_config, None, false).unwrap();
        let kept = rebuilt.replaced.clone().unwrap();
        assert!(
            kept.join("consumequeue/A/1").is_dir() && kept.join("index").is_dir() && kept.join("checkpoint").is_file()
        );
        assert_eq!((rebuilt.messages, rebuilt.index_entries.1), (208, 609));
        assert_eq!(rebuilt.queues.iter().map(|q| q.after).sum::<u64>(), 206);
        assert_eq!(rebuilt.queues.iter().all(|q| q.before == q.after), !damaged, "{rebuilt:?}");
        assert_eq!(support::log_bytes(dir.path()), log_before);
        assert_eq!(faults(dir.path()), []);
        let store = MessageStore::open(config).unwrap();
        assert_eq!(view_of_queues(&store), before);
        store.shutdown();
    }
}

#[test]
fn rebuilding_is_refused_where_it_could_do_harm() {
    let mut sample = Sample::new();
    let root = sample.fresh();
    let store = MessageStore::open(config(&root)).unwrap();
    assert!(rebuild(&config(&root), None, false).unwrap_err().to_string().contains("is locked"));
    store.shutdown();

    let (file, at) = log_file(messages(&root)[100].0);
    let mut bytes = fs::read(root.join(&file)).unwrap();
    bytes[at + 4] ^= 1;
    fs::write(root.join(&file), bytes).unwrap();
    let before = contents(&root);
    let error = rebuild(&config(&root), None, true).unwrap_err().to_string();
    assert!(error.contains(&file) && error.contains(&format!("byte {at}")), "{error}");
    assert_eq!(contents(&root), before, "nothing was changed");

    // A store that does not open: everything is put back.
    let root = sample.fresh();
    let before = contents(&root);
    let refused = StoreConfig { max_index_num: 1, ..config(&root) };
    assert!(matches!(
        rebuild(&refused, None, false),
        Err(rocketmq_store::inspect::RebuildError::Store(StoreError::Config { .. }))
    ));
    let after = contents(&root);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(after == before);

    let empty = tempdir();
    assert!(rebuild(&config(empty.path()), None, false).unwrap_err().to_string().contains("holds no log"));
    assert!(!empty.path().join("lock").exists());
}

#[test]
fn the_old_files_are_discarded_on_demand() {
    let dir = tempdir();
    let config = build(dir.path());
    assert_eq!(rebuild(&config, None, true).unwrap().replaced, None);
    let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|n| n.starts_with("replaced")).count(), 0);
    assert_eq!(faults(dir.path()), []);
}
