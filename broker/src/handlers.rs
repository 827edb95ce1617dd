//! Handlers of everything that is not sending and pulling, one file a subject.
//!
//! A handler reads a request's header or body, asks or changes the broker's tables, and says what
//! the answer is. Which code goes to which of them stands in the router.

pub(crate) mod clients;
pub(crate) mod config;
pub(crate) mod consume_stats;
pub(crate) mod groups;
pub(crate) mod ha_status;
pub(crate) mod heartbeat;
pub(crate) mod locks;
pub(crate) mod offsets;
pub(crate) mod query;
pub(crate) mod queues;
pub(crate) mod recall;
pub(crate) mod relay;
pub(crate) mod reset_offset;
pub(crate) mod runtime;
pub(crate) mod timer;
pub(crate) mod topics;
pub(crate) mod transaction;

use rocketmq_remoting::{Command, HeaderError, ResponseCode, fastjson};
use serde::Serialize;

use crate::broker::Broker;
use crate::config::BrokerRole;
use crate::refusal::Refusal;

/// A successful answer with that body, in fastjson's dialect.
fn json(body: &impl Serialize) -> Command {
    Command::ok().with_body(fastjson::to_string(body))
}

/// What could not be written or read for a reason that lies here.
#[allow(clippy::needless_pass_by_value)] // goes straight into `map_err`
pub(crate) fn failed(error: anyhow::Error) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, format!("{error:#}"))
}

/// A field of a request that has no typed header.
fn field<'a>(request: &'a Command, name: &'static str) -> Result<&'a str, Refusal> {
    Ok(request.ext_fields.get(name).ok_or(HeaderError::Missing { field: name })?)
}

/// Topics and groups are the master's; a slave copies them.
fn require_master(broker: &Broker) -> Result<(), Refusal> {
    if broker.config().broker_role != BrokerRole::Slave {
        return Ok(());
    }
    Err(Refusal::new(
        ResponseCode::SYSTEM_ERROR,
        "Can't modify topic or subscription group from slave broker, please execute it from master broker.",
    ))
}
