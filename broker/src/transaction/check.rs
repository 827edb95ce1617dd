//! Rounds over the half queue (4.9's `TransactionalMessageServiceImpl.check`).
//!
//! A round goes from the mark up to where the queue ended when it began, and ends early at the first message that is too
//! young. What is still open is stored again at the end, so that the mark can move on. Work is done in steps of bounded size, on
//! a thread that may wait for the disk.

use std::sync::atomic::Ordering;

use rocketmq_remoting::bodies::{PERM_READ, PERM_WRITE, TopicConfig};
use rocketmq_store::{MessageStore, StoreError};

use super::check_request::{self, Asked};
use super::end::write_end;
use super::half_message::{Due, HalfMessage, QUEUE, root_at};
use super::{ADVANCE_MAX, Decision, Transactions, op_message};
use crate::broker::Broker;
use crate::clock;
use crate::delay::{behind_hole, is_hopeless};
use crate::topics::{TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC, TRANS_OP_HALF_TOPIC};

/// Half messages of a step.
const STEP_MAX: usize = 256;
/// Ends that are read at once.
const READ_AT_ONCE: usize = 256;

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until the next round.
    Done,
    /// Another one at once.
    More,
    /// Another one, when producers have had time to read.
    Congested,
}

/// What became of one half message.
enum Settled {
    /// It is done with, or stored again.
    Passed,
    /// It is stored again, and its producers were to be asked.
    Asked(Asked),
    /// It stays where it is, and all behind it.
    Waits,
}

/// A round that is not over.
pub(super) struct Pass {
    /// Where the queue ended when it began: what is stored again is not looked at twice.
    end: i64,
    /// Half messages for which nobody was there to be asked.
    unasked: u64,
}

impl Pass {
    /// Begins a round.
    pub(super) fn begin(broker: &Broker) -> Self {
        let end = broker.store.max_offset(TRANS_HALF_TOPIC, QUEUE);
        let progress = broker.transactions.ledger.lock().progress();
        // Java's line, which people look for.
        let (half, op) = (progress.half, progress.op);
        tracing::info!("Before check, the queue={TRANS_HALF_TOPIC}:{QUEUE} msgOffset={half} opOffset={op} end={end}");
        Self { end, unasked: 0 }
    }

    /// Goes on with it.
    pub(super) fn step(&mut self, broker: &Broker) -> Step {
        let step = self.go_on(broker);
        if step == Step::Done && self.unasked > 0 {
            // Once a round: there may be many.
            tracing::warn!(self.unasked, "open transactions wait for a producer of their groups");
        }
        step
    }

    fn go_on(&mut self, broker: &Broker) -> Step {
        let (transactions, store) = (&broker.transactions, &broker.store);
        let at = transactions.ledger.lock().advance(ADVANCE_MAX).half;
        if at >= self.end {
            return Step::Done;
        }
        let room = usize::try_from(self.end - at).unwrap_or(STEP_MAX).min(STEP_MAX);
        let entries = store.queue_entries(TRANS_HALF_TOPIC, QUEUE, at, room);
        if entries.is_empty() {
            let begin = store.min_offset(TRANS_HALF_TOPIC, QUEUE);
            let Some(next) = behind_hole(store, TRANS_HALF_TOPIC, QUEUE, at).or((begin > at).then_some(begin)) else {
                return Step::Done;
            };
            tracing::error!(from = at, to = next, "half messages are lost: their queue has a hole");
            transactions.ledger.lock().pass(next - 1);
            return Step::More;
        }
        for entry in entries {
            let is_ended = transactions.ledger.lock().decision(entry.queue_offset).is_some();
            let settled = if is_ended {
                Ok(Settled::Passed)
            } else if let Some(unit) = store.message_at(entry.offset) {
                settle(broker, &unit)
            } else {
                tracing::error!(
                    offset = entry.queue_offset,
                    "a half message is lost: the log does not have it any more"
                );
                Ok(Settled::Passed)
            };
            match settled {
                Ok(Settled::Passed) => transactions.ledger.lock().pass(entry.queue_offset),
                Ok(Settled::Asked(asked)) => {
                    transactions.ledger.lock().pass(entry.queue_offset);
                    self.unasked += u64::from(asked == Asked::Nobody);
                    if asked == Asked::Congested {
                        return Step::Congested;
                    }
                }
                Ok(Settled::Waits) => return Step::Done,
                Err(error) => {
                    tracing::warn!(offset = entry.queue_offset, %error, "open transactions wait: nothing can be stored");
                    return Step::Done;
                }
            }
        }
        Step::More
    }
}

/// Does what is due about one half message whose own place does not say that it has ended.
fn settle(broker: &Broker, unit: &[u8]) -> Result<Settled, StoreError> {
    let transactions = &broker.transactions;
    let half = match HalfMessage::read(&broker.store, unit) {
        Ok(half) => half,
        Err(reason) => {
            tracing::error!(reason, "what is no half message is passed over");
            return Ok(Settled::Passed);
        }
    };
    let _turn = transactions.turn(half.root);
    let decision = {
        let ledger = transactions.ledger.lock();
        ledger.decision(half.offset()).or_else(|| ledger.decision(half.root))
    };
    if let Some(decision) = decision {
        // The end names an earlier copy; who reads the queue later is to find this one, too.
        if transactions.ledger.lock().decision(half.offset()).is_none() {
            write_end(broker, &half, decision)?;
        }
        return Ok(Settled::Passed);
    }
    let mut due = half.due(clock::now_millis(), &broker.config());
    if due == Due::Later && transactions.ledger.lock().is_crowded() {
        due = Due::Immune;
    }
    match due {
        Due::Later => Ok(Settled::Waits),
        Due::GiveUp => give_up(broker, &half).map(|()| Settled::Passed),
        Due::Immune | Due::Check => match half.renew(broker, due) {
            Ok(appended) => {
                transactions.ledger.lock().renewed(appended.queue_offset);
                Ok(if due == Due::Check { Settled::Asked(ask(broker, appended.offset)) } else { Settled::Passed })
            }
            Err(error) if is_hopeless(&error) => {
                tracing::error!(offset = half.offset(), %error, "a half message can never be stored again and is dropped");
                Ok(Settled::Passed)
            }
            Err(error) => Err(error),
        },
    }
}

/// Asks about the half message that was just stored there.
fn ask(broker: &Broker, physical: u64) -> Asked {
    let Some(unit) = broker.store.message_at(physical) else { return Asked::Nobody };
    let Ok(half) = HalfMessage::read(&broker.store, &unit) else { return Asked::Nobody };
    let asked = check_request::send(broker, &half, &unit);
    if asked == Asked::One {
        broker.transactions.checked.fetch_add(1, Ordering::Relaxed);
    }
    asked
}

/// Java goes on also where the message cannot be stored, and loses it.
fn give_up(broker: &Broker, half: &HalfMessage<'_>) -> Result<(), StoreError> {
    let topic = TopicConfig::new(TRANS_CHECK_MAX_TIME_TOPIC, 1, PERM_READ | PERM_WRITE);
    if let Err(error) = broker.topics.get_or_create(topic) {
        tracing::error!("{TRANS_CHECK_MAX_TIME_TOPIC} could not be made: {error:#}");
    }
    half.give_up(broker)?;
    broker.transactions.given_up.fetch_add(1, Ordering::Relaxed);
    tracing::error!(
        topic = half.real_topic,
        group = half.group,
        key = half.uniq_key,
        "a half message was asked about too often, or is too old: it is moved to {TRANS_CHECK_MAX_TIME_TOPIC}"
    );
    Ok(())
}

/// Takes in the ends from one place of their queue to another.
pub(super) fn read_ends(transactions: &Transactions, store: &MessageStore, from: i64, to: i64) {
    let mut at = from;
    while at < to {
        let entries = store.queue_entries(TRANS_OP_HALF_TOPIC, QUEUE, at, READ_AT_ONCE);
        if entries.is_empty() {
            let Some(next) = behind_hole(store, TRANS_OP_HALF_TOPIC, QUEUE, at) else { return };
            tracing::error!(from = at, to = next, "ends of transactions are lost: their queue has a hole");
            at = next;
        }
        for entry in entries {
            at = entry.queue_offset + 1;
            let unit = store.message_at(entry.offset);
            let mut keys = unit.map_or_else(Vec::new, |unit| op_message::half_offsets(&unit));
            // The end names a copy; there may be later ones.
            let roots: Vec<i64> = keys.iter().filter_map(|offset| root_at(store, *offset)).collect();
            keys.extend(roots);
            keys.sort_unstable();
            keys.dedup();
            if !keys.is_empty() {
                transactions.ledger.lock().written(entry.queue_offset, &keys, Decision::Either);
            }
        }
    }
}
