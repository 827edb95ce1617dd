//! Scenarios of sending: every mode of the producer, and that a consumer gets what was sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use anyhow::{Result, ensure};
use rocketmq_tests::{
    client::{Output, Sent},
    history::History,
};

use crate::{
    Scenario,
    peer::{BROKERS, Peer, Session},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("ten_thousand_messages", ten_thousand_messages),
    ("sync_async_batch_oneway", sync_async_batch_oneway),
    ("binary_headers", binary_headers),
    ("big_bodies", big_bodies),
    ("too_big_is_refused", too_big_is_refused),
    ("auto_create", auto_create),
    ("vip_channel", vip_channel),
    ("delay", delay),
    ("transactions", transactions),
];

const LONG: Duration = Duration::from_mins(2);

/// Consumes until `expect` different messages have come.
pub(crate) fn consume_all(session: &Session<'_>, topic: &str, expect: usize) -> Result<Output> {
    session.client.consume(topic, &format!("g_{topic}")).arg("expect", expect).arg("timeout", 60).run(LONG)
}

fn all_ok(sent: &[Sent], count: usize) -> Result<()> {
    let bad: Vec<_> = sent.iter().filter(|sent| !sent.is_ok()).take(3).collect();
    ensure!(sent.len() == count && bad.is_empty(), "{} of {count} sent; not OK: {bad:?}", sent.len());
    Ok(())
}

fn ten_thousand_messages(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("TenThousand", 4)?;
        let produced =
            session.client.produce(&topic).arg("count", 10_000).arg("threads", 8).arg("size", 200).run(LONG)?;
        all_ok(&produced.sent, 10_000)?;
        let mut spread: BTreeMap<(String, i32), usize> = BTreeMap::new();
        for sent in &produced.sent {
            *spread.entry((sent.broker.clone().unwrap_or_default(), sent.queue_id.unwrap_or(-1))).or_default() += 1;
        }
        let per_broker =
            |name: &str| spread.iter().filter(|((broker, _), _)| broker == name).map(|(_, count)| count).sum::<usize>();
        ensure!(spread.len() == 8 && BROKERS.iter().all(|broker| per_broker(broker) > 2_000), "uneven: {spread:?}");
        let consumed = consume_all(session, &topic, 10_000)?;
        let mut history = History::default();
        history.sent(produced.sent).received(consumed.received);
        history.check_without_gaps()
    })
}

fn sync_async_batch_oneway(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Modes", 4)?;
        let mut history = History::default();
        let mut total = 0;
        for (mode, count) in [("sync", 300), ("async", 2_000), ("batch", 1_000), ("oneway", 500)] {
            let produced = session.client.produce(&topic).arg("mode", mode).arg("count", count).run(LONG)?;
            if mode == "oneway" {
                ensure!(
                    produced.sent.len() == count && produced.sent.iter().all(|sent| sent.status == "ONEWAY"),
                    "one way: {:?}",
                    produced.sent.first()
                );
            } else {
                all_ok(&produced.sent, count)?;
            }
            total += count;
            history.sent(produced.sent);
        }
        let consumed = consume_all(session, &topic, total)?;
        let distinct: HashSet<_> = consumed.received.iter().map(|received| &received.key).collect();
        ensure!(distinct.len() == total, "{} of {total} received", distinct.len());
        history.received(consumed.received);
        history.check_without_gaps()
    })
}

/// Clients that are told to write RocketMQ's binary headers, beside one that writes JSON.
fn binary_headers(peer: &Peer) -> Result<()> {
    const BINARY: (&str, &str) = ("rocketmq.serialize.type", "ROCKETMQ");
    peer.shared(|session| {
        let topic = session.topic("BinaryHeaders", 4)?;
        let mut history = History::default();
        for mode in ["sync", "async", "batch"] {
            let produce = session.client.produce(&topic).arg("mode", mode).arg("count", 200).arg("tags", "TagA,Täg");
            let produced = produce.property(BINARY.0, BINARY.1).run(LONG)?;
            all_ok(&produced.sent, 200)?;
            history.sent(produced.sent);
        }
        let consume = |group: &str, expect: usize| {
            session.client.consume(&topic, &format!("g_{group}_{topic}")).arg("expect", expect).arg("timeout", 90)
        };
        let mut binary = history.clone();
        binary
            .received(consume("binary", 600).property(BINARY.0, BINARY.1).run(LONG)?.received)
            .check_without_gaps()?;
        history.received(consume("json", 600).run(LONG)?.received).check_without_gaps()?;
        // Each comes back once: it is sent back, and pulled from the retry topic.
        let back = consume("back", 1_200).arg("fail-first", 1).property(BINARY.0, BINARY.1).run(LONG)?.received;
        let again: BTreeSet<_> = back.iter().filter(|one| one.retry_topic.is_some()).map(|one| &one.key).collect();
        ensure!(again.len() == 600, "{} of 600 came back", again.len());
        Ok(())
    })
}

fn big_bodies(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Big", 2)?;
        let mut history = History::default();
        // The client compresses from 4 KiB on; 4,194,304 is the biggest body that it sends.
        for (size, count) in [(10_000, 200), (300_000, 20), (4_194_304, 2)] {
            let produced = session
                .client
                .produce(&topic)
                .arg("size", size)
                .arg("count", count)
                .arg("timeout", 20_000)
                .run(LONG)?;
            all_ok(&produced.sent, count)?;
            history.sent(produced.sent);
        }
        let consumed = consume_all(session, &topic, 222)?;
        history.received(consumed.received);
        history.check_without_gaps()
    })
}

fn too_big_is_refused(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("TooBig", 2)?;
        let produced = session.client.produce(&topic).arg("size", 4_194_305).run(LONG)?;
        let error = produced.sent.first().and_then(|sent| sent.error.clone()).unwrap_or_default();
        ensure!(error.contains("CODE: 13"), "a body over the limit: {:?}", produced.sent);
        let consumed = session.client.produce(&topic).arg("count", 3).run(LONG)?;
        all_ok(&consumed.sent, 3)
    })
}

fn auto_create(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.name("AutoCreated");
        let produced = session.client.produce(&topic).arg("count", 64).run(LONG)?;
        all_ok(&produced.sent, 64)?;
        let queues: BTreeSet<_> = produced.sent.iter().map(|sent| sent.queue_id).collect();
        ensure!(queues.len() == 4, "a topic of four queues was to be created; used: {queues:?}");
        let consumed = consume_all(session, &topic, 64)?;
        let mut history = History::default();
        history.sent(produced.sent).received(consumed.received);
        history.check_without_gaps()
    })
}

fn vip_channel(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Vip", 4)?;
        let produced = session.client.produce(&topic).arg("count", 100).flag("vip").run(LONG)?;
        all_ok(&produced.sent, 100)?;
        let consumed =
            session.client.consume(&topic, &format!("g_{topic}")).arg("expect", 100).flag("vip").run(LONG)?;
        let mut history = History::default();
        history.sent(produced.sent).received(consumed.received);
        history.check_without_gaps()
    })
}

fn delay(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Delay", 2)?;
        let consumer =
            session.client.consume(&topic, &format!("g_{topic}")).arg("expect", 20).arg("timeout", 60).start()?;
        consumer.wait_started()?;
        // The clusters' level 2 is two seconds.
        let produced = session.client.produce(&topic).arg("count", 20).arg("delay-level", 2).run(LONG)?;
        all_ok(&produced.sent, 20)?;
        let consumed = consumer.finish(LONG)?;
        ensure!(consumed.received.len() == 20, "{} of 20 delayed messages came", consumed.received.len());
        for received in &consumed.received {
            let waited = received.at - received.born;
            ensure!((1_900..10_000).contains(&waited), "{} came after {waited} ms", received.key);
            ensure!(received.whole && received.topic == topic, "{received:?}");
        }
        Ok(())
    })
}

/// A third of the messages is committed, a third rolled back, a third committed when the broker asks.
fn transactions(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Transactions", 2)?;
        let consumer = session
            .client
            .consume(&topic, &format!("g_{topic}"))
            .arg("expect", 20)
            .arg("timeout", 60)
            .arg("linger", 2)
            .start()?;
        consumer.wait_started()?;
        let group = format!("p_{topic}");
        let producer = session
            .client
            .produce(&topic)
            .arg("group", group)
            .arg("mode", "transaction")
            .arg("count", 30)
            .arg("linger", 60)
            .start()?;
        let consumed = consumer.finish(LONG)?;
        let produced = producer.kill()?;
        all_ok(&produced.sent, 30)?;
        let seen: BTreeSet<u64> = consumed.received.iter().filter_map(|received| received.seq).collect();
        let wanted: BTreeSet<u64> = (0..30).filter(|seq| seq % 3 != 1).collect();
        ensure!(seen == wanted, "committed were {wanted:?}, received {seen:?}");
        ensure!(
            consumed.received.iter().all(|received| received.whole && received.topic == topic),
            "{:?}",
            consumed.received.first()
        );
        let asked = produced.events_named("check").count();
        ensure!(asked >= 10, "the broker asked {asked} times about 10 open transactions");
        Ok(())
    })
}
