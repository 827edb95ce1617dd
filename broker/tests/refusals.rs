//! What is refused, with the codes and remarks that Java's clients and tools act on: names, limits,
//! permissions, system topics (4.9's `AbstractSendMessageProcessor`, `SendMessageProcessor`,
//! `PullMessageProcessor`, `AdminBrokerProcessor`, `TopicValidator`).

mod support;

use rocketmq_remoting::bodies::{SubscriptionGroupTable, TopicConfigTable};
use rocketmq_remoting::{Command, RequestCode as Code};
use rocketmq_store::decode_message;
use support::{Member, NEW_TOPIC, Running, field, properties, read, send_fields};

const FAQ: &str = "\nSee http://rocketmq.apache.org/docs/faq/ for further details.";
const BLANK: &str = "The specified topic is blank.";
const ILLEGAL: &str = "The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$";
const TOO_LONG: &str = "The specified topic is longer than topic max length.";
const TOO_LARGE: &str = "the message is illegal, maybe msg body or properties length not matched. msg body length limit 1000B, msg properties length limit 32KB.";

/// How much of a remark is told.
#[derive(Debug)]
enum Remark {
    Is(String),
    /// What follows is ours: a client's port, or more than Java says.
    Begins(String),
}

fn is(text: &str) -> Remark {
    Remark::Is(text.to_owned())
}

fn begins(text: &str) -> Remark {
    Remark::Begins(text.to_owned())
}

fn check(what: &str, answer: &Command, code: i32, remark: &Remark) {
    let fits = match remark {
        Remark::Is(text) => answer.remark() == text,
        Remark::Begins(text) => answer.remark().starts_with(text.as_str()),
    };
    assert!(answer.code == code && fits, "{what}: {} {:?}, not {code} {remark:?}", answer.code, answer.remark());
}

/// Gives a field another value, or adds it.
fn with<'a>(mut fields: Vec<(&'a str, &'a str)>, name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    fields.retain(|(known, _)| *known != name);
    fields.push((name, value));
    fields
}

/// A topic's settings as mqadmin sends them.
fn topic<'a>(name: &'a str, perm: &'a str) -> Vec<(&'a str, &'a str)> {
    with(with(NEW_TOPIC.to_vec(), "topic", name), "perm", perm)
}

/// One item of a batch's body.
fn batch_item(text: &str) -> String {
    let mut item = vec![0; 16];
    item.extend(1i32.to_be_bytes());
    item.push(b'x');
    item.extend((text.len() as i16).to_be_bytes());
    item.extend(text.as_bytes());
    String::from_utf8(item).unwrap()
}

#[tokio::test]
async fn sends_are_refused_in_javas_words() {
    let broker = Running::start(&[("maxMessageSize", "1000")]).await;
    let client = Member::new();
    for fields in [topic("T", "6"), topic("ReadOnly", "4")] {
        assert_eq!(client.ask(&broker, Code::UPDATE_AND_CREATE_TOPIC, &fields, "").await.code, 0);
    }
    let (long, text) = ("t".repeat(128), properties(&[("KEYS", "k")]));
    let wide = properties(&[("p", &"v".repeat(32_766))]);
    let to = |topic| send_fields(topic, "0", &text);
    let mut rows = vec![
        ("a blank name", to(" "), "body", 1, is(BLANK)),
        ("no name", to(""), "body", 1, is(BLANK)),
        ("a blank in a name", to("a b"), "body", 1, is(ILLEGAL)),
        ("a slash in a name", to("../T"), "body", 1, is(ILLEGAL)),
        ("a name that is not ASCII", to("Thema-ü"), "body", 1, is(ILLEGAL)),
        ("a long name", to(&long), "body", 1, is(TOO_LONG)),
        (
            "no template",
            with(to("New"), "c", "NoSuchTopic"),
            "body",
            17,
            Remark::Is(format!("topic[New] not exist, apply first please!{FAQ}")),
        ),
        ("a template that passes nothing on", with(to("New"), "c", "T"), "body", 17, begins("topic[New] not exist")),
        ("a queue too many", with(to("T"), "e", "2"), "body", 1, begins("request queueId[2] is illegal, ")),
        ("wide properties", with(to("T"), "i", &wide), "body", 13, is(TOO_LARGE)),
    ];
    let big = "x".repeat(1001);
    rows.push(("a big body", to("T"), &big, 13, is(TOO_LARGE)));
    for (what, fields, body, code, remark) in rows {
        let answer = client.ask(&broker, Code::SEND_MESSAGE_V2, &fields, body).await;
        check(what, &answer, code, &remark);
        // A Java client reads these of every answer to a send.
        assert_eq!((field(&answer, "MSG_REGION"), field(&answer, "TRACE_ON")), (Some("DefaultRegion"), Some("true")));
        assert_eq!(field(&answer, "msgId"), None, "{what}");
    }
    for name in [
        "SCHEDULE_TOPIC_XXXX",
        "RMQ_SYS_TRANS_HALF_TOPIC",
        "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        "TRANS_CHECK_MAX_TIME_TOPIC",
        "SELF_TEST_TOPIC",
        "OFFSET_MOVED_EVENT",
        "rmq_sys_wheel_timer",
    ] {
        let answer = client.ask(&broker, Code::SEND_MESSAGE_V2, &to(name), "body").await;
        check(name, &answer, 16, &Remark::Is(format!("Sending message to topic[{name}] is forbidden.")));
    }
    let delayed = properties(&[("DELAY", "1")]);
    for (what, body) in [("no batch", "no batch".to_owned()), ("a delayed batch", batch_item(&delayed))] {
        let answer = client.ask(&broker, Code::SEND_BATCH_MESSAGE, &to("T"), &body).await;
        check(what, &answer, 13, &begins(""));
    }
    // At the limits everything is taken; the broker adds properties of its own.
    let full = properties(&[("p", &"v".repeat(32_767 - 128))]);
    for (fields, body) in [
        (to(&long[1..]), "body"),
        (to("BenchmarkTest"), "body"),
        (with(to("T"), "i", &full), "body"),
        (with(to("T"), "e", "1"), &big[1..]),
        (with(to("T"), "e", "-5"), ""),
        // Its permission is for routes: a producer with an old one loses nothing.
        (to("ReadOnly"), "body"),
    ] {
        let answer = client.ask(&broker, Code::SEND_MESSAGE_V2, &fields, body).await;
        assert_eq!(answer.code, 0, "{}", answer.remark());
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_that_may_not_take_messages_says_why() {
    let client = Member::new();
    let text = properties(&[]);
    let fields = send_fields("T", "0", &text);
    let sent = async |settings: &[(&str, &str)]| {
        let broker = Running::start(settings).await;
        let answer = client.ask(&broker, Code::SEND_MESSAGE_V2, &fields, "body").await;
        broker.stop().await;
        answer
    };
    let answer = sent(&[("brokerRole", "SLAVE"), ("brokerId", "1")]).await;
    let slave = "service not available now. It may be caused by one of the following reasons: ";
    check("a slave", &answer, 14, &begins(slave));
    let answer = sent(&[("startAcceptSendRequestTimeStamp", "9999999999999")]).await;
    check("too early", &answer, 1, &begins("broker unable to service, until 2286-11-2"));
    let answer = sent(&[("autoCreateTopicEnable", "false")]).await;
    check("no auto-create", &answer, 17, &begins("topic[T] not exist, apply first please!"));
    // Only ordered topics mind a broker that is not writable; clients keep away by the route.
    assert_eq!(sent(&[("brokerPermission", "4")]).await.code, 0);
}

/// What a slave stores of its own makes its log another one than its master's.
#[tokio::test]
async fn a_slave_stores_nothing_for_clients() {
    let dir = tempfile::tempdir().unwrap();
    let client = Member::new();
    let broker = Running::start_in(dir.path(), &[]).await;
    assert_eq!(client.ask(&broker, Code::SEND_MESSAGE_V2, &send_fields("T", "0", ""), "body").await.code, 0);
    broker.stop().await;
    let broker = Running::start_in(dir.path(), &[("brokerRole", "SLAVE"), ("brokerId", "1")]).await;
    let back = [("group", "g"), ("offset", "0"), ("delayLevel", "-1"), ("originTopic", "T")];
    let answer = client.ask(&broker, Code::CONSUMER_SEND_MSG_BACK, &back, "").await;
    check("sent back", &answer, 1, &is("SERVICE_NOT_AVAILABLE"));
    let asker = properties(&[("REPLY_TO_CLIENT", "nobody")]);
    let answer = client.ask(&broker, Code::SEND_REPLY_MESSAGE_V2, &send_fields("T", "0", &asker), "body").await;
    check("a reply", &answer, 1, &is("push reply message fail, channel of <nobody> not found."));
    assert_eq!(field(&answer, "msgId"), None);
    for topic in ["T", "%DLQ%g"] {
        let max = client.ask(&broker, Code::GET_MAX_OFFSET, &[("topic", topic), ("queueId", "0")], "").await;
        assert_eq!(field(&max, "offset"), Some(if topic == "T" { "1" } else { "0" }), "{topic}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn what_a_client_gave_up_goes_to_the_dead_letters() {
    let broker = Running::start(&[("autoCreateSubscriptionGroup", "false")]).await;
    let client = Member::new();
    client.ask(&broker, Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], r#"{"groupName":"g","retryMaxTimes":2}"#).await;
    let text = properties(&[("DELAY", "3")]);
    let to = |group, times| with(send_fields(group, "0", &text), "j", times);
    let answer = client.ask(&broker, Code::SEND_MESSAGE_V2, &to("%RETRY%none", "0"), "body").await;
    check("an unknown group", &answer, 26, &Remark::Is(format!("subscription group not exist, none {FAQ}")));
    for (fields, dead) in [
        (to("%RETRY%g", "1"), 0),
        (to("%RETRY%g", "2"), 1),
        // The sender's own limit goes first.
        (with(to("%RETRY%g", "2"), "l", "3"), 1),
        (with(to("%RETRY%g", "1"), "l", "1"), 2),
    ] {
        let answer = client.ask(&broker, Code::SEND_MESSAGE_V2, &fields, "body").await;
        assert_eq!((answer.code, field(&answer, "queueId")), (0, Some("0")), "{}", answer.remark());
        let queue = [("topic", "%DLQ%g"), ("queueId", "0")];
        // The queue is written behind the log.
        let written = async {
            loop {
                let end = client.ask(&broker, Code::GET_MAX_OFFSET, &queue, "").await;
                if field(&end, "offset") == Some(&*dead.to_string()) {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(support::PATIENCE, written).await.expect("the dead letter is there");
    }
    client.ask(&broker, Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], r#"{"groupName":"tools"}"#).await;
    let pull = pull_fields("tools", "%DLQ%g");
    let pulled = client.ask(&broker, Code::PULL_MESSAGE, &pull, "").await;
    let unit = pulled.body.bytes().to_vec();
    let letter = decode_message(&unit).unwrap();
    assert_eq!((letter.topic, letter.body, letter.reconsume_times), ("%DLQ%g", &b"body"[..], 2));
    broker.stop().await;
}

fn pull_fields<'a>(group: &'a str, topic: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("subscription", "*"),
        ("subVersion", "1"),
    ]
}

#[tokio::test]
async fn pulls_are_refused_in_javas_words() {
    let broker = Running::start(&[("autoCreateSubscriptionGroup", "false")]).await;
    let client = Member::new();
    for fields in [topic("T", "6"), topic("WriteOnly", "2")] {
        assert_eq!(client.ask(&broker, Code::UPDATE_AND_CREATE_TOPIC, &fields, "").await.code, 0);
    }
    for body in [
        r#"{"groupName":"g"}"#,
        r#"{"groupName":"stopped","consumeEnable":false}"#,
        r#"{"groupName":"alone","consumeBroadcastEnable":false}"#,
    ] {
        assert_eq!(client.ask(&broker, Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], body).await.code, 0);
    }
    client.beat(&broker, "c", "g", &["Other"]).await;
    let broadcasting = r#"{"clientID":"d","consumerDataSet":[{"groupName":"alone","messageModel":"BROADCASTING","subscriptionDataSet":[{"topic":"T","subString":"*","subVersion":1}]}]}"#;
    assert_eq!(client.ask(&broker, Code::HEART_BEAT, &[], broadcasting).await.code, 0);
    // Without bit 4 the subscription is that of the heartbeats.
    let beaten = |group, topic| with(pull_fields(group, topic), "sysFlag", "0");
    let queue = "topic:[T] topicConfig.readQueueNums:[2] consumer:[";
    for (what, fields, code, remark) in [
        (
            "an unknown group",
            pull_fields("none", "T"),
            26,
            Remark::Is(format!("subscription group [none] does not exist, {FAQ}")),
        ),
        ("a stopped group", pull_fields("stopped", "T"), 16, is("subscription group no permission, stopped")),
        (
            "an unknown topic",
            pull_fields("g", "New"),
            17,
            Remark::Is(format!("topic[New] not exist, apply first please! {FAQ}")),
        ),
        (
            "a topic for writers",
            pull_fields("g", "WriteOnly"),
            16,
            is("the topic[WriteOnly] pulling message is forbidden"),
        ),
        (
            "a queue too many",
            with(pull_fields("g", "T"), "queueId", "2"),
            1,
            Remark::Begins(format!("queueId[2] is illegal, {queue}")),
        ),
        (
            "a negative queue",
            with(pull_fields("g", "T"), "queueId", "-1"),
            1,
            Remark::Begins(format!("queueId[-1] is illegal, {queue}")),
        ),
        ("another topic", beaten("g", "T"), 24, Remark::Is(format!("the consumer's subscription not exist{FAQ}"))),
        ("broadcasting", beaten("alone", "T"), 16, is("the consumer group[alone] can not consume by broadcast way")),
        ("no queue", vec![("consumerGroup", "g"), ("topic", "T")], 1, begins("the custom field <queueId> is null")),
    ] {
        let answer = client.ask(&broker, Code::PULL_MESSAGE, &fields, "").await;
        check(what, &answer, code, &remark);
    }
    client.ask(&broker, Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], r#"{"groupName":"offline"}"#).await;
    let answer = client.ask(&broker, Code::PULL_MESSAGE, &beaten("offline", "T"), "").await;
    check("offline", &answer, 24, &Remark::Is(format!("the consumer's group info not exist{FAQ}")));
    client.beat(&broker, "c", "g", &["T"]).await;
    let newer = with(beaten("g", "T"), "subVersion", "2");
    let answer = client.ask(&broker, Code::PULL_MESSAGE, &newer, "").await;
    check("an older heartbeat", &answer, 25, &is("the consumer's subscription not latest"));
    assert_eq!(client.ask(&broker, Code::PULL_MESSAGE, &beaten("g", "T"), "").await.code, 19);

    client.ask(&broker, Code::UPDATE_BROKER_CONFIG, &[], "brokerPermission=2").await;
    let answer = client.ask(&broker, Code::PULL_MESSAGE, &beaten("g", "T"), "").await;
    check("a broker for writers", &answer, 16, &is("the broker[127.0.0.1] pulling message is forbidden"));
    broker.stop().await;
}

#[tokio::test]
async fn what_is_sent_back_is_refused_in_javas_words() {
    let broker = Running::start(&[("autoCreateSubscriptionGroup", "false")]).await;
    let client = Member::new();
    for body in [r#"{"groupName":"g"}"#, r#"{"groupName":"never","retryQueueNums":0}"#, r#"{"groupName":"shut"}"#] {
        client.ask(&broker, Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], body).await;
    }
    client.ask(&broker, Code::UPDATE_AND_CREATE_TOPIC, &topic("%RETRY%shut", "4"), "").await;
    let back = |group| vec![("offset", "12345"), ("group", group), ("delayLevel", "0")];
    for (group, code, remark) in [
        ("none", 26, Remark::Is(format!("subscription group not exist, none {FAQ}"))),
        ("never", 0, is("")),
        ("shut", 16, is("the topic[%RETRY%shut] sending message is forbidden")),
        ("g", 1, is("look message by offset failed, 12345")),
    ] {
        let answer = client.ask(&broker, Code::CONSUMER_SEND_MSG_BACK, &back(group), "").await;
        check(group, &answer, code, &remark);
    }
    client.ask(&broker, Code::UPDATE_BROKER_CONFIG, &[], "brokerPermission=4").await;
    let answer = client.ask(&broker, Code::CONSUMER_SEND_MSG_BACK, &back("g"), "").await;
    check("a broker for readers", &answer, 16, &is("the broker[127.0.0.1] sending message is forbidden"));
    broker.stop().await;
}

#[tokio::test]
async fn names_of_topics_and_groups_are_checked() {
    let broker = Running::start(&[]).await;
    let tool = Member::new();
    let long = "t".repeat(128);
    for (name, remark) in [
        ("", is(BLANK)),
        (" ", is(BLANK)),
        ("a.b", is(ILLEGAL)),
        (&*long, is(TOO_LONG)),
        ("TBW102", is("The topic[TBW102] is conflict with system topic.")),
        ("DefaultCluster", is("The topic[DefaultCluster] is conflict with system topic.")),
        ("b", is("The topic[b] is conflict with system topic.")),
        ("DefaultCluster_REPLY_TOPIC", begins("The topic[DefaultCluster_REPLY_TOPIC] is conflict")),
        ("rmq_sys_any", is("The topic[rmq_sys_any] is conflict with system topic.")),
    ] {
        let made = tool.ask(&broker, Code::UPDATE_AND_CREATE_TOPIC, &topic(name, "6"), "").await;
        check(name, &made, 1, &remark);
        let gone = tool.ask(&broker, Code::DELETE_TOPIC_IN_BROKER, &[("topic", name)], "").await;
        check(name, &gone, 1, &remark);
    }
    let long = "g".repeat(256);
    for (name, remark) in [
        ("", "The specified group is blank.".to_owned()),
        ("a b", "The specified group: a b, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$".to_owned()),
        (&*long, format!("The specified group: {long}, is longer than group max length: 255")),
    ] {
        let body = format!(r#"{{"groupName":"{name}"}}"#);
        let made = tool.ask(&broker, Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], &body).await;
        check(name, &made, 1, &Remark::Is(remark));
    }
    let groups = tool.ask(&broker, Code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], "").await;
    let groups = read::<SubscriptionGroupTable>(&groups).subscription_group_table;
    assert!(groups.keys().all(|name| !name.is_empty() && name != "a b" && name.len() < 256), "{:?}", groups.keys());
    // At the limits everything is taken.
    let longest = "%|-_".repeat(31) + "abc";
    assert_eq!(tool.ask(&broker, Code::UPDATE_AND_CREATE_TOPIC, &topic(&longest, "6"), "").await.code, 0);
    let body = format!(r#"{{"groupName":"{}"}}"#, &long[1..]);
    assert_eq!(tool.ask(&broker, Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], &body).await.code, 0);
    let topics = tool.ask(&broker, Code::GET_ALL_TOPIC_CONFIG, &[], "").await;
    assert!(read::<TopicConfigTable>(&topics).topic_config_table.contains_key(&longest));
    broker.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_in_javas_words() {
    let broker = Running::start(&[]).await;
    let tool = Member::new();
    tool.ask(&broker, Code::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;
    for (code, fields, answer, remark) in [
        (Code::GET_TOPIC_STATS_INFO, vec![("topic", "N")], 17, "topic[N] not exist"),
        (Code::GET_TOPIC_CONFIG, vec![("topic", "N")], 17, "No topic in this broker. topic: N"),
        (Code::QUERY_CONSUME_TIME_SPAN, vec![("topic", "N"), ("group", "g")], 17, "topic[N] not exist"),
        (Code::GET_SUBSCRIPTIONGROUP_CONFIG, vec![("group", "n")], 26, "No group in this broker"),
        (Code::GET_CONSUMER_LIST_BY_GROUP, vec![("consumerGroup", "n")], 1, "no consumer for this group, n"),
        (Code::GET_CONSUMER_CONNECTION_LIST, vec![("consumerGroup", "n")], 206, "the consumer group[n] not online"),
        (Code::GET_PRODUCER_CONNECTION_LIST, vec![("producerGroup", "n")], 1, "the producer group[n] not exist"),
        (
            Code::GET_CONSUMER_RUNNING_INFO,
            vec![("consumerGroup", "n"), ("clientId", "c")],
            1,
            "The Consumer <n> <c> not online",
        ),
        (
            Code::VIEW_BROKER_STATS_DATA,
            vec![("statsName", "TOPIC_PUT_NUMS"), ("statsKey", "n")],
            1,
            "The stats <TOPIC_PUT_NUMS> <n> not exist",
        ),
        (
            Code::QUERY_CONSUME_QUEUE,
            vec![("topic", "T"), ("queueId", "2"), ("index", "0"), ("count", "1")],
            1,
            "2@T is not exist!",
        ),
        (
            Code::QUERY_CONSUME_QUEUE,
            vec![("topic", "T"), ("queueId", "0"), ("index", "5"), ("count", "1")],
            0,
            "Index 5 of 0@T is not exist!",
        ),
        (Code::VIEW_MESSAGE_BY_ID, vec![("offset", "7")], 1, "can not find message by the offset, 7"),
        (
            Code::QUERY_MESSAGE,
            vec![("topic", "T"), ("key", "n"), ("maxNum", "1"), ("beginTimestamp", "0"), ("endTimestamp", "9")],
            22,
            "can not find message, maybe time range not correct",
        ),
        (
            Code::QUERY_CONSUMER_OFFSET,
            vec![("consumerGroup", "n"), ("topic", "T"), ("queueId", "0"), ("setZeroIfNotFound", "false")],
            22,
            "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
        ),
    ] {
        let told = tool.ask(&broker, code, &fields, "").await;
        check(&code.to_string(), &told, answer, &begins(remark));
    }
    let refused = tool.ask(&broker, Code::UPDATE_BROKER_CONFIG, &[], "rocketmqHome=/tmp").await;
    check("a key on the black list", &refused, 16, &is("Can not update config in black list."));
    broker.stop().await;
}

/// Java's decoders miss no field; what is not there fails where it is needed (seen of 4.9.7 and 5.5.0).
#[tokio::test]
async fn only_a_field_that_is_needed_is_missed() {
    const LONG: [(&str, &str); 9] = [
        ("a", "producerGroup"),
        ("b", "topic"),
        ("c", "defaultTopic"),
        ("d", "defaultTopicQueueNums"),
        ("e", "queueId"),
        ("f", "sysFlag"),
        ("g", "bornTimestamp"),
        ("h", "flag"),
        ("i", "properties"),
    ];
    let broker = Running::start(&[]).await;
    let client = Member::new();
    client.ask(&broker, Code::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;
    let long = |fields: &[(&'static str, &'static str)]| -> Vec<_> {
        fields.iter().zip(LONG).map(|((_, value), (_, name))| (name, *value)).collect()
    };
    for topic in ["T", "New"] {
        let fields = send_fields(topic, "0", "");
        for (short, name) in LONG {
            let is_needed = match short {
                "a" | "i" => false,
                "c" | "d" => topic == "New",
                _ => true,
            };
            // Each send may make the topic.
            client.ask(&broker, Code::DELETE_TOPIC_IN_BROKER, &[("topic", "New")], "").await;
            for (code, fields, left_out) in
                [(Code::SEND_MESSAGE_V2, fields.clone(), short), (Code::SEND_MESSAGE, long(&fields), name)]
            {
                let rest: Vec<_> = fields.into_iter().filter(|(name, _)| *name != left_out).collect();
                let answer = client.ask(&broker, code, &rest, "body").await;
                assert_eq!(answer.code, i32::from(is_needed), "{topic} without {left_out}: {}", answer.remark());
                let known = answer.remark().strip_prefix("the custom field <");
                assert_eq!(known.is_some(), is_needed, "{topic} without {left_out}: {}", answer.remark());
            }
        }
    }
    // Long names are read field by field, and a number that is none counts as absent; short ones all at once.
    let with_max = |name| [&long(&send_fields("T", "0", ""))[..], &[(name, "")]].concat();
    assert_eq!(client.ask(&broker, Code::SEND_MESSAGE, &with_max("maxReconsumeTimes"), "body").await.code, 0);
    let short = with(send_fields("T", "0", ""), "l", "");
    check("l", &client.ask(&broker, Code::SEND_MESSAGE_V2, &short, "body").await, 1, &begins("the custom field <l>"));

    let offset = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0"), ("commitOffset", "1")];
    for (left_out, code, remark) in [
        ("consumerGroup", 1, "the custom field <consumerGroup> is null"),
        ("queueId", 29, "QueueId is null, topic is T"),
        ("commitOffset", 29, "Offset is null, topic is T"),
    ] {
        let rest: Vec<_> = offset.into_iter().filter(|(name, _)| *name != left_out).collect();
        check(left_out, &client.ask(&broker, Code::UPDATE_CONSUMER_OFFSET, &rest, "").await, code, &is(remark));
    }
    let times = [("maxNum", "9"), ("beginTimestamp", "0"), ("endTimestamp", "9999999999999")];
    for given in [&[][..], &[("topic", "T")], &[("key", "k")]] {
        let answer = client.ask(&broker, Code::QUERY_MESSAGE, &[given, &times].concat(), "").await;
        check("a query", &answer, 22, &is("can not find message, maybe time range not correct"));
    }
    assert_eq!(client.ask(&broker, Code::UNREGISTER_CLIENT, &[("producerGroup", "p")], "").await.code, 0);
    let looked = client.ask(&broker, Code::QUERY_CONSUME_QUEUE, &[("topic", "T"), ("count", "x")], "").await;
    assert_eq!(looked.code, 0, "{}", looked.remark());
    broker.stop().await;
}

/// Clients that are not Java's do not look at the names of groups; 4.9's broker does not either.
#[tokio::test]
async fn a_group_of_an_odd_name_is_served_as_far_as_it_can_be_kept() {
    let broker = Running::start(&[]).await;
    let client = Member::new();
    client.ask(&broker, Code::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;
    let long = "g".repeat(256);
    let odd = ["my.group", "ü :", "a@b", "a/../b", " ", &long];
    for name in odd {
        client.beat(&broker, "c", name, &["T"]).await;
        let list = client.ask(&broker, Code::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", name)], "").await;
        assert_eq!(list.code, i32::from(name == " " || name == long), "{name:?}: {}", list.remark());
    }
    let producers = client.ask(&broker, Code::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", "p")], "").await;
    assert_eq!(producers.code, 0, "the rest of such a heartbeat counts");
    let groups: SubscriptionGroupTable =
        read(&client.ask(&broker, Code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], "").await);
    let topics: TopicConfigTable = read(&client.ask(&broker, Code::GET_ALL_TOPIC_CONFIG, &[], "").await);
    for name in odd {
        let is_kept = ["my.group", "ü :"].contains(&name);
        assert_eq!(groups.subscription_group_table.contains_key(name), is_kept, "{name:?}");
        assert_eq!(topics.topic_config_table.contains_key(&format!("%RETRY%{name}")), is_kept, "{name:?}");
        let queue = [("consumerGroup", name), ("topic", "T"), ("queueId", "0")];
        let commit = [&queue[..], &[("commitOffset", "0")]].concat();
        let committed = client.ask(&broker, Code::UPDATE_CONSUMER_OFFSET, &commit, "").await;
        assert_eq!(committed.code == 0, is_kept, "{name:?}: {}", committed.remark());
        let rest = [
            ("queueOffset", "0"),
            ("maxMsgNums", "1"),
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("subVersion", "1"),
        ];
        let pulled = client.ask(&broker, Code::PULL_MESSAGE, &[&queue[..], &rest].concat(), "").await;
        assert_eq!(pulled.code, if is_kept { 19 } else { 26 }, "{name:?}: {}", pulled.remark());
    }
    broker.stop().await;
}
