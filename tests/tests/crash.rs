//! A master killed in the middle of its work loses nothing that it acknowledged, and gives no offset a second time.
//!
//! By Java's own client, and by Java's broker as a control; `crash_rounds` does it a hundred times with a quick client of ours.
//! SIGKILL takes the process, not the machine: what was written into mapped files survives, so this holds for asynchronous flush too.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    client::{Client, Sent},
    cluster::{Broker, Cluster, Kind, NameServer},
    history::History,
    java::Version,
    wire::Wire,
};

const ROUNDS: usize = 2;
const LONG: Duration = Duration::from_mins(2);

#[test]
fn our_master_killed_under_load_loses_nothing() -> Result<()> {
    killed_under_load(Kind::Ours)
}

/// The control: what is asked of our broker is what Java's does.
#[test]
fn java_master_killed_under_load_loses_nothing() -> Result<()> {
    killed_under_load(Kind::Java(Version::V4_9_7))
}

fn killed_under_load(kind: Kind) -> Result<()> {
    let namesrv = NameServer::start(kind)?;
    let broker = Broker::builder(kind, "broker-a", &namesrv.addr())
        // Small files, so that a crash meets their ends as well.
        .set("mappedFileSizeCommitLog", 4 << 20)
        .set("mappedFileSizeConsumeQueue", 20 * 2_000)
        .start()?;
    namesrv.wait_registered(&broker)?;
    let mut cluster = Cluster { brokers: vec![broker], namesrv };
    create_topic(&cluster.brokers[0], "Crash")?;
    let client = Client::new(Version::V4_9_7, &cluster.addr());
    let mut history = History::default();
    let mut acknowledged_before = 0;
    for round in 0..ROUNDS {
        let producer = client
            .produce("Crash")
            .arg("run", format!("round{round}"))
            .arg("threads", 8)
            .arg("size", 1_000)
            .arg("retries", 0)
            .arg("timeout", 3_000)
            .arg("mode", if round % 2 == 0 { "sync" } else { "async" })
            .flag("until-stdin-closes")
            .start()?;
        producer.wait_for_lines(2_000 + 700 * round, LONG)?;
        cluster.brokers[0].kill9()?;
        let sent = producer.stop(LONG)?.sent;
        ensure!(
            sent.iter().any(|sent| !sent.is_ok()),
            "round {round}: the kill was not noticed, so it was not under load"
        );
        history.sent(sent);
        let acknowledged = history.acknowledged();
        ensure!(acknowledged > acknowledged_before + 1_000, "round {round}: only {acknowledged} acknowledged in all");
        acknowledged_before = acknowledged;

        cluster.brokers[0].start()?;
        cluster.namesrv.wait_registered(&cluster.brokers[0])?;
        // Everything, from the first offset of each queue on, after every crash.
        let everything = client.command("read", "Crash").run(LONG)?.received;
        let mut so_far = history.clone();
        so_far.received(everything);
        so_far.check_without_gaps().with_context(|| format!("{kind}, after crash {round}"))?;
        eprintln!("{kind}, crash {round}: {acknowledged} acknowledged, all there");
    }
    // A last look by an ordinary consumer.
    let sent = client.produce("Crash").arg("run", "after").arg("count", 200).run(LONG)?.sent;
    ensure!(sent.iter().all(Sent::is_ok), "after the crashes: {:?}", sent.iter().find(|sent| !sent.is_ok()));
    history.sent(sent);
    let expected = history.acknowledged();
    let consumed =
        client.consume("Crash", "after_crash").arg("expect", expected).arg("linger", 2).arg("timeout", 90).run(LONG)?;
    history.received(consumed.received);
    history.check_without_gaps()?;
    cluster.brokers[0].stop()?;
    Ok(())
}

/// Four queues on one broker.
fn create_topic(broker: &Broker, topic: &str) -> Result<()> {
    let response = Wire::connect(broker.socket(), Duration::from_secs(20))?.create_topic(topic, 4)?;
    ensure!(response.code == 0, "creating {topic}: {response:?}");
    Ok(())
}
