//! What a broker writes down when a transaction has ended: a message of `RMQ_SYS_TRANS_OP_HALF_TOPIC` with the tag `d` whose
//! body names half messages by their places in their queue, in decimal.
//!
//! 4.9 writes one a message; 5.x gathers several and sets a comma behind each. One without a comma is what both read, and what
//! is written here, at once. May not keep anything.

use rocketmq_store::{Appended, NewMessage, StoreError, TAGS, decode_message, property, push_property};

use super::half_message::QUEUE;
use crate::broker::Broker;
use crate::clock;
use crate::topics::TRANS_OP_HALF_TOPIC;

/// The tag of all such messages.
const REMOVE_TAG: &str = "d";

/// Writes that the half message at that place is done with.
pub(super) fn append(broker: &Broker, half_offset: i64) -> Result<Appended, StoreError> {
    let mut text = Vec::new();
    push_property(&mut text, TAGS, REMOVE_TAG);
    broker.store.append(&NewMessage {
        topic: TRANS_OP_HALF_TOPIC,
        queue_id: QUEUE,
        flag: 0,
        sys_flag: 0,
        born_timestamp: clock::now_millis(),
        born_host: broker.store_host,
        store_host: broker.store_host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: half_offset.to_string().as_bytes(),
        properties: &text,
    })
}

/// The places that a stored unit names, in either form; none of what is no such message.
pub(super) fn half_offsets(unit: &[u8]) -> Vec<i64> {
    let Ok(message) = decode_message(unit) else { return Vec::new() };
    if property(message.properties, TAGS) != Some(REMOVE_TAG) {
        return Vec::new();
    }
    let body = str::from_utf8(message.body).unwrap_or("");
    body.split(',').filter_map(|text| text.trim().parse().ok()).filter(|offset| *offset >= 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::testing::stored;

    fn read(body: &str, pairs: &[(&str, &str)]) -> Vec<i64> {
        let (_dir, _store, unit) = stored(TRANS_OP_HALF_TOPIC, body, pairs);
        half_offsets(&unit)
    }

    #[test]
    fn both_forms_are_read() {
        let tag = [(TAGS, REMOVE_TAG)];
        assert_eq!(read("17", &tag), [17]);
        assert_eq!(read("17,4,9223372036854775807,", &tag), [17, 4, i64::MAX]);
        assert_eq!(read(",x,-3,99999999999999999999, 5,", &tag), [5]);
        assert!(read("", &tag).is_empty() && read("17", &[]).is_empty() && read("17", &[(TAGS, "e")]).is_empty());
        assert!(half_offsets(b"nothing").is_empty());
    }
}
