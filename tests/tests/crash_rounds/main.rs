//! A broker killed again and again under load: nothing that it acknowledged is lost, moved, doubled or given to another message.
//!
//! SIGKILL takes the process, not the machine, so this holds for asynchronous flush too. The seed is printed; `RMQ_SEED` sets it and
//! `RMQ_ROUNDS` the number of rounds. What is random is decided by the seed; when the process dies is up to the machine.

mod churn;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use churn::Churn;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rocketmq_tests::{
    cluster::{Broker, Kind},
    commits::{self, Commits},
    ledger::Ledger,
    load::{BODY_MAX, Load, Numbers, Plan},
    process::wait_until,
    reader::Reader,
};

const ROUNDS: u32 = 100;
/// Each this many rounds, everything is read again; in the others what is new, and samples of the rest.
const READ_ALL: u32 = 10;
const TOPICS: [(&str, i32); 3] = [("Storm", 4), ("StormWide", 8), ("StormNarrow", 1)];
/// The only refusal that a busy disk excuses.
const FLUSH_DISK_TIMEOUT: i64 = 10;

#[test]
fn a_hundred_kills_lose_nothing() -> Result<()> {
    let seed = number("RMQ_SEED").unwrap_or_else(rand::random);
    let rounds = number("RMQ_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("RMQ_SEED={seed}");
    let mut storm = Storm::start(seed)?;
    for round in 0..rounds {
        storm.round(round).with_context(|| format!("round {round} of RMQ_SEED={seed}"))?;
    }
    storm.end().with_context(|| format!("the end of RMQ_SEED={seed}"))
}

/// A topic that comes and goes while the broker is killed: what was deleted does not come back, and offsets start over.
#[test]
fn a_deleted_topic_stays_away() -> Result<()> {
    const LIVES: u32 = 20;
    let seed = number("RMQ_SEED").unwrap_or_else(rand::random);
    eprintln!("RMQ_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut broker = Broker::builder(Kind::Ours, "broker-a", "").set("mappedFileSizeCommitLog", 256 << 10).start()?;
    let mut churn = Churn::default();
    for round in 0..LIVES {
        let (addr, churn_seed) = (broker.socket(), random.random());
        std::thread::scope(|scope| {
            let churned = scope.spawn(|| churn.run(addr, churn_seed));
            std::thread::sleep(Duration::from_millis(random.random_range(30..400)));
            broker.kill9()?;
            churned.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the churn panicked")))
        })?;
        broker.start()?;
        let mut reader = Reader::connect(addr)?;
        churn.check(&mut reader).with_context(|| format!("round {round} of RMQ_SEED={seed}"))?;
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

struct Storm {
    broker: Broker,
    store: PathBuf,
    random: SmallRng,
    numbers: Arc<Numbers>,
    ledger: Ledger,
    commits: Commits,
    stored: u64,
    expired: usize,
}

impl Storm {
    fn start(seed: u64) -> Result<Self> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut broker = Broker::builder(Kind::Ours, "broker-a", "")
            // Small files, so that crashes meet their ends as well.
            .set("mappedFileSizeCommitLog", (1 << 20) << random.random_range(0..3))
            .set("mappedFileSizeConsumeQueue", 20 * 300)
            .set("maxHashSlotNum", 500)
            .set("maxIndexNum", 2_000)
            .set("flushConsumerOffsetInterval", 100)
            .set("flushDelayOffsetInterval", 500)
            .set("flushConsumeQueueThoroughInterval", 700)
            .set("deleteCommitLogFilesInterval", 10)
            .set("cleanResourceInterval", 100)
            .set("deleteWhen", (0..24).map(|hour| hour.to_string()).collect::<Vec<_>>().join(";"))
            .start()?;
        let mut reader = Reader::connect(broker.socket())?;
        for (topic, queues) in TOPICS {
            ensure!(reader.create_topic(topic, queues)?.code == 0, "creating {topic}");
        }
        broker.stop()?;
        let store = broker.store();
        Ok(Self {
            store,
            broker,
            random,
            numbers: Arc::default(),
            ledger: Ledger::default(),
            commits: Commits::default(),
            stored: 0,
            expired: 0,
        })
    }

    fn round(&mut self, round: u32) -> Result<()> {
        let began = Instant::now();
        let sync = round % 2 == 1;
        // In some rounds retention takes every log file but the last, as fast as it can.
        let retention = round % 7 == 5;
        self.broker.set("flushDiskType", if sync { "SYNC_FLUSH" } else { "ASYNC_FLUSH" });
        self.broker.set("fileReservedTime", if retention { 0 } else { 72 });
        self.broker.start()?;
        let early = if self.random.random_ratio(1, 4) { self.random.random_range(1..3) } else { 0 };
        for _ in 0..early {
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..300)));
            self.broker.kill9()?;
            self.broker.start()?;
        }
        let mut reader = Reader::connect(self.broker.socket())?;
        let recovered = began.elapsed();
        let report = self.check(&mut reader, round.is_multiple_of(READ_ALL))?;
        let checked = began.elapsed();

        let plan = Plan {
            topics: TOPICS.map(|(topic, queues)| (topic.to_owned(), queues)).to_vec(),
            connections: self.random.random_range(2..6),
            window: self.random.random_range(1..24),
            rate: 600,
            body: 0..=BODY_MAX,
            delayed: true,
            hasty: true,
            seed: self.random.random(),
        };
        let load = Load::start(self.broker.socket(), &plan, &self.numbers);
        let addr = self.broker.socket();
        let ends_well = self.random.random_ratio(1, 10);
        let lives = Duration::from_millis(self.random.random_range(30..900));
        let store = self.store.clone();
        let broker = &mut self.broker;
        let commits = &mut self.commits;
        std::thread::scope(|scope| {
            let committed = scope.spawn(|| commits.run(addr, Duration::ZERO));
            std::thread::sleep(lives);
            let persisted = commits::persisted(&store);
            let ended = if ends_well { broker.stop().map(drop) } else { broker.kill9() };
            let committed = committed.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the commits panicked")));
            ended.and(committed).and(persisted)
        })
        .map(|persisted| self.commits.expect(persisted, ends_well))?;
        self.stored += load.stored();
        self.ledger.add(load.finish()?)?;
        self.expired += report.expired;
        for ((code, remark), count) in self.ledger.refusals() {
            ensure!(code == FLUSH_DISK_TIMEOUT, "{count} sends were refused: {code} {remark}");
        }
        eprintln!(
            "round {round}: {}{}{early} early kills, ready after {} ms, {} read and {} confirmed in {} ms; {} stored so far",
            if sync { "sync, " } else { "" },
            if retention { "retention, " } else { "" },
            recovered.as_millis(),
            report.read,
            report.confirmed,
            checked.saturating_sub(recovered).as_millis(),
            self.stored,
        );
        Ok(())
    }

    fn check(&mut self, reader: &mut Reader, everything: bool) -> Result<rocketmq_tests::ledger::Report> {
        let report = self.ledger.check(reader, &self.store, everything)?;
        self.ledger.check_sample(reader, &self.store, 3, &mut self.random)?;
        self.commits.check(reader).context("committed offsets")?;
        Ok(report)
    }

    /// After the last crash: everything, the delayed ones as well; and once more after a clean stop.
    fn end(&mut self) -> Result<()> {
        self.broker.set("fileReservedTime", 72);
        self.broker.start()?;
        let mut reader = Reader::connect(self.broker.socket())?;
        self.check(&mut reader, true)?;
        wait_until(Duration::from_mins(1), || {
            self.ledger.check(&mut reader, &self.store, false)?;
            Ok(self.ledger.undelivered(&self.store)? == 0)
        })
        .with_context(|| format!("{:?} delayed messages were not delivered", self.ledger.undelivered(&self.store)))?;
        self.broker.stop()?;
        self.broker.start()?;
        let mut reader = Reader::connect(self.broker.socket())?;
        let report = self.check(&mut reader, true)?;
        let acknowledged = self.ledger.acknowledged();
        eprintln!(
            "{acknowledged} acknowledged, {} of them deleted unread by retention; {} read at the end",
            self.expired, report.read
        );
        ensure!(
            acknowledged > self.expired * 2,
            "retention took {} of {acknowledged} before they were read",
            self.expired
        );
        self.broker.stop()?;
        Ok(())
    }
}
