//! A whole cluster by `rocketmq-operator local`: it starts from its manifest, replaces what is killed, follows changes of the
//! manifest, stops in order, and goes on where it was.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    binaries,
    client::{Client, Sent},
    history::History,
    java::Version,
    process::{Process, scratch_dir, signal_pid, wait_until},
    wire::Wire,
};
use rustix::process::Signal;

const LONG: Duration = Duration::from_mins(2);

const MANIFEST: &str = "\
apiVersion: rocketmq.rs/v1alpha1
kind: RocketMQCluster
metadata: { name: demo }
spec:
  replicas: 2
  slaves: 1
  nameServers: { replicas: 2 }
  config: { mappedFileSizeCommitLog: \"67108864\" }
";

struct Local {
    process: Process,
    namesrv: String,
}

impl Local {
    fn start(dir: &Path) -> Result<Self> {
        let mut command = Command::new(binaries::binary("rocketmq-operator")?);
        command
            .arg("local")
            .arg(dir.join("demo.yaml"))
            .arg("--data")
            .arg(dir.join("data"))
            .arg("--bin-dir")
            .arg(binaries::directory()?);
        let process = Process::spawn("rocketmq-operator local", command, &dir.join("log"))?;
        let line = process.wait_for_line(LONG, |line| line.contains("NAMESRV_ADDR="))?;
        let namesrv = line.split_once("NAMESRV_ADDR=").map(|(_, addr)| addr.trim().to_owned()).unwrap_or_default();
        ensure!(namesrv.contains(':'), "{line}");
        Ok(Self { process, namesrv })
    }

    /// SIGINT, after which nothing of the cluster runs any more.
    fn stop(mut self, dir: &Path) -> Result<()> {
        let pods = pids(dir)?;
        self.process.signal(Signal::INT)?;
        let status = self.process.wait(LONG)?;
        ensure!(status.success(), "SIGINT ended it with {status}");
        for pid in pods {
            ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} outlives its cluster");
        }
        Ok(())
    }
}

fn pod_pid(dir: &Path, pod: &str) -> Result<u32> {
    let path = dir.join("data").join(pod).join("pid");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

fn pids(dir: &Path) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir(dir.join("data"))? {
        if let Ok(pid) = pod_pid(dir, &entry?.file_name().to_string_lossy()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

#[test]
fn a_cluster_without_kubernetes() -> Result<()> {
    let dir = scratch_dir()?;
    let dir = dir.path();
    std::fs::write(dir.join("demo.yaml"), MANIFEST)?;
    let local = Local::start(dir)?;
    let client = Client::new(Version::V5_5_0, &local.namesrv);
    let mut history = History::default();

    let sent = client.produce("Local").arg("count", 10_000).arg("threads", 8).run(LONG)?.sent;
    ensure!(sent.iter().all(Sent::is_ok), "{:?}", sent.iter().find(|sent| !sent.is_ok()));
    ensure!(brokers(&sent).len() == 2, "two groups were to take part: {:?}", brokers(&sent));
    history.sent(sent);

    // A master dies under load and is replaced.
    let producer = client
        .produce("Local")
        .arg("run", "kill")
        .flag("until-stdin-closes")
        .arg("threads", 4)
        .arg("rate", 2_000)
        .start()?;
    producer.wait_for_lines(2_000, LONG)?;
    let old = pod_pid(dir, "demo-broker-master-0")?;
    signal_pid(old, Signal::KILL)?;
    let began = Instant::now();
    wait_until(LONG, || Ok(pod_pid(dir, "demo-broker-master-0").is_ok_and(|pid| pid != old)))?;
    eprintln!("the killed master was replaced after {:?}", began.elapsed());
    let count = producer.so_far()?.sent.len();
    producer.wait_for_lines(count + 4_000, LONG)?;
    history.sent(producer.stop(LONG)?.sent);
    check(&client, &history, "after the kill")?;

    // A third group, while messages are sent.
    let producer = client.produce("Local").arg("run", "scale").flag("until-stdin-closes").arg("rate", 500).start()?;
    producer.wait_for_lines(500, LONG)?;
    std::fs::write(dir.join("demo.yaml"), MANIFEST.replace("replicas: 2\n  slaves", "replicas: 3\n  slaves"))?;
    wait_until(LONG, || Ok(brokers(&producer.so_far()?.sent).len() == 3))
        .context("no message reached a third group")?;
    let sent = producer.stop(LONG)?.sent;
    ensure!(sent.iter().all(Sent::is_ok), "scaling cost a send: {:?}", sent.iter().find(|sent| !sent.is_ok()));
    history.sent(sent);
    check(&client, &history, "after scaling up")?;

    third_group_goes(dir, &client, &mut history)?;

    local.stop(dir)?;
    let local = Local::start(dir)?;
    // Addresses are kept between runs, so the clients' configuration is too.
    ensure!(local.namesrv == client.namesrv, "the name servers moved from {} to {}", client.namesrv, local.namesrv);
    wait_for_masters(&local.namesrv, 3)?;
    check(&client, &history, "after a stop and a start")?;
    let sent = client.produce("Local").arg("run", "again").arg("count", 300).run(LONG)?.sent;
    ensure!(sent.iter().all(Sent::is_ok) && brokers(&sent).len() == 3, "{:?}", brokers(&sent));
    local.stop(dir)
}

/// The third group is scaled away under load: it goes once it is empty, and comes back with what was consumed from it.
fn third_group_goes(dir: &Path, client: &Client, history: &mut History) -> Result<()> {
    let third = || -> Option<String> { pod_pid(dir, "demo-broker-master-2").ok().map(|pid| pid.to_string()) };
    let producer = client.produce("Local").arg("run", "down").flag("until-stdin-closes").arg("rate", 200).start()?;
    let consumer = client.consume("Local", "g_down").arg("timeout", 300).flag("until-stdin-closes").start()?;
    let began = Instant::now();
    std::fs::write(dir.join("demo.yaml"), MANIFEST)?;
    wait_until(LONG, || Ok(third().is_none())).context("the third group does not go")?;
    eprintln!("the third group was gone after {:?}", began.elapsed());
    let sent = producer.stop(LONG)?.sent;
    consumer.stop(LONG)?;
    ensure!(sent.iter().all(Sent::is_ok), "scaling down cost a send: {:?}", sent.iter().find(|sent| !sent.is_ok()));
    let last = &sent[sent.len().saturating_sub(200)..];
    ensure!(brokers(last).len() == 2, "the last messages went to {:?}", brokers(last));
    history.sent(sent);
    std::fs::write(dir.join("demo.yaml"), MANIFEST.replace("replicas: 2\n  slaves", "replicas: 3\n  slaves"))?;
    let producer = client.produce("Local").arg("run", "up").flag("until-stdin-closes").arg("rate", 200).start()?;
    wait_until(LONG, || Ok(brokers(&producer.so_far()?.sent).len() == 3)).context("no message reached it again")?;
    history.sent(producer.stop(LONG)?.sent);
    check(client, history, "after scaling down and up again")
}

fn brokers(sent: &[Sent]) -> BTreeSet<&str> {
    sent.iter().filter_map(|sent| sent.broker.as_deref()).collect()
}

/// Every acknowledged message can be read.
fn check(client: &Client, history: &History, when: &str) -> Result<()> {
    let mut history = history.clone();
    history.received(client.command("read", "Local").run(LONG)?.received);
    history.check_without_gaps().with_context(|| when.to_owned())?;
    eprintln!("{when}: {} acknowledged, all there", history.acknowledged());
    Ok(())
}

/// Waits until the first name server routes the topic to `count` masters.
fn wait_for_masters(namesrv: &str, count: usize) -> Result<()> {
    let first = namesrv.split([';', ',']).next().unwrap_or_default().parse()?;
    let mut wire = Wire::connect(first, Duration::from_secs(20))?;
    wait_until(LONG, || {
        let response = wire.call(105, &[("topic", "Local"), ("acceptStandardJsonOnly", "true")], &[])?;
        Ok(String::from_utf8_lossy(&response.body).matches("\"0\":").count() == count)
    })
    .with_context(|| format!("{count} masters"))
}
