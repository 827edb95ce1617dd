//! Messages by key and by place (4.9's `QueryMessageProcessor`).

use rocketmq_remoting::header::message::{QueryMessageRequest, QueryMessageResponse, ViewMessageRequest};
use rocketmq_remoting::{Command, Header, ResponseCode};

use crate::broker::Broker;
use crate::refusal::Refusal;

/// `QUERY_MESSAGE`: messages under a key. Keys are looked up by hash, so some may have another.
pub(crate) fn by_key(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = QueryMessageRequest::decode(&request.ext_fields)?;
    let max =
        if header.unique_key_query { broker.config().default_query_max_num } else { header.max_num.max(0) as usize };
    let found = broker.store.query(&header.topic, &header.key, max, header.begin_timestamp, header.end_timestamp);
    let answer_header = QueryMessageResponse {
        index_last_update_timestamp: found.index_last_update_timestamp,
        index_last_update_phyoffset: found.index_last_update_phyoffset,
    };
    if found.messages.is_empty() {
        let remark = "can not find message, maybe time range not correct";
        return Ok(Command::refusal(ResponseCode::QUERY_NOT_FOUND, remark).with_header(&answer_header));
    }
    Ok(Command::ok().with_header(&answer_header).with_body(found.messages))
}

/// `VIEW_MESSAGE_BY_ID`: the message at a place of the commit log.
pub(crate) fn by_place(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let header = ViewMessageRequest::decode(&request.ext_fields)?;
    let message = u64::try_from(header.offset).ok().and_then(|offset| broker.store.message_at(offset));
    match message {
        Some(message) => Ok(Command::ok().with_body(message)),
        None => Err(Refusal::new(
            ResponseCode::SYSTEM_ERROR,
            format!("can not find message by the offset, {}", header.offset),
        )),
    }
}
