//! Consumer offsets: asked, stored, copied (4.9's `ConsumerManageProcessor`).

use std::collections::BTreeMap;

use rocketmq_remoting::bodies::CorrectionOffsets;
use rocketmq_remoting::header::broker::{OffsetResponse, QueryConsumerOffsetRequest, UpdateConsumerOffsetRequest};
use rocketmq_remoting::{Command, Header, ResponseCode};

use super::{field, heartbeat, json};
use crate::broker::Broker;
use crate::refusal::Refusal;

/// `QUERY_CONSUMER_OFFSET`: where a group goes on in a queue.
///
/// A group without an offset begins at 0 while the queue still has its first message in memory,
/// whatever its `consumeFromWhere` says: a topic that is young is consumed whole. Only otherwise
/// the client decides.
pub(crate) fn query(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = QueryConsumerOffsetRequest::decode(&request.ext_fields)?;
    let (topic, queue_id) = (&*header.topic, header.queue_id);
    let stored = broker.offsets.get(&header.consumer_group, topic, queue_id);
    let offset = stored.or_else(|| {
        let may_be_zero = header.set_zero_if_not_found != Some(false);
        (may_be_zero && is_young(broker, topic, queue_id)).then_some(0)
    });
    match offset {
        Some(offset) => Ok(Command::ok().with_header(&OffsetResponse { offset })),
        None => Err(Refusal::new(
            ResponseCode::QUERY_NOT_FOUND,
            "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
        )),
    }
}

/// Whether a queue begins at 0 and its first message is likely in memory; a queue without messages
/// counts.
fn is_young(broker: &Broker, topic: &str, queue_id: i32) -> bool {
    if broker.store.min_offset(topic, queue_id) > 0 {
        return false;
    }
    let Some(first) = broker.store.queue_entries(topic, queue_id, 0, 1).first().copied() else { return true };
    let behind = broker.store.max_physical_offset().saturating_sub(first.offset);
    behind <= in_memory_bytes(broker.config().access_message_in_memory_max_ratio)
}

/// That share of the machine's memory, in bytes.
fn in_memory_bytes(percent: u8) -> u64 {
    let system = rustix::system::sysinfo();
    let total = system.totalram.saturating_mul(u64::from(system.mem_unit));
    total / 100 * u64::from(percent)
}

/// `UPDATE_CONSUMER_OFFSET`: a plain overwrite, which may go back.
///
/// Unlike 4.9, offsets of queues that are not there are refused, as in 5.x: their number would
/// have no bound. What is missing is named in 5.x's words; in 4.9 it is a `NullPointerException`.
pub(crate) fn update(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = UpdateConsumerOffsetRequest::decode(&request.ext_fields)?;
    let topic = &*header.topic;
    heartbeat::check_kept(&header.consumer_group)?;
    let Some(config) = broker.topics.get(topic) else {
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("Topic {topic} not exist!")));
    };
    let missing = |what| Refusal::new(ResponseCode::INVALID_PARAMETER, format!("{what} is null, topic is {topic}"));
    let queue_id = header.queue_id.ok_or_else(|| missing("QueueId"))?;
    let offset = header.commit_offset.ok_or_else(|| missing("Offset"))?;
    let queues = config.read_queue_nums.max(config.write_queue_nums);
    if queue_id < 0 || (queue_id >= queues && broker.store.max_offset(topic, queue_id) == 0) {
        let remark = format!("queueId[{queue_id}] is illegal, topic:[{topic}] has {queues} queues");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    if broker.resets.is_pending(&header.consumer_group, topic, queue_id) {
        return Ok(Command::ok().with_remark("Offset has been previously reset"));
    }
    broker.offsets.commit(&header.consumer_group, topic, queue_id, offset);
    Ok(Command::ok())
}

/// `GET_ALL_CONSUMER_OFFSET`, for slaves.
pub(crate) fn all(broker: &Broker) -> Command {
    json(&broker.offsets.to_wire())
}

/// `GET_ALL_DELAY_OFFSET`, for slaves.
pub(crate) fn all_delays(broker: &Broker) -> Command {
    json(&broker.delay_offsets.to_wire())
}

/// `QUERY_CORRECTION_OFFSET`: how far the slowest group of a topic has come in each queue, but for the
/// groups that `filterGroups` names; `i64::MAX` where `compareGroup` is further behind.
///
/// Offsets before the queue's beginning are left out. Unlike 4.9, which deletes them, the offsets of
/// the groups that are left out stay.
pub(crate) fn correction(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let (topic, compared) = (field(request, "topic")?, field(request, "compareGroup")?);
    let left_out = request.ext_fields.get("filterGroups").unwrap_or_default();
    let mut slowest: BTreeMap<i32, i64> = BTreeMap::new();
    for group in broker.offsets.groups_of(topic).iter().filter(|group| left_out.split(',').all(|name| name != *group)) {
        for (queue_id, offset) in broker.offsets.queues_of(group, topic) {
            if offset >= broker.store.min_offset(topic, queue_id) {
                slowest.entry(queue_id).and_modify(|known| *known = offset.min(*known)).or_insert(offset);
            }
        }
    }
    for (queue_id, offset) in broker.offsets.queues_of(compared, topic) {
        if let Some(known) = slowest.get_mut(&queue_id).filter(|known| **known > offset) {
            *known = i64::MAX;
        }
    }
    Ok(json(&CorrectionOffsets { correction_offsets: slowest }))
}

/// `CLONE_GROUP_OFFSET`: gives a group the offsets of another, in one topic or in all. Topics that
/// the group, while online, does not subscribe to are left out, unless `offline` says so.
pub(crate) fn clone_group(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let (from, to) = (field(request, "srcGroup")?, field(request, "destGroup")?);
    heartbeat::check_kept(to)?;
    let topic = request.ext_fields.get("topic").filter(|topic| !topic.trim().is_empty());
    let offline = request.ext_fields.get("offline").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let topics = topic.map_or_else(|| broker.offsets.topics_of(from), |topic| [topic.to_string()].into());
    for topic in topics.iter().filter(|topic| broker.topics.get(topic).is_some()) {
        let is_online = broker.consumers.group(to).is_some_and(|group| !group.subscriptions.is_empty());
        if !offline && is_online && broker.consumers.subscription(to, topic).is_none() {
            tracing::warn!(group = %to, topic, "offsets not cloned: the group does not subscribe to the topic");
            continue;
        }
        broker.offsets.clone_group(from, to, Some(topic));
    }
    Ok(Command::ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_memory_is_of_this_machine() {
        let all = in_memory_bytes(100);
        assert!(all > 1 << 28, "{all} bytes");
        assert_eq!(in_memory_bytes(0), 0);
        assert!(in_memory_bytes(40) < all);
    }
}
