//! Scenarios of delayed messages: retries, and the timer messages of 5.x.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rocketmq_tests::{
    client::{Client, Invocation, Received, Sent},
    cluster::{Broker, Cluster, Kind, NameServer},
    process::wait_until,
};

use crate::{
    Scenario,
    peer::{Peer, create_topic},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("retries_wait", retries_wait),
    ("timer_in_order", timer_in_order),
    ("timer_limits", timer_limits),
    ("timer_deletion", timer_deletion),
    ("timer_recall", timer_recall),
    ("timer_survives_kills", timer_survives_kills),
    ("we_deliver_timers_of_java", we_deliver_timers_of_java),
    ("our_timers_are_delivered_by_java", our_timers_are_delivered_by_java),
];

/// Those for which a 4.9 client has no methods.
pub(crate) const OF_5: [&str; 7] = [
    "timer_in_order",
    "timer_limits",
    "timer_deletion",
    "timer_recall",
    "timer_survives_kills",
    "we_deliver_timers_of_java",
    "our_timers_are_delivered_by_java",
];

const LONG: Duration = Duration::from_mins(2);

/// Sends, and wants every send acknowledged.
fn produce(invocation: &Invocation) -> Result<Vec<Sent>> {
    let sent = invocation.run(LONG)?.sent;
    ensure!(sent.iter().all(Sent::is_ok), "not sent: {:?}", sent.iter().find(|sent| !sent.is_ok()));
    Ok(sent)
}

fn consume(client: &Client, topic: &str, expect: usize) -> Result<Vec<Received>> {
    let consume = client.consume(topic, &format!("g_{topic}")).arg("expect", expect).arg("linger", 2);
    Ok(consume.arg("timeout", 100).run(LONG)?.received)
}

/// The queue in which the broker stored a message for the second time.
fn place(received: &Received) -> (String, i32) {
    (received.broker.clone(), received.queue_id)
}

/// The first redelivery is of level 3, which the test clusters have at two seconds.
fn retries_wait(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("RetriesWait", 1)?;
        produce(&session.client.produce(&topic).arg("count", 4))?;
        let group = format!("g_{topic}");
        let consumer = session
            .client
            .consume(&topic, &group)
            .arg("fail-first", 1)
            .arg("timeout", 120)
            .flag("until-stdin-closes")
            .start()?;
        wait_until(LONG, || Ok(consumer.so_far()?.received.len() >= 8))?;
        let received = consumer.kill()?.received;
        let (first, again): (Vec<_>, Vec<_>) = received.iter().partition(|one| one.reconsume_times == 0);
        ensure!(first.len() == 4 && again.len() == 4, "{} and {} came", first.len(), again.len());
        for one in again {
            let before = first.iter().find(|first| first.key == one.key).map_or(0, |first| first.at);
            ensure!(one.stored >= before + 2_000, "it came again after {} ms", one.stored - before);
        }
        Ok(())
    })
}

/// Messages that are sent last come first; none before its time.
fn timer_in_order(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("TimerOrder", 1)?;
        for (kind, from) in [("ms", 0), ("sec", 40), ("at", 80)] {
            let run = session.client.produce(&topic).arg("count", 40).arg("start-seq", from).arg("timer", kind);
            produce(&run.arg("delay-ms", 3_000).arg("delay-step-ms", 150))?;
        }
        let received = consume(&session.client, &topic, 120)?;
        ensure!(received.len() == 120, "{} of 120 came", received.len());
        let mut steps = BTreeMap::<_, BTreeMap<i64, i64>>::new();
        for one in &received {
            let seq = one.seq.unwrap_or(0) as i64;
            let delay = 3_000 + (39 - seq % 40) * 150;
            let delay = if (40..80).contains(&seq) { delay / 1000 * 1000 } else { delay };
            ensure!(one.stored >= one.born + delay, "{} ms of {delay} ms: {one:?}", one.stored - one.born);
            let out_ms = one.out_ms.as_deref().unwrap_or("").parse()?;
            steps.entry(place(one)).or_default().insert(one.queue_offset, out_ms);
        }
        for (place, steps) in steps {
            ensure!(steps.values().is_sorted(), "not in order of time in {place:?}: {steps:?}");
        }
        Ok(())
    })
}

fn timer_limits(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("TimerLimits", 1)?;
        let far = session.client.produce(&topic).arg("timer", "sec").arg("delay-ms", 259_300_000).run(LONG)?.sent;
        let error = far.first().and_then(|sent| sent.error.clone()).unwrap_or_default();
        ensure!(error.contains("CODE: 13") && error.contains("timer message illegal"), "{far:?}");
        produce(&session.client.produce(&topic).arg("timer", "at").arg("delay-ms", -5_000))?;
        let received = consume(&session.client, &topic, 1)?;
        ensure!(received.len() == 1 && received[0].out_ms.is_none(), "one of the past comes at once: {received:?}");
        Ok(())
    })
}

/// Every second message is taken back by another message of the same time.
fn timer_deletion(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("TimerDeletion", 1)?;
        let run = session.client.produce(&topic).arg("count", 10).arg("timer", "at").arg("threads", 1);
        produce(&run.arg("delay-ms", 8_000).flag("delete-odd"))?;
        let received = consume(&session.client, &topic, 5)?;
        let seqs: BTreeSet<_> = received.iter().filter_map(|one| one.seq).collect();
        ensure!(seqs == BTreeSet::from([0, 2, 4, 6, 8]), "came: {seqs:?}");
        Ok(())
    })
}

/// Every second message is recalled by the handle that its send was answered with.
fn timer_recall(peer: &Peer) -> Result<()> {
    let mut cluster = Cluster { brokers: Vec::new(), namesrv: NameServer::start(peer.servers)? };
    let broker = Broker::builder(peer.servers, "broker-a", &cluster.addr()).set("recallMessageEnable", "true");
    cluster.brokers.push(broker.start()?);
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    create_topic(&cluster, "TimerRecall", 1)?;
    let client = Client::new(peer.client, &cluster.addr());
    let run = client.produce("TimerRecall").arg("count", 10).arg("timer", "ms").arg("threads", 1).flag("recall-odd");
    produce(&run.arg("delay-ms", 5_000).arg("delay-step-ms", 100))?;
    let received = consume(&client, "TimerRecall", 5)?;
    let seqs: BTreeSet<_> = received.iter().filter_map(|one| one.seq).collect();
    ensure!(seqs == BTreeSet::from([0, 2, 4, 6, 8]), "came: {seqs:?}");
    Ok(())
}

/// Killed while messages wait and again while they are delivered.
fn timer_survives_kills(peer: &Peer) -> Result<()> {
    let mut cluster = Cluster::start(peer.servers, &["broker-a"])?;
    let client = Client::new(peer.client, &cluster.addr());
    create_topic(&cluster, "TimerKills", 1)?;
    let run = client.produce("TimerKills").arg("count", 400).arg("timer", "ms").arg("threads", 1);
    produce(&run.arg("delay-ms", 10_000).arg("delay-step-ms", 40))?;
    for wanted in [20, 400] {
        cluster.brokers[0].kill9()?;
        cluster.brokers[0].start()?;
        cluster.namesrv.wait_registered(&cluster.brokers[0])?;
        all_come(&client, "TimerKills", wanted)?;
    }
    Ok(())
}

/// At least so many different messages are readable in the end, none before its time.
fn all_come(client: &Client, topic: &str, count: usize) -> Result<()> {
    let deadline = Instant::now() + LONG;
    loop {
        let received = client.command("read", topic).run(LONG)?.received;
        ensure!(received.iter().all(|one| one.stored >= one.born + 10_000), "one came early");
        let seqs: BTreeSet<_> = received.iter().filter_map(|one| one.seq).collect();
        if seqs.len() >= count {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{} of {count} came", seqs.len());
    }
}

fn we_deliver_timers_of_java(peer: &Peer) -> Result<()> {
    taken_over(peer, Kind::Java(peer.client), peer.servers)
}

fn our_timers_are_delivered_by_java(peer: &Peer) -> Result<()> {
    taken_over(peer, peer.servers, Kind::Java(peer.client))
}

/// Messages that wait in a store of `before` are delivered by `after`.
fn taken_over(peer: &Peer, before: Kind, after: Kind) -> Result<()> {
    let mut cluster = Cluster { brokers: Vec::new(), namesrv: NameServer::start(peer.servers)? };
    cluster.brokers.push(Broker::builder(before, "broker-a", &cluster.addr()).start()?);
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    let client = Client::new(peer.client, &cluster.addr());
    create_topic(&cluster, "TimerInherited", 1)?;
    let run = client.produce("TimerInherited").arg("count", 200).arg("timer", "ms").arg("threads", 1);
    produce(&run.arg("delay-ms", 10_000).arg("delay-step-ms", 20))?;
    let data = cluster.brokers.remove(0).into_data()?;
    cluster.brokers.push(Broker::builder(after, "broker-a", &cluster.addr()).data(data).start()?);
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    all_come(&client, "TimerInherited", 200)
}
