//! A request that is not done: the response code and the reason, as clients and tools know them.

use std::fmt;

use rocketmq_remoting::fastjson::FastjsonError;
use rocketmq_remoting::{Command, HeaderError, ResponseCode};
use rocketmq_store::StoreError;

/// Why a handler does not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the response carries.
    pub(crate) code: ResponseCode,
    /// For people and for the tools that look at it.
    pub(crate) remark: String,
}

/// Java appends it to some remarks, for the user who reads them.
pub(crate) const FAQ: &str = "\nSee http://rocketmq.apache.org/docs/faq/ for further details.";

impl Refusal {
    pub(crate) fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into() }
    }

    /// The topic is not there (17).
    pub(crate) fn topic_not_exist(topic: &str) -> Self {
        Self::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!{FAQ}"))
    }

    /// The consumer group is not there and may not be made (26).
    pub(crate) fn group_not_exist(group: &str) -> Self {
        Self::new(
            ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
            format!("subscription group [{group}] does not exist, {FAQ}"),
        )
    }

    /// Subscriptions other than TAG are switched off.
    pub(crate) fn no_property_filter(expression_type: &str) -> Self {
        let remark = format!("The broker does not support consumer to filter message by {expression_type}");
        Self::new(ResponseCode::SYSTEM_ERROR, remark)
    }

    /// The consumer group whose message is to be consumed again is not there and may not be made (26).
    pub(crate) fn retry_group_not_exist(group: &str) -> Self {
        Self::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, format!("subscription group not exist, {group} {FAQ}"))
    }

    /// The response that says so.
    pub(crate) fn into_response(self) -> Command {
        Command::refusal(self.code, self.remark)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.remark)
    }
}

impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Self::new(error.response_code(), error.to_string())
    }
}

impl From<FastjsonError> for Refusal {
    fn from(error: FastjsonError) -> Self {
        Self::new(ResponseCode::SYSTEM_ERROR, format!("the request's body does not parse: {error}"))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::TopicLength { .. }
            | StoreError::PropertiesTooLong { .. }
            | StoreError::MessageTooLarge { .. }
            | StoreError::Batch { .. } => ResponseCode::MESSAGE_ILLEGAL,
            StoreError::QueueId { .. } => ResponseCode::SYSTEM_ERROR,
            StoreError::FlushTimeout { .. } => ResponseCode::FLUSH_DISK_TIMEOUT,
            _ => ResponseCode::SERVICE_NOT_AVAILABLE,
        };
        let remark = match code {
            ResponseCode::SERVICE_NOT_AVAILABLE => format!("service not available now. {error}"),
            _ => error.to_string(),
        };
        Self::new(code, remark)
    }
}
