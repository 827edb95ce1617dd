//! Scenarios of transactions that do not end with the send: the broker asks, also when its sender or the broker itself was killed.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use rocketmq_tests::{
    client::{Client, Output, Running, Sent},
    cluster::{Broker, Cluster, Kind, NameServer},
    process::wait_until,
};

use crate::{
    Scenario,
    peer::{Peer, create_topic},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("transactions_when_asked", transactions_when_asked),
    ("transactions_of_a_killed_sender", transactions_of_a_killed_sender),
    ("transactions_survive_kills", transactions_survive_kills),
    ("we_finish_transactions_of_java", we_finish_transactions_of_java),
    ("our_transactions_are_finished_by_java", our_transactions_are_finished_by_java),
];

const LONG: Duration = Duration::from_mins(2);
const COUNT: u64 = 30;
/// 1 modulo 3.
const ANSWERERS_SEQ: u64 = 1_000;

/// One broker that asks until somebody answers: a producer may take long to start.
fn cluster(kind: Kind) -> Result<Cluster> {
    let mut cluster = Cluster { brokers: Vec::new(), namesrv: NameServer::start(kind)? };
    cluster
        .brokers
        .push(Broker::builder(kind, "broker-a", &cluster.addr()).set("transactionCheckMax", "1000").start()?);
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    Ok(cluster)
}

/// A member of the sender's group that answers. It sends one message that it rolls back, for a client of 5.x that sends nothing
/// is known to no broker.
fn answerer(client: &Client, topic: &str) -> Result<Running> {
    let run = client.produce(topic).arg("group", format!("p_{topic}")).arg("mode", "transaction");
    run.arg("count", 1).arg("start-seq", ANSWERERS_SEQ).arg("linger", 100).start()
}

/// Sends half messages, and returns when all are sent; the sender goes on to live.
fn sender(client: &Client, topic: &str, flags: &[&str]) -> Result<Running> {
    let run = client.produce(topic).arg("group", format!("p_{topic}")).arg("mode", "transaction");
    let run = flags.iter().fold(run.arg("count", COUNT).arg("linger", 100), |run, flag| run.flag(flag));
    let sender = run.start()?;
    wait_until(LONG, || Ok(sender.so_far()?.sent.len() as u64 == COUNT))?;
    let sent = sender.so_far()?.sent;
    ensure!(sent.iter().all(Sent::is_ok), "not sent: {:?}", sent.iter().find(|sent| !sent.is_ok()));
    Ok(sender)
}

/// Two thirds of the messages come in the end, and no others.
fn consume(client: &Client, topic: &str) -> Result<()> {
    let expected = COUNT - COUNT / 3;
    let consume = client.consume(topic, &format!("g_{topic}")).arg("expect", expected).arg("timeout", 90);
    let received = consume.arg("linger", 3).run(LONG)?.received;
    let seen: BTreeSet<u64> = received.iter().filter_map(|one| one.seq).collect();
    let wanted: BTreeSet<u64> = (0..COUNT).filter(|seq| seq % 3 != 1).collect();
    ensure!(seen == wanted, "committed were {wanted:?}, received {seen:?}");
    ensure!(received.iter().all(|one| one.whole && one.topic == topic), "{:?}", received.first());
    Ok(())
}

/// Those that a producer was asked about, by number.
fn asked(output: &Output) -> BTreeSet<u64> {
    let keys = output.events_named("check").filter_map(|event| event["key"].as_str());
    keys.filter_map(|key| key.rsplit_once('-')?.1.parse().ok()).filter(|seq| *seq < COUNT).collect()
}

/// Nothing is decided before the broker asks.
fn transactions_when_asked(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("TransactionsAsked", 2)?;
        let sender = sender(&session.client, &topic, &["open"])?;
        consume(&session.client, &topic)?;
        let asked = asked(&sender.kill()?);
        ensure!(asked.len() as u64 == COUNT, "asked about {asked:?}");
        Ok(())
    })
}

/// Another process of the group answers for it.
fn transactions_of_a_killed_sender(peer: &Peer) -> Result<()> {
    let cluster = cluster(peer.servers)?;
    let client = Client::new(peer.client, &cluster.addr());
    create_topic(&cluster, "TransactionsKilled", 2)?;
    sender(&client, "TransactionsKilled", &["open", "no-answer"])?.kill()?;
    let answerer = answerer(&client, "TransactionsKilled")?;
    consume(&client, "TransactionsKilled")?;
    let asked = asked(&answerer.kill()?);
    ensure!(asked.len() as u64 == COUNT, "asked about {asked:?}");
    Ok(())
}

/// The broker is killed with open and ended transactions, and again while it asks.
fn transactions_survive_kills(peer: &Peer) -> Result<()> {
    let mut cluster = cluster(peer.servers)?;
    let client = Client::new(peer.client, &cluster.addr());
    create_topic(&cluster, "TransactionsKills", 2)?;
    let sender = sender(&client, "TransactionsKills", &["no-answer"])?;
    for _ in 0..2 {
        sender.wait_for_event("check", LONG, |_| true)?;
        cluster.brokers[0].kill9()?;
        cluster.brokers[0].start()?;
        cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    }
    sender.kill()?;
    let answerer = answerer(&client, "TransactionsKills")?;
    consume(&client, "TransactionsKills")?;
    answerer.kill()?;
    Ok(())
}

fn we_finish_transactions_of_java(peer: &Peer) -> Result<()> {
    taken_over(peer, Kind::Java(peer.client), peer.servers)
}

fn our_transactions_are_finished_by_java(peer: &Peer) -> Result<()> {
    taken_over(peer, peer.servers, Kind::Java(peer.client))
}

/// A third is committed, a third rolled back and a third open in a store of `before`, which `after` goes on with.
fn taken_over(peer: &Peer, before: Kind, after: Kind) -> Result<()> {
    let mut cluster = Cluster { brokers: Vec::new(), namesrv: NameServer::start(peer.servers)? };
    let settings = |kind| Broker::builder(kind, "broker-a", "").set("transactionCheckMax", "1000");
    let broker = settings(before).set("namesrvAddr", cluster.addr());
    cluster.brokers.push(broker.start()?);
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    let client = Client::new(peer.client, &cluster.addr());
    create_topic(&cluster, "TransactionsInherited", 2)?;
    let sender = sender(&client, "TransactionsInherited", &["no-answer"])?;
    // It has stored some of them again, and 5.x has written down the ends, which it does every three seconds.
    wait_until(LONG, || Ok(sender.so_far()?.events_named("check").count() as u64 > 2 * COUNT))?;
    let asked_before = asked(&sender.kill()?);
    let data = cluster.brokers.remove(0).into_data()?;
    cluster.brokers.push(settings(after).set("namesrvAddr", cluster.addr()).data(data).start()?);
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    let answerer = answerer(&client, "TransactionsInherited")?;
    consume(&client, "TransactionsInherited")?;
    let asked = asked(&answerer.kill()?);
    let open: BTreeSet<u64> = (0..COUNT).filter(|seq| seq % 3 == 2).collect();
    // Java may have stored one again while it ended, and goes on to ask.
    ensure!(
        asked.is_superset(&open) && asked.is_subset(&asked_before),
        "asked about {asked:?}, before about {asked_before:?}"
    );
    Ok(())
}
