//! The operator's client of brokers: topics and consumer groups, what a broker still holds, and which messages it takes.
//!
//! Speaks RocketMQ's own admin requests; knows addresses, nothing of pods or plans.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use rocketmq_remoting::bodies::{
    DelayOffsetTable, KvTable, OffsetTable, SubscriptionGroup, SubscriptionGroupTable, TopicConfig, TopicConfigTable,
    TopicStats,
};
use rocketmq_remoting::header::broker::CreateTopicRequest;
use rocketmq_remoting::tls::{ClientTls, TlsEnvironment, TlsError, TlsSettings};
use rocketmq_remoting::{
    Client, ClientConfig, Command, RemotingError, RequestCode, ResponseCode, fastjson, properties_file,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::backlog::{self, Backlog, Holdings, QueueRange, SCHEDULE_TOPIC};
use crate::plan::Access;
use crate::topics::{Missing, Tables};

/// How long a broker may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many topics of one broker are asked for at a time.
const AT_ONCE: usize = 16;
/// `startAcceptSendRequestTimeStamp` of a sealed broker: the end of the year 9999, in milliseconds since 1970.
const NEVER: i64 = 253_402_300_799_000;

/// Why a broker could not be asked.
#[derive(Debug, Error)]
pub enum AdminError {
    /// It was not reached, or did not answer.
    #[error(transparent)]
    Remoting(#[from] RemotingError),
    /// It refused.
    #[error("{request} is refused with code {code}: {remark}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The response code.
        code: i32,
        /// The broker's words.
        remark: String,
    },
    /// It answered what is not the table that was asked for.
    #[error("{request} is answered with a body that cannot be read: {source}")]
    Body {
        /// What was asked.
        request: &'static str,
        /// What is wrong with it.
        source: fastjson::FastjsonError,
    },
}

/// Talks to brokers by `host:port`, over one connection each.
#[derive(Debug, Default)]
pub struct BrokerAdmin {
    client: Client,
}

impl BrokerAdmin {
    /// One that uses TLS where the environment asks for it: `ROCKETMQ_TLS_ENABLE`, or `tls.enable` in the
    /// file that `ROCKETMQ_TLS_CONFIG_FILE` names.
    ///
    /// # Errors
    /// What the environment names cannot be used.
    pub fn of_environment() -> Result<Self, TlsError> {
        let (settings, warnings) = TlsSettings::default().complete(&TlsEnvironment::of_process())?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let tls = ClientTls::open(&settings)?;
        Ok(Self { client: Client::new(ClientConfig { tls, ..ClientConfig::default() }) })
    }

    /// The same, but for brokers that serve TLS: what the environment does not ask for is done all the same.
    ///
    /// The operator cannot read the Secret of a cluster, so it believes any certificate unless its own settings name an
    /// authority (`tls.client.authServer`, `tls.client.trustCertPath`).
    ///
    /// # Errors
    /// What the environment names cannot be used.
    pub fn with_tls() -> Result<Self, TlsError> {
        let (mut settings, _) = TlsSettings::default().complete(&TlsEnvironment::of_process())?;
        settings.set("tls.enable", "true")?;
        let tls = ClientTls::open(&settings)?;
        Ok(Self { client: Client::new(ClientConfig { tls, ..ClientConfig::default() }) })
    }

    /// Which messages a broker takes.
    pub async fn access(&self, address: &str) -> Result<Access, AdminError> {
        let answer =
            self.invoke(address, Command::request(RequestCode::GET_BROKER_CONFIG), "GET_BROKER_CONFIG").await?;
        Ok(access_of(&String::from_utf8_lossy(&answer.body.into_bytes())))
    }

    /// Tells a broker which messages it takes, until it is told otherwise or restarts.
    pub async fn set_access(&self, address: &str, access: Access) -> Result<(), AdminError> {
        let (permission, from) = match access {
            Access::Open => (6, 0),
            Access::ReadOnly => (4, 0),
            Access::Sealed => (4, NEVER),
        };
        let body = format!("brokerPermission={permission}\nstartAcceptSendRequestTimeStamp={from}\n");
        let request = Command::request(RequestCode::UPDATE_BROKER_CONFIG).with_body(body);
        self.invoke(address, request, "UPDATE_BROKER_CONFIG").await?;
        Ok(())
    }

    /// What a broker of `cluster` still holds for somebody to consume.
    pub async fn backlog(&self, cluster: &str, address: &str) -> Result<Backlog, AdminError> {
        // How far everything has come is read before how much there is: a message that moves on in between, from its delay
        // to its topic or from its topic to its redelivery, is counted twice and never missed.
        let info: KvTable = self.ask(address, RequestCode::GET_BROKER_RUNTIME_INFO, "GET_BROKER_RUNTIME_INFO").await?;
        let delivered: DelayOffsetTable =
            self.ask(address, RequestCode::GET_ALL_DELAY_OFFSET, "GET_ALL_DELAY_OFFSET").await?;
        let consumed: OffsetTable =
            self.ask(address, RequestCode::GET_ALL_CONSUMER_OFFSET, "GET_ALL_CONSUMER_OFFSET").await?;
        let topics: TopicConfigTable =
            self.ask(address, RequestCode::GET_ALL_TOPIC_CONFIG, "GET_ALL_TOPIC_CONFIG").await?;
        let mut names: Vec<String> = topics.topic_config_table.into_keys().collect();
        // Not every broker has it in its table.
        names.push(SCHEDULE_TOPIC.to_owned());
        names.sort();
        names.dedup();
        let stats = names.into_iter().filter(|name| backlog::counts(cluster, name)).map(|name| async move {
            let stats = self.queues(address, &name).await?;
            Ok::<_, AdminError>((name, stats))
        });
        let queues = stream::iter(stats).buffer_unordered(AT_ONCE).try_collect().await?;
        let figure = |key: &str| info.table.get(key).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let holdings = Holdings {
            queues,
            consumed: consumed.offset_table,
            delivered: delivered.offset_table,
            timed: figure("timerCongestNum").max(0).saturating_add(figure("timerOffsetBehind").max(0)),
        };
        Ok(Backlog::of(cluster, &holdings))
    }

    async fn queues(&self, address: &str, topic: &str) -> Result<BTreeMap<i32, QueueRange>, AdminError> {
        let name = "GET_TOPIC_STATS_INFO";
        let mut request = Command::request(RequestCode::GET_TOPIC_STATS_INFO);
        request.ext_fields.push("topic", topic);
        let answer = match self.invoke(address, request, name).await {
            Err(AdminError::Refused { code, .. }) if code == ResponseCode::TOPIC_NOT_EXIST.0 => {
                return Ok(BTreeMap::new());
            }
            other => other?,
        };
        let stats: TopicStats = fastjson::from_slice(&answer.body.into_bytes())
            .map_err(|source| AdminError::Body { request: name, source })?;
        let range = |offset: &rocketmq_remoting::bodies::TopicOffset| QueueRange {
            min: offset.min_offset,
            max: offset.max_offset,
        };
        Ok(stats.offset_table.iter().map(|(queue, offset)| (queue.0.queue_id, range(offset))).collect())
    }

    /// All topics and consumer groups of a broker.
    pub async fn tables(&self, address: &str) -> Result<Tables, AdminError> {
        let topics: TopicConfigTable =
            self.ask(address, RequestCode::GET_ALL_TOPIC_CONFIG, "GET_ALL_TOPIC_CONFIG").await?;
        let groups: SubscriptionGroupTable = self
            .ask(address, RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "GET_ALL_SUBSCRIPTIONGROUP_CONFIG")
            .await?;
        Ok(Tables { topics: topics.topic_config_table, groups: groups.subscription_group_table })
    }

    /// Creates what is missing. Topics that exist are set to the same again, so it may be repeated.
    pub async fn create(&self, address: &str, missing: &Missing) -> Result<(), AdminError> {
        // Groups first: a consumer that finds a topic's route connects at once, and its group's settings should be there.
        for group in &missing.groups {
            self.create_group(address, group).await?;
        }
        for topic in &missing.topics {
            self.create_topic(address, topic).await?;
        }
        Ok(())
    }

    async fn create_topic(&self, address: &str, topic: &TopicConfig) -> Result<(), AdminError> {
        let header = CreateTopicRequest {
            topic: topic.topic_name.as_str().into(),
            default_topic: "TBW102".into(),
            read_queue_nums: topic.read_queue_nums,
            write_queue_nums: topic.write_queue_nums,
            perm: topic.perm,
            topic_filter_type: topic.topic_filter_type.as_str().into(),
            topic_sys_flag: Some(topic.topic_sys_flag),
            order: topic.order,
        };
        let request = Command::request(RequestCode::UPDATE_AND_CREATE_TOPIC).with_header(&header);
        self.invoke(address, request, "UPDATE_AND_CREATE_TOPIC").await?;
        Ok(())
    }

    async fn create_group(&self, address: &str, group: &SubscriptionGroup) -> Result<(), AdminError> {
        let name = "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP";
        let body = fastjson::to_string(group);
        let request = Command::request(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body);
        self.invoke(address, request, name).await?;
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        address: &str,
        code: RequestCode,
        request: &'static str,
    ) -> Result<T, AdminError> {
        let answer = self.invoke(address, Command::request(code), request).await?;
        fastjson::from_slice(&answer.body.into_bytes()).map_err(|source| AdminError::Body { request, source })
    }

    async fn invoke(&self, address: &str, command: Command, request: &'static str) -> Result<Command, AdminError> {
        let answer = self.client.invoke(address, command, TIMEOUT).await?;
        if answer.response_code() == ResponseCode::SUCCESS {
            return Ok(answer);
        }
        Err(AdminError::Refused { request, code: answer.code, remark: answer.remark().to_owned() })
    }
}

/// From the text of a broker's settings.
fn access_of(text: &str) -> Access {
    let settings = properties_file::parse(text);
    let figure = |name: &str| settings.iter().find(|(key, _)| key == name)?.1.trim().parse::<i64>().ok();
    let read_only = figure("brokerPermission").is_some_and(|permission| permission & 2 == 0);
    match figure("startAcceptSendRequestTimeStamp") {
        Some(NEVER) if read_only => Access::Sealed,
        _ if read_only => Access::ReadOnly,
        // Half of it is not what was told; it is told again.
        _ => Access::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_read_from_the_settings() {
        let of = |permission: i32, from: i64| {
            access_of(&format!("a=b\nbrokerPermission={permission}\nstartAcceptSendRequestTimeStamp={from}\n"))
        };
        assert_eq!(of(6, 0), Access::Open);
        assert_eq!(of(4, 0), Access::ReadOnly);
        assert_eq!(of(4, NEVER), Access::Sealed);
        assert_eq!(of(6, NEVER), Access::Open);
        assert_eq!(access_of(""), Access::Open);
    }
}
