//! What a scenario is given: a client version, a kind of server, and the shared cluster of that kind.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    client::{Client, Library},
    cluster::{Cluster, Kind},
    java::Version,
    process::wait_until,
    wire::Wire,
};

/// Names of the brokers of a shared cluster.
pub(crate) const BROKERS: [&str; 2] = ["broker-a", "broker-b"];

type Shared = Arc<Cluster>;

/// The shared clusters, each started by the first scenario that asks for it.
#[derive(Debug, Default)]
pub(crate) struct Clusters(Mutex<HashMap<Kind, std::result::Result<Shared, String>>>);

impl Clusters {
    fn get(&self, kind: Kind) -> Result<Shared> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A start that failed is not tried again by each of the scenarios.
        let entry = all.entry(kind).or_insert_with(|| {
            let cluster = Cluster::start(kind, &BROKERS).map_err(|error| format!("{error:?}"))?;
            Ok(Arc::new(cluster))
        });
        entry.clone().map_err(|error| anyhow::anyhow!("the {kind} cluster does not start: {error}"))
    }
}

/// A scenario's surroundings.
pub(crate) struct Peer {
    /// Whose client the scenarios of a shared cluster run.
    pub(crate) library: Library,
    /// The Java version of tools, of Java's servers and of clients that are Java's in any case.
    pub(crate) client: Version,
    pub(crate) servers: Kind,
    pub(crate) clusters: Arc<Clusters>,
}

/// The shared cluster while a scenario uses it, with a client for it.
pub(crate) struct Session<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) client: Client,
}

impl Peer {
    /// Runs `scenario` on the shared cluster beside other scenarios.
    pub(crate) fn shared(&self, scenario: impl FnOnce(&Session<'_>) -> Result<()>) -> Result<()> {
        let cluster = self.clusters.get(self.servers)?;
        scenario(&self.session(&cluster))
    }

    fn session<'a>(&self, cluster: &'a Cluster) -> Session<'a> {
        Session { cluster, client: Client::new(self.library, &cluster.addr()) }
    }
}

impl Session<'_> {
    /// A name that no other scenario uses; no digits, which the shapes of outputs would swallow.
    pub(crate) fn name(&self, name: &str) -> String {
        let line = match self.client.library {
            Library::Java(Version::V4_9_7) => "four",
            Library::Java(Version::V5_5_0) => "five",
            Library::Go => "go",
        };
        format!("{name}_{line}")
    }

    /// Creates a topic with `queues` queues on every broker and waits for its route.
    pub(crate) fn topic(&self, name: &str, queues: u32) -> Result<String> {
        let topic = self.name(name);
        create_topic(self.cluster, &topic, queues)?;
        Ok(topic)
    }
}

/// Creates a topic with `queues` queues on every broker of `cluster` and waits for its route.
pub(crate) fn create_topic(cluster: &Cluster, topic: &str, queues: u32) -> Result<()> {
    for broker in &cluster.brokers {
        let mut wire = Wire::connect(broker.socket(), Duration::from_secs(20))?;
        let response = wire.create_topic(topic, queues)?;
        ensure!(response.code == 0, "creating {topic} on {}: {} {:?}", broker.name(), response.code, response.remark);
    }
    let mut wire = Wire::connect(cluster.namesrv.socket(), Duration::from_secs(20))?;
    wait_until(Duration::from_secs(20), || {
        let response = wire.call(105, &[("topic", topic), ("acceptStandardJsonOnly", "true")], &[])?;
        let route = String::from_utf8_lossy(&response.body).into_owned();
        Ok(response.code == 0 && route.matches("readQueueNums").count() == cluster.brokers.len())
    })
    .with_context(|| format!("the route of {topic}"))
}
