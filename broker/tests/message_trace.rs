//! What clients need of a broker to trace a message, through a whole broker in this process: the trace topic, and what each message
//! says of its region and of being traced.

#[path = "support/running.rs"]
mod running;

use std::collections::BTreeMap;

use rocketmq_remoting::{Client, ClientConfig, Command, RequestCode, ResponseCode};
use rocketmq_store::{decode_message, properties};
use running::{PATIENCE, Running};

const ORIGIN: [&str; 3] = ["CLUSTER", "MSG_REGION", "TRACE_ON"];

async fn ask(broker: &Running, code: RequestCode, fields: &[(&str, &str)], body: &[u8]) -> Command {
    let mut command = Command::request(code).with_body(body.to_vec());
    command.ext_fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Client::new(ClientConfig::default()).invoke(&broker.address, command, PATIENCE).await.unwrap()
}

async fn send(broker: &Running, batch: bool, body: &[u8]) {
    let fields = [
        ("a", "p"),
        ("b", "T"),
        ("c", "TBW102"),
        ("d", "1"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1"),
        ("h", "0"),
        ("i", "KEYS\u{1}k\u{2}MSG_REGION\u{1}elsewhere\u{2}"),
        ("m", if batch { "true" } else { "false" }),
    ];
    let code = if batch { RequestCode::SEND_BATCH_MESSAGE } else { RequestCode::SEND_MESSAGE_V2 };
    let answer = ask(broker, code, &fields, body).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
}

/// What the first messages of the queue say of where they are from; waits until they are there.
async fn origins(broker: &Running, count: i64) -> Vec<BTreeMap<String, String>> {
    let mut found = Vec::new();
    while found.len() < count as usize {
        let offset = found.len().to_string();
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "T"),
            ("queueId", "0"),
            ("queueOffset", &*offset),
            ("maxMsgNums", "32"),
            ("sysFlag", "6"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "15000"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ];
        let answer = ask(broker, RequestCode::PULL_MESSAGE, &fields, b"").await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
        let body = answer.body.bytes();
        let mut rest = &body[..];
        while !rest.is_empty() {
            let message = decode_message(rest).unwrap();
            let of_origin = properties(message.properties).filter(|(name, _)| ORIGIN.contains(name));
            found.push(of_origin.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
            rest = &rest[message.total_size as usize..];
        }
    }
    found
}

#[tokio::test]
async fn every_message_says_its_region_and_whether_it_is_traced() {
    // Two items of a batch: size, magic, crc, flag, the length of the body, the body, the length of the properties.
    let item = |body: &[u8]| [&[0; 16][..], &(body.len() as u32).to_be_bytes(), body, &[0; 2]].concat();
    let batch = [item(b"one"), item(b"two")].concat();
    for (traced, settings) in [("true", vec![]), ("false", vec![("traceOn", "false"), ("regionId", "DefaultRegion")])] {
        let broker = Running::start(&settings).await;
        send(&broker, false, b"single").await;
        send(&broker, true, &batch).await;
        let values = ["DefaultCluster", "DefaultRegion", traced];
        let wanted: BTreeMap<String, String> =
            ORIGIN.into_iter().zip(values).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(origins(&broker, 3).await, [(); 3].map(|()| wanted.clone()));
        broker.stop().await;
    }
}

#[tokio::test]
async fn the_trace_topic_is_there_where_it_is_enabled_under_its_name() {
    for (settings, wanted) in [
        (vec![], [false, false]),
        (vec![("traceTopicEnable", "true")], [true, false]),
        (vec![("traceTopicEnable", "true"), ("msgTraceTopicName", "Own")], [false, true]),
    ] {
        let broker = Running::start(&settings).await;
        for (topic, wanted) in ["RMQ_SYS_TRACE_TOPIC", "Own"].into_iter().zip(wanted) {
            let answer = ask(&broker, RequestCode::GET_TOPIC_CONFIG, &[("topic", topic)], b"").await;
            assert_eq!(answer.response_code() == ResponseCode::SUCCESS, wanted, "{topic}: {}", answer.remark());
            let text = String::from_utf8_lossy(&answer.body.bytes()).into_owned();
            assert!(!wanted || text.contains("\"writeQueueNums\":1"), "{text}");
        }
        broker.stop().await;
    }
}
