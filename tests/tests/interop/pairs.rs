//! Pairs of which one half is Java's: a live migration from one kind of broker to the other and back, and logs that part.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    client::{Client, Running, Sent},
    cluster::{Broker, BrokerBuilder, Cluster, Kind, NameServer},
    history::History,
    process::wait_until,
    wire::Wire,
};

use crate::{
    Scenario,
    peer::{Peer, create_topic},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("our_migration_from_java_and_back", our_migration_from_java_and_back),
    ("our_slave_that_parts_from_java_is_cut", our_slave_that_parts_from_java_is_cut),
    ("our_master_refuses_a_java_slave_that_is_ahead", our_master_refuses_a_java_slave_that_is_ahead),
];

const LONG: Duration = Duration::from_mins(2);
const TOPIC: &str = "Migrated";

fn builder(kind: Kind, namesrv: &NameServer) -> BrokerBuilder {
    [
        ("haSendHeartbeatInterval", "1000"),
        ("slaveTimeout", "10000"),
        ("slaveReadEnable", "true"),
        ("brokerRole", "SYNC_MASTER"),
        // Java's 5.x waits for no slave without it.
        ("inSyncReplicas", "2"),
    ]
    .iter()
    .fold(Broker::builder(kind, "broker-a", &namesrv.addr()), |builder, (key, value)| builder.set(key, value))
}

fn log_end(broker: &Broker) -> Result<u64> {
    let mut wire = Wire::connect(broker.socket(), Duration::from_secs(20))?;
    let mut end = None;
    // Java answers without a body while it starts.
    wait_until(LONG, || {
        let response = wire.call(28, &[], &[])?;
        let table: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
        end = table["table"]["commitLogMaxOffset"].as_str().and_then(|end| end.parse().ok());
        Ok(end.is_some())
    })?;
    end.context("no commitLogMaxOffset")
}

/// Waits until sends are answered with `SEND_OK` once more than they were by now.
fn wait_acknowledged(producer: &Running) -> Result<()> {
    let before = producer.so_far()?.sent.len();
    wait_until(LONG, || Ok(producer.so_far()?.sent.iter().skip(before).any(Sent::is_ok)))
        .context("nothing is acknowledged by the pair")
}

/// Waits until topics and consumer offsets have reached the slave.
fn wait_configured(slave: &Broker) -> Result<()> {
    let mut wire = Wire::connect(slave.socket(), Duration::from_secs(20))?;
    wait_until(LONG, || {
        let topics = wire.call(21, &[], &[])?;
        let offsets = wire.call(43, &[], &[])?;
        let has = |body: &[u8], text: &str| String::from_utf8_lossy(body).contains(text);
        Ok(has(&topics.body, &format!("\"{TOPIC}\"")) && has(&offsets.body, &format!("{TOPIC}@g_{TOPIC}")))
    })
    .context("topics and offsets do not reach the slave")
}

/// The slave becomes the master on its data: the master stops, the slave stops, and starts in the other role.
fn hand_over(master: &mut Broker, slave: &mut Broker, role: &str, namesrv: &NameServer) -> Result<()> {
    master.stop()?;
    slave.stop()?;
    slave.set("brokerId", 0);
    slave.set("brokerRole", role);
    slave.start()?;
    namesrv.wait_registered(slave)
}

/// A Java master gets a slave of ours, which takes its place; that one gets a Java slave, which takes its place. A producer
/// and a consumer go on all the while, and what was acknowledged by a pair is consumed.
fn our_migration_from_java_and_back(peer: &Peer) -> Result<()> {
    let namesrv = NameServer::start(peer.servers)?;
    let java = Kind::Java(peer.client);
    let mut master = builder(java, &namesrv).start()?;
    namesrv.wait_registered(&master)?;
    let mut slave = builder(peer.servers, &namesrv).id(1).start()?;
    namesrv.wait_registered(&slave)?;
    let cluster = Cluster { brokers: vec![master], namesrv };
    create_topic(&cluster, TOPIC, 4)?;
    let Cluster { mut brokers, namesrv } = cluster;
    master = brokers.remove(0);

    let client = Client::new(peer.client, &namesrv.addr());
    let consumer =
        client.consume(TOPIC, &format!("g_{TOPIC}")).flag("until-stdin-closes").arg("timeout", 600).start()?;
    consumer.wait_started()?;
    let producer = client.produce(TOPIC).flag("until-stdin-closes").arg("rate", 50).start()?;
    for next in [Some(java), None] {
        wait_acknowledged(&producer)?;
        wait_configured(&slave)?;
        // The last one gets no slave that it could wait for.
        let role = if next.is_some() { "SYNC_MASTER" } else { "ASYNC_MASTER" };
        hand_over(&mut master, &mut slave, role, &namesrv)?;
        let now_master = slave;
        let Some(kind) = next else {
            master = now_master;
            break;
        };
        slave = builder(kind, &namesrv).id(1).start()?;
        namesrv.wait_registered(&slave)?;
        master = now_master;
        wait_until(LONG, || Ok(log_end(&slave)? > 0)).context("the new slave gets nothing")?;
    }
    // That it takes messages is enough.
    let before = producer.so_far()?.sent.len();
    wait_until(LONG, || {
        let so_far = producer.so_far()?.sent;
        Ok(so_far.iter().skip(before).any(|sent| sent.offset_msg_id.is_some()))
    })
    .context("the last master takes no messages")?;
    let sent = producer.stop(LONG)?.sent;
    let acknowledged = sent.iter().filter(|sent| sent.is_ok()).count();
    ensure!(acknowledged > 100, "only {acknowledged} of {} were acknowledged", sent.len());
    let mut history = History::default();
    history.sent(sent.clone());
    wait_until(LONG, || {
        let received = consumer.so_far()?.received;
        let keys: std::collections::HashSet<_> = received.iter().map(|received| received.key.as_str()).collect();
        Ok(sent.iter().filter(|sent| sent.is_ok()).all(|sent| keys.contains(sent.key.as_str())))
    })
    .context("what was acknowledged is not consumed")?;
    history.received(consumer.stop(LONG)?.received);
    drop(master);
    history.check()
}

fn produce(client: &Client, topic: &str, run: &str, count: u64) -> Result<Vec<Sent>> {
    Ok(client.produce(topic).arg("run", run).arg("count", count).arg("threads", 2).run(LONG)?.sent)
}

/// A store of that kind with messages that nobody else has behind those that its pair had.
struct Parted {
    namesrv: NameServer,
    master: Broker,
    slave: Broker,
    /// Where the two logs part.
    common: u64,
}

/// A pair that was one log; then each half took messages as a master of its own. The slave is down.
fn parted(peer: &Peer, master: Kind, slave: Kind, policy: &str, more_at_master: u64) -> Result<Parted> {
    let namesrv = NameServer::start(peer.servers)?;
    let mut first = builder(master, &namesrv).set("brokerRole", "ASYNC_MASTER").start()?;
    namesrv.wait_registered(&first)?;
    let mut second = builder(slave, &namesrv).id(1).set("haDivergedSlave", policy).start()?;
    namesrv.wait_registered(&second)?;
    let cluster = Cluster { brokers: vec![first], namesrv };
    create_topic(&cluster, TOPIC, 4)?;
    let Cluster { mut brokers, namesrv } = cluster;
    first = brokers.remove(0);
    let client = Client::new(peer.client, &namesrv.addr());
    produce(&client, TOPIC, "both", 300)?;
    wait_until(LONG, || {
        let mut wire = Wire::connect(second.socket(), Duration::from_secs(20))?;
        let topics = wire.call(21, &[], &[])?;
        let has_topic = String::from_utf8_lossy(&topics.body).contains(&format!("\"{TOPIC}\""));
        Ok(has_topic && log_end(&second)? == log_end(&first)?)
    })
    .context("the slave does not get all")?;
    let common = log_end(&first)?;
    // The slave as a master of its own: what it takes now its old master never has.
    hand_over(&mut first, &mut second, "ASYNC_MASTER", &namesrv)?;
    produce(&client, TOPIC, "slave", 200)?;
    second.stop()?;
    first.start()?;
    namesrv.wait_registered(&first)?;
    if more_at_master > 0 {
        produce(&client, TOPIC, "master", more_at_master)?;
    }
    second.set("brokerId", 1);
    second.set("brokerRole", "SLAVE");
    Ok(Parted { namesrv, master: first, slave: second, common })
}

/// A slave of ours with a tail of its own at a Java master: the difference is found, the tail is cut off and kept, and then it follows.
fn our_slave_that_parts_from_java_is_cut(peer: &Peer) -> Result<()> {
    let Parted { namesrv, master, mut slave, common } =
        parted(peer, Kind::Java(peer.client), peer.servers, "TRUNCATE", 250)?;
    slave.start()?;
    namesrv.wait_registered(&slave)?;
    wait_until(LONG, || Ok(log_end(&slave).unwrap_or(0) == log_end(&master)?)).context("it does not follow again")?;
    let kept: Vec<_> = std::fs::read_dir(slave.store().join("diverged"))?.collect::<std::io::Result<_>>()?;
    ensure!(kept.len() == 1, "{kept:?}");
    let name = kept[0].file_name().to_string_lossy().into_owned();
    let at: u64 = name.split('-').next().context("no offset")?.parse()?;
    // Java's master may write something of its own between its start and the first of our messages.
    ensure!(at >= common, "cut at {at}, the logs were the same up to {common}");
    let client = Client::new(peer.client, &namesrv.addr());
    let everything = client.command("read", TOPIC).run(LONG)?.received;
    ensure!(everything.len() == 550, "{} of 550 are readable", everything.len());
    ensure!(everything.iter().all(|received| received.whole), "not whole");
    Ok(())
}

/// A Java slave with a tail that our master never had: it is named and gets nothing, also when our log has grown past its end.
fn our_master_refuses_a_java_slave_that_is_ahead(peer: &Peer) -> Result<()> {
    let Parted { namesrv, master, mut slave, .. } = parted(peer, peer.servers, Kind::Java(peer.client), "WAIT", 0)?;
    slave.start()?;
    namesrv.wait_registered(&slave)?;
    let ahead = log_end(&slave)?;
    ensure!(ahead > log_end(&master)?, "the slave is not ahead");
    let mut wire = Wire::connect(master.socket(), Duration::from_secs(20))?;
    let mut named = || -> Result<bool> {
        let status = wire.call(907, &[], &[])?;
        Ok(String::from_utf8_lossy(&status.body).contains("the slave is ahead of this master"))
    };
    wait_until(LONG, &mut named).context("the master does not name it")?;
    let client = Client::new(peer.client, &namesrv.addr());
    wait_until(LONG, || {
        produce(&client, TOPIC, "more", 100)?;
        Ok(log_end(&master)? > ahead + 10_000)
    })?;
    // It comes again every five seconds, and is refused each time.
    std::thread::sleep(Duration::from_secs(12));
    ensure!(log_end(&slave)? == ahead, "the slave was written to");
    ensure!(named()?, "it is forgotten");
    Ok(())
}
