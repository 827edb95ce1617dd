//! Queues: their offsets, times and entries.

use rocketmq_remoting::bodies::{QueueEntry, QueueEntryList};
use rocketmq_remoting::header::broker::{
    OffsetResponse, QueryConsumeQueueRequest, QueueRequest, SearchOffsetRequest, TimestampResponse,
};
use rocketmq_remoting::{Command, Header, ResponseCode};

use super::json;
use rocketmq_store::{TimeBoundary, decode_message};

use crate::broker::Broker;
use crate::filter::{self, MessageFilter};
use crate::refusal::Refusal;

/// Entries that one `QUERY_CONSUME_QUEUE` shows at most.
const ENTRIES_MAX: i32 = 4096;

/// `GET_MAX_OFFSET`: the offset of the next message; 0 for an unknown queue.
pub(crate) fn max_offset(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = QueueRequest::decode(&request.ext_fields)?;
    let offset = broker.store.max_offset(&header.topic, header.queue_id);
    Ok(Command::ok().with_header(&OffsetResponse { offset }))
}

/// `GET_MIN_OFFSET`: the offset of the oldest message; 0 for an unknown queue.
pub(crate) fn min_offset(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = QueueRequest::decode(&request.ext_fields)?;
    let offset = broker.store.min_offset(&header.topic, header.queue_id);
    Ok(Command::ok().with_header(&OffsetResponse { offset }))
}

/// `SEARCH_OFFSET_BY_TIMESTAMP`. Clients of 4.9 name no boundary and get the nearest message.
pub(crate) fn search_offset(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = SearchOffsetRequest::decode(&request.ext_fields)?;
    let boundary = match header.boundary_type.as_deref() {
        None => TimeBoundary::Nearest,
        Some(name) if name.eq_ignore_ascii_case("UPPER") => TimeBoundary::Last,
        Some(_) => TimeBoundary::First,
    };
    let offset = broker.store.offset_by_time(&header.topic, header.queue_id, header.timestamp, boundary);
    Ok(Command::ok().with_header(&OffsetResponse { offset }))
}

/// `GET_EARLIEST_MSG_STORETIME`: of the oldest message, -1 without one.
pub(crate) fn earliest_time(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = QueueRequest::decode(&request.ext_fields)?;
    let timestamp = broker.store.earliest_store_time(&header.topic, header.queue_id);
    Ok(Command::ok().with_header(&TimestampResponse { timestamp }))
}

/// `QUERY_CONSUME_QUEUE`: entries as they lie in the queue, and whether a group's filter takes them.
pub(crate) fn entries(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = QueryConsumeQueueRequest::decode(&request.ext_fields)?;
    let (topic, queue_id) = (&*header.topic, header.queue_id);
    let queues = broker.topics.get(topic).map_or(0, |config| config.read_queue_nums.max(config.write_queue_nums));
    if !(0..queues).contains(&queue_id) && broker.store.max_offset(topic, queue_id) == 0 {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, format!("{queue_id}@{topic} is not exist!")));
    }
    let group = header.consumer_group.as_deref().filter(|group| !group.is_empty());
    let subscription = group.and_then(|group| broker.consumers.subscription(group, topic));
    let filter = group
        .zip(subscription.as_deref())
        .map(|(group, subscription)| filter::of_subscription(&broker.filters, group, subscription));
    let filter_data = group.map(|group| match subscription {
        Some(_) => broker.filters.shown(topic, group),
        None => format!("{group}@{topic} is not online!"),
    });
    let count = header.count.clamp(0, ENTRIES_MAX) as usize;
    let found = broker.store.queue_entries(topic, queue_id, header.index, count);
    let answer = Command::ok();
    let answer = if found.is_empty() {
        answer.with_remark(format!("Index {} of {queue_id}@{topic} is not exist!", header.index))
    } else {
        answer
    };
    let shown = found.iter().map(|entry| QueueEntry {
        eval: filter.as_ref().is_some_and(|filter| takes(broker, filter, entry)),
        physic_offset: entry.offset as i64,
        physic_size: entry.size as i32,
        tags_code: entry.tags_code,
    });
    let list = QueueEntryList {
        max_queue_index: broker.store.max_offset(topic, queue_id),
        min_queue_index: broker.store.min_offset(topic, queue_id),
        queue_data: shown.collect(),
        subscription_data: subscription.as_deref().cloned(),
        filter_data,
    };
    Ok(Command { body: json(&list).body, ..answer })
}

/// Both stages of a filter, for one entry.
fn takes(broker: &Broker, filter: &MessageFilter, entry: &rocketmq_store::QueueEntry) -> bool {
    let takes_message = || {
        let unit = broker.store.message_at(entry.offset)?;
        Some(filter.takes_message(&broker.filters, &decode_message(&unit).ok()?))
    };
    filter.takes_entry(entry) && (filter.is_by_tags_only() || takes_message().unwrap_or(false))
}
