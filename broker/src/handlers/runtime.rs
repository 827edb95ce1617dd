//! What the broker says of itself, and cleaning up on demand.

use std::sync::Arc;

use rocketmq_remoting::header::broker::BrokerStatsRequest;
use rocketmq_remoting::{Answer, Command, Header, ResponseCode};
use serde::Serialize;

use super::json;
use crate::broker::Broker;
use crate::refusal::Refusal;
use crate::runtime_info;
use crate::stats::{StatsData, Window};

/// Answer to `VIEW_BROKER_STATS_DATA`.
#[derive(Serialize)]
struct BrokerStatsData {
    #[serde(rename = "statsDay")]
    day: BrokerStatsItem,
    #[serde(rename = "statsHour")]
    hour: BrokerStatsItem,
    #[serde(rename = "statsMinute")]
    minute: BrokerStatsItem,
}

#[derive(Serialize)]
struct BrokerStatsItem {
    avgpt: f64,
    sum: u64,
    tps: f64,
}

impl From<Window> for BrokerStatsItem {
    fn from(window: Window) -> Self {
        Self { avgpt: window.per_time, sum: window.sum, tps: window.tps }
    }
}

impl From<StatsData> for BrokerStatsData {
    fn from(data: StatsData) -> Self {
        Self { day: data.day.into(), hour: data.hour.into(), minute: data.minute.into() }
    }
}

/// `GET_BROKER_RUNTIME_INFO`.
pub(crate) fn info(broker: &Broker) -> Command {
    json(&runtime_info::table(broker))
}

/// `VIEW_BROKER_STATS_DATA`.
pub(crate) fn stats(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = BrokerStatsRequest::decode(&request.ext_fields)?;
    let (name, key) = (&*header.stats_name, &*header.stats_key);
    // What is counted for the whole broker goes by the name of its cluster.
    let is_ours = !name.starts_with("BROKER_") || key == broker.config().broker_cluster_name;
    match broker.stats.data(name, key).filter(|_| is_ours) {
        Some(data) => Ok(json(&BrokerStatsData::from(data))),
        None => Err(Refusal::new(ResponseCode::SYSTEM_ERROR, format!("The stats <{name}> <{key}> not exist"))),
    }
}

/// `CLEAN_EXPIRED_CONSUMEQUEUE` and `DELETE_EXPIRED_COMMITLOG`: a round of retention now.
pub(crate) fn clean_expired(broker: &Arc<Broker>) -> Answer {
    later(broker, |broker| {
        let files = broker.store.clean_expired()?;
        tracing::info!(files, "expired files deleted on demand");
        Ok(())
    })
}

/// `CLEAN_UNUSED_TOPIC`: deletes queues whose topic is not there any more.
pub(crate) fn clean_unused(broker: &Arc<Broker>) -> Answer {
    later(broker, |broker| {
        for queues in broker.store.topics_with_queues() {
            if broker.topics.get(&queues.topic).is_none() && !broker.topics.is_system(&queues.topic) {
                tracing::info!(topic = queues.topic, "queues of an unused topic deleted");
                broker.store.delete_topic(&queues.topic)?;
            }
        }
        Ok(())
    })
}

/// Deleting files may take long, so it is done beside the connection's task.
fn later(broker: &Arc<Broker>, work: impl FnOnce(&Broker) -> Result<(), Refusal> + Send + 'static) -> Answer {
    let broker = Arc::clone(broker);
    Answer::later(async move {
        let working = Arc::clone(&broker);
        match tokio::task::spawn_blocking(move || work(&working)).await {
            Ok(Ok(())) => Command::ok(),
            Ok(Err(refusal)) => refusal.into_response(&broker.limits),
            Err(error) => Command::refusal(ResponseCode::SYSTEM_ERROR, error.to_string()),
        }
    })
}
