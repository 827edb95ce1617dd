//! What lives in name servers: permissions of brokers, key-value settings, their own configuration.
//!
//! Name servers do not know each other, so that a change goes to each of them.

use anyhow::bail;
use clap::Subcommand;
use rocketmq_remoting::header::name_server::{
    AddWritePermResponse, KvConfigRequest, PutKvConfigRequest, WipeWritePermResponse, WritePermRequest,
};
use rocketmq_remoting::{Command as Request, Header as _, RequestCode, properties_file};

use crate::admin::{Admin, text_body};
use crate::broker::config_text;

#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
pub(crate) enum Command {
    /// Take the permission to write from a broker's topics, in all name servers
    WipeWritePerm {
        /// The broker's name
        #[arg(short = 'b', long = "brokerName", value_name = "NAME")]
        broker_name: String,
    },
    /// Give a broker's topics the permission to write, in all name servers
    AddWritePerm {
        /// The broker's name
        #[arg(short = 'b', long = "brokerName", value_name = "NAME")]
        broker_name: String,
    },
    /// Set a key of the name servers' key-value settings
    UpdateKvConfig {
        /// The namespace
        #[arg(short = 's', long)]
        namespace: String,
        /// The key
        #[arg(short = 'k', long)]
        key: String,
        /// The value
        #[arg(short = 'v', long)]
        value: String,
    },
    /// Remove a key of the name servers' key-value settings
    DeleteKvConfig {
        /// The namespace
        #[arg(short = 's', long)]
        namespace: String,
        /// The key
        #[arg(short = 'k', long)]
        key: String,
    },
    /// Print the configuration of the name servers
    GetNamesrvConfig,
    /// Change a key of the name servers' configuration
    UpdateNamesrvConfig {
        /// The key
        #[arg(short = 'k', long)]
        key: String,
        /// The value
        #[arg(short = 'v', long)]
        value: String,
    },
}

pub(crate) async fn run(admin: &Admin, command: Command) -> anyhow::Result<()> {
    match command {
        Command::WipeWritePerm { broker_name } => {
            write_perm(admin, &broker_name, "wipe", RequestCode::WIPE_WRITE_PERM_OF_BROKER, |answer| {
                Ok(WipeWritePermResponse::decode(&answer.ext_fields)?.wipe_topic_count)
            })
            .await
        }
        Command::AddWritePerm { broker_name } => {
            write_perm(admin, &broker_name, "add", RequestCode::ADD_WRITE_PERM_OF_BROKER, |answer| {
                Ok(AddWritePermResponse::decode(&answer.ext_fields)?.add_topic_count)
            })
            .await
        }
        Command::UpdateKvConfig { namespace, key, value } => {
            put_kv_config(admin, &namespace, &key, &value).await?;
            outln!("create or update kv config to namespace success.");
            Ok(())
        }
        Command::DeleteKvConfig { namespace, key } => {
            let header = KvConfigRequest { namespace: namespace.into(), key: key.into() };
            let request = Request::request(RequestCode::DELETE_KV_CONFIG).with_header(&header);
            for address in admin.name_servers()? {
                admin.ask(address, request.clone()).await?;
            }
            outln!("delete kv config from namespace success.");
            Ok(())
        }
        Command::GetNamesrvConfig => {
            for address in admin.name_servers()? {
                let answer = admin.ask(address, Request::request(RequestCode::GET_NAMESRV_CONFIG)).await?;
                outln!("============{address}============");
                out!("{}", config_text(&text_body(&answer)?));
            }
            Ok(())
        }
        Command::UpdateNamesrvConfig { key, value } => {
            let text = properties_file::to_text([(key.as_str(), value.as_str())]);
            let request = Request::request(RequestCode::UPDATE_NAMESRV_CONFIG).with_body(text);
            for address in admin.name_servers()? {
                admin.ask(address, request.clone()).await?;
            }
            outln!("update name server config success!{:?}\n{key} : {value}", admin.name_servers()?);
            Ok(())
        }
    }
}

/// Sets a key in all name servers.
pub(crate) async fn put_kv_config(admin: &Admin, namespace: &str, key: &str, value: &str) -> anyhow::Result<()> {
    let header = PutKvConfigRequest { namespace: namespace.into(), key: key.into(), value: value.into() };
    let request = Request::request(RequestCode::PUT_KV_CONFIG).with_header(&header);
    for address in admin.name_servers()? {
        admin.ask(address, request.clone()).await?;
    }
    Ok(())
}

/// Each name server is asked, whatever became of the one before.
async fn write_perm(
    admin: &Admin,
    broker_name: &str,
    verb: &str,
    code: RequestCode,
    count: impl Fn(&Request) -> anyhow::Result<i32>,
) -> anyhow::Result<()> {
    let request = Request::request(code).with_header(&WritePermRequest { broker_name: broker_name.into() });
    let mut failed = 0;
    for address in admin.name_servers()? {
        let counted = admin.ask(address, request.clone()).await.and_then(|answer| count(&answer));
        match counted {
            Ok(count) => outln!("{verb} write perm of broker[{broker_name}] in name server[{address}] OK, {count}"),
            Err(error) => {
                outln!("{verb} write perm of broker[{broker_name}] in name server[{address}] Failed");
                eprintln!("mqadmin: {error:#}");
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} name server(s) failed");
    }
    Ok(())
}
