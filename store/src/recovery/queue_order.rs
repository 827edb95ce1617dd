//! Which messages of the log stand in the order of their queue.
//!
//! The log's checksum covers a message's body only, and the queue offset stands outside: a bit of it that changed would
//! send the message to another place of its queue, or begin the queue anew. Within a queue offsets rise by one, so a
//! message that does not follow the one before it waits for the next of its queue, which says whose offset is wrong.
//! May not: read the log or write a queue.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

/// See the module. One for each walk over the log.
#[derive(Debug, Default)]
pub(crate) struct QueueOrder {
    queues: HashMap<String, HashMap<i32, State, RandomState>, RandomState>,
}

#[derive(Debug, Default)]
struct State {
    /// Queue offset of the last message that is believed.
    believed: Option<i64>,
    /// The queue's first message of this walk, when the second lies before it: one of them is wrong.
    first: Option<Place>,
    /// The newest message, which does not follow.
    doubtful: Option<Place>,
}

/// Where a message is, and where it says it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) queue_offset: i64,
    pub(crate) physical: u64,
}

/// What is known once a message was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The doubtful message before it turned out right.
    pub(crate) before: Option<Place>,
    /// The doubtful message before it turned out damaged.
    pub(crate) damaged: Option<Place>,
    /// The message itself is right; otherwise it waits.
    pub(crate) itself: bool,
}

/// What is left of a queue at the end of the log.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) topic: String,
    pub(crate) queue_id: i32,
    /// Messages that nothing speaks against: others before them are missing.
    pub(crate) believed: Vec<Place>,
    /// The queue's next message gets this offset at least: the one below belongs to a damaged message.
    pub(crate) next_offset: i64,
}

impl QueueOrder {
    /// Takes the next message of a queue. `last` is the offset of the queue's message before it, where that is known
    /// from elsewhere; it is asked for at the first message of each queue.
    pub(crate) fn next(
        &mut self,
        topic: &str,
        queue_id: i32,
        place: Place,
        last: impl FnOnce() -> Option<i64>,
    ) -> Verdict {
        let is_possible = OFFSETS.contains(&place.queue_offset);
        let place = Place { queue_offset: if is_possible { place.queue_offset } else { -1 }, ..place };
        if !self.queues.contains_key(topic) {
            self.queues.insert(topic.to_owned(), HashMap::default());
        }
        let Some(queues) = self.queues.get_mut(topic) else { return Verdict::default() };
        queues.entry(queue_id).or_insert_with(|| State { believed: last(), first: None, doubtful: None }).next(place)
    }

    /// The queues that have messages waiting at the end of the log.
    pub(crate) fn finish(self) -> impl Iterator<Item = Rest> {
        self.queues.into_iter().flat_map(|(topic, queues)| {
            queues.into_iter().filter_map(move |(queue_id, state)| {
                let (believed, next_offset) = state.finish()?;
                Some(Rest { topic: topic.clone(), queue_id, believed, next_offset })
            })
        })
    }
}

impl State {
    fn next(&mut self, place: Place) -> Verdict {
        let offset = place.queue_offset;
        let mut verdict = Verdict::default();
        if let Some(doubtful) = self.doubtful.take() {
            let is_second = self.believed.is_none() && self.first.is_none();
            if is_second && offset <= doubtful.queue_offset && offset != 0 {
                (self.first, self.doubtful) = (Some(doubtful), Some(place));
                return verdict;
            }
            let first = self.first.take();
            if follows(offset, doubtful.queue_offset) {
                self.believed = Some(doubtful.queue_offset);
                verdict.before = Some(doubtful);
                verdict.damaged = first;
            } else {
                self.believed = first.map_or(self.believed, |first| Some(first.queue_offset));
                verdict.before = first;
                if self.is_between(doubtful.queue_offset, offset) {
                    self.believed = Some(doubtful.queue_offset);
                    verdict.before = Some(doubtful);
                } else {
                    verdict.damaged = Some(doubtful);
                    // Its place stays empty.
                    self.believed = self.believed.map(|b| if follows(offset, b + 1) { b + 1 } else { b });
                }
            }
        }
        verdict.itself = self.believed.is_some_and(|believed| follows(offset, believed));
        if verdict.itself {
            self.believed = Some(offset);
        } else {
            self.doubtful = Some(place);
        }
        verdict
    }

    /// Whether a doubtful offset may be right though the next one does not follow it.
    fn is_between(&self, doubtful: i64, next: i64) -> bool {
        match self.believed {
            // Without it, or with it in between, the order is whole.
            Some(b) if follows(next, b) || follows(next, b + 1) => false,
            // Messages are missing on both sides.
            Some(b) => b < doubtful && doubtful < next,
            // The queue's first one: messages are missing behind it, or the queue begins anew.
            None => true,
        }
    }

    /// Those that wait and may be right, and the offset behind the last one.
    fn finish(self) -> Option<(Vec<Place>, i64)> {
        let last = self.doubtful?;
        let believed = self.first.map_or(self.believed, |first| Some(first.queue_offset));
        // 0 more likely begins the queue anew.
        let is_right = last.queue_offset == 0 || believed.is_none_or(|believed| believed < last.queue_offset);
        let rest = self.first.into_iter().chain(Some(last).filter(|_| is_right)).collect();
        let next_offset = believed.filter(|_| last.queue_offset != 0).map_or(0, |believed| believed + 2);
        Some((rest, next_offset))
    }
}

/// No queue has as many messages: its file names would not have room for them.
const OFFSETS: Range<i64> = 0..i64::MAX / 64;

/// Whether `offset` is the one behind `before`.
fn follows(offset: i64, before: i64) -> bool {
    offset - 1 == before
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which messages are believed, of a queue whose messages say these offsets.
    fn believed(known: Option<i64>, offsets: &[i64]) -> Vec<u64> {
        let mut order = QueueOrder::default();
        let mut believed = Vec::new();
        for (physical, queue_offset) in (0..).zip(offsets) {
            let place = Place { queue_offset: *queue_offset, physical };
            let verdict = order.next("T", 3, place, || known);
            believed.extend(verdict.before.map(|before| before.physical));
            believed.extend(verdict.itself.then_some(physical));
        }
        believed.extend(order.finish().flat_map(|rest| rest.believed).map(|place| place.physical));
        believed
    }

    #[test]
    fn what_follows_is_believed_from_anywhere() {
        assert_eq!(believed(None, &[0, 1, 2]), [0, 1, 2]);
        assert_eq!(believed(None, &[70, 71, 72]), [0, 1, 2]);
        assert_eq!(believed(None, &[70]), [0]);
        assert_eq!(believed(Some(69), &[70]), [0]);
    }

    #[test]
    fn one_that_does_not_fit_is_left_out() {
        for wrong in [0, 1, 2, 3, 8, 12, 13, 1 << 20, i64::MAX, i64::MIN, -1] {
            assert_eq!(believed(Some(9), &[10, wrong, 12, 13]), [0, 2, 3], "{wrong}");
            assert_eq!(believed(None, &[9, 10, wrong, 12]), [0, 1, 3], "{wrong}");
            if wrong != 10 {
                assert_eq!(believed(None, &[9, wrong, 11, 12]), [0, 2, 3], "{wrong} as the second");
            }
        }
        for wrong in [1, 2, 3, 64, 1 << 50] {
            assert_eq!(believed(None, &[wrong, 1, 2, 3]), [1, 2, 3], "{wrong}");
        }
        assert_eq!(believed(Some(9), &[10, 11, 3]), [0, 1], "the last one");
        assert_eq!(believed(None, &[10, 3]), [0], "the last of two");
        assert_eq!(believed(Some(9), &[10, 77, 11, 12]), [0, 2, 3], "of another queue");
    }

    #[test]
    fn a_jump_that_goes_on_is_believed() {
        assert_eq!(believed(Some(9), &[10, 0, 1, 2]), [0, 1, 2, 3], "the queue began anew");
        assert_eq!(believed(None, &[10, 0, 1]), [0, 1, 2]);
        assert_eq!(believed(Some(9), &[10, 0]), [0, 1]);
        assert_eq!(believed(Some(9), &[10, 14, 15]), [0, 1, 2], "some are missing");
        assert_eq!(believed(Some(9), &[10, 14, 18, 30]), [0, 1, 2, 3]);
        assert_eq!(believed(Some(9), &[12]), [0]);
    }

    #[test]
    fn the_offset_of_a_damaged_last_message_is_taken() {
        for (offsets, next) in [(&[10, 11, 4][..], 13), (&[10, 11, 900], 13), (&[10, 4], 12), (&[4], 0)] {
            let mut order = QueueOrder::default();
            for (physical, queue_offset) in (0..).zip(offsets) {
                order.next("T", 3, Place { queue_offset: *queue_offset, physical }, || None);
            }
            assert_eq!(order.finish().map(|rest| rest.next_offset).collect::<Vec<_>>(), [next], "{offsets:?}");
        }
    }
}
