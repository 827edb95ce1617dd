//! The store on a disk that forgets, fails and fills up: random lives of a store, each given by a seed.
//!
//! One thread plays all of the store's threads, so a seed is a schedule. After each end of a life (clean, killed,
//! power lost) the store is opened again and must hold what it promised. `STORE_SEED=n` plays one seed, `STORE_SEEDS=n`
//! that many.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::check;
use crate::config::{FlushDiskType, StoreConfig};
use crate::consume_queue::UNIT;
use crate::disk::{Disk, Faults};
use crate::dispatcher;
use crate::log_reader::{LogReader, Record};
use crate::manifest::Manifest;
use crate::message::{NewMessage, decode_message, sys_flag};
use crate::retention;
use crate::simulated_disk::SimulatedDisk;
use crate::store::MessageStore;
use crate::worker::Signal;

const SEEDS: u64 = 1_500;
const LIVES: usize = 4;
const STEPS: usize = 40;
const TOPICS: [&str; 3] = ["A", "%RETRY%b", "Half"];

type Place = (&'static str, i32, i64);

/// A message that the store took.
#[derive(Debug, Clone)]
struct Sent {
    key: u64,
    topic: &'static str,
    queue_id: i32,
    /// `None` for those that enter no queue.
    queue_offset: Option<i64>,
    offset: u64,
    end: u64,
    body: Vec<u8>,
}

struct Simulation {
    seed: u64,
    rng: StdRng,
    config: StoreConfig,
    disk: Arc<SimulatedDisk>,
    store: Option<MessageStore>,
    /// What the log must or may hold, by log offset.
    sent: BTreeMap<u64, Sent>,
    /// Queue offsets that a reader may have seen, with the message that was there.
    seen: HashMap<Place, u64>,
    /// Everything below survives a power loss.
    durable: u64,
    /// Everything below must be there at the next opening.
    promised: u64,
    next_key: u64,
    /// Messages below had expired: a power loss may bring their log file back, but not their queue entries.
    expired: u64,
    /// Topics that were deleted, and up to which log offset their messages are of no queue any more.
    deleted: HashMap<&'static str, u64>,
    /// Those of which that is on disk.
    gone: HashMap<&'static str, u64>,
    /// Whether bits flip in old files; then no topic is deleted.
    rots: bool,
}

impl Simulation {
    fn new(seed: u64, rots: bool, root: &Path) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let flush = if seed.is_multiple_of(2) { FlushDiskType::SyncFlush } else { FlushDiskType::AsyncFlush };
        let config = StoreConfig {
            store_path_root_dir: root.to_owned(),
            mapped_file_size_commit_log: [4096, 8192, 10_000][rng.random_range(0..3_usize)],
            mapped_file_size_consume_queue: 200,
            max_hash_slot_num: 20,
            max_index_num: 40,
            flush_disk_type: flush,
            max_message_size: 2000,
            disk_space_warning_level_ratio: 100,
            clean_file_forcibly_enable: false,
            derived_checked_at_open: 1 + seed as usize % 1000,
            ..StoreConfig::default()
        };
        Self {
            seed,
            rng,
            config,
            disk: Arc::new(SimulatedDisk::new(root, seed ^ 0xD15C)),
            store: None,
            sent: BTreeMap::new(),
            seen: HashMap::new(),
            durable: 0,
            promised: 0,
            next_key: 0,
            expired: 0,
            deleted: HashMap::new(),
            gone: HashMap::new(),
            rots,
        }
    }

    fn store(&self) -> &MessageStore {
        self.store.as_ref().expect("open")
    }

    fn run(&mut self) {
        self.open();
        for _ in 0..LIVES {
            self.live();
            self.end();
            self.open();
            self.check();
        }
    }

    /// Opens the store, sometimes with the power going meanwhile.
    fn open(&mut self) {
        let disk = || Disk::with_faults(Arc::clone(&self.disk) as Arc<dyn Faults>);
        if self.rng.random_bool(0.2) {
            let within = self.rng.random_range(1..60);
            self.disk.power_off_within(within);
            drop(MessageStore::recover(self.config.clone(), disk()));
            if self.disk.is_off() {
                self.disk.power_on();
                self.promised = self.durable;
            } else {
                self.disk.process_ended();
            }
        }
        let store = MessageStore::recover(self.config.clone(), disk());
        self.store = Some(store.unwrap_or_else(|e| panic!("seed {}: the store does not open: {e}", self.seed)));
    }

    fn live(&mut self) {
        let steps = self.rng.random_range(1..STEPS);
        match self.rng.random_range(0..10) {
            0..=4 => {
                let within = self.rng.random_range(1..80);
                self.disk.power_off_within(within);
            }
            5 => {
                let within = self.rng.random_range(1..40);
                self.disk.fail_within(within);
            }
            _ => {}
        }
        for _ in 0..steps {
            let step = self.rng.random_range(0..20);
            self.tell(|| format!("step {step}"));
            match step {
                0..=8 => self.append(),
                9 | 10 => self.flush(),
                11..=14 => self.dispatch(),
                15 => drop(self.store().core().flush_queues(0)),
                16 => drop(self.store().core().checkpoint_all()),
                17 => self.expire(),
                18 if self.rots => self.rot(),
                18 => self.delete_topic(),
                _ => {
                    let full = self.rng.random_bool(0.5);
                    self.disk.set_full(full);
                }
            }
            if self.disk.is_off() {
                return;
            }
            self.note_durable();
        }
    }

    /// Tells the story when one seed is played.
    fn tell(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("STORE_SEED").is_some() {
            let (dispatched, flushed) =
                self.store.as_ref().map_or((0, 0), |s| (s.dispatched_offset(), s.flushed_offset()));
            eprintln!("{} (dispatched {dispatched}, flushed {flushed})", what());
        }
    }

    fn append(&mut self) {
        let topic = TOPICS[self.rng.random_range(0..TOPICS.len())];
        let queue_id = self.rng.random_range(0..2);
        let count = if topic != "Half" && self.rng.random_bool(0.2) { self.rng.random_range(2..5) } else { 1 };
        let bodies: Vec<Vec<u8>> = (0..count).map(|_| self.body()).collect();
        let keys: Vec<u64> = (0..count).map(|i| self.next_key + i as u64).collect();
        self.next_key += count as u64;
        let properties: Vec<String> = keys.iter().map(|k| format!("UNIQ_KEY\u{1}K{k}\u{2}TAGS\u{1}t\u{2}")).collect();
        let host = "127.0.0.1:10911".parse().unwrap();
        let messages: Vec<NewMessage<'_>> = (0..count)
            .map(|i| NewMessage {
                topic,
                queue_id,
                flag: 0,
                sys_flag: if topic == "Half" { sys_flag::TRANSACTION_PREPARED } else { 0 },
                born_timestamp: 1,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: &bodies[i],
                properties: properties[i].as_bytes(),
            })
            .collect();
        let Ok(first) = self.store().append_batch(&messages) else {
            return;
        };
        let mut offset = first.offset;
        for (i, body) in bodies.into_iter().enumerate() {
            let unit = self.store().message_at(offset).expect("readable at once");
            let end = offset + unit.len() as u64;
            let queue_offset = (topic != "Half").then(|| first.queue_offset + i as i64);
            if let Some(queue_offset) = queue_offset {
                let before = self.seen.get(&(topic, queue_id, queue_offset));
                assert!(before.is_none(), "seed {}: {topic}-{queue_id} {queue_offset} given out twice", self.seed);
            }
            self.sent.insert(offset, Sent { key: keys[i], topic, queue_id, queue_offset, offset, end, body });
            offset = end;
        }
        assert_eq!(offset, first.end);
        self.tell(|| format!("{topic}-{queue_id}: {count} at {}, queue offset {}", first.offset, first.queue_offset));
    }

    fn body(&mut self) -> Vec<u8> {
        let len = [0, 1, 50, 300, 700][self.rng.random_range(0..5_usize)];
        let byte = self.rng.random_range(0..3);
        vec![byte; len]
    }

    fn flush(&mut self) {
        let _ = self.store().core().flush_log(0);
    }

    /// Dispatches to the end, or for one file.
    fn dispatch(&mut self) {
        let signal = Signal::never();
        let whole = self.rng.random_bool(0.7);
        while dispatcher::advance(self.store().core(), &signal).unwrap_or(false) && whole {}
        self.look();
    }

    /// A consumer reads everything: with synchronous flush nothing that a power loss could take back.
    fn look(&mut self) {
        let durable = self.store().flushed_offset();
        for topic in self.store().topics_with_queues() {
            let name = TOPICS.into_iter().find(|t| *t == topic.topic).expect("a topic of ours");
            for queue in topic.queues {
                for entry in self.store().queue_entries(name, queue.queue_id, 0, usize::MAX) {
                    let end = entry.offset + u64::from(entry.size);
                    if self.config.flush_disk_type == FlushDiskType::SyncFlush {
                        assert!(end <= durable, "seed {}: {entry:?} is read before it is durable", self.seed);
                    }
                    let key = self.sent[&entry.offset].key;
                    let before = self.seen.insert((name, queue.queue_id, entry.queue_offset), key);
                    assert!(before.is_none_or(|b| b == key), "seed {}: two messages at {entry:?}", self.seed);
                }
            }
        }
    }

    /// Deletes what is older than now: all files but the newest, once flushed and dispatched.
    fn expire(&mut self) {
        if self.rng.random_bool(0.3) {
            self.store().set_file_reserved_time(Duration::ZERO);
            let deleted = retention::clean_now(self.store().core());
            self.expired = self.store().min_physical_offset();
            self.tell(|| format!("expired: {deleted:?}, log from {}", self.store().min_physical_offset()));
        }
    }

    /// A bit of a full queue file flips; the check finds it, whatever the disk does meanwhile.
    fn rot(&mut self) {
        // Only what was noted can be compared.
        drop(self.store().core().checkpoint_all());
        let core = self.store().core();
        let mut full = Vec::new();
        for queue in core.queues.all() {
            let files = queue.files();
            full.extend(
                files.iter().take(files.len().saturating_sub(1)).map(|file| (Arc::clone(&queue), Arc::clone(file))),
            );
        }
        full.retain(|(queue, file)| queue.noted_checksum(file).is_some());
        full.sort_by_key(|(_, file)| file.path().to_owned());
        if full.is_empty() || self.disk.is_off() {
            return;
        }
        let (queue, file) = full.swap_remove(self.rng.random_range(0..full.len()));
        let good = std::fs::read(file.path()).unwrap();
        let at = self.rng.random_range(0..good.len());
        let flip = |byte: u8| {
            let opened = std::fs::File::options().write(true).open(file.path()).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&opened, &[byte], at as u64).unwrap();
        };
        flip(good[at] ^ 0x20);
        let is_used = (file.start / UNIT) as i64 + (at as u64 / UNIT) as i64 >= queue.min_offset();
        let core = self.store().core();
        core.check.done.store(false, std::sync::atomic::Ordering::Relaxed);
        let done = check::round(core, &Signal::never());
        let is_good = std::fs::read(file.path()).is_ok_and(|now| now == good);
        let (off, is_gone) = (self.disk.is_off(), !file.path().exists());
        self.tell(|| format!("rot of {} at {at}: {done}, {is_good}", file.path().display()));
        assert!(is_good || is_gone || !done || !is_used, "seed {}: byte {at} of {}", self.seed, file.path().display());
        if !is_good && !off && !is_gone {
            flip(good[at]);
        }
    }

    fn delete_topic(&mut self) {
        if self.rng.random_bool(0.2) {
            let topic = TOPICS[self.rng.random_range(0..2_usize)];
            if self.store().core().flush_log(0).is_err() {
                return;
            }
            let signal = Signal::never();
            while dispatcher::advance(self.store().core(), &signal).unwrap_or(false) {}
            if self.store().dispatched_offset() == self.store().max_physical_offset() {
                let deleted = self.store().delete_topic(topic);
                self.tell(|| format!("{topic} deleted: {deleted:?}"));
                let end = self.store().max_physical_offset();
                self.deleted.insert(topic, end);
                let noted = Manifest::load(&self.config.store_path_root_dir, &Disk::default());
                if deleted.is_ok() && noted.is_some_and(|noted| noted.deleted.get(topic) == Some(&end)) {
                    self.gone.insert(topic, end);
                }
                self.seen.retain(|place, _| place.0 != topic);
            }
        }
    }

    fn note_durable(&mut self) {
        self.durable = self.durable.max(self.store().flushed_offset());
    }

    /// Ends this life: cleanly, by a kill, or with the power.
    fn end(&mut self) {
        if !self.disk.is_off() {
            self.note_durable();
            match self.rng.random_range(0..3) {
                0 => {
                    self.disk.set_full(false);
                    let signal = Signal::never();
                    let _ = self.store().core().flush_log(0);
                    while dispatcher::advance(self.store().core(), &signal).unwrap_or(false) {}
                    if self.store().dispatched_offset() == self.store().max_physical_offset() {
                        self.store().shutdown();
                    }
                }
                1 => self.disk.power_off(),
                _ => {}
            }
            if !self.disk.is_off() {
                self.note_durable();
            }
        }
        let off = self.disk.is_off();
        self.tell(|| format!("the end, power off: {off}"));
        self.store = None;
        if off {
            self.disk.power_on();
            self.promised = self.durable;
        } else {
            self.disk.process_ended();
            // A kill alone takes nothing.
            self.promised = u64::MAX;
        }
    }

    /// Everything that was promised is there, and nothing that was not sent.
    fn check(&mut self) {
        let seed = self.seed;
        let store = self.store.take().expect("open");
        // What flipped when the power went is in files that opening does not look at.
        assert!(!self.rots || check::round(store.core(), &Signal::never()), "seed {seed}: it cannot be compared");
        let min = store.min_physical_offset();
        self.sent = self.sent.split_off(&min);
        let mut lost = BTreeMap::new();
        for sent in self.sent.values() {
            match store.message_at(sent.offset).as_deref().map(decode_message) {
                Some(Ok(m)) if m.body == sent.body && m.topic == sent.topic && is_key(&m, sent.key) => {}
                found => {
                    let promised = self.promised;
                    assert!(sent.end > promised, "seed {seed}: lost {sent:?}, found {found:?}, promised {promised}");
                    lost.insert(sent.offset, sent.key);
                }
            }
        }
        // Without rot what is lost is a tail.
        if let Some((first, _)) = lost.first_key_value() {
            assert_eq!(self.sent.split_off(first).len(), lost.len(), "seed {seed}: a hole at {first}");
        }
        // Asynchronous flush promises nothing of a tail, its offsets included.
        self.seen.retain(|_, key| !lost.values().any(|lost| lost == key));
        self.check_log(&store);
        self.tell(|| format!("opened: log from {min} to {}", store.max_physical_offset()));
        self.check_derived(&store);
        self.store = Some(store);
        self.look();
        self.durable = self.durable.max(self.store().flushed_offset());
    }

    /// The log is readable to its end and holds nothing else: an append that failed left nothing.
    fn check_log(&self, store: &MessageStore) {
        let mut reader = LogReader::new(&store.core().log.files, store.min_physical_offset());
        while let Some(record) = reader.next_record() {
            let Record::Message(m) = record else { continue };
            assert!(self.sent.contains_key(&m.physical_offset), "seed {}: a phantom: {m:?}", self.seed);
        }
        assert_eq!(reader.offset(), store.max_physical_offset(), "seed {}: the log ends early", self.seed);
    }

    /// Queues and index are what reading the whole log gives.
    fn check_derived(&self, store: &MessageStore) {
        let seed = self.seed;
        let mut expected: BTreeMap<(&str, i32), Vec<(i64, u64)>> = BTreeMap::new();
        for sent in self.sent.values() {
            if let Some(queue_offset) = sent.queue_offset {
                expected.entry((sent.topic, sent.queue_id)).or_default().push((queue_offset, sent.offset));
            }
        }
        for ((topic, queue_id), messages) in expected {
            let entries = store.queue_entries(topic, queue_id, 0, usize::MAX);
            let tags_code = i64::from(crate::properties::java_string_hash("t"));
            assert!(entries.iter().all(|e| e.tags_code == tags_code), "seed {seed}: {entries:?}");
            let gone = self.gone.get(topic).copied().unwrap_or(0);
            assert!(entries.iter().all(|e| e.offset >= gone), "seed {seed}: {topic} is back: {entries:?}");
            let found: Vec<(i64, u64)> = entries.iter().map(|e| (e.queue_offset, e.offset)).collect();
            // A deleted topic keeps its messages in the log, and they may come back when a damaged queue makes the
            // whole log be dispatched again; what came after it started over.
            let deleted = self.deleted.get(topic).copied().unwrap_or(0).max(self.expired);
            let messages = &messages[messages.partition_point(|(_, offset)| *offset < deleted)..];
            if messages.is_empty() {
                continue;
            }
            assert!(found.ends_with(messages), "seed {seed}: {topic}-{queue_id} is {found:?} instead of {messages:?}");
        }
        for sent in self.sent.range(self.expired..).map(|(_, sent)| sent).step_by(7) {
            let found = store.query(sent.topic, &format!("K{}", sent.key), 8, 0, i64::MAX).messages;
            assert_eq!(found.len(), 1, "seed {seed}: by its key {sent:?}");
        }
    }
}

fn is_key(m: &crate::message::MessageView<'_>, key: u64) -> bool {
    crate::properties::property(m.properties, crate::properties::UNIQ_KEY) == Some(&format!("K{key}"))
}

/// A directory for many small files: in memory where there is such a file system.
pub(crate) fn shared_memory() -> PathBuf {
    let dir = PathBuf::from("/dev/shm");
    if dir.is_dir() { dir } else { std::env::temp_dir() }
}

#[test]
fn promises_hold_whatever_the_disk_does() {
    play(SEEDS, false);
}

#[test]
fn rot_is_mended_whatever_the_disk_does() {
    play(SEEDS / 10, true);
}

fn play(seeds: u64, rots: bool) {
    let number = |name| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let seeds = match number("STORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STORE_SEEDS").unwrap_or(seeds),
    };
    if seeds.end - seeds.start == 1 {
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    }
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let dir = tempfile::tempdir_in(shared_memory()).unwrap();
                    let played = std::panic::catch_unwind(|| Simulation::new(seed, rots, dir.path()).run());
                    assert!(played.is_ok(), "STORE_SEED={seed} plays it again");
                }
            });
        }
    });
}
