//! Everything on the wire that is read, fed with bytes that no RocketMQ wrote: nothing panics, and what is understood is
//! written and read again as the same.

use std::fmt::Debug;
use std::time::Duration;

use bytes::BytesMut;
use rocketmq_fuzz::Corpus;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bodies::{
    BrokerData, CheckClientBody, ClusterInfo, ConsumeStats, ConsumerConnection, CorrectionOffsets, DelayOffsetTable,
    Heartbeat, KvTable, LockBatchRequest, LockBatchResponse, MessageQueue, OffsetTable, ProducerConnection,
    RegisterBroker, ResetOffset, SubscriptionData, SubscriptionGroup, SubscriptionGroupTable, TopicConfig,
    TopicConfigTable, TopicRoute, TopicStats,
};
use crate::command::{Command, FLAG_ONEWAY, Language, SerializeType};
use crate::ext_fields::ExtFields;
use crate::frame::{self, FrameLimits};
use crate::header::message::{
    EndTransactionRequest, PullMessageRequest, SendBackRequest, SendMessageRequest, SendMessageRequestV2,
};
use crate::header::name_server::RegisterBrokerRequest;
use crate::{Body, Header, fastjson, properties_file};

/// How long a target plays in an ordinary test run.
const MOMENT: Duration = Duration::from_millis(800);
const LIMITS: FrameLimits = FrameLimits { frame: 64 << 10, header: 32 << 10 };

fn corpus() -> Corpus {
    Corpus::of_crate(env!("CARGO_MANIFEST_DIR"))
}

fn send(serialize_type: SerializeType) -> Command {
    let fields = [
        ("a", "group"),
        ("b", "Topic-1"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "2"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", "UNIQ_KEY\u{1}7F000001\u{2}TAGS\u{1}Täg\u{2}"),
        ("m", "false"),
    ];
    Command {
        code: 310,
        language: Language::CPP,
        version: 407,
        opaque: -7,
        flag: FLAG_ONEWAY,
        remark: Some("a \"quoted\"\n remark é".into()),
        ext_fields: fields.into_iter().collect(),
        body: Body::from("body"),
        serialize_type,
    }
}

fn pull() -> Command {
    let fields = [
        ("consumerGroup", "g"),
        ("topic", "%RETRY%g"),
        ("queueId", "0"),
        ("queueOffset", "17"),
        ("maxMsgNums", "32"),
        ("sysFlag", "6"),
        ("commitOffset", "9"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", "a || b"),
        ("subVersion", "1700000000000"),
        ("expressionType", "TAG"),
    ];
    Command { code: 11, ext_fields: fields.into_iter().collect(), ..Command::default() }
}

/// Bodies as Java writes them: plain JSON, bare integers and objects as keys, nulls, nesting.
const BODIES: [(&str, &str); 9] = [
    (
        "heartbeat",
        r#"{"clientID":"c@1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"g","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA","subVersion":1700000000000,"tagsSet":["TagA"],"topic":"T"}],"unitMode":false}],"producerDataSet":[{"groupName":"p"}]}"#,
    ),
    ("lock", r#"{"clientId":"c@1","consumerGroup":"g","mqSet":[{"brokerName":"b","queueId":0,"topic":"T"}]}"#),
    (
        "topics",
        r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"T":{"attributes":{},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":0,"writeQueueNums":8}}}"#,
    ),
    (
        "groups",
        "{\n\t\"dataVersion\":{\"counter\":1,\"timestamp\":5},\n\t\"subscriptionGroupTable\":{\"g\":{\"groupName\":\"g\",\"retryMaxTimes\":16,\"brokerId\":0}}\n}",
    ),
    (
        "route",
        r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"b","cluster":"c"}],"filterServerTable":{},"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#,
    ),
    (
        "reset",
        r#"{"offsetTable":{{"brokerName":"b","queueId":1,"topic":"T"}:5,{"brokerName":"b","queueId":2,"topic":"T"}:-1}}"#,
    ),
    ("offsets", r#"{"offsetTable":{"T@g":{0:17,1:null}}}"#),
    (
        "stats",
        r#"{"consumeTps":0.5,"offsetTable":{{"brokerName":"b","queueId":0,"topic":"T"}:{"brokerOffset":9,"consumerOffset":7,"lastTimestamp":1700000000000}}}"#,
    ),
    ("runtime", r#"{"table":{"putTps":"0.0 0.0 0.0","escaped":"\u00e9\t\"\\"}}"#),
];

#[test]
fn the_corpus_is_what_the_encoders_make() {
    for (name, command) in [("send", send(SerializeType::Json)), ("pull", pull())] {
        corpus().hold("frame", &format!("{name}-json"), &frame::to_bytes(&command));
        let command = Command { serialize_type: SerializeType::RocketMq, ..command };
        corpus().hold("frame", &format!("{name}-binary"), &frame::to_bytes(&command));
    }
    for (name, text) in BODIES {
        corpus().hold("body", name, text.as_bytes());
    }
}

fn fields(fields: &ExtFields) -> Vec<(&str, &str)> {
    fields.iter().collect()
}

#[test]
fn frames() {
    corpus().feed("frame", MOMENT, |bytes| {
        let mut buffer = BytesMut::from(bytes);
        while let Ok(Some(command)) = frame::decode(&mut buffer, LIMITS) {
            let mut written = BytesMut::from(&frame::to_bytes(&command)[..]);
            let again = frame::decode(&mut written, FrameLimits::default()).unwrap().unwrap();
            let numbers = |c: &Command| (c.code, c.language, c.version, c.opaque, c.flag, c.serialize_type);
            assert_eq!(numbers(&again), numbers(&command));
            assert_eq!((&again.remark, fields(&again.ext_fields)), (&command.remark, fields(&command.ext_fields)));
            assert_eq!(again.body, command.body);
            headers(&command.ext_fields);
        }
    });
}

/// Typed headers take any fields, and give back what they took.
fn headers(fields: &ExtFields) {
    header::<SendMessageRequest>(fields);
    header::<SendMessageRequestV2>(fields);
    header::<PullMessageRequest>(fields);
    header::<SendBackRequest>(fields);
    header::<EndTransactionRequest>(fields);
    header::<RegisterBrokerRequest>(fields);
}

fn header<H: Header + Debug>(fields: &ExtFields) {
    let Ok(header) = H::decode(fields) else { return };
    let mut written = ExtFields::default();
    header.encode(&mut written);
    let again = H::decode(&written).unwrap();
    assert_eq!(format!("{again:?}"), format!("{header:?}"));
}

#[test]
fn bodies() {
    corpus().feed("body", MOMENT, |bytes| {
        body::<Heartbeat>(bytes);
        body::<LockBatchRequest>(bytes);
        body::<LockBatchResponse>(bytes);
        body::<TopicConfig>(bytes);
        body::<TopicConfigTable>(bytes);
        body::<SubscriptionData>(bytes);
        body::<SubscriptionGroup>(bytes);
        body::<SubscriptionGroupTable>(bytes);
        body::<TopicRoute>(bytes);
        body::<BrokerData>(bytes);
        body::<ClusterInfo>(bytes);
        body::<ResetOffset>(bytes);
        body::<OffsetTable>(bytes);
        body::<DelayOffsetTable>(bytes);
        body::<CorrectionOffsets>(bytes);
        body::<ConsumeStats>(bytes);
        body::<TopicStats>(bytes);
        body::<KvTable>(bytes);
        body::<CheckClientBody>(bytes);
        body::<ConsumerConnection>(bytes);
        body::<ProducerConnection>(bytes);
        body::<Vec<MessageQueue>>(bytes);
        for version in [0, 500] {
            let _ = RegisterBroker::decode(bytes, true, version);
            let _ = RegisterBroker::decode(bytes, false, version);
        }
        let text = String::from_utf8_lossy(bytes);
        let _ = properties_file::parse(&text);
    });
}

fn body<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = fastjson::from_slice::<T>(bytes) else { return };
    let text = fastjson::to_string(&value);
    let again: T = fastjson::from_slice(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(fastjson::to_string(&again), text);
}
