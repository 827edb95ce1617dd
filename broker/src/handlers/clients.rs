//! Who is connected: members of groups, for clients and tools.

use std::collections::BTreeMap;
use std::sync::Arc;

use rocketmq_remoting::bodies::{CheckClientBody, ConsumerIdList, GroupSubscription, ProducerConnection};
use rocketmq_remoting::header::broker::{ConsumerGroupRequest, ProducerGroupRequest};
use rocketmq_remoting::{Command, Header, ResponseCode, fastjson};
use serde::Serialize;

use super::{field, json};
use crate::broker::Broker;
use crate::client_channel::ClientChannel;
use crate::filter;
use crate::refusal::Refusal;

/// Answer to `GET_ALL_PRODUCER_INFO`.
#[derive(Serialize)]
struct ProducerTableInfo {
    data: BTreeMap<String, Vec<ProducerInfo>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProducerInfo {
    client_id: String,
    language: &'static str,
    last_update_timestamp: i64,
    #[serde(rename = "remoteIP")]
    remote_ip: String,
    version: i32,
}

impl From<&ClientChannel> for ProducerInfo {
    fn from(channel: &ClientChannel) -> Self {
        Self {
            client_id: channel.client_id.to_string(),
            language: channel.language.name(),
            last_update_timestamp: channel.heard_ms(),
            remote_ip: format!("/{}", channel.peer.remote()),
            version: channel.version,
        }
    }
}

/// `GET_CONSUMER_LIST_BY_GROUP`: the client ids among which a member divides the queues.
pub(crate) fn consumer_list(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = ConsumerGroupRequest::decode(&request.ext_fields)?;
    let Some(group) = broker.consumers.group(&header.consumer_group) else {
        let remark = format!("no consumer for this group, {}", header.consumer_group);
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    Ok(json(&ConsumerIdList { consumer_id_list: group.client_ids() }))
}

/// `GET_CONSUMER_CONNECTION_LIST`.
pub(crate) fn consumer_connections(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = ConsumerGroupRequest::decode(&request.ext_fields)?;
    let Some(group) = broker.consumers.group(&header.consumer_group) else {
        let remark = format!("the consumer group[{}] not online", header.consumer_group);
        return Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark));
    };
    Ok(json(&group.connection()))
}

/// `GET_PRODUCER_CONNECTION_LIST`.
pub(crate) fn producer_connections(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = ProducerGroupRequest::decode(&request.ext_fields)?;
    let Some(connection_set) = broker.producers.connections(&header.producer_group) else {
        let remark = format!("the producer group[{}] not exist", header.producer_group);
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    Ok(json(&ProducerConnection { connection_set }))
}

/// `GET_ALL_PRODUCER_INFO`.
pub(crate) fn all_producers(broker: &Broker) -> Command {
    let groups = broker.producers.all().into_iter();
    let infos =
        |channels: Vec<_>| channels.iter().map(|channel: &std::sync::Arc<_>| ProducerInfo::from(&**channel)).collect();
    json(&ProducerTableInfo { data: groups.map(|(group, channels)| (group, infos(channels))).collect() })
}

/// `QUERY_SUBSCRIPTION_BY_CONSUMER` (5.x): what an online group wants of a topic.
pub(crate) fn subscription(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let (group, topic) = (field(request, "group")?, field(request, "topic")?);
    let subscription_data = broker.consumers.subscription(group, topic).map(Arc::unwrap_or_clone);
    Ok(json(&GroupSubscription { group: group.to_string(), subscription_data, topic: topic.to_string() }))
}

/// `GET_ALL_MESSAGE_REQUEST_MODE`, which slaves of 5.x ask for: no group pops here.
pub(crate) fn request_modes() -> Command {
    Command::ok().with_body("{\"messageRequestModeMap\":{}}")
}

/// `CHECK_CLIENT_CONFIG`: whether a subscription can be served, asked before it is used.
pub(crate) fn check_client(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let body = request.body.bytes();
    if body.is_empty() {
        return Ok(Command::ok());
    }
    let check: CheckClientBody = fastjson::from_slice(&body)?;
    let wanted = &check.subscription_data;
    if filter::is_tag_type(Some(&wanted.expression_type)) {
        return Ok(Command::ok());
    }
    if !broker.config().enable_property_filter {
        return Err(Refusal::no_property_filter(&wanted.expression_type));
    }
    let compiled = filter::compile(&wanted.expression_type, &wanted.sub_string);
    compiled.map_err(|error| {
        tracing::warn!(client = check.client_id, group = check.group, topic = wanted.topic, "{error}");
        Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, error)
    })?;
    Ok(Command::ok())
}
