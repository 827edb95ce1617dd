//! The whole of it on Kubernetes: the chart, the operator, name servers and brokers in pods, Java clients in pods beside them.
//!
//! Every scenario has a namespace of its own, of the restricted pod security standard, and the cluster is shared. `cargo test
//! --test e2e -- NAME` chooses. Environment: `RMQ_E2E_KUBECONFIG` (a cluster of the caller's; otherwise
//! `tests/cluster/cluster` finds or makes one), `RMQ_E2E_NO_COMPILE` (the static binaries in `dist/bin` are taken as they
//! are), `RMQ_KEEP` (namespaces and cluster stay, to look at).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use rocketmq_tests::{
    client::{Received, Sent},
    history::History,
    java::Version,
    kubernetes::{
        Kubernetes, Namespace, OPERATOR_NAMESPACE, PATIENCE, Pod, RELEASE, SHELL_IMAGE, eventually, rocketmq_cluster,
        text_of,
    },
};
use serde_json::{Value, json};

mod changes;
mod scale_down;
mod tls;

type Scenario = fn(&Kubernetes, &Namespace<'_>) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 11] = [
    // The longest first.
    ("groups_that_go_are_emptied_first_and_come_back", scale_down::groups_that_go_are_emptied_first_and_come_back),
    ("changes_go_from_slave_to_master_and_lose_nothing", changes::changes_go_from_slave_to_master_and_lose_nothing),
    ("a_bad_image_stops_at_the_first_pod_and_heals", changes::a_bad_image_stops_at_the_first_pod_and_heals),
    ("tls_is_all_that_is_served", tls::tls_is_all_that_is_served),
    ("the_minimal_example_serves_java_clients", the_minimal_example_serves_java_clients),
    ("scaling_adds_serving_pairs_and_restarts_nothing", scaling_adds_serving_pairs_and_restarts_nothing),
    ("a_deleted_master_comes_back_with_its_data", a_deleted_master_comes_back_with_its_data),
    ("more_name_servers_restart_no_broker", more_name_servers_restart_no_broker),
    ("an_invalid_resource_is_refused_by_the_fields_name", an_invalid_resource_is_refused_by_the_fields_name),
    ("a_paused_cluster_is_left_alone", changes::a_paused_cluster_is_left_alone),
    ("a_restart_of_the_operator_changes_nothing", a_restart_of_the_operator_changes_nothing),
];

/// Milliseconds. A cold JVM on a busy machine needs longer than the client's 3 s for its first send.
const SEND_TIMEOUT: &str = "20000";

/// Small files, because every broker allocates its first ones whole; small requests, because all scenarios share a machine.
fn small(replicas: u32, slaves: u32) -> Value {
    let requests = json!({ "requests": { "cpu": "20m", "memory": "64Mi" } });
    json!({
        "replicas": replicas, "slaves": slaves, "resources": requests, "nameServers": { "resources": requests },
        "storage": { "size": "1Gi", "whenDeleted": "Delete" },
        "config": { "mappedFileSizeCommitLog": "67108864", "mappedFileSizeConsumeQueue": "600000" },
    })
}

fn main() {
    let mut args = Arguments::from_args();
    // Most of a scenario is waiting, but the machine runs the cluster too.
    args.test_threads.get_or_insert(3);
    let cluster: Arc<OnceLock<Result<Kubernetes, String>>> = Arc::default();
    let trials = SCENARIOS
        .into_iter()
        .map(|(name, scenario)| {
            let cluster = Arc::clone(&cluster);
            Trial::test(name, move || {
                let prepared = cluster.get_or_init(|| Kubernetes::prepare().map_err(|fault| format!("{fault:#}")));
                let cluster = prepared.as_ref().map_err(Failed::from)?;
                let namespace = cluster.namespace(name).map_err(|fault| Failed::from(format!("{fault:#}")))?;
                let result = scenario(cluster, &namespace);
                result.map_err(|fault| Failed::from(format!("{fault:#}\n--\n{}", namespace.report())))
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if let Some(Ok(cluster)) = cluster.get() {
        cluster.end();
    }
    let _ = std::io::stdout().flush();
    conclusion.exit();
}

fn the_minimal_example_serves_java_clients(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/minimal.yaml");
    namespace.kubectl(&["apply", "-f", example])?;
    namespace.wait_ready("minimal")?;
    let address = namespace.namesrv("minimal");
    let count = "200";
    let produce = [
        "produce",
        "--topic",
        "greetings",
        "--count",
        count,
        "--run",
        "hello",
        "--timeout",
        SEND_TIMEOUT,
        "--namesrv",
        &address,
    ];
    let consume = [
        "consume",
        "--topic",
        "greetings",
        "--group",
        "readers",
        "--from",
        "first",
        "--expect",
        count,
        "--timeout",
        "90",
        "--namesrv",
        &address,
    ];
    let mut history = History::default();
    history.sent(namespace.java(Version::V4_9_7, &produce)?.sent);
    ensure!(history.acknowledged() == 200, "{} of {count} sends were acknowledged", history.acknowledged());
    history.received(namespace.java(Version::V5_5_0, &consume)?.received);
    history.check()?;

    let row = namespace.kubectl(&["get", "rmq", "minimal", "--no-headers"])?;
    ensure!(row.split_whitespace().any(|word| word == "True"), "kubectl get does not say that it is ready: {row}");
    Ok(())
}

fn scaling_adds_serving_pairs_and_restarts_nothing(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    namespace.start_cluster("grow", &small(2, 1))?;
    // A topic that its first message makes exists on the brokers that got one before the producer saw its route: on one or both.
    namespace.mqadmin(&["updateTopic", "-n", &namespace.namesrv("grow"), "-c", "grow", "-t", "orders"])?;
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    sent.extend(produce(namespace, "grow", "orders", "before", 48)?);
    ensure!(brokers(&sent) == names(["broker-0", "broker-1"]), "two masters take messages, not {:?}", brokers(&sent));
    let before = lives(namespace)?;
    ensure!(before.len() == 2 + 4, "two name servers and two pairs: {before:?}");

    namespace.kubectl(&["scale", "rocketmqcluster/grow", "--replicas=3"])?;
    eventually(PATIENCE, || {
        let cluster = namespace.object("rocketmqcluster", "grow")?;
        Ok(cluster["status"]["readyReplicas"] == 3
            && cluster["status"]["observedGeneration"] == cluster["metadata"]["generation"])
    })
    .context("three pairs are not ready")?;
    namespace.wait_ready("grow")?;

    let after = lives(namespace)?;
    for (pod, life) in &before {
        ensure!(after.get(pod) == Some(life), "{pod} was restarted: {life:?}, then {:?}", after.get(pod));
    }
    ensure!(after.len() == before.len() + 2, "a master and a slave more: {after:?}");

    // The topic was made before the third pair; its route must lead there all the same.
    sent.extend(produce(namespace, "grow", "orders", "after", 96)?);
    let written = brokers(&sent[48..]);
    ensure!(written == names(["broker-0", "broker-1", "broker-2"]), "after scaling, {written:?} take messages");
    received.extend(read(namespace, "grow", "orders")?);
    let mut history = History::default();
    history.sent(sent).received(received.clone()).check_without_gaps()?;
    slaves_hold_what_their_masters_hold(namespace, "grow", &received)
}

fn a_deleted_master_comes_back_with_its_data(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    namespace.start_cluster("keep", &small(1, 1))?;
    let mut sent = produce(namespace, "keep", "ledger", "first", 100)?;
    let master = "keep-broker-master-0";
    let claim = format!("data-{master}");
    let uid =
        |kind: &str, name: &str| -> Result<String> { Ok(text_of(&namespace.object(kind, name)?["metadata"]["uid"])) };
    let (pod_before, claim_before) = (uid("pod", master)?, uid("pvc", &claim)?);
    let addresses = broker_addresses(namespace, "keep")?;
    ensure!(addresses.len() == 2, "a master and a slave: {addresses:?}");

    namespace.kubectl(&["delete", "pod", master])?;
    eventually(PATIENCE, || {
        let pods = namespace.objects("pod", "rocketmq.rs/role=master")?;
        Ok(pods.get(master).is_some_and(|pod| text_of(&pod["metadata"]["uid"]) != pod_before && is_ready(pod)))
    })
    .context("the master does not come back")?;
    namespace.wait_ready("keep")?;
    ensure!(uid("pvc", &claim)? == claim_before, "it has another volume");
    let now = broker_addresses(namespace, "keep")?;
    ensure!(now == addresses, "it is advertised at {now:?} instead of {addresses:?}");

    let mut history = History::default();
    let received = read(namespace, "keep", "ledger")?;
    history.sent(sent.clone()).received(received).check_without_gaps().context("read again from the first offset")?;
    sent.extend(produce(namespace, "keep", "ledger", "second", 50)?);
    let received = read(namespace, "keep", "ledger")?;
    let mut history = History::default();
    history.sent(sent).received(received.clone()).check_without_gaps().context("after more was written")?;
    slaves_hold_what_their_masters_hold(namespace, "keep", &received)
}

fn more_name_servers_restart_no_broker(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    namespace.start_cluster("names", &small(1, 1))?;
    let before = lives(namespace)?;
    let patch = r#"{"spec":{"nameServers":{"replicas":3}}}"#;
    namespace.kubectl(&["patch", "rocketmqcluster", "names", "--type=merge", "-p", patch])?;
    eventually(PATIENCE, || Ok(namespace.object("statefulset", "names-namesrv")?["status"]["readyReplicas"] == 3))
        .context("three name servers are not ready")?;
    // Each broker looks the service up again and registers at the new server too.
    eventually(PATIENCE, || {
        let server = format!("names-namesrv-2.names-namesrv.{}.svc:9876", namespace.name());
        Ok(addresses_at(namespace, &server).is_ok_and(|addresses| addresses.len() == 2))
    })
    .context("the third name server does not know both brokers")?;
    let after = lives(namespace)?;
    for (pod, life) in &before {
        ensure!(after.get(pod) == Some(life), "{pod} was restarted: {life:?}, then {:?}", after.get(pod));
    }
    Ok(())
}

fn an_invalid_resource_is_refused_by_the_fields_name(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    let refused = |spec: &Value, field: &str| -> Result<()> {
        let answer = namespace.apply(&rocketmq_cluster("wrong", spec));
        let Err(fault) = answer else { anyhow::bail!("{spec} is accepted") };
        let message = format!("{fault:#}");
        ensure!(message.contains(field), "the refusal of {spec} does not name {field}: {message}");
        Ok(())
    };
    refused(&json!({ "replicas": 1000 }), "spec.replicas")?;
    refused(&json!({ "replicas": "two" }), "spec.replicas")?;
    refused(&json!({ "slaves": -1 }), "spec.slaves")?;
    refused(&json!({ "replication": "Quorum" }), "spec.replication")?;
    refused(&json!({ "replication": "Sync", "slaves": 0 }), "slaves")?;
    refused(&json!({ "storage": { "size": "much" } }), "spec.storage.size")?;
    refused(&json!({ "config": { "brokerName": "mine" } }), "config.brokerName")?;
    refused(&json!({ "replikas": 2 }), "spec.replikas")?;
    ensure!(namespace.objects("rocketmqcluster", "")?.is_empty(), "something was made all the same");

    let spec = json!({ "replicas": 0, "slaves": 0, "nameServers": { "replicas": 1 }, "storage": { "size": "1Gi" } });
    namespace.apply(&rocketmq_cluster("wrong", &spec))?;
    let mut grown = spec;
    grown["storage"]["size"] = json!("2Gi");
    refused(&grown, "storage.size")
}

fn a_restart_of_the_operator_changes_nothing(cluster: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    namespace.start_cluster("calm", &small(1, 1))?;
    let selector = "app.kubernetes.io/managed-by=rocketmq-operator";
    let versions = || -> Result<BTreeMap<String, String>> {
        let mut versions = BTreeMap::new();
        for kind in ["statefulset", "service", "configmap"] {
            for (name, object) in namespace.objects(kind, selector)? {
                versions.insert(format!("{kind}/{name}"), text_of(&object["metadata"]["resourceVersion"]));
            }
        }
        let resource = namespace.object("rocketmqcluster", "calm")?;
        versions.insert("rocketmqcluster/calm".to_owned(), text_of(&resource["metadata"]["resourceVersion"]));
        Ok(versions)
    };
    let (objects, pods) = (versions()?, lives(namespace)?);
    ensure!(objects.len() >= 6, "too little to look at: {objects:?}");

    let operator = |arguments: &[&str]| cluster.kubectl(&[&["-n", OPERATOR_NAMESPACE], arguments].concat());
    let query = format!("app.kubernetes.io/instance={RELEASE}");
    operator(&["delete", "pod", "-l", &query])?;
    operator(&["rollout", "status", &format!("deployment/{RELEASE}"), "--timeout=120s"])?;
    // It leads once it has the lease; then it goes over every cluster there is.
    eventually(PATIENCE, || {
        let list = operator(&["get", "pod", "-l", &query, "-o", "jsonpath={.items[*].metadata.name}"])?;
        let path = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{}:8080/proxy/metrics", list.trim());
        let Ok(metrics) = cluster.kubectl(&["get", "--raw", &path]) else { return Ok(false) };
        let all = cluster.kubectl(&["get", "rocketmqclusters", "-A", "-o", "name"])?.lines().count();
        let passes = metrics
            .lines()
            .find(|line| line.starts_with("rocketmq_operator_reconciles_total") && line.contains("\"success\""))
            .and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
        Ok(passes.is_some_and(|passes| passes >= all))
    })
    .context("the new operator does not go over the clusters")?;
    // What a pass would have changed by mistake is seen a moment later at the latest.
    std::thread::sleep(Duration::from_secs(3));
    ensure!(versions()? == objects, "objects were changed: {objects:?}, then {:?}", versions()?);
    ensure!(lives(namespace)? == pods, "pods were changed: {pods:?}, then {:?}", lives(namespace)?);
    Ok(())
}

/// Sends messages from a pod and demands that every one is acknowledged.
fn produce(namespace: &Namespace<'_>, cluster: &str, topic: &str, run: &str, count: usize) -> Result<Vec<Sent>> {
    let (address, number) = (namespace.namesrv(cluster), count.to_string());
    let arguments = [
        "produce",
        "--topic",
        topic,
        "--count",
        &number,
        "--run",
        run,
        "--timeout",
        SEND_TIMEOUT,
        "--namesrv",
        &address,
    ];
    let sent = namespace.java(Version::V5_5_0, &arguments)?.sent;
    let failed: Vec<_> = sent.iter().filter(|sent| !sent.is_ok()).collect();
    ensure!(
        sent.len() == count && failed.is_empty(),
        "{} of {count} were sent, of those failed: {failed:?}",
        sent.len()
    );
    Ok(sent)
}

/// Reads every queue of a topic from its first offset to its last.
fn read(namespace: &Namespace<'_>, cluster: &str, topic: &str) -> Result<Vec<Received>> {
    let address = namespace.namesrv(cluster);
    Ok(namespace.java(Version::V4_9_7, &["read", "--topic", topic, "--namesrv", &address])?.received)
}

fn brokers(sent: &[Sent]) -> BTreeSet<String> {
    sent.iter().filter_map(|sent| sent.broker.clone()).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(ToOwned::to_owned).into()
}

/// Every RocketMQ pod's uid and restarts: what stays the same as long as nothing is restarted.
fn lives(namespace: &Namespace<'_>) -> Result<BTreeMap<String, (String, String)>> {
    let pods = namespace.objects("pod", "app.kubernetes.io/name=rocketmq")?;
    let life = |pod: &Value| {
        (text_of(&pod["metadata"]["uid"]), text_of(&pod["status"]["containerStatuses"][0]["restartCount"]))
    };
    Ok(pods.iter().map(|(name, pod)| (name.clone(), life(pod))).collect())
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// Under which address each broker is known, by name and id.
fn broker_addresses(namespace: &Namespace<'_>, cluster: &str) -> Result<BTreeMap<String, String>> {
    addresses_at(namespace, &namespace.namesrv(cluster))
}

fn addresses_at(namespace: &Namespace<'_>, namesrv: &str) -> Result<BTreeMap<String, String>> {
    let text = namespace.mqadmin(&["clusterList", "-n", namesrv])?;
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    // Cluster, broker name, broker id, address, and figures.
    let fields = rows.map(|row| row.split_whitespace().collect::<Vec<_>>()).filter(|fields| fields.len() > 3);
    Ok(fields.map(|fields| (format!("{}/{}", fields[1], fields[2]), fields[3].to_owned())).collect())
}

/// Compares the commit logs in the volumes of every master and its slaves, byte by byte, up to the last of `messages`.
fn slaves_hold_what_their_masters_hold(namespace: &Namespace<'_>, cluster: &str, messages: &[Received]) -> Result<()> {
    let mut ends: BTreeMap<&str, i64> = BTreeMap::new();
    for message in messages {
        let end = ends.entry(&message.broker).or_default();
        *end = message.commit_log_offset.max(*end);
    }
    ensure!(!ends.is_empty(), "there is nothing to compare");
    for (broker, end) in ends {
        ensure!(end > 0, "{broker} has too little to compare");
        let ordinal = broker.trim_start_matches("broker-");
        let mut sums = Vec::new();
        eventually(Duration::from_mins(1), || {
            sums = vec![
                log_checksum(namespace, &format!("{cluster}-broker-master-{ordinal}"), end)?,
                log_checksum(namespace, &format!("{cluster}-broker-slave-1-{ordinal}"), end)?,
            ];
            Ok(sums[0] == sums[1])
        })
        .with_context(|| format!("{broker}: the first {end} bytes of master and slave differ: {sums:?}"))?;
    }
    Ok(())
}

/// The SHA-256 of the first `length` bytes of a broker's commit log, read from its volume.
fn log_checksum(namespace: &Namespace<'_>, pod: &str, length: i64) -> Result<String> {
    let node = text_of(&namespace.object("pod", pod)?["spec"]["nodeName"]);
    let claim = format!("data-{pod}");
    let log = format!("/volumes/{claim}/store/commitlog/00000000000000000000");
    let script = format!("head -c {length} {log} | sha256sum; head -c {length} /dev/zero | sha256sum");
    let text = namespace.run_pod(&Pod {
        image: SHELL_IMAGE,
        arguments: &["-c", &script],
        node: Some(&node),
        claims: &[&claim],
        ..Pod::default()
    })?;
    let sums: Vec<_> = text.split_whitespace().filter(|word| *word != "-").collect();
    ensure!(sums.len() == 2, "{pod}: {text}");
    ensure!(sums[0] != sums[1], "{pod}: the log is empty");
    Ok(sums[0].to_owned())
}
