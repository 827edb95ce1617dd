//! What the store's tests share: small files, sample messages, whole-store comparisons.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rocketmq_store::{GetResult, MessageStore, NewMessage, QueueEntry, StoreConfig, decode_message};

/// Files so small that a few messages fill several.
pub fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        store_path_root_dir: dir.to_owned(),
        mapped_file_size_commit_log: 16 << 10,
        mapped_file_size_consume_queue: 400,
        max_hash_slot_num: 50,
        max_index_num: 150,
        clean_resource_interval: Duration::from_hours(1),
        ..StoreConfig::default()
    }
}

/// A directory for many small files: in memory where there is such a file system, for there a sync costs nothing.
pub fn tempdir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub fn message<'a>(topic: &'a str, queue_id: i32, body: &'a [u8], properties: &'a [u8]) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: "10.1.2.3:4444".parse().unwrap(),
        store_host: "127.0.0.1:10911".parse().unwrap(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties,
    }
}

/// Waits until everything is dispatched.
pub fn settle(store: &MessageStore) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.dispatched_offset() < store.max_physical_offset() {
        assert!(Instant::now() < deadline, "dispatch does not catch up");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the log is on disk up to `end`.
pub fn wait_flushed(store: &MessageStore, end: u64) {
    let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    rt.block_on(store.flushed(end)).unwrap();
}

/// The bodies of what a pull got.
pub fn bodies_of(got: &GetResult) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for run in &got.messages {
        let mut rest = &run[..];
        while !rest.is_empty() {
            let m = decode_message(rest).unwrap();
            assert!(m.crc_matches());
            bodies.push(m.body.to_vec());
            rest = &rest[m.total_size as usize..];
        }
    }
    bodies
}

/// All bodies of a queue, pulled as a consumer does.
pub fn pull(store: &MessageStore, topic: &str, queue_id: i32) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut offset = store.min_offset(topic, queue_id);
    loop {
        let r = store.get_messages(topic, queue_id, offset, 32, 1 << 20, &mut |_| true);
        if r.message_count == 0 {
            return bodies;
        }
        bodies.extend(bodies_of(&r));
        offset = r.next_begin_offset;
    }
}

pub type Queues = BTreeMap<(String, i32), (i64, i64, Vec<QueueEntry>)>;

/// Every queue with its range and entries.
pub fn view_of_queues(store: &MessageStore) -> Queues {
    let mut all = Queues::new();
    for topic in store.topics_with_queues() {
        for q in topic.queues {
            let entries = store.queue_entries(&topic.topic, q.queue_id, 0, usize::MAX);
            if !entries.is_empty() {
                all.insert((topic.topic.clone(), q.queue_id), (q.min_offset, q.max_offset, entries));
            }
        }
    }
    all
}

/// All files of the log, one after the other, without what is behind the last byte that is not zero.
pub fn log_bytes(root: &Path) -> Vec<u8> {
    let mut names: Vec<_> = std::fs::read_dir(root.join("commitlog")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let mut bytes: Vec<u8> = names.iter().flat_map(|n| std::fs::read(n).unwrap()).collect();
    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    bytes.truncate(end);
    bytes
}

/// Copies a store's directory, as a disk would look after the process was killed now.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
