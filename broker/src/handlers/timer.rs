//! What slaves of 5.x ask about timer messages (5.x's `AdminBrokerProcessor.getTimerCheckPoint`,
//! `getTimerMetrics`).

use std::collections::BTreeMap;

use rocketmq_remoting::bodies::DataVersion;
use rocketmq_remoting::{Command, ResponseCode};
use serde::Serialize;

use super::json;
use crate::broker::Broker;
use crate::refusal::Refusal;

/// Waiting messages by topic (`TimerMetricsSerializeWrapper`). They are not counted by topic here.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct TimerMetrics {
    data_version: DataVersion,
    timing_count: BTreeMap<String, i64>,
}

/// `GET_TIMER_CHECK_POINT`: how far this master is.
pub(crate) fn check_point(broker: &Broker) -> Result<Command, Refusal> {
    let body = broker.timer.check_point();
    let missing = || Refusal::new(ResponseCode::SYSTEM_ERROR, "The checkpoint is null");
    Ok(Command::ok().with_body(body.ok_or_else(missing)?))
}

/// `GET_TIMER_METRICS`, which a Java slave copies for its own statistics: no counts, so that it keeps
/// none.
pub(crate) fn metrics() -> Command {
    json(&TimerMetrics::default())
}
