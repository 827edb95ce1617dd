//! The engine over a real store: order, crashes, damage, rolling, deletions, clocks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rocketmq_store::{
    FlushDiskType, MessageStore, NewMessage, StoreConfig, UNIQ_KEY, decode_message, property, push_property,
};

use super::engine::{Engine, Pass, Settings};
use super::message::{self, DEL_UNIQKEY, TIMER_TOPIC};
use super::progress::{Position, Progress, SlotsManifest};
use super::slots::{RECORD, SLOT_MS};
use crate::clock;

const TOPIC: &str = "Real";
const RESERVED: Duration = Duration::from_hours(72);
const HOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_911);

/// A store with a timer, both of which can be dropped as a kill drops them.
struct House {
    dir: tempfile::TempDir,
    store: Option<Arc<MessageStore>>,
    engine: Option<Engine>,
    settings: Settings,
    index: bool,
    flush: Duration,
    /// A whole second a little ahead of the wall clock, by which the store stamps messages.
    t0: i64,
}

impl House {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let settings =
            Settings { precision_ms: 1000, flush_interval_ms: 1, roll_window_ms: i64::MAX, store_host: HOST };
        let t0 = (clock::now_millis() / 1000 + 2) * 1000;
        let dir = tempfile::tempdir().unwrap();
        let mut house =
            Self { dir, store: None, engine: None, settings, index: true, flush: Duration::from_millis(1), t0 };
        change(&mut house);
        house.open(t0);
        house
    }

    fn open(&mut self, now: i64) {
        let config = StoreConfig {
            store_path_root_dir: self.dir.path().to_owned(),
            mapped_file_size_commit_log: 64 << 20,
            mapped_file_size_consume_queue: 600_000,
            flush_disk_type: FlushDiskType::AsyncFlush,
            flush_interval_commit_log: self.flush,
            flush_commit_log_least_pages: 0,
            flush_commit_log_thorough_interval: self.flush,
            message_index_enable: self.index,
            max_hash_slot_num: 10_000,
            max_index_num: 200_000,
            disk_space_clean_forcibly_ratio: 100,
            disk_space_warning_level_ratio: 100,
            ..StoreConfig::default()
        };
        let store = MessageStore::open(config).unwrap();
        self.engine = Some(Engine::open(&store, self.dir.path(), self.settings.clone(), now).unwrap());
        self.store = Some(store);
    }

    fn store(&self) -> &MessageStore {
        self.store.as_deref().unwrap()
    }

    /// Ends as a killed process ends, and starts again at `now`.
    fn kill(&mut self, now: i64) {
        (self.engine, self.store) = (None, None);
        self.open(now);
    }

    /// Ends in order, and starts again at `now`.
    fn restart(&mut self, now: i64) {
        self.wait_flushed();
        self.engine.as_mut().unwrap().stop().unwrap();
        self.store().shutdown();
        self.kill(now);
    }

    fn send(&self, id: usize, deliver_ms: i64) {
        self.send_with(id, deliver_ms, &[]);
    }

    fn send_with(&self, id: usize, deliver_ms: i64, pairs: &[(&str, &str)]) {
        let (mut text, body) = (Vec::new(), id.to_string());
        push_property(&mut text, UNIQ_KEY, &format!("U{id}"));
        push_property(&mut text, "TIMER_DELIVER_MS", &deliver_ms.to_string());
        for (name, value) in pairs {
            push_property(&mut text, name, value);
        }
        let message = NewMessage {
            topic: TOPIC,
            queue_id: 0,
            flag: 7,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: HOST,
            store_host: HOST,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            properties: &text,
        };
        message::append_waiting(self.store(), &message, message::out_ms(deliver_ms, self.settings.precision_ms))
            .unwrap();
    }

    fn wait_dispatched(&self) {
        while self.store().dispatched_offset() < self.store().max_physical_offset() {
            std::thread::yield_now();
        }
    }

    fn wait_flushed(&self) {
        while self.store().flushed_offset() < self.store().max_physical_offset() {
            std::thread::yield_now();
        }
    }

    /// One pass.
    fn tick(&mut self, now: i64) -> Pass {
        self.wait_dispatched();
        let pass = self.engine.as_mut().unwrap().tick(self.store.as_deref().unwrap(), now, RESERVED);
        self.wait_dispatched();
        pass
    }

    /// Passes until there is nothing to do at `now`; what was delivered.
    fn run(&mut self, now: i64) -> usize {
        let mut delivered = 0;
        loop {
            let pass = self.tick(now);
            delivered += pass.delivered.len();
            if !pass.is_busy {
                return delivered;
            }
        }
    }

    /// Bodies under the real topic, as numbers, in order.
    fn delivered(&self) -> Vec<usize> {
        self.units(TOPIC)
            .iter()
            .map(|unit| String::from_utf8_lossy(decode_message(unit).unwrap().body).parse().unwrap())
            .collect()
    }

    fn units(&self, topic: &str) -> Vec<bytes::Bytes> {
        self.wait_dispatched();
        let entries = self.store().queue_entries(topic, 0, 0, usize::MAX);
        entries.iter().map(|entry| self.store().message_at(entry.offset).unwrap()).collect()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn written(&self) -> Progress {
        serde_json::from_str(&std::fs::read_to_string(self.path("config/timerProgress.json")).unwrap()).unwrap()
    }

    fn pending(&self) -> u64 {
        self.engine.as_ref().unwrap().standing(self.store(), 0).pending
    }
}

fn counts(ids: &[usize]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for id in ids {
        *counts.entry(*id).or_default() += 1;
    }
    counts
}

#[test]
fn ten_thousand_in_random_order_come_in_order_and_once_through_kills() {
    const COUNT: usize = 10_000;
    let seed = std::env::var("RMQ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("RMQ_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut house = House::new();
    let t0 = house.t0;
    // Up to two hours away: many slots; several messages of one time.
    let mut times: Vec<i64> = (0..COUNT).map(|_| t0 + 1 + random.random_range(0..7_200_000)).collect();
    times.shuffle(&mut random);
    for (id, time) in times.iter().enumerate() {
        house.send(id, *time);
    }
    let (mut now, mut seen) = (t0, 0);
    while now < t0 + 7_300_000 {
        house.run(now);
        let delivered = house.delivered();
        for id in &delivered[seen..] {
            assert!(times[*id] <= now, "{id} came {} ms early", times[*id] - now);
        }
        let overdue = (0..COUNT).filter(|id| times[*id] + 1000 <= now).count();
        assert!(delivered.len() >= overdue, "{} of {overdue} at {now}", delivered.len());
        seen = delivered.len();
        if random.random_range(0..4) == 0 {
            house.kill(now);
        }
        now += random.random_range(1..400_000);
    }
    house.run(now);
    let delivered = house.delivered();
    assert_eq!(counts(&delivered).len(), COUNT);
    assert_eq!(delivered.len(), COUNT, "some came twice");
    let step = |id: &usize| message::out_ms(times[*id], 1000);
    assert!(delivered.is_sorted_by_key(step), "out of order");
    for pair in delivered.windows(2).filter(|pair| step(&pair[0]) == step(&pair[1])) {
        assert!(pair[0] < pair[1], "messages of one time come as they were sent");
    }
    assert_eq!((house.pending(), house.run(now)), (0, 0));
    house.run(now + 2 * SLOT_MS);
    house.wait_flushed();
    for later in 1..4 {
        house.tick(now + 2 * SLOT_MS + later);
    }
    assert_eq!(std::fs::read_dir(house.path("timerslots")).unwrap().count(), 0, "files of the past go");
}

#[test]
fn a_kill_in_mid_delivery_loses_nothing_and_repeats_nothing_that_the_index_knows() {
    for index in [true, false] {
        let mut house = House::with(|house| {
            house.index = index;
            house.settings.flush_interval_ms = i64::MAX;
        });
        let at = house.t0 + 5000;
        for id in 0..6000 {
            house.send(id, at);
        }
        assert_eq!(house.run(at - 1), 0);
        let pass = house.tick(at);
        assert!(pass.is_busy && pass.delivered.len() < 6000, "a pass is bounded");
        house.kill(at);
        house.run(at);
        let counts = counts(&house.delivered());
        assert_eq!(counts.len(), 6000, "index {index}");
        let twice = counts.values().filter(|count| **count > 1).count();
        assert_eq!(twice, if index { 0 } else { pass.delivered.len() }, "index {index}");
        assert!(counts.values().all(|count| *count <= 2));
    }
}

#[test]
fn another_message_with_the_same_key_is_no_copy() {
    let mut house = House::with(|house| house.settings.flush_interval_ms = i64::MAX);
    let at = house.t0 + 1000;
    house.send(1, at);
    house.send(1, at + 1000);
    house.run(at);
    house.kill(at + 1000);
    assert_eq!(house.run(at + 1000), 1, "the first is known to be delivered, the second is not it");
    assert_eq!(house.delivered(), [1, 1]);
}

#[test]
fn a_delivered_message_is_marked_only_when_it_is_on_disk() {
    let mut house = House::with(|house| house.flush = Duration::from_hours(1));
    let at = house.t0 + 1000;
    house.send(1, at);
    house.tick(at);
    house.tick(at + 100);
    assert_eq!(house.delivered(), [1]);
    assert!(!house.written().is_delivered(Position { due_ms: at, queue_offset: 0 }), "a power cut would lose it");
    let end = house.store().max_physical_offset();
    let store = Arc::clone(house.store.as_ref().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.flushed(end)).unwrap();
    drop(store);
    for _ in 0..2 {
        house.tick(at + 200);
    }
    assert!(house.written().is_past(Position { due_ms: at, queue_offset: 0 }));
}

#[test]
fn slots_torn_at_any_byte_are_built_anew() {
    let mut house = House::new();
    // All in one slot.
    let at = (house.t0 / SLOT_MS + 3) * SLOT_MS;
    for id in 0..6 {
        house.send(id, at + id as i64 * 1000);
    }
    house.run(house.t0);
    house.wait_flushed();
    for later in 1..4 {
        house.tick(house.t0 + later);
    }
    let file = std::fs::read_dir(house.path("timerslots")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(whole.len(), 6 * RECORD);
    let progress = std::fs::read_to_string(house.path("config/timerProgress.json")).unwrap();
    for cut in 0..=whole.len() {
        (house.engine, house.store) = (None, None);
        std::fs::create_dir_all(house.path("timerslots")).unwrap();
        for entry in std::fs::read_dir(house.path("timerslots")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let (torn, zeroes) = (&whole[..cut], vec![0; whole.len() - cut]);
        // As a lost tail, and as a tail of zeroes; the last time no file at all.
        let bytes = if cut % 2 == 0 { torn.to_vec() } else { [torn, &zeroes].concat() };
        if cut < whole.len() {
            std::fs::write(&file, bytes).unwrap();
        }
        std::fs::write(house.path("config/timerProgress.json"), &progress).unwrap();
        house.open(house.t0);
        house.run(at - SLOT_MS);
        assert_eq!(house.pending(), 6, "cut at {cut}");
    }
    house.run(at + 10_000);
    assert_eq!(house.delivered(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_lost_or_torn_progress_file_loses_nothing() {
    let mut house = House::new();
    let t0 = house.t0;
    for id in 0..20 {
        house.send(id, t0 + (id as i64 + 1) * 1000);
    }
    assert_eq!(house.run(t0 + 10_000), 10);
    house.wait_flushed();
    for later in 10_001..10_004 {
        house.tick(t0 + later);
    }
    let whole = std::fs::read(house.path("config/timerProgress.json")).unwrap();
    let mut now = t0 + 10_020;
    for cut in (0..whole.len()).step_by(13) {
        (house.engine, house.store) = (None, None);
        std::fs::write(house.path("config/timerProgress.json"), &whole[..cut]).unwrap();
        let _ = std::fs::remove_file(house.path("config/timerProgress.json.bak"));
        now += 1;
        house.open(now);
        house.run(now);
        assert_eq!(house.delivered().len(), 10, "cut at {cut}: the index knows what was delivered");
        assert_eq!(house.pending(), 10, "cut at {cut}");
    }
    house.run(t0 + 30_000);
    assert_eq!(house.delivered(), (0..20).collect::<Vec<_>>());
}

/// The log lost its end in a power cut, and the timer's files did not (apache/rocketmq#7480): offsets
/// are given to other messages, which must not be taken for those that were delivered.
#[test]
fn a_progress_ahead_of_the_log_is_cut_with_it() {
    let mut house = House::new();
    let t0 = house.t0;
    house.send(0, t0 + 2000);
    house.run(t0);
    (house.engine, house.store) = (None, None);
    let ahead = Progress {
        roll_offset: 90,
        read_offset: 100,
        delivered: Position::after(t0 + 50_000),
        precision_ms: 1000,
        slots: Some(SlotsManifest { generation: 1, taken: 100, ..SlotsManifest::default() }),
        ..Progress::default()
    };
    std::fs::write(house.path("config/timerProgress.json"), ahead.text()).unwrap();
    house.open(t0);
    for id in 1..50 {
        house.send(id, t0 + 3000);
    }
    house.run(t0 + 3000);
    let delivered = counts(&house.delivered());
    // The first one is below the marks that were believed; all that came after must be there.
    assert!((1..50).all(|id| delivered.get(&id) == Some(&1)), "{delivered:?}");
}

#[test]
fn a_queue_that_was_deleted_begins_anew() {
    let mut house = House::new();
    let t0 = house.t0;
    for id in 0..5 {
        house.send(id, t0 + 1000);
    }
    assert_eq!(house.run(t0 + 1000), 5);
    house.store().delete_topic(TIMER_TOPIC).unwrap();
    house.send(7, t0 + 2000);
    house.run(t0 + 2000);
    assert_eq!((house.delivered(), house.pending()), (vec![0, 1, 2, 3, 4, 7], 0));
}

/// The store stamps messages by the wall clock, so to the passes of this test every copy is as old as
/// its original, and each pass rolls once.
#[test]
fn a_message_that_waits_long_is_rolled_before_the_log_forgets_it() {
    let mut house = House::with(|house| house.settings.roll_window_ms = 2 * 86_400_000);
    let (t0, day) = (house.t0, 86_400_000);
    house.send(1, t0 + 10 * day);
    house.send(2, t0 + 3000);
    house.run(t0 + 3000);
    assert_eq!(house.delivered(), [2]);
    house.tick(t0 + day);
    assert_eq!(house.units(TIMER_TOPIC).len(), 2);
    // Half of three days is less than the window of two.
    assert_eq!(house.tick(t0 + 2 * day).rolled, 1);
    let copies = house.units(TIMER_TOPIC);
    assert_eq!(copies.len(), 3);
    let (first, copy) = (decode_message(&copies[0]).unwrap(), decode_message(&copies[2]).unwrap());
    assert_eq!((copy.body, copy.flag), (&b"1"[..], 7));
    assert_eq!(property(copy.properties, "TIMER_OUT_MS"), property(first.properties, "TIMER_OUT_MS"));
    // Killed before the roll was written down: the original is not rolled again, the index knows its copy.
    house.kill(t0 + 2 * day);
    assert_eq!(house.tick(t0 + 2 * day).rolled, 1);
    let units = house.units(TIMER_TOPIC);
    let times =
        |unit: &bytes::Bytes| property(decode_message(unit).unwrap().properties, "TIMER_ROLL_TIMES").map(str::to_owned);
    assert_eq!(units.iter().filter_map(times).collect::<Vec<_>>(), ["1", "2"]);
    // By the wall clock the copy is young.
    house.tick(t0);
    assert_eq!(house.pending(), 1);
    assert_eq!(house.run(t0 + 10 * day), 1);
    assert_eq!((house.delivered(), house.pending()), (vec![2, 1], 0));
    let delivered = house.units(TOPIC);
    assert_eq!(times(&delivered[1]).as_deref(), Some("2"));
}

#[test]
fn a_delivered_copy_carries_what_javas_carries() {
    let mut house = House::new();
    let at = house.t0 + 1500;
    house.send_with(5, at, &[("TAGS", "TagA")]);
    assert_eq!(house.run(at), 0, "it waits for the whole second");
    assert_eq!(house.run(house.t0 + 2000), 1);
    let units = house.units(TOPIC);
    let copy = decode_message(&units[0]).unwrap();
    let get = |name| property(copy.properties, name).map(str::to_owned);
    assert_eq!(get("TIMER_OUT_MS"), Some((house.t0 + 1000).to_string()));
    assert_eq!(get("TIMER_DEQUEUE_MS"), Some((house.t0 + 2000).to_string()));
    assert_eq!(get("TIMER_DELIVER_MS"), Some(at.to_string()));
    assert_eq!((get("REAL_TOPIC").as_deref(), get("REAL_QID").as_deref()), (Some(TOPIC), Some("0")));
    assert_eq!((get("TAGS").as_deref(), get(UNIQ_KEY).as_deref()), (Some("TagA"), Some("U5")));
    assert!(get("TIMER_ENQUEUE_MS").is_some());
    assert_eq!((copy.flag, copy.born_timestamp), (7, 1));
}

/// A master's answer to `GET_TIMER_CHECK_POINT` is all that a slave has beside the log.
#[test]
fn a_slave_that_becomes_master_goes_on_where_its_master_was() {
    let mut house = House::with(|house| house.index = false);
    let t0 = house.t0;
    for id in 0..30 {
        house.send(id, t0 + (id as i64 / 2 + 1) * 1000);
    }
    house.run(t0 + 7000);
    assert_eq!(house.delivered().len(), 14);
    let check_point = house.engine.as_ref().unwrap().check_point();
    (house.engine, house.store) = (None, None);
    std::fs::remove_dir_all(house.path("timerslots")).unwrap();
    std::fs::remove_dir_all(house.path("config")).unwrap();
    let slave = super::Timer::new(house.dir.path());
    assert!(slave.take_over(b"nothing").is_err());
    slave.take_over(&check_point).unwrap();
    slave.take_over(&Progress::default().to_wire()).unwrap();
    assert_eq!(house.written().read_offset, 30, "an empty master teaches nothing");
    house.open(t0 + 7500);
    assert_eq!(house.run(t0 + 7999), 0);
    house.run(t0 + 20_000);
    assert_eq!(house.delivered(), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_deletion_takes_the_message_of_its_time_and_key() {
    let mut house = House::new();
    let at = house.t0 + 5000;
    for id in 0..4 {
        house.send(id, at);
    }
    house.send_with(90, at, &[(DEL_UNIQKEY, "Real+U1")]);
    house.send_with(91, at, &[(DEL_UNIQKEY, "U2")]);
    house.send_with(92, at, &[(DEL_UNIQKEY, "Other+U3")]);
    house.run(house.t0);
    house.restart(house.t0);
    house.run(at);
    assert_eq!((house.delivered(), house.pending()), (vec![0, 3], 0));
}

#[test]
fn a_clock_set_back_neither_loses_nor_hurries() {
    let mut house = House::new();
    let t0 = house.t0;
    house.send(1, t0 + 100_000);
    house.run(t0 + 100_000);
    // An hour back: what is sent now is due before what was delivered.
    house.send(2, t0 - 3_500_000);
    assert_eq!(house.run(t0 - 3_510_000), 0);
    house.wait_flushed();
    house.run(t0 - 3_509_000);
    house.kill(t0 - 3_508_000);
    assert_eq!(house.run(t0 - 3_501_000), 0, "not early");
    house.run(t0 - 3_500_000);
    assert_eq!(house.delivered(), [1, 2]);
}

#[test]
fn a_clock_set_back_while_the_broker_was_down_loses_nothing() {
    for slots_are_lost in [false, true] {
        let mut house = House::new();
        let (t0, hour) = (house.t0, 3_600_000);
        house.send(1, t0 + 5 * hour);
        house.run(t0 + 5 * hour);
        house.restart(t0);
        // Far away, and yet before what was delivered.
        house.send(2, t0 + 4 * hour);
        house.run(t0);
        house.restart(t0 + 10);
        if slots_are_lost {
            (house.engine, house.store) = (None, None);
            std::fs::remove_dir_all(house.path("timerslots")).unwrap();
            house.open(t0 + 20);
        }
        house.run(t0 + 20);
        house.wait_flushed();
        house.run(t0 + 30);
        house.kill(t0 + 40);
        assert_eq!(house.run(t0 + 4 * hour - 1), 0);
        house.run(t0 + 4 * hour);
        assert_eq!(house.delivered(), [1, 2], "slots lost: {slots_are_lost}");
    }
}

#[test]
fn another_precision_delivers_nothing_early() {
    let mut house = House::new();
    let at = house.t0 + 5000 + 900;
    house.send(1, at);
    house.run(house.t0);
    house.settings.precision_ms = 100;
    house.kill(house.t0);
    house.send(2, at);
    assert_eq!(house.run(at - 1), 0);
    house.run(at);
    assert_eq!(house.delivered(), [2]);
    house.run(house.t0 + 6000);
    assert_eq!(house.delivered(), [2, 1]);
}

#[test]
fn what_is_no_timer_message_is_passed_over() {
    let mut house = House::new();
    let bad = |text: &[u8]| {
        let message = NewMessage {
            topic: TIMER_TOPIC,
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: HOST,
            store_host: HOST,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"x",
            properties: text,
        };
        house.store().append(&message).unwrap();
    };
    bad(b"");
    bad(b"TIMER_OUT_MS\x01x\x02REAL_TOPIC\x01T\x02REAL_QID\x010\x02");
    bad(b"TIMER_OUT_MS\x019223372036854775807\x02REAL_TOPIC\x01T\x02REAL_QID\x010\x02");
    bad(b"TIMER_OUT_MS\x011\x02REAL_TOPIC\x01T\x02REAL_QID\x01-4\x02");
    bad(b"TIMER_OUT_MS\x011\x02REAL_TOPIC\x01../T\x02REAL_QID\x010\x02");
    house.send(1, house.t0 + 1000);
    house.run(house.t0 + 1000);
    assert_eq!((house.delivered(), house.pending()), (vec![1], 0));
    house.kill(house.t0 + 2000);
    assert_eq!(house.run(house.t0 + 2000), 0);
}

#[test]
fn a_million_pending_messages_are_mostly_on_disk() {
    use super::slots::{Pending, Slots};
    let dir = tempfile::tempdir().unwrap();
    let mut slots = Slots::empty(dir.path(), 1).unwrap();
    slots.read_near(0, 0, |_| false).unwrap();
    for id in 0..1_000_000 {
        // Three days, evenly.
        let at = Position { due_ms: id * 259, queue_offset: id };
        slots.insert(Pending { at, deletes: false });
        if id % 50_000 == 0 {
            slots.write().unwrap();
        }
    }
    slots.write().unwrap();
    let (memory, disk) = (slots.in_memory(), bytes_in(dir.path()));
    assert_eq!(slots.len(), 1_000_000);
    assert!(memory < 10_000, "{memory} messages in memory");
    assert_eq!(disk, 1_000_000 * RECORD as u64);
}

fn bytes_in(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}
