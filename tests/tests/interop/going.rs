//! The Go client: which of the other scenarios it takes part in, and what only it or two different clients can show.
//!
//! Of those that are left out, these would fail against Java's servers too: the client says nothing when a broker refuses an
//! expression, does not limit a body, looks for requests without a reply every ten minutes, and its pull
//! consumer never gets what it sent back.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    client::{Client, Sent},
    history::History,
    java::Version,
};

use crate::{Scenario, peer::Peer};

/// The scenarios of the Java clients that the Go client runs as they are.
pub(crate) const AS_JAVA: &[&str] = &[
    "sync_async_batch_oneway",
    "big_bodies",
    "auto_create",
    "delay",
    "transactions",
    "transactions_when_asked",
    "request_reply",
    "tags",
    "sql92",
    "sql92_retry",
    "orderly",
    "broadcasting",
    "long_polling",
    "retry_and_dead_letter",
    "consume_from_first_and_last",
    "read_by_offset",
    "message_trace",
    "message_trace_in_own_topic",
];

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[("to_java", to_java), ("from_java", from_java), ("poll", poll)];

const LONG: Duration = Duration::from_mins(2);

/// Messages of every way of sending, short and compressed, with tags, keys and properties.
fn send_all(client: &Client, topic: &str) -> Result<Vec<Sent>> {
    let mut all = Vec::new();
    for (mode, size) in [("sync", 100), ("sync", 20_000), ("async", 6_000), ("batch", 100), ("oneway", 100)] {
        let produce = client.produce(topic).arg("mode", mode).arg("size", size).arg("tags", "TagA,TagB");
        let sent = produce.arg("count", 40).run(LONG)?.sent;
        let right = if mode == "oneway" { "ONEWAY" } else { "SEND_OK" };
        ensure!(sent.len() == 40 && sent.iter().all(|one| one.status == right), "{mode}: {:?}", sent.first());
        all.extend(sent);
    }
    Ok(all)
}

/// Everything is read whole by the other client, with its tags and properties, and a tag filter leaves the half out.
fn read_all(client: &Client, topic: &str, sent: Vec<Sent>) -> Result<()> {
    let line = client.library.to_string().replace('.', "_");
    let group = format!("g_{topic}_{line}");
    let consumed = client.consume(topic, &group).arg("expect", sent.len()).run(LONG)?.received;
    for one in &consumed {
        let seq = one.seq.with_context(|| format!("without its property: {one:?}"))?;
        let wanted = if seq % 2 == 0 { "TagA" } else { "TagB" };
        ensure!(one.tags.as_deref() == Some(wanted) && one.key.ends_with(&format!("-{seq}")), "{one:?}");
    }
    let half = sent.len() / 2;
    let mut history = History::default();
    history.sent(sent).received(consumed);
    history.check_without_gaps().with_context(|| format!("read by {}", client.library))?;
    let tagged = client.consume(topic, &format!("t_{topic}_{line}")).arg("sub", "TagA").arg("expect", half);
    let tagged = tagged.run(LONG)?.received;
    let right = tagged.iter().filter(|one| one.tags.as_deref() == Some("TagA")).count();
    ensure!(right >= half && right == tagged.len(), "{right} of {} have the tag, wanted {half}", tagged.len());
    Ok(())
}

fn to_java(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("ToJava", 4)?;
        let sent = send_all(&session.client, &topic)?;
        for version in Version::ALL {
            read_all(&Client::new(version, &session.cluster.addr()), &topic, sent.clone())?;
        }
        Ok(())
    })
}

fn from_java(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("FromJava", 4)?;
        let mut sent = Vec::new();
        for version in Version::ALL {
            sent.extend(send_all(&Client::new(version, &session.cluster.addr()), &topic)?);
        }
        read_all(&session.client, &topic, sent)
    })
}

/// The pull consumer hands out everything when asked, and what it acknowledged does not come again.
fn poll(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("Poll", 4)?;
        let consume = session.client.consume(&topic, &format!("g_{topic}")).flag("pull");
        let mut history = History::default();
        for (start, count) in [(0, 300), (300, 20)] {
            let produce = session.client.produce(&topic).arg("run", "poll").arg("count", count);
            history.sent(produce.arg("start-seq", start).run(LONG)?.sent);
            let received = consume.clone().arg("expect", count).run(LONG)?.received;
            let seqs: BTreeSet<u64> = received.iter().filter_map(|one| one.seq).collect();
            ensure!(seqs == (start..start + count).collect(), "from {start}: {seqs:?}");
            history.received(received);
        }
        history.check_without_gaps()
    })
}
