//! `mqnamesrv`: reads arguments and configuration, then runs the name server until a signal.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use rocketmq_namesrv::NamesrvConfig;
use rocketmq_namesrv::config::Ignored;
use rocketmq_remoting::server::allow_all_connections;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The name server: brokers register with it, clients ask it where topics live.
#[derive(Debug, Parser)]
#[command(name = "mqnamesrv", version, rename_all = "camelCase")]
struct Arguments {
    /// Name server configuration, a properties file
    #[arg(short = 'c', long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Print all configuration items and exit
    #[arg(short = 'p', long)]
    print_config_item: bool,
    /// Accepted for the sake of scripts; name servers do not know each other
    #[arg(short = 'n', long, value_name = "ADDRESSES")]
    namesrv_addr: Option<String>,
    /// Set one configuration item, over what the file says; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Java's exit code -1: bad arguments or configuration.
const EXIT_USAGE: u8 = 255;
/// Java's exit code -3: the name server cannot start.
const EXIT_START: u8 = 253;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(message) => {
            // Help and version are messages too; a closed stdout is nobody's fault.
            let _ = message.print();
            return if message.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    let config = match configure(&arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mqnamesrv: {error:#}");
            return EXIT_USAGE.into();
        }
    };
    if arguments.print_config_item {
        let printed = io::stdout().write_all(config.to_text().as_bytes());
        return if printed.is_ok() { ExitCode::SUCCESS } else { EXIT_USAGE.into() };
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqnamesrv: {error:#}");
            EXIT_START.into()
        }
    }
}

/// Defaults, then the file, then the command line.
fn configure(arguments: &Arguments) -> anyhow::Result<NamesrvConfig> {
    let mut config = NamesrvConfig::default();
    let mut ignored = Ignored::default();
    if let Some(path) = &arguments.config_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        // Changes at run time go to the file that the settings came from.
        config.config_store_path = path.display().to_string();
        ignored = config.apply(&text).with_context(|| format!("in {}", path.display()))?;
    }
    for assignment in &arguments.set {
        config.apply_assignment(assignment, &mut ignored)?;
    }
    for key in &ignored.unknown {
        tracing::warn!("configuration key {key} is unknown and ignored");
    }
    for key in &ignored.without_effect {
        tracing::info!("configuration key {key} has no effect in this name server");
    }
    Ok(config)
}

#[tokio::main]
async fn serve(config: NamesrvConfig) -> anyhow::Result<()> {
    allow_all_connections();
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signalled = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
            _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
        }
        signalled.cancel();
    });
    rocketmq_namesrv::run(config, shutdown).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_javas() {
        let arguments = Arguments::try_parse_from([
            "mqnamesrv",
            "--configFile",
            "f",
            "--printConfigItem",
            "--namesrvAddr",
            "a:1",
            "--set",
            "a=b",
            "--set",
            "c=d",
        ]);
        let arguments = arguments.unwrap();
        assert_eq!((arguments.config_file, arguments.print_config_item), (Some("f".into()), true));
        assert_eq!(arguments.set, ["a=b", "c=d"]);
    }

    #[test]
    fn the_command_line_goes_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "listenPort=1\nserverSocketBacklog=7\n").unwrap();
        let path = file.path().to_str().unwrap();
        let parse = |set: &str| Arguments::try_parse_from(["mqnamesrv", "-c", path, "--set", set]).unwrap();
        let config = configure(&parse("listenPort=2")).unwrap();
        assert_eq!((config.listen_port, config.server_socket_backlog), (2, 7));
        assert_eq!(config.config_store_path, path);
        assert!(configure(&parse("listenPort")).is_err());
    }
}
