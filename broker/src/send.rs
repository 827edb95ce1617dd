//! `SEND_MESSAGE`, `SEND_MESSAGE_V2` and `SEND_BATCH_MESSAGE` (4.9's `SendMessageProcessor`).

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Buf as _;
use bytestring::ByteString;
use rocketmq_remoting::bodies::{PERM_READ, PERM_WRITE, TopicConfig};
use rocketmq_remoting::header::message::{SendMessageRequest, SendMessageRequestV2, SendMessageResponse};
use rocketmq_remoting::{Answer, Command, Header, HeaderError, Peer, RequestCode, ResponseCode};
use rocketmq_store::{
    Appended, NewMessage, StoreError, UNIQ_KEY, message_id, properties, property, push_property, sys_flag,
};

use crate::broker::Broker;
use crate::clock;
use crate::config::{BrokerConfig, BrokerRole, FlushDiskType};
use crate::delay;
use crate::handlers::recall;
use crate::limits::{Limit, Pass};
use crate::refusal::Refusal;
use crate::router::aside;
use crate::send_back;
use crate::timer;
use crate::topics;
use crate::transaction;
use crate::waiting::Waiting;

/// Properties of a message at most, in bytes: their length has 15 bits on disk.
const PROPERTIES_MAX: usize = 32_767;

/// Stores a message or a batch, and answers when it is as safe as the configuration promises.
pub(crate) fn send(broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Answer {
    let sent = decode(request).and_then(|header| {
        if broker.topics.get(&header.topic).is_none() {
            // The topic may have to be made, which waits for the disk.
            return Ok(aside(send_to_new_topic, broker, peer, request));
        }
        try_send(broker, peer, request, &header)
    });
    sent.unwrap_or_else(|refusal| Answer::Now(refused(broker, refusal)))
}

fn send_to_new_topic(broker: &Arc<Broker>, peer: &Arc<Peer>, request: &Command) -> Answer {
    let sent = decode(request).and_then(|header| try_send(broker, peer, request, &header));
    sent.unwrap_or_else(|refusal| Answer::Now(refused(broker, refusal)))
}

fn refused(broker: &Broker, refusal: Refusal) -> Command {
    broker.stats.put_failed();
    // A Java client wants the trace fields even of a refusal.
    refusal.into_response(&broker.limits).with_header(&response_header(&broker.config()))
}

fn decode(request: &Command) -> Result<SendMessageRequest, Refusal> {
    if request.request_code() == RequestCode::SEND_MESSAGE {
        Ok(SendMessageRequest::decode(&request.ext_fields)?)
    } else {
        Ok(SendMessageRequestV2::decode(&request.ext_fields)?.into())
    }
}

fn try_send(
    broker: &Arc<Broker>,
    peer: &Arc<Peer>,
    request: &Command,
    header: &SendMessageRequest,
) -> Result<Answer, Refusal> {
    let is_batch = header.batch || request.request_code() == RequestCode::SEND_BATCH_MESSAGE;
    let config = broker.config();
    check_broker(&config)?;
    let topic = find_topic(broker, &config, header)?;
    let queue_id = choose_queue(&topic, header)?;
    let dead_letters = if is_batch { None } else { send_back::dead_letters_of_send(broker, header)? };
    let body = request.body.bytes();
    let text = header.properties.as_deref().unwrap_or("").as_bytes();
    if body.len() > config.max_message_size || text.len() > PROPERTIES_MAX {
        return Err(too_large(&config).at(Limit::MessageSize));
    }
    if is_batch && sys_flag::transaction(header.sys_flag) != 0 {
        return Err(too_large(&config));
    }
    let is_half = !is_batch && transaction::is_half(header.sys_flag, header.reconsume_times, text, &config);
    if is_half {
        check_half(broker, &config)?;
    }
    let waiting = if is_batch || dead_letters.is_some() {
        Waiting::Not
    } else {
        Waiting::of(text, &config, clock::now_millis())?
    };
    let half_added = if is_half { transaction::properties_added(&header.topic, &header.producer_group) } else { 0 };
    if text.len() + waiting.properties_added(&header.topic) + half_added > PROPERTIES_MAX {
        return Err(too_large(&config));
    }
    let message = NewMessage {
        topic: dead_letters.as_ref().map_or(&header.topic, |topic| &topic.topic_name),
        queue_id: if dead_letters.is_some() { 0 } else { queue_id },
        flag: header.flag,
        sys_flag: header.sys_flag | if topic.topic_filter_type == "MULTI_TAG" { sys_flag::MULTI_TAGS } else { 0 },
        born_timestamp: header.born_timestamp,
        born_host: peer.remote(),
        store_host: broker.store_host,
        reconsume_times: header.reconsume_times,
        prepared_transaction_offset: 0,
        body: &body,
        properties: text,
    };
    // Before it is stored: what is refused must not be consumed.
    let durability = Durability::of(broker, &config, property(text, "WAIT") != Some("false"))?;
    let appended = if is_batch {
        append_batch(broker, &config, &message)
    } else if is_half {
        with_origin(&config, &message, |half| transaction::append_half(broker, half, &header.producer_group))
    } else {
        append_single(broker, &config, &message, waiting)
    }
    .map_err(|error| match error {
        StoreError::MessageTooLarge { .. } | StoreError::PropertiesTooLong { .. } => {
            too_large(&config).at(Limit::MessageSize)
        }
        other => Refusal::from(other),
    })?;
    let stored_in = if is_half { (topics::TRANS_HALF_TOPIC, 0) } else { (&*header.topic, queue_id) };
    broker.stats.put(stored_in.0, stored_in.1, u64::from(appended.count), body.len() as u64);
    let mut response = response_header(&config);
    if is_half {
        response.transaction_id = property(text, UNIQ_KEY).map(Into::into);
    } else {
        response.recall_handle = recall_handle(&config, &header.topic, text, waiting);
    }
    Ok(answer(broker, &config, response, queue_id, &appended, durability))
}

/// What takes the message back, for a timer message that has a key to name it by.
fn recall_handle(config: &BrokerConfig, topic: &str, text: &[u8], waiting: Waiting) -> Option<ByteString> {
    let Waiting::Timer(out_ms) = waiting else { return None };
    if topic.starts_with(topics::RETRY_PREFIX) {
        return None;
    }
    property(text, UNIQ_KEY).map(|key| recall::handle(topic, &config.broker_name, out_ms, key).into())
}

/// Refuses to send before the time from which the broker serves.
pub(crate) fn check_start(config: &BrokerConfig) -> Result<(), Refusal> {
    if clock::now_millis() < config.start_accept_send_request_time_stamp {
        let remark =
            format!("broker unable to service, until {}", clock::readable(config.start_accept_send_request_time_stamp));
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    Ok(())
}

fn check_broker(config: &BrokerConfig) -> Result<(), Refusal> {
    check_start(config)?;
    if config.broker_role == BrokerRole::Slave {
        let remark =
            "service not available now. It may be caused by one of the following reasons: the broker is a slave";
        return Err(Refusal::new(ResponseCode::SERVICE_NOT_AVAILABLE, remark));
    }
    Ok(())
}

/// The topic, made now where it is not there and may be.
pub(crate) fn find_topic(
    broker: &Broker,
    config: &BrokerConfig,
    header: &SendMessageRequest,
) -> Result<Arc<TopicConfig>, Refusal> {
    let name = &*header.topic;
    if let Some(topic) = broker.topics.get(name) {
        if config.broker_permission & PERM_WRITE == 0 && topic.order {
            let remark = format!("the broker[{}] sending message is forbidden", config.broker_ip1);
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        if topics::is_send_forbidden(name) {
            return Err(send_forbidden(name));
        }
        // Nobody looks at the topic's permission here, as in Java: producers keep away from it by the route, and those that
        // have not heard of a change yet lose nothing.
        return Ok(topic);
    }
    topics::check_name(name).map_err(|reason| Refusal::new(ResponseCode::SYSTEM_ERROR, reason))?;
    if topics::is_send_forbidden(name) {
        return Err(send_forbidden(name));
    }
    let failed = |error: anyhow::Error| Refusal::new(ResponseCode::SYSTEM_ERROR, format!("{error:#}"));
    let is_retry = name.starts_with(topics::RETRY_PREFIX);
    let sys_flag = match (header.unit_mode, is_retry) {
        (false, _) => 0,
        (true, false) => topics::FLAG_UNIT,
        (true, true) => topics::FLAG_UNIT_SUB,
    };
    let missing = |field| HeaderError::Missing { field };
    let template = header.default_topic.as_deref().ok_or_else(|| missing("defaultTopic"))?;
    let queues = header.default_topic_queue_nums.ok_or_else(|| missing("defaultTopicQueueNums"))?;
    let made = broker.topics.create_for_send(name, template, queues, sys_flag).map_err(failed)?;
    match made {
        Some(topic) => Ok(topic),
        None if is_retry => {
            let config = TopicConfig::new(name, 1, PERM_READ | PERM_WRITE);
            broker.topics.get_or_create(TopicConfig { topic_sys_flag: sys_flag, ..config }).map_err(failed)
        }
        None => Err(Refusal::topic_not_exist(name)),
    }
}

fn send_forbidden(topic: &str) -> Refusal {
    Refusal::new(ResponseCode::NO_PERMISSION, format!("Sending message to topic[{topic}] is forbidden."))
}

/// The queue that was asked for; any negative number leaves the choice to the broker.
pub(crate) fn choose_queue(topic: &TopicConfig, header: &SendMessageRequest) -> Result<i32, Refusal> {
    let queues = topic.write_queue_nums.max(topic.read_queue_nums);
    if header.queue_id >= queues {
        let remark = format!(
            "request queueId[{}] is illegal, topic:[{}] topicConfig.writeQueueNums:[{}] topicConfig.readQueueNums:[{}]",
            header.queue_id, header.topic, topic.write_queue_nums, topic.read_queue_nums
        );
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    if header.queue_id >= 0 {
        return Ok(header.queue_id);
    }
    Ok(rand::random_range(0..topic.write_queue_nums.max(1)))
}

/// Whether half messages are taken; the first one makes the topics that they wait in.
fn check_half(broker: &Broker, config: &BrokerConfig) -> Result<(), Refusal> {
    if config.reject_transaction_message {
        let remark = format!("the broker[{}] sending transaction message is forbidden", config.broker_ip1);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    transaction::create_topics(broker).map_err(|error| Refusal::new(ResponseCode::SYSTEM_ERROR, format!("{error:#}")))
}

fn too_large(config: &BrokerConfig) -> Refusal {
    let remark = format!(
        "the message is illegal, maybe msg body or properties length not matched. msg body length limit {}B, msg properties length limit 32KB.",
        config.max_message_size
    );
    Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark)
}

thread_local! {
    /// Properties as they are stored, made anew for each message in the same memory.
    static STORED_PROPERTIES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn append_single(
    broker: &Broker,
    config: &BrokerConfig,
    message: &NewMessage<'_>,
    waiting: Waiting,
) -> Result<Appended, StoreError> {
    with_origin(config, message, |message| waiting.append(broker, message))
}

/// Stores the message with what every message says of where it is from.
fn with_origin<R>(config: &BrokerConfig, message: &NewMessage<'_>, append: impl FnOnce(&NewMessage<'_>) -> R) -> R {
    STORED_PROPERTIES.with_borrow_mut(|stored| {
        stored.clear();
        stored.extend_from_slice(message.properties);
        push_origin(stored, config);
        append(&NewMessage { properties: stored, ..*message })
    })
}

/// The last two are those that brokers of 5.x add (`AbstractSendMessageProcessor.buildMsgContext`): its consumers write no trace of a
/// message without a region (`AsyncTraceDispatcher`), and those of 4.9 none of one that says `false`.
fn push_origin(stored: &mut Vec<u8>, config: &BrokerConfig) {
    push_property(stored, "CLUSTER", &config.broker_cluster_name);
    push_property(stored, "MSG_REGION", &config.region_id);
    push_property(stored, "TRACE_ON", if config.trace_on { "true" } else { "false" });
}

/// Takes a batch apart: `i32 size | i32 magic | i32 crc | i32 flag | i32 length, body | i16 length,
/// properties` each, and appends its messages as one.
fn append_batch(broker: &Broker, config: &BrokerConfig, whole: &NewMessage<'_>) -> Result<Appended, StoreError> {
    let items = batch_items(whole.body).ok_or(StoreError::Batch { reason: "its body is cut short or malformed" })?;
    let texts: Vec<Vec<u8>> = items
        .iter()
        .map(|item| {
            let mut text = item.properties.to_vec();
            // Not what the item has itself: clients of 5.x give the batch a unique key too, and of two
            // properties of one name consumers take the last.
            for (name, value) in properties(whole.properties) {
                if property(item.properties, name).is_none() {
                    push_property(&mut text, name, value);
                }
            }
            push_origin(&mut text, config);
            text
        })
        .collect();
    if texts.iter().any(|text| delay::level_of(text, config).is_some() || timer::asks_for_time(text)) {
        return Err(StoreError::Batch { reason: "a message of a batch cannot be delayed" });
    }
    let messages: Vec<NewMessage<'_>> = items
        .iter()
        .zip(&texts)
        .map(|(item, text)| NewMessage { flag: item.flag, body: item.body, properties: text, ..*whole })
        .collect();
    broker.store.append_batch(&messages)
}

struct BatchItem<'a> {
    flag: i32,
    body: &'a [u8],
    properties: &'a [u8],
}

fn batch_items(mut rest: &[u8]) -> Option<Vec<BatchItem<'_>>> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        rest.try_get_i32().ok()?;
        rest.try_get_i32().ok()?;
        rest.try_get_i32().ok()?;
        let flag = rest.try_get_i32().ok()?;
        let length = usize::try_from(rest.try_get_i32().ok()?).ok()?;
        let (body, tail) = rest.split_at_checked(length)?;
        rest = tail;
        let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
        let (properties, tail) = rest.split_at_checked(length)?;
        rest = tail;
        items.push(BatchItem { flag, body, properties });
    }
    (!items.is_empty()).then_some(items)
}

/// The answer to a stored message: now under asynchronous flush and replication, else when disk
/// and slave have it. Both are waited for at once, so it takes as long as the slower one.
fn answer(
    broker: &Arc<Broker>,
    config: &Arc<BrokerConfig>,
    mut header: SendMessageResponse,
    queue_id: i32,
    appended: &Appended,
    durability: Durability,
) -> Answer {
    header.msg_id = Some(message_ids(broker, appended));
    header.queue_id = Some(queue_id);
    header.queue_offset = Some(appended.queue_offset);
    let Durability { flushes, replicates, pass: Some(pass) } = durability else {
        return Answer::Now(Command::ok().with_header(&header));
    };
    let (broker, config, end) = (Arc::clone(broker), Arc::clone(config), appended.end);
    Answer::later(async move {
        let _pass = pass;
        let flushed = async { if flushes { broker.store.flushed(end).await } else { Ok(()) } };
        let replicated = async { if replicates { broker.replicated(end).await } else { ResponseCode::SUCCESS } };
        let (flushed, replicated) = tokio::join!(flushed, replicated);
        let response = match flushed {
            Ok(()) => not_replicated(replicated, &config)
                .map_or_else(Command::ok, |refusal| refusal.into_response(&broker.limits)),
            // The message may be lost with the next power cut: the producer must not count on it.
            Err(error) => not_flushed(error, &config).into_response(&broker.limits),
        };
        response.with_header(&header)
    })
}

fn not_flushed(error: StoreError, config: &BrokerConfig) -> Refusal {
    let limit = match &error {
        StoreError::FlushTimeout { .. } => format!(", syncFlushTimeout={} ms", config.sync_flush_timeout.as_millis()),
        _ => String::new(),
    };
    let refusal = Refusal::from(error);
    Refusal { remark: refusal.remark + &limit, ..refusal }
}

fn not_replicated(code: ResponseCode, config: &BrokerConfig) -> Option<Refusal> {
    let (limit, remark) = match code {
        ResponseCode::SUCCESS => return None,
        ResponseCode::FLUSH_SLAVE_TIMEOUT => {
            let remark =
                format!("no slave has the message within slaveTimeout={} ms", config.slave_timeout.as_millis());
            (Limit::SlaveTime, remark)
        }
        _ => {
            let max = config.ha_slave_fallbehind_max;
            (Limit::SlaveBehind, format!("no slave is nearer than haSlaveFallbehindMax={max} bytes"))
        }
    };
    Some(Refusal::new(code, remark).at(limit))
}

/// What an answer waits for, and its place among those that wait.
struct Durability {
    flushes: bool,
    replicates: bool,
    /// None where it waits for nothing.
    pass: Option<Pass>,
}

impl Durability {
    fn of(broker: &Broker, config: &BrokerConfig, waits: bool) -> Result<Self, Refusal> {
        let flushes = waits && config.flush_disk_type == FlushDiskType::SyncFlush;
        let replicates = waits && config.broker_role == BrokerRole::SyncMaster;
        if replicates && let Some(remark) = broker.replication.too_few_in_sync(config) {
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark).at(Limit::SlaveBehind));
        }
        let pass = if flushes || replicates { Some(broker.limits.sends.enter()?) } else { None };
        Ok(Self { flushes, replicates, pass })
    }
}

pub(crate) fn response_header(config: &BrokerConfig) -> SendMessageResponse {
    SendMessageResponse {
        region: config.region_id.clone().into(),
        trace_on: config.trace_on,
        ..SendMessageResponse::default()
    }
}

/// The offset ids, comma-joined for a batch: its messages lie one behind the other.
fn message_ids(broker: &Broker, appended: &Appended) -> ByteString {
    let mut ids = message_id(broker.store_host, appended.offset);
    let mut offset = appended.offset;
    for _ in 1..appended.count {
        let Some(unit) = broker.store.message_at(offset) else { break };
        offset += unit.len() as u64;
        ids.push(',');
        ids.push_str(&message_id(broker.store_host, offset));
    }
    ids.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_takes_too_long_says_how_long_it_may() {
        let refusal = not_flushed(StoreError::FlushTimeout { end: 7 }, &BrokerConfig::built_in());
        assert_eq!((refusal.code, refusal.limit), (ResponseCode::FLUSH_DISK_TIMEOUT, Some(Limit::FlushTime)));
        assert_eq!(refusal.remark, "flush up to offset 7 timed out, syncFlushTimeout=5000 ms");
        let poisoned = not_flushed(StoreError::Poisoned { reason: "msync".into() }, &BrokerConfig::built_in());
        assert_eq!(poisoned.remark, "service not available now. the store is poisoned: msync");
    }

    #[test]
    fn a_batch_is_taken_apart() {
        let mut body = Vec::new();
        for (flag, text, props) in [(1i32, "one", "K\u{1}a"), (2, "", "")] {
            body.extend([0; 12]);
            body.extend(flag.to_be_bytes());
            body.extend((text.len() as i32).to_be_bytes());
            body.extend(text.as_bytes());
            body.extend((props.len() as i16).to_be_bytes());
            body.extend(props.as_bytes());
        }
        let items = batch_items(&body).unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!((items[0].flag, items[0].body, items[0].properties), (1, &b"one"[..], &b"K\x01a"[..]));
        assert_eq!((items[1].flag, items[1].body), (2, &b""[..]));
        for cut in 1..body.len() {
            let whole = batch_items(&body[..cut]).map_or(0, |items| items.len());
            assert!(whole < 2, "cut at {cut}");
        }
        assert!(batch_items(&[]).is_none());
        assert!(batch_items(&[255; 40]).is_none());
    }
}
