//! What the store itself costs, without a broker: appending beside its floor, opening, and building what is derived.
//!
//! The floor is what no store can do without: the checksum of a message's body and one copy of the message into
//! memory that is mapped and touched already. Both are CPU time of one thread. May not: judge; it prints.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memmap2::MmapMut;
use rocketmq_store::{MessageStore, NewMessage, StoreConfig, body_crc};
use rustix::time::{ClockId, clock_gettime};

const PROPERTIES: &[u8] = b"UNIQ_KEY\x01AC11000100002A9F0000000000000001\x02WAIT\x01true\x02TAGS\x01TagA\x02";
const QUEUES: i32 = 8;
/// A unit's bytes besides body, topic and properties.
const UNIT: usize = 91;
const TOPIC: &str = "rocketmq-bench";

/// Appends `gib` GiB of messages of each size under `dir`, opens the store again as it was left, and once more
/// without its consume queues and index. Prints a line for each.
pub fn run(dir: &Path, gib: f64) -> Result<()> {
    ensure!(gib > 0.0, "--gib is above 0");
    for size in [128, 1024] {
        let dir = tempfile::Builder::new().prefix("rocketmq-bench-store").tempdir_in(dir)?;
        let config = StoreConfig { store_path_root_dir: dir.path().to_owned(), ..StoreConfig::default() };
        let count = (gib * f64::from(1 << 30)) as u64 / (size + UNIT + TOPIC.len() + PROPERTIES.len()) as u64;
        let body = vec![b'x'; size];
        let floor = floor(&body, count)?;
        let append = append(&config, &body, count)?;
        let nanos = |time: Duration| time.as_nanos() as f64 / count as f64;
        println!(
            "append {size} B: {:.0} ns of CPU per message, floor {:.0} ns, ratio {:.2} ({count} messages)",
            nanos(append),
            nanos(floor),
            append.as_secs_f64() / floor.as_secs_f64()
        );
        let clean = open(&config)?;
        println!("open {size} B: {:.3} s for {gib} GiB closed cleanly", clean.as_secs_f64());
        for derived in ["consumequeue", "index"] {
            fs::remove_dir_all(dir.path().join(derived)).with_context(|| derived.to_owned())?;
        }
        let rebuild = open(&config)?;
        println!(
            "rebuild {size} B: {:.2} s per GiB for consume queues and index of {count} messages",
            rebuild.as_secs_f64() / gib
        );
    }
    Ok(())
}

/// CPU time of one thread for checksum and copy of as many messages.
fn floor(body: &[u8], count: u64) -> Result<Duration> {
    let unit = vec![b'u'; UNIT + TOPIC.len() + PROPERTIES.len() + body.len()];
    let mut memory = MmapMut::map_anon(64 << 20)?;
    memory.fill(1);
    let mut at = 0;
    let begun = thread_time();
    for _ in 0..count {
        std::hint::black_box(body_crc(std::hint::black_box(body)));
        if at + unit.len() > memory.len() {
            at = 0;
        }
        memory[at..at + unit.len()].copy_from_slice(std::hint::black_box(&unit));
        at += unit.len();
    }
    std::hint::black_box(&memory);
    Ok(thread_time().saturating_sub(begun))
}

/// CPU time of the appending thread, the store being opened and closed around it.
fn append(config: &StoreConfig, body: &[u8], count: u64) -> Result<Duration> {
    let store = MessageStore::open(config.clone())?;
    let host = "127.0.0.1:10911".parse()?;
    let message = |queue_id| NewMessage {
        topic: TOPIC,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: PROPERTIES,
    };
    let begun = thread_time();
    for i in 0..count {
        store.append(&message((i % u64::from(QUEUES.unsigned_abs())) as i32))?;
    }
    let spent = thread_time().saturating_sub(begun);
    store.shutdown();
    Ok(spent)
}

fn open(config: &StoreConfig) -> Result<Duration> {
    let begun = Instant::now();
    let store = MessageStore::open(config.clone())?;
    let spent = begun.elapsed();
    ensure!(store.dispatched_offset() == store.max_physical_offset(), "not everything is dispatched");
    store.shutdown();
    Ok(spent)
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}
