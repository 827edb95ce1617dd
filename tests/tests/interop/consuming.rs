//! Scenarios of consuming: filters, order, broadcast, rebalance, long polling, retries, offsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use rocketmq_tests::{
    client::{Invocation, Received, Sent},
    history::History,
    process::wait_until,
    wire::Wire,
};

use crate::{
    Scenario,
    peer::{Peer, Session},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("tags", tags),
    ("sql92", sql92),
    ("sql92_retry", sql92_retry),
    ("sql92_refused", sql92_refused),
    ("orderly", orderly),
    ("broadcasting", broadcasting),
    ("rebalance", rebalance),
    ("long_polling", long_polling),
    ("retry_and_dead_letter", retry_and_dead_letter),
    ("consume_from_first_and_last", consume_from_first_and_last),
    ("offset_by_time", offset_by_time),
    ("read_by_offset", read_by_offset),
];

const LONG: Duration = Duration::from_mins(2);

/// Sends, and wants every send acknowledged.
fn produce(invocation: &Invocation) -> Result<Vec<Sent>> {
    let sent = invocation.run(LONG)?.sent;
    ensure!(sent.iter().all(Sent::is_ok), "not sent: {:?}", sent.iter().find(|sent| !sent.is_ok()));
    Ok(sent)
}

fn seqs(received: &[Received]) -> BTreeSet<u64> {
    received.iter().filter_map(|received| received.seq).collect()
}

fn tags(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Tags", 4)?;
        produce(&session.client.produce(&topic).arg("count", 300).arg("tags", "TagA,TagB,TagC"))?;
        let group = format!("g_{topic}");
        let consumed = session
            .client
            .consume(&topic, &group)
            .arg("sub", "TagA || TagC")
            .arg("expect", 200)
            .arg("linger", 1)
            .run(LONG)?;
        let wanted: BTreeSet<u64> = (0..300).filter(|seq| seq % 3 != 1).collect();
        ensure!(seqs(&consumed.received) == wanted, "received {:?}", seqs(&consumed.received));
        ensure!(
            consumed.received.iter().all(|received| received.tags.as_deref() != Some("TagB")),
            "TagB was not asked for"
        );
        Ok(())
    })
}

fn sql92(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Sql", 4)?;
        produce(&session.client.produce(&topic).arg("count", 200).arg("tags", "TagA,TagB"))?;
        let group = format!("g_{topic}");
        let expression = "seq BETWEEN 50 AND 149 AND TAGS = 'TagA'";
        let consumed = session
            .client
            .consume(&topic, &group)
            .arg("sql", expression)
            .arg("expect", 50)
            .arg("linger", 1)
            .run(LONG)?;
        let wanted: BTreeSet<u64> = (50..150).step_by(2).collect();
        ensure!(seqs(&consumed.received) == wanted, "received {:?}", seqs(&consumed.received));
        Ok(())
    })
}

/// What a group sends back comes again whatever its expression; what the expression does not take never comes.
fn sql92_retry(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("SqlRetry", 2)?;
        let group = format!("g_{topic}");
        let consumer = session
            .client
            .consume(&topic, &group)
            .arg("sql", "seq >= 4 AND (TAGS IN ('TagA', 'TagC') OR none IS NOT NULL)")
            .arg("fail-first", 2)
            .arg("expect", 9)
            .arg("linger", 1)
            .start()?;
        consumer.wait_for_event("assigned", Duration::from_secs(30), |event| count_queues(event) == 4)?;
        // Its pulls wait when these come: four of them, and half of the others, it does not want.
        produce(&session.client.produce(&topic).arg("count", 10).arg("tags", "TagA,TagB"))?;
        let consumed = consumer.finish(LONG)?;
        let mut times: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
        for received in &consumed.received {
            times.entry(received.seq.unwrap_or(u64::MAX)).or_default().push(received.reconsume_times);
        }
        let wanted: BTreeMap<u64, Vec<i32>> = [4, 6, 8].map(|seq| (seq, vec![0, 1, 2])).into();
        ensure!(times == wanted, "reconsume times of each message: {times:?}");
        Ok(())
    })
}

/// A client with a wrong expression does not start, and hears why.
fn sql92_refused(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("SqlRefused", 1)?;
        let group = format!("g_{topic}");
        let consume = session.client.consume(&topic, &group).arg("sql", "seq BETWEEN 9 AND 3").arg("expect", 1);
        let refused = match consume.arg("timeout", 20).run(LONG) {
            Ok(outcome) => anyhow::bail!("it started, and received {}", outcome.received.len()),
            Err(refused) => format!("{refused:#}"),
        };
        ensure!(refused.contains("left value(9) must less than or equal to right value(3)"), "{refused}");
        Ok(())
    })
}

fn orderly(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Orderly", 4)?;
        let group = format!("g_{topic}");
        let sent = produce(&session.client.produce(&topic).flag("ordered").arg("count", 1_000))?;
        let consumed = session.client.consume(&topic, &group).flag("orderly").arg("expect", 1_000).run(LONG)?;
        let mut history = History::default();
        history.sent(sent).received(consumed.received);
        history.check_without_gaps()?;
        history.check_order()
    })
}

fn broadcasting(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Broadcast", 4)?;
        let consume = session.client.consume(&topic, &format!("g_{topic}")).flag("broadcast").arg("expect", 200);
        let consumers = [consume.start()?, consume.start()?];
        for consumer in &consumers {
            consumer.wait_for_event("assigned", Duration::from_secs(30), |event| count_queues(event) == 8)?;
        }
        produce(&session.client.produce(&topic).arg("count", 200))?;
        for consumer in consumers {
            let seen = seqs(&consumer.finish(LONG)?.received);
            ensure!(seen.len() == 200, "one of two broadcast consumers got {} of 200", seen.len());
        }
        Ok(())
    })
}

fn count_queues(event: &serde_json::Value) -> usize {
    event["queues"].as_str().unwrap_or_default().split(',').filter(|queue| !queue.is_empty()).count()
}

/// Two consumers share; one leaves and one dies, each time the other takes over. The clients' own rebalance timer is set so
/// slow that only the broker's notification can be the reason.
fn rebalance(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Rebalance", 4)?;
        let group = format!("g_{topic}");
        let consume = session
            .client
            .consume(&topic, &group)
            .property("rocketmq.client.rebalance.waitInterval", "60000")
            .flag("until-stdin-closes")
            .arg("timeout", 300);
        let quick = Duration::from_secs(25);
        let first = consume.start()?;
        first.wait_for_event("assigned", Duration::from_secs(30), |event| count_queues(event) == 8)?;
        let second = consume.start()?;
        second.wait_for_event("assigned", Duration::from_secs(30), |event| count_queues(event) == 4)?;
        first.wait_for_event("assigned", quick, |event| count_queues(event) == 4)?;

        let producer = session.client.produce(&topic).flag("until-stdin-closes").arg("rate", 200).start()?;
        producer.wait_for_lines(300, Duration::from_secs(30))?;
        let (one, other) = (first.so_far()?.received.len(), second.so_far()?.received.len());
        ensure!(one > 50 && other > 50, "of 300 messages the two consumers got {one} and {other}");

        let mut history = History::default();
        history.received(first.stop(LONG)?.received);
        second.wait_for_event("assigned", quick, |event| count_queues(event) == 8)?;

        let third = consume.start()?;
        third.wait_for_event("assigned", Duration::from_secs(30), |event| count_queues(event) == 4)?;
        history.received(third.kill()?.received);
        // Four queues were taken from it; they come back when the broker sees the connection break.
        let deadline = Instant::now() + quick;
        while last_assignment(&second.so_far()?.events) != 8 {
            ensure!(Instant::now() < deadline, "the queues of a killed consumer are not taken over");
            std::thread::sleep(Duration::from_millis(100));
        }

        let produced = producer.stop(LONG)?;
        let acknowledged = produced.sent.iter().filter(|sent| sent.is_ok()).count();
        history.sent(produced.sent);
        let deadline = Instant::now() + Duration::from_secs(20);
        let (mut got, before) = (Vec::new(), history);
        let complete = |got: Vec<Received>| {
            let mut all = before.clone();
            all.received(got);
            all.check_without_gaps()
        };
        while Instant::now() < deadline {
            got = second.so_far()?.received;
            if complete(got.clone()).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        second.stop(LONG)?;
        ensure!(acknowledged > 300, "only {acknowledged} sends were acknowledged");
        complete(got)
    })
}

fn last_assignment(events: &[serde_json::Value]) -> usize {
    events.iter().rfind(|event| event["event"] == "assigned").map_or(0, count_queues)
}

fn long_polling(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("LongPolling", 1)?;
        let consumer =
            session.client.consume(&topic, &format!("g_{topic}")).arg("expect", 6).arg("timeout", 60).start()?;
        consumer.wait_for_event("assigned", Duration::from_secs(30), |event| count_queues(event) == 2)?;
        // By now every queue's pull is held by its broker, for fifteen seconds.
        std::thread::sleep(Duration::from_secs(3));
        produce(&session.client.produce(&topic).arg("count", 6).arg("rate", 2))?;
        let consumed = consumer.finish(LONG)?;
        ensure!(consumed.received.len() == 6, "{} of 6 came", consumed.received.len());
        for received in &consumed.received {
            let waited = received.at - received.stored;
            ensure!(waited < 1_000, "a message waited {waited} ms for a held pull");
        }
        Ok(())
    })
}

/// Every message is refused twice and then taken; of a group that allows a single retry it becomes a dead letter.
fn retry_and_dead_letter(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Retry", 2)?;
        produce(&session.client.produce(&topic).arg("count", 10))?;
        let dead = format!("dead_{topic}");
        let letters = format!("%DLQ%{dead}");
        let consume =
            |group: &str| session.client.consume(&topic, group).flag("until-stdin-closes").arg("timeout", 300);
        let patient = consume(&format!("g_{topic}")).arg("fail-first", 2).arg("linger", 3).start()?;
        let strict = consume(&dead).arg("fail-first", 9).arg("max-reconsume", 1).arg("linger", 3).start()?;
        // A client asks for the route of its retry topic, and shares it out, in its own time: Go takes up to fifty seconds.
        wait_until(LONG, || {
            Ok(patient.so_far()?.received.len() >= 30
                && strict.so_far()?.received.len() >= 20
                && messages_in(session, &letters)? >= 10)
        })?;
        let (patient, strict) = (patient.stop(LONG)?, strict.stop(LONG)?);
        let times = |received: &[Received]| {
            let mut times: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
            for received in received {
                times.entry(received.seq.unwrap_or(u64::MAX)).or_default().push(received.reconsume_times);
            }
            times
        };
        let got = times(&patient.received);
        ensure!(
            got.len() == 10 && got.values().all(|times| *times == [0, 1, 2]),
            "reconsume times of each message: {got:?}"
        );
        let got = times(&strict.received);
        ensure!(
            got.len() == 10 && got.values().all(|times| *times == [0, 1]),
            "reconsume times with one retry: {got:?} of {:?}",
            strict.received
        );
        ensure!(
            patient.received.iter().all(|received| received.topic == topic && received.whole),
            "{:?}",
            patient.received.last()
        );
        let letters = session.client.command("read", &letters).run(LONG)?;
        ensure!(seqs(&letters.received) == (0..10).collect(), "dead letters: {:?}", seqs(&letters.received));
        Ok(())
    })
}

/// How many messages all brokers have of a topic of one queue; none where there is no such topic.
fn messages_in(session: &Session<'_>, topic: &str) -> Result<i64> {
    let mut total = 0;
    for broker in &session.cluster.brokers {
        let mut wire = Wire::connect(broker.socket(), Duration::from_secs(20))?;
        let answer = wire.call(30, &[("topic", topic), ("queueId", "0")], &[])?;
        total += answer.ext.get("offset").and_then(|offset| offset.parse::<i64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

/// A group that is new to a young queue starts at its beginning in either case; what comes later comes to both.
fn consume_from_first_and_last(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("From", 2)?;
        produce(&session.client.produce(&topic).arg("count", 50))?;
        let start = |from: &str| {
            session.client.consume(&topic, &format!("g_{from}_{topic}")).arg("from", from).arg("expect", 100).start()
        };
        let consumers = [start("first")?, start("last")?];
        for consumer in &consumers {
            consumer.wait_for_event("assigned", Duration::from_secs(30), |event| count_queues(event) == 4)?;
        }
        produce(&session.client.produce(&topic).arg("count", 50).arg("start-seq", 50))?;
        for consumer in consumers {
            let seen = seqs(&consumer.finish(LONG)?.received);
            ensure!(seen == (0..100).collect(), "{} of 100 came: {seen:?}", seen.len());
        }
        Ok(())
    })
}

fn offset_by_time(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("ByTime", 2)?;
        let early = produce(&session.client.produce(&topic).arg("count", 40))?;
        std::thread::sleep(Duration::from_millis(500));
        let between = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        std::thread::sleep(Duration::from_millis(1_500));
        let late = produce(&session.client.produce(&topic).arg("count", 40))?;
        // Which of the two neighbours of a time without a message is meant differs between versions.
        for (time, messages) in [(1, vec![]), (between, early.clone()), (between + 3_600_000, [early, late].concat())] {
            let answer = session.client.command("offset-by-time", &topic).arg("time", time).run(LONG)?;
            let queues: Vec<_> = answer.events.iter().filter(|event| event["offset"].is_i64()).collect();
            ensure!(queues.len() == 4, "{} of 4 queues answered", queues.len());
            for queue in queues {
                let here = |sent: &&Sent| {
                    sent.broker.as_deref() == queue["broker"].as_str()
                        && sent.queue_id.map(i64::from) == queue["queueId"].as_i64()
                };
                let before = messages.iter().filter(here).count() as i64;
                let offset = queue["offset"].as_i64().unwrap_or(-1);
                ensure!(
                    (before - 1..=before).contains(&offset) && offset >= 0,
                    "at {time}, with {before} messages before: {queue}"
                );
            }
        }
        Ok(())
    })
}

fn read_by_offset(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("ByOffset", 2)?;
        let sent = produce(&session.client.produce(&topic).flag("ordered").arg("shards", 4).arg("count", 400))?;
        let everything = session.client.command("read", &topic).run(LONG)?;
        let mut history = History::default();
        history.sent(sent).received(everything.received);
        history.check_without_gaps()?;
        history.check_order()?;
        let tail = session
            .client
            .command("read", &topic)
            .arg("broker", "broker-b")
            .arg("queue", 1)
            .arg("offset", 90)
            .run(LONG)?;
        let offsets: Vec<i64> = tail.received.iter().map(|received| received.queue_offset).collect();
        ensure!(offsets == (90..100).collect::<Vec<_>>(), "from offset 90: {offsets:?}");
        let beyond = session
            .client
            .command("read", &topic)
            .arg("broker", "broker-b")
            .arg("queue", 1)
            .arg("offset", 5_000)
            .run(LONG)?;
        let answer = beyond.events_named("pulled").next().map(ToString::to_string).unwrap_or_default();
        ensure!(answer.contains("OFFSET_ILLEGAL") && answer.contains("\"next\":100"), "beyond the end: {answer}");
        Ok(())
    })
}
