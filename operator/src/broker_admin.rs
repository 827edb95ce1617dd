//! The operator's client of brokers: reads and creates topics and consumer groups.
//!
//! Speaks RocketMQ's own admin requests; knows addresses, nothing of pods or plans.

use std::time::Duration;

use rocketmq_remoting::bodies::{SubscriptionGroup, SubscriptionGroupTable, TopicConfig, TopicConfigTable};
use rocketmq_remoting::header::broker::CreateTopicRequest;
use rocketmq_remoting::tls::{ClientTls, TlsEnvironment, TlsError, TlsSettings};
use rocketmq_remoting::{Client, ClientConfig, Command, RemotingError, RequestCode, ResponseCode};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::topics::{Missing, Tables};

/// How long a broker may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

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
        source: serde_json::Error,
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
        let body = serde_json::to_vec(group).map_err(|source| AdminError::Body { request: name, source })?;
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
        serde_json::from_slice(&answer.body.into_bytes()).map_err(|source| AdminError::Body { request, source })
    }

    async fn invoke(&self, address: &str, command: Command, request: &'static str) -> Result<Command, AdminError> {
        let answer = self.client.invoke(address, command, TIMEOUT).await?;
        if answer.response_code() == ResponseCode::SUCCESS {
            return Ok(answer);
        }
        Err(AdminError::Refused { request, code: answer.code, remark: answer.remark().to_owned() })
    }
}
