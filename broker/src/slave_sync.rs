//! What a slave copies from its master besides the log: topics, groups and offsets.
//!
//! Owns the round of requests to the master's remoting port. May not judge the tables: each
//! decides itself what it takes over. An answer that does not parse, or a table without entries,
//! replaces nothing (apache/rocketmq#9826).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rocketmq_remoting::bodies::{DelayOffsetTable, KvTable, OffsetTable, SubscriptionGroupTable, TopicConfigTable};
use rocketmq_remoting::{Command, RequestCode, ResponseCode, fastjson};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::ha::slave::HaSlave;

/// Time between rounds, as in Java.
const PERIOD: Duration = Duration::from_secs(10);
/// Time that each answer may take, as in Java.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Copies until `shutdown`: at once when the master is learnt, then every [`PERIOD`].
pub(crate) async fn run(broker: Arc<Broker>, slave: Arc<HaSlave>, shutdown: CancellationToken) {
    let mut master = broker.registration.master();
    let mut held = None;
    loop {
        let address = master.borrow_and_update().as_ref().map(|addresses| addresses.remoting.clone());
        let round = async {
            if let Some(address) = &address {
                sync_all(&broker, &slave, address, &mut held).await;
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                Ok(()) = master.changed() => {}
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = round => {}
        }
    }
}

/// One round; what fails is logged and tried again in the next one.
async fn sync_all(broker: &Arc<Broker>, slave: &HaSlave, address: &str, held: &mut Option<Delivery>) {
    let synced = async {
        // First, for all else can wait: how far the master's log is ahead decides readiness.
        let (begin, end) = master_log(broker, address).await?;
        slave.master_has(begin, end);
        sync_topics(broker, address).await.context("topics")?;
        sync_offsets(broker, address).await.context("consumer offsets")?;
        sync_groups(broker, address).await.context("subscription groups")?;
        sync_delivery(broker, address, held).await.context("delay offsets and timer")
    };
    if let Err(error) = synced.await {
        tracing::warn!("copying from master {address} failed: {error:#}");
    }
}

async fn fetch<T: DeserializeOwned>(broker: &Broker, address: &str, code: RequestCode) -> anyhow::Result<T> {
    let answer = broker.client.invoke(address, Command::request(code), ANSWER_TIMEOUT).await?;
    ensure!(answer.response_code() == ResponseCode::SUCCESS, "{}: {}", answer.response_code(), answer.remark());
    let body = answer.body.into_bytes();
    ensure!(!body.is_empty(), "the answer is empty");
    Ok(fastjson::from_slice(&body)?)
}

/// Where the master's log begins and ends.
async fn master_log(broker: &Broker, address: &str) -> anyhow::Result<(u64, u64)> {
    let info: KvTable = fetch(broker, address, RequestCode::GET_BROKER_RUNTIME_INFO).await.context("runtime info")?;
    let offset = |key: &str| {
        let text = info.table.get(key).with_context(|| format!("no {key} in the runtime info"))?;
        text.parse().with_context(|| format!("{key} is {text:?}"))
    };
    Ok((offset("commitLogMinOffset")?, offset("commitLogMaxOffset")?))
}

async fn sync_topics(broker: &Arc<Broker>, address: &str) -> anyhow::Result<()> {
    let table: TopicConfigTable = fetch(broker, address, RequestCode::GET_ALL_TOPIC_CONFIG).await?;
    ensure!(!table.topic_config_table.is_empty(), "the table is empty");
    if on_disk(broker, move |broker| broker.topics.replace(table)).await? {
        tracing::info!("Update slave topic config from master, {address}");
    }
    Ok(())
}

async fn sync_groups(broker: &Arc<Broker>, address: &str) -> anyhow::Result<()> {
    let table: SubscriptionGroupTable = fetch(broker, address, RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG).await?;
    ensure!(!table.subscription_group_table.is_empty(), "the table is empty");
    if on_disk(broker, move |broker| broker.groups.replace(table)).await? {
        tracing::info!("Update slave Subscription Group from master, {address}");
    }
    Ok(())
}

/// A master that nobody has consumed from has no offsets: an empty table is merged like any other.
async fn sync_offsets(broker: &Arc<Broker>, address: &str) -> anyhow::Result<()> {
    let table: OffsetTable = fetch(broker, address, RequestCode::GET_ALL_CONSUMER_OFFSET).await?;
    broker.offsets.merge(&table);
    on_disk(broker, |broker| broker.offsets.persist()).await?;
    tracing::debug!("Update slave consumer offset from master, {address}");
    Ok(())
}

/// How far a master's deliveries were, and where its log ended then.
struct Delivery {
    master: String,
    delays: DelayOffsetTable,
    timer: Option<Bytes>,
    log_end: u64,
}

/// Takes over how far the master has delivered, when the log is on disk here up to where it ended on
/// the master by then. Were the master to die before, what it delivered last would be neither
/// delivered here nor waiting any more.
async fn sync_delivery(broker: &Arc<Broker>, address: &str, held: &mut Option<Delivery>) -> anyhow::Result<()> {
    // Ends of two masters' logs are not to be compared.
    held.take_if(|held| held.master != address);
    for is_new in [false, true] {
        if is_new && held.is_none() {
            let delays = fetch(broker, address, RequestCode::GET_ALL_DELAY_OFFSET).await?;
            let timer = timer_check_point(broker, address).await?;
            // Last, so that everything delivered lies before it.
            let (_, log_end) = master_log(broker, address).await?;
            *held = Some(Delivery { master: address.to_owned(), delays, timer, log_end });
        }
        let Some(delivery) = held.take_if(|held| held.log_end <= broker.store.flushed_offset()) else { continue };
        let before = broker.delay_offsets.to_wire();
        broker.delay_offsets.merge(&delivery.delays);
        if broker.delay_offsets.to_wire() != before {
            on_disk(broker, |broker| broker.delay_offsets.persist()).await?;
            tracing::info!("Update slave delay offset from master, {address}");
        }
        if let Some(timer) = delivery.timer {
            on_disk(broker, move |broker| broker.timer.take_over(&timer)).await?;
        }
    }
    Ok(())
}

/// A master of 4.9 has no timer, and one of 5.x may have it switched off.
async fn timer_check_point(broker: &Broker, address: &str) -> anyhow::Result<Option<Bytes>> {
    let request = Command::request(RequestCode::GET_TIMER_CHECK_POINT);
    let answer = broker.client.invoke(address, request, ANSWER_TIMEOUT).await?;
    if answer.response_code() != ResponseCode::SUCCESS {
        tracing::debug!("master {address} tells no progress of a timer: {}", answer.remark());
        return Ok(None);
    }
    Ok(Some(answer.body.into_bytes()))
}

/// Files are written and synced where that holds up nobody.
async fn on_disk<T: Send + 'static>(
    broker: &Arc<Broker>,
    write: impl FnOnce(&Broker) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let broker = Arc::clone(broker);
    tokio::task::spawn_blocking(move || write(&broker)).await?
}
