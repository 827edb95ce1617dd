//! One broker of the soak: our own load and commits on it while it lives, and what it must hold when it comes back.

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use rocketmq_tests::{
    cluster::Broker,
    commits::{self, Commits},
    ledger::Ledger,
    load::{BODY_MAX, Load, Numbers, Plan},
    process::wait_until,
    reader::Reader,
};

/// The only refusal that a busy disk excuses.
const FLUSH_DISK_TIMEOUT: i64 = 10;
/// Between two commits of our own.
const PAUSE: Duration = Duration::from_millis(20);

/// A broker and what is known of it.
pub(crate) struct Station {
    pub(crate) broker: Broker,
    numbers: Arc<Numbers>,
    ledger: Ledger,
    load: Option<Load>,
    committing: Option<JoinHandle<(Commits, Result<()>)>>,
    seed: u64,
}

impl Station {
    /// Creates the load's topic on a broker that runs, and begins.
    pub(crate) fn open(broker: Broker, numbers: &Arc<Numbers>, seed: u64) -> Result<Self> {
        let made = Reader::connect(broker.socket())?.create_topic(commits::TOPIC, commits::QUEUES)?;
        ensure!(made.code == 0, "{made:?}");
        let mut station = Self {
            broker,
            numbers: Arc::clone(numbers),
            ledger: Ledger::default(),
            load: None,
            committing: None,
            seed,
        };
        station.work(Commits::default());
        Ok(station)
    }

    fn work(&mut self, mut commits: Commits) {
        self.seed = self.seed.wrapping_add(1);
        let plan = Plan {
            topics: vec![(commits::TOPIC.to_owned(), commits::QUEUES)],
            connections: 2,
            window: 8,
            rate: 20,
            body: 0..=BODY_MAX / 8,
            delayed: true,
            hasty: true,
            seed: self.seed,
        };
        let addr: SocketAddr = self.broker.socket();
        self.load = Some(Load::start(addr, &plan, &self.numbers));
        self.committing = Some(std::thread::spawn(move || {
            let ended = commits.run(addr, PAUSE);
            (commits, ended)
        }));
    }

    /// Ends the broker, and starts it again after `down`: what it acknowledged is there.
    pub(crate) fn restart(&mut self, kill: bool, down: Duration) -> Result<()> {
        let commits = self.end(kill)?;
        std::thread::sleep(down);
        self.begin(commits)
    }

    fn end(&mut self, kill: bool) -> Result<Commits> {
        let persisted = commits::persisted(&self.broker.store())?;
        if kill {
            self.broker.kill9()?;
        } else {
            let status = self.broker.stop()?;
            ensure!(status.success(), "{} ended with {status}", self.broker.name());
        }
        self.ledger.add(self.load.take().context("no load")?.finish()?)?;
        let (mut commits, ended) =
            self.committing.take().context("no commits")?.join().map_err(|_| anyhow!("the commits panicked"))?;
        ended?;
        commits.expect(persisted, !kill);
        for ((code, remark), count) in self.ledger.refusals() {
            ensure!(code == FLUSH_DISK_TIMEOUT, "{count} sends were refused: {code} {remark}");
        }
        Ok(commits)
    }

    fn begin(&mut self, mut commits: Commits) -> Result<()> {
        self.broker.start()?;
        let mut reader = Reader::connect(self.broker.socket())?;
        commits.check(&mut reader).context("committed offsets")?;
        self.ledger.check(&mut reader, &self.broker.store(), false)?;
        self.work(commits);
        Ok(())
    }

    /// After the last life: everything is there, the delayed ones as well. Returns how many messages were acknowledged.
    pub(crate) fn finish(&mut self) -> Result<usize> {
        let mut commits = self.end(false)?;
        self.broker.start()?;
        let mut reader = Reader::connect(self.broker.socket())?;
        commits.check(&mut reader).context("committed offsets")?;
        let store = self.broker.store();
        self.ledger.check(&mut reader, &store, true)?;
        wait_until(Duration::from_mins(1), || {
            self.ledger.check(&mut reader, &store, false)?;
            Ok(self.ledger.undelivered(&store)? == 0)
        })
        .context("delayed messages were not delivered")?;
        Ok(self.ledger.acknowledged())
    }
}
