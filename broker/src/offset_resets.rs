//! Offsets that groups have been set to and do not know of yet (5.x's `resetOffsetTable`, `useServerSideResetOffset`).
//!
//! The next pull of the queue is sent there, and until then what the group commits does not count. Not kept over a restart: the
//! offsets themselves are, in [`ConsumerOffsets`](crate::consumer_offsets::ConsumerOffsets).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// By topic and queue.
type Queues = HashMap<(String, i32), i64>;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct OffsetResets {
    /// How many there are, so that pulls look no further where there is none.
    count: AtomicUsize,
    groups: Mutex<HashMap<String, Queues>>,
}

impl OffsetResets {
    /// Sends the group's next pull of that queue to `offset`.
    pub(crate) fn set(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let mut groups = self.groups.lock();
        let queues = groups.entry(group.to_owned()).or_default();
        if queues.insert((topic.to_owned(), queue_id), offset).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the group does not know of its offset yet.
    pub(crate) fn is_pending(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        !self.is_empty()
            && self.groups.lock().get(group).is_some_and(|queues| queues.contains_key(&(topic.to_owned(), queue_id)))
    }

    /// Where the pull that asks is to be sent, once.
    pub(crate) fn take(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        if self.is_empty() {
            return None;
        }
        let mut groups = self.groups.lock();
        let queues = groups.get_mut(group)?;
        let offset = queues.remove(&(topic.to_owned(), queue_id))?;
        if queues.is_empty() {
            groups.remove(group);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(offset)
    }

    /// Forgets a group.
    pub(crate) fn forget(&self, group: &str) {
        let mut groups = self.groups.lock();
        if let Some(queues) = groups.remove(group) {
            self.count.fetch_sub(queues.len(), Ordering::Relaxed);
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_reset_once() {
        let resets = OffsetResets::default();
        resets.set("g", "T", 0, 5);
        resets.set("g", "T", 0, 3);
        resets.set("g", "T", 1, 4);
        assert!(resets.is_pending("g", "T", 0) && !resets.is_pending("h", "T", 0));
        assert_eq!((resets.take("g", "T", 0), resets.take("g", "T", 0)), (Some(3), None));
        resets.forget("g");
        resets.forget("g");
        assert!(!resets.is_pending("g", "T", 1) && resets.is_empty() && resets.groups.lock().is_empty());
    }
}
