//! What each broker goes through in a round, and what is noted of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::QUEUES;
use super::many::{self, Many};
use super::server::{Kind, Programs, Server};
use crate::load::{Amount, Load};
use crate::outcome::Outcome;
use crate::process_cost;
use crate::pull::{self, Queues};
use crate::send::{self, Messages};
use crate::topic;

/// How long each part takes.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Before idle costs are taken, after the start.
    pub settle: Duration,
    /// Idle.
    pub idle: Duration,
    /// A load that does not count, so that the Java broker's code is compiled.
    pub warm_up: Duration,
    /// The measured span of each load.
    pub load: Duration,
}

impl Times {
    /// For figures to keep.
    pub const FULL: Self = Self {
        settle: Duration::from_secs(3),
        idle: Duration::from_secs(10),
        warm_up: Duration::from_secs(10),
        load: Duration::from_secs(6),
    };
    /// To see whether all works, and roughly where we are.
    pub const QUICK: Self = Self {
        settle: Duration::from_secs(1),
        idle: Duration::from_secs(3),
        warm_up: Duration::from_secs(4),
        load: Duration::from_secs(2),
    };
}

/// One load.
#[derive(Debug)]
pub struct Scenario {
    /// For people.
    pub title: &'static str,
    topic: &'static str,
    connections: u32,
    ask: Ask,
}

#[derive(Debug)]
enum Ask {
    Send {
        in_flight: u32,
        size: usize,
        batch: u32,
        rate: Option<f64>,
    },
    /// All that has been written, again and again.
    Pull,
    /// What is sent at that rate meanwhile, by so many groups; each delivery counts.
    FanOut {
        groups: u32,
        rate: f64,
    },
}

const fn sending(size: usize, batch: u32, in_flight: u32) -> Ask {
    Ask::Send { in_flight, size, batch, rate: None }
}

const WARM_UP: Scenario =
    Scenario { title: "warm-up", topic: "bench-warm-up", connections: 8, ask: sending(1024, 1, 32) };

/// In the order in which they run; what is pulled has been written just before.
pub const SCENARIOS: [Scenario; 9] = [
    Scenario {
        title: "send 1 KiB, one at a time, 1 connection",
        topic: "bench-one",
        connections: 1,
        ask: sending(1024, 1, 1),
    },
    Scenario {
        title: "send 1 KiB, one at a time, 8 connections",
        topic: "bench-one",
        connections: 8,
        ask: sending(1024, 1, 1),
    },
    Scenario {
        title: "send 1 KiB, one at a time, 64 connections",
        topic: "bench-one",
        connections: 64,
        ask: sending(1024, 1, 1),
    },
    Scenario {
        title: "send 1 KiB, 10,000 a second, 8 connections",
        topic: "bench-rate",
        connections: 8,
        ask: Ask::Send { in_flight: 64, size: 1024, batch: 1, rate: Some(10_000.0) },
    },
    Scenario {
        title: "send 1 KiB, 4 connections × 16 in flight",
        topic: "bench-1k",
        connections: 4,
        ask: sending(1024, 1, 16),
    },
    Scenario { title: "pull 1 KiB by 32, a backlog, 8 queues", topic: "bench-1k", connections: 8, ask: Ask::Pull },
    Scenario {
        title: "send 128 B, 4 connections × 16 in flight",
        topic: "bench-128",
        connections: 4,
        ask: sending(128, 1, 16),
    },
    Scenario {
        title: "send batches of 16 × 1 KiB, 4 connections × 4 in flight",
        topic: "bench-batch",
        connections: 4,
        ask: sending(1024, 16, 4),
    },
    Scenario {
        title: "send 4,000 of 1 KiB a second, 8 groups wait for them",
        topic: "bench-fan-out",
        connections: 8,
        ask: Ask::FanOut { groups: 8, rate: 4_000.0 },
    },
];

/// What one broker showed in one round.
#[derive(Debug)]
pub struct Visit {
    /// Process start to first acknowledged message, ms.
    pub start_up_ms: f64,
    /// Private memory while idle, MiB.
    pub idle_mib: f64,
    /// CPU while idle, ms per second.
    pub idle_cpu_ms: f64,
    /// Private memory after all loads, MiB.
    pub loaded_mib: f64,
    /// By [`SCENARIOS`].
    pub outcomes: Vec<Outcome>,
    /// Of a broker with many topics.
    pub many: Many,
}

/// Takes a broker in an empty directory through everything, and another one through what [`many`] has.
///
/// # Errors
/// It does not serve, or refused a request: a figure with errors in it is no figure.
pub fn visit(kind: Kind, programs: &Programs, home: &Path, times: Times) -> Result<Visit> {
    let server = Server::start(kind, programs, home, 0)?;
    let mebibytes = |kib: u64| kib as f64 / 1024.0;
    std::thread::sleep(times.settle);
    let ticks = process_cost::cpu_ticks(server.pid())?;
    std::thread::sleep(times.idle);
    let ticks = process_cost::cpu_ticks(server.pid())? - ticks;
    let idle_cpu_ms = process_cost::micros(ticks) / 1e3 / times.idle.as_secs_f64();
    let idle_mib = mebibytes(process_cost::memory(server.pid())?.anonymous);
    run(&WARM_UP, &server, times.warm_up).context(WARM_UP.title)?;
    let mut outcomes = Vec::new();
    for scenario in &SCENARIOS {
        let outcome = run(scenario, &server, times.load).with_context(|| format!("{kind}: {}", scenario.title))?;
        eprint!("-- {kind}: {}\n{outcome}", scenario.title);
        println!("{}", outcome.json(&format!("{kind}: {}", scenario.title)));
        ensure!(outcome.errors.is_empty(), "{kind}: {}: refused by code: {:?}", scenario.title, outcome.errors);
        outcomes.push(outcome);
    }
    let loaded_mib = mebibytes(process_cost::memory(server.pid())?.anonymous);
    let start_up_ms = server.start_up.as_secs_f64() * 1e3;
    drop(server);
    std::fs::remove_dir_all(home)?;
    let many = many::visit(kind, programs, home, times).context("many topics")?;
    Ok(Visit { start_up_ms, idle_mib, idle_cpu_ms, loaded_mib, outcomes, many })
}

fn run(scenario: &Scenario, server: &Server, time: Duration) -> Result<Outcome> {
    let mut load = Load {
        broker: server.address.clone(),
        connections: scenario.connections,
        in_flight: 1,
        amount: Amount::Time(time),
        warm_up: time / 6,
        rate: None,
        pid: Some(server.pid()),
    };
    let topic = scenario.topic.to_owned();
    match scenario.ask {
        Ask::Send { in_flight, size, batch, rate } => {
            topic::create(&server.address, &topic, QUEUES)?;
            load.in_flight = in_flight;
            load.rate = rate;
            send::run(&load, &Messages { topic, topics: 1, queues: QUEUES, size, batch })
        }
        Ask::Pull => pull::run(&load, &Queues { topic, count: QUEUES, from: 0, batch: 32, groups: 1, hold: None }),
        Ask::FanOut { groups, rate } => fan_out(&load, time, topic, groups, rate),
    }
}

/// Pulls of several groups that wait for what is sent meanwhile.
fn fan_out(load: &Load, time: Duration, topic: String, groups: u32, rate: f64) -> Result<Outcome> {
    topic::create(&load.broker, &topic, QUEUES)?;
    // It goes on a while, so that no pull is left waiting when all is counted.
    let time = load.warm_up + time + Duration::from_secs(2);
    let sending = Load {
        connections: 1,
        in_flight: 64,
        amount: Amount::Time(time),
        warm_up: Duration::ZERO,
        rate: Some(rate),
        pid: None,
        ..load.clone()
    };
    let messages = Messages { topic: topic.clone(), topics: 1, queues: QUEUES, size: 1024, batch: 1 };
    let queues = Queues { topic, count: QUEUES, from: 0, batch: 32, groups, hold: Some(Duration::from_secs(5)) };
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send::run(&sending, &messages));
        let mut pulled = pull::run(load, &queues)?;
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        pulled.errors.extend(sent.errors);
        Ok(pulled)
    })
}
