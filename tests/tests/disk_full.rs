//! A broker whose disk is full, or breaks: it says so, serves what it can, loses nothing that it acknowledged, and goes on by
//! itself when there is room again. On a real ext4 of its own, so these tests need root.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    cluster::{Broker, BrokerBuilder, Kind},
    ledger::Ledger,
    load::{BODY_MAX, Load, Numbers, Outcome, Plan},
    ports,
    process::{scratch_dir, wait_until},
    reader::Reader,
    small_disk::SmallDisk,
    wire::Wire,
};

const DISK_MIB: u64 = 64;
const LONG: Duration = Duration::from_mins(1);
const TOPICS: [(&str, i32); 2] = [("Full", 4), ("FullWide", 8)];
const HEART_BEAT: i32 = 34;
const FLUSH_DISK_TIMEOUT: i64 = 10;
const SERVICE_NOT_AVAILABLE: i64 = 14;

/// A broker alone on a small disk, and what was sent to it.
struct Scene {
    // Before the disk, so that it is gone when the disk goes.
    broker: Broker,
    disk: SmallDisk,
    http: u16,
    numbers: Arc<Numbers>,
    ledger: Ledger,
}

impl Scene {
    fn start(configure: impl FnOnce(BrokerBuilder) -> BrokerBuilder) -> Result<Self> {
        let dir = scratch_dir()?;
        let store: PathBuf = dir.path().join("store");
        std::fs::create_dir_all(&store)?;
        let disk = SmallDisk::mount(DISK_MIB, &store)?;
        let http = ports::free_port()?;
        let builder = Broker::builder(Kind::Ours, "broker-a", "")
            .set("mappedFileSizeCommitLog", 2 << 20)
            .set("mappedFileSizeConsumeQueue", 20 * 1_000)
            .set("maxHashSlotNum", 2_000)
            .set("maxIndexNum", 8_000)
            .set("cleanResourceInterval", 200)
            .set("flushConsumerOffsetInterval", 200)
            .set("httpPort", http);
        let broker = configure(builder).data(dir).on_disk(&disk).start()?;
        let mut reader = Reader::connect(broker.socket())?;
        for (topic, queues) in TOPICS {
            ensure!(reader.create_topic(topic, queues)?.code == 0, "creating {topic}");
        }
        reader.commit("GID_full", TOPICS[0].0, 0, 1)?;
        Ok(Self { broker, disk, http, numbers: Arc::default(), ledger: Ledger::default() })
    }

    fn load(&self) -> Load {
        let plan = Plan {
            topics: TOPICS.map(|(topic, queues)| (topic.to_owned(), queues)).to_vec(),
            connections: 3,
            window: 8,
            rate: 400,
            body: 0..=BODY_MAX,
            delayed: false,
            hasty: false,
            seed: 7,
        };
        Load::start(self.broker.socket(), &plan, &self.numbers)
    }

    /// Sends until `count` more messages are stored.
    fn store(&mut self, count: u64) -> Result<()> {
        let load = self.load();
        let stored =
            wait_until(LONG, || Ok(load.stored() >= count)).with_context(|| format!("{} stored", load.stored()));
        self.ledger.add(load.finish()?)?;
        stored
    }

    /// Sends until `count` more messages are refused.
    fn store_until_refused(&mut self, count: u64) -> Result<()> {
        let load = self.load();
        let refused =
            wait_until(LONG, || Ok(load.refused() >= count)).with_context(|| format!("{} refused", load.refused()));
        self.ledger.add(load.finish()?)?;
        refused
    }

    /// Starts the broker; where it ends instead, what it printed. It may listen for a moment before it finds out.
    fn start_or_refuse(&mut self) -> Result<Option<String>> {
        if self.broker.start().is_ok()
            && let Ok(mut reader) = Reader::connect(self.broker.socket())
            && reader.max_offset(TOPICS[0].0, 0).is_ok()
        {
            return Ok(None);
        }
        let process = self.broker.process()?;
        let status = process.wait(LONG)?;
        let log = process.log();
        ensure!(!status.success(), "{status}: {log}");
        self.broker.kill9()?;
        Ok(Some(log))
    }

    /// Everything that was acknowledged is where it was said to be, once the queues have followed the log.
    fn check(&mut self) -> Result<()> {
        wait_until(LONG, || self.is_dispatched()).context("the queues do not follow the log")?;
        let mut reader = Reader::connect(self.broker.socket())?;
        self.ledger.check(&mut reader, &self.broker.store(), true)?;
        Ok(())
    }

    /// What does not need the disk goes on; monitoring knows why the rest does not. `reason` stands in the answer of `/readyz`.
    fn serves_without_writing(&mut self, reason: &str) -> Result<()> {
        let mut reader = Reader::connect(self.broker.socket())?;
        let read = reader.read_queue(TOPICS[0].0, 0, 0)?;
        ensure!(!read.is_empty(), "nothing can be read");
        let first = &read[0];
        ensure!(reader.view(first.log_offset)?.as_ref() == Some(first), "the first message is not at its log offset");
        let offset = read.len() as i64;
        reader.commit("GID_full", TOPICS[0].0, 0, offset)?;
        ensure!(reader.consumer_offset("GID_full", TOPICS[0].0, 0)? == Some(offset), "the commit did not count");
        let mut wire = Wire::connect(self.broker.socket(), LONG)?;
        let client = br#"{"clientID":"c@1","producerDataSet":[{"groupName":"PID_full"}],"consumerDataSet":[]}"#;
        let heartbeat = wire.call(HEART_BEAT, &[], client)?;
        ensure!(heartbeat.code == 0, "a heartbeat: {heartbeat:?}");
        ensure!(self.broker.process()?.is_running(), "the broker is gone");
        let ready = self.http("/readyz")?;
        ensure!(ready.contains(" 503 ") && ready.contains(reason), "/readyz does not say {reason:?}: {ready}");
        ensure!(!self.is_writable()?, "/metrics has the store writable");
        Ok(())
    }

    fn http(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http))?;
        stream.set_read_timeout(Some(LONG))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// `rocketmq_storage_writable` of `/metrics`.
    fn is_writable(&self) -> Result<bool> {
        let metrics = self.http("/metrics")?;
        let line = metrics.lines().find(|line| line.starts_with("rocketmq_storage_writable{"));
        Ok(line.context("no rocketmq_storage_writable")?.ends_with(" 1"))
    }

    /// `rocketmq_broker_rejected_requests_total` of `/metrics` knows of a limit that was met.
    fn refusals_are_counted(&self, limit: &str) -> Result<()> {
        let metrics = self.http("/metrics")?;
        let label = format!("limit=\"{limit}\"");
        let counted =
            |line: &&str| line.starts_with("rocketmq_broker_rejected_requests_total{") && line.contains(&label);
        let line = metrics.lines().find(counted).with_context(|| format!("no {label}"))?;
        ensure!(!line.ends_with(" 0"), "nothing was counted: {line}");
        Ok(())
    }

    /// `rocketmq_storage_dispatch_behind_bytes` of `/metrics` is 0.
    fn is_dispatched(&self) -> Result<bool> {
        let metrics = self.http("/metrics")?;
        // There are none yet while the store is being recovered.
        let line = metrics.lines().find(|line| line.starts_with("rocketmq_storage_dispatch_behind_bytes{"));
        Ok(line.is_some_and(|line| line.ends_with(" 0")))
    }

    fn wait_writable(&self) -> Result<()> {
        wait_until(LONG, || self.is_writable()).context("the store does not become writable again")?;
        let ready = self.http("/readyz")?;
        ensure!(ready.contains(" 200 "), "writable again, and not ready: {ready}");
        Ok(())
    }

    /// Every refusal has that code and a remark that `says` accepts.
    fn refusals_are(&self, says: impl Fn(&str) -> bool) -> Result<()> {
        for ((code, remark), count) in self.ledger.refusals() {
            eprintln!("{count} refused: {code} {remark}");
            ensure!(
                code == FLUSH_DISK_TIMEOUT || (code == SERVICE_NOT_AVAILABLE && says(remark)),
                "{count} sends were refused with {code} {remark}"
            );
        }
        Ok(())
    }
}

/// Only what the file system says stops the broker here: its own limits are out of the way.
fn without_limits(builder: BrokerBuilder) -> BrokerBuilder {
    builder
        .set("diskSpaceWarningLevelRatio", 100)
        .set("diskSpaceCleanForciblyRatio", 100)
        .set("cleanFileForciblyEnable", false)
}

#[test]
fn no_space_left_refuses_sends_until_there_is_room() -> Result<()> {
    let mut scene = Scene::start(without_limits)?;
    scene.store(500)?;
    // A foreign file takes everything: the store has what it allocated before.
    scene.disk.fill(0)?;
    scene.store_until_refused(200)?;
    scene.refusals_are(|remark| remark.contains("No space left on device"))?;
    scene.refusals_are_counted("store")?;
    scene.serves_without_writing("No space left on device").context("on the full disk")?;
    scene.disk.free()?;
    scene.wait_writable()?;
    scene.store(500).context("with room again")?;
    scene.check().context("with room again")?;

    // The store itself takes everything but a little. What it acknowledged at the very end may have no room in its queue yet.
    let available = scene.disk.available()?;
    scene.disk.fill(available - (4 << 20))?;
    scene.store_until_refused(200)?;
    scene.serves_without_writing("No space left on device").context("on a disk full of messages")?;
    scene.disk.free()?;
    scene.wait_writable()?;
    scene.check().context("with a little room")
}

#[test]
fn a_broker_starts_on_a_full_disk() -> Result<()> {
    let mut scene = Scene::start(without_limits)?;
    scene.store(500)?;
    scene.disk.fill(0)?;
    scene.store_until_refused(100)?;
    for stop in ["killed", "stopped"] {
        if stop == "killed" {
            scene.broker.kill9()?;
        } else {
            scene.broker.stop()?;
        }
        if let Some(log) = scene.start_or_refuse()? {
            eprintln!("{stop}, it does not start on the full disk");
            ensure!(log.contains("No space left on device") && log.contains("/store/"), "{stop}: {log}");
            scene.disk.free()?;
            scene.broker.start().with_context(|| format!("{stop}, with room again"))?;
            scene.check().with_context(|| format!("{stop}, with room again"))?;
            scene.disk.fill(0)?;
        } else {
            scene.check().with_context(|| format!("{stop}, on the full disk"))?;
        }
    }
    scene.disk.free()?;
    scene.store(500).context("with room again")?;
    scene.check().context("with room again")
}

#[test]
fn above_the_warning_level_sends_are_refused() -> Result<()> {
    let mut scene = Scene::start(|builder| builder.set("cleanFileForciblyEnable", false))?;
    scene.store(300)?;
    // More than 90 % used, and still room to write.
    scene.disk.fill((DISK_MIB << 20) / 20)?;
    scene.store_until_refused(100)?;
    scene.refusals_are(|remark| remark.contains("disk full") && remark.contains("diskSpaceWarningLevelRatio=90"))?;
    scene.refusals_are_counted("diskSpaceWarningLevelRatio")?;
    scene.serves_without_writing("disk full")?;
    scene.check()?;
    scene.disk.free()?;
    scene.wait_writable()?;
    scene.store(300).context("with room again")?;
    scene.check()
}

#[test]
fn old_files_make_room_for_new_ones() -> Result<()> {
    let mut scene = Scene::start(|builder| builder.set("deleteCommitLogFilesInterval", 10))?;
    let load = scene.load();
    // Twice what the disk holds.
    wait_until(LONG * 2, || {
        ensure!(scene.broker.process()?.is_running(), "the broker is gone");
        let file = rocketmq_tests::ledger::log_begin(&scene.broker.store())?;
        Ok(file > DISK_MIB << 20)
    })
    .with_context(|| format!("{} stored, {} refused", load.stored(), load.refused()))?;
    scene.ledger.add(load.finish()?)?;
    scene.refusals_are(|remark| remark.contains("disk full") || remark.contains("No space left on device"))?;
    scene.check()
}

#[test]
fn a_file_system_that_turns_read_only_keeps_what_it_has() -> Result<()> {
    let mut scene = Scene::start(|builder| builder.set("flushDiskType", "SYNC_FLUSH"))?;
    scene.store(300)?;
    let load = scene.load();
    wait_until(LONG, || Ok(load.stored() >= 200))?;
    scene.disk.turn_read_only()?;
    wait_until(LONG, || Ok(load.refused() >= 100)).with_context(|| format!("{} refused", load.refused()))?;
    let mut attempts = load.finish()?;
    // ext4 has been seen to answer an msync in the very moment of the error with success, without having written. So of this
    // load an acknowledgement proves nothing; of what was sent before it does.
    for attempt in &mut attempts {
        if matches!(attempt.outcome, Outcome::Stored { .. }) {
            attempt.outcome = Outcome::Unknown;
        }
    }
    scene.ledger.add(attempts)?;
    scene.refusals_are(|remark| remark.contains("poisoned") || remark.contains("Read-only file system"))?;
    scene.refusals_are_counted("store")?;
    scene.serves_without_writing("the store is poisoned")?;

    // On the broken disk it does not start, and says which file it is about.
    scene.broker.kill9()?;
    let log = scene.start_or_refuse()?.context("it starts on a read-only file system")?;
    ensure!(log.contains("Read-only file system") && log.contains("/store"), "{log}");

    scene.disk.mount_again()?;
    scene.broker.start()?;
    scene.check().context("mounted again")?;
    scene.store(300).context("mounted again")?;
    scene.check()
}
