//! What a broker still holds that somebody has to consume, from what it answered.
//!
//! Pure. Ordinary topics, redeliveries and dead letters count for each group that lacks them, and once where nobody
//! consumes at all; delayed messages and half messages count until the broker has delivered or ended them.

use std::collections::{BTreeMap, BTreeSet};

use crate::topics::is_system_topic;

/// Where messages of delay levels wait.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where half messages wait; what is done with is kept as the offset of a consumer group.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// That group.
const HALF_GROUP: &str = "CID_RMQ_SYS_TRANS";
/// A system topic by name, which anybody may use all the same.
const BENCHMARK_TOPIC: &str = "BenchmarkTest";
/// How many of the places where messages wait are named to people.
const NAMED: usize = 3;

/// The oldest and the next offset of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueRange {
    /// Offset of the oldest message.
    pub min: i64,
    /// Offset of the next message.
    pub max: i64,
}

/// What a broker answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// By topic, then by queue.
    pub queues: BTreeMap<String, BTreeMap<i32, QueueRange>>,
    /// The next offset to consume: by `topic@group`, then by queue.
    pub consumed: BTreeMap<String, BTreeMap<i32, i64>>,
    /// The next offset to deliver, by delay level from 1.
    pub delivered: BTreeMap<i32, i64>,
    /// Messages with a time of their own that wait for it.
    pub timed: i64,
}

/// What is left, by where it waits. Nothing is in it with a count of 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    places: BTreeMap<String, i64>,
}

/// Topics whose queues must be known.
pub fn counts(cluster: &str, topic: &str) -> bool {
    [SCHEDULE_TOPIC, HALF_TOPIC, BENCHMARK_TOPIC].contains(&topic) || !is_system_topic(cluster, topic)
}

impl Backlog {
    /// What is left of `holdings` in a broker of `cluster`.
    pub fn of(cluster: &str, holdings: &Holdings) -> Self {
        let mut backlog = Self::default();
        let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for key in holdings.consumed.keys() {
            if let Some((topic, group)) = key.split_once('@') {
                groups.entry(topic).or_default().insert(group);
            }
        }
        for (topic, queues) in holdings.queues.iter().filter(|(topic, _)| counts(cluster, topic)) {
            if topic == SCHEDULE_TOPIC {
                let next = |queue: i32| holdings.delivered.get(&(queue + 1)).copied();
                backlog.add("delayed messages", behind(queues, next));
                continue;
            }
            let consumed = |group: &str| {
                let offsets = holdings.consumed.get(&format!("{topic}@{group}"));
                behind(queues, |queue| offsets?.get(&queue).copied())
            };
            if topic == HALF_TOPIC {
                backlog.add("open transactions", consumed(HALF_GROUP));
                continue;
            }
            let Some(groups) = groups.get(topic.as_str()) else {
                backlog.add(&format!("{topic} that nobody consumes"), behind(queues, |_| None));
                continue;
            };
            for group in groups {
                backlog.add(&format!("{topic} for {group}"), consumed(group));
            }
        }
        backlog.add("timed messages", holdings.timed);
        backlog
    }

    fn add(&mut self, place: &str, messages: i64) {
        if messages > 0 {
            self.places.insert(place.to_owned(), messages);
        }
    }

    /// Messages in all places; one that several groups lack counts several times.
    pub fn total(&self) -> i64 {
        self.places.values().fold(0, |sum, messages| sum.saturating_add(*messages))
    }

    /// The fullest places, for people; empty where nothing is left.
    pub fn summary(&self) -> String {
        let mut places: Vec<(&String, &i64)> = self.places.iter().collect();
        places.sort_by_key(|(place, messages)| (-**messages, *place));
        let mut parts: Vec<String> =
            places.iter().take(NAMED).map(|(place, messages)| format!("{messages} of {place}")).collect();
        if places.len() > NAMED {
            parts.push(format!("and {} more places", places.len() - NAMED));
        }
        parts.join(", ")
    }
}

/// Messages from `next` of each queue on, and all of a queue where there is none. An offset before the oldest message
/// counts from there: what has expired is nobody's to consume.
fn behind(queues: &BTreeMap<i32, QueueRange>, next: impl Fn(i32) -> Option<i64>) -> i64 {
    let lag = |(queue, range): (&i32, &QueueRange)| {
        let from = next(*queue).unwrap_or(range.min).max(range.min);
        range.max.saturating_sub(from).max(0)
    };
    queues.iter().map(lag).fold(0, i64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(ranges: &[(i64, i64)]) -> BTreeMap<i32, QueueRange> {
        (0..).zip(ranges).map(|(queue, (min, max))| (queue, QueueRange { min: *min, max: *max })).collect()
    }

    fn offsets(of: &[i64]) -> BTreeMap<i32, i64> {
        (0..).zip(of.iter().copied()).collect()
    }

    fn holding(topic: &str, ranges: &[(i64, i64)], consumed: &[(&str, &[i64])]) -> Holdings {
        Holdings {
            queues: [(topic.to_owned(), queues(ranges))].into(),
            consumed: consumed.iter().map(|(group, of)| (format!("{topic}@{group}"), offsets(of))).collect(),
            ..Holdings::default()
        }
    }

    fn left(holdings: &Holdings) -> (i64, String) {
        let backlog = Backlog::of("demo", holdings);
        (backlog.total(), backlog.summary())
    }

    #[test]
    fn a_topic_counts_for_every_group_that_lacks_it() {
        let both = holding("orders", &[(0, 10), (5, 5)], &[("a", &[7]), ("b", &[10])]);
        assert_eq!(left(&both), (3, "3 of orders for a".to_owned()));
        let none = holding("orders", &[(0, 10)], &[("a", &[10]), ("b", &[10])]);
        assert_eq!(left(&none), (0, String::new()));
    }

    #[test]
    fn a_queue_that_a_group_never_asked_for_counts_whole() {
        let holdings = holding("orders", &[(0, 10), (2, 9)], &[("a", &[10])]);
        assert_eq!(left(&holdings).0, 7);
    }

    #[test]
    fn messages_nobody_consumes_count_and_are_said() {
        let (total, summary) = left(&holding("%DLQ%g", &[(1, 4)], &[]));
        assert_eq!((total, summary.as_str()), (3, "3 of %DLQ%g that nobody consumes"));
        assert_eq!(left(&holding("%RETRY%g", &[(0, 2)], &[("g", &[1])])).0, 1);
    }

    #[test]
    fn what_has_expired_is_not_waited_for() {
        assert_eq!(left(&holding("orders", &[(8, 10)], &[("a", &[3])])).0, 2);
        assert_eq!(left(&holding("orders", &[(8, 10)], &[("a", &[99])])).0, 0);
    }

    #[test]
    fn delayed_half_and_timed_messages_count_until_they_are_delivered() {
        let mut holdings = holding(SCHEDULE_TOPIC, &[(0, 3), (0, 4)], &[]);
        holdings.delivered = [(1, 3), (2, 1)].into();
        assert_eq!(left(&holdings), (3, "3 of delayed messages".to_owned()));
        holdings.timed = 2;
        assert_eq!(left(&holdings).0, 5);
        assert_eq!(left(&holding(HALF_TOPIC, &[(0, 4)], &[("CID_RMQ_SYS_TRANS", &[3])])).0, 1);
        assert_eq!(left(&holding(HALF_TOPIC, &[(0, 4)], &[])).0, 4);
    }

    #[test]
    fn the_brokers_own_topics_do_not_count() {
        for topic in ["TBW102", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "rmq_sys_wheel_timer", "demo_REPLY_TOPIC", "broker-0"] {
            assert_eq!(left(&holding(topic, &[(0, 4)], &[])).0, 0, "{topic}");
        }
        assert_eq!(left(&holding("BenchmarkTest", &[(0, 4)], &[])).0, 4);
    }

    #[test]
    fn the_fullest_places_are_named() {
        let mut holdings = Holdings::default();
        for (topic, max) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            holdings.queues.insert(topic.to_owned(), queues(&[(0, max)]));
        }
        let (total, summary) = left(&holdings);
        assert_eq!(total, 10);
        assert!(summary.starts_with("4 of d that nobody consumes, 3 of c"), "{summary}");
        assert!(summary.ends_with("and 1 more places"), "{summary}");
    }
}
