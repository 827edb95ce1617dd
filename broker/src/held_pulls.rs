//! Pulls that wait at the end of a queue until a message comes that they want.
//!
//! The store's dispatcher tells of each new entry, and exactly the pulls of that queue wake whose
//! filter lets its tag pass; they then run again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::filter::TagFilter;

/// One pull that waits.
struct Held {
    id: u64,
    /// The queue offset that it waits for; older entries do not concern it.
    offset: i64,
    filter: TagFilter,
    wake: oneshot::Sender<()>,
}

type Queues = HashMap<String, HashMap<i32, Vec<Held>>>;

/// All pulls that wait.
#[derive(Default)]
pub(crate) struct HeldPulls {
    queues: Mutex<Queues>,
    next_id: AtomicU64,
    count: AtomicUsize,
}

/// A pull's place among those that wait; dropping it gives the place up.
pub(crate) struct Place {
    pulls: Arc<HeldPulls>,
    topic: String,
    queue_id: i32,
    id: u64,
    woken: oneshot::Receiver<()>,
}

impl HeldPulls {
    /// How many pulls wait.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes a place for a pull at `offset`. Whoever takes one must look at the queue once more
    /// before he waits: the message may have come in between.
    pub(crate) fn hold(self: &Arc<Self>, topic: &str, queue_id: i32, offset: i64, filter: TagFilter) -> Place {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (wake, woken) = oneshot::channel();
        let held = Held { id, offset, filter, wake };
        let mut queues = self.queues.lock();
        // Topics are few and pulls are many: the key is made once for each topic.
        if !queues.contains_key(topic) {
            queues.insert(topic.to_owned(), HashMap::new());
        }
        if let Some(queues) = queues.get_mut(topic) {
            queues.entry(queue_id).or_default().push(held);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        drop(queues);
        Place { pulls: Arc::clone(self), topic: topic.to_owned(), queue_id, id, woken }
    }

    /// A message has come.
    pub(crate) fn arrived(&self, topic: &str, queue_id: i32, queue_offset: i64, tags_code: i64) {
        if self.count() == 0 {
            return;
        }
        let mut queues = self.queues.lock();
        let Some(held) = queues.get_mut(topic).and_then(|queues| queues.get_mut(&queue_id)) else {
            return;
        };
        for wanted in held.extract_if(.., |held| queue_offset >= held.offset && held.filter.matches(tags_code)) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            // A pull that is gone already does not mind.
            let _ = wanted.wake.send(());
        }
    }

    fn give_up(&self, topic: &str, queue_id: i32, id: u64) {
        let mut queues = self.queues.lock();
        let Some(of_topic) = queues.get_mut(topic) else { return };
        if let Some(held) = of_topic.get_mut(&queue_id) {
            let before = held.len();
            held.retain(|held| held.id != id);
            self.count.fetch_sub(before - held.len(), Ordering::Relaxed);
            if held.is_empty() {
                of_topic.remove(&queue_id);
            }
        }
        if of_topic.is_empty() {
            queues.remove(topic);
        }
    }
}

impl Place {
    /// Waits for a message that the pull wants.
    pub(crate) async fn woken(&mut self) {
        // The sender goes only with the place itself, or by waking it.
        let _ = (&mut self.woken).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pulls.give_up(&self.topic, self.queue_id, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_woken(place: &mut Place) -> bool {
        place.woken.try_recv().is_ok()
    }

    #[test]
    fn exactly_those_wake_that_want_the_message() {
        let pulls = Arc::new(HeldPulls::default());
        let all = || TagFilter::ALL;
        let tags = |expression| TagFilter::parse(expression).unwrap();
        let mut wants_a = pulls.hold("T", 0, 5, tags("TagA || TagB"));
        let mut wants_c = pulls.hold("T", 0, 5, tags("TagC"));
        let mut other_queue = pulls.hold("T", 1, 5, all());
        let mut later = pulls.hold("T", 0, 9, all());
        pulls.arrived("T", 0, 5, 2_598_919);
        assert!(is_woken(&mut wants_a));
        assert!(!is_woken(&mut wants_c) && !is_woken(&mut other_queue) && !is_woken(&mut later));
        assert_eq!(pulls.count(), 3);
        drop((wants_a, wants_c, other_queue, later));
        assert_eq!(pulls.count(), 0);
        assert!(pulls.queues.lock().is_empty(), "nothing of them stays");
    }
}
