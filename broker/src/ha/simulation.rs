//! A master and its slave on disks that forget, joined by a network that cuts, delays and loses: random lives of a pair, each
//! given by a seed.
//!
//! One thread plays both stores, both ends of each connection and the bytes between them, so a seed is a schedule. What
//! sends, compares and acknowledges is what brokers run. `HA_SEED=n` plays one seed, `HA_SEEDS=n` that many.
//!
//! With synchronous flush on both sides anything may happen to either node, one after the other; with asynchronous flush the
//! power stays. What holds all the time: what a slave acknowledges is the master's, byte for byte, and there to stay; what was
//! promised is on both nodes; a cut never takes away what was promised; a slave with another log is named on both sides and
//! never acknowledged against. At the end of each life the pair is healed and is one log and the same queues, or the slave's role
//! and the master's are changed and the old master's tail is the difference.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rocketmq_store::{FlushDiskType, MessageStore, NewMessage, SimulatedStore, StoreConfig};
use tempfile::TempDir;

use network::Link;

use super::followers::Followers;
use super::receiver::Diverged;

mod network;

const SEEDS: u64 = 1_000;
const LIVES: usize = 4;
const STEPS: usize = 90;
/// A healthy pair is one log after so many rounds.
const ROUNDS_TO_HEAL: usize = 400;
const TOPICS: [&str; 2] = ["A", "B"];

struct Node {
    store: SimulatedStore,
    _directory: TempDir,
}

impl Node {
    fn new(seed: u64, flush: FlushDiskType) -> Self {
        let directory = tempfile::tempdir_in(shared_memory()).unwrap();
        let config = StoreConfig {
            store_path_root_dir: directory.path().to_owned(),
            mapped_file_size_commit_log: 4096,
            mapped_file_size_consume_queue: 200,
            max_hash_slot_num: 20,
            max_index_num: 40,
            flush_disk_type: flush,
            disk_space_warning_level_ratio: 100,
            clean_file_forcibly_enable: false,
            ..StoreConfig::default()
        };
        let mut store = SimulatedStore::new(config, directory.path(), seed);
        store.open().unwrap();
        Self { store, _directory: directory }
    }

    fn open(&self) -> &MessageStore {
        self.store.store().expect("open")
    }
}

/// A message that the master took.
#[derive(Clone, Debug)]
struct Sent {
    end: u64,
    unit: Vec<u8>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
struct Pair {
    seed: u64,
    rng: StdRng,
    flush: FlushDiskType,
    truncates: bool,
    /// The slave asks the master where its log begins and ends, as it does where name servers tell it the master's port.
    asks: bool,
    master: Node,
    slave: Node,
    followers: Followers,
    links: Vec<Link>,
    next_port: u16,
    /// Not answered yet, by log offset.
    waiting: BTreeMap<u64, Sent>,
    /// Answered with `SEND_OK`, by log offset.
    promised: BTreeMap<u64, Sent>,
    /// How often the slave looked for the common beginning.
    depth: u32,
    diverged: Option<Diverged>,
    /// The two logs have nothing in common: only people can say which to keep.
    strangers: bool,
    /// The slave has an empty disk, and not yet everything.
    slave_is_new: bool,
    next_key: u64,
    nodes: u64,
    /// How often something was cut, lost or exchanged: a simulation in which that never happens shows nothing.
    cuts: u64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let flush = if rng.random_bool(0.7) { FlushDiskType::SyncFlush } else { FlushDiskType::AsyncFlush };
        Self {
            seed,
            truncates: rng.random_bool(0.7),
            asks: rng.random_bool(0.5),
            master: Node::new(seed ^ 0xA, flush),
            slave: Node::new(seed ^ 0xB, flush),
            rng,
            flush,
            followers: Followers::default(),
            links: Vec::new(),
            next_port: 1,
            waiting: BTreeMap::new(),
            promised: BTreeMap::new(),
            depth: 0,
            diverged: None,
            strangers: false,
            slave_is_new: false,
            next_key: 0,
            nodes: 0,
            cuts: 0,
        }
    }

    fn run(&mut self) {
        for _ in 0..LIVES {
            for _ in 0..self.rng.random_range(1..STEPS) {
                self.step();
            }
            match self.rng.random_range(0..4) {
                0 => self.fail_over(),
                1 => {
                    self.heal();
                    self.slave_is_replaced();
                }
                _ => {}
            }
            self.heal();
            if self.strangers {
                // Somebody empties the slave.
                self.new_slave();
                self.heal();
            }
        }
    }

    fn step(&mut self) {
        let step = self.rng.random_range(0..40);
        self.tell(|| format!("step {step}"));
        match step {
            0..=9 => self.append(),
            10..=12 => drop(self.master.store.flush()),
            13..=15 => drop(self.slave.store.flush()),
            16 => self.master.store.dispatch(),
            17 => self.slave.store.dispatch(),
            18 => drop(self.master.store.checkpoint()),
            19 => drop(self.slave.store.checkpoint()),
            20 | 21 => self.connect(),
            22 if self.rng.random_bool(0.5) => self.break_newest(),
            23 => self.trouble(),
            24 if self.rng.random_bool(0.4) => self.end_process(true),
            25 if self.rng.random_bool(0.4) => self.end_process(false),
            26 => self.links.iter_mut().for_each(|link| link.sender.heartbeat()),
            _ => self.network(),
        }
        // A node whose disk is off is a node that is gone.
        for is_master in [true, false] {
            if self.node(is_master).store.is_off() {
                self.end_process(is_master);
            }
        }
        self.answer();
    }

    fn node(&mut self, is_master: bool) -> &mut Node {
        if is_master { &mut self.master } else { &mut self.slave }
    }

    fn append(&mut self) {
        let key = self.next_key;
        self.next_key += 1;
        let body = vec![b'x'; [0, 40, 300, 900][self.rng.random_range(0..4_usize)]];
        let properties = format!("UNIQ_KEY\u{1}K{key}\u{2}");
        let host = "127.0.0.1:10911".parse().unwrap();
        let message = NewMessage {
            topic: TOPICS[self.rng.random_range(0..2_usize)],
            queue_id: self.rng.random_range(0..2),
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
        let store = self.master.open();
        if let Ok(appended) = store.append(&message) {
            let unit = store.message_at(appended.offset).expect("readable at once").to_vec();
            self.waiting.insert(appended.offset, Sent { end: appended.end, unit });
        }
    }

    /// What `send.rs` does: `SEND_OK` when disk and slave have it.
    fn answer(&mut self) {
        let flushed = match self.flush {
            FlushDiskType::SyncFlush => self.master.open().flushed_offset(),
            FlushDiskType::AsyncFlush => u64::MAX,
        };
        let held = self.followers.held_by(1);
        while let Some((offset, sent)) = self.waiting.first_key_value() {
            if sent.end > flushed || sent.end > held {
                return;
            }
            let (offset, sent) = (*offset, sent.clone());
            self.waiting.remove(&offset);
            self.promised.insert(offset, sent);
        }
    }

    /// Something is going to happen to a disk.
    fn trouble(&mut self) {
        let is_master = self.rng.random_bool(0.5);
        let (within, full) = (self.rng.random_range(1..60), self.rng.random_bool(0.5));
        let loses_power = self.flush == FlushDiskType::SyncFlush;
        match self.rng.random_range(0..4) {
            0 | 1 if loses_power => self.node(is_master).store.lose_power_within(within),
            2 => self.node(is_master).store.fail_within(within),
            _ => self.node(is_master).store.set_full(full),
        }
    }

    /// A process is killed, or stops, or loses its power, and comes back.
    fn end_process(&mut self, is_master: bool) {
        let loses_power = self.flush == FlushDiskType::SyncFlush && self.rng.random_bool(0.5);
        let closes = self.rng.random_bool(0.2);
        self.tell(|| format!("the process ends: master {is_master}, power {loses_power}"));
        let node = self.node(is_master);
        if closes && !node.store.is_off() {
            node.store.close();
        }
        if loses_power {
            node.store.lose_power();
        } else {
            node.store.kill();
        }
        self.reopen(is_master);
    }

    fn reopen(&mut self, is_master: bool) {
        let seed = self.seed;
        self.node(is_master)
            .store
            .open()
            .unwrap_or_else(|error| panic!("seed {seed}: the store does not open: {error}"));
        if is_master {
            // Who waited got no answer, and nothing is known of slaves.
            self.waiting.clear();
            self.followers = Followers::default();
            self.links.clear();
        } else {
            for link in &mut self.links {
                link.receiver = None;
            }
        }
        self.check_promised(is_master);
    }

    fn cut(&mut self, at: u64) {
        self.tell(|| format!("the slave's log is cut at {at}"));
        let promised = self.promised.values().map(|sent| sent.end).max().unwrap_or(0);
        assert!(at >= promised, "seed {}: cut at {at}, promised up to {promised}", self.seed);
        for link in &mut self.links {
            link.receiver = None;
        }
        self.slave.store.close();
        if self.slave.store.is_off() {
            self.slave.store.kill();
        } else {
            match self.slave.store.truncate(at) {
                Ok(cut_off) => assert!(cut_off.bytes > 0 && cut_off.kept.exists(), "seed {}", self.seed),
                Err(error) => self.tell(|| format!("the cut failed: {error}")),
            }
            self.slave.store.kill();
        }
        self.cuts += 1;
        self.reopen(false);
    }

    /// The slave's log is the master's up to what it acknowledged, and with synchronous flush on its disk.
    fn check_acknowledged(&self) {
        let (master, slave, held) = (self.master.open(), self.slave.open(), self.followers.held_by(1));
        // Half a message that was acknowledged is cut off by the slave's next start, and promises nothing.
        let held = master.record_start(held).unwrap_or(held);
        assert!(held <= slave.max_physical_offset(), "seed {}: {held} is acknowledged, {slave:?}", self.seed);
        if self.flush == FlushDiskType::SyncFlush {
            assert!(held <= slave.flushed_offset(), "seed {}: {held} is not on the slave's disk", self.seed);
        }
        assert!(log(master, held) == log(slave, held), "seed {}: acknowledged up to {held}, not the same", self.seed);
    }

    fn check_promised(&self, is_master: bool) {
        let store = if is_master { self.master.open() } else { self.slave.open() };
        if !is_master && self.slave_is_new {
            return;
        }
        for (offset, sent) in &self.promised {
            let found = store.message_at(*offset);
            assert!(
                found.as_deref() == Some(&sent.unit),
                "seed {}: the message at {offset} was promised, and is not there (master: {is_master}, {store:?})",
                self.seed
            );
        }
    }

    /// The master is gone; the slave is the master from now on, and the old one comes back as its slave, with its tail, or as
    /// an empty one.
    fn fail_over(&mut self) {
        self.tell(|| "fail-over".to_owned());
        self.slave.store.kill();
        self.master.store.kill();
        std::mem::swap(&mut self.master, &mut self.slave);
        self.depth = 0;
        self.reopen(true);
        if self.rng.random_bool(0.5) {
            self.new_slave();
        } else {
            self.reopen(false);
        }
    }

    /// The slave's disk is lost, while the pair is whole.
    fn slave_is_replaced(&mut self) {
        if self.master.open().max_physical_offset() == self.slave.open().max_physical_offset() {
            self.new_slave();
        }
    }

    fn new_slave(&mut self) {
        self.nodes += 1;
        self.slave_is_new = true;
        self.slave = Node::new(self.seed ^ (self.nodes << 32), self.flush);
        self.links.clear();
        // In a broker the marks of a slave that is gone stay: what it held was there. Here they would be taken for those of the
        // new one, of which the check asks for more.
        self.followers = Followers::default();
        (self.diverged, self.depth, self.strangers) = (None, 0, false);
    }

    /// Nothing disturbs any more: in the end both are one log, or the slave waits and says why.
    fn heal(&mut self) {
        self.tell(|| "heal".to_owned());
        for is_master in [true, false] {
            let node = self.node(is_master);
            node.store.kill();
            self.reopen(is_master);
        }
        self.links.clear();
        for round in 0..ROUNDS_TO_HEAL {
            if round == 3 {
                // A master that has written since shows the difference.
                self.append();
            }
            if self.links.last().is_none_or(|link| link.receiver.is_none()) {
                self.connect();
            }
            self.master.store.flush();
            self.slave.store.flush();
            let Some(newest) = self.links.len().checked_sub(1) else { continue };
            let remote = self.links[newest].remote;
            let is_there = |pair: &Self| pair.links.last().is_some_and(|link| link.remote == remote);
            self.send(newest, usize::MAX);
            if is_there(self) {
                self.deliver_to_slave(newest, usize::MAX);
            }
            if is_there(self) {
                if let Some(link) = self.links.last_mut()
                    && link.receiver.is_some()
                {
                    link.report(self.slave.store.store().expect("open"), None);
                }
                self.deliver_to_master(newest, usize::MAX);
            }
            if is_there(self) && round % 8 == 7 {
                self.links[newest].sender.heartbeat();
            }
            self.answer();
            if round > 3 && self.is_settled(round) {
                break;
            }
        }
        self.check_promised(true);
        self.slave_is_new = false;
        self.check_healed();
    }

    /// Whether more rounds change nothing.
    fn is_settled(&self, round: usize) -> bool {
        let end = self.master.open().max_physical_offset();
        if self.waits_for_people() {
            return round > 60 && !self.followers.diverged().is_empty();
        }
        self.diverged.is_none() && self.slave.open().max_physical_offset() == end && self.waiting.is_empty()
    }

    fn waits_for_people(&self) -> bool {
        self.diverged.is_some() && (!self.truncates || self.strangers)
    }

    fn check_healed(&self) {
        let (seed, master, slave) = (self.seed, self.master.open(), self.slave.open());
        if self.waits_for_people() {
            // Nothing but what both have was acknowledged, and the master knows why.
            self.check_acknowledged();
            assert!(!self.followers.diverged().is_empty(), "seed {seed}: the master does not name {:?}", self.diverged);
            return;
        }
        let end = master.max_physical_offset();
        assert_eq!(slave.max_physical_offset(), end, "seed {seed}: {:?}, depth {}", self.diverged, self.depth);
        assert!(log(master, end) == log(slave, end), "seed {seed}: two logs");
        assert!(self.waiting.is_empty(), "seed {seed}: not acknowledged: {:?}", self.waiting.keys());
        self.check_promised(false);
        self.master.store.dispatch();
        self.slave.store.dispatch();
        assert_eq!(slave.dispatched_offset(), end, "seed {seed}: not all is in the slave's queues");
        for topic in TOPICS {
            for queue_id in 0..2 {
                let of = |store: &MessageStore| store.queue_entries(topic, queue_id, 0, usize::MAX);
                let (ours, theirs) = (of(master), of(slave));
                assert_eq!(ours, theirs, "seed {seed}: {topic}-{queue_id}");
            }
        }
    }

    /// Tells the story when one seed is played.
    fn tell(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("HA_SEED").is_some() {
            let end = |node: &Node| node.store.store().map(|s| (s.flushed_offset(), s.max_physical_offset()));
            let (master, slave) = (end(&self.master), end(&self.slave));
            eprintln!("{} (master {master:?}, slave {slave:?}, held {})", what(), self.followers.held_by(1));
        }
    }
}

fn log(store: &MessageStore, end: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = store.min_physical_offset();
    while at < end {
        let Some(part) = store.read_raw(at, (end - at) as usize).filter(|part| !part.is_empty()) else { break };
        at += part.len() as u64;
        bytes.extend_from_slice(&part);
    }
    bytes
}

/// A directory for many small files: in memory where there is such a file system.
fn shared_memory() -> PathBuf {
    let directory = PathBuf::from("/dev/shm");
    if directory.is_dir() { directory } else { std::env::temp_dir() }
}

#[test]
fn a_pair_keeps_its_word_whatever_disks_and_network_do() {
    let number = |name| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let seeds = match number("HA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HA_SEEDS").unwrap_or(SEEDS),
    };
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let counts = parking_lot::Mutex::new((0, 0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let played = std::panic::catch_unwind(|| {
                        let mut pair = Pair::new(seed);
                        pair.run();
                        (pair.promised.len(), pair.cuts)
                    });
                    let Ok((promised, cuts)) = played else { panic!("HA_SEED={seed} plays it again") };
                    let mut counts = counts.lock();
                    *counts = (counts.0 + promised, counts.1 + cuts);
                }
            });
        }
    });
    let (promised, cuts) = counts.into_inner();
    println!("seeds {seeds:?}: {promised} messages promised, {cuts} logs cut");
    assert!(seeds.end - seeds.start < SEEDS || (promised > 2_000 && cuts > 100), "{promised} promised, {cuts} cut");
}
