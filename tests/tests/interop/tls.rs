//! Scenarios of TLS: Java's clients and tools with `-Dtls.enable=true`, beside plain ones and alone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    certificates::{Authority, PASSWORD},
    client::{Client, Sent},
    cluster::{Broker, Kind, NameServer},
    history::History,
    mqadmin::{Mqadmin, Tool},
    process::wait_until,
};

use crate::{Scenario, peer::Peer};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("tls_beside_plain", tls_beside_plain),
    ("tls_mqadmin", tls_mqadmin),
    ("tls_enforcing", tls_enforcing),
    ("tls_mutual", tls_mutual),
];

const LONG: Duration = Duration::from_mins(2);

type Keys = Vec<(String, String)>;

fn keys(pairs: &[(&str, &str)]) -> Keys {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn enabled() -> Keys {
    keys(&[("tls.enable", "true")])
}

/// Each of two producers and two consumers, one with TLS and one without, at the same time: the servers as they are by default.
fn tls_beside_plain(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("TlsBeside", 4)?;
        let consume = |group: &str| session.client.consume(&topic, group).arg("expect", 500).arg("timeout", 110);
        let consumers = [consume("g_tls_beside").properties(&enabled()).start()?, consume("g_plain_beside").start()?];
        // 100,000 bytes are several records of TLS.
        let produce = |run: &str, size: u32| {
            let producer = session.client.produce(&topic).arg("run", run).arg("count", 250);
            producer.arg("threads", 4).arg("size", size)
        };
        let producers = [produce("secret", 100_000).properties(&enabled()).start()?, produce("open", 1_000).start()?];
        let mut history = History::default();
        for producer in producers {
            let sent = producer.finish(LONG)?.sent;
            ensure!(sent.len() == 250 && sent.iter().all(Sent::is_ok), "{:?}", sent.iter().find(|sent| !sent.is_ok()));
            history.sent(sent);
        }
        for consumer in consumers {
            let received = consumer.finish(LONG)?.received;
            ensure!(received.len() >= 500, "{} of 500 came", received.len());
            history.received(received);
        }
        history.check_without_gaps()
    })
}

/// Java's mqadmin and ours, both with TLS.
fn tls_mqadmin(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        for (tool, name) in [(Tool::Java(peer.client), "TlsByJava"), (Tool::Ours, "TlsByOurs")] {
            let mut mqadmin = Mqadmin::with_tls(tool, &session.cluster.addr(), &enabled())?;
            // The first TLS connection of a JVM on a busy machine takes longer than mqadmin waits.
            wait_until(LONG, || {
                let list = mqadmin.run(&["clusterList"]).unwrap_or_default();
                Ok(session.cluster.brokers.iter().all(|broker| list.contains(&broker.addr())))
            })
            .with_context(|| format!("{tool:?} does not list the brokers"))?;
            let (topic, broker) = (session.name(name), session.cluster.brokers[0].addr());
            mqadmin.run(&["updateTopic", "-b", &broker, "-t", &topic, "-r", "2", "-w", "2"])?;
            wait_for_route(&mut mqadmin, &topic, &broker)?;
        }
        Ok(())
    })
}

fn wait_for_route(mqadmin: &mut Mqadmin, topic: &str, broker: &str) -> Result<()> {
    wait_until(LONG, || Ok(mqadmin.run(&["topicRoute", "-t", topic]).is_ok_and(|route| route.contains(broker))))
        .with_context(|| format!("no route of {topic} leads to {broker}"))
}

/// A cluster of its own, in which everybody has these keys.
struct Guarded {
    namesrv: NameServer,
    brokers: Vec<Broker>,
    mqadmin: Mqadmin,
}

impl Guarded {
    /// A name server, a master and a slave; `tool` are the keys by which they can be asked.
    fn start(kind: Kind, servers: &Keys, tool: &Keys) -> Result<Self> {
        let namesrv = NameServer::start_with(kind, servers.clone())?;
        let build = |id| Broker::builder(kind, "broker-a", &namesrv.addr()).id(id).properties(servers.clone());
        let brokers = vec![build(0).start()?, build(1).start()?];
        let mut mqadmin = Mqadmin::with_tls(Tool::Ours, &namesrv.addr(), tool)?;
        wait_until(LONG, || {
            let list = mqadmin.run(&["clusterList"])?;
            Ok(brokers.iter().all(|broker| list.contains(&broker.addr())))
        })
        .context("the brokers do not register by TLS")?;
        Ok(Self { namesrv, brokers, mqadmin })
    }

    fn create_topic(&mut self, topic: &str) -> Result<()> {
        let broker = self.brokers[0].addr();
        self.mqadmin.run(&["updateTopic", "-b", &broker, "-t", topic, "-r", "4", "-w", "4"])?;
        wait_for_route(&mut self.mqadmin, topic, &broker)
    }

    /// The slave asks its master for topics, by TLS where the master takes nothing else.
    fn wait_until_slave_knows(&self, topic: &str) -> Result<()> {
        let topics = self.brokers[1].store().join("config/topics.json");
        let name = format!("\"{topic}\"");
        wait_until(LONG, || Ok(std::fs::read_to_string(&topics).is_ok_and(|text| text.contains(&name))))
            .with_context(|| format!("{topic} does not reach the slave"))
    }
}

/// What is sent is received, by clients with these keys.
fn exchange(client: &Client, topic: &str, keys: &Keys) -> Result<()> {
    let sent = client.produce(topic).arg("count", 300).arg("threads", 4).properties(keys).run(LONG)?.sent;
    ensure!(sent.len() == 300 && sent.iter().all(Sent::is_ok), "{:?}", sent.iter().find(|sent| !sent.is_ok()));
    let group = format!("g_{topic}");
    let received =
        client.consume(topic, &group).arg("expect", 300).arg("timeout", 60).properties(keys).run(LONG)?.received;
    let mut history = History::default();
    history.sent(sent).received(received);
    history.check_without_gaps()
}

/// No message of clients with these keys gets through.
fn refused(client: &Client, topic: &str, keys: &Keys) -> Result<()> {
    let producer = client.produce(topic).arg("count", 1).arg("retries", 0).arg("timeout", 3_000);
    let sent = producer.properties(keys).run(LONG)?.sent;
    ensure!(sent.len() == 1 && sent[0].status == "EXCEPTION", "a message got through with {keys:?}: {sent:?}");
    Ok(())
}

/// With the certificates that the servers make themselves: TLS is served, plain connections are not.
fn tls_enforcing(peer: &Peer) -> Result<()> {
    let mut cluster = Guarded::start(peer.servers, &keys(&[("tls.server.mode", "enforcing")]), &enabled())?;
    cluster.create_topic("TlsEnforcing")?;
    cluster.wait_until_slave_knows("TlsEnforcing")?;
    let client = Client::new(peer.client, &cluster.namesrv.addr());
    exchange(&client, "TlsEnforcing", &enabled())?;
    refused(&client, "TlsEnforcing", &Vec::new())?;
    ensure!(Mqadmin::new(Tool::Ours, &cluster.namesrv.addr())?.run(&["clusterList"]).is_err(), "plain is served");
    Ok(())
}

/// Both sides show certificates of one authority, and believe nobody else's.
fn tls_mutual(peer: &Peer) -> Result<()> {
    let (ours, other) = (Authority::new()?, Authority::new()?);
    ours.issue("server")?;
    ours.issue("client")?;
    other.issue("client")?;
    let client = |authority: &Authority| {
        keys(&[
            ("tls.enable", "true"),
            ("tls.test.mode.enable", "false"),
            ("tls.client.authServer", "true"),
            ("tls.client.trustCertPath", &ours.path("ca.pem")),
            ("tls.client.certPath", &authority.path("client.pem")),
            ("tls.client.keyPath", &authority.path("client.key")),
        ])
    };
    let mut servers = client(&ours);
    servers.extend(keys(&[
        ("tls.server.mode", "enforcing"),
        ("tls.server.need.client.auth", "require"),
        ("tls.server.authClient", "true"),
        ("tls.server.trustCertPath", &ours.path("ca.pem")),
        ("tls.server.certPath", &ours.path("server.pem")),
    ]));
    servers.extend(match peer.servers {
        Kind::Ours => {
            keys(&[("tls.server.keyPath", &ours.path("server.encrypted.key")), ("tls.server.keyPassword", PASSWORD)])
        }
        // Netty of 4.9.7 does not read what OpenSSL encrypts.
        Kind::Java(_) => keys(&[("tls.server.keyPath", &ours.path("server.key"))]),
    });
    let mut cluster = Guarded::start(peer.servers, &servers, &client(&ours))?;
    cluster.create_topic("TlsMutual")?;
    cluster.wait_until_slave_knows("TlsMutual")?;
    let java = Client::new(peer.client, &cluster.namesrv.addr());
    exchange(&java, "TlsMutual", &client(&ours))?;
    refused(&java, "TlsMutual", &client(&other))?;
    refused(&java, "TlsMutual", &enabled())
}
