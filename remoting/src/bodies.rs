//! The JSON bodies of requests and responses, one file a subject.
//!
//! Field names are Java's; unknown fields are ignored and absent ones take their default, so that
//! bodies of 4.x and 5.x are both read.

mod client;
mod data_version;
mod message_queue;
mod register;
mod route;
mod stats;
mod subscription_group;
mod tables;
mod topic_config;

pub use client::{
    CheckClientBody, Connection, ConsumeFromWhere, ConsumeType, ConsumerConnection, ConsumerData, ConsumerIdList,
    GroupSubscription, Heartbeat, LockBatchRequest, LockBatchResponse, MessageModel, ProducerConnection, ProducerData,
    SubscriptionData,
};
pub use data_version::DataVersion;
pub use message_queue::{MessageQueue, QueueKey};
pub use register::RegisterBroker;
pub use route::{BrokerData, BrokerMemberGroup, BrokerMemberGroupBody, ClusterInfo, QueueData, TopicRoute};
pub use stats::{ConsumeStats, OffsetWrapper, QueueEntry, QueueEntryList, ResetOffset, TopicOffset, TopicStats};
pub use subscription_group::{SubscriptionGroup, SubscriptionGroupList, SubscriptionGroupTable};
pub use tables::{CorrectionOffsets, DelayOffsetTable, GroupList, KvTable, OffsetTable, TopicList};
pub use topic_config::{PERM_INHERIT, PERM_READ, PERM_WRITE, TopicConfig, TopicConfigList, TopicConfigTable};
