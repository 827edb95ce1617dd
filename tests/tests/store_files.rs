//! One store, in turn Java's and ours: each broker takes over what the other left behind, stopped or killed, and finds every
//! message by offset, by log offset, by key and by time, with topics, committed offsets and delayed messages. What we derive from Java's log is
//! Java's own consume queues and index, byte for byte.

#[path = "store_files/forms.rs"]
mod forms;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rand::{SeedableRng as _, rngs::SmallRng};
use rocketmq_tests::{
    client::Client,
    cluster::{Broker, Kind, NameServer},
    java::Version,
    ledger::{Ledger, Report},
    load::{Load, Numbers, Plan, SCHEDULE_TOPIC},
    process::{scratch_dir, wait_until},
    reader::Reader,
    stored_message::StoredMessage,
};

const LONG: Duration = Duration::from_mins(2);
const TOPICS: [(&str, i32); 3] = [("Files", 4), ("FilesWide", 8), ("FilesNarrow", 1)];
const INDEX_SLOTS: u32 = 500;
const GROUPS: [&str; 2] = ["GID_half", "GID_third"];
const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;

/// How a broker is brought down before the other takes over.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Stopped,
    Killed,
}

#[test]
fn a_stopped_4_9_store_goes_to_us_and_back() -> Result<()> {
    there_and_back(Version::V4_9_7, End::Stopped)
}

#[test]
fn a_killed_4_9_store_goes_to_us_and_back() -> Result<()> {
    there_and_back(Version::V4_9_7, End::Killed)
}

#[test]
fn a_stopped_5_5_store_goes_to_us_and_back() -> Result<()> {
    there_and_back(Version::V5_5_0, End::Stopped)
}

#[test]
fn a_killed_5_5_store_goes_to_us_and_back() -> Result<()> {
    there_and_back(Version::V5_5_0, End::Killed)
}

fn there_and_back(version: Version, end: End) -> Result<()> {
    let mut owners = Owners::start(Kind::Java(version))?;
    owners.fill(1_500)?;
    let seen_by_java = owners.look().context("Java")?;
    owners.bring_down(end)?;
    same_derived_files(version, &owners.data()?).context("what we derive from Java's log")?;

    owners.take_over(Kind::Ours)?;
    let seen = owners.look().context("ours after Java")?;
    same(&seen_by_java, &seen).context("ours after Java")?;
    owners.wait_delivered().context("delayed messages of Java's")?;
    owners.fill(800)?;
    let seen_by_us = owners.look().context("ours with messages of both")?;
    owners.bring_down(end)?;

    owners.take_over(Kind::Java(version))?;
    let seen = owners.look().context("Java after ours")?;
    same(&seen_by_us, &seen).context("Java after ours")?;
    owners.wait_delivered().context("delayed messages of ours")?;
    owners.consumed_by_java_client(version)?;
    owners.bring_down(End::Stopped)?;
    let log = std::fs::read_to_string(owners.data()?.join("rocketmq.log"))?;
    for complaint in ["[BUG]", "maybe wrong", "index file build failed", "Build index fail"] {
        let line = log.lines().find(|line| line.contains(complaint));
        ensure!(line.is_none(), "Java says: {line:?}");
    }
    Ok(())
}

/// What can be seen of a store from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    messages: BTreeMap<(&'static str, i32), Vec<StoredMessage>>,
    /// By group, topic and queue.
    committed: BTreeMap<(&'static str, &'static str, i32), Option<i64>>,
}

/// The brokers of a store, one after the other.
struct Owners {
    namesrv: NameServer,
    broker: Option<Broker>,
    /// While no broker has it.
    dir: Option<tempfile::TempDir>,
    numbers: Arc<Numbers>,
    ledger: Ledger,
}

impl Owners {
    fn start(kind: Kind) -> Result<Self> {
        let namesrv = NameServer::start(Kind::Ours)?;
        let (numbers, ledger) = Default::default();
        let mut owners = Self { namesrv, broker: None, dir: Some(scratch_dir()?), numbers, ledger };
        owners.take_over(kind)?;
        let mut reader = owners.reader()?;
        for (topic, queues) in TOPICS {
            let created = reader.create_topic(topic, queues)?;
            ensure!(created.code == 0, "creating {topic}: {created:?}");
        }
        for group in GROUPS {
            let body = format!("{{\"groupName\":\"{group}\"}}");
            let created = reader.call(UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], body.as_bytes())?;
            ensure!(created.code == 0, "creating {group}: {created:?}");
        }
        Ok(owners)
    }

    fn take_over(&mut self, kind: Kind) -> Result<()> {
        let dir = self.dir.take().context("a broker has the store")?;
        let broker = Broker::builder(kind, "broker-a", &self.namesrv.addr())
            .data(dir)
            .set("mappedFileSizeCommitLog", 1 << 20)
            .set("mapedFileSizeCommitLog", 1 << 20)
            .set("mappedFileSizeConsumeQueue", 20 * 300)
            .set("mapedFileSizeConsumeQueue", 20 * 300)
            .set("maxHashSlotNum", INDEX_SLOTS)
            .set("maxIndexNum", 1_000)
            .set("flushConsumerOffsetInterval", 200)
            // Without it, Java recovers its queues from further on than its index, and forgets keys.
            .set("messageIndexSafe", true)
            // Longer than it takes to fill the store and to hand it over.
            .set("messageDelayLevel", "25s 30s")
            .start()
            .with_context(|| format!("{kind}"))?;
        self.broker = Some(broker);
        Ok(())
    }

    fn broker(&mut self) -> Result<&mut Broker> {
        self.broker.as_mut().context("no broker has the store")
    }

    fn reader(&mut self) -> Result<Reader> {
        Reader::connect(self.broker()?.socket())
    }

    fn bring_down(&mut self, end: End) -> Result<()> {
        let mut broker = self.broker.take().context("no broker has the store")?;
        if end == End::Killed {
            broker.kill9()?;
        }
        self.dir = Some(broker.into_data()?);
        Ok(())
    }

    /// The directory of the broker that is down.
    fn data(&self) -> Result<PathBuf> {
        Ok(self.dir.as_ref().context("a broker has the store")?.path().to_owned())
    }

    /// Sends until `count` more messages are stored, and commits offsets in their midst.
    fn fill(&mut self, count: u64) -> Result<()> {
        let plan = Plan {
            topics: TOPICS.map(|(topic, queues)| (topic.to_owned(), queues)).to_vec(),
            connections: 4,
            // Java answers the requests of a connection in any order.
            window: 1,
            rate: 1_000,
            // Java 5.5 fails on an empty body.
            body: 1..=10 << 10,
            delayed: true,
            hasty: true,
            seed: count,
        };
        let addr = self.broker()?.socket();
        let load = Load::start(addr, &plan, &self.numbers);
        wait_until(LONG, || Ok(load.stored() >= count))?;
        self.ledger.add(load.finish()?)?;
        ensure!(self.ledger.refusals().is_empty(), "refused: {:?}", self.ledger.refusals());
        let mut reader = self.reader()?;
        self.ledger.wait_readable(&mut reader, LONG)?;
        for (topic, queues) in TOPICS {
            for queue in 0..queues {
                let max = reader.max_offset(topic, queue)?;
                for (group, share) in GROUPS.into_iter().zip([2, 3]) {
                    reader.commit(group, topic, queue, max / share)?;
                }
            }
        }
        let store = self.broker()?.store();
        // So that a kill does not take them.
        wait_until(LONG, || {
            let text = std::fs::read_to_string(store.join("config/consumerOffset.json")).unwrap_or_default();
            Ok(TOPICS.iter().all(|(topic, _)| GROUPS.iter().all(|group| text.contains(&format!("{topic}@{group}")))))
        })
        .context("the offsets are not written")?;
        std::thread::sleep(Duration::from_millis(600));
        Ok(())
    }

    /// Reads everything, compares it with what was sent, and notes it.
    fn look(&mut self) -> Result<Seen> {
        let mut reader = self.reader()?;
        let store = self.broker()?.store();
        let ours = self.broker()?.kind() == Kind::Ours;
        let report: Report = self.ledger.check(&mut reader, &store, true)?;
        ensure!(report.expired == 0, "{report:?}");
        self.ledger.check_sample(&mut reader, &store, 20, &mut SmallRng::seed_from_u64(1))?;
        let mut seen = Seen { messages: BTreeMap::new(), committed: BTreeMap::new() };
        for (topic, queues) in TOPICS {
            for queue in 0..queues {
                let messages = reader.read_queue(topic, queue, 0)?;
                for message in messages.iter().step_by(97) {
                    let (id, time) = (queue.to_string(), message.store_timestamp.to_string());
                    let ext = [("topic", topic), ("queueId", id.as_str()), ("timestamp", time.as_str())];
                    let found = reader.call(SEARCH_OFFSET_BY_TIMESTAMP, &ext, &[])?;
                    let found: usize = found.ext.get("offset").context("no offset")?.parse()?;
                    let first = messages.partition_point(|other| other.store_timestamp < message.store_timestamp);
                    // Java looks in the file of the queue that was last written at that time, and takes any of several messages.
                    ensure!(found == first || !ours, "{topic}:{queue}: {found} for {first} by time");
                }
                for group in GROUPS {
                    seen.committed.insert((group, topic, queue), reader.consumer_offset(group, topic, queue)?);
                }
                seen.messages.insert((topic, queue), messages);
            }
        }
        Ok(seen)
    }

    /// Waits until no delayed message waits any more.
    fn wait_delivered(&mut self) -> Result<()> {
        let mut reader = self.reader()?;
        let store = self.broker()?.store();
        wait_until(LONG, || {
            self.ledger.check(&mut reader, &store, false)?;
            Ok(self.ledger.undelivered(&store)? == 0)
        })
    }

    /// Java's own client gets as many messages as there are.
    fn consumed_by_java_client(&mut self, version: Version) -> Result<()> {
        let namesrv = self.namesrv.addr();
        let broker = self.broker.as_ref().context("no broker has the store")?;
        self.namesrv.wait_registered(broker)?;
        let mut reader = self.reader()?;
        for (topic, queues) in TOPICS {
            let mut count = 0;
            for queue in 0..queues {
                count += reader.max_offset(topic, queue)?;
            }
            let read = Client::new(version, &namesrv).command("read", topic).run(LONG)?.received;
            ensure!(read.len() as i64 == count, "the Java client reads {} of {count} of {topic}", read.len());
        }
        Ok(())
    }
}

/// What was seen before is seen now; delayed messages may have been delivered in between.
fn same(before: &Seen, now: &Seen) -> Result<()> {
    for (queue, messages) in &before.messages {
        let found = now.messages.get(queue).map_or(&[][..], Vec::as_slice);
        ensure!(found.len() >= messages.len(), "{queue:?}: {} of {}", found.len(), messages.len());
        for (was, is) in messages.iter().zip(found) {
            ensure!(was == is, "{queue:?}: was {was:?}, is {is:?}");
        }
    }
    ensure!(before.committed == now.committed, "offsets: {:?}, {:?}", before.committed, now.committed);
    Ok(())
}

/// Our broker, given a copy of nothing but Java's log, derives the consume queues and the index that Java did.
fn same_derived_files(version: Version, java: &Path) -> Result<()> {
    let dir = scratch_dir()?;
    let store = dir.path().join("store");
    copy(&java.join("store/commitlog"), &store.join("commitlog"))?;
    copy(&java.join("store/config"), &store.join("config"))?;
    let mut broker = Broker::builder(Kind::Ours, "broker-a", "")
        .data(dir)
        .set("mappedFileSizeCommitLog", 1 << 20)
        .set("mappedFileSizeConsumeQueue", 20 * 300)
        .set("maxHashSlotNum", INDEX_SLOTS)
        .set("maxIndexNum", 1_000)
        // Nothing is to be delivered while it runs.
        .set("messageDelayLevel", "10m 20m")
        .start()?;
    // It answers when it has derived everything.
    Reader::connect(broker.socket())?.max_offset(TOPICS[0].0, 0)?;
    broker.stop()?;
    let (mut theirs, mut ours) = (BTreeMap::new(), BTreeMap::new());
    let their_store = java.join("store");
    files(&their_store.join("consumequeue"), &their_store, &mut theirs)?;
    files(&broker.store().join("consumequeue"), &broker.store(), &mut ours)?;
    // The delayed messages' tags code is their time of delivery, which depends on the levels.
    theirs.retain(|path, _| !path.starts_with("consumequeue/SCHEDULE_TOPIC_XXXX"));
    ours.retain(|path, _| !path.starts_with("consumequeue/SCHEDULE_TOPIC_XXXX"));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&theirs) == names(&ours), "consume queues: {:?}, {:?}", names(&theirs), names(&ours));
    for (path, raw) in &theirs {
        let at = raw.iter().zip(&ours[path]).position(|(theirs, ours)| theirs != ours);
        ensure!(at.is_none() && raw.len() == ours[path].len(), "{}: differs at {at:?}", path.display());
    }
    let index = |store: &Path| -> Result<Vec<Vec<u8>>> {
        let mut all = BTreeMap::new();
        files(&store.join("index"), store, &mut all)?;
        // Their names are the times at which they were made.
        Ok(all.into_values().collect())
    };
    let (theirs, ours) = (index(&their_store)?, index(&broker.store())?);
    if version == Version::V5_5_0 {
        let (theirs, ours) = (entries_without_tags(&theirs)?, entries_without_tags(&ours)?);
        let at = theirs.iter().zip(&ours).position(|(theirs, ours)| theirs != ours);
        ensure!(
            at.is_none() && theirs.len() == ours.len(),
            "index: entry {at:?} of {} and {}",
            theirs.len(),
            ours.len()
        );
        return Ok(());
    }
    ensure!(theirs.len() == ours.len(), "{} index files, ours are {}", theirs.len(), ours.len());
    for (number, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
        let at = theirs.iter().zip(ours).position(|(theirs, ours)| theirs != ours);
        ensure!(at.is_none() && theirs.len() == ours.len(), "index file {number} differs at {at:?}");
    }
    Ok(())
}

/// Key hash and log offset of each index entry, in order. Java 5.5 also indexes tags, as `topic#T#tag`; we keep to what 4.9 has.
fn entries_without_tags(files: &[Vec<u8>]) -> Result<Vec<(i32, i64)>> {
    const ENTRIES_AT: usize = 40 + 4 * INDEX_SLOTS as usize;
    let mut topics: Vec<&str> = TOPICS.map(|(topic, _)| topic).to_vec();
    topics.push(SCHEDULE_TOPIC);
    let tags: Vec<i32> =
        topics.iter().flat_map(|topic| (0..3).map(move |tag| key_hash(&format!("{topic}#T#T{tag}")))).collect();
    let mut all = Vec::new();
    for file in files {
        let count = i32::from_be_bytes(file.get(36..40).context("no header")?.try_into()?);
        let raw = file.get(ENTRIES_AT..ENTRIES_AT + 20 * usize::try_from(count)?).context("a short file")?;
        // The first one is never used.
        for entry in raw.chunks_exact(20).skip(1) {
            let (hash, log_offset) = (entry[..4].try_into()?, entry[4..12].try_into()?);
            all.push((i32::from_be_bytes(hash), i64::from_be_bytes(log_offset)));
        }
    }
    all.retain(|(hash, _)| !tags.contains(hash));
    Ok(all)
}

/// `IndexFile.indexKeyHashMethod`, of ASCII.
fn key_hash(key: &str) -> i32 {
    key.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte))).checked_abs().unwrap_or(0)
}

/// Every file below `dir` by its path below `root`.
fn files(dir: &Path, root: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, root, into)?;
        } else {
            into.insert(path.strip_prefix(root)?.to_owned(), std::fs::read(&path)?);
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut all = BTreeMap::new();
    files(from, from, &mut all)?;
    if all.is_empty() {
        bail!("{} is empty", from.display());
    }
    for (path, raw) in all {
        let path = to.join(path);
        std::fs::create_dir_all(path.parent().context("no directory")?)?;
        std::fs::write(path, raw)?;
    }
    Ok(())
}
