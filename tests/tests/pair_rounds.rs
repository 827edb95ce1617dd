//! A pair with synchronous double write and synchronous flush that loses one of its two nodes for good, again and again under
//! load: no message that was answered with `SEND_OK` is lost.
//!
//! The master is killed, its disk forgotten, and its slave is the master from then on; or the slave is killed and an empty one takes its
//! place; meanwhile the slave is stopped now and then (SIGSTOP). The seed is printed; `RMQ_SEED` sets it and `RMQ_ROUNDS` the number
//! of rounds. What is random is decided by the seed; when a process dies is up to the machine.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rocketmq_tests::{
    cluster::{Broker, Kind},
    load::{Attempt, ID, Load, Numbers, Outcome, Plan},
    process::wait_until,
    reader::Reader,
};
use rustix::process::Signal;

const ROUNDS: u32 = 4;
const TOPIC: (&str, i32) = ("Pair", 4);
const LONG: Duration = Duration::from_mins(1);
/// Sends that must be acknowledged in each round before a node is lost.
const ENOUGH: u64 = 300;

#[test]
fn whichever_node_is_lost_what_was_acknowledged_stays() -> Result<()> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("RMQ_SEED").unwrap_or_else(rand::random);
    let rounds = number("RMQ_ROUNDS").map_or(ROUNDS, |rounds| rounds as u32);
    eprintln!("RMQ_SEED={seed}");
    let mut pair = Pair::start(seed)?;
    for round in 0..rounds {
        pair.round(round).with_context(|| format!("round {round} of RMQ_SEED={seed}"))?;
    }
    Ok(())
}

struct Pair {
    master: Broker,
    slave: Broker,
    random: SmallRng,
    numbers: Arc<Numbers>,
    /// Answered with `SEND_OK`.
    promised: Vec<Attempt>,
}

fn start_master() -> Result<Broker> {
    builder().set("brokerRole", "SYNC_MASTER").start()
}

fn start_slave(master: &Broker) -> Result<Broker> {
    let address = format!("127.0.0.1:{}", master.socket().port() + 1);
    builder().id(1).set("haMasterAddress", address).start()
}

fn builder() -> rocketmq_tests::cluster::BrokerBuilder {
    [
        ("flushDiskType", "SYNC_FLUSH"),
        ("haSendHeartbeatInterval", "200"),
        ("haHousekeepingInterval", "2000"),
        ("slaveTimeout", "3000"),
        ("haDivergedSlave", "TRUNCATE"),
        // Small files, so that losses meet their ends as well.
        ("mappedFileSizeCommitLog", "1048576"),
    ]
    .iter()
    .fold(Broker::builder(Kind::Ours, "broker-a", ""), |builder, (key, value)| builder.set(key, value))
}

impl Pair {
    fn start(seed: u64) -> Result<Self> {
        let master = start_master()?;
        let mut reader = Reader::connect(master.socket())?;
        ensure!(reader.create_topic(TOPIC.0, TOPIC.1)?.code == 0, "creating {}", TOPIC.0);
        let slave = start_slave(&master)?;
        let random = SmallRng::seed_from_u64(seed);
        Ok(Self { master, slave, random, numbers: Arc::default(), promised: Vec::new() })
    }

    fn round(&mut self, round: u32) -> Result<()> {
        let began = Instant::now();
        let plan = Plan {
            topics: vec![(TOPIC.0.to_owned(), TOPIC.1)],
            connections: 3,
            window: 8,
            rate: 200,
            body: 0..=3_000,
            delayed: false,
            hasty: false,
            seed: self.random.random(),
        };
        let load = Load::start(self.master.socket(), &plan, &self.numbers);
        wait_until(LONG, || Ok(load.stored() > ENOUGH)).context("the pair acknowledges nothing")?;
        if self.random.random_bool(0.5) {
            self.slave.process()?.signal(Signal::STOP)?;
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..500)));
            self.slave.process()?.signal(Signal::CONT)?;
        }
        std::thread::sleep(Duration::from_millis(self.random.random_range(0..300)));
        let loses_master = self.random.random_bool(0.5);
        let attempts = if loses_master {
            self.master.kill9()?;
            load.finish()?
        } else {
            self.slave.kill9()?;
            let attempts = load.finish()?;
            // Nobody waits for a slave that is gone, and nothing is said of it.
            self.slave = start_slave(&self.master)?;
            attempts
        };
        self.promised.extend(attempts.into_iter().filter(|one| matches!(one.outcome, Outcome::Stored { .. })));
        if loses_master {
            self.promote()?;
        }
        self.check()?;
        eprintln!(
            "round {round}: {} lost, {} acknowledged in all are there, {:?}",
            if loses_master { "the master" } else { "the slave" },
            self.promised.len(),
            began.elapsed()
        );
        Ok(())
    }

    /// The slave is the master from now on, and has an empty slave. The old master's disk is gone.
    fn promote(&mut self) -> Result<()> {
        self.slave.kill9()?;
        self.slave.set("brokerId", 0);
        self.slave.set("brokerRole", "SYNC_MASTER");
        self.slave.start()?;
        let next = start_slave(&self.slave)?;
        self.master = std::mem::replace(&mut self.slave, next);
        // Without a name server topics are not copied.
        let mut reader = Reader::connect(self.master.socket())?;
        ensure!(reader.create_topic(TOPIC.0, TOPIC.1)?.code == 0, "creating {}", TOPIC.0);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let mut reader = Reader::connect(self.master.socket())?;
        let mut found = HashMap::new();
        for queue in 0..TOPIC.1 {
            for message in reader.read_queue(TOPIC.0, queue, 0)? {
                found.insert((queue, message.queue_offset), message);
            }
        }
        for attempt in &self.promised {
            let Outcome::Stored { queue_offset, log_offset } = attempt.outcome else { continue };
            let message = found.get(&(attempt.queue, queue_offset)).with_context(|| format!("lost: {attempt:?}"))?;
            let same = message.property(ID) == Some(&attempt.id.to_string()) && message.log_offset == log_offset;
            ensure!(same, "another message in the place of {attempt:?}: {message:?}");
        }
        Ok(())
    }
}
