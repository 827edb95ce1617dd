//! Changes of a running cluster's pods: their order, what clients notice, and changes that do not work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};
use rocketmq_tests::{
    client::Sent,
    history::History,
    java::Version,
    kubernetes::{Kubernetes, Namespace, OPERATOR_NAMESPACE, PATIENCE, RELEASE, eventually, rocketmq_cluster, text_of},
};
use serde_json::{Value, json};

use crate::{brokers, is_ready, lives, names, read, small};

pub(crate) fn changes_go_from_slave_to_master_and_lose_nothing(
    cluster: &Kubernetes,
    namespace: &Namespace<'_>,
) -> Result<()> {
    namespace.start_cluster("roll", &small(2, 1))?;
    let address = namespace.namesrv("roll");
    namespace.mqadmin(&["updateTopic", "-n", &address, "-c", "roll", "-t", "ledger"])?;
    let before = lives(namespace)?;
    let done = AtomicBool::new(false);
    let (sent, order) = std::thread::scope(|scope| {
        // Slow enough to last for the whole change on a machine that is busy.
        let arguments = [
            "produce",
            "--topic",
            "ledger",
            "--run",
            "roll",
            "--count",
            "600",
            "--rate",
            "8",
            "--retries",
            "10",
            "--timeout",
            crate::SEND_TIMEOUT,
            "--namesrv",
            &address,
        ];
        let producer = scope.spawn(move || namespace.java(Version::V5_5_0, &arguments));
        let watcher = scope.spawn(|| watch(namespace, &before, &done));
        let changed = patch(namespace, "roll", &json!({ "spec": { "config": { "fileReservedTime": "47" } } }))
            .and_then(|()| kill_the_operator_once_one_is_down(cluster, namespace, &before))
            .and_then(|()| wait_until_settled(namespace, "roll", &before));
        done.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow::anyhow!("a thread panicked");
        let order = watcher.join().map_err(panicked)?;
        let sent = producer.join().map_err(panicked)?;
        changed?;
        anyhow::Ok((sent?.sent, order?))
    })?;
    let expected = ["slave-1-0", "master-0", "slave-1-1", "master-1"].map(|pod| format!("roll-broker-{pod}"));
    ensure!(order == expected, "restarted in this order: {order:?}");
    let failed = sent.iter().filter(|sent| !sent.is_ok()).count();
    eprintln!("{} sends during the change, {failed} failed", sent.len());
    ensure!(failed * 20 <= sent.len(), "{failed} of {} sends failed", sent.len());
    ensure!(brokers(&sent) == names(["broker-0", "broker-1"]), "{:?}", brokers(&sent));
    let acknowledged: Vec<Sent> = sent.into_iter().filter(Sent::is_ok).collect();
    let mut history = History::default();
    history.sent(acknowledged).received(read(namespace, "roll", "ledger")?).check_without_gaps()
}

pub(crate) fn a_bad_image_stops_at_the_first_pod_and_heals(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    let bad = json!({ "broker": "localhost/no-such-image:1", "pullPolicy": "Never" });
    // Two clusters side by side: one that has never worked, and one that works and is changed.
    let mut never = small(1, 1);
    never["image"] = bad.clone();
    namespace.apply(&rocketmq_cluster("never", &never))?;
    namespace.start_cluster("works", &small(2, 1))?;
    let before = lives_of(namespace, "works")?;
    wait_for_failure(namespace, "never", "never-broker-")?;
    patch(namespace, "never", &json!({ "spec": { "image": null } }))?;

    patch(namespace, "works", &json!({ "spec": { "image": bad } }))?;
    wait_for_failure(namespace, "works", "works-broker-slave-1-0: ErrImageNeverPull")?;
    // What a second step would take down by mistake is seen a moment later at the latest.
    std::thread::sleep(std::time::Duration::from_secs(6));
    let during = lives_of(namespace, "works")?;
    let touched: Vec<&String> = before.keys().filter(|pod| during.get(*pod) != before.get(*pod)).collect();
    ensure!(touched == ["works-broker-slave-1-0"], "{touched:?} were touched");
    patch(namespace, "works", &json!({ "spec": { "image": null } }))?;
    for cluster in ["never", "works"] {
        wait_for_reason(namespace, cluster, "Settled")?;
        namespace.wait_ready(cluster)?;
    }
    let after = lives_of(namespace, "works")?;
    let touched: Vec<&String> = before.keys().filter(|pod| after.get(*pod) != before.get(*pod)).collect();
    ensure!(touched == ["works-broker-slave-1-0"], "{touched:?} were touched by healing");
    Ok(())
}

pub(crate) fn a_paused_cluster_is_left_alone(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    namespace.start_cluster("still", &small(0, 0))?;
    let resource = "rocketmqcluster/still";
    namespace.kubectl(&["annotate", resource, "rocketmq.rs/pause=true"])?;
    wait_for_reason(namespace, "still", "Paused")?;
    namespace.kubectl(&["scale", resource, "--replicas=1"])?;
    wait_for_reason(namespace, "still", "Paused")?;
    let masters =
        || Ok::<_, anyhow::Error>(namespace.object("statefulset", "still-broker-master")?["spec"]["replicas"].clone());
    ensure!(masters()? == 0, "a paused cluster was changed");
    namespace.kubectl(&["annotate", resource, "rocketmq.rs/pause-"])?;
    wait_for_reason(namespace, "still", "Settled")?;
    ensure!(masters()? == 1, "it is not gone on with");
    let budgets = namespace.objects("poddisruptionbudget", "app.kubernetes.io/instance=still")?;
    let allow =
        budgets.iter().filter(|(_, budget)| budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow").count();
    ensure!(allow == 2, "brokers and name servers have a disruption budget each: {budgets:?}");
    Ok(())
}

/// Looks again and again: of each group, all but one pod are ready at any time. Returns the pods in the order in which
/// they were made anew.
fn watch(
    namespace: &Namespace<'_>,
    before: &BTreeMap<String, (String, String)>,
    done: &AtomicBool,
) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let pods = namespace.objects("pod", "app.kubernetes.io/component=broker")?;
        for group in ["-0", "-1"] {
            let missing: BTreeSet<&String> = before
                .keys()
                .filter(|name| name.contains("-broker-") && name.ends_with(group))
                .filter(|name| !pods.get(*name).is_some_and(is_ready))
                .collect();
            ensure!(missing.len() < 2, "both of a group are down: {missing:?}");
        }
        for (name, pod) in &pods {
            let uid = text_of(&pod["metadata"]["uid"]);
            if before.get(name).is_some_and(|(old, _)| *old != uid) && !order.contains(name) {
                order.push(name.clone());
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    Ok(order)
}

/// The next one goes on where it was.
fn kill_the_operator_once_one_is_down(
    cluster: &Kubernetes,
    namespace: &Namespace<'_>,
    before: &BTreeMap<String, (String, String)>,
) -> Result<()> {
    let first = "roll-broker-slave-1-0";
    eventually(PATIENCE, || Ok(lives(namespace)?.get(first) != before.get(first))).context("nothing is restarted")?;
    let query = format!("app.kubernetes.io/instance={RELEASE}");
    let delete = ["delete", "pod", "-l", &query, "--force", "--grace-period=0", "--wait=false"];
    cluster.kubectl(&[&["-n", OPERATOR_NAMESPACE][..], &delete].concat())?;
    Ok(())
}

fn patch(namespace: &Namespace<'_>, cluster: &str, patch: &Value) -> Result<()> {
    namespace.kubectl(&["patch", "rocketmqcluster", cluster, "--type=merge", "-p", &patch.to_string()])?;
    Ok(())
}

/// Waits until every broker has been made anew and nothing is left to do.
fn wait_until_settled(
    namespace: &Namespace<'_>,
    cluster: &str,
    before: &BTreeMap<String, (String, String)>,
) -> Result<()> {
    eventually(PATIENCE, || {
        let now = lives(namespace)?;
        let all = before.iter().filter(|(name, _)| name.contains("-broker-"));
        Ok(all.into_iter().all(|(name, old)| now.get(name).is_some_and(|new| new.0 != old.0)))
    })
    .with_context(|| format!("not every broker is made anew: {:?}", condition(namespace, cluster, "Reconciling")))?;
    wait_for_reason(namespace, cluster, "Settled")
}

fn wait_for_reason(namespace: &Namespace<'_>, cluster: &str, reason: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let resource = namespace.object("rocketmqcluster", cluster)?;
        let current = resource["status"]["observedGeneration"] == resource["metadata"]["generation"];
        Ok(current && condition(namespace, cluster, "Reconciling")?["reason"] == reason)
    })
    .with_context(|| format!("{cluster} is not {reason}: {:?}", condition(namespace, cluster, "Reconciling")))
}

fn wait_for_failure(namespace: &Namespace<'_>, cluster: &str, message: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let stalled = condition(namespace, cluster, "Stalled")?;
        let named = text_of(&stalled["message"]).contains(message);
        Ok(stalled["status"] == "True" && stalled["reason"] == "PodFails" && named)
    })
    .with_context(|| format!("{cluster} does not say that {message}: {:?}", condition(namespace, cluster, "Stalled")))
}

fn condition(namespace: &Namespace<'_>, cluster: &str, type_: &str) -> Result<Value> {
    let resource = namespace.object("rocketmqcluster", cluster)?;
    let conditions = resource["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default())
}

/// The brokers of one of the clusters.
fn lives_of(namespace: &Namespace<'_>, cluster: &str) -> Result<BTreeMap<String, (String, String)>> {
    let mut all = lives(namespace)?;
    all.retain(|name, _| name.starts_with(&format!("{cluster}-broker-")));
    if all.is_empty() {
        bail!("{cluster} has no brokers");
    }
    Ok(all)
}
