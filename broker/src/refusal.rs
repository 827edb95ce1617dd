//! A request that is not done: the response code and the reason, as clients and tools know them.

use std::fmt;

use rocketmq_remoting::fastjson::FastjsonError;
use rocketmq_remoting::{Command, HeaderError, ResponseCode};
use rocketmq_store::StoreError;

use crate::limits::{Limit, Limits};

/// Why a handler does not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the response carries.
    pub(crate) code: ResponseCode,
    /// For people and for the tools that look at it.
    pub(crate) remark: String,
    /// The bound that it met.
    pub(crate) limit: Option<Limit>,
}

/// Java appends it to some remarks, for the user who reads them.
pub(crate) const FAQ: &str = "\nSee http://rocketmq.apache.org/docs/faq/ for further details.";

impl Refusal {
    pub(crate) fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into(), limit: None }
    }

    /// The same, for it met a bound.
    pub(crate) fn at(self, limit: Limit) -> Self {
        Self { limit: Some(limit), ..self }
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

    /// The response that says so; a bound that was met is counted.
    pub(crate) fn into_response(self, limits: &Limits) -> Command {
        if let Some(limit) = self.limit {
            limits.met(limit);
        }
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
        let limit = match &error {
            StoreError::MessageTooLarge { .. } => Some(Limit::MessageSize),
            StoreError::DiskFull { .. } => Some(Limit::DiskSpace),
            StoreError::Poisoned { .. } | StoreError::Failing { .. } | StoreError::Io { .. } => Some(Limit::Store),
            StoreError::FlushTimeout { .. } => Some(Limit::FlushTime),
            _ => None,
        };
        Self { limit, ..Self::new(code, remark) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;

    #[test]
    fn what_the_store_refuses_names_its_limit_and_is_counted() {
        let limits = Limits::new(&BrokerConfig::built_in(), std::sync::Arc::default());
        let busy = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let rows = [
            (StoreError::DiskFull { percent: 91, limit: 90 }, Limit::DiskSpace, 14, "diskSpaceWarningLevelRatio=90"),
            (StoreError::Poisoned { reason: "msync".into() }, Limit::Store, 14, "the store is poisoned: msync"),
            (StoreError::Failing { reason: "no space".into() }, Limit::Store, 14, "could not be stored: no space"),
            (StoreError::Io { what: "create", path: "/f".into(), source: busy }, Limit::Store, 14, "create /f: "),
            (StoreError::MessageTooLarge { size: 5, max: 4 }, Limit::MessageSize, 13, "at most 4 are accepted"),
            (StoreError::FlushTimeout { end: 7 }, Limit::FlushTime, 10, "flush up to offset 7 timed out"),
        ];
        for (error, limit, code, says) in rows {
            let before = count(&limits, limit);
            let response = Refusal::from(error).into_response(&limits);
            assert!(response.code == code && response.remark().contains(says), "{code} {says}: {response:?}");
            assert_eq!(count(&limits, limit), before + 1, "{limit:?}");
        }
        Refusal::from(StoreError::QueueId { queue_id: -1 }).into_response(&limits);
        assert_eq!(limits.counts().map(|(_, count)| count).sum::<u64>(), 6, "a mistake meets no limit");
    }

    fn count(limits: &Limits, wanted: Limit) -> u64 {
        limits.counts().find(|(limit, _)| *limit == wanted).map_or(0, |(_, count)| count)
    }
}
