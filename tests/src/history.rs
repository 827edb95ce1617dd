//! What producers and consumers saw, held against what RocketMQ promises. Knows messages only by their keys and positions.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Result, bail};

use crate::client::{Received, Sent};

/// At most this many faults of one sort are spelt out.
const SHOWN: usize = 5;

/// Where a message lies.
type Position = (String, i32, i64);

/// A producer's and a consumer's record of one topic that nobody else wrote to.
#[derive(Debug, Default, Clone)]
pub struct History {
    sent: Vec<Sent>,
    received: Vec<Received>,
}

impl History {
    /// Adds what a producer saw.
    pub fn sent(&mut self, sent: impl IntoIterator<Item = Sent>) -> &mut Self {
        self.sent.extend(sent);
        self
    }

    /// Adds what a consumer saw, in the order in which it saw it.
    pub fn received(&mut self, received: impl IntoIterator<Item = Received>) -> &mut Self {
        self.received.extend(received);
        self
    }

    /// How many sends were acknowledged with `SEND_OK`.
    pub fn acknowledged(&self) -> usize {
        self.sent.iter().filter(|sent| sent.is_ok()).count()
    }

    /// Every `SEND_OK` message was received, whole, where the acknowledgement said it is; nothing was received that was never sent;
    /// no position was given to two messages.
    pub fn check(&self) -> Result<()> {
        let mut faults = Faults::default();
        self.check_lost(&mut faults);
        self.check_phantoms(&mut faults);
        self.check_positions(&mut faults);
        faults.into_result()
    }

    /// As [`check`](Self::check), and every queue was received without a hole from its first received offset to its last. For a topic
    /// whose every message was read.
    pub fn check_without_gaps(&self) -> Result<()> {
        self.check()?;
        let mut faults = Faults::default();
        let mut queues: BTreeMap<(&str, i32), Vec<i64>> = BTreeMap::new();
        for received in &self.received {
            queues.entry((&received.broker, received.queue_id)).or_default().push(received.queue_offset);
        }
        for ((broker, queue), mut offsets) in queues {
            offsets.sort_unstable();
            offsets.dedup();
            for pair in offsets.windows(2).filter(|pair| pair[1] != pair[0] + 1) {
                faults.add("gap", format!("{broker}:{queue} jumps from {} to {}", pair[0], pair[1]));
            }
        }
        faults.into_result()
    }

    /// Each queue was seen in the order of its offsets, and (for a single sending thread) in the order of sending.
    pub fn check_order(&self) -> Result<()> {
        let mut faults = Faults::default();
        let mut last: HashMap<(&str, i32), &Received> = HashMap::new();
        for received in &self.received {
            if let Some(before) = last.insert((&received.broker, received.queue_id), received)
                && (before.queue_offset >= received.queue_offset || before.seq >= received.seq)
            {
                faults.add(
                    "order",
                    format!(
                        "{}:{} gave {} (seq {:?}) before {} (seq {:?})",
                        received.broker,
                        received.queue_id,
                        before.queue_offset,
                        before.seq,
                        received.queue_offset,
                        received.seq
                    ),
                );
            }
        }
        faults.into_result()
    }

    fn check_lost(&self, faults: &mut Faults) {
        let keys: HashSet<&str> = self.received.iter().map(|received| received.key.as_str()).collect();
        for sent in self.sent.iter().filter(|sent| sent.is_ok() && !keys.contains(sent.key.as_str())) {
            faults
                .add("lost", format!("{} at {:?}:{:?}:{:?}", sent.key, sent.broker, sent.queue_id, sent.queue_offset));
        }
    }

    fn check_phantoms(&self, faults: &mut Faults) {
        let keys: HashSet<&str> = self.sent.iter().map(|sent| sent.key.as_str()).collect();
        for received in &self.received {
            if !keys.contains(received.key.as_str()) {
                faults.add("phantom", format!("{} at {:?}", received.key, position_of(received)));
            }
            if !received.whole {
                faults.add("damaged", format!("{} at {:?}", received.key, position_of(received)));
            }
        }
    }

    fn check_positions(&self, faults: &mut Faults) {
        let mut at: HashMap<Position, &str> = HashMap::new();
        for sent in self.sent.iter().filter(|sent| sent.is_ok()) {
            let (Some(broker), Some(queue), Some(offset)) = (&sent.broker, sent.queue_id, sent.queue_offset) else {
                faults.add("acknowledged nowhere", sent.key.clone());
                continue;
            };
            if let Some(other) = at.insert((broker.clone(), queue, offset), &sent.key)
                && other != sent.key
            {
                faults.add("offset given twice", format!("{broker}:{queue}:{offset} to {other} and {}", sent.key));
            }
        }
        for received in &self.received {
            // Retries have a position of their own, in the retry topic.
            if received.retry_topic.is_some() {
                continue;
            }
            if let Some(key) = at.get(&position_of(received))
                && *key != received.key
            {
                faults.add(
                    "other message",
                    format!("{:?} was acknowledged for {key} and holds {received:?}", position_of(received)),
                );
            }
        }
    }
}

fn position_of(received: &Received) -> Position {
    (received.broker.clone(), received.queue_id, received.queue_offset)
}

#[derive(Debug, Default)]
pub(crate) struct Faults(BTreeMap<&'static str, Vec<String>>);

impl Faults {
    pub(crate) fn add(&mut self, sort: &'static str, what: String) {
        self.0.entry(sort).or_default().push(what);
    }

    pub(crate) fn into_result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(sort, all)| format!("{sort}: {} times, as {}", all.len(), all[..all.len().min(SHOWN)].join("; ")))
            .collect();
        bail!("{}", lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(seq: u64, offset: i64) -> Sent {
        Sent {
            seq,
            key: format!("r-{seq}"),
            status: "SEND_OK".into(),
            msg_id: Some(seq.to_string()),
            offset_msg_id: None,
            broker: Some("b".into()),
            queue_id: Some(0),
            queue_offset: Some(offset),
            error: None,
        }
    }

    fn received(seq: u64, offset: i64) -> Received {
        Received {
            seq: Some(seq),
            key: format!("r-{seq}"),
            msg_id: seq.to_string(),
            broker: "b".into(),
            topic: "T".into(),
            queue_id: 0,
            queue_offset: offset,
            commit_log_offset: offset * 100,
            reconsume_times: 0,
            tags: None,
            store_host: String::new(),
            whole: true,
            born: 0,
            stored: 0,
            at: 0,
            retry_topic: None,
            out_ms: None,
        }
    }

    fn fault(history: &History, check: impl Fn(&History) -> Result<()>) -> String {
        check(history).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_good_history_passes() {
        let mut history = History::default();
        history.sent([sent(1, 0), sent(2, 1)]).received([received(1, 0), received(1, 0), received(2, 1)]);
        assert!(history.check().is_ok() && history.check_without_gaps().is_ok());
    }

    #[test]
    fn each_fault_is_named() {
        let mut lost = History::default();
        lost.sent([sent(1, 0), sent(2, 1)]).received([received(1, 0)]);
        assert!(fault(&lost, History::check).contains("lost: 1 times, as r-2"));

        let mut phantom = History::default();
        phantom.sent([sent(1, 0)]).received([received(1, 0), received(9, 1)]);
        assert!(fault(&phantom, History::check).contains("phantom"));

        let mut twice = History::default();
        twice.sent([sent(1, 0), sent(2, 0)]).received([received(1, 0), received(2, 1)]);
        assert!(fault(&twice, History::check).contains("offset given twice"));

        let mut gap = History::default();
        gap.sent([sent(1, 0), sent(2, 2)]).received([received(1, 0), received(2, 2)]);
        assert!(gap.check().is_ok());
        assert!(fault(&gap, History::check_without_gaps).contains("gap"));

        let mut order = History::default();
        order.sent([sent(1, 0), sent(2, 1)]).received([received(2, 1), received(1, 0)]);
        assert!(fault(&order, History::check_order).contains("order"));

        let mut other = History::default();
        other.sent([sent(1, 0), sent(2, 1)]).received([received(1, 1), received(2, 0)]);
        assert!(fault(&other, History::check).contains("other message"));

        let mut damaged = History::default();
        damaged.sent([sent(1, 0)]).received([Received { whole: false, ..received(1, 0) }]);
        assert!(fault(&damaged, History::check).contains("damaged"));
    }
}
