//! `mqadmin`: looks into a cluster and changes it, by RocketMQ's own subcommand names, flags and
//! column layouts (those of 4.9.7); and looks into a store's files without a broker.
//!
//! * [`admin`]: asks name servers and brokers;
//! * [`cluster`], [`topic`], [`group`], [`broker`], [`name_server`]: the subcommands, one file a family;
//! * [`store`]: the subcommands that read a store's files; they ask nobody;
//! * [`layout`]: what several of them print alike; [`output`]: how it gets out.
//!
//! Results go to stdout, what went wrong to stderr. The exit code is 0, 1 where something failed,
//! and 2 where the command line is wrong.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rocketmq_remoting::tls::TlsEnvironment;

#[macro_use]
mod output;

mod admin;
mod broker;
mod cluster;
mod group;
mod layout;
mod name_server;
mod store;
mod topic;

use crate::admin::Admin;

const TLS_HELP: &str = "\
TLS: set ROCKETMQ_TLS_ENABLE=true, or tls.enable=true in the properties file that ROCKETMQ_TLS_CONFIG_FILE names
(default /etc/rocketmq/tls.properties), which also takes tls.client.certPath, .keyPath, .keyPassword, .authServer
and .trustCertPath.";

/// Looks into a RocketMQ cluster and changes it
#[derive(Debug, Parser)]
#[command(name = "mqadmin", version, infer_subcommands = false, after_help = TLS_HELP)]
struct Arguments {
    /// Name servers, `host:port`, separated by `;`
    #[arg(short = 'n', long = "namesrvAddr", env = "NAMESRV_ADDR", global = true, value_name = "ADDRESSES")]
    namesrv_addr: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
enum Command {
    #[command(flatten)]
    Cluster(cluster::Command),
    #[command(flatten)]
    Topic(topic::Command),
    #[command(flatten)]
    Group(group::Command),
    #[command(flatten)]
    Broker(broker::Command),
    #[command(flatten)]
    NameServer(name_server::Command),
    #[command(flatten)]
    Store(store::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqadmin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let admin = || Admin::new(arguments.namesrv_addr.as_deref(), &TlsEnvironment::of_process());
    match arguments.command {
        Command::Cluster(command) => cluster::run(&admin()?, command).await,
        Command::Topic(command) => topic::run(&admin()?, command).await,
        Command::Group(command) => group::run(&admin()?, command).await,
        Command::Broker(command) => broker::run(&admin()?, command).await,
        Command::NameServer(command) => name_server::run(&admin()?, command).await,
        Command::Store(command) => store::run(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_command_line_is_rocketmqs() {
        for line in [
            "clusterList -m -n a:1;b:2",
            "clusterList -n a:1 -m -i 5",
            "topicList -c",
            "topicRoute -t T",
            "topicStatus -t T",
            "updateTopic -c C -t T -r 4 -w 4 -p 6",
            "updateTopic -b h:1 -t T -o true",
            "deleteTopic -c C -t T",
            "updateSubGroup -c C -g G -s true -m false -d true -q 1 -r 16 -i 0 -w 1 -a true",
            "deleteSubGroup -b h:1 -g G -r true",
            "brokerStatus -b h:1",
            "consumerProgress",
            "consumerProgress -g G",
            "updateBrokerConfig -b h:1 -k k -v v",
            "getBrokerConfig -c C",
            "wipeWritePerm -b broker-a",
            "addWritePerm -b broker-a",
            "updateKvConfig -s n -k k -v v",
            "deleteKvConfig -s n -k k",
            "getNamesrvConfig",
            "updateNamesrvConfig -k k -v v",
            "dumpCommitLog -p /s -o 5 -c 3 -t T -q 0 -b",
            "dumpConsumeQueue -p /s -t T -q 0 -o 5 -c 3",
            "dumpIndex -p /s -f 20260101000000000",
            "dumpIndex -p /s -k T#key",
            "verifyStore -p /s --maxHashSlotNum 10 --maxIndexNum 20",
            "rebuildStore -p /s --write --discard",
        ] {
            let parsed = Arguments::try_parse_from(std::iter::once("mqadmin").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for wrong in
            ["updateTopic -t T", "updateTopic -b h:1 -c C -t T", "topicRoute", "noSuchCommand", "rebuildStore -p /s"]
        {
            let parsed = Arguments::try_parse_from(std::iter::once("mqadmin").chain(wrong.split(' ')));
            assert_eq!(parsed.unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
