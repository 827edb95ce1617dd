//! Topics: made, changed, deleted, listed (4.9's `AdminBrokerProcessor`).

use std::collections::{BTreeMap, BTreeSet};

use rocketmq_remoting::bodies::{
    GroupList, MessageQueue, QueueKey, TopicConfig, TopicConfigList, TopicList, TopicOffset, TopicStats,
};
use rocketmq_remoting::header::broker::{CreateTopicRequest, TopicRequest};
use rocketmq_remoting::{Command, Header, ResponseCode, fastjson};

use super::{failed, field, json, require_master};
use crate::broker::Broker;
use crate::refusal::Refusal;
use crate::topic_attributes;
use crate::topics;

/// Queues of a topic at most: each one costs files here and an entry in every client.
const QUEUES_MAX: i32 = 65_536;
/// All bits that a topic's permission may have.
const PERM_MAX: i32 = 0b1111;

/// `UPDATE_AND_CREATE_TOPIC`.
pub(crate) fn update(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    require_master(broker)?;
    let header = CreateTopicRequest::decode(&request.ext_fields)?;
    let changes = request.ext_fields.get("attributes").unwrap_or_default();
    put_all(
        broker,
        vec![TopicConfig {
            attributes: topic_attributes::parse(changes).map_err(illegal)?,
            order: header.order,
            perm: header.perm,
            read_queue_nums: header.read_queue_nums,
            write_queue_nums: header.write_queue_nums,
            topic_filter_type: header.topic_filter_type.to_string(),
            topic_name: header.topic.to_string(),
            topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
        }],
    )
}

/// `UPDATE_AND_CREATE_TOPIC_LIST` (5.x): all of them, or none where one is not accepted.
pub(crate) fn update_list(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    require_master(broker)?;
    let list: TopicConfigList = fastjson::from_slice(&request.body.bytes())?;
    put_all(broker, list.topic_config_list)
}

/// What comes as attributes is how they change.
fn put_all(broker: &Broker, mut configs: Vec<TopicConfig>) -> Result<Command, Refusal> {
    for config in &mut configs {
        check_settings(config)?;
        refuse_system(broker, &config.topic_name)?;
        let known = broker.topics.get(&config.topic_name);
        config.attributes =
            topic_attributes::changed(known.as_ref().map(|known| &known.attributes), &config.attributes)
                .map_err(illegal)?;
        // Whether a topic is ordered is the name servers' to say; 4.9 does not take it from here.
        config.order = known.is_some_and(|known| known.order);
    }
    broker.topics.put(configs).map_err(failed)?;
    Ok(Command::ok())
}

fn illegal(reason: String) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, reason)
}

fn check_settings(config: &TopicConfig) -> Result<(), Refusal> {
    let refuse = |remark: String| Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    if let Err(reason) = topics::check_name(&config.topic_name) {
        return refuse(reason);
    }
    for (name, queues) in [("readQueueNums", config.read_queue_nums), ("writeQueueNums", config.write_queue_nums)] {
        if !(0..=QUEUES_MAX).contains(&queues) {
            return refuse(format!("{name}={queues} is not accepted: 0 to {QUEUES_MAX}"));
        }
    }
    if !(0..=PERM_MAX).contains(&config.perm) {
        return refuse(format!("perm={} is not accepted: a sum of 1 inherit, 2 write, 4 read", config.perm));
    }
    if !matches!(&*config.topic_filter_type, "SINGLE_TAG" | "MULTI_TAG") {
        return refuse(format!(
            "topicFilterType={} is not accepted: SINGLE_TAG or MULTI_TAG",
            config.topic_filter_type
        ));
    }
    Ok(())
}

fn refuse_system(broker: &Broker, topic: &str) -> Result<(), Refusal> {
    if broker.topics.is_system(topic) {
        let remark = format!("The topic[{topic}] is conflict with system topic.");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    Ok(())
}

/// `DELETE_TOPIC_IN_BROKER`: the topic and its queues. Offsets of groups stay, as in 4.9.
pub(crate) fn delete(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    require_master(broker)?;
    let header = TopicRequest::decode(&request.ext_fields)?;
    // A topic's queues are a directory of its name: nothing else may be named here.
    topics::check_name(&header.topic).map_err(|reason| Refusal::new(ResponseCode::SYSTEM_ERROR, reason))?;
    refuse_system(broker, &header.topic)?;
    if !broker.topics.delete(&header.topic).map_err(failed)? {
        tracing::warn!(topic = %header.topic, "delete topic: it is not there");
    }
    broker.store.delete_topic(&header.topic)?;
    broker.stats.forget_topic(&header.topic);
    Ok(Command::ok())
}

/// `GET_ALL_TOPIC_CONFIG`.
pub(crate) fn all(broker: &Broker) -> Command {
    json(&broker.topics.to_wire())
}

/// `GET_TOPIC_CONFIG`, which tools of 5.x ask for.
pub(crate) fn get(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = TopicRequest::decode(&request.ext_fields)?;
    let Some(config) = broker.topics.get(&header.topic) else {
        let remark = format!("No topic in this broker. topic: {}", header.topic);
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    Ok(json(&*config))
}

/// `GET_SYSTEM_TOPIC_LIST_FROM_BROKER`.
pub(crate) fn system_list(broker: &Broker) -> Command {
    json(&TopicList { broker_addr: None, topic_list: broker.topics.system_names().iter().cloned().collect() })
}

/// `GET_TOPIC_STATS_INFO`: what each queue that is written to holds.
pub(crate) fn stats(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = TopicRequest::decode(&request.ext_fields)?;
    let topic = &*header.topic;
    let Some(config) = broker.topics.get(topic) else {
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist")));
    };
    let broker_name = &broker.config().broker_name;
    let offset_of = |queue_id| {
        let max_offset = broker.store.max_offset(topic, queue_id);
        TopicOffset {
            last_update_timestamp: broker.store.store_time(topic, queue_id, max_offset - 1).unwrap_or(0).max(0),
            max_offset,
            min_offset: broker.store.min_offset(topic, queue_id),
        }
    };
    let queue =
        |queue_id| QueueKey(MessageQueue { broker_name: broker_name.clone(), queue_id, topic: topic.to_owned() });
    let offset_table: BTreeMap<_, _> = (0..config.write_queue_nums).map(|id| (queue(id), offset_of(id))).collect();
    Ok(json(&TopicStats { offset_table }))
}

/// `QUERY_TOPICS_BY_CONSUMER` (5.x): topics that the group has an offset in.
pub(crate) fn of_group(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let topics = broker.offsets.topics_of(field(request, "group")?);
    let broker_addr = Some(broker.config().broker_addr());
    Ok(json(&TopicList { broker_addr, topic_list: topics.into_iter().collect() }))
}

/// `QUERY_TOPIC_CONSUME_BY_WHO`: groups that subscribe to the topic now, or have an offset in it.
pub(crate) fn groups(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = TopicRequest::decode(&request.ext_fields)?;
    let online = broker.consumers.groups_of_topic(&header.topic);
    let groups: BTreeSet<String> = &online | &broker.offsets.groups_of(&header.topic);
    Ok(json(&GroupList { group_list: groups.into_iter().collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_by_name() {
        let good = TopicConfig::new("T", 8, 6);
        assert!(check_settings(&good).is_ok());
        let remark = |config: TopicConfig| check_settings(&config).unwrap_err().remark;
        assert!(remark(TopicConfig::new("a b", 8, 6)).contains("illegal characters"));
        assert!(remark(TopicConfig { write_queue_nums: -1, ..good.clone() }).contains("writeQueueNums=-1"));
        assert!(remark(TopicConfig { read_queue_nums: 1 << 30, ..good.clone() }).contains("readQueueNums"));
        assert!(remark(TopicConfig { perm: 64, ..good.clone() }).contains("perm=64"));
        assert!(remark(TopicConfig { topic_filter_type: "X".into(), ..good }).contains("SINGLE_TAG"));
    }
}
