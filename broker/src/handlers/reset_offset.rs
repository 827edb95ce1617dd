//! Moving a group to another place, and asking its members where they are (4.9's `Broker2Client`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rocketmq_remoting::bodies::{MessageQueue, QueueKey, ResetOffset, TopicConfig};
use rocketmq_remoting::header::broker::ResetOffsetRequest;
use rocketmq_remoting::{Answer, Command, Header, Language, RequestCode, ResponseCode, fastjson};
use serde::{Deserialize, Serialize};

use super::{field, heartbeat, json};
use rocketmq_store::TimeBoundary;

use crate::broker::Broker;
use crate::client_channel::ClientChannel;
use crate::config::BrokerRole;
use crate::refusal::Refusal;

/// How long a member may take to say where it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// [`ResetOffset`] in the form that C++ clients read: no objects as keys.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResetOffsetList<'a> {
    offset_table: Vec<QueueOffset<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueOffset<'a> {
    broker_name: &'a str,
    offset: i64,
    queue_id: i32,
    topic: &'a str,
}

/// `INVOKE_BROKER_TO_RESET_OFFSET`: tells the members of a group to go to the offsets of a time.
///
/// The offsets change when the members commit. A group that is not online is left alone: tools
/// then write its offsets themselves. For a single queue mqadmin of 5.x does that before it asks, and takes no for an error.
pub(crate) fn reset(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = ResetOffsetRequest::decode(&request.ext_fields)?;
    if broker.config().use_server_side_reset_offset {
        return reset_here(broker, &header);
    }
    let single = header.queue_id.filter(|queue_id| *queue_id >= 0);
    let offset_table = match single {
        Some(queue_id) => BTreeMap::from([target_of_queue(broker, &header, queue_id)?]),
        None => targets(broker, &header)?,
    };
    let body = ResetOffset { offset_table };
    let members = broker.consumers.group(&header.group);
    let Some(group) = members.filter(|group| !group.channels.is_empty()) else {
        if single.is_some() {
            for (QueueKey(queue), offset) in &body.offset_table {
                broker.offsets.commit(&header.group, &queue.topic, queue.queue_id, *offset);
            }
            return Ok(json(&body));
        }
        let remark = format!(
            "Consumer not online, so can not reset offset, Group: {} Topic: {} Timestamp: {}",
            header.group, header.topic, header.timestamp
        );
        return Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark));
    };
    let order = Command::request(RequestCode::RESET_CONSUMER_CLIENT_OFFSET).with_header(&header);
    for channel in group.channels.values() {
        let order = order.clone().with_body(body_for(channel.language, &body));
        if let Err(error) = channel.peer.oneway(order) {
            let remark = format!("the consumer {} of group {} was not told: {error}", channel.client_id, header.group);
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
    }
    tracing::info!(group = %header.group, topic = %header.topic, timestamp = header.timestamp, "consumers are told to reset");
    Ok(json(&body))
}

/// The same as brokers of 5.x do it (`AdminBrokerProcessor.resetOffsetInner`): the offsets change now, whether or not the group is
/// online, and each member hears of it by the answer to its next pull.
fn reset_here(broker: &Broker, header: &ResetOffsetRequest) -> Result<Command, Refusal> {
    let (topic, group) = (&*header.topic, &*header.group);
    if broker.config().broker_role == BrokerRole::Slave {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "Can not reset offset in slave broker"));
    }
    let Some(config) = broker.topics.get(topic) else {
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("Topic {topic} does not exist")));
    };
    if broker.groups.get(group).is_none() {
        let remark = format!("Group {group} does not exist");
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let target = |queue_id| target_of_queue(broker, header, queue_id);
    let offset_table = match header.queue_id.filter(|queue_id| *queue_id >= 0) {
        Some(queue_id) => BTreeMap::from([target(queue_id)?]),
        None => (0..config.read_queue_nums).map(target).collect::<Result<_, _>>()?,
    };
    let body = ResetOffset { offset_table };
    if body.offset_table.is_empty() {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "No queues to reset."));
    }
    for (QueueKey(queue), offset) in &body.offset_table {
        broker.resets.set(group, topic, queue.queue_id, *offset);
        broker.offsets.commit(group, topic, queue.queue_id, *offset);
    }
    tracing::info!(group, topic, timestamp = header.timestamp, "offsets are reset");
    Ok(json(&body))
}

fn body_for(language: Language, body: &ResetOffset) -> String {
    if language != Language::CPP {
        return fastjson::to_string(body);
    }
    let offset_table = body.offset_table.iter().map(|(QueueKey(queue), offset)| QueueOffset {
        broker_name: &queue.broker_name,
        offset: *offset,
        queue_id: queue.queue_id,
        topic: &queue.topic,
    });
    fastjson::to_string(&ResetOffsetList { offset_table: offset_table.collect() })
}

fn topic_of(broker: &Broker, topic: &str) -> Result<Arc<TopicConfig>, Refusal> {
    broker.topics.get(topic).ok_or_else(|| {
        let remark = format!("[reset-offset] reset offset failed, no topic in this broker. topic={topic}");
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    })
}

/// The offset to go to in one queue: the one that is asked for, else the time's (5.x's
/// `AdminBrokerProcessor.resetOffsetInner`).
fn target_of_queue(broker: &Broker, header: &ResetOffsetRequest, queue_id: i32) -> Result<(QueueKey, i64), Refusal> {
    let topic = &*header.topic;
    let config = topic_of(broker, topic)?;
    heartbeat::check_kept(&header.group)?;
    let queues = config.read_queue_nums.max(config.write_queue_nums);
    if queue_id >= queues {
        let remark = format!("queueId[{queue_id}] is illegal, topic:[{topic}] has {queues} queues");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let (min, max) = (broker.store.min_offset(topic, queue_id), broker.store.max_offset(topic, queue_id));
    let target = match header.offset.filter(|offset| *offset != -1) {
        Some(offset) if offset < min || offset > max + 1 => {
            let remark = format!("Target offset {offset} not in consume queue range [{min}-{max}]");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
        Some(offset) => offset,
        None if header.timestamp < 0 => max,
        None => broker.store.offset_by_time(topic, queue_id, header.timestamp, TimeBoundary::Nearest),
    };
    let queue = MessageQueue { broker_name: broker.config().broker_name.clone(), queue_id, topic: topic.to_owned() };
    Ok((QueueKey(queue), target))
}

/// The offset to go to in each queue that is written to.
fn targets(broker: &Broker, header: &ResetOffsetRequest) -> Result<BTreeMap<QueueKey, i64>, Refusal> {
    let topic = &*header.topic;
    let config = topic_of(broker, topic)?;
    let broker_name = &broker.config().broker_name;
    let mut targets = BTreeMap::new();
    for queue_id in 0..config.write_queue_nums {
        let Some(stored) = broker.offsets.get(&header.group, topic, queue_id) else {
            let remark = format!("THe consumer group <{}> not exist", header.group);
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        };
        let wanted = if header.timestamp == -1 {
            broker.store.max_offset(topic, queue_id)
        } else {
            broker.store.offset_by_time(topic, queue_id, header.timestamp, TimeBoundary::Nearest)
        };
        let queue = MessageQueue { broker_name: broker_name.clone(), queue_id, topic: topic.to_owned() };
        targets.insert(QueueKey(queue), target(stored, wanted, header.force));
    }
    Ok(targets)
}

/// Only back, unless forced.
fn target(stored: i64, wanted: i64, force: bool) -> i64 {
    let wanted = wanted.max(0);
    if force || wanted < stored { wanted } else { stored }
}

/// A member's answer to `GET_CONSUMER_STATUS_FROM_CLIENT`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ConsumerStatus {
    message_queue_table: BTreeMap<QueueKey, i64>,
}

/// Answer to `INVOKE_BROKER_TO_GET_CONSUMER_STATUS`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConsumerStatuses {
    consumer_table: BTreeMap<String, BTreeMap<QueueKey, i64>>,
}

/// `INVOKE_BROKER_TO_GET_CONSUMER_STATUS`: where each member, or the one that is named, is in a topic.
pub(crate) fn consumer_status(broker: &Broker, request: &Command) -> Result<Answer, Refusal> {
    let (topic, group) = (field(request, "topic")?, field(request, "group")?);
    let only = request.ext_fields.get("clientAddr").filter(|id| !id.is_empty());
    let Some(members) = broker.consumers.group(group) else {
        return Err(Refusal::new(
            ResponseCode::SYSTEM_ERROR,
            format!("No Any Consumer online in the consumer group: [{group}]"),
        ));
    };
    let mut question = Command::request(RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT);
    question.ext_fields.push("topic", topic);
    question.ext_fields.push("group", group);
    let asked = members.channels.values().filter(|channel| only.is_none_or(|id| *id == *channel.client_id)).cloned();
    let answers = asked.map(|channel| status_of(channel, question.clone())).collect::<Vec<_>>();
    Ok(Answer::later(async {
        let consumer_table = join_all(answers).await.into_iter().flatten().collect();
        json(&ConsumerStatuses { consumer_table })
    }))
}

async fn status_of(channel: Arc<ClientChannel>, question: Command) -> Option<(String, BTreeMap<QueueKey, i64>)> {
    match channel.peer.request(question, PATIENCE).await {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            let status: ConsumerStatus = fastjson::from_slice(&answer.body.bytes()).ok()?;
            Some((channel.client_id.to_string(), status.message_queue_table))
        }
        Ok(answer) => {
            tracing::warn!(client = %channel.client_id, remark = answer.remark(), "a consumer does not say where it is");
            None
        }
        Err(error) => {
            tracing::warn!(client = %channel.client_id, %error, "a consumer does not say where it is");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_force_a_group_only_goes_back() {
        assert_eq!(target(10, 5, false), 5);
        assert_eq!(target(10, 15, false), 10);
        assert_eq!(target(10, 15, true), 15);
        assert_eq!(target(10, -1, false), 0);
    }

    #[test]
    fn cpp_clients_get_a_list() {
        let queue = MessageQueue { broker_name: "b".into(), queue_id: 1, topic: "T".into() };
        let body = ResetOffset { offset_table: BTreeMap::from([(QueueKey(queue), 7)]) };
        assert_eq!(
            body_for(Language::JAVA, &body),
            r#"{"offsetTable":{{"brokerName":"b","queueId":1,"topic":"T"}:7}}"#
        );
        assert_eq!(
            body_for(Language::CPP, &body),
            r#"{"offsetTable":[{"brokerName":"b","offset":7,"queueId":1,"topic":"T"}]}"#
        );
    }
}
