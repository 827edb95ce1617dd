//! Delay levels over a real store, by explicit times; named after RocketMQ's bugs where they are about one.

use std::path::PathBuf;

use rocketmq_store::StoreConfig;

use super::*;

const HOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_911);
/// Level 1 of a second, level 2 of an hour.
const DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_hours(1)];

struct House {
    dir: tempfile::TempDir,
    store: Arc<MessageStore>,
    offsets: DelayOffsets,
    levels: Levels,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), Duration::from_millis(1));
        let offsets = DelayOffsets::open(dir.path()).unwrap();
        Self { dir, store, offsets, levels: Levels::new(&DELAYS) }
    }

    /// Stores `count` messages of a level; when the last of them is due.
    fn send(&self, level: i32, count: usize) -> i64 {
        for _ in 0..count {
            self.put(&format!("DELAY\x01{level}\x02REAL_TOPIC\x01T\x02REAL_QID\x010\x02"), level);
        }
        self.wait();
        let last = self.store.max_offset(SCHEDULE_TOPIC, level - 1) - 1;
        self.store.queue_entries(SCHEDULE_TOPIC, level - 1, last, 1)[0].tags_code
    }

    fn put(&self, text: &str, level: i32) {
        self.store.append(&message(SCHEDULE_TOPIC, level - 1, text.as_bytes())).unwrap();
    }

    fn wait(&self) {
        while self.store.dispatched_offset() < self.store.max_physical_offset() {
            std::thread::yield_now();
        }
    }

    fn pass(&mut self, wall_ms: i64, running_ms: i64) -> bool {
        let is_busy = self.levels.pass(&self.store, &self.offsets, HOST, Times { wall_ms, running_ms });
        self.wait();
        is_busy
    }

    fn delivered(&self) -> i64 {
        self.store.max_offset("T", 0)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("delayOffset.json")
    }
}

fn open(dir: &Path, flush: Duration) -> Arc<MessageStore> {
    let config = StoreConfig {
        store_path_root_dir: dir.join("store"),
        mapped_file_size_commit_log: 8 << 20,
        mapped_file_size_consume_queue: 60_000,
        max_hash_slot_num: 100,
        max_index_num: 100_000,
        flush_interval_commit_log: flush,
        flush_commit_log_least_pages: 0,
        flush_commit_log_thorough_interval: flush,
        disk_space_clean_forcibly_ratio: 100,
        disk_space_warning_level_ratio: 100,
        message_delay_levels: DELAYS.to_vec(),
        ..StoreConfig::default()
    };
    MessageStore::open(config).unwrap()
}

fn message<'a>(topic: &'a str, queue_id: i32, text: &'a [u8]) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 0,
        born_host: HOST,
        store_host: HOST,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"x",
        properties: text,
    }
}

#[test]
fn a_level_is_exact_and_thousands_at_once_take_few_passes() {
    let mut house = House::new();
    house.send(2, 3);
    let due = house.send(1, 3000);
    // The first of them may be a little older.
    let first = house.store.queue_entries(SCHEDULE_TOPIC, 0, 0, 1)[0].tags_code;
    assert!(!house.pass(first - 1, 0));
    assert_eq!(house.delivered(), 0, "not a millisecond early");
    assert!(house.pass(due, 1), "a pass is bounded");
    while house.pass(due, 2) {}
    assert_eq!((house.delivered(), house.offsets.get(1), house.offsets.get(2)), (3000, 3000, 0));
}

/// After a power cut the offset may be ahead of the queue that the log still has
/// (apache/rocketmq#7077); after retention, behind it.
#[test]
fn issue_7077_an_offset_outside_the_queue_is_moved_into_it() {
    let mut house = House::new();
    let due = house.send(1, 3);
    house.offsets.set(1, 77);
    house.pass(due, 0);
    assert_eq!((house.delivered(), house.offsets.get(1)), (0, 3));
    let due = house.send(1, 2);
    house.pass(due, 0);
    assert_eq!(house.delivered(), 2, "messages sent since are delivered");
    house.offsets.set(1, -5);
    house.pass(due, 0);
    assert_eq!((house.delivered(), house.offsets.get(1)), (7, 5));
    house.offsets.set(2, 12);
    house.pass(due, 0);
    assert_eq!(house.offsets.get(2), 0, "a queue that is not there");
}

/// apache/rocketmq#3473: after a restart in mid-delivery only what was not written down comes again.
#[test]
fn issue_3473_a_restart_repeats_no_more_than_was_not_written_down() {
    let mut house = House::new();
    let due = house.send(1, 2000);
    assert!(house.pass(due, 0));
    let written = house.offsets.get(1);
    while house.store.flushed_offset() < house.store.max_physical_offset() {
        std::thread::yield_now();
    }
    house.offsets.persist_flushed(&house.store).unwrap();
    let again = DelayOffsets::open(house.dir.path()).unwrap();
    assert_eq!(again.get(1), written);
    house.offsets = again;
    house.pass(due, 1);
    assert_eq!(house.delivered(), 2000);
}

#[test]
fn the_file_is_never_ahead_of_the_disk() {
    let mut house = House::new();
    let dir = tempfile::tempdir().unwrap();
    house.store = open(dir.path(), Duration::from_hours(1));
    let due = house.send(1, 5);
    house.pass(due, 0);
    house.offsets.persist_flushed(&house.store).unwrap();
    assert!(!house.file().exists(), "a power cut would lose five messages");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(house.store.flushed(house.store.max_physical_offset())).unwrap();
    house.offsets.persist_flushed(&house.store).unwrap();
    assert!(house.file().exists());
    assert_eq!(DelayOffsets::open(house.dir.path()).unwrap().get(1), 5);
}

/// apache/rocketmq#9705: a file that a power cut tore.
#[test]
fn issue_9705_a_torn_file_falls_back_to_the_one_before() {
    let house = House::new();
    for offset in [3, 4] {
        house.offsets.set(1, offset);
        house.offsets.persist().unwrap();
    }
    let whole = std::fs::read(house.file()).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(house.file(), &whole[..cut]).unwrap();
        assert_eq!(DelayOffsets::open(house.dir.path()).unwrap().get(1), 3, "cut at {cut}");
    }
}

#[test]
fn what_can_never_be_delivered_holds_up_nobody() {
    let mut house = House::new();
    house.put("DELAY\x011\x02", 1);
    house.put("DELAY\x011\x02REAL_TOPIC\x01../T\x02REAL_QID\x010\x02", 1);
    house.put("DELAY\x011\x02REAL_TOPIC\x01T\x02REAL_QID\x01-1\x02", 1);
    let filler = "x".repeat(32_720);
    house.put(&format!("DELAY\x011\x02F\x01{filler}\x02REAL_TOPIC\x01T\x02REAL_QID\x010"), 1);
    let due = house.send(1, 1);
    house.pass(due, 0);
    assert_eq!(house.offsets.get(1), 5);
    assert!(house.delivered() >= 1);
}

#[test]
fn a_store_that_takes_nothing_is_tried_again_without_a_gap() {
    let mut house = House::new();
    let due = house.send(1, 4);
    house.store.shutdown();
    house.pass_closed(due);
    assert_eq!(house.offsets.get(1), 0, "nothing was delivered");
    let dir = house.dir.path().to_owned();
    house.store = open(&dir, Duration::from_millis(1));
    house.pass(due, 1);
    assert_eq!((house.delivered(), house.offsets.get(1)), (4, 4));
}

impl House {
    fn pass_closed(&mut self, wall_ms: i64) {
        self.levels.pass(&self.store, &self.offsets, HOST, Times { wall_ms, running_ms: 0 });
    }
}

/// Java delivers them at once, which is too early where the clock went back by a second only.
#[test]
fn a_clock_set_back_makes_a_level_neither_early_nor_endless() {
    let mut house = House::new();
    let due = house.send(1, 2);
    // Set back by ten seconds, five seconds after the broker began.
    house.pass(due - 11_000, 5000);
    house.pass(due - 10_001, 5999);
    assert_eq!(house.delivered(), 0);
    house.pass(due - 10_000, 6000);
    assert_eq!(house.delivered(), 2, "it has waited its second since");
    let due = house.send(1, 1);
    house.pass(due - 1, 7000);
    assert_eq!(house.delivered(), 2);
    house.pass(due, 7001);
    assert_eq!(house.delivered(), 3);
}
