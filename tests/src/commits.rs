//! A consumer group that commits without rest. Of its offsets, those that were seen in the file may not go back.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::reader::Reader;

const GROUP: &str = "GID_commits";
/// The topic in which it commits, of at least so many queues.
pub const TOPIC: &str = "Storm";
pub const QUEUES: i32 = 4;

/// Offsets by queue.
pub type Offsets = BTreeMap<i32, i64>;

/// What is known of the offsets of one broker's group.
#[derive(Debug, Default)]
pub struct Commits {
    /// What was sent last, answered or not.
    sent: Offsets,
    /// What must be there at least.
    floor: Offsets,
}

impl Commits {
    /// Commits growing offsets until the broker dies, with a pause between any two.
    pub fn run(&mut self, addr: SocketAddr, pause: Duration) -> Result<()> {
        let Ok(mut reader) = Reader::connect(addr) else { return Ok(()) };
        let mut next = self.sent.values().max().copied().unwrap_or(0);
        loop {
            std::thread::sleep(pause);
            next += 1;
            let queue = (next % i64::from(QUEUES)) as i32;
            self.sent.insert(queue, next);
            if reader.commit(GROUP, TOPIC, queue, next).is_err() {
                return Ok(());
            }
        }
    }

    /// What the file held before the end of the process is kept; a clean end keeps everything that was acknowledged, which is all
    /// but the last one sent.
    pub fn expect(&mut self, persisted: Offsets, ends_well: bool) {
        for (queue, offset) in persisted {
            let floor = self.floor.entry(queue).or_insert(offset);
            *floor = offset.max(*floor);
        }
        if ends_well {
            let last = self.sent.values().max().copied();
            for (queue, sent) in self.sent.iter().filter(|(_, sent)| Some(**sent) != last) {
                self.floor.insert(*queue, *sent);
            }
        }
    }

    /// Asks the broker.
    pub fn check(&mut self, reader: &mut Reader) -> Result<()> {
        for (queue, floor) in &mut self.floor {
            let offset = reader.consumer_offset(GROUP, TOPIC, *queue)?;
            let offset = offset.with_context(|| format!("queue {queue} was at {floor} and has no offset"))?;
            let sent = self.sent.get(queue).copied().unwrap_or(0);
            ensure!((*floor..=sent).contains(&offset), "queue {queue} is at {offset}, not in {floor}..={sent}");
            *floor = offset;
        }
        Ok(())
    }
}

/// What `consumerOffset.json` of the store holds now. fastjson writes numbers as keys without quotes, so this is no JSON.
pub fn persisted(store: &Path) -> Result<Offsets> {
    let path = store.join("config/consumerOffset.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Offsets::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let Some((_, rest)) = text.split_once(&format!("\"{TOPIC}@{GROUP}\"")) else { return Ok(Offsets::new()) };
    let inner = rest.split_once('{').and_then(|(_, rest)| rest.split_once('}')).context("no table of queues")?.0;
    inner
        .split(',')
        .map(|pair| {
            let (queue, offset) = pair.split_once(':').with_context(|| format!("{pair:?} is no offset"))?;
            Ok((queue.trim().trim_matches('"').parse()?, offset.trim().parse()?))
        })
        .collect()
}
