//! SQL92 subscriptions through a whole broker in this process, over real sockets: held pulls, refusals, what heartbeats
//! bring and a restart keeps, and how far one pull looks.

#[path = "support/running.rs"]
mod running;

use std::path::Path;
use std::time::{Duration, Instant};

use rocketmq_remoting::{Client, ClientConfig, Command, RequestCode, ResponseCode};
use rocketmq_store::{decode_message, push_property};
use running::{PATIENCE, Running};

const ON: (&str, &str) = ("enablePropertyFilter", "true");

/// A broker and one client of it: what it asks first is served first.
struct Served {
    running: Running,
    client: Client,
}

impl Served {
    async fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self { running: Running::start_in(dir, settings).await, client: Client::new(ClientConfig::default()) }
    }

    async fn stop(self) {
        self.running.stop().await;
    }

    async fn ask(&self, code: RequestCode, fields: &[(&str, &str)], body: &str) -> Command {
        let mut command = Command::request(code).with_body(body.to_owned());
        command.ext_fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.client.invoke(&self.running.address, command, PATIENCE).await.unwrap()
    }

    /// Sends to the topic's one queue.
    async fn send(&self, topic: &str, body: &str, pairs: &[(&str, &str)]) {
        let mut text = Vec::new();
        for (name, value) in pairs {
            push_property(&mut text, name, value);
        }
        let text = String::from_utf8(text).unwrap();
        let fields = [
            ("a", "p"),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "1"),
            ("e", "0"),
            ("f", "0"),
            ("g", "1"),
            ("h", "0"),
            ("i", &text),
        ];
        let answer = self.ask(RequestCode::SEND_MESSAGE_V2, &fields, body).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    }

    /// Waits until the topic's queue has so many messages.
    async fn until_there_are(&self, topic: &str, count: i64) {
        let all = async {
            loop {
                let answer = self.ask(RequestCode::GET_MAX_OFFSET, &[("topic", topic), ("queueId", "0")], "").await;
                if field(&answer, "offset") == count.to_string() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the messages are dispatched");
    }

    /// A pull that brings its expression along.
    async fn pull_sql(&self, expression: &str, offset: i64, held_ms: u64) -> Command {
        let (offset, held_ms) = (offset.to_string(), held_ms.to_string());
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "T"),
            ("queueId", "0"),
            ("queueOffset", &offset),
            ("maxMsgNums", "32"),
            ("sysFlag", if held_ms == "0" { "4" } else { "6" }),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", &held_ms),
            ("subscription", expression),
            ("subVersion", "0"),
            ("expressionType", "SQL92"),
        ];
        self.ask(RequestCode::PULL_MESSAGE, &fields, "").await
    }

    /// A pull by what the group's heartbeats have said.
    async fn pull(&self, topic: &str, version: &str) -> Command {
        let fields = [
            ("consumerGroup", "g"),
            ("topic", topic),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "32"),
            ("sysFlag", "0"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subVersion", version),
        ];
        self.ask(RequestCode::PULL_MESSAGE, &fields, "").await
    }

    /// The group's heartbeat: topics with expression and version, and its retry topic by tags.
    async fn heartbeat(&self, subscriptions: &[(&str, &str, i64)]) {
        let sql = subscriptions.iter().map(|(topic, expression, version)| {
            format!(
                r#"{{"expressionType":"SQL92","subString":"{expression}","subVersion":{version},"topic":"{topic}"}}"#
            )
        });
        let retry = r#"{"expressionType":"TAG","subString":"*","subVersion":1,"topic":"%RETRY%g"}"#;
        let all: Vec<String> = sql.chain([retry.to_owned()]).collect();
        let body = format!(
            r#"{{"clientID":"c","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
                "consumeType":"CONSUME_PASSIVELY","groupName":"g","messageModel":"CLUSTERING",
                "subscriptionDataSet":[{}],"unitMode":false}}],"producerDataSet":[]}}"#,
            all.join(",")
        );
        let answer = self.ask(RequestCode::HEART_BEAT, &[], &body).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    }

    async fn check(&self, expression: &str) -> Command {
        let body = format!(
            r#"{{"clientId":"c","group":"g","subscriptionData":
                {{"expressionType":"SQL92","subString":"{expression}","topic":"T"}}}}"#
        );
        self.ask(RequestCode::CHECK_CLIENT_CONFIG, &[], &body).await
    }
}

fn field(answer: &Command, name: &str) -> String {
    answer.ext_fields.get(name).map(ToString::to_string).unwrap_or_default()
}

fn bodies(answer: &Command) -> Vec<String> {
    let all = answer.body.bytes();
    let mut rest = &all[..];
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let message = decode_message(rest).unwrap();
        bodies.push(String::from_utf8(message.body.to_vec()).unwrap());
        rest = &rest[message.total_size as usize..];
    }
    bodies
}

/// Pulls `a > 5` from the end of the queue, and only then sends; the pull must outlast all messages but the last.
async fn held_while_sending(broker: &Served, offset: i64, held_ms: u64, values: &[&str]) -> Command {
    let mut pull = Box::pin(broker.pull_sql("a > 5", offset, held_ms));
    for (at, value) in values.iter().enumerate() {
        let pair = [("a", *value)];
        let mut send = Box::pin(async {
            broker.send("T", value, &pair).await;
            broker.until_there_are("T", offset + at as i64 + 1).await;
        });
        tokio::select! {
            biased;
            early = &mut pull => {
                assert_eq!(at + 1, values.len(), "answered before its message came: {}", early.remark());
                send.await;
                return early;
            }
            () = &mut send => {}
        }
    }
    pull.await
}

#[tokio::test]
async fn a_held_pull_waits_on_behind_messages_that_it_does_not_want() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[ON]).await;
    broker.send("T", "old", &[("a", "1")]).await;
    broker.until_there_are("T", 1).await;
    let answer = held_while_sending(&broker, 1, 15_000, &["1", "x", "5", "6"]).await;
    assert_eq!((answer.response_code(), bodies(&answer)), (ResponseCode::SUCCESS, vec!["6".to_owned()]));
    assert_eq!(field(&answer, "nextBeginOffset"), "5");

    // None that it wants: it waits its time out, and has passed by the one that came.
    let began = Instant::now();
    let answer = held_while_sending(&broker, 5, 2_000, &["1"]).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(answer.response_code(), ResponseCode::PULL_RETRY_IMMEDIATELY, "{}", answer.remark());
    assert_eq!((answer.remark(), field(&answer, "nextBeginOffset").as_str()), ("NO_MATCHED_MESSAGE", "6"));

    let answer = broker.pull_sql("a > 5", 6, 50).await;
    assert_eq!(answer.response_code(), ResponseCode::PULL_NOT_FOUND, "{}", answer.remark());
    broker.stop().await;
}

#[tokio::test]
async fn sql92_is_refused_until_it_is_switched_on() {
    const OFF: &str = "The broker does not support consumer to filter message by SQL92";
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[]).await;
    broker.send("T", "m", &[("a", "1")]).await;
    broker.heartbeat(&[("T", "a = 1", 1)]).await;
    for answer in [broker.check("a = 1").await, broker.pull_sql("a = 1", 0, 0).await, broker.pull("T", "1").await] {
        assert_eq!((answer.response_code(), answer.remark()), (ResponseCode::SYSTEM_ERROR, OFF));
    }
    let answer = broker.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], "enablePropertyFilter=true").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    assert_eq!(broker.check("a = 1").await.response_code(), ResponseCode::SUCCESS);
    broker.until_there_are("T", 1).await;
    for answer in [broker.pull_sql("a = 1", 0, 0).await, broker.pull("T", "1").await] {
        assert_eq!((answer.response_code(), bodies(&answer)), (ResponseCode::SUCCESS, vec!["m".to_owned()]));
    }

    let answer = broker.check("a BETWEEN 9 AND 3").await;
    assert_eq!(answer.response_code(), ResponseCode::SUBSCRIPTION_PARSE_FAILED);
    assert_eq!(answer.remark(), "Illegal values of between, left value(9) must less than or equal to right value(3)");
    for wrong in ["a =", ""] {
        let answer = broker.pull_sql(wrong, 0, 0).await;
        assert_eq!(answer.response_code(), ResponseCode::SUBSCRIPTION_PARSE_FAILED, "{wrong:?}");
        assert_eq!(answer.remark(), "parse the consumer's subscription failed");
    }
    broker.stop().await;
}

#[tokio::test]
async fn what_heartbeats_bring_is_used_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[ON]).await;
    for a in ["1", "2", "3"] {
        broker.send("T", a, &[("a", a)]).await;
    }
    broker.until_there_are("T", 3).await;
    broker.heartbeat(&[("T", "a BETWEEN 2 AND 9", 5)]).await;
    assert_eq!(bodies(&broker.pull("T", "5").await), ["2", "3"]);
    assert_eq!(broker.pull("T", "6").await.response_code(), ResponseCode::SUBSCRIPTION_NOT_LATEST);
    // The subscription is newer than the expression: a heartbeat without one changes only the former.
    broker.heartbeat(&[("T", "", 7)]).await;
    let answer = broker.pull("T", "7").await;
    assert_eq!(answer.response_code(), ResponseCode::FILTER_DATA_NOT_LATEST, "{}", answer.remark());
    broker.heartbeat(&[("T", "a BETWEEN", 8)]).await;
    let answer = broker.pull("T", "8").await;
    assert_eq!(answer.response_code(), ResponseCode::FILTER_DATA_NOT_EXIST, "{}", answer.remark());
    broker.heartbeat(&[("T", "a = 3", 9)]).await;
    assert_eq!(bodies(&broker.pull("T", "9").await), ["3"]);
    broker.stop().await;

    let file = || std::fs::read_to_string(dir.path().join("config/consumerFilter.json")).unwrap();
    let written = file();
    assert!(written.contains("\"expression\":\"a = 3\"") && written.contains("\"dead\":true"), "{written}");
    let born = |text: &str| text.lines().find(|line| line.contains("bornTime")).map(str::to_owned);
    let broker = Served::start(dir.path(), &[ON]).await;
    assert_eq!(broker.pull("T", "9").await.response_code(), ResponseCode::SUBSCRIPTION_NOT_EXIST);
    broker.heartbeat(&[("T", "a = 3", 9)]).await;
    assert_eq!(bodies(&broker.pull("T", "9").await), ["3"]);
    let asked = [("topic", "T"), ("queueId", "0"), ("index", "1"), ("count", "9"), ("consumerGroup", "g")];
    let shown = broker.ask(RequestCode::QUERY_CONSUME_QUEUE, &asked, "").await;
    let shown = String::from_utf8(shown.body.bytes().to_vec()).unwrap();
    assert!(shown.contains(r#"\"dead\":false"#), "it is alive again: {shown}");
    let evaluated: Vec<_> = shown.match_indices("\"eval\":").map(|(at, key)| &shown[at + key.len()..][..4]).collect();
    assert_eq!(evaluated, ["fals", "true"], "{shown}");
    let answer = broker.ask(RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER, &[("group", "g"), ("topic", "T")], "").await;
    let subscription = String::from_utf8(answer.body.bytes().to_vec()).unwrap();
    assert!(subscription.contains(r#""subString":"a = 3","subVersion":9"#), "{subscription}");
    let answer = broker.ask(RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER, &[("group", "h"), ("topic", "T")], "").await;
    assert_eq!(&answer.body.bytes()[..], br#"{"group":"h","topic":"T"}"#);
    broker.stop().await;
    assert_eq!(born(&file()), born(&written), "it is the same expression as before the restart");
}

#[tokio::test]
async fn one_pull_looks_at_so_many_messages_and_says_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[ON]).await;
    for n in 0..900 {
        broker.send("T", "m", &[("n", &n.to_string())]).await;
    }
    broker.until_there_are("T", 900).await;
    let mut offset = 0;
    for next in [800, 900] {
        let answer = broker.pull_sql("n > 900", offset, 15_000).await;
        assert_eq!(answer.response_code(), ResponseCode::PULL_RETRY_IMMEDIATELY, "{}", answer.remark());
        assert_eq!(field(&answer, "nextBeginOffset"), next.to_string());
        offset = next;
    }
    let answer = broker.pull_sql("n = 1 OR n = 700 OR n >= 799", 0, 0).await;
    assert_eq!(bodies(&answer).len(), 3, "the limit is one of looking, not of finding");
    assert_eq!(field(&answer, "nextBeginOffset"), "800");
    broker.stop().await;
}

#[tokio::test]
async fn messages_sent_back_are_filtered_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[ON, ("filterSupportRetry", "true")]).await;
    broker.heartbeat(&[("T", "a = 1", 1)]).await;
    let retry = "%RETRY%g";
    broker.send(retry, "wanted", &[("RETRY_TOPIC", "T"), ("a", "1")]).await;
    broker.send(retry, "no more", &[("RETRY_TOPIC", "T"), ("a", "2")]).await;
    broker.send(retry, "of another topic", &[("RETRY_TOPIC", "U"), ("a", "2")]).await;
    broker.send(retry, "of none", &[("a", "2")]).await;
    broker.until_there_are(retry, 4).await;
    assert_eq!(bodies(&broker.pull(retry, "1").await), ["wanted", "of another topic", "of none"]);
    let answer = broker.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], "filterSupportRetry=false").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    assert_eq!(bodies(&broker.pull(retry, "1").await).len(), 4);
    broker.stop().await;
}
