//! The hot ways of a message, run so often that the instructions of each can be counted.
//!
//! `tests/tests/instructions.rs` runs these tests under valgrind, which counts what happens inside of the functions named `counted_*`
//! and nothing else, and divides by [`TIMES`].

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use rocketmq_remoting::bodies::TopicConfig;
use rocketmq_remoting::frame::{self, FrameLimits};
use rocketmq_remoting::{Answer, Command, Peer, Rejections, RequestCode, ResponseCode, Service as _};
use rocketmq_store::{java_string_hash, push_property};

use crate::broker::Broker;
use crate::client_channel::testing::Harness;
use crate::config::{BrokerConfig, Environment};
use crate::filter::{Sql, TagFilter};
use crate::router::Router;

/// How often each function does its work in one run.
const TIMES: usize = 2_000;

/// A broker without a network, and a connection to name as the asker.
struct Bench {
    router: Router,
    peer: Arc<Peer>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_string_lossy().into_owned();
        let entries = [
            ("brokerIP1", "127.0.0.1"),
            ("storePathRootDir", &*root),
            ("mappedFileSizeCommitLog", "33554432"),
            ("maxHashSlotNum", "10000"),
            ("maxIndexNum", "40000"),
            ("diskSpaceWarningLevelRatio", "100"),
            ("diskSpaceCleanForciblyRatio", "100"),
            ("diskMaxUsedSpaceRatio", "95"),
        ];
        let entries: Vec<_> = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (config, _) = BrokerConfig::load(None, &entries, &Environment::default()).unwrap();
        let host = SocketAddr::from(([127, 0, 0, 1], 10_911));
        let broker = Broker::open(config, host, None, Arc::<Rejections>::default()).unwrap();
        broker.topics.get_or_create(TopicConfig::new("Topic", 4, 6)).unwrap();
        let peer = Harness::start().connect().await.peer;
        Self { router: Router { broker }, peer, _dir: dir }
    }

    fn end(self) {
        self.router.broker.store.shutdown();
    }
}

/// The bytes of that many equal requests.
fn frames(code: RequestCode, fields: &[(&str, &str)], body: Vec<u8>) -> BytesMut {
    let mut command = Command::request(code).with_body(body);
    command.ext_fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let one = frame::to_bytes(&command);
    BytesMut::from(&*one.repeat(TIMES))
}

/// Each request from its bytes to the bytes of its answer; returns how many were answered with success.
fn serve(bench: &Bench, requests: &mut BytesMut, answers: &mut BytesMut) -> usize {
    let mut done = 0;
    while let Ok(Some(request)) = frame::decode(requests, FrameLimits::default()) {
        let Answer::Now(answer) = bench.router.call(&bench.peer, request) else { continue };
        done += usize::from(answer.response_code() == ResponseCode::SUCCESS);
        answers.clear();
        frame::encode(&answer, answers, |_, body| drop(body.clone()));
    }
    done
}

#[inline(never)]
fn counted_requests(bench: &Bench, requests: &mut BytesMut, answers: &mut BytesMut) -> usize {
    serve(bench, requests, answers)
}

#[inline(never)]
fn counted_tag_filter(filter: &TagFilter, codes: &[i64]) -> usize {
    codes.iter().filter(|code| filter.matches(**code)).count()
}

#[inline(never)]
fn counted_sql_filter(filter: &Sql, properties: &[Vec<u8>]) -> usize {
    properties.iter().filter(|text| filter.matches(text)).count()
}

fn properties_of(number: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let number = format!("{:04}", number % 1_000);
    let pairs = [("TAGS", "TagA"), ("KEYS", &number), ("seq", &number), ("UNIQ_KEY", "7F0000010000000000000000000000")];
    for (name, value) in pairs {
        push_property(&mut text, name, value);
    }
    text
}

fn sends() -> BytesMut {
    let text = String::from_utf8(properties_of(1)).unwrap();
    let fields = [
        ("a", "producers"),
        ("b", "Topic"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", &*text),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ];
    frames(RequestCode::SEND_MESSAGE_V2, &fields, vec![b'x'; 1024])
}

/// `SEND_MESSAGE_V2` of 1 KiB: decoded, stored, answered.
#[tokio::test]
async fn send() {
    let bench = Bench::new().await;
    assert_eq!(counted_requests(&bench, &mut sends(), &mut BytesMut::new()), TIMES);
    bench.end();
}

/// `PULL_MESSAGE` of 32 messages of 1 KiB: decoded, found, answered without copying them.
#[tokio::test]
async fn pull() {
    let bench = Bench::new().await;
    assert_eq!(serve(&bench, &mut sends(), &mut BytesMut::new()), TIMES);
    while bench.router.broker.store.max_offset("Topic", 0) < TIMES as i64 {
        tokio::task::yield_now().await;
    }
    let fields = [
        ("consumerGroup", "consumers"),
        ("topic", "Topic"),
        ("queueId", "0"),
        ("queueOffset", "1000"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", "TagA || TagB"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    let mut pulls = frames(RequestCode::PULL_MESSAGE, &fields, Vec::new());
    assert_eq!(counted_requests(&bench, &mut pulls, &mut BytesMut::new()), TIMES);
    bench.end();
}

/// A subscription of three tags looks at one entry.
#[test]
fn tag_filter() {
    let filter = TagFilter::parse("TagA || TagB || TagC").unwrap();
    let tags = ["TagA", "TagB", "TagC", "TagD"].map(|tag| i64::from(java_string_hash(tag)));
    let codes: Vec<_> = (0..TIMES).map(|number| tags[number % tags.len()]).collect();
    assert_eq!(counted_tag_filter(&filter, &codes), TIMES / 4 * 3);
}

/// An SQL92 expression of three conditions looks at one message.
#[test]
fn sql_filter() {
    let filter = Sql::compile("TAGS = 'TagA' AND seq BETWEEN 100 AND 599 AND KEYS IS NOT NULL").unwrap();
    let properties: Vec<_> = (0..TIMES).map(properties_of).collect();
    assert_eq!(counted_sql_filter(&filter, &properties), TIMES / 2);
}
