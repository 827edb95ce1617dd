//! `mqbroker`: reads arguments and environment, then runs the broker until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rocketmq_broker::config::{BrokerConfig, Environment};
use rocketmq_remoting::server::allow_all_connections;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Java's exit code for bad arguments and for a broker that failed.
const EXIT_FAILED: i32 = -1;

/// The RocketMQ broker.
#[derive(Debug, Parser)]
#[command(name = "mqbroker", version)]
struct Arguments {
    /// Name servers, eg: '192.168.0.1:9876;192.168.0.2:9876'
    #[arg(short = 'n', long = "namesrvAddr", value_name = "ADDRESSES")]
    namesrv_addr: Option<String>,
    /// Broker config properties file
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Print all config items
    #[arg(short = 'p', long = "printConfigItem")]
    print_config_item: bool,
    /// Print important config items
    #[arg(short = 'm', long = "printImportantConfig")]
    print_important_config: bool,
    /// Set a key of broker.conf, over what the file says; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

impl Arguments {
    /// What the command line sets, the special options last.
    fn overrides(&self) -> Vec<(String, String)> {
        let name_servers = self.namesrv_addr.iter().map(|value| ("namesrvAddr".to_owned(), value.clone()));
        self.set.iter().cloned().chain(name_servers).collect()
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked = !error.use_stderr();
            // Nothing is left to do when even this cannot be printed.
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { exit(EXIT_FAILED) };
        }
    };
    let loaded =
        BrokerConfig::load(arguments.config_file.as_deref(), &arguments.overrides(), &Environment::of_process());
    let (config, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return exit(error.exit_code());
        }
    };
    if arguments.print_config_item || arguments.print_important_config {
        let entries = if arguments.print_config_item { config.entries() } else { config.important_entries() };
        for (key, value) in entries {
            println!("{key}={value}");
        }
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        // Logs are read by programs as often as by people.
        .with_ansi(false)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .init();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("{error:#}");
            exit(EXIT_FAILED)
        }
    }
}

/// Threads that wait for the disk at most: more of them make no disk faster.
const DISK_THREADS: usize = 64;

fn serve(config: BrokerConfig) -> anyhow::Result<()> {
    allow_all_connections();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(DISK_THREADS).build()?;
    runtime.block_on(run_until_told(config))
}

async fn run_until_told(config: BrokerConfig) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM received, shutting down"),
            _ = interrupt.recv() => tracing::info!("SIGINT received, shutting down"),
        }
        told.cancel();
    });
    rocketmq_broker::run(config, shutdown).await?;
    Ok(())
}

/// An exit status as shells see it: the low eight bits.
fn exit(code: i32) -> ExitCode {
    ExitCode::from(code as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javas_options_are_understood() {
        let line = ["mqbroker", "-n", "a:1;b:2", "-c", "x.conf", "--set", "brokerName=x=y", "--set", "namesrvAddr=z:1"];
        let arguments = Arguments::try_parse_from(line).unwrap();
        assert_eq!(arguments.config_file.as_deref(), Some(std::path::Path::new("x.conf")));
        let overrides = arguments.overrides();
        assert_eq!(overrides[0], ("brokerName".to_owned(), "x=y".to_owned()));
        assert_eq!(overrides.last().unwrap(), &("namesrvAddr".to_owned(), "a:1;b:2".to_owned()), "-n wins");
        assert!(Arguments::try_parse_from(["mqbroker", "--set", "novalue"]).is_err());
        assert!(Arguments::try_parse_from(["mqbroker", "-p", "--printImportantConfig"]).is_ok());
    }
}
