//! The RocketMQ broker: topics and queues behind RocketMQ's wire protocol, in RocketMQ's files.
//!
//! [`run`] is the whole of it. Inside, [`broker`] owns the state and the life cycle, `router` joins
//! request codes with handlers (`send`, `reply`, `pull`, `handlers`), `filter` says which messages a
//! consumer gets, `waiting` says what is not due yet, `delay` and `timer` deliver it when it is,
//! `transaction` keeps what is not decided, the tables (`topics`, `subscription_groups`,
//! `consumer_offsets`) are the files under `config/`, and `registration` keeps the name servers
//! informed. Messages themselves are the business of `rocketmq_store`.

mod broker;
mod client_channel;
mod clock;
pub mod config;
mod config_keys;
mod config_value;
mod consumer_offsets;
mod consumers;
mod delay;
mod filter;
mod group_attributes;
mod ha;
mod handlers;
mod held_pulls;
mod http;
#[cfg(test)]
mod instructions;
mod limits;
mod metrics;
mod offset_resets;
mod producers;
mod pull;
mod queue_locks;
mod refusal;
mod registration;
mod reply;
mod request_support;
mod router;
mod runtime_info;
mod send;
mod send_back;
mod slave_sync;
mod stats;
mod subscription_groups;
mod timer;
mod topic_attributes;
mod topics;
mod transaction;
mod versioned_table;
mod waiting;

pub use broker::run;
pub use request_support::SUPPORT;
