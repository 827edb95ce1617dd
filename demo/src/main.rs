//! `rocketmq-demo`: the main job from start to end, without Kubernetes.
//!
//! Starts the cluster of a manifest as local processes, sends numbered messages, adds a broker
//! group while they flow, receives them all, shows the cluster, and says what was lost.

mod cluster;
mod consumer;
mod producer;
mod route;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use rocketmq_remoting::Client;
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::producer::Producer;

const TOPIC: &str = "DemoTopic";
const GROUPS_BEFORE: u32 = 2;
const GROUPS_AFTER: u32 = 3;
/// How long a new group may take until producers see it.
const SCALE_MAX: Duration = Duration::from_mins(2);

/// Runs a cluster, sends and receives through it, scales it meanwhile, and stops it.
#[derive(Debug, Parser)]
struct Arguments {
    /// The manifest, of two broker groups.
    #[arg(long, default_value = "deploy/examples/two-pairs-async.yaml")]
    file: PathBuf,
    /// Messages to send.
    #[arg(long, default_value_t = 10_000)]
    messages: u32,
    /// An empty or missing folder for all that the cluster keeps.
    #[arg(long)]
    data: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let bin_dir = std::env::current_exe()?.parent().context("this program lies in no folder")?.to_owned();
    std::fs::create_dir_all(&arguments.data)?;
    ensure!(std::fs::read_dir(&arguments.data)?.next().is_none(), "{} is not empty", arguments.data.display());

    println!("starting the cluster of {}", arguments.file.display());
    let cluster = Cluster::start(&bin_dir, &arguments.file, &arguments.data).await?;
    println!("it serves: NAMESRV_ADDR={}", cluster.name_servers);

    // The cluster is named as its manifest is.
    let name = arguments.file.file_stem().context("the manifest has no name")?.to_string_lossy().into_owned();
    let topic = ["updateTopic", "-n", &cluster.name_servers, "-c", &name, "-t", TOPIC, "-r", "4", "-w", "4"];
    mqadmin(&bin_dir, &topic).await?;

    let client = Client::default();
    let name_servers = cluster.name_servers.clone();
    let receiver = tokio::spawn(async move {
        let client = Client::default();
        consumer::receive(&client, &name_servers, TOPIC, arguments.messages as usize).await
    });
    let mut producer = Producer::new(&client, &cluster.name_servers, TOPIC);
    let scale_at = arguments.messages / 2;
    for number in 0..arguments.messages {
        if number == scale_at {
            println!("{number} messages are acknowledged; scaling from {GROUPS_BEFORE} to {GROUPS_AFTER} groups");
            cluster.scale(GROUPS_BEFORE, GROUPS_AFTER)?;
        }
        // A quarter is kept for the time when the new group is there.
        if number == scale_at + scale_at / 2 {
            wait_for_group(&mut producer).await?;
        }
        producer.send(number).await?;
    }
    let sent = producer.sent;
    println!("{} messages are acknowledged, {} sends were tried again", sent.acknowledged.len(), sent.retries);
    for (broker, count) in &sent.by_broker {
        println!("  {broker}: {count}");
    }

    let received = receiver.await??;
    println!("{} messages are received, {} of them twice or more", received.numbers.len(), received.duplicates);
    mqadmin(&bin_dir, &["clusterList", "-n", &cluster.name_servers]).await?;
    let lost: Vec<&u32> = sent.acknowledged.difference(&received.numbers).collect();
    println!(
        "lost: {}",
        if lost.is_empty() { "nothing".to_owned() } else { format!("{} messages, {lost:?}", lost.len()) }
    );
    cluster.stop().await?;
    println!("the cluster has stopped");
    ensure!(lost.is_empty(), "acknowledged messages were lost");
    ensure!(sent.by_broker.len() == GROUPS_AFTER as usize, "not every group took messages");
    Ok(())
}

async fn wait_for_group(producer: &mut Producer<'_>) -> anyhow::Result<()> {
    let seen = tokio::time::timeout(SCALE_MAX, async {
        while producer.groups() < GROUPS_AFTER as usize {
            tokio::time::sleep(Duration::from_millis(200)).await;
            producer.refresh().await;
        }
    });
    seen.await.context("the new group did not take the topic in time")?;
    println!("the new group takes messages of the topic");
    Ok(())
}

/// Runs `mqadmin` as a user would, and shows what it says.
async fn mqadmin(bin_dir: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    println!("mqadmin {}", arguments.join(" "));
    let status = Command::new(bin_dir.join("mqadmin")).args(arguments).status().await.context("run mqadmin")?;
    ensure!(status.success(), "mqadmin ended with {status}");
    Ok(())
}
