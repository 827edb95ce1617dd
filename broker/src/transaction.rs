//! Transactions: half messages wait in `RMQ_SYS_TRANS_HALF_TOPIC` until their producer says what becomes of them, or is asked.
//!
//! Everything follows from two queues that a Java broker of 4.9 or 5.x reads and writes alike, and from two marks in them, the
//! consumer offsets of `CID_RMQ_SYS_TRANS`. A committed message is stored under its own topic first (`end`), and then the end of
//! the transaction is written (`op_message`). Rounds (`check`) pass over what has ended, store again what is still open, and ask
//! a producer of the group about it (`check_request`). What is known of the ends behind the marks is in memory (`ledger`), and a
//! start reads it from the queue.
//!
//! What is promised:
//! * A commit that was answered with success is stored. Where that fails the half message stays open, and the producer is asked.
//! * A transaction ends once: who ends it again, as an answer to a check or by an earlier copy of the message, changes nothing.
//!   That is remembered for what is still in the queue and for the last ten thousand transactions or so; who ends an older one
//!   again stores the message again, as with Java always.
//! * A kill or a power cut loses no open transaction: the marks are written when the log is on disk as far as it was then. A
//!   commit whose end did not reach the disk is asked about again, and stored twice if it is committed twice.
//!
//! A slave does nothing of this, and keeps its master's queues and marks for the day it is made a master.

mod check;
mod check_request;
mod end;
mod half_message;
mod ledger;
mod op_message;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rocketmq_remoting::bodies::{PERM_READ, PERM_WRITE, TopicConfig};
use rocketmq_store::MessageStore;
use tokio_util::sync::CancellationToken;

use self::check::{Pass, Step};
pub(crate) use self::end::{end, resume};
use self::half_message::QUEUE;
pub(crate) use self::half_message::{append_half, is_half, properties_added};
use self::ledger::{Decision, Ledger, Progress};
use crate::broker::Broker;
use crate::topics::{TRANS_HALF_TOPIC, TRANS_OP_HALF_TOPIC};

/// Whose consumer offsets the marks are (`CID_SYS_RMQ_TRANS`).
const GROUP: &str = "CID_RMQ_SYS_TRANS";
/// How often is looked whether marks can be moved, at most.
const TICK: Duration = Duration::from_secs(1);
/// Transactions of which one is ended or looked at beside the others.
const TURNS: usize = 64;
/// Ended half messages that are passed, and ends that are forgotten, under one lock.
const ADVANCE_MAX: usize = 4096;

/// The transactions of this broker.
#[derive(Default)]
pub(crate) struct Transactions {
    ledger: Mutex<Ledger>,
    /// Who ends a transaction or looks at it holds one of these, by the transaction's first half message.
    turns: Turns,
    /// Ended, and still to be written down.
    owed: Mutex<Vec<Owed>>,
    marks: Mutex<Marks>,
    committed: AtomicU64,
    rolled_back: AtomicU64,
    checked: AtomicU64,
    given_up: AtomicU64,
}

struct Turns([Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self([const { Mutex::new(()) }; TURNS])
    }
}

/// An end that could not be written.
struct Owed {
    half_offset: i64,
    keys: Vec<i64>,
    decision: Decision,
}

/// Marks on their way to the consumer offsets.
#[derive(Default)]
struct Marks {
    published: Progress,
    /// To be published as soon as the log is on disk up to there.
    candidate: Option<(Progress, u64)>,
}

/// How things stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Half messages whose transaction is open.
    pub(crate) open: i64,
    /// Transactions since the start that were committed.
    pub(crate) committed: u64,
    /// Those that were rolled back.
    pub(crate) rolled_back: u64,
    /// Questions to producers since the start.
    pub(crate) checked: u64,
    /// Half messages since the start that were given up.
    pub(crate) given_up: u64,
}

impl Transactions {
    /// How things stand on a master.
    pub(crate) fn standing(&self, store: &MessageStore) -> Standing {
        let half_end = store.max_offset(TRANS_HALF_TOPIC, QUEUE);
        let open = {
            let ledger = self.ledger.lock();
            half_end - ledger.progress().half - ledger.ended_ahead() as i64
        };
        let [committed, rolled_back, checked, given_up] =
            [&self.committed, &self.rolled_back, &self.checked, &self.given_up]
                .map(|count| count.load(Ordering::Relaxed));
        Standing { open: open.max(0), committed, rolled_back, checked, given_up }
    }

    /// Held while the transaction of that first half message is ended or looked at.
    fn turn(&self, root: i64) -> MutexGuard<'_, ()> {
        self.turns.0[root as usize % TURNS].lock()
    }

    /// Reads the marks and the ends behind them, before anybody may end a transaction here.
    pub(crate) fn load(&self, broker: &Broker) {
        let store = &broker.store;
        let mark = |topic: &str| {
            let (min, max) = (store.min_offset(topic, QUEUE), store.max_offset(topic, QUEUE));
            let mark = broker.offsets.get(GROUP, topic, QUEUE).unwrap_or(min);
            if !(min..=max).contains(&mark) {
                tracing::warn!(
                    topic,
                    mark,
                    min,
                    max,
                    "the offset of {GROUP} lies outside the queue and is moved into it"
                );
            }
            (mark.clamp(min, max), max, mark)
        };
        let ((half, half_end, half_mark), (op, op_end, op_mark)) = (mark(TRANS_HALF_TOPIC), mark(TRANS_OP_HALF_TOPIC));
        self.ledger.lock().begin(Progress { half, op }, op_end, half_end);
        // A mark that is moved must not be found again when the queue has grown up to it.
        self.marks.lock().published = Progress { half: half_mark, op: op_mark };
        check::read_ends(self, store, op, op_end);
        tracing::info!(half, half_end, op, op_end, "open transactions are looked after");
    }

    /// Moves the marks, writes what could not be written, and publishes marks that are safe.
    fn tidy(&self, broker: &Broker) {
        let owed = std::mem::take(&mut *self.owed.lock());
        for owed in owed {
            match op_message::append(broker, owed.half_offset) {
                Ok(appended) => self.ledger.lock().written(appended.queue_offset, &owed.keys, owed.decision),
                Err(_) => self.owed.lock().push(owed),
            }
        }
        let mut before = self.ledger.lock().progress();
        loop {
            let progress = self.ledger.lock().advance(ADVANCE_MAX);
            if progress == before {
                break;
            }
            before = progress;
        }
        self.publish(broker);
    }

    /// Publishes the last marks at the end; the log must be on disk.
    pub(crate) fn stop(&self, broker: &Broker) {
        self.marks.lock().candidate = None;
        self.publish(broker);
    }

    /// Publishes marks of an earlier moment, or of now, for which all that was stored by then is on disk: a power cut must not
    /// take the copy of an open half message and leave the mark behind the message.
    fn publish(&self, broker: &Broker) {
        let mut marks = self.marks.lock();
        let (progress, log_end) = marks.candidate.take().unwrap_or_else(|| {
            let progress = self.ledger.lock().progress();
            (progress, broker.store.max_physical_offset())
        });
        if progress == marks.published {
            return;
        }
        if broker.store.flushed_offset() < log_end {
            marks.candidate = Some((progress, log_end));
            return;
        }
        broker.offsets.commit(GROUP, TRANS_HALF_TOPIC, QUEUE, progress.half);
        broker.offsets.commit(GROUP, TRANS_OP_HALF_TOPIC, QUEUE, progress.op);
        marks.published = progress;
    }

    /// Whether a round is due although its time has not come.
    fn is_crowded(&self) -> bool {
        self.ledger.lock().is_crowded()
    }

    fn is_idle(&self, store: &MessageStore) -> bool {
        let marks = self.marks.lock();
        let ledger = self.ledger.lock();
        ledger.is_idle(store.max_offset(TRANS_HALF_TOPIC, QUEUE))
            && ledger.progress() == marks.published
            && self.owed.lock().is_empty()
    }
}

/// The topics come into being with the first half message; in Java, with the first round.
pub(crate) fn create_topics(broker: &Broker) -> anyhow::Result<()> {
    for topic in [TRANS_HALF_TOPIC, TRANS_OP_HALF_TOPIC].into_iter().filter(|name| broker.topics.get(name).is_none()) {
        broker.topics.get_or_create(TopicConfig::new(topic, 1, PERM_READ | PERM_WRITE))?;
    }
    Ok(())
}

/// Looks after open transactions until `shutdown`; for masters only.
pub(crate) async fn look_after(broker: Arc<Broker>, shutdown: CancellationToken) {
    let mut round_began = Instant::now();
    let mut ongoing: Option<Pass> = None;
    let mut pause = true;
    while !shutdown.is_cancelled() {
        let interval = broker.config().transaction_check_interval;
        if pause {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(TICK.min(interval)) => {}
            }
        }
        pause = true;
        if ongoing.is_none() && broker.transactions.is_idle(&broker.store) {
            continue;
        }
        if ongoing.is_none() && (round_began.elapsed() >= interval || broker.transactions.is_crowded()) {
            round_began = Instant::now();
            ongoing = Some(Pass::begin(&broker));
        }
        let (working, mut pass) = (Arc::clone(&broker), ongoing.take());
        let work = tokio::task::spawn_blocking(move || {
            working.transactions.tidy(&working);
            let step = pass.as_mut().map_or(Step::Done, |pass| pass.step(&working));
            (pass, step)
        });
        match work.await {
            Ok((_, Step::Done)) => {}
            Ok((pass, step)) => {
                ongoing = pass;
                pause = step == Step::Congested;
            }
            Err(panic) => tracing::error!("a round over open transactions failed: {panic}"),
        }
    }
}
