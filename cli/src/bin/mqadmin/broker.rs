//! A broker's runtime figures and its configuration.

use std::fmt::Write as _;

use anyhow::bail;
use clap::Subcommand;
use rocketmq_remoting::bodies::{BrokerData, KvTable};
use rocketmq_remoting::{Command as Request, RequestCode, properties_file};

use crate::admin::{Admin, MASTER_ID, Target, body, text_body};

#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
pub(crate) enum Command {
    /// Print what brokers tell of themselves
    BrokerStatus {
        #[command(flatten)]
        target: Target,
    },
    /// Change a key of brokers' configuration
    UpdateBrokerConfig {
        #[command(flatten)]
        target: Target,
        /// The key
        #[arg(short = 'k', long)]
        key: String,
        /// The value
        #[arg(short = 'v', long)]
        value: String,
    },
    /// Print the configuration of brokers
    GetBrokerConfig {
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) async fn run(admin: &Admin, command: Command) -> anyhow::Result<()> {
    match command {
        Command::BrokerStatus { target } => status(admin, &target).await,
        Command::UpdateBrokerConfig { target, key, value } => update_config(admin, &target, &key, &value).await,
        Command::GetBrokerConfig { target } => get_config(admin, &target).await,
    }
}

async fn status(admin: &Admin, target: &Target) -> anyhow::Result<()> {
    let Some(cluster) = &target.cluster_name else {
        return print_status(admin, target.broker_addr.as_deref().unwrap_or_default(), false).await;
    };
    let mut failed = 0;
    for group in admin.groups_of(cluster).await? {
        for address in group.broker_addrs.values() {
            if let Err(error) = print_status(admin, address, true).await {
                eprintln!("mqadmin: {error:#}");
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} broker(s) of cluster {cluster} did not answer");
    }
    Ok(())
}

async fn print_status(admin: &Admin, address: &str, with_address: bool) -> anyhow::Result<()> {
    let answer = admin.ask(address, Request::request(RequestCode::GET_BROKER_RUNTIME_INFO)).await?;
    for (key, value) in body::<KvTable>(&answer)?.table {
        if with_address {
            outln!("{address:<24} {key:<32}: {value}");
        } else {
            outln!("{key:<32}: {value}");
        }
    }
    Ok(())
}

async fn update_config(admin: &Admin, target: &Target, key: &str, value: &str) -> anyhow::Result<()> {
    let text = properties_file::to_text([(key, value)]);
    let request = Request::request(RequestCode::UPDATE_BROKER_CONFIG).with_body(text);
    let mut failed = 0;
    for address in admin.masters(target).await? {
        match admin.ask(&address, request.clone()).await {
            Ok(_) => outln!("update broker config success, {address}"),
            Err(error) => {
                eprintln!("mqadmin: {error:#}");
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} broker(s) were not changed");
    }
    Ok(())
}

async fn get_config(admin: &Admin, target: &Target) -> anyhow::Result<()> {
    let Some(cluster) = &target.cluster_name else {
        let address = target.broker_addr.as_deref().unwrap_or_default();
        return print_config(admin, address, &format!("============{address}============")).await;
    };
    for BrokerData { broker_addrs, .. } in admin.groups_of(cluster).await? {
        let master = broker_addrs.get(&MASTER_ID);
        for (id, address) in &broker_addrs {
            let heading = match (*id, master) {
                (MASTER_ID, _) => format!("============Master: {address}============"),
                (_, Some(master)) => format!("============My Master: {master}=====Slave: {address}============"),
                (_, None) => format!("============NO_MASTER=====Slave: {address}============"),
            };
            print_config(admin, address, &heading).await?;
        }
    }
    Ok(())
}

async fn print_config(admin: &Admin, address: &str, heading: &str) -> anyhow::Result<()> {
    let answer = admin.ask(address, Request::request(RequestCode::GET_BROKER_CONFIG)).await?;
    outln!("{heading}\n{}", config_text(&text_body(&answer)?));
    Ok(())
}

/// A configuration as lines of `key = value`, sorted by key.
pub(crate) fn config_text(properties: &str) -> String {
    let mut entries = properties_file::parse(properties);
    entries.sort_unstable();
    let mut lines = String::new();
    for (key, value) in entries {
        let _ = writeln!(lines, "{key:<50}=  {value}");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_printed_as_javas_tool_does() {
        assert_eq!(
            config_text("b=two words\nautoCreateTopicEnable=true\n"),
            "autoCreateTopicEnable                             =  true\nb                                                 =  two words\n"
        );
    }
}
