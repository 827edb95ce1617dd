//! `rocketmq-operator`: reads arguments and wires; what it does is in the library.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use kube::Client;
use rocketmq_operator::broker_admin::BrokerAdmin;
use rocketmq_operator::health::{self, Metrics};
use rocketmq_operator::local::{self, child};
use rocketmq_operator::observe::Dial;
use rocketmq_operator::validate::{Defaults, ValidatedCluster};
use rocketmq_operator::{controller, lease, manifest, plan};

/// Runs RocketMQ clusters on Kubernetes, or one of them on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller.
    Run(RunArguments),
    /// Print the custom resource definition.
    Crd,
    /// Print the objects a manifest stands for, as YAML documents.
    Plan {
        /// A `RocketMQCluster` in YAML.
        file: PathBuf,
        #[command(flatten)]
        images: Images,
    },
    /// Run the cluster of a manifest as processes on this machine. Changes of the file are followed.
    Local {
        /// A `RocketMQCluster` in YAML.
        file: PathBuf,
        /// Folder of everything the cluster keeps [default: .local/<name of the cluster>]
        #[arg(long)]
        data: Option<PathBuf>,
        /// Folder of mqnamesrv and mqbroker [default: the folder of this program]
        #[arg(long)]
        bin_dir: Option<PathBuf>,
    },
    /// Become another program that dies with the process that started this one.
    #[command(hide = true)]
    Child {
        /// Process id of the one that started this.
        #[arg(long)]
        parent: u32,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args)]
struct RunArguments {
    /// Look at this namespace only.
    #[arg(long, env = "WATCH_NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    images: Images,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// Name of the lease by which one of several operators leads; without it this one always acts.
    #[arg(long, env = "LEASE_NAME")]
    lease: Option<String>,
    /// Reach brokers by their pods' addresses instead of names: for an operator outside of the cluster's DNS.
    #[arg(long, env = "DIAL_POD_IP")]
    dial_pod_ip: bool,
}

#[derive(Args)]
struct Images {
    /// Image of name servers whose cluster names none.
    #[arg(long, env = "NAMESRV_IMAGE")]
    namesrv_image: Option<String>,
    /// Image of brokers whose cluster names none.
    #[arg(long, env = "BROKER_IMAGE")]
    broker_image: Option<String>,
}

impl Images {
    fn defaults(self) -> Defaults {
        let built_in = Defaults::default();
        Defaults {
            namesrv_image: self.namesrv_image.unwrap_or(built_in.namesrv_image),
            broker_image: self.broker_image.unwrap_or(built_in.broker_image),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        // Logs are read by programs as often as by people.
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .init();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("rocketmq-operator: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Crd => {
            print!("{}", manifest::definition_yaml()?);
            Ok(())
        }
        Command::Plan { file, images } => {
            let cluster = manifest::read(&file)?;
            let cluster = ValidatedCluster::new(&cluster, &images.defaults())?;
            print!("{}", manifest::objects_yaml(&plan::from_spec(&cluster))?);
            Ok(())
        }
        Command::Child { parent, command } => Err(child::become_child(parent, &command)),
        Command::Local { file, data, bin_dir } => {
            block_on(async { local::run(&local::Options::new(file, data, bin_dir)?).await })
        }
        Command::Run(run) => block_on(controller(run)),
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

async fn controller(run: RunArguments) -> Result<()> {
    let metrics = Arc::new(Metrics::default());
    let listener = health::listen(run.http).await?;
    let server = tokio::spawn(health::serve(listener, Arc::clone(&metrics)));
    let client = Client::try_default().await.context("no API server is configured")?;
    let version = client.apiserver_version().await.context("the API server does not answer")?;
    tracing::info!("API server {}", version.git_version);
    metrics.set_ready();
    let mut lease = match &run.lease {
        Some(name) => Some(lease::acquire(&client, name).await?),
        None => None,
    };
    metrics.lead(true);
    let admins = controller::Admins { plain: BrokerAdmin::of_environment()?, tls: BrokerAdmin::with_tls()? };
    let options = controller::Options {
        namespace: run.namespace,
        defaults: run.images.defaults(),
        dial: if run.dial_pod_ip { Dial::PodIp } else { Dial::Name },
    };
    let lost = async {
        match &mut lease {
            Some(lease) => lease.keep().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = controller::run(client, admins, options, metrics) => {}
        fault = lost => return Err(fault),
        ended = server => return ended?,
    }
    match lease {
        Some(lease) => lease.release().await,
        None => Ok(()),
    }
}
