//! `RECALL_MESSAGE`: takes a timer message back before its time (5.x's `RecallMessageProcessor`).
//!
//! A handle, made when the message was sent, says which one: `v1 topic brokerName time key`, joined by
//! blanks, in base64 of the URL's alphabet. What is stored is a deletion for the same time.

use std::sync::Arc;

use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use rocketmq_remoting::bodies::PERM_WRITE;
use rocketmq_remoting::header::message::{RecallMessageRequest, RecallMessageResponse};
use rocketmq_remoting::{Answer, Command, Header, Peer, ResponseCode};
use rocketmq_store::{NewMessage, TAGS, UNIQ_KEY, push_property};

use crate::broker::Broker;
use crate::clock;
use crate::config::{BrokerRole, FlushDiskType};
use crate::refusal::Refusal;
use crate::timer::{DEL_UNIQKEY, DELIVER_MS};
use crate::waiting::Waiting;

/// Padded as Java pads, read with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const VERSION: &str = "v1";
/// The tag of a deletion.
const TAG: &str = "_RECALL_TAG_";

/// The handle of a message that waits with this `TIMER_OUT_MS`.
pub(crate) fn handle(topic: &str, broker_name: &str, out_ms: i64, key: &str) -> String {
    // Any time within the step leads to the step before, where the message is.
    BASE64.encode(format!("{VERSION} {topic} {broker_name} {} {key}", out_ms + 1))
}

struct Handle {
    topic: String,
    broker_name: String,
    deliver_ms: Option<i64>,
    key: String,
}

fn read_handle(text: &str) -> Option<Handle> {
    let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    let mut items = text.split(' ').map(str::to_owned);
    let version = items.next()?;
    let (topic, broker_name, time, key) = (items.next()?, items.next()?, items.next()?, items.next()?);
    // The key becomes a property.
    let is_plain = !key.is_empty() && !key.chars().any(char::is_control);
    (version == VERSION && is_plain).then(|| Handle { topic, broker_name, deliver_ms: time.parse().ok(), key })
}

/// Stores the deletion. That the message is still there is not looked at, as in Java.
pub(crate) fn recall(broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Result<Answer, Refusal> {
    let config = broker.config();
    let refuse = |code, remark: &str| Err(Refusal::new(code, remark));
    let unavailable = "recall failed, broker service not available";
    if !config.recall_message_enable {
        return refuse(ResponseCode::NO_PERMISSION, "recall failed, operation is forbidden");
    }
    if config.broker_role == BrokerRole::Slave {
        return refuse(ResponseCode::SLAVE_NOT_AVAILABLE, unavailable);
    }
    let now = clock::now_millis();
    let is_writable = config.broker_permission & PERM_WRITE != 0 || config.allow_recall_when_broker_not_writeable;
    if now < config.start_accept_send_request_time_stamp || !is_writable {
        return refuse(ResponseCode::SERVICE_NOT_AVAILABLE, unavailable);
    }
    let header = RecallMessageRequest::decode(&request.ext_fields)?;
    if broker.topics.get(&header.topic).is_none() {
        let remark = format!("recall failed, the topic[{}] not exist", header.topic);
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    }
    let Some(handle) = read_handle(&header.recall_handle) else {
        return refuse(ResponseCode::ILLEGAL_OPERATION, "recall handle is invalid");
    };
    if *header.topic != *handle.topic {
        return refuse(ResponseCode::ILLEGAL_OPERATION, "recall failed, topic not match");
    }
    if handle.broker_name != config.broker_name {
        return refuse(ResponseCode::ILLEGAL_OPERATION, unavailable);
    }
    let time = handle.deliver_ms.filter(|ms| *ms > now && *ms - now < config.timer_max_delay_sec * 1000);
    let Some(deliver_ms) = time else {
        return refuse(ResponseCode::ILLEGAL_OPERATION, "recall failed, timestamp invalid");
    };

    let mut text = Vec::new();
    push_property(&mut text, TAGS, TAG);
    push_property(&mut text, DEL_UNIQKEY, &handle.key);
    push_property(&mut text, UNIQ_KEY, &handle.key);
    push_property(&mut text, DELIVER_MS, &deliver_ms.to_string());
    push_property(&mut text, "BORN_TIMESTAMP", &now.to_string());
    let group = header.producer_group.as_deref().unwrap_or("");
    if !group.is_empty() && !group.chars().any(char::is_control) {
        push_property(&mut text, "PGROUP", group);
    }
    let waiting = Waiting::of(&text, &config, now)?;
    let deletion = NewMessage {
        topic: &handle.topic,
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: now,
        born_host: peer.remote(),
        store_host: broker.store_host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"0",
        properties: &text,
    };
    let failed = |_| Refusal::new(ResponseCode::SYSTEM_ERROR, "recall failed, execute error");
    let end = waiting.append(broker, &deletion).map_err(failed)?.end;
    let region = config.region_id.clone().into();
    let answer = Command::ok().with_header(&RecallMessageResponse { msg_id: handle.key.into(), region });
    let broker = Arc::clone(broker);
    Ok(Answer::later(async move {
        // Java counts a recall as done whatever disk and slave say.
        if config.flush_disk_type == FlushDiskType::SyncFlush
            && let Err(error) = broker.store.flushed(end).await
        {
            tracing::warn!(%error, "a recall is not on disk");
        }
        if config.broker_role == BrokerRole::SyncMaster && broker.replicated(end).await != ResponseCode::SUCCESS {
            tracing::warn!("a recall is not on a slave");
        }
        answer
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_javas() {
        let text = handle("T", "b", 11_000, "K1");
        assert_eq!(text, "djEgVCBiIDExMDAxIEsx");
        for text in [text.as_str(), "djEgVCBiIDExMDAxIEsxMg==", "djEgVCBiIDExMDAxIEsxMg"] {
            let handle = read_handle(text).unwrap();
            assert_eq!((&*handle.topic, &*handle.broker_name, handle.deliver_ms), ("T", "b", Some(11_001)));
            assert!(handle.key.starts_with("K1"));
        }
        let encoded = |text: &str| BASE64.encode(text);
        for bad in
            ["", "%%", &encoded("v2 T b 1 k"), &encoded("v1 T b 1"), &encoded("v1 T b 1 k\u{1}x"), &encoded("v1")]
        {
            assert!(read_handle(bad).is_none(), "{bad}");
        }
    }
}
