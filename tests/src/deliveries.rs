//! What a consumer group was given of a topic, over any number of lives of its members and of the brokers, held against what
//! RocketMQ promises: at least once, nothing that is not meant for it, in order where members consume orderly, not early, and dead
//! letters of hopeless messages only.
//!
//! What RocketMQ does not promise, and what is no fault here: that a message comes once only; that a queue has one consumer at any
//! time (a broker that restarts forgets the locks of orderly consumers, and a member that was paused goes on with what it holds);
//! that a committed offset never goes back (a member that takes over a queue goes on from what was committed, and commits what it has
//! done itself, behind what the member before it commits as its last; and commits of a connection that was given up while its
//! broker was paused come when it goes on, behind newer ones).

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;

use crate::{
    client::{Received, Sent},
    history::Faults,
};

/// A queue of the topic.
type Queue<'a> = (&'a str, i32);

/// One topic's messages and one group's deliveries of them.
#[derive(Debug, Default, Clone)]
pub struct Deliveries {
    sent: HashMap<String, Sent>,
    received: Vec<Received>,
}

impl Deliveries {
    /// Adds what a producer saw.
    pub fn sent<'a>(&mut self, sent: impl IntoIterator<Item = &'a Sent>) -> &mut Self {
        self.sent.extend(sent.into_iter().map(|sent| (sent.key.clone(), sent.clone())));
        self
    }

    /// Adds what a member saw.
    pub fn received<'a>(&mut self, received: impl IntoIterator<Item = &'a Received>) -> &mut Self {
        self.received.extend(received.into_iter().cloned());
        self
    }

    /// How many messages were acknowledged with `SEND_OK`.
    pub fn acknowledged(&self) -> usize {
        self.sent.values().filter(|sent| sent.is_ok()).count()
    }

    /// How many deliveries there were.
    pub fn delivered(&self) -> usize {
        self.received.len()
    }

    /// Acknowledged messages that `meant` says are for this group and that it was not given at least `times` times again.
    pub fn missing(&self, times: i32, meant: impl Fn(&Sent) -> bool) -> Vec<&Sent> {
        let seen = self.received.iter().filter(|one| one.reconsume_times >= times);
        let seen: HashSet<&str> = seen.map(|one| one.key.as_str()).collect();
        self.sent.values().filter(|sent| sent.is_ok() && meant(sent) && !seen.contains(sent.key.as_str())).collect()
    }

    /// Every acknowledged message that is meant for the group was given to it (and given again `times` times, for those that refuse).
    pub fn check_reached(&self, times: i32, meant: impl Fn(&Sent) -> bool) -> Result<()> {
        let mut faults = Faults::default();
        for sent in self.missing(times, meant) {
            faults
                .add("lost", format!("{} of {:?}:{:?}:{:?}", sent.key, sent.broker, sent.queue_id, sent.queue_offset));
        }
        faults.into_result()
    }

    /// Nothing came that nobody sent, that was changed, or that is not meant for the group.
    pub fn check_meant(&self, meant: impl Fn(&Sent) -> bool) -> Result<()> {
        let mut faults = Faults::default();
        for one in &self.received {
            match self.sent.get(&one.key) {
                None => faults.add("phantom", described(one)),
                Some(sent) if !meant(sent) => faults.add("not meant for it", described(one)),
                Some(_) if !one.whole => faults.add("damaged", described(one)),
                Some(_) => {}
            }
        }
        faults.into_result()
    }

    /// In each queue, messages came for the first time in the order of the queue, whichever member had it; and the messages of one
    /// producer lie in a queue in the order in which it sent them.
    ///
    /// Two members that both think that a queue is theirs deliver it twice, each in order and the second from what was committed on,
    /// so what is new to the group is in order even then.
    pub fn check_order(&self) -> Result<()> {
        let mut faults = Faults::default();
        for (queue, mut all) in self.by_queue() {
            all.sort_by_key(|one| (one.at, one.queue_offset));
            let mut newest: Option<&Received> = None;
            let mut seen = HashSet::new();
            for one in all.iter().filter(|one| seen.insert(one.queue_offset)) {
                if let Some(before) = newest.filter(|before| before.queue_offset > one.queue_offset) {
                    faults.add("order", format!("{queue:?} gave {} before {}", described(before), described(one)));
                    continue;
                }
                newest = Some(one);
            }
            all.sort_by_key(|one| one.queue_offset);
            let mut last: HashMap<&str, &Received> = HashMap::new();
            for one in all {
                let run = one.key.rsplit_once('-').map_or("", |(run, _)| run);
                if let Some(before) = last.insert(run, one)
                    && before.seq > one.seq
                {
                    faults.add("order of sending", format!("{queue:?}: {}, {}", described(before), described(one)));
                }
            }
        }
        faults.into_result()
    }

    /// No message was here, or was stored for consumers, sooner than `delay_ms` after it was made.
    pub fn check_not_early(&self, delay_ms: impl Fn(&Received) -> i64) -> Result<()> {
        let mut faults = Faults::default();
        for one in self.received.iter().filter(|one| one.at.min(one.stored) < one.born + delay_ms(one)) {
            faults.add("early", format!("{} after {} ms", described(one), one.at.min(one.stored) - one.born));
        }
        faults.into_result()
    }

    /// Dead letters (their keys) are those messages that `hopeless` says, all acknowledged ones of them, and no others.
    pub fn check_dead_letters(&self, dead: &HashSet<String>, hopeless: impl Fn(&Sent) -> bool) -> Result<()> {
        let mut faults = Faults::default();
        for key in dead {
            if !self.sent.get(key).is_some_and(&hopeless) {
                faults.add("dead letter not meant to be", key.clone());
            }
        }
        for sent in self.sent.values().filter(|sent| sent.is_ok() && hopeless(sent) && !dead.contains(&sent.key)) {
            faults.add("no dead letter", sent.key.clone());
        }
        faults.into_result()
    }

    fn by_queue(&self) -> BTreeMap<Queue<'_>, Vec<&Received>> {
        let mut queues: BTreeMap<Queue<'_>, Vec<&Received>> = BTreeMap::new();
        for one in &self.received {
            queues.entry((&one.broker, one.queue_id)).or_default().push(one);
        }
        queues
    }
}

fn described(one: &Received) -> String {
    format!("{} ({}:{}:{}, try {})", one.key, one.broker, one.queue_id, one.queue_offset, one.reconsume_times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(seq: u64) -> Sent {
        Sent {
            seq,
            key: format!("r-{seq}"),
            status: "SEND_OK".into(),
            msg_id: None,
            offset_msg_id: None,
            broker: Some("b".into()),
            queue_id: Some(0),
            queue_offset: Some(0),
            error: None,
        }
    }

    /// Made at its number times a hundred, and here 50 ms later.
    fn received(seq: u64, offset: i64) -> Received {
        let born = seq as i64 * 100;
        Received {
            seq: Some(seq),
            key: format!("r-{seq}"),
            msg_id: seq.to_string(),
            broker: "b".into(),
            topic: "T".into(),
            queue_id: 0,
            queue_offset: offset,
            commit_log_offset: 0,
            reconsume_times: 0,
            tags: None,
            store_host: String::new(),
            whole: true,
            born,
            stored: born + 50,
            at: born + 50,
            retry_topic: None,
            out_ms: None,
        }
    }

    fn deliveries(sent_seqs: &[u64], received: &[Received]) -> Deliveries {
        let mut deliveries = Deliveries::default();
        deliveries.sent(&sent_seqs.iter().copied().map(sent).collect::<Vec<_>>()).received(received);
        deliveries
    }

    fn fault(result: Result<()>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn everything_meant_for_a_group_reaches_it() {
        let some = deliveries(&[1, 2, 3], &[received(1, 0), received(3, 1), received(1, 0)]);
        assert_eq!(fault(some.check_reached(0, |sent| sent.seq != 2)), "");
        assert!(fault(some.check_reached(0, |_| true)).contains("lost: 1 times, as r-2"));
        assert!(fault(some.check_reached(1, |sent| sent.seq == 1)).contains("lost"), "it did not come again");

        let mut unacknowledged = Deliveries::default();
        unacknowledged.sent(&[Sent { status: "EXCEPTION".into(), ..sent(1) }]);
        assert_eq!(fault(unacknowledged.check_reached(0, |_| true)), "", "nothing is promised of it");
    }

    #[test]
    fn nothing_else_reaches_it() {
        let all = deliveries(&[1, 2], &[received(1, 0), received(2, 1)]);
        assert_eq!(fault(all.check_meant(|_| true)), "");
        assert!(fault(all.check_meant(|sent| sent.seq == 1)).contains("not meant for it: 1 times, as r-2"));
        assert!(fault(deliveries(&[1], &[received(2, 0)]).check_meant(|_| true)).contains("phantom"));
        let damaged = deliveries(&[1], &[Received { whole: false, ..received(1, 0) }]);
        assert!(fault(damaged.check_meant(|_| true)).contains("damaged"));
    }

    #[test]
    fn order_is_that_of_the_first_delivery() {
        // Consumed again from 1 on, by another member.
        let at = |seq, offset, at| Received { at, ..received(seq, offset) };
        let again = [at(1, 0, 10), at(2, 1, 20), at(3, 2, 30), at(2, 1, 25), at(3, 2, 30), at(4, 3, 35)];
        assert_eq!(fault(deliveries(&[], &again).check_order()), "");

        let skipped = [at(1, 0, 10), at(3, 2, 20), at(2, 1, 30)];
        assert!(fault(deliveries(&[], &skipped).check_order()).contains("order: 1 times"));

        let sent_otherwise = [at(2, 0, 10), at(1, 1, 20)];
        assert!(fault(deliveries(&[], &sent_otherwise).check_order()).contains("order of sending"));
        let two_producers = [at(2, 0, 10), Received { key: "other-1".into(), ..at(1, 1, 20) }];
        assert_eq!(fault(deliveries(&[], &two_producers).check_order()), "");
    }

    #[test]
    fn a_delay_is_waited_for() {
        let delayed = deliveries(&[], &[received(7, 0)]);
        assert_eq!(fault(delayed.check_not_early(|_| 50)), "");
        assert!(fault(delayed.check_not_early(|_| 51)).contains("early"));
        let stored_early = deliveries(&[], &[Received { stored: 710, ..received(7, 0) }]);
        assert!(fault(stored_early.check_not_early(|_| 50)).contains("early"));
    }

    #[test]
    fn dead_letters_are_the_hopeless_ones() {
        let all = deliveries(&[1, 2, 3], &[]);
        let dead = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<HashSet<_>>();
        assert_eq!(fault(all.check_dead_letters(&dead(&["r-2"]), |sent| sent.seq == 2)), "");
        assert!(fault(all.check_dead_letters(&dead(&[]), |sent| sent.seq == 2)).contains("no dead letter"));
        let more = dead(&["r-2", "r-3"]);
        assert!(fault(all.check_dead_letters(&more, |sent| sent.seq == 2)).contains("dead letter not meant to be"));
        assert!(fault(all.check_dead_letters(&dead(&["x-2"]), |_| true)).contains("dead letter not meant to be"));
    }
}
