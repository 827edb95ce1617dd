//! Scenarios of message trace: what clients write down of a message's way is kept in the trace topic and found there by its id.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    client::{Client, Library, Sent},
    cluster::{Broker, Cluster, Kind, NameServer},
    mqadmin::{self, Mqadmin, Tool},
    process::wait_until,
    wire::Wire,
};

use crate::{
    Scenario,
    peer::{Peer, create_topic},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] =
    &[("message_trace", message_trace), ("message_trace_in_own_topic", message_trace_in_own_topic)];

const LONG: Duration = Duration::from_mins(2);
const DEFAULT_TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
const TOPIC: &str = "Traced";

fn message_trace(peer: &Peer) -> Result<()> {
    traced(peer, DEFAULT_TRACE_TOPIC)
}

fn message_trace_in_own_topic(peer: &Peer) -> Result<()> {
    traced(peer, "TraceOfOurs")
}

/// Two brokers of which only the first is told to have a trace topic. Neither makes topics of itself.
fn cluster(kind: Kind, trace_topic: &str) -> Result<Cluster> {
    let mut cluster = Cluster { brokers: Vec::new(), namesrv: NameServer::start(kind)? };
    let broker = |name| Broker::builder(kind, name, &cluster.addr()).set("autoCreateTopicEnable", "false");
    let with = broker("broker-a").set("traceTopicEnable", "true").set("msgTraceTopicName", trace_topic).start()?;
    let without = broker("broker-b").start()?;
    for broker in [with, without] {
        cluster.namesrv.wait_registered(&broker)?;
        cluster.brokers.push(broker);
    }
    Ok(cluster)
}

/// The route of a topic as text; none where there is none.
fn route(cluster: &Cluster, topic: &str) -> Result<Option<String>> {
    let mut wire = Wire::connect(cluster.namesrv.socket(), LONG)?;
    let answer = wire.call(105, &[("topic", topic)], &[])?;
    Ok((answer.code == 0).then(|| String::from_utf8_lossy(&answer.body).into_owned()))
}

fn traced(peer: &Peer, trace_topic: &str) -> Result<()> {
    let cluster = cluster(peer.servers, trace_topic)?;
    let found = route(&cluster, trace_topic)?.context("the trace topic has no route")?;
    let right = found.contains("broker-a") && !found.contains("broker-b") && found.contains("\"readQueueNums\":1");
    ensure!(right, "the route of the trace topic: {found}");
    ensure!(trace_topic == DEFAULT_TRACE_TOPIC || route(&cluster, DEFAULT_TRACE_TOPIC)?.is_none(), "a topic too many");

    create_topic(&cluster, TOPIC, 2)?;
    let client = Client::new(peer.library, &cluster.addr());
    let settings = |run: rocketmq_tests::client::Invocation| {
        let run = run.flag("trace").flag("until-stdin-closes");
        if trace_topic == DEFAULT_TRACE_TOPIC { run } else { run.arg("trace-topic", trace_topic) }
    };
    let consumer = settings(client.consume(TOPIC, "traced_consumers")).arg("timeout", 300).start()?;
    consumer.wait_started()?;
    let producer = settings(client.produce(TOPIC)).arg("group", "traced_producers").arg("rate", 2).start()?;
    producer.wait_for_lines(4, LONG)?;
    let sent = producer.so_far()?.sent.into_iter().find(Sent::is_ok).context("nothing was sent")?;
    let id = sent.msg_id.as_deref().context("no id")?;

    let mut mqadmin = Mqadmin::new(Tool::Java(peer.client), &cluster.addr())?;
    let mut printed = String::new();
    wait_until(LONG, || {
        // It fails where there is none yet.
        let found = mqadmin.run(&["queryMsgTraceById", "-i", id, "-t", trace_topic]);
        printed = found.unwrap_or_else(|error| format!("{error:#}"));
        Ok(["Pub ", "Sub "].iter().all(|kind| printed.lines().any(|line| line.starts_with(kind))))
    })
    .with_context(|| format!("what is found of {id} in {trace_topic}:\n{printed}"))?;
    producer.stop(LONG)?;
    consumer.stop(LONG)?;
    let bless = peer.servers != Kind::Ours && peer.library != Library::Go;
    mqadmin::compare(peer.client, "queryMsgTraceById", &mqadmin::shape(&printed), bless)?;

    // The traces are ordinary messages, whose keys are the ids and the keys of what they tell about.
    let traces = client.command("read", trace_topic).run(LONG)?.received;
    let of_it = traces.iter().filter(|trace| trace.key.contains(id) && trace.key.contains(&sent.key)).count();
    ensure!(of_it >= 2, "{of_it} of {} traces are of {id}", traces.len());
    Ok(())
}
