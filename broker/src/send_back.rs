//! `CONSUMER_SEND_MSG_BACK`: a consumer could not handle a message and wants it again later, or
//! gives it up (4.9's `SendMessageProcessor.consumerSendMsgBack`).

use std::sync::Arc;

use rocketmq_remoting::bodies::{PERM_READ, PERM_WRITE, TopicConfig};
use rocketmq_remoting::header::message::{SendBackRequest, SendMessageRequest};
use rocketmq_remoting::{Answer, Command, Header, Peer, ResponseCode};
use rocketmq_store::{NewMessage, decode_message, message_id, properties, property, push_property};

use crate::broker::Broker;
use crate::config::BrokerRole;
use crate::delay;
use crate::handlers::failed;
use crate::refusal::Refusal;
use crate::topics::{self, RETRY_PREFIX, dlq_topic, retry_topic};

pub(crate) const RETRY_TOPIC: &str = "RETRY_TOPIC";
const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
/// The level of the first redelivery (10 s); each further one is a level higher.
const FIRST_LEVEL: i32 = 3;

/// Stores the message again: in the group's retry topic after a delay, or in its dead-letter queue.
pub(crate) fn send_back(broker: &Arc<Broker>, _: &Arc<Peer>, request: &Command) -> Result<Answer, Refusal> {
    let header = SendBackRequest::decode(&request.ext_fields)?;
    let group =
        broker.groups.get_or_create(&header.group).ok_or_else(|| Refusal::retry_group_not_exist(&header.group))?;
    let config = broker.config();
    if config.broker_permission & PERM_WRITE == 0 {
        let remark = format!("the broker[{}] sending message is forbidden", config.broker_ip1);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    if group.retry_queue_nums <= 0 {
        return Ok(Command::ok().into());
    }
    // A slave's log is the master's. Java names what its store has answered.
    if config.broker_role == BrokerRole::Slave {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "SERVICE_NOT_AVAILABLE"));
    }
    let retry = TopicConfig::new(retry_topic(&header.group), group.retry_queue_nums, PERM_READ | PERM_WRITE);
    let sys_flag = if header.unit_mode { topics::FLAG_UNIT_SUB } else { 0 };
    let retry = broker.topics.get_or_create(TopicConfig { topic_sys_flag: sys_flag, ..retry }).map_err(failed)?;
    if retry.perm & PERM_WRITE == 0 {
        let remark = format!("the topic[{}] sending message is forbidden", retry.topic_name);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    let unit = u64::try_from(header.offset).ok().and_then(|offset| broker.store.message_at(offset));
    let missing =
        || Refusal::new(ResponseCode::SYSTEM_ERROR, format!("look message by offset failed, {}", header.offset));
    let unit = unit.ok_or_else(missing)?;
    let message = decode_message(&unit).map_err(|_| missing())?;

    let attempts_max = header.max_reconsume_times.unwrap_or(group.retry_max_times);
    let gives_up = message.reconsume_times >= attempts_max || header.delay_level < 0;
    let target = if gives_up { dead_letters(broker, &header.group)? } else { retry };
    let text = properties_of_copy(&message, &message_id(message.store_host, message.physical_offset));
    let copy = NewMessage {
        topic: &target.topic_name,
        queue_id: rand::random_range(0..target.write_queue_nums.max(1)),
        flag: message.flag,
        sys_flag: message.sys_flag,
        born_timestamp: message.born_timestamp,
        born_host: message.born_host,
        store_host: broker.store_host,
        reconsume_times: message.reconsume_times + 1,
        prepared_transaction_offset: 0,
        body: message.body,
        properties: &text,
    };
    if gives_up {
        broker.store.append(&copy)?;
    } else {
        let level = if header.delay_level == 0 { FIRST_LEVEL + message.reconsume_times } else { header.delay_level };
        delay::append(broker, &copy, level.min(config.message_delay_level.0.len() as i32))?;
    }
    broker.stats.sent_back(&header.group, message.topic);
    Ok(Command::ok().into())
}

/// The topic of a group's dead letters, made now where it is not there.
fn dead_letters(broker: &Broker, group: &str) -> Result<Arc<TopicConfig>, Refusal> {
    broker.topics.get_or_create(TopicConfig::new(dlq_topic(group), 1, PERM_READ | PERM_WRITE)).map_err(failed)
}

/// Where a message goes that a client sends to its group's retry topic itself, for it could not send it
/// back: to the dead letters, where it has been consumed often enough (`handleRetryAndDLQ`).
pub(crate) fn dead_letters_of_send(
    broker: &Broker,
    header: &SendMessageRequest,
) -> Result<Option<Arc<TopicConfig>>, Refusal> {
    let Some(name) = header.topic.strip_prefix(RETRY_PREFIX) else { return Ok(None) };
    let group = broker.groups.get_or_create(name).ok_or_else(|| Refusal::retry_group_not_exist(name))?;
    if header.reconsume_times < header.max_reconsume_times.unwrap_or(group.retry_max_times) {
        return Ok(None);
    }
    dead_letters(broker, name).map(Some)
}

/// The message's properties, with the topic and the id that it had at first.
fn properties_of_copy(message: &rocketmq_store::MessageView<'_>, id: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(message.properties.len() + 128);
    let replaced = ["WAIT", "DELAY", "REAL_TOPIC", "REAL_QID", RETRY_TOPIC, ORIGIN_MESSAGE_ID];
    for (name, value) in properties(message.properties).filter(|(name, _)| !replaced.contains(name)) {
        push_property(&mut text, name, value);
    }
    push_property(&mut text, RETRY_TOPIC, property(message.properties, RETRY_TOPIC).unwrap_or(message.topic));
    push_property(&mut text, ORIGIN_MESSAGE_ID, property(message.properties, ORIGIN_MESSAGE_ID).unwrap_or(id));
    push_property(&mut text, "WAIT", "false");
    text
}
