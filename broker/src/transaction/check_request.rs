//! `CHECK_TRANSACTION_STATE`: a producer is asked what became of its transaction.
//!
//! Sends one way, as Java does: the answer is an `END_TRANSACTION` like any other. May not store anything.

use bytes::{BufMut as _, BytesMut};
use rocketmq_remoting::header::message::CheckTransactionStateRequest;
use rocketmq_remoting::{Command, RemotingError, RequestCode};
use rocketmq_store::{MAGIC_V1, MAGIC_V2, TOPIC_MAX_V1, message_id};

use super::half_message::HalfMessage;
use crate::broker::Broker;

/// Members of a group that are tried where the first one does not take the question.
const TRIES: usize = 3;

/// Who was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A member of the group.
    One,
    /// There is none.
    Nobody,
    /// All that were tried have more to read than they do.
    Congested,
}

/// Asks a member of the producer group; `unit` is the stored half message.
pub(super) fn send(broker: &Broker, half: &HalfMessage<'_>, unit: &[u8]) -> Asked {
    let mut asked = Asked::Nobody;
    for _ in 0..TRIES {
        let Some(producer) = broker.producers.next_member(half.group) else { break };
        match producer.peer.oneway(question(broker, half, unit)) {
            Ok(()) => return Asked::One,
            Err(RemotingError::Backlog { .. }) => asked = Asked::Congested,
            Err(_) => {}
        }
    }
    if asked == Asked::Nobody {
        let (group, topic) = (half.group, half.real_topic);
        tracing::debug!(group, topic, key = half.uniq_key, "nobody of the producer group is there to be asked");
    }
    asked
}

fn question(broker: &Broker, half: &HalfMessage<'_>, unit: &[u8]) -> Command {
    let key = half.uniq_key.map(|key| key.to_owned().into());
    let header = CheckTransactionStateRequest {
        topic: Some(half.real_topic.to_owned().into()),
        tran_state_table_offset: half.offset(),
        commit_log_offset: half.view.physical_offset as i64,
        msg_id: key.clone(),
        transaction_id: key,
        offset_msg_id: message_id(half.view.store_host, half.view.physical_offset).into(),
        broker_name: Some(broker.config().broker_name.clone().into()),
    };
    Command::request(RequestCode::CHECK_TRANSACTION_STATE).with_header(&header).with_body(body(half, unit))
}

/// The stored unit with the message's own topic and queue in place of the half ones.
fn body(half: &HalfMessage<'_>, unit: &[u8]) -> Vec<u8> {
    let (topic, text) = (half.real_topic, half.view.properties);
    let length_of_length = if half.view.magic == MAGIC_V1 { 1 } else { 2 };
    let tail = length_of_length + half.view.topic.len() + 2 + text.len();
    let head = unit.get(8..unit.len().saturating_sub(tail)).unwrap_or_default();
    let is_long = topic.len() > TOPIC_MAX_V1;
    let mut body = BytesMut::with_capacity(unit.len() + topic.len());
    body.put_u32(0);
    body.put_u32(if is_long { MAGIC_V2 } else { MAGIC_V1 });
    body.put_slice(head);
    if is_long {
        body.put_u16(topic.len() as u16);
    } else {
        body.put_u8(topic.len() as u8);
    }
    body.put_slice(topic.as_bytes());
    body.put_u16(text.len() as u16);
    body.put_slice(text);
    let mut body = Vec::from(body);
    let total = (body.len() as u32).to_be_bytes();
    body[..4].copy_from_slice(&total);
    // Behind size, magic and the body's checksum.
    body[12..16].copy_from_slice(&half.real_queue.to_be_bytes());
    body
}

#[cfg(test)]
mod tests {
    use rocketmq_store::decode_message;

    use super::*;
    use crate::topics::TRANS_HALF_TOPIC;
    use crate::transaction::testing::stored;

    #[test]
    fn producers_see_the_messages_own_topic_and_queue() {
        let long = "x".repeat(200);
        for (topic, magic) in [("T", MAGIC_V1), (&*"y".repeat(127), MAGIC_V1), (&*long, MAGIC_V2)] {
            let pairs = [("REAL_TOPIC", topic), ("REAL_QID", "3"), ("PGROUP", "p")];
            let (_dir, store, unit) = stored(TRANS_HALF_TOPIC, "body", &pairs);
            let half = HalfMessage::read(&store, &unit).unwrap();
            let body = body(&half, &unit);
            let seen = decode_message(&body).unwrap();
            assert_eq!((seen.topic, seen.queue_id, seen.magic), (topic, 3, magic));
            assert_eq!((seen.body, seen.properties), (half.view.body, half.view.properties));
            assert_eq!((seen.queue_offset, seen.physical_offset), (half.view.queue_offset, half.view.physical_offset));
            assert!(seen.crc_matches() && seen.total_size as usize == body.len());
        }
    }
}
