//! Each bound of the broker met from outside: the code, the remark with the limit's name and value, and its count in the metrics.
//! What needs a disk that is full or broken is met in `tests/tests/disk_full.rs`.

mod support;

use std::time::Duration;

use futures::future::join_all;
use rocketmq_remoting::{Command, RequestCode as Code, ResponseCode};
use support::{Member, NEW_TOPIC, PATIENCE, Running, properties, send_fields};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BUSY: &str = "[OVERLOAD]system busy, start flow control for a while, ";

/// A broker with its metrics.
struct Watched {
    broker: Running,
    metrics: String,
}

impl Watched {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let settings: Vec<_> = settings.iter().copied().chain([("httpPort", &*port)]).collect();
        Self { broker: Running::start(&settings).await, metrics: format!("127.0.0.1:{port}") }
    }

    /// A metric without labels, or the one whose labels end so.
    async fn metric(&self, name: &str, label: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.metrics).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let start = format!("{name}{{");
        let line = text.lines().find(|line| line.starts_with(&start) && line.contains(label));
        let value = line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse().unwrap());
        value.unwrap_or_else(|| panic!("no {name} {label} in {text}"))
    }

    async fn rejected(&self, limit: &str) -> u64 {
        self.metric("rocketmq_broker_rejected_requests_total", &format!("limit=\"{limit}\"")).await
    }

    async fn wait_for(&self, name: &str, value: u64) {
        let reached = async {
            while self.metric(name, "").await != value {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} does not become {value}"));
    }

    /// A client after the topic `T` was made.
    async fn client(&self) -> Member {
        let client = Member::new();
        let made = client.ask(&self.broker, Code::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;
        assert_eq!(made.response_code(), ResponseCode::SUCCESS);
        client
    }

    async fn send(&self, client: &Member, body: &str) -> Command {
        let text = properties(&[("KEYS", "k")]);
        client.ask(&self.broker, Code::SEND_MESSAGE_V2, &send_fields("T", "0", &text), body).await
    }
}

/// A pull at the end of the queue, which is held.
fn pull(queue: &str) -> [(&str, &str); 11] {
    [
        ("consumerGroup", "g"),
        ("topic", "T"),
        ("queueId", queue),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "1000"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ]
}

fn check_busy(answer: &Command, end: &str) {
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_BUSY, "{}", answer.remark());
    assert_eq!(answer.remark(), format!("{BUSY}{end}"));
}

/// Reads until the other side closes the connection.
async fn wait_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // Either an end or a reset: bytes of ours may have been on their way.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn connections_of_clients_and_slaves_over_the_limit_are_closed_and_counted() {
    let watched = Watched::start(&[("serverConnectionsMax", "3"), ("haConnectionsMax", "1")]).await;
    // The one that looked whether the broker is up may still be open.
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(&watched.broker.address).await.unwrap());
    }
    let mut one_more = TcpStream::connect(&watched.broker.address).await.unwrap();
    wait_closed(&mut one_more).await;
    assert!(watched.rejected("serverConnectionsMax").await >= 1);

    let _slave = TcpStream::connect(&watched.broker.ha_address).await.unwrap();
    let mut second = TcpStream::connect(&watched.broker.ha_address).await.unwrap();
    wait_closed(&mut second).await;
    assert_eq!(watched.rejected("haConnectionsMax").await, 1);
    drop(open);
    watched.broker.stop().await;
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_its_connection_and_is_counted() {
    let watched = Watched::start(&[]).await;
    let mut stream = TcpStream::connect(&watched.broker.address).await.unwrap();
    stream.write_all(&i32::MAX.to_be_bytes()).await.unwrap();
    wait_closed(&mut stream).await;
    assert_eq!(watched.rejected("frameMaxLength").await, 1);
    assert_eq!(watched.rejected("serverChannelMaxIdleTimeSeconds").await, 0);
    watched.broker.stop().await;
}

#[tokio::test]
async fn requests_of_a_connection_over_the_limit_are_refused() {
    let watched = Watched::start(&[("serverConnectionRequestsMax", "1")]).await;
    let client = watched.client().await;
    let (held, [second, other]) = (pull("0"), [pull("1"), pull("1")]);
    let (held, answers) = tokio::join!(client.ask(&watched.broker, Code::PULL_MESSAGE, &held, ""), async {
        watched.wait_for("rocketmq_broker_held_pulls", 1).await;
        let refused = client.ask(&watched.broker, Code::PULL_MESSAGE, &second, "").await;
        let elsewhere = Member::new().ask(&watched.broker, Code::PULL_MESSAGE, &other, "").await;
        (refused, elsewhere)
    });
    check_busy(&answers.0, "in-flight requests of this connection reached the limit 1");
    assert_eq!([held, answers.1].map(|answer| answer.response_code()), [ResponseCode::PULL_NOT_FOUND; 2]);
    assert_eq!(watched.rejected("serverConnectionRequestsMax").await, 1);
    watched.broker.stop().await;
}

#[tokio::test]
async fn pulls_over_the_limit_are_refused_until_one_has_its_answer() {
    let watched = Watched::start(&[("pullThreadPoolQueueCapacity", "1")]).await;
    let client = watched.client().await;
    let (first, second) = (pull("0"), pull("1"));
    let (held, refused) = tokio::join!(client.ask(&watched.broker, Code::PULL_MESSAGE, &first, ""), async {
        watched.wait_for("rocketmq_broker_held_pulls", 1).await;
        client.ask(&watched.broker, Code::PULL_MESSAGE, &second, "").await
    });
    check_busy(&refused, "pulls that wait reached the limit pullThreadPoolQueueCapacity=1");
    assert_eq!(held.response_code(), ResponseCode::PULL_NOT_FOUND);
    assert_eq!(watched.rejected("pullThreadPoolQueueCapacity").await, 1);
    let again = client.ask(&watched.broker, Code::PULL_MESSAGE, &second, "").await;
    assert_eq!(again.response_code(), ResponseCode::PULL_NOT_FOUND);
    watched.broker.stop().await;
}

/// A slave that reports once and takes nothing: sends wait for it.
#[tokio::test]
async fn sends_over_the_limit_are_refused_and_those_that_no_slave_has_in_time_say_so() {
    let settings = [("brokerRole", "SYNC_MASTER"), ("slaveTimeout", "3000"), ("sendThreadPoolQueueCapacity", "1")];
    let watched = Watched::start(&settings).await;
    let client = watched.client().await;
    let alone = watched.send(&client, "nobody").await;
    assert_eq!(alone.response_code(), ResponseCode::SLAVE_NOT_AVAILABLE);
    assert_eq!(alone.remark(), "no slave is nearer than haSlaveFallbehindMax=268435456 bytes");
    assert_eq!(watched.rejected("haSlaveFallbehindMax").await, 1);

    let mut slave = TcpStream::connect(&watched.broker.ha_address).await.unwrap();
    slave.write_all(&0i64.to_be_bytes()).await.unwrap();
    watched.wait_for("rocketmq_ha_slaves", 1).await;
    let both = [watched.send(&client, "one"), watched.send(&client, "two")];
    let mut answers = join_all(both).await;
    answers.sort_by_key(|answer| answer.code);
    check_busy(&answers[0], "sends that wait for flush or slaves reached the limit sendThreadPoolQueueCapacity=1");
    assert_eq!(answers[1].response_code(), ResponseCode::FLUSH_SLAVE_TIMEOUT);
    assert_eq!(answers[1].remark(), "no slave has the message within slaveTimeout=3000 ms");
    assert_eq!(watched.rejected("sendThreadPoolQueueCapacity").await, 1);
    assert_eq!(watched.rejected("slaveTimeout").await, 1);
    watched.broker.stop().await;
}

#[tokio::test]
async fn requests_that_touch_the_disk_are_bounded() {
    let watched = Watched::start(&[("queryThreadPoolQueueCapacity", "1")]).await;
    let client = watched.client().await;
    // The broker takes them off one connection faster than another thread answers one.
    let asked = (0..500).map(|_| client.ask(&watched.broker, Code::GET_ALL_TOPIC_CONFIG, &[], ""));
    let answers = join_all(asked).await;
    let (done, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.response_code() == ResponseCode::SUCCESS);
    assert!(!done.is_empty() && !refused.is_empty(), "{} were refused", refused.len());
    for answer in &refused {
        check_busy(answer, "requests that wait for the disk reached the limit queryThreadPoolQueueCapacity=1");
    }
    assert_eq!(watched.rejected("queryThreadPoolQueueCapacity").await, refused.len() as u64);
    watched.broker.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_counted() {
    let watched = Watched::start(&[("maxMessageSize", "1000")]).await;
    let client = watched.client().await;
    let refused = watched.send(&client, &"x".repeat(1001)).await;
    assert_eq!(refused.response_code(), ResponseCode::MESSAGE_ILLEGAL);
    assert!(refused.remark().contains("msg body length limit 1000B"), "{}", refused.remark());
    assert_eq!(watched.rejected("maxMessageSize").await, 1);
    watched.broker.stop().await;
}
