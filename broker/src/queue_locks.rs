//! Which member of a group may consume a queue in order (`RebalanceLockManager` in Java).
//!
//! In memory only: after a restart the members lock again.

use std::collections::HashMap;

use parking_lot::Mutex;
use rocketmq_remoting::bodies::MessageQueue;

/// A lock lives this long without being renewed, in milliseconds
/// (`rocketmq.broker.rebalance.lockMaxLiveTime`).
pub(crate) const LOCK_MAX_MS: i64 = 60_000;

/// Locks of all groups.
#[derive(Debug, Default)]
pub(crate) struct QueueLocks {
    groups: Mutex<HashMap<String, HashMap<MessageQueue, Lock>>>,
}

#[derive(Debug)]
struct Lock {
    client_id: Box<str>,
    renewed_ms: i64,
}

impl Lock {
    fn is_expired(&self, now_ms: i64) -> bool {
        now_ms - self.renewed_ms > LOCK_MAX_MS
    }
}

impl QueueLocks {
    /// Locks each of `queues` for a member, or renews its lock; what comes back is its own now.
    /// A queue that another member holds is left out.
    pub(crate) fn lock(
        &self,
        group: &str,
        client_id: &str,
        queues: Vec<MessageQueue>,
        now_ms: i64,
    ) -> Vec<MessageQueue> {
        if queues.is_empty() {
            return queues;
        }
        let mut groups = self.groups.lock();
        let locks = groups.entry(group.to_owned()).or_default();
        locks.retain(|_, lock| !lock.is_expired(now_ms));
        let mut locked = Vec::with_capacity(queues.len());
        for queue in queues {
            match locks.get_mut(&queue) {
                Some(lock) if *lock.client_id != *client_id => continue,
                Some(lock) => lock.renewed_ms = now_ms,
                None => {
                    tracing::info!(group, client = client_id, ?queue, "queue locked");
                    locks.insert(queue.clone(), Lock { client_id: client_id.into(), renewed_ms: now_ms });
                }
            }
            locked.push(queue);
        }
        locked
    }

    /// Gives up the locks that the member holds among `queues`.
    pub(crate) fn unlock(&self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let mut groups = self.groups.lock();
        let Some(locks) = groups.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| *lock.client_id == *client_id) {
                locks.remove(queue);
            }
        }
        if locks.is_empty() {
            groups.remove(group);
        }
    }

    /// Forgets locks that nobody renewed.
    pub(crate) fn expire(&self, now_ms: i64) {
        self.groups.lock().retain(|_, locks| {
            locks.retain(|_, lock| !lock.is_expired(now_ms));
            !locks.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_id: i32) -> MessageQueue {
        MessageQueue { broker_name: "b".into(), queue_id, topic: "T".into() }
    }

    #[test]
    fn a_queue_is_one_members_until_it_is_given_up() {
        let locks = QueueLocks::default();
        assert_eq!(locks.lock("g", "a", vec![queue(0), queue(1)], 0), vec![queue(0), queue(1)]);
        assert_eq!(locks.lock("g", "b", vec![queue(1), queue(2)], 1), vec![queue(2)]);
        assert_eq!(locks.lock("other", "b", vec![queue(1)], 1), vec![queue(1)]);
        locks.unlock("g", "b", &[queue(1)]);
        assert_eq!(locks.lock("g", "b", vec![queue(1)], 1), vec![], "only the holder gives a lock up");
        locks.unlock("g", "a", &[queue(1)]);
        assert_eq!(locks.lock("g", "b", vec![queue(1)], 1), vec![queue(1)]);
    }

    #[test]
    fn a_lock_ends_sixty_seconds_after_it_was_last_renewed() {
        let locks = QueueLocks::default();
        locks.lock("g", "a", vec![queue(0)], 0);
        locks.lock("g", "a", vec![queue(0)], 20_000);
        assert_eq!(locks.lock("g", "b", vec![queue(0)], 80_000), vec![]);
        assert_eq!(locks.lock("g", "b", vec![queue(0)], 80_001), vec![queue(0)]);
        locks.expire(200_000);
        assert!(locks.groups.lock().is_empty());
    }
}
