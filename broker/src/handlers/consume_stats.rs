//! How far groups have come, for tools.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use rocketmq_remoting::bodies::{ConsumeStats, MessageQueue, OffsetWrapper, QueueKey};
use rocketmq_remoting::header::broker::ConsumeStatsRequest;
use rocketmq_remoting::{Command, Header, ResponseCode};
use serde::Serialize;

use super::{field, json};
use crate::broker::Broker;
use crate::clock;
use crate::refusal::Refusal;

/// `GET_CONSUME_STATS`: a group in one topic, or in all that it has offsets in.
pub(crate) fn of_group(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = ConsumeStatsRequest::decode(&request.ext_fields)?;
    let topic = header.topic.filter(|topic| !topic.trim().is_empty());
    let topics =
        topic.map_or_else(|| broker.offsets.topics_of(&header.consumer_group), |topic| [topic.to_string()].into());
    let mut stats = ConsumeStats::default();
    for topic in subscribed(broker, &header.consumer_group, topics) {
        let queues = broker.topics.get(&topic).map_or(0, |config| config.read_queue_nums);
        stats.offset_table.extend(offsets(broker, &header.consumer_group, &topic, queues));
        stats.consume_tps += broker.stats.group_get_tps(&header.consumer_group, &topic);
    }
    Ok(json(&stats))
}

/// Answer to `GET_BROKER_CONSUME_STATS`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConsumeStatsList {
    broker_addr: String,
    #[serde(rename = "consumeStatsList")]
    groups: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    total_diff: i64,
}

/// `GET_BROKER_CONSUME_STATS`: all groups in all topics, or in ordered ones.
pub(crate) fn of_broker(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let only_ordered = field(request, "isOrder")?.eq_ignore_ascii_case("true");
    let mut list = ConsumeStatsList { broker_addr: broker.config().broker_addr(), groups: Vec::new(), total_diff: 0 };
    for group in broker.groups.to_wire().subscription_group_table.into_keys() {
        let mut of_topics = Vec::new();
        for topic in subscribed(broker, &group, broker.offsets.topics_of(&group)) {
            let Some(config) = broker.topics.get(&topic).filter(|config| config.order || !only_ordered) else {
                continue;
            };
            let offset_table = offsets(broker, &group, &topic, config.write_queue_nums);
            list.total_diff += offset_table.values().map(|at| at.broker_offset - at.consumer_offset).sum::<i64>();
            let consume_tps = broker.stats.group_get_tps(&group, &topic);
            of_topics.push(ConsumeStats { consume_tps, offset_table });
        }
        list.groups.push(BTreeMap::from([(group, of_topics)]));
    }
    Ok(json(&list))
}

/// Of `topics` those that are there and that the group, where it is online, subscribes to.
fn subscribed(broker: &Broker, group: &str, topics: BTreeSet<String>) -> impl Iterator<Item = String> {
    let online = broker.consumers.group(group).filter(|group| !group.subscriptions.is_empty());
    topics.into_iter().filter(move |topic| {
        broker.topics.get(topic).is_some()
            && online.as_ref().is_none_or(|group| group.subscriptions.contains_key(topic))
    })
}

fn offsets(broker: &Broker, group: &str, topic: &str, queues: i32) -> BTreeMap<QueueKey, OffsetWrapper> {
    let broker_name = &broker.config().broker_name;
    let at = |queue_id| {
        let consumer_offset = broker.offsets.get(group, topic, queue_id).unwrap_or(0).max(0);
        OffsetWrapper {
            broker_offset: broker.store.max_offset(topic, queue_id),
            consumer_offset,
            last_timestamp: store_time(broker, topic, queue_id, consumer_offset - 1).unwrap_or(0),
            // What is pulled and not yet consumed only the client knows.
            pull_offset: consumer_offset,
        }
    };
    let queue =
        |queue_id| QueueKey(MessageQueue { broker_name: broker_name.clone(), queue_id, topic: topic.to_owned() });
    (0..queues).map(|queue_id| (queue(queue_id), at(queue_id))).collect()
}

/// Milliseconds since 1970; `None` where there is no such message.
fn store_time(broker: &Broker, topic: &str, queue_id: i32, offset: i64) -> Option<i64> {
    if offset < 0 {
        return None;
    }
    broker.store.store_time(topic, queue_id, offset).filter(|time| *time > 0)
}

/// Answer to `QUERY_CONSUME_TIME_SPAN`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimeSpans {
    consume_time_span_set: Vec<TimeSpan>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimeSpan {
    consume_time_stamp: i64,
    consume_time_stamp_str: String,
    delay_time: i64,
    max_time_stamp: i64,
    max_time_stamp_str: String,
    message_queue: MessageQueue,
    min_time_stamp: i64,
    min_time_stamp_str: String,
}

/// `QUERY_CONSUME_TIME_SPAN`: from when to when a topic's messages are, and where a group is.
pub(crate) fn time_span(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let (topic, group) = (field(request, "topic")?, field(request, "group")?);
    let Some(config) = broker.topics.get(topic) else {
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist")));
    };
    let now = clock::now_millis();
    let span = |queue_id| {
        let time = |offset| store_time(broker, topic, queue_id, offset);
        let max_offset = broker.store.max_offset(topic, queue_id);
        let min_time_stamp = broker.store.earliest_store_time(topic, queue_id);
        let max_time_stamp = time(max_offset - 1).unwrap_or(-1);
        let consumer_offset = broker.offsets.get(group, topic, queue_id).unwrap_or(-1);
        let consume_time_stamp =
            if consumer_offset > 0 { time(consumer_offset - 1).unwrap_or(-1) } else { min_time_stamp };
        let next = if consumer_offset < max_offset { time(consumer_offset) } else { None };
        TimeSpan {
            consume_time_stamp,
            consume_time_stamp_str: human_time(consume_time_stamp),
            delay_time: next.map_or(0, |next| now - next),
            max_time_stamp,
            max_time_stamp_str: human_time(max_time_stamp),
            message_queue: MessageQueue {
                broker_name: broker.config().broker_name.clone(),
                queue_id,
                topic: topic.to_string(),
            },
            min_time_stamp,
            min_time_stamp_str: human_time(min_time_stamp),
        }
    };
    Ok(json(&TimeSpans { consume_time_span_set: (0..config.write_queue_nums).map(span).collect() }))
}

/// `2026-11-22#22:28:54:098`, in local time.
fn human_time(millis: i64) -> String {
    let Ok(time) = jiff::Timestamp::from_millisecond(millis) else { return millis.to_string() };
    let local = time.to_zoned(TimeZone::system());
    format!("{}:{:03}", local.strftime("%Y-%m-%d#%H:%M:%S"), local.millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_java_writes_them() {
        let text = human_time(1_795_386_534_098);
        assert_eq!(text.len(), "2026-11-22#22:28:54:098".len());
        assert!(text.starts_with("2026-11-2") && text.contains('#') && text.ends_with(":54:098"), "{text}");
    }
}
