//! A topic that is made, filled and deleted again and again. Its offsets start over each time, and what was deleted stays away.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rocketmq_tests::reader::Reader;

const TOPIC: &str = "Churn";
const QUEUES: i32 = 2;
const SEND_MESSAGE_V2: i32 = 310;
const TOPIC_NOT_EXIST: i64 = 17;

/// How far the topic has come when the broker dies.
#[derive(Debug, Default, Clone, PartialEq)]
enum Stage {
    #[default]
    Gone,
    Making,
    /// Messages per queue that were acknowledged, and the queue of one that was not answered.
    Alive {
        stored: [i64; QUEUES as usize],
        unknown: Option<i32>,
    },
    Deleting,
}

#[derive(Debug, Default)]
pub(crate) struct Churn {
    /// Which topic of that name it is.
    life: u64,
    stage: Stage,
}

impl Churn {
    /// Goes on until the broker dies.
    pub(crate) fn run(&mut self, addr: SocketAddr, seed: u64) -> Result<()> {
        let Ok(mut reader) = Reader::connect(addr) else { return Ok(()) };
        let mut random = SmallRng::seed_from_u64(seed);
        loop {
            let count = random.random_range(1..60);
            if !self.live(&mut reader, count)? {
                return Ok(());
            }
        }
    }

    /// One step through all stages; false when the broker does not answer.
    fn live(&mut self, reader: &mut Reader, count: u32) -> Result<bool> {
        if !matches!(self.stage, Stage::Alive { .. }) {
            self.life += 1;
            self.stage = Stage::Making;
            let Ok(made) = reader.create_topic(TOPIC, QUEUES) else { return Ok(false) };
            ensure!(made.code == 0, "creating: {made:?}");
            self.stage = Stage::Alive { stored: [0; QUEUES as usize], unknown: None };
        }
        for number in 0..count {
            let queue = (number % QUEUES as u32) as i32;
            if !self.send(reader, queue)? {
                return Ok(false);
            }
        }
        self.stage = Stage::Deleting;
        let Ok(deleted) = reader.delete_topic(TOPIC) else { return Ok(false) };
        ensure!(deleted.code == 0, "deleting: {deleted:?}");
        self.stage = Stage::Gone;
        Ok(true)
    }

    fn send(&mut self, reader: &mut Reader, queue: i32) -> Result<bool> {
        let Stage::Alive { stored, unknown } = &mut self.stage else { return Ok(true) };
        *unknown = Some(queue);
        let offset = &mut stored[queue as usize];
        let body = body(self.life, *offset);
        let queue = queue.to_string();
        let ext = [
            ("a", "PID_churn"),
            ("b", TOPIC),
            ("c", "TBW102"),
            ("d", "2"),
            ("e", queue.as_str()),
            ("f", "0"),
            ("g", "0"),
            ("h", "0"),
            ("i", ""),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ];
        let Ok(sent) = reader.call(SEND_MESSAGE_V2, &ext, body.as_bytes()) else { return Ok(false) };
        ensure!(sent.code == 0, "sending: {sent:?}");
        let given = sent.ext.get("queueOffset").context("no queueOffset")?;
        ensure!(given == &offset.to_string(), "life {}: queue {queue} gave {given} for {offset}", self.life);
        *offset += 1;
        *unknown = None;
        Ok(true)
    }

    /// Compares with what the broker has after its restart; a topic that is neither there nor gone is deleted.
    pub(crate) fn check(&mut self, reader: &mut Reader) -> Result<()> {
        // Half deleted it may be anything, a queue without its topic included; it is deleted again below.
        let checked = if self.stage == Stage::Deleting { 0 } else { QUEUES };
        for queue in 0..checked {
            let (min, bodies) = read(reader, queue)?;
            let end = min + bodies.len() as i64;
            for (at, found) in bodies.iter().enumerate() {
                let wanted = body(self.life, min + at as i64);
                ensure!(*found == wanted, "{:?}: queue {queue} holds {found} for {wanted}", self.stage);
            }
            match &mut self.stage {
                Stage::Gone | Stage::Making => {
                    ensure!(end == 0, "{:?}, and queue {queue} has {min}..{end}", self.stage);
                }
                Stage::Alive { stored, unknown } => {
                    let stored = &mut stored[queue as usize];
                    let most = *stored + i64::from(*unknown == Some(queue));
                    ensure!((*stored..=most).contains(&end), "queue {queue} has {min}..{end} of {stored} to {most}");
                    *stored = end;
                }
                Stage::Deleting => {}
            }
        }
        if let Stage::Alive { unknown, .. } = &mut self.stage {
            *unknown = None;
        } else {
            let deleted = reader.delete_topic(TOPIC)?;
            ensure!(deleted.code == 0, "deleting: {deleted:?}");
            for queue in 0..QUEUES {
                let (min, bodies) = read(reader, queue)?;
                ensure!(
                    min == 0 && bodies.is_empty(),
                    "queue {queue} has {min} and {} on after deleting",
                    bodies.len()
                );
            }
            self.stage = Stage::Gone;
        }
        Ok(())
    }
}

fn body(life: u64, offset: i64) -> String {
    format!("life {life} offset {offset}")
}

/// The first offset of a queue and the bodies from there on; nothing where the topic is not there.
fn read(reader: &mut Reader, queue: i32) -> Result<(i64, Vec<String>)> {
    let id = queue.to_string();
    let known = reader.call(30, &[("topic", TOPIC), ("queueId", &id)], &[])?;
    if known.code != 0 {
        ensure!(known.code == TOPIC_NOT_EXIST || known.code == 1, "asking for the end: {known:?}");
        return Ok((0, Vec::new()));
    }
    let max: i64 = known.ext.get("offset").context("no offset")?.parse()?;
    let min = reader.min_offset(TOPIC, queue)?;
    if max == min {
        return Ok((min, Vec::new()));
    }
    let messages = reader.read_queue(TOPIC, queue, min)?;
    ensure!(messages.len() as i64 == max - min, "{} messages of {min}..{max}", messages.len());
    Ok((min, messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()))
}
