//! `rocketmq-bench`: reads its arguments and runs one load.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use rocketmq_bench::compare::scenario::Times;
use rocketmq_bench::compare::{self, Comparison};
use rocketmq_bench::load::{Amount, Load};
use rocketmq_bench::outcome::Outcome;
use rocketmq_bench::pull::{self, Queues};
use rocketmq_bench::send::{self, Messages};
use rocketmq_bench::topic;

/// Drives a RocketMQ broker and reports rate, latency and what the broker paid for it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sends messages.
    Send(SendArguments),
    /// Pulls messages.
    Pull(PullArguments),
    /// Takes the Java broker and ours through the same loads, in turn.
    Compare(CompareArguments),
    /// Measures the store without a broker: appending beside its floor, opening, rebuilding.
    Store(StoreArguments),
}

#[derive(Args)]
struct Common {
    /// host:port of the broker.
    #[arg(long)]
    broker: String,
    /// The topic.
    #[arg(long, default_value = "rocketmq-bench")]
    topic: String,
    /// Queues of the topic.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    queues: u32,
    /// Connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Ends after that many messages.
    #[arg(long, required_unless_present = "seconds")]
    messages: Option<u64>,
    /// Ends after that many seconds.
    #[arg(long, conflicts_with = "messages")]
    seconds: Option<f64>,
    /// Seconds ahead of the measured span.
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// The broker's process on this machine, for its CPU and memory.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Args)]
struct SendArguments {
    #[command(flatten)]
    common: Common,
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Requests on their way at once per connection; 1 waits for each answer.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Messages in a request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Requests per second over all connections; latency counts from when each was due.
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Args)]
struct PullArguments {
    #[command(flatten)]
    common: Common,
    /// First offset in each queue; a queue that is read to its end starts there again.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Messages to ask for in a request.
    #[arg(long, default_value_t = 32)]
    batch: u32,
}

#[derive(Args)]
struct CompareArguments {
    /// Visits to each broker.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// One round of short loads; writes no page.
    #[arg(long)]
    quick: bool,
    /// The directory of mqnamesrv and mqbroker [default: that of this program].
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// A directory on a disk, for the stores.
    #[arg(long, default_value = "/var/tmp")]
    data_dir: PathBuf,
    /// The page whose tables are written anew [default: docs/performance.md of this workspace].
    #[arg(long)]
    page: Option<PathBuf>,
}

#[derive(Args)]
struct StoreArguments {
    /// A directory on a disk, for the store.
    #[arg(long, default_value = "/var/tmp")]
    data_dir: PathBuf,
    /// GiB of log for each size of message.
    #[arg(long, default_value_t = 1.0)]
    gib: f64,
}

fn main() -> Result<ExitCode> {
    let (name, outcome) = match Arguments::parse().command {
        Task::Send(arguments) => ("send", send(&arguments)?),
        Task::Pull(arguments) => ("pull", pull(&arguments)?),
        Task::Compare(arguments) => {
            compare(arguments)?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Store(arguments) => {
            rocketmq_bench::store::run(&arguments.data_dir, arguments.gib)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    eprint!("{outcome}");
    println!("{}", outcome.json(name));
    Ok(if outcome.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(common: &Common, in_flight: u32, rate: Option<f64>) -> Result<Load> {
    let amount = match (common.messages, common.seconds) {
        (Some(messages), _) => Amount::Messages(messages),
        (None, seconds) => Amount::Time(Duration::try_from_secs_f64(seconds.unwrap_or_default())?),
    };
    anyhow::ensure!(rate.is_none_or(|rate| rate > 0.0), "a rate is above 0");
    Ok(Load {
        broker: common.broker.clone(),
        connections: common.connections,
        in_flight,
        amount,
        warm_up: Duration::try_from_secs_f64(common.warm_up)?,
        rate,
        pid: common.pid,
    })
}

fn send(arguments: &SendArguments) -> Result<Outcome> {
    let common = &arguments.common;
    topic::create(&common.broker, &common.topic, common.queues)?;
    let messages = Messages {
        topic: common.topic.clone(),
        topics: 1,
        queues: common.queues,
        size: arguments.size,
        batch: arguments.batch,
    };
    send::run(&load(common, arguments.in_flight, arguments.rate)?, &messages)
}

fn pull(arguments: &PullArguments) -> Result<Outcome> {
    let common = &arguments.common;
    let queues = Queues {
        topic: common.topic.clone(),
        count: common.queues,
        from: arguments.from,
        batch: arguments.batch,
        groups: 1,
        hold: None,
    };
    pull::run(&load(common, 1, None)?, &queues)
}

fn compare(arguments: CompareArguments) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a workspace")?;
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.parent().context("a directory")?.to_owned());
    let page = arguments.page.unwrap_or_else(|| workspace.join("docs/performance.md"));
    compare::run(&Comparison {
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 }),
        times: if arguments.quick { Times::QUICK } else { Times::FULL },
        ours: arguments.bin_dir.map_or_else(beside, Ok)?,
        java_scripts: workspace.join("tests/java"),
        data: arguments.data_dir,
        page: (!arguments.quick).then_some(page),
    })
}
