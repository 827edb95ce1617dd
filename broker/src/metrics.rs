//! The broker's metrics, read at each scrape.
//!
//! Names and labels are those of RocketMQ 5's metrics where it has the metric, so that its
//! dashboards work. May only read.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::broker::Broker;
use crate::config::BrokerRole;
use crate::ha::Replication;
use crate::ha::followers::Follower;
use crate::topics::{DLQ_PREFIX, RETRY_PREFIX};

/// What [`text`] writes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Decimal = Gauge<f64, AtomicU64>;

/// All metrics in the text form of `OpenMetrics`.
pub(crate) fn text(broker: &Broker) -> Result<String, fmt::Error> {
    let config = broker.config();
    let labels = [
        ("cluster", config.broker_cluster_name.clone()),
        ("node_type", "broker".to_owned()),
        ("node_id", config.broker_name.clone()),
        ("broker_id", config.broker_id.to_string()),
    ];
    let mut registry = Registry::with_labels(labels.into_iter().map(|(name, value)| (name.into(), value.into())));
    messages(&mut registry, broker);
    consumers(&mut registry, broker);
    storage(&mut registry, broker);
    timer(&mut registry, broker);
    if config.broker_role != BrokerRole::Slave {
        transactions(&mut registry, broker);
    }
    replication(&mut registry, broker);
    gauge(&mut registry, "rocketmq_broker_permission", "2 write, 4 read, 6 both", config.broker_permission.into());
    if let Some(bytes) = resident_bytes() {
        gauge(&mut registry, "process_resident_memory_bytes", "Memory of this process", bytes);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let metric = Gauge::<i64>::default();
    metric.set(value);
    registry.register(name, help, metric);
}

fn decimal(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let metric = Decimal::default();
    metric.set(value);
    registry.register(name, help, metric);
}

/// A counter; its name ends in `_total` in the text.
fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Counter::<u64>::default();
    metric.inc_by(value);
    registry.register(name, help, metric);
}

fn counters(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
    let family = Family::<Labels, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}

fn gauges(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, i64)>) {
    let family = Family::<Labels, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value);
    }
    registry.register(name, help, family);
}

fn messages(registry: &mut Registry, broker: &Broker) {
    let puts = broker.stats.topic_puts();
    let topic = |name: &str| vec![("topic", name.to_owned()), ("is_system", broker.topics.is_system(name).to_string())];
    let nums = puts.iter().map(|(name, nums, _)| (topic(name), *nums));
    counters(registry, "rocketmq_messages_in", "Messages stored for producers", nums);
    let bytes = puts.iter().map(|(name, _, bytes)| (topic(name), *bytes));
    counters(registry, "rocketmq_throughput_in", "Bytes of these", bytes);

    let gets = broker.stats.group_gets();
    let pair = |key: &str| {
        let (name, group) = key.split_once('@').unwrap_or((key, ""));
        let mut labels = topic(name);
        labels.push(("consumer_group", group.to_owned()));
        labels.push(("is_retry", name.starts_with(RETRY_PREFIX).to_string()));
        labels
    };
    let nums = gets.iter().map(|(key, nums, _)| (pair(key), *nums));
    counters(registry, "rocketmq_messages_out", "Messages handed to consumers", nums);
    let bytes = gets.iter().map(|(key, _, bytes)| (pair(key), *bytes));
    counters(registry, "rocketmq_throughput_out", "Bytes of these", bytes);

    let dead = puts.iter().filter_map(|(name, nums, _)| {
        let group = name.strip_prefix(DLQ_PREFIX)?;
        Some((vec![("consumer_group", group.to_owned())], *nums))
    });
    counters(registry, "rocketmq_send_to_dlq_messages", "Messages that consumers gave up", dead);
    let refused = broker.stats.put_failed_times();
    counter(registry, "rocketmq_broker_sends_refused", "Sends that were refused", refused);
    let rejected = broker.limits.counts().map(|(limit, count)| (vec![("limit", limit.label().to_owned())], count));
    counters(registry, "rocketmq_broker_rejected_requests", "Requests and connections refused at a limit", rejected);
}

fn consumers(registry: &mut Registry, broker: &Broker) {
    let producers = broker.producers.connection_count() as i64;
    gauge(registry, "rocketmq_producer_connections", "Connections that produce", producers);
    let consumers = broker.consumers.connection_count() as i64;
    gauge(registry, "rocketmq_consumer_connections", "Connections that consume", consumers);
    gauge(registry, "rocketmq_broker_held_pulls", "Pulls that wait for messages", broker.held_pulls.count() as i64);
    gauge(registry, "rocketmq_topic_number", "Topics", broker.topics.names().len() as i64);
    let groups = broker.groups.to_wire().subscription_group_table.len() as i64;
    gauge(registry, "rocketmq_consumer_group_number", "Consumer groups", groups);

    let table = broker.offsets.to_wire().offset_table;
    let lags = table.iter().filter_map(|(key, queues)| {
        let (topic, group) = key.split_once('@')?;
        let behind = |(queue, offset): (&i32, &i64)| (broker.store.max_offset(topic, *queue) - offset).max(0);
        let labels = vec![
            ("topic", topic.to_owned()),
            ("consumer_group", group.to_owned()),
            ("is_retry", topic.starts_with(RETRY_PREFIX).to_string()),
        ];
        Some((labels, queues.iter().map(behind).sum()))
    });
    gauges(registry, "rocketmq_consumer_lag_messages", "Messages that a group has not consumed", lags);
}

fn storage(registry: &mut Registry, broker: &Broker) {
    let store = &broker.store;
    let (min, max) = (store.min_physical_offset(), store.max_physical_offset());
    let flush_behind = max.saturating_sub(store.flushed_offset());
    let dispatch_behind = max.saturating_sub(store.dispatched_offset());
    let values = [
        ("rocketmq_broker_commitlog_max_offset", "Where the log ends", max),
        ("rocketmq_broker_commitlog_min_offset", "Where the log begins", min),
        ("rocketmq_broker_commitlog_flushed_offset", "Up to where the log is on disk", store.flushed_offset()),
        ("rocketmq_broker_commitlog_dispatched_offset", "Up to where queues are made", store.dispatched_offset()),
        ("rocketmq_storage_size", "Bytes of the log", max.saturating_sub(min)),
        ("rocketmq_storage_flush_behind_bytes", "Bytes of the log that are not on disk yet", flush_behind),
        ("rocketmq_storage_dispatch_behind_bytes", "Bytes of the log without queue entries", dispatch_behind),
    ];
    for (name, help, value) in values {
        gauge(registry, name, help, value as i64);
    }
    let earliest = store.earliest_message_time();
    let reserve = if earliest > 0 { (crate::clock::now_millis() - earliest).max(0) } else { 0 };
    gauge(registry, "rocketmq_storage_message_reserve_time", "Age of the oldest message, ms", reserve);
    decimal(registry, "rocketmq_storage_disk_ratio", "Used share of the partition", store.disk_ratio());
    gauge(registry, "rocketmq_storage_writable", "1 while messages are taken", store.writable().is_ok().into());
    let stats = store.stats();
    counter(registry, "rocketmq_storage_flushes", "Flushes of the log", stats.flush_times);
    counter(registry, "rocketmq_storage_put_failed", "Appends that failed", stats.put_failed_times);
    let checked = "Older files of queues and index that were compared with their checksums";
    counter(registry, "rocketmq_storage_checked_files", checked, stats.checked_files);
    let mended = "Files of queues and index that were damaged and made anew from the log";
    counter(registry, "rocketmq_storage_mended_files", mended, stats.mended_files);
    let found_again = "Messages found in the log though their queue's entry was damaged";
    counter(registry, "rocketmq_storage_found_again_messages", found_again, stats.found_again_messages);
    gauge(registry, "rocketmq_storage_checked", "1 when all files were compared", store.is_checked().into());
    gauge(registry, "rocketmq_storage_put_max_milliseconds", "Longest append", stats.put_entire_time_max_ms as i64);
}

fn timer(registry: &mut Registry, broker: &Broker) {
    let (standing, totals) = (broker.timer.standing(), broker.timer.totals());
    gauge(registry, "rocketmq_timing_messages", "Timer messages that wait", standing.pending as i64);
    gauge(registry, "rocketmq_timer_enqueue_lag", "Timer messages that were not looked at yet", standing.not_taken);
    gauge(registry, "rocketmq_timer_dequeue_latency", "How late the first timer message is, ms", standing.late_ms);
    counter(registry, "rocketmq_timer_enqueue", "Timer messages taken in", totals.taken);
    counter(registry, "rocketmq_timer_dequeue", "Timer messages delivered", totals.delivered);
    counter(registry, "rocketmq_timer_rolled", "Timer messages stored again because they wait long", totals.rolled);
}

fn transactions(registry: &mut Registry, broker: &Broker) {
    let standing = broker.transactions.standing(&broker.store);
    gauge(registry, "rocketmq_half_messages", "Half messages whose transaction is open", standing.open);
    counter(registry, "rocketmq_commit_messages", "Transactions committed", standing.committed);
    counter(registry, "rocketmq_rollback_messages", "Transactions rolled back", standing.rolled_back);
    counter(registry, "rocketmq_broker_transaction_checks", "Questions to producers", standing.checked);
    counter(registry, "rocketmq_broker_transactions_given_up", "Half messages given up", standing.given_up);
}

fn replication(registry: &mut Registry, broker: &Broker) {
    let standing = broker.replication.standing(&broker.config(), broker.epoch);
    gauge(registry, "rocketmq_ha_epoch", "How often this store became a master's", standing.epoch as i64);
    let confirmed = standing.confirmed as i64;
    gauge(registry, "rocketmq_ha_confirmed_offset", "Up to where master and slaves have the same log", confirmed);
    match &broker.replication {
        Replication::Master(master) => {
            let slaves = master.followers.connected();
            let (end, now) = (broker.store.max_physical_offset(), crate::clock::now_millis());
            let diverged = master.followers.diverged().len() as i64;
            gauge(registry, "rocketmq_ha_diverged_slaves", "Slaves whose log is not this one", diverged);
            gauge(registry, "rocketmq_ha_slaves", "Slaves that follow this master", slaves.len() as i64);
            let acknowledged = master.acknowledged() as i64;
            gauge(registry, "rocketmq_ha_acknowledged_offset", "Up to where a slave has had the log", acknowledged);
            let label = |slave: &Follower| vec![("slave", slave.remote.to_string())];
            let behind = |slave: &Follower| slave.behind_since.map_or(0, |since| (now - since).max(0) / 1000);
            let times = slaves.iter().map(|slave| (label(slave), behind(slave)));
            gauges(registry, "rocketmq_ha_slave_lag_seconds", "Time since a slave had the whole log", times);
            let lags = slaves.iter().map(|slave| (label(slave), end.saturating_sub(slave.reported) as i64));
            gauges(registry, "rocketmq_ha_slave_lag_bytes", "Bytes of the log that a slave does not have", lags);
        }
        Replication::Slave(slave) => {
            let status = slave.status();
            gauge(registry, "rocketmq_ha_connected", "1 while the master sends", status.connected.is_some().into());
            let diverged = status.divergence.is_some().into();
            gauge(registry, "rocketmq_ha_diverged", "1 when the master's log does not continue ours", diverged);
            if let Some(lag) = slave.lag() {
                gauge(registry, "rocketmq_ha_lag_bytes", "Bytes of the master's log that are not here", lag as i64);
            }
        }
    }
}

/// Resident memory of this process.
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_as_dashboards_expect_them() {
        let mut registry = Registry::default();
        let labels = vec![("topic", "T".to_owned())];
        counters(&mut registry, "rocketmq_messages_in", "help", [(labels.clone(), 7)]);
        gauges(&mut registry, "rocketmq_ha_slave_lag_bytes", "help", [(labels, 5)]);
        decimal(&mut registry, "rocketmq_storage_disk_ratio", "help", 0.5);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "rocketmq_messages_in_total{topic=\"T\"} 7",
            "rocketmq_ha_slave_lag_bytes{topic=\"T\"} 5",
            "rocketmq_storage_disk_ratio 0.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(resident_bytes().is_some_and(|bytes| bytes > 0));
    }
}
