//! What was sent and acknowledged, held against what a broker gives back, over any number of its lives.
//!
//! A check reads what is new since the last one, or everything. It knows what lay at each position before, so that a message that
//! moves, goes or changes later is a fault as well. Messages of log files that retention has deleted are not asked for.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;

use crate::{
    history::Faults,
    load::{Attempt, BODY_MAX, ID, Outcome, SCHEDULE_TOPIC, body_of},
    process::wait_until,
    reader::{Pulled, Reader},
    stored_message::StoredMessage,
};

/// How often a queue may answer that it is removing what was asked for.
const REMOVING_MAX: u32 = 500;

type QueueName = (Arc<str>, i32);

/// Everything that is known of one broker's store.
#[derive(Debug, Default)]
pub struct Ledger {
    attempts: HashMap<u64, Attempt>,
    /// Acknowledged positions that were not read yet.
    to_find: HashMap<QueueName, BTreeMap<i64, u64>>,
    queues: BTreeMap<QueueName, Queue>,
    /// Where each message lies that may lie in one place only.
    places: HashMap<u64, (QueueName, i64)>,
}

#[derive(Debug, Default)]
struct Queue {
    /// By queue offset: the message, and where it lies in the log.
    found: BTreeMap<i64, (u64, u64)>,
    min: i64,
    /// The newest message of each connection.
    newest: HashMap<u64, u64>,
}

/// What a check went over.
#[derive(Debug, Default, Clone, Copy)]
pub struct Report {
    /// Messages that were read.
    pub read: usize,
    /// Acknowledged ones that were looked for and found now.
    pub confirmed: usize,
    /// Acknowledged ones whose log file was deleted before they were read.
    pub expired: usize,
}

impl Ledger {
    /// Adds what a load saw; the queues of `topics` are read from now on.
    pub fn add(&mut self, attempts: impl IntoIterator<Item = Attempt>) -> Result<()> {
        let mut faults = Faults::default();
        for attempt in attempts {
            let place = position(&attempt);
            self.queues.entry(place.clone()).or_default();
            if let Outcome::Stored { queue_offset, .. } = attempt.outcome {
                let before = self.to_find.entry(place.clone()).or_default().insert(queue_offset, attempt.id);
                let read = self.queues[&place].found.get(&queue_offset).map(|(id, _)| *id);
                if let Some(other) = before.or(read) {
                    faults.add("offset given twice", format!("{place:?} {queue_offset} to {other} and {}", attempt.id));
                }
            }
            self.attempts.insert(attempt.id, attempt);
        }
        faults.into_result()
    }

    /// Answers other than `SEND_OK`, with how often each came.
    pub fn refusals(&self) -> BTreeMap<(i64, &str), usize> {
        let mut all = BTreeMap::new();
        for attempt in self.attempts.values() {
            if let Outcome::Refused { code, remark } = &attempt.outcome {
                *all.entry((*code, remark.as_str())).or_default() += 1;
            }
        }
        all
    }

    /// How many messages were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.attempts.values().filter(|attempt| matches!(attempt.outcome, Outcome::Stored { .. })).count()
    }

    /// Delayed messages that were acknowledged, that the log still has, and that have not been read under their own topic.
    pub fn undelivered(&self, store: &Path) -> Result<usize> {
        let log_min = log_begin(store)?;
        let waiting = |attempt: &&Attempt| {
            let there = matches!(attempt.outcome, Outcome::Stored { log_offset, .. } if log_offset >= log_min);
            attempt.delayed && there && !self.places.contains_key(&attempt.id)
        };
        Ok(self.attempts.values().filter(waiting).count())
    }

    /// Waits until the queues of a running broker have followed its log up to what was acknowledged.
    pub fn wait_readable(&self, reader: &mut Reader, timeout: Duration) -> Result<()> {
        for (name, to_find) in &self.to_find {
            let Some((last, _)) = to_find.last_key_value() else { continue };
            wait_until(timeout, || Ok(reader.max_offset(&name.0, name.1)? > *last))
                .with_context(|| format!("{name:?} does not reach {last}"))?;
        }
        Ok(())
    }

    /// Reads what is new (with `everything`: all there is) and compares. `store` is the broker's store directory, looked at only for
    /// where the log begins.
    pub fn check(&mut self, reader: &mut Reader, store: &Path, everything: bool) -> Result<Report> {
        let mut faults = Faults::default();
        let mut report = Report::default();
        let names: Vec<QueueName> = self.queues.keys().cloned().collect();
        for name in &names {
            self.read_queue(reader, name, everything, &mut faults, &mut report)
                .with_context(|| format!("reading {}:{}", name.0, name.1))?;
        }
        // After the reading: what was deleted meanwhile counts as deleted.
        let log_min = log_begin(store)?;
        for name in &names {
            self.confirm(name, log_min, &mut faults, &mut report);
        }
        faults.into_result()?;
        Ok(report)
    }

    fn read_queue(
        &mut self,
        reader: &mut Reader,
        name: &QueueName,
        everything: bool,
        faults: &mut Faults,
        report: &mut Report,
    ) -> Result<()> {
        let (topic, queue) = (&*name.0, name.1);
        let max = reader.max_offset(topic, queue)?;
        let min = reader.min_offset(topic, queue)?;
        let known = self.queues.entry(name.clone()).or_default();
        let end = known.found.last_key_value().map_or(0, |(offset, _)| offset + 1);
        if max < end || min < known.min || min > max {
            faults.add("range", format!("{name:?} had {}..{end} and has {min}..{max}", known.min));
        }
        let mut at = if everything { min } else { min.max(end) };
        let mut removing = 0;
        while at < max {
            match reader.pull(topic, queue, at)? {
                Pulled::Messages(messages) => {
                    ensure!(!messages.is_empty(), "an empty answer at {at}");
                    for message in messages {
                        if message.queue_offset != at && !begins_at(reader, name, message.queue_offset)? {
                            faults.add("gap", format!("{name:?} gives {} for {at}", message.queue_offset));
                        }
                        at = message.queue_offset + 1;
                        report.read += 1;
                        self.note(name, &message, faults);
                    }
                }
                // Retention was quicker, or is at it.
                Pulled::Removing | Pulled::Nothing { .. } if removing < REMOVING_MAX => {
                    removing += 1;
                    std::thread::sleep(Duration::from_millis(10));
                    at = at.max(reader.min_offset(topic, queue)?);
                }
                nothing => {
                    faults.add("hole", format!("{name:?} has no message for its entry at {at}: {nothing:?}"));
                    return Ok(());
                }
            }
        }
        self.queues.entry(name.clone()).or_default().min = reader.min_offset(topic, queue)?;
        Ok(())
    }

    /// Compares one message with what was sent and with what was read there before.
    fn note(&mut self, name: &QueueName, message: &StoredMessage, faults: &mut Faults) {
        let offset = message.queue_offset;
        let sent = message.property(ID).and_then(|id| id.parse().ok()).and_then(|id: u64| self.attempts.get(&id));
        let Some(sent) = sent else {
            return faults.add("phantom", format!("{name:?} {offset}: {:?}", message.properties));
        };
        let waits = sent.delayed && &*name.0 == SCHEDULE_TOPIC;
        if !waits && (*sent.topic != *name.0 || sent.queue != name.1) {
            faults.add("elsewhere", format!("{} was for {}:{}, not {name:?}", sent.id, sent.topic, sent.queue));
        }
        if sent.size > BODY_MAX || message.body != body_of(sent.id, sent.size) {
            faults.add("damaged", format!("{name:?} {offset}: {} has another body", sent.id));
        }
        let queue = self.queues.entry(name.clone()).or_default();
        if let Some(before) = queue.found.insert(offset, (sent.id, message.log_offset)) {
            if before != (sent.id, message.log_offset) {
                let now = (sent.id, message.log_offset);
                faults.add("moved", format!("{name:?} {offset} held {before:?} and holds {now:?}"));
            }
            return;
        }
        let neighbour = queue.found.range(..offset).next_back();
        if neighbour.is_some_and(|(_, (_, log_offset))| *log_offset >= message.log_offset) {
            faults.add("log order", format!("{name:?} {offset} lies at {}", message.log_offset));
        }
        // What was delayed may be delivered again, and its order is that of the deliveries.
        if sent.delayed && !waits {
            self.places.insert(sent.id, (name.clone(), offset));
            return;
        }
        if let Some(newer) = queue.newest.insert(sent.producer, sent.id)
            && newer >= sent.id
        {
            faults.add("order", format!("{name:?} {offset}: {} behind {newer} of the same connection", sent.id));
        }
        if !sent.delayed
            && let Some(other) = self.places.insert(sent.id, (name.clone(), offset))
        {
            faults.add("twice", format!("{} at {other:?} and {name:?} {offset}", sent.id));
        }
    }

    /// Looks for what was acknowledged.
    fn confirm(&mut self, name: &QueueName, log_min: u64, faults: &mut Faults, report: &mut Report) {
        let Some(to_find) = self.to_find.remove(name) else { return };
        let found = &self.queues[name].found;
        for (offset, id) in to_find {
            let Some(Outcome::Stored { log_offset, .. }) = self.attempts.get(&id).map(|sent| &sent.outcome) else {
                continue;
            };
            match found.get(&offset) {
                Some(place) if *place == (id, *log_offset) => report.confirmed += 1,
                Some(place) => faults.add(
                    "other message",
                    format!("{name:?} {offset} holds {place:?} and was acknowledged for {:?}", (id, log_offset)),
                ),
                None if *log_offset < log_min => report.expired += 1,
                None => faults.add("lost", format!("{id} at {name:?} {offset}, log {log_offset}")),
            }
        }
    }

    /// Looks up some messages that the log still has, by where they lie and by their keys.
    pub fn check_sample(
        &self,
        reader: &mut Reader,
        store: &Path,
        count: usize,
        random: &mut impl rand::Rng,
    ) -> Result<()> {
        let log_min = log_begin(store)?;
        let mut faults = Faults::default();
        for (name, queue) in &self.queues {
            let there: Vec<_> = queue.found.iter().rev().take_while(|(_, place)| place.1 >= log_min).collect();
            for _ in 0..count.min(there.len()) {
                let (offset, (id, log_offset)) = there[random.random_range(0..there.len())];
                let at_offset = |message: &StoredMessage| {
                    message.log_offset == *log_offset && message.property(ID) == Some(&id.to_string())
                };
                if !reader.view(*log_offset)?.as_ref().is_some_and(at_offset) && *log_offset >= log_begin(store)? {
                    faults.add("not at its log offset", format!("{id} at {name:?} {offset}, log {log_offset}"));
                }
                let Some(key) = self.attempts.get(id).and_then(|sent| sent.key.as_ref()) else { continue };
                if !reader.query(&name.0, key)?.iter().any(at_offset) && *log_offset >= log_begin(store)? {
                    faults.add("not under its key", format!("{id} at {name:?} {offset}, log {log_offset}"));
                }
            }
        }
        faults.into_result()
    }
}

/// Whether a queue begins at that offset or behind it, as it will soon after retention took the log file before.
fn begins_at(reader: &mut Reader, name: &QueueName, offset: i64) -> Result<bool> {
    for _ in 0..REMOVING_MAX {
        if reader.min_offset(&name.0, name.1)? >= offset {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(false)
}

/// The queue in which a message is acknowledged.
fn position(attempt: &Attempt) -> QueueName {
    if attempt.delayed { (SCHEDULE_TOPIC.into(), 0) } else { (Arc::clone(&attempt.topic), attempt.queue) }
}

/// Where the log begins: the name of its first file.
pub fn log_begin(store: &Path) -> Result<u64> {
    let dir: PathBuf = store.join("commitlog");
    let mut first = None;
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        if let Some(start) = entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) {
            first = Some(first.map_or(start, |first: u64| first.min(start)));
        }
    }
    Ok(first.unwrap_or(0))
}
