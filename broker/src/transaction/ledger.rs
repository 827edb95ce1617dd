//! What is known of the half queue: up to where all is done with, and which messages behind that have ended.
//!
//! Follows from the queue of ends, and is built anew from it at the start. Knows places in queues, not messages. May not read
//! or write anything.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Ended transactions that are remembered although their half messages are passed, for those who end them once more.
const REMEMBERED_MAX: usize = 16_384;
/// Ends from which on no young half message may hold up the mark: some sixty megabytes.
const CROWDED: usize = 500_000;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Its message is for consumers.
    Committed,
    /// Nobody gets it.
    RolledBack,
    /// One of the two: an end that was read tells no more.
    Either,
}

/// The two marks from which a later start goes on: the consumer offsets of `CID_RMQ_SYS_TRANS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// All before it in the half queue is done with.
    pub(super) half: i64,
    /// Nothing before it in the queue of ends matters any more.
    pub(super) op: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    progress: Progress,
    /// Ends before it were read at the start: those that are not here are lost.
    op_loaded: i64,
    ended: HashMap<i64, Ended>,
    /// Ends by their place, from the progress on.
    ops: BTreeMap<i64, Op>,
    /// The last place at which a half message was stored again.
    last_renewed: i64,
    /// Keys of `ended` that no end holds any more, oldest first.
    remembered: VecDeque<i64>,
}

#[derive(Debug)]
struct Ended {
    decision: Decision,
    /// How many of `ops` and `remembered` name it.
    holders: u32,
}

#[derive(Debug)]
struct Op {
    /// The half message and the transaction's first one, or all that a list of 5.x names.
    keys: Box<[i64]>,
    /// The half queue must be done with up to there before the end may be forgotten: the message that it names, and any
    /// later copy of it.
    needed_until: i64,
}

impl Ledger {
    /// Begins from the marks of an earlier run. Ends up to `op_loaded` follow; half messages up to `half_end` may be copies of
    /// earlier ones.
    pub(super) fn begin(&mut self, progress: Progress, op_loaded: i64, half_end: i64) {
        self.progress = progress;
        self.op_loaded = op_loaded;
        self.last_renewed = self.last_renewed.max(half_end - 1);
    }

    /// Where things stand.
    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// How a half message, or the transaction of that first half message, has ended.
    pub(super) fn decision(&self, offset: i64) -> Option<Decision> {
        self.ended.get(&offset).map(|ended| ended.decision)
    }

    /// Half messages behind the mark that have ended.
    pub(super) fn ended_ahead(&self) -> usize {
        self.ended.keys().filter(|offset| **offset >= self.progress.half).count()
    }

    /// Whether nothing is left to be passed or forgotten.
    pub(super) fn is_idle(&self, half_end: i64) -> bool {
        self.ops.is_empty() && self.progress.half >= half_end
    }

    /// Whether it has become so large that the mark must be moved.
    pub(super) fn is_crowded(&self) -> bool {
        self.ops.len() > CROWDED
    }

    /// A message was stored again there.
    pub(super) fn renewed(&mut self, offset: i64) {
        self.last_renewed = self.last_renewed.max(offset);
    }

    /// A transaction has ended, but that is written nowhere yet.
    pub(super) fn ended(&mut self, keys: &[i64], decision: Decision) {
        for key in keys {
            self.ended.entry(*key).or_insert(Ended { decision, holders: 0 });
        }
    }

    /// The end at that place says that these have ended.
    pub(super) fn written(&mut self, op_offset: i64, keys: &[i64], decision: Decision) {
        for key in keys {
            self.ended.entry(*key).or_insert(Ended { decision, holders: 0 }).holders += 1;
        }
        let last = keys.iter().copied().max().unwrap_or(0);
        let needed_until = last.max(self.last_renewed) + 1;
        self.ops.insert(op_offset, Op { keys: keys.into(), needed_until });
    }

    /// The half message at the mark is done with.
    pub(super) fn pass(&mut self, offset: i64) {
        self.progress.half = self.progress.half.max(offset + 1);
    }

    /// Passes over half messages that have ended, `max` at most, and forgets the ends of those that are passed.
    pub(super) fn advance(&mut self, max: usize) -> Progress {
        for _ in 0..max {
            if !self.ended.contains_key(&self.progress.half) {
                break;
            }
            self.progress.half += 1;
        }
        for _ in 0..max {
            let Some(first) = self.ops.first_entry() else {
                self.progress.op = self.progress.op.max(self.op_loaded);
                break;
            };
            // One that is not here and was not read may be on its way.
            if *first.key() > self.progress.op.max(self.op_loaded) || first.get().needed_until > self.progress.half {
                self.progress.op = self.progress.op.max((*first.key()).min(self.op_loaded));
                break;
            }
            let (offset, op) = first.remove_entry();
            self.progress.op = self.progress.op.max(offset + 1);
            self.remember(&op.keys);
        }
        self.progress
    }

    fn remember(&mut self, keys: &[i64]) {
        self.remembered.extend(keys);
        while self.remembered.len() > REMEMBERED_MAX {
            let Some(oldest) = self.remembered.pop_front() else { return };
            let is_free = self.ended.get_mut(&oldest).is_some_and(|ended| {
                ended.holders = ended.holders.saturating_sub(1);
                ended.holders == 0
            });
            if is_free {
                self.ended.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(half: i64, op: i64, op_loaded: i64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.begin(Progress { half, op }, op_loaded, half);
        ledger
    }

    #[test]
    fn marks_move_over_what_has_ended_only() {
        let mut ledger = ledger(10, 5, 5);
        ledger.written(6, &[11], Decision::Committed);
        assert_eq!(ledger.advance(100), Progress { half: 10, op: 5 }, "10 is open");
        assert_eq!(ledger.ended_ahead(), 1);
        ledger.written(5, &[10], Decision::RolledBack);
        assert_eq!(ledger.advance(100), Progress { half: 12, op: 7 });
        assert!(ledger.is_idle(12) && !ledger.is_idle(13));
        assert_eq!(ledger.decision(10), Some(Decision::RolledBack), "it is remembered");
    }

    #[test]
    fn an_end_that_is_on_its_way_is_waited_for() {
        let mut ledger = ledger(0, 0, 0);
        ledger.written(1, &[0], Decision::Committed);
        assert_eq!(ledger.advance(100), Progress { half: 1, op: 0 });
        ledger.written(0, &[1], Decision::Committed);
        assert_eq!(ledger.advance(100), Progress { half: 2, op: 2 });
    }

    #[test]
    fn ends_that_were_lost_before_the_start_hold_up_nothing() {
        let mut ledger = ledger(0, 3, 9);
        assert_eq!(ledger.advance(100).op, 9);
        let mut ledger = self::ledger(0, 3, 9);
        ledger.written(6, &[0], Decision::Either);
        ledger.written(9, &[2], Decision::Committed);
        assert_eq!(ledger.advance(100), Progress { half: 1, op: 9 });
        ledger.pass(1);
        assert_eq!(ledger.advance(100), Progress { half: 3, op: 10 });
    }

    #[test]
    fn an_end_is_kept_until_every_copy_is_passed() {
        let mut ledger = ledger(7, 0, 0);
        ledger.pass(7);
        ledger.renewed(9);
        ledger.written(0, &[7], Decision::Committed);
        ledger.written(1, &[8], Decision::Committed);
        assert_eq!(ledger.advance(100), Progress { half: 9, op: 0 }, "the copy of 7 lies at 9");
        ledger.pass(9);
        assert_eq!(ledger.advance(100), Progress { half: 10, op: 2 });
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ledger = ledger(0, 0, 0);
        let count = REMEMBERED_MAX as i64 + 10;
        for offset in 0..count {
            ledger.written(offset, &[offset], Decision::Committed);
        }
        assert_eq!(ledger.advance(usize::MAX), Progress { half: count, op: count });
        assert_eq!(ledger.ended.len(), REMEMBERED_MAX);
        assert_eq!((ledger.decision(9), ledger.decision(10)), (None, Some(Decision::Committed)));
    }

    /// Half messages and ends as they lie on disk, and what is known of them in memory.
    struct World {
        /// The transaction, by its first half message, of each place in the half queue.
        halves: Vec<i64>,
        /// What each end names.
        ops: Vec<i64>,
        ended: std::collections::HashSet<i64>,
        marks: Progress,
        ledger: Ledger,
    }

    impl World {
        fn end(&mut self, offset: i64) {
            let root = self.halves[offset as usize];
            let keys = if root == offset { vec![root] } else { vec![offset, root] };
            self.ops.push(offset);
            self.ledger.written(self.ops.len() as i64 - 1, &keys, Decision::Committed);
            self.ended.insert(root);
        }

        /// A look at the first one that is not done with.
        fn visit(&mut self, renews: bool) {
            let at = self.ledger.advance(3).half;
            let Some(root) = self.halves.get(at as usize).copied() else { return };
            if self.ledger.decision(at).is_none() {
                if self.ledger.decision(root).is_some() {
                    assert!(self.ended.contains(&root), "{root} is open");
                    self.end(at);
                } else {
                    assert!(!self.ended.contains(&root), "the end of {root} is forgotten at {at}");
                    if !renews {
                        return;
                    }
                    self.halves.push(root);
                    self.ledger.renewed(self.halves.len() as i64 - 1);
                }
            }
            self.ledger.pass(at);
        }

        fn restart(&mut self) {
            self.ledger = Ledger::default();
            self.ledger.begin(self.marks, self.ops.len() as i64, self.halves.len() as i64);
            for at in self.marks.op..self.ops.len() as i64 {
                let offset = self.ops[at as usize];
                let root = self.halves[offset as usize];
                self.ledger.written(at, &[offset, root], Decision::Either);
            }
        }
    }

    #[test]
    fn no_end_is_forgotten_while_a_copy_waits() {
        use rand::{RngExt as _, SeedableRng as _};
        let seed: u64 =
            std::env::var("TRANSACTION_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
        println!("TRANSACTION_SEED={seed}");
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        for _ in 0..50 {
            let mut world = World {
                halves: Vec::new(),
                ops: Vec::new(),
                ended: std::collections::HashSet::new(),
                marks: Progress::default(),
                ledger: Ledger::default(),
            };
            for _ in 0..2_000 {
                match random.random_range(0..100) {
                    0..20 => world.halves.push(world.halves.len() as i64),
                    20..40 if !world.halves.is_empty() => {
                        let offset = random.random_range(0..world.halves.len());
                        if !world.ended.contains(&world.halves[offset]) {
                            world.end(offset as i64);
                        }
                    }
                    40..90 => world.visit(random.random_bool(0.7)),
                    90..97 => world.marks = world.ledger.advance(5),
                    97 => world.restart(),
                    _ => {}
                }
            }
            // All that is open ends, and then nothing is left.
            for offset in 0..world.halves.len() {
                if !world.ended.contains(&world.halves[offset]) {
                    world.end(offset as i64);
                }
            }
            for _ in 0..2 * world.halves.len() {
                world.visit(false);
            }
            let end = Progress { half: world.halves.len() as i64, op: world.ops.len() as i64 };
            assert_eq!(world.ledger.advance(usize::MAX), end);
        }
    }
}
