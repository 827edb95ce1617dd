//! Scenarios that stop, replace or mix servers, each on a cluster of its own. The control run takes Java in every role.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    client::{Client, Received, Sent},
    cluster::{Broker, Cluster, Kind, NameServer},
    history::History,
    process::wait_until,
    wire::Wire,
};

use crate::{
    Scenario,
    peer::{Peer, create_topic},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("offsets_survive_restart", offsets_survive_restart),
    ("name_server_restart", name_server_restart),
    ("java_broker_at_our_name_server", java_broker_at_our_name_server),
    ("our_broker_at_java_name_server", our_broker_at_java_name_server),
    ("java_slave_of_our_master", java_slave_of_our_master),
    ("our_slave_of_java_master", our_slave_of_java_master),
    ("we_take_over_java_files", we_take_over_java_files),
    ("java_takes_over_our_files", java_takes_over_our_files),
];

const LONG: Duration = Duration::from_mins(2);

fn java(peer: &Peer) -> Kind {
    Kind::Java(peer.client)
}

fn produce(client: &Client, topic: &str, from: u64, count: u64) -> Result<Vec<Sent>> {
    let sent = client.produce(topic).arg("count", count).arg("start-seq", from).arg("threads", 4).run(LONG)?.sent;
    ensure!(
        sent.len() as u64 == count && sent.iter().all(Sent::is_ok),
        "not all of {count} sent: {:?}",
        sent.iter().find(|one| !one.is_ok())
    );
    Ok(sent)
}

/// Consumes until `expect` messages have come, and those behind them: some are stored though their send was not acknowledged,
/// and must not take the place of others.
fn consume(client: &Client, topic: &str, expect: usize) -> Result<Vec<Received>> {
    let consumer =
        client.consume(topic, &format!("g_{topic}")).arg("expect", expect).arg("linger", 2).arg("timeout", 40);
    Ok(consumer.run(LONG)?.received)
}

fn offsets_survive_restart(peer: &Peer) -> Result<()> {
    let mut cluster = Cluster::start(peer.servers, &["broker-a"])?;
    let client = Client::new(peer.client, &cluster.addr());
    let topic = "Survive";
    create_topic(&cluster, topic, 4)?;
    let mut history = History::default();
    history.sent(produce(&client, topic, 0, 400)?);
    let before = consume(&client, topic, 400)?;
    ensure!(before.len() == 400, "{} of 400 came before the restart", before.len());
    // The broker persists offsets at its stop; a new broker process reads them.
    cluster.brokers[0].stop()?;
    cluster.brokers[0].start()?;
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    history.sent(produce(&client, topic, 400, 100)?);
    let after = consume(&client, topic, 100)?;
    ensure!(
        after.iter().all(|received| received.seq >= Some(400)),
        "messages consumed before the restart came again: {:?}",
        after.first()
    );
    history.received(before).received(after);
    history.check_without_gaps()
}

/// A name server that comes back knows nothing until the brokers register again; meanwhile nobody is disturbed.
fn name_server_restart(peer: &Peer) -> Result<()> {
    let mut cluster = Cluster::start(peer.servers, &["broker-a"])?;
    let client = Client::new(peer.client, &cluster.addr());
    create_topic(&cluster, "Restart", 4)?;
    let consumer = client.consume("Restart", "g_restart").flag("until-stdin-closes").arg("timeout", 300).start()?;
    consumer.wait_started()?;
    let producer = client.produce("Restart").flag("until-stdin-closes").arg("rate", 100).start()?;
    producer.wait_for_lines(100, Duration::from_secs(30))?;
    cluster.namesrv.restart()?;
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    let so_far = producer.so_far()?.sent.len();
    producer.wait_for_lines(so_far + 200, Duration::from_secs(30))?;
    let sent = producer.stop(LONG)?.sent;
    ensure!(sent.iter().all(Sent::is_ok), "a send failed: {:?}", sent.iter().find(|sent| !sent.is_ok()));
    consumer.wait_for_lines(sent.len() + 2, Duration::from_secs(30))?;
    let mut history = History::default();
    history.sent(sent).received(consumer.stop(LONG)?.received);
    history.check_without_gaps()
}

fn java_broker_at_our_name_server(peer: &Peer) -> Result<()> {
    broker_at_name_server(peer, java(peer), peer.servers)
}

fn our_broker_at_java_name_server(peer: &Peer) -> Result<()> {
    broker_at_name_server(peer, peer.servers, java(peer))
}

/// One broker of each of the two kinds, both at a name server of kind `namesrv`; the route follows their coming and going.
fn broker_at_name_server(peer: &Peer, broker: Kind, namesrv: Kind) -> Result<()> {
    let namesrv = NameServer::start(namesrv)?;
    let first = Broker::builder(broker, "broker-a", &namesrv.addr()).start()?;
    let second = Broker::builder(peer.servers, "broker-b", &namesrv.addr()).start()?;
    namesrv.wait_registered(&first)?;
    namesrv.wait_registered(&second)?;
    let mut cluster = Cluster { brokers: vec![first, second], namesrv };
    create_topic(&cluster, "Mixed", 4)?;
    let client = Client::new(peer.client, &cluster.addr());
    let sent = produce(&client, "Mixed", 0, 800)?;
    for broker in &cluster.brokers {
        let share = sent.iter().filter(|sent| sent.broker.as_deref() == Some(broker.name())).count();
        ensure!(share > 200, "{} got {share} of 800", broker.name());
    }
    let mut history = History::default();
    history.sent(sent).received(consume(&client, "Mixed", 800)?);
    history.check_without_gaps()?;
    cluster.brokers[0].stop()?;
    cluster.namesrv.wait_unregistered(&cluster.brokers[0])?;
    let sent = produce(&client, "Mixed", 800, 100)?;
    ensure!(sent.iter().all(|sent| sent.broker.as_deref() == Some("broker-b")), "sent to a broker that is gone");
    Ok(())
}

fn java_slave_of_our_master(peer: &Peer) -> Result<()> {
    replicated(peer, peer.servers, java(peer))
}

fn our_slave_of_java_master(peer: &Peer) -> Result<()> {
    replicated(peer, java(peer), peer.servers)
}

/// `SEND_OK` of a `SYNC_MASTER` means that its slave has the message: with the master gone, a consumer reads all of them there.
fn replicated(peer: &Peer, master: Kind, slave: Kind) -> Result<()> {
    let namesrv = NameServer::start(peer.servers)?;
    let quick = [
        ("haSendHeartbeatInterval", "1000"),
        ("slaveTimeout", "10000"),
        // Without it a slave of 5.x sends consumers back to the master that is gone.
        ("slaveReadEnable", "true"),
    ];
    let build = |kind: Kind| {
        quick
            .iter()
            .fold(Broker::builder(kind, "broker-a", &namesrv.addr()), |builder, (key, value)| builder.set(key, value))
    };
    let first = build(master).set("brokerRole", "SYNC_MASTER").start()?;
    namesrv.wait_registered(&first)?;
    let second = build(slave).id(1).start()?;
    namesrv.wait_registered(&second)?;
    let mut cluster = Cluster { brokers: vec![first], namesrv };
    create_topic(&cluster, "Replicated", 4)?;
    let client = Client::new(peer.client, &cluster.addr());
    // SLAVE_NOT_AVAILABLE until the slave has connected; its first report comes after a heartbeat's time.
    let warm_up = client.produce("Replicated").arg("run", "warm").flag("until-stdin-closes").arg("rate", 5).start()?;
    wait_until(Duration::from_mins(1), || Ok(warm_up.so_far()?.sent.last().is_some_and(Sent::is_ok)))?;
    let mut history = History::default();
    history.sent(warm_up.stop(LONG)?.sent);
    history.sent(produce(&client, "Replicated", 0, 1_000)?);
    // Topics reach the slave with its synchronisation, every ten seconds once it knows its master.
    let mut wire = Wire::connect(second.socket(), Duration::from_secs(20))?;
    wait_until(Duration::from_mins(2), || {
        let topics = wire.call(21, &[], &[])?;
        Ok(String::from_utf8_lossy(&topics.body).contains("\"Replicated\""))
    })
    .context("the topic does not reach the slave")?;
    cluster.brokers[0].kill9()?;
    cluster.namesrv.wait_unregistered(&cluster.brokers[0])?;
    let acknowledged = history.acknowledged();
    history.received(consume(&client, "Replicated", acknowledged)?);
    drop(second);
    history.check()
}

fn we_take_over_java_files(peer: &Peer) -> Result<()> {
    taken_over(peer, java(peer), peer.servers)
}

fn java_takes_over_our_files(peer: &Peer) -> Result<()> {
    taken_over(peer, peer.servers, java(peer))
}

/// A store written by `before` is opened by `after`: messages, topics, groups and offsets are all there, and it goes on.
fn taken_over(peer: &Peer, before: Kind, after: Kind) -> Result<()> {
    let mut cluster = Cluster { brokers: Vec::new(), namesrv: NameServer::start(peer.servers)? };
    cluster.brokers.push(Broker::builder(before, "broker-a", &cluster.addr()).start()?);
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    let client = Client::new(peer.client, &cluster.addr());
    create_topic(&cluster, "Inherited", 3)?;
    let mut history = History::default();
    history.sent(produce(&client, "Inherited", 0, 500)?);
    let first = consume(&client, "Inherited", 500)?;
    ensure!(first.len() == 500, "{} of 500 came", first.len());
    let data = cluster.brokers.remove(0).into_data()?;
    cluster.brokers.push(Broker::builder(after, "broker-a", &cluster.addr()).data(data).start()?);
    cluster.namesrv.wait_registered(&cluster.brokers[0])?;
    history.sent(produce(&client, "Inherited", 500, 200)?);
    let second = consume(&client, "Inherited", 200)?;
    ensure!(second.iter().all(|received| received.seq >= Some(500)), "an offset is lost: {:?}", second.first());
    // The history wants everything, also from its beginning on, of the new broker alone.
    let everything = client.command("read", "Inherited").run(LONG)?.received;
    ensure!(everything.len() == 700, "{} of 700 are readable", everything.len());
    history.received(everything);
    history.check_without_gaps()?;
    let queues: std::collections::BTreeSet<_> = second.iter().map(|received| received.queue_id).collect();
    ensure!(queues.len() == 3, "the topic of three queues was not inherited: {queues:?}");
    Ok(())
}
