//! Scaling down: nothing goes that still holds messages, it can be taken back, and what has gone comes back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    history::History,
    java::Version,
    kubernetes::{Kubernetes, Namespace, PATIENCE, eventually, text_of},
};
use serde_json::Value;

use crate::{brokers, names, produce, read, small};

pub(crate) fn groups_that_go_are_emptied_first_and_come_back(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    namespace.start_cluster("shrink", &small(2, 1))?;
    let address = namespace.namesrv("shrink");
    namespace.mqadmin(&["updateTopic", "-n", &address, "-c", "shrink", "-t", "orders"])?;
    let mut sent = produce(namespace, "shrink", "orders", "before", 64)?;
    ensure!(brokers(&sent) == names(["broker-0", "broker-1"]), "two masters take messages: {:?}", brokers(&sent));

    scale(namespace, 1)?;
    let group = wait_for_group(namespace, "it is being emptied", |group| group["drain"]["readOnlySince"].is_string())?;
    let remaining = group["drain"]["remaining"].as_i64().unwrap_or(0);
    ensure!(remaining == 32, "half of 64 messages lie there, not {remaining}: {group}");
    let (reason, message) = reconciling(namespace)?;
    ensure!(reason == "Draining", "{reason}: {message}");
    ensure!(message.contains("broker-1: 32 messages to be consumed (32 of orders that nobody consumes)"), "{message}");
    // New clients keep away from it, and it stays as long as nobody consumes.
    let late = produce(namespace, "shrink", "orders", "meanwhile", 16)?;
    ensure!(brokers(&late) == names(["broker-0"]), "while it is emptied, {:?} take messages", brokers(&late));
    sent.extend(late);
    ensure!(state(namespace)?.as_deref() == Some("Draining"), "it has gone with messages");

    scale(namespace, 2)?;
    wait_for_group(namespace, "it serves again", |group| group["state"] == "Serving")?;
    eventually(PATIENCE, || {
        let more = produce(namespace, "shrink", "orders", &format!("again-{}", sent.len()), 16)?;
        let both = brokers(&more).len() == 2;
        sent.extend(more);
        Ok(both)
    })
    .context("scaling up again does not open it")?;

    // Some messages wait in the brokers themselves until these deliver them.
    namespace.mqadmin(&["updateTopic", "-n", &address, "-c", "shrink", "-t", "reminders"])?;
    let delayed = ["produce", "--topic", "reminders", "--run", "delayed", "--count", "16", "--delay-level", "4"];
    let delayed = [&delayed[..], &["--timeout", crate::SEND_TIMEOUT, "--namesrv", &address]].concat();
    let delayed = namespace.java(Version::V5_5_0, &delayed)?.sent;
    ensure!(brokers(&delayed).len() == 2, "delayed messages lie on both: {:?}", brokers(&delayed));
    let uid = |name: &str| -> Result<String> { Ok(text_of(&namespace.object("pvc", name)?["metadata"]["uid"])) };
    let claims = ["data-shrink-broker-master-1", "data-shrink-broker-slave-1-1"];
    let before = claims.iter().map(|claim| uid(claim)).collect::<Result<Vec<_>>>()?;
    scale(namespace, 1)?;
    let expected = sent.len().to_string();
    let consume = ["consume", "--topic", "orders", "--group", "billing", "--from", "first", "--expect", &expected];
    let consume = [&consume[..], &["--timeout", "120", "--linger", "15", "--namesrv", &address]].concat();
    // Each message is refused once: redeliveries have to find their way too.
    let consume = [&consume[..], &["--fail-first", "1"]].concat();
    let mut history = History::default();
    history.sent(sent.clone()).received(namespace.java(Version::V4_9_7, &consume)?.received);
    history.check().context("consumed while the group goes")?;
    let began = Instant::now();
    let rest = ["consume", "--topic", "reminders", "--group", "clock", "--expect", "16", "--timeout", "60"];
    let rest = [&rest[..], &["--linger", "3", "--namesrv", &address]].concat();
    let reminders = namespace.java(Version::V4_9_7, &rest)?.received;
    let missing: Vec<_> = delayed.iter().filter(|sent| reminders.iter().all(|got| got.key != sent.key)).collect();
    ensure!(missing.is_empty(), "of the delayed messages are lost: {missing:?}");
    eventually(PATIENCE, || Ok(state(namespace)?.is_none())).with_context(|| {
        format!("{:?}", namespace.object("rocketmqcluster", "shrink").map(|all| all["status"].clone()))
    })?;
    eprintln!("the group was gone {:?} after its messages were consumed", began.elapsed());
    eventually(PATIENCE, || {
        let pods = namespace.objects("pod", "app.kubernetes.io/component=broker")?;
        Ok(pods.into_keys().collect::<Vec<_>>() == ["shrink-broker-master-0", "shrink-broker-slave-1-0"])
    })
    .context("its pods stay")?;
    let reasons = events(namespace)?;
    for reason in ["Draining", "DrainCancelled", "GroupRemoved"] {
        ensure!(reasons.contains_key(reason), "no event {reason}: {reasons:?}");
    }

    scale(namespace, 2)?;
    wait_for_group(namespace, "it serves again", |group| group["state"] == "Serving")?;
    let after = claims.iter().map(|claim| uid(claim)).collect::<Result<Vec<_>>>()?;
    ensure!(before == after, "it has other volumes");
    eventually(PATIENCE, || {
        let more = produce(namespace, "shrink", "orders", &format!("grown-{}", sent.len()), 16)?;
        let both = brokers(&more).len() == 2;
        sent.extend(more);
        Ok(both)
    })
    .context("growing again does not open it")?;
    let mut history = History::default();
    history
        .sent(sent)
        .received(read(namespace, "shrink", "orders")?)
        .check_without_gaps()
        .context("read from the first offset")
}

fn scale(namespace: &Namespace<'_>, replicas: u32) -> Result<()> {
    namespace.kubectl(&["scale", "rocketmqcluster/shrink", &format!("--replicas={replicas}")])?;
    Ok(())
}

/// What the status says of the second group.
fn group(namespace: &Namespace<'_>) -> Result<Option<Value>> {
    let cluster = namespace.object("rocketmqcluster", "shrink")?;
    let groups = cluster["status"]["groups"].as_array().cloned().unwrap_or_default();
    Ok(groups.into_iter().find(|group| group["brokerName"] == "broker-1"))
}

fn state(namespace: &Namespace<'_>) -> Result<Option<String>> {
    Ok(group(namespace)?.map(|group| text_of(&group["state"])))
}

fn wait_for_group(namespace: &Namespace<'_>, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = None;
    let result = eventually(PATIENCE, || {
        last = group(namespace)?;
        Ok(last.as_ref().is_some_and(&holds))
    });
    result.with_context(|| format!("{what}: {last:?}"))?;
    last.context("no group")
}

fn reconciling(namespace: &Namespace<'_>) -> Result<(String, String)> {
    let cluster = namespace.object("rocketmqcluster", "shrink")?;
    let conditions = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == "Reconciling").context("no condition")?;
    Ok((text_of(&found["reason"]), text_of(&found["message"])))
}

/// How often each reason was told.
fn events(namespace: &Namespace<'_>) -> Result<BTreeMap<String, usize>> {
    let mut reasons = BTreeMap::new();
    eventually(Duration::from_secs(20), || {
        let text = namespace.kubectl(&["get", "events", "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        reasons.clear();
        for event in list["items"].as_array().into_iter().flatten() {
            *reasons.entry(text_of(&event["reason"])).or_default() += 1;
        }
        Ok(reasons.contains_key("GroupRemoved"))
    })
    .with_context(|| format!("{reasons:?}"))?;
    Ok(reasons)
}
