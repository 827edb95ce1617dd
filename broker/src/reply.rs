//! `SEND_REPLY_MESSAGE` and its second version: the answer to a request message goes on to the client
//! that waits for it (4.9's `ReplyMessageProcessor`).
//!
//! The asker is a producer with a connection to this broker: a client beats at all brokers of the
//! reply topic before it asks. May not block: the asker's word is waited for beside the connection.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use rocketmq_remoting::header::message::{
    ReplyMessageRequest, SendMessageRequest, SendMessageRequestV2, SendMessageResponse,
};
use rocketmq_remoting::{Answer, Command, Header, Peer, RequestCode, ResponseCode};
use rocketmq_store::{NewMessage, properties, property, push_property};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::Broker;
use crate::client_channel::ClientChannel;
use crate::clock;
use crate::config::BrokerRole;
use crate::limits::{Limit, busy};
use crate::refusal::Refusal;
use crate::send;

const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
/// How long the asker may take (`Broker2Client.callClient`).
const PATIENCE: Duration = Duration::from_secs(10);
/// Replies on their way at once, in KiB of their bodies: an asker that does not listen holds its
/// replies for as long as [`PATIENCE`].
const PENDING_KIB_MAX: usize = 64 * 1024;

/// Room for the replies that wait for their asker.
#[derive(Debug)]
pub(crate) struct PendingReplies(Arc<Semaphore>);

impl Default for PendingReplies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PENDING_KIB_MAX)))
    }
}

impl PendingReplies {
    /// Takes room for one reply until the permit is dropped.
    fn admit(&self, body_bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = u32::try_from(body_bytes / 1024 + 1).unwrap_or(u32::MAX);
        Arc::clone(&self.0)
            .try_acquire_many_owned(kib)
            .map_err(|_| busy(Limit::ReplyKib, "memory of replies that wait for their askers", PENDING_KIB_MAX))
    }
}

/// Pushes a reply to its asker, keeps it in the reply topic where that is on, and answers whether the
/// asker took it.
pub(crate) fn reply(broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Answer {
    match try_reply(broker, peer, request) {
        Ok(answer) => answer,
        // A Java client wants the trace fields even of a refusal.
        Err(refusal) => {
            Answer::Now(refusal.into_response(&broker.limits).with_header(&send::response_header(&broker.config())))
        }
    }
}

fn try_reply(broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Result<Answer, Refusal> {
    let header = if request.request_code() == RequestCode::SEND_REPLY_MESSAGE {
        SendMessageRequest::decode(&request.ext_fields)?
    } else {
        SendMessageRequestV2::decode(&request.ext_fields)?.into()
    };
    let config = broker.config();
    send::check_start(&config)?;
    let topic = send::find_topic(broker, &config, &header)?;
    let queue_id = send::choose_queue(&topic, &header)?;
    let text = header.properties.clone().unwrap_or_default();
    let reply = Reply { queue_id, born_host: peer.remote(), body: request.body.bytes().to_vec(), header };
    let asker = match property(&*text, REPLY_TO_CLIENT) {
        None => Err(format!("reply message properties[{REPLY_TO_CLIENT}] is null")),
        Some(id) => {
            broker.producers.find(id).ok_or_else(|| format!("push reply message fail, channel of <{id}> not found."))
        }
    };
    match asker {
        Err(remark) => {
            tracing::warn!("{remark}");
            Ok(Answer::Now(finish(broker, &reply, Err(remark))))
        }
        Ok(asker) => {
            let room = broker.pending_replies.admit(reply.body.len())?;
            let broker = Arc::clone(broker);
            Ok(Answer::later(async move {
                let pushed = push(&broker, asker, &reply).await;
                drop(room);
                finish(&broker, &reply, pushed)
            }))
        }
    }
}

/// A reply on its way. Owns its body, for the connection's buffer is not held for as long as that.
struct Reply {
    header: SendMessageRequest,
    queue_id: i32,
    born_host: std::net::SocketAddr,
    body: Vec<u8>,
}

/// Hands the reply to the client that asked; the error is the remark of the answer.
async fn push(broker: &Broker, asker: Arc<ClientChannel>, reply: &Reply) -> Result<(), String> {
    let header = push_header(broker, reply, clock::now_millis());
    let question =
        Command::request(RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT).with_header(&header).with_body(reply.body.clone());
    let client_id = &asker.client_id;
    let failed = match asker.peer.request(question, PATIENCE).await {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => return Ok(()),
        Ok(answer) => format!("{}: {}", answer.response_code(), answer.remark()),
        Err(error) => error.to_string(),
    };
    tracing::warn!("push reply message to <{client_id}> fail: {failed}");
    Err(format!("push reply message to {client_id}fail."))
}

fn push_header(broker: &Broker, reply: &Reply, now_ms: i64) -> ReplyMessageRequest {
    let header = &reply.header;
    let mut text = Vec::new();
    let sent = header.properties.as_deref().unwrap_or_default();
    for (name, value) in properties(sent).filter(|(name, _)| *name != PUSH_REPLY_TIME) {
        push_property(&mut text, name, value);
    }
    push_property(&mut text, PUSH_REPLY_TIME, &now_ms.to_string());
    ReplyMessageRequest {
        producer_group: header.producer_group.clone(),
        topic: header.topic.clone(),
        default_topic: header.default_topic.clone(),
        default_topic_queue_nums: header.default_topic_queue_nums,
        queue_id: header.queue_id,
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        flag: header.flag,
        properties: String::from_utf8(text).ok().map(ByteString::from),
        reconsume_times: header.reconsume_times,
        unit_mode: header.unit_mode,
        born_host: reply.born_host.to_string().into(),
        store_host: broker.store_host.to_string().into(),
        store_timestamp: now_ms,
    }
}

/// Keeps the reply and answers. As in Java, whether it could be kept changes nothing but the ids of
/// the answer, and nobody waits for the disk: nobody reads replies from the topic.
fn finish(broker: &Broker, reply: &Reply, pushed: Result<(), String>) -> Command {
    let config = broker.config();
    let mut header = send::response_header(&config);
    let mut answer = match pushed {
        Ok(()) => {
            // A client fails on an answer without them.
            header.msg_id = Some("0".into());
            header.queue_id = Some(reply.queue_id);
            header.queue_offset = Some(0);
            Command::ok()
        }
        Err(remark) => Command::refusal(ResponseCode::SYSTEM_ERROR, remark),
    };
    // A slave's log is the master's: Java's store refuses there.
    if config.store_reply_message_enable && config.broker_role != BrokerRole::Slave {
        keep(broker, reply, &mut header);
    }
    header.encode(&mut answer.ext_fields);
    answer
}

fn keep(broker: &Broker, reply: &Reply, answer: &mut SendMessageResponse) {
    let header = &reply.header;
    let message = NewMessage {
        topic: &header.topic,
        queue_id: reply.queue_id,
        flag: header.flag,
        sys_flag: 0,
        born_timestamp: header.born_timestamp,
        born_host: reply.born_host,
        store_host: broker.store_host,
        reconsume_times: header.reconsume_times,
        prepared_transaction_offset: 0,
        body: &reply.body,
        properties: header.properties.as_deref().unwrap_or_default().as_bytes(),
    };
    match broker.store.append(&message) {
        Ok(appended) => {
            broker.stats.put(&header.topic, reply.queue_id, 1, reply.body.len() as u64);
            answer.msg_id = Some(rocketmq_store::message_id(broker.store_host, appended.offset).into());
            answer.queue_id = Some(reply.queue_id);
            answer.queue_offset = Some(appended.queue_offset);
        }
        Err(error) => tracing::warn!(topic = %header.topic, "process reply message, it is not kept: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;
    use crate::limits::Limits;

    #[test]
    fn replies_on_their_way_are_bounded_by_the_size_of_their_bodies() {
        let pending = PendingReplies::default();
        let room: Vec<_> = (0..16).map(|_| pending.admit(4 * 1024 * 1024 - 1024).unwrap()).collect();
        let refused = pending.admit(0).unwrap_err();
        assert_eq!(refused.code, ResponseCode::SYSTEM_BUSY);
        assert!(refused.remark.ends_with("reached the limit replyKib=65536"), "{refused}");
        let limits = Limits::new(&BrokerConfig::built_in(), Arc::default());
        assert_eq!(refused.into_response(&limits).response_code(), ResponseCode::SYSTEM_BUSY);
        assert!(limits.counts().any(|counted| counted == (Limit::ReplyKib, 1)));
        drop(room);
        assert!(pending.admit(4 * 1024 * 1024).is_ok());
        assert!(pending.admit(usize::MAX).is_err());
    }
}
