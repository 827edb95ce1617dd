//! Replies through a whole broker in this process: to askers that take them, refuse them, are gone, or
//! never answer.

mod support;

use std::time::Duration;

use rocketmq_remoting::header::Header as _;
use rocketmq_remoting::header::message::ReplyMessageRequest;
use rocketmq_remoting::{Answer, Command, RequestCode, ResponseCode};
use rocketmq_store::{decode_message, property};
use support::{Member, PATIENCE, Running, field, properties};

const REPLY_TOPIC: &str = "DefaultCluster_REPLY_TOPIC";
const LONG_NAMES: [&str; 9] = [
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
    "properties",
];
const SHORT_NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

fn reply_properties(asker: Option<&str>) -> String {
    let asker = asker.map(|asker| ("REPLY_TO_CLIENT", asker));
    let pairs: Vec<_> = [("MSG_TYPE", "reply"), ("CORRELATION_ID", "c-1")].into_iter().chain(asker).collect();
    properties(&pairs)
}

/// A reply to `asker` with the field names of that code.
fn reply(code: RequestCode, topic: &str, asker: Option<&str>) -> Command {
    let names = if code == RequestCode::SEND_REPLY_MESSAGE { LONG_NAMES } else { SHORT_NAMES };
    let properties = reply_properties(asker);
    let values = ["replier", topic, "TBW102", "4", "0", "0", "77", "5", &properties];
    let mut command = Command::request(code).with_body("the answer");
    command.ext_fields = names.into_iter().zip(values).collect();
    command
}

async fn send(member: &Member, broker: &Running, command: Command) -> Command {
    member.client.invoke(&broker.address, command, PATIENCE).await.unwrap()
}

#[tokio::test]
async fn a_reply_goes_to_its_asker_and_is_kept() {
    let broker = Running::start(&[]).await;
    let (asker, replier) = (Member::new(), Member::new());
    asker.beat(&broker, "asker", "g", &[]).await;
    asker.asked(1).await;
    for (offset, code) in [RequestCode::SEND_REPLY_MESSAGE, RequestCode::SEND_REPLY_MESSAGE_V2].into_iter().enumerate()
    {
        let answer = send(&replier, &broker, reply(code, REPLY_TOPIC, Some("asker"))).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
        assert_eq!(field(&answer, "queueId"), Some("0"));
        assert_eq!(field(&answer, "queueOffset"), Some(&*offset.to_string()));
        assert_eq!(field(&answer, "msgId").map(str::len), Some(32), "the id of what was kept");
        assert_eq!((field(&answer, "MSG_REGION"), field(&answer, "TRACE_ON")), (Some("DefaultRegion"), Some("true")));

        asker.asked(offset + 2).await;
        let pushed = asker.inbox.0.lock()[offset + 1].clone();
        assert_eq!(pushed.request_code(), RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT);
        assert!(!pushed.is_oneway());
        assert_eq!(&pushed.body.bytes()[..], b"the answer");
        let header = ReplyMessageRequest::decode(&pushed.ext_fields).unwrap();
        assert_eq!((&*header.producer_group, &*header.topic, header.flag), ("replier", REPLY_TOPIC, 5));
        assert_eq!((&*header.store_host, header.born_timestamp), (&*broker.address, 77));
        assert!(header.born_host.starts_with("127.0.0.1:"), "{}", header.born_host);
        let text = header.properties.unwrap();
        assert_eq!(property(&*text, "CORRELATION_ID"), Some("c-1"));
        assert_eq!(property(&*text, "PUSH_REPLY_TIME"), Some(&*header.store_timestamp.to_string()));
    }
    let pull = [
        ("consumerGroup", "g"),
        ("topic", REPLY_TOPIC),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "1"),
        ("sysFlag", "6"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", "*"),
    ];
    let pulled = replier.ask(&broker, RequestCode::PULL_MESSAGE, &pull, "").await;
    let unit = pulled.body.bytes().to_vec();
    let kept = decode_message(&unit).unwrap();
    assert_eq!((kept.topic, kept.body, kept.born_timestamp), (REPLY_TOPIC, &b"the answer"[..], 77));
    assert_eq!(kept.properties, reply_properties(Some("asker")).as_bytes(), "as the replier sent it");
    broker.stop().await;
}

#[tokio::test]
async fn a_reply_that_is_not_kept_has_the_ids_that_clients_can_read() {
    let broker = Running::start(&[("storeReplyMessageEnable", "false")]).await;
    let (asker, replier) = (Member::new(), Member::new());
    asker.beat(&broker, "asker", "g", &[]).await;
    let answer = send(&replier, &broker, reply(RequestCode::SEND_REPLY_MESSAGE_V2, REPLY_TOPIC, Some("asker"))).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    assert_eq!(
        (field(&answer, "msgId"), field(&answer, "queueId"), field(&answer, "queueOffset")),
        (Some("0"), Some("0"), Some("0"))
    );
    let queue = [("topic", REPLY_TOPIC), ("queueId", "0")];
    let end = replier.ask(&broker, RequestCode::GET_MAX_OFFSET, &queue, "").await;
    assert_eq!(field(&end, "offset"), Some("0"));
    broker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_pushed_is_said_in_javas_words() {
    let broker = Running::start(&[("autoCreateTopicEnable", "false")]).await;
    let replier = Member::new();
    let refuses = Member::answering(|| Answer::Now(Command::refusal(ResponseCode::SYSTEM_ERROR, "no")));
    refuses.beat(&broker, "refuses", "g", &[]).await;
    for (asker, remark) in [
        (None, "reply message properties[REPLY_TO_CLIENT] is null"),
        (Some("gone"), "push reply message fail, channel of <gone> not found."),
        (Some("refuses"), "push reply message to refusesfail."),
    ] {
        let answer = send(&replier, &broker, reply(RequestCode::SEND_REPLY_MESSAGE_V2, REPLY_TOPIC, asker)).await;
        assert_eq!((answer.code, answer.remark()), (1, remark));
        assert_eq!(field(&answer, "msgId").map(str::len), Some(32), "it is kept all the same");
        assert_eq!(field(&answer, "MSG_REGION"), Some("DefaultRegion"));
    }
    let answer = send(&replier, &broker, reply(RequestCode::SEND_REPLY_MESSAGE_V2, "Nowhere", Some("gone"))).await;
    assert_eq!(answer.response_code(), ResponseCode::TOPIC_NOT_EXIST, "{}", answer.remark());
    let answer = replier.ask(&broker, RequestCode::SEND_REPLY_MESSAGE, &[], "").await;
    assert_eq!((answer.code, answer.remark()), (1, "the custom field <topic> is null"));
    broker.stop().await;
}

#[tokio::test]
async fn an_asker_that_is_silent_holds_up_nothing_but_its_reply() {
    let broker = Running::start(&[]).await;
    let (asker, replier) = (Member::answering(|| Answer::None), Member::new());
    asker.beat(&broker, "asker", "g", &[]).await;
    asker.asked(1).await;
    let waiting = send(&replier, &broker, reply(RequestCode::SEND_REPLY_MESSAGE_V2, REPLY_TOPIC, Some("asker")));
    let meanwhile = async {
        asker.asked(2).await;
        // The same connection goes on while its reply waits.
        let queue = [("topic", REPLY_TOPIC), ("queueId", "0")];
        let end = replier.ask(&broker, RequestCode::GET_MAX_OFFSET, &queue, "").await;
        assert_eq!(field(&end, "offset"), Some("0"), "nothing is kept before the asker has answered");
        drop(asker);
    };
    // Less than the asker's time: it is the end of its connection that is noticed.
    let both = async { tokio::join!(waiting, meanwhile) };
    let (answer, ()) = tokio::time::timeout(Duration::from_secs(8), both).await.unwrap();
    assert_eq!((answer.code, answer.remark()), (1, "push reply message to askerfail."));
    broker.stop().await;
}

#[tokio::test]
async fn before_its_time_the_broker_takes_no_reply() {
    let broker = Running::start(&[("startAcceptSendRequestTimeStamp", "9999999999999")]).await;
    let replier = Member::new();
    let answer = send(&replier, &broker, reply(RequestCode::SEND_REPLY_MESSAGE_V2, REPLY_TOPIC, Some("gone"))).await;
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(answer.remark().starts_with("broker unable to service, until "), "{}", answer.remark());
    broker.stop().await;
}
