//! Everything at once, for minutes: stock clients of both lines and a load of our own on two brokers, one of each flush mode, while
//! brokers, consumers and the name server are killed, stopped, paused and started again. A history checker says afterwards whether
//! what RocketMQ promises was kept.
//!
//! SIGKILL takes a process and not the machine, so nothing that was acknowledged may be lost, in either flush mode. The seed is
//! printed and decides what happens and when (`RMQ_SEED` sets it); how long it goes on is `SOAK_SECONDS`.

mod crew;
mod roles;
mod schedule;
mod station;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use crew::Crew;
use rocketmq_tests::{
    client::{Client, Sent},
    cluster::{Broker, Kind, NameServer},
    deliveries::Deliveries,
    history::History,
    java::Version,
    load::Numbers,
    process::wait_until,
    reader::Reader,
    session::Session,
};
use roles::{FLOWS, Flow, GROUPS, Group, Promise};
use rustix::process::Signal;
use schedule::{Event, schedule};
use station::Station;

const SECONDS: u64 = 100;
/// Of each topic, on each broker.
pub(crate) const QUEUES: i32 = 4;
const START: Duration = Duration::from_mins(2);
/// How long consumers may take at the end: a lock of a member that is gone is believed for a minute.
const DRAIN: Duration = Duration::from_mins(4);
/// What comes late that should never have come.
const LINGER: Duration = Duration::from_secs(4);

#[test]
fn everything_at_once_keeps_every_promise() -> Result<()> {
    let seed = number("RMQ_SEED").unwrap_or_else(rand::random);
    let lasts = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(SECONDS));
    eprintln!("RMQ_SEED={seed} SOAK_SECONDS={}", lasts.as_secs());
    let mut soak = Soak::start(seed)?;
    soak.run(seed, lasts).with_context(|| format!("RMQ_SEED={seed}"))?;
    let drained = soak.drain();
    let checked = soak.check();
    drained.and(checked).with_context(|| format!("RMQ_SEED={seed}"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Soak {
    // Clients end before what they talk to.
    producers: Vec<Session>,
    crews: Vec<Crew>,
    stations: Vec<Station>,
    namesrv: NameServer,
}

impl Soak {
    fn start(seed: u64) -> Result<Self> {
        let namesrv = NameServer::start(Kind::Ours)?;
        let numbers = Arc::<Numbers>::default();
        let mut stations = Vec::new();
        for (name, flush) in [("broker-a", "ASYNC_FLUSH"), ("broker-b", "SYNC_FLUSH")] {
            let broker = Broker::builder(Kind::Ours, name, &namesrv.addr())
                .set("flushDiskType", flush)
                // Small files, so that crashes meet their ends as well.
                .set("mappedFileSizeCommitLog", 4 << 20)
                .set("mappedFileSizeConsumeQueue", 20 * 1_000)
                .set("flushConsumerOffsetInterval", 1_000)
                .set("transactionCheckMax", 100_000)
                .start()?;
            namesrv.wait_registered(&broker)?;
            let mut reader = Reader::connect(broker.socket())?;
            for flow in &FLOWS {
                let made = reader.create_topic(flow.topic, QUEUES)?;
                ensure!(made.code == 0, "creating {}: {made:?}", flow.topic);
            }
            stations.push(Station::open(broker, &numbers, seed ^ stations.len() as u64)?);
        }
        let mut soak = Self { producers: Vec::new(), crews: Vec::new(), stations, namesrv };
        for version in Version::ALL {
            let client = Client::new(version, &soak.namesrv.addr());
            let mut producers = Session::start(version)?;
            for flow in &FLOWS {
                producers.run(flow.topic, &flow.producer(version, &client))?;
            }
            for flow in &FLOWS {
                producers.wait_for_event(flow.topic, "started", START)?;
            }
            soak.producers.push(producers);
            soak.crews.push(Crew::start(version, &soak.namesrv.addr())?);
        }
        Ok(soak)
    }

    fn run(&mut self, seed: u64, lasts: Duration) -> Result<()> {
        let began = Instant::now();
        for step in schedule(seed, lasts, self.stations.len(), self.crews.len(), GROUPS.len()) {
            // Events that took longer than planned leave less of them.
            if began.elapsed() > lasts {
                break;
            }
            std::thread::sleep(step.wait);
            eprintln!("{:>6.1} s: {:?}", began.elapsed().as_secs_f32(), step.event);
            self.happen(step.event).with_context(|| format!("{:?}", step.event))?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Restart { broker, kill, down } => self.stations[broker].restart(kill, down)?,
            Event::RestartNameServer => self.namesrv.restart()?,
            Event::PauseBroker { broker, pause } => {
                let process = self.stations[broker].broker.process()?;
                process.signal(Signal::STOP)?;
                std::thread::sleep(pause);
                process.signal(Signal::CONT)?;
            }
            Event::PauseConsumers { version, pause } => self.crews[version].pause(pause)?,
            Event::PauseProducers { version, pause } => {
                self.producers[version].signal(Signal::STOP)?;
                std::thread::sleep(pause);
                self.producers[version].signal(Signal::CONT)?;
            }
            Event::RestartMember { version, member, down } => self.crews[version].restart_member(member, down)?,
            Event::KillConsumers { version } => self.crews[version].kill()?,
        }
        Ok(())
    }

    /// Ends the sending, and waits until every group has what it is owed.
    fn drain(&mut self) -> Result<()> {
        for producers in &mut self.producers {
            FLOWS.iter().try_for_each(|flow| producers.stop(flow.topic))?;
            // Those of transactions stay, to be asked.
            FLOWS.iter().try_for_each(|flow| producers.wait_for_event(flow.topic, "quiet", START).map(drop))?;
        }
        let mut owed = String::new();
        let drained = wait_until(DRAIN, || {
            std::thread::sleep(Duration::from_millis(500));
            owed = self.owed()?;
            Ok(owed.is_empty())
        });
        drained.with_context(|| format!("the groups do not get everything: {owed}"))?;
        std::thread::sleep(LINGER);
        Ok(())
    }

    /// Reads what clients have said since the last time, and says what groups wait for.
    fn owed(&mut self) -> Result<String> {
        self.producers.iter_mut().try_for_each(Session::read)?;
        self.crews.iter_mut().try_for_each(Crew::read)?;
        let mut owed = Vec::new();
        for (member, group) in GROUPS.iter().enumerate() {
            for deliveries in self.to_be_complete(member) {
                let missing = deliveries.missing(times(group), group.meant);
                if let Some(first) = missing.first() {
                    owed.push(format!("{} {} as {first:?}", group.name, missing.len()));
                }
            }
            if group.promise == Promise::Retry {
                let dead = self.dead_letters(group).unwrap_or_default();
                if let Err(faults) = self.deliveries(member).check_dead_letters(&dead, roles::is_hopeless) {
                    owed.push(faults.to_string());
                }
            }
        }
        Ok(owed.join("; "))
    }

    /// What must be complete: what the group had together, or each of its members.
    fn to_be_complete(&self, member: usize) -> Vec<Deliveries> {
        if GROUPS[member].promise != Promise::Broadcast {
            return vec![self.deliveries(member)];
        }
        let each = self.crews.iter().map(|crew| {
            let mut deliveries = Deliveries::default();
            deliveries.sent(self.sent(GROUPS[member].topic)).received(crew.received_in_this_life(member));
            deliveries
        });
        each.collect()
    }

    fn deliveries(&self, member: usize) -> Deliveries {
        let mut deliveries = Deliveries::default();
        deliveries.sent(self.sent(GROUPS[member].topic));
        for crew in &self.crews {
            deliveries.received(crew.received(member));
        }
        deliveries
    }

    fn sent(&self, topic: &str) -> impl Iterator<Item = &Sent> {
        self.producers.iter().filter_map(move |producers| producers.output(topic)).flat_map(|output| &output.sent)
    }

    /// The keys of a group's dead letters.
    fn dead_letters(&self, group: &Group) -> Result<HashSet<String>> {
        let topic = format!("%DLQ%{}", group.name);
        let mut keys = HashSet::new();
        for station in &self.stations {
            for letter in Reader::connect(station.broker.socket())?.read_queue(&topic, 0, 0)? {
                keys.insert(letter.property("KEYS").context("a dead letter without keys")?.to_owned());
            }
        }
        Ok(keys)
    }

    fn check(&mut self) -> Result<()> {
        let mut faults = Vec::new();
        for (member, group) in GROUPS.iter().enumerate() {
            if let Err(error) = self.check_group(member) {
                faults.push(format!("{}: {error:#}", group.name));
            }
        }
        for flow in &FLOWS {
            if let Err(error) = self.check_positions(flow) {
                faults.push(format!("{}: {error:#}", flow.topic));
            }
        }
        for station in &mut self.stations {
            let name = station.broker.name().to_owned();
            match station.finish() {
                Ok(acknowledged) => eprintln!("{name}: {acknowledged} messages of our own load, all there"),
                Err(error) => faults.push(format!("{name}: {error:#}")),
            }
        }
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }

    fn check_group(&self, member: usize) -> Result<()> {
        let group = &GROUPS[member];
        let all = self.deliveries(member);
        let (acknowledged, delivered) = (all.acknowledged(), all.delivered());
        eprintln!("{}: {acknowledged} acknowledged in {}, {delivered} deliveries", group.name, group.topic);
        ensure!(acknowledged > 0 && delivered > 0, "nothing happened");
        for deliveries in self.to_be_complete(member) {
            deliveries.check_reached(times(group), group.meant)?;
        }
        all.check_meant(group.meant)?;
        match group.promise {
            Promise::Order => all.check_order(),
            Promise::Delay => all.check_not_early(roles::delay_ms),
            Promise::Retry => all.check_dead_letters(&self.dead_letters(group)?, roles::is_hopeless),
            Promise::Nothing | Promise::Direct | Promise::Broadcast => Ok(()),
        }
    }

    /// Where messages are stored under their topic at once, they lie where the acknowledgement says, and nowhere else.
    fn check_positions(&self, flow: &Flow) -> Result<()> {
        let direct = |group: &&Group| matches!(group.promise, Promise::Direct | Promise::Order | Promise::Retry);
        let Some(group) = GROUPS.iter().position(|group| group.topic == flow.topic && direct(&group)) else {
            return Ok(());
        };
        let mut history = History::default();
        history.sent(self.sent(flow.topic).cloned());
        for crew in &self.crews {
            history.received(crew.received(group).cloned());
        }
        history.check()
    }
}

/// How often a group refuses each message before it takes it.
fn times(group: &Group) -> i32 {
    i32::from(group.promise == Promise::Retry)
}
