//! The inputs that mutations start from: small files in `corpus/<target>`, made by the store's own encoders.
//!
//! A test compares them with what the encoders make now, so they also hold the formats in place, byte for byte.
//! `FUZZ_WRITE_CORPUS=1` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use rocketmq_fuzz::Corpus;

use super::{files, tempdir};
use crate::checkpoint::{Checkpoint, Timestamps};
use crate::consume_queue::ConsumeQueue;
use crate::disk::Disk;
use crate::flushed_mark::FlushedMark;
use crate::hot_files::HotFiles;
use crate::index_checksums::HeldIndexFile;
use crate::index_file::IndexFile;
use crate::manifest::{Held, Manifest};
use crate::message::{self, NewMessage, encode, patch};
use crate::message_id::message_id;
use crate::properties::push_property;

/// Inputs by name.
type Inputs = Vec<(&'static str, Vec<u8>)>;

/// What a message of the corpus is made of.
fn sample<'a>(topic: &'a str, born: &str, body: &'a [u8], properties: &'a [u8]) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id: 2,
        flag: 3,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        born_host: born.parse().expect("an address"),
        store_host: "127.0.0.1:10911".parse().expect("an address"),
        reconsume_times: 1,
        prepared_transaction_offset: 0,
        body,
        properties,
    }
}

fn unit(m: &NewMessage<'_>, queue_offset: i64, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(m, true, &mut bytes).expect("a good message");
    patch(&mut bytes, queue_offset, offset, 1_700_000_000_123);
    bytes
}

fn messages() -> Inputs {
    const V4: &str = "10.0.0.1:1000";
    let long = "t".repeat(200);
    vec![
        ("v1", unit(&sample("Topic", V4, b"body", b"TAGS\x01a\x02UNIQ_KEY\x01K1\x02"), 7, 4096)),
        ("v1-empty-body", unit(&sample("T", V4, b"", b""), 0, 0)),
        ("v2", unit(&sample(&long, V4, b"body", b"A\x01b"), 1, 1 << 40)),
        ("v6", unit(&sample("%RETRY%g", "[2001:db8::1]:9", &[0; 40], b"A\x01b\x02"), 3, 99)),
        ("blank", message::blank(64)),
    ]
}

fn property_texts() -> Inputs {
    let mut pushed = Vec::new();
    for (name, value) in [("TAGS", "TagA"), ("KEYS", "one two"), ("DELAY", "3"), ("UNIQ_KEY", "0A00\u{e9}")] {
        push_property(&mut pushed, name, value);
    }
    vec![("pushed", pushed), ("open-end", b"DELAY\x01-1\x02TAGS\x01\xF0\x9F\x98\x80".to_vec())]
}

fn message_ids() -> Inputs {
    let id = |host: &str| message_id(host.parse().expect("an address"), 0x0102_0304).into_bytes();
    vec![("v4", id("127.0.0.1:10911")), ("v6", id("[2001:db8::7]:10911"))]
}

/// Log files with a blank record at each end.
fn log() -> Inputs {
    let size = files::LOG_FILE as usize;
    let mut bytes = Vec::new();
    for i in 0..14_u8 {
        let body = vec![i; 60 + 11 * usize::from(i)];
        let next = |offset: usize| unit(&sample("T", "10.0.0.1:1", &body, b"TAGS\x01a\x02"), i.into(), offset as u64);
        let left = size - bytes.len() % size;
        if next(bytes.len()).len() + message::BLANK_MIN > left {
            let filled = bytes.len() + left;
            bytes.extend_from_slice(&message::blank(left));
            bytes.resize(filled, 0);
        }
        let at = bytes.len();
        bytes.extend_from_slice(&next(at));
    }
    vec![("files", bytes)]
}

fn files_of(dir: &Path) -> Vec<u8> {
    let mut names: Vec<PathBuf> = fs::read_dir(dir).expect("ours").map(|e| e.expect("ours").path()).collect();
    names.sort();
    names.iter().flat_map(|name| fs::read(name).expect("ours")).collect()
}

/// The queue that the manifest of [`files`] speaks of, and one with offsets that stand for no message.
pub(super) fn queue(dir: &Path, with_gaps: bool) -> ConsumeQueue {
    let queue = ConsumeQueue::empty("T".into(), 0, files::queue_layout(dir));
    for i in 0..45 {
        let offset = if with_gaps { i + i / 7 * 2 } else { i };
        queue.push(offset, i as u64 * 100, 100, i % 5 - 2, true).expect("room");
    }
    queue
}

fn queues() -> Inputs {
    [("dense", false), ("with-gaps", true)]
        .map(|(name, with_gaps)| {
            let dir = tempdir();
            drop(queue(dir.path(), with_gaps));
            (name, files_of(dir.path()))
        })
        .into()
}

fn index() -> Inputs {
    let dir = tempdir();
    let mut next = 1;
    for file in ["1", "2", "3"] {
        let (path, hot) = (dir.path().join(file), HotFiles::new(1));
        let file = IndexFile::create(path, files::INDEX, &Disk::default(), &hot).expect("room");
        while file.put(files::INDEX_HASHES[next as usize % 4], next * 100, next as i64 * 1500).expect("room") {
            next += 1;
            if next == 20 {
                break;
            }
        }
    }
    vec![("files", files_of(dir.path()))]
}

fn checkpoint() -> Inputs {
    let dir = tempdir();
    let path = dir.path().join("checkpoint");
    let checkpoint = Checkpoint::open(&path, Disk::default()).expect("room");
    checkpoint.update(|t| *t = Timestamps { physic: 30_000, logics: 20_000, index: 10_000 }).expect("room");
    // The page is zero behind the fields.
    vec![("fields", fs::read(path).expect("ours")[..24].to_vec())]
}

fn flushed_mark() -> Inputs {
    let dir = tempdir();
    FlushedMark::open(dir.path(), Disk::default()).expect("room").0.note(0x0102_0304).expect("room");
    vec![("mark", fs::read(dir.path().join("flushed")).expect("ours"))]
}

fn manifest() -> Inputs {
    let dir = tempdir();
    let mut m = Manifest { dispatched: 4500, last_message: Some(4400), index_end: Some(1900), ..Manifest::default() };
    m.index_files = 3;
    let name = "20260102030405678".to_owned();
    m.index =
        vec![HeldIndexFile { name, count: 9, begin_timestamp: 1_700_000_000_000, blocks: vec![7], table: Some(8) }];
    let held = queue(&dir.path().join("queue"), false).held().expect("it has units");
    m.queues.entry("T".into()).or_default().insert(0, held);
    m.queues.entry("%RETRY%g".into()).or_default().insert(7, Held { next: 12, ..Held::default() });
    m.persist(dir.path(), &Disk::default()).expect("room");
    vec![("manifest", fs::read(dir.path().join("derived.manifest")).expect("ours"))]
}

fn config_file() -> Inputs {
    let text = r#"{"dataVersion":{"counter":3},"topicConfigTable":{"T":{"topicName":"T","readQueueNums":8}}}"#;
    vec![("topics.json", text.into())]
}

/// Every target with what the encoders make for it.
fn made() -> [(&'static str, Inputs); 10] {
    [
        ("message", messages()),
        ("properties", property_texts()),
        ("message_id", message_ids()),
        ("log", log()),
        ("consume_queue", queues()),
        ("index", index()),
        ("checkpoint", checkpoint()),
        ("flushed_mark", flushed_mark()),
        ("manifest", manifest()),
        ("config_file", config_file()),
    ]
}

/// What is committed.
pub(super) fn committed() -> Corpus {
    Corpus::of_crate(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_corpus_is_what_the_encoders_make() {
    for (target, inputs) in made() {
        for (name, bytes) in inputs {
            committed().hold(target, name, &bytes);
        }
    }
}
