//! What mqadmin, the dashboard and slaves ask a broker for: one test a subject, on a broker with messages.

mod support;

use std::collections::BTreeMap;

use rocketmq_remoting::bodies::{
    ConsumeStats, CorrectionOffsets, GroupList, GroupSubscription, OffsetTable, QueueEntryList, SubscriptionGroup,
    SubscriptionGroupTable, TopicConfigTable, TopicList,
};
use rocketmq_remoting::{Answer, Command, RequestCode, ResponseCode};
use rocketmq_store::decode_message;
use support::{Member, NEW_TOPIC, Running, field, properties, read, send_fields};

/// Sends a message with that key to queue 0 of topic `T`; its offset id.
async fn send(member: &Member, broker: &Running, key: &str) -> String {
    let text = properties(&[("KEYS", key), ("UNIQ_KEY", key), ("TAGS", "a")]);
    let answer = member.ask(broker, RequestCode::SEND_MESSAGE_V2, &send_fields("T", "0", &text), key).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    field(&answer, "msgId").unwrap().to_owned()
}

/// A broker with topic `T`, three messages in its queue 0, and the offset 1 of group `g` there.
async fn with_messages() -> (Running, Member, Vec<String>) {
    let broker = Running::start(&[]).await;
    let member = Member::new();
    member.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;
    let mut ids = Vec::new();
    for key in ["k0", "k1", "k2"] {
        ids.push(send(&member, &broker, key).await);
    }
    commit(&member, &broker, "g", "0", "1").await;
    // Queue and index are written behind the log; a pull at the end of the queue waits for the next message.
    for offset in ["0", "1", "2"] {
        pull(&member, &broker, RequestCode::PULL_MESSAGE, offset).await;
    }
    (broker, member, ids)
}

async fn commit(member: &Member, broker: &Running, group: &str, queue: &str, offset: &str) {
    let fields = [("consumerGroup", group), ("topic", "T"), ("queueId", queue), ("commitOffset", offset)];
    let answer = member.ask(broker, RequestCode::UPDATE_CONSUMER_OFFSET, &fields, "").await;
    assert_eq!(answer.code, 0, "{}", answer.remark());
}

/// Pulls from queue 0 of `T`, and waits for a message there.
async fn pull(member: &Member, broker: &Running, code: RequestCode, offset: &str) -> Command {
    let fields = [
        ("consumerGroup", "g"),
        ("topic", "T"),
        ("queueId", "0"),
        ("queueOffset", offset),
        ("maxMsgNums", "32"),
        ("sysFlag", "6"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", "*"),
    ];
    member.ask(broker, code, &fields, "").await
}

#[tokio::test]
async fn many_topics_and_groups_are_made_at_once_or_none() {
    let broker = Running::start(&[]).await;
    let tool = Member::new();
    let topics = |second: &str| {
        format!(
            r#"{{"topicConfigList":[{{"topicName":"One","readQueueNums":3,"writeQueueNums":3,"perm":6,"attributes":{{}}}},{{"topicName":"{second}","perm":4}}]}}"#
        )
    };
    for (second, remark) in [
        ("a b", "The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"),
        ("TBW102", "The topic[TBW102] is conflict with system topic."),
    ] {
        let refused = tool.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, &[], &topics(second)).await;
        assert_eq!((refused.code, refused.remark()), (1, remark));
    }
    let table = |answer: &Command| read::<TopicConfigTable>(answer).topic_config_table;
    let all = table(&tool.ask(&broker, RequestCode::GET_ALL_TOPIC_CONFIG, &[], "").await);
    assert!(!all.contains_key("One"), "none where one is refused");
    let made = tool.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, &[], &topics("Two")).await;
    assert_eq!(made.code, 0, "{}", made.remark());
    let all = table(&tool.ask(&broker, RequestCode::GET_ALL_TOPIC_CONFIG, &[], "").await);
    assert_eq!((all["One"].write_queue_nums, all["Two"].perm), (3, 4));

    let groups = |second: &str| {
        format!(r#"{{"groupConfigList":[{{"groupName":"g1","retryMaxTimes":3}},{{"groupName":"{second}"}}]}}"#)
    };
    let list = RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST;
    assert_eq!(tool.ask(&broker, list, &[], &groups("a@b")).await.code, 1);
    let group = [("group", "g1")];
    let missing = tool.ask(&broker, RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &group, "").await;
    assert_eq!(missing.response_code(), ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST);
    assert_eq!(tool.ask(&broker, list, &[], &groups("g2")).await.code, 0);
    let known = tool.ask(&broker, RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &group, "").await;
    assert_eq!(read::<SubscriptionGroup>(&known).retry_max_times, 3);
    let all = tool.ask(&broker, RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], "").await;
    assert!(read::<SubscriptionGroupTable>(&all).subscription_group_table.contains_key("g2"));
    broker.stop().await;

    let slave = Running::start(&[("brokerRole", "SLAVE"), ("brokerId", "1")]).await;
    for code in [RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, list] {
        let refused = tool.ask(&slave, code, &[], "{}").await;
        assert!(refused.remark().starts_with("Can't modify topic or subscription group"), "{code}");
    }
    slave.stop().await;
}

/// As mqadmin and dashboard of 5.x set and show them; slaves and a restart do not lose them.
#[tokio::test]
async fn what_5_x_says_of_a_group_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let tool = Member::new();
    let put = RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
    let broker = Running::start_in(dir.path(), &[]).await;
    let body = |attributes: &str| {
        format!(
            r#"{{"groupName":"g","attributes":{{{attributes}}},"consumeMessageOrderly":true,"groupRetryPolicy":{{"type":"CUSTOMIZED","customizedRetryPolicy":{{"next":[1000,5000]}}}},"groupSysFlag":0,"retryMaxTimes":3}}"#
        )
    };
    assert_eq!(tool.ask(&broker, put, &[], &body(r#""+priority.factor":"7""#)).await.code, 0);
    let refused = tool.ask(&broker, put, &[], &body(r#""+no.such":"7""#)).await;
    assert_eq!((refused.code, refused.remark()), (1, "unsupported key: no.such"));
    assert_eq!(tool.ask(&broker, put, &[], &body("")).await.code, 0);
    broker.stop().await;
    let broker = Running::start_in(dir.path(), &[]).await;
    let kept = tool.ask(&broker, RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "g")], "").await;
    let table = tool.ask(&broker, RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], "").await;
    let mut table: SubscriptionGroupTable = read(&table);
    for group in [read::<SubscriptionGroup>(&kept), table.subscription_group_table.remove("g").unwrap()] {
        assert_eq!((group.attributes["priority.factor"].as_str(), group.retry_max_times), ("7", 3));
        assert_eq!(group.more["groupRetryPolicy"]["customizedRetryPolicy"]["next"][1], 5000);
        assert_eq!((&group.more["consumeMessageOrderly"], group.more.len()), (&true.into(), 3));
    }
    let deleted = tool.ask(&broker, put, &[], &body(r#""-priority.factor":"""#)).await;
    assert_eq!(deleted.code, 0, "{}", deleted.remark());
    let kept = tool.ask(&broker, RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "g")], "").await;
    assert!(read::<SubscriptionGroup>(&kept).attributes.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn who_consumes_what() {
    let (broker, tool, _) = with_messages().await;
    let topics = tool.ask(&broker, RequestCode::QUERY_TOPICS_BY_CONSUMER, &[("group", "g")], "").await;
    let topics: TopicList = read(&topics);
    assert_eq!((topics.topic_list, topics.broker_addr), (vec!["T".to_owned()], Some(broker.address.clone())));
    let topics = tool.ask(&broker, RequestCode::QUERY_TOPICS_BY_CONSUMER, &[("group", "none")], "").await;
    assert!(read::<TopicList>(&topics).topic_list.is_empty());

    let asked = [("group", "h"), ("topic", "T")];
    let offline = tool.ask(&broker, RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER, &asked, "").await;
    assert_eq!(&offline.body.bytes()[..], br#"{"group":"h","topic":"T"}"#);
    tool.beat(&broker, "c", "h", &["T"]).await;
    let online = tool.ask(&broker, RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER, &asked, "").await;
    assert_eq!(read::<GroupSubscription>(&online).subscription_data.unwrap().sub_string, "*");

    let groups = tool.ask(&broker, RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, &[("topic", "T")], "").await;
    assert_eq!(read::<GroupList>(&groups).group_list, ["g", "h"]);
    let producers = tool.ask(&broker, RequestCode::GET_ALL_PRODUCER_INFO, &[], "").await;
    let producers = String::from_utf8(producers.body.bytes().to_vec()).unwrap();
    assert!(producers.starts_with(r#"{"data":{"p":[{"clientId":"c","language":"#), "{producers}");
    broker.stop().await;
}

#[tokio::test]
async fn offsets_are_compared_and_copied() {
    let (broker, tool, _) = with_messages().await;
    commit(&tool, &broker, "h", "0", "2").await;
    commit(&tool, &broker, "h", "1", "0").await;
    let correction = async |left_out: &str, compared: &str| {
        let fields = [("topic", "T"), ("filterGroups", left_out), ("compareGroup", compared)];
        let answer = tool.ask(&broker, RequestCode::QUERY_CORRECTION_OFFSET, &fields, "").await;
        read::<CorrectionOffsets>(&answer).correction_offsets
    };
    assert_eq!(correction("", "none").await, BTreeMap::from([(0, 1), (1, 0)]), "the slowest of each queue");
    assert_eq!(correction("g,x", "none").await, BTreeMap::from([(0, 2), (1, 0)]), "but for g");
    assert_eq!(correction("g", "g").await, BTreeMap::from([(0, i64::MAX), (1, 0)]), "g is behind the others");
    assert_eq!(correction("g,h", "g").await, BTreeMap::new());
    let offset = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];
    let kept = tool.ask(&broker, RequestCode::QUERY_CONSUMER_OFFSET, &offset, "").await;
    assert_eq!(field(&kept, "offset"), Some("1"), "who is left out keeps his offset");

    let clone = [("srcGroup", "g"), ("destGroup", "copy"), ("topic", "T"), ("offline", "true")];
    assert_eq!(tool.ask(&broker, RequestCode::CLONE_GROUP_OFFSET, &clone, "").await.code, 0);
    let all = tool.ask(&broker, RequestCode::GET_ALL_CONSUMER_OFFSET, &[], "").await;
    assert_eq!(read::<OffsetTable>(&all).offset_table["T@copy"], BTreeMap::from([(0, 1)]));
    broker.stop().await;
}

#[tokio::test]
async fn messages_are_found_by_offset_time_key_and_place() {
    let (broker, tool, ids) = with_messages().await;
    let unit = |answer: &Command| answer.body.bytes().to_vec();
    for code in [RequestCode::PULL_MESSAGE, RequestCode::LITE_PULL_MESSAGE] {
        let pulled = pull(&tool, &broker, code, "1").await;
        assert_eq!(pulled.response_code(), ResponseCode::SUCCESS);
        assert_eq!((field(&pulled, "nextBeginOffset"), field(&pulled, "maxOffset")), (Some("3"), Some("3")));
        assert_eq!(decode_message(&unit(&pulled)).unwrap().body, b"k1");
    }
    let place = u64::from_str_radix(&ids[2][16..], 16).unwrap().to_string();
    let viewed = tool.ask(&broker, RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", &place)], "").await;
    assert_eq!(decode_message(&unit(&viewed)).unwrap().body, b"k2");
    let nowhere = tool.ask(&broker, RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", "1")], "").await;
    assert_eq!((nowhere.code, nowhere.remark()), (1, "can not find message by the offset, 1"));

    let query = |key| {
        [("topic", "T"), ("key", key), ("maxNum", "4"), ("beginTimestamp", "0"), ("endTimestamp", "9999999999999")]
    };
    let found = tool.ask(&broker, RequestCode::QUERY_MESSAGE, &query("k1"), "").await;
    assert_eq!(decode_message(&unit(&found)).unwrap().body, b"k1");
    assert!(field(&found, "indexLastUpdatePhyoffset").is_some());
    let none = tool.ask(&broker, RequestCode::QUERY_MESSAGE, &query("none"), "").await;
    assert_eq!((none.code, none.remark()), (22, "can not find message, maybe time range not correct"));

    let queue = |id| [("topic", "T"), ("queueId", id)];
    let offset = async |code, fields: &[(&str, &str)], name| {
        field(&tool.ask(&broker, code, fields, "").await, name).map(|text| text.parse::<i64>().unwrap())
    };
    assert_eq!(offset(RequestCode::GET_MIN_OFFSET, &queue("0"), "offset").await, Some(0));
    assert_eq!(offset(RequestCode::GET_MAX_OFFSET, &queue("0"), "offset").await, Some(3));
    let earliest = offset(RequestCode::GET_EARLIEST_MSG_STORETIME, &queue("0"), "timestamp").await.unwrap();
    assert!(earliest > 1_700_000_000_000, "{earliest}");
    assert_eq!(offset(RequestCode::GET_EARLIEST_MSG_STORETIME, &queue("1"), "timestamp").await, Some(-1));
    let early = [("topic", "T"), ("queueId", "0"), ("timestamp", "1")];
    assert_eq!(offset(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, &early, "offset").await, Some(0));

    let entries = [("topic", "T"), ("queueId", "0"), ("index", "1"), ("count", "9")];
    let entries: QueueEntryList = read(&tool.ask(&broker, RequestCode::QUERY_CONSUME_QUEUE, &entries, "").await);
    assert_eq!((entries.max_queue_index, entries.queue_data.len()), (3, 2));
    broker.stop().await;
}

#[tokio::test]
async fn consumers_are_asked_through_the_broker() {
    const STATUS: &str = r#"{"messageQueueTable":{{"brokerName":"b","queueId":0,"topic":"T"}:5}}"#;
    let (broker, tool, ids) = with_messages().await;
    let consumer = Member::answering(|| Answer::Now(Command::ok().with_body(STATUS)));
    consumer.beat(&broker, "c", "g", &["T"]).await;
    consumer.asked(1).await;
    let fields = [("topic", "T"), ("group", "g")];
    let status = tool.ask(&broker, RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, &fields, "").await;
    assert_eq!(
        String::from_utf8(status.body.bytes().to_vec()).unwrap(),
        r#"{"consumerTable":{"c":{{"brokerName":"b","queueId":0,"topic":"T"}:5}}}"#
    );
    assert_eq!(consumer.asked(2).await[1], RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT);

    let fields = [("consumerGroup", "g"), ("clientId", "c"), ("msgId", &*ids[1])];
    let result = tool.ask(&broker, RequestCode::CONSUME_MESSAGE_DIRECTLY, &fields, "").await;
    assert_eq!(&result.body.bytes()[..], STATUS.as_bytes(), "the consumer's own words");
    consumer.asked(3).await;
    let asked = consumer.inbox.0.lock()[2].clone();
    assert_eq!(asked.request_code(), RequestCode::CONSUME_MESSAGE_DIRECTLY);
    assert_eq!(field(&asked, "brokerName"), Some("b"));
    assert_eq!(decode_message(&asked.body.bytes()).unwrap().body, b"k1");
    broker.stop().await;
}

#[tokio::test]
async fn consumption_is_counted() {
    let (broker, tool, _) = with_messages().await;
    tool.ask(&broker, RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], r#"{"groupName":"g"}"#).await;
    let stats = [("consumerGroup", "g"), ("topic", "T")];
    let stats: ConsumeStats = read(&tool.ask(&broker, RequestCode::GET_CONSUME_STATS, &stats, "").await);
    let behind: i64 = stats.offset_table.values().map(|queue| queue.broker_offset - queue.consumer_offset).sum();
    assert_eq!(behind, 2);
    let text = async |code, fields: &[(&str, &str)]| {
        let answer = tool.ask(&broker, code, fields, "").await;
        assert_eq!(answer.code, 0, "{}", answer.remark());
        String::from_utf8(answer.body.bytes().to_vec()).unwrap()
    };
    let all = text(RequestCode::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")]).await;
    assert!(all.contains(r#""totalDiff":2"#) && all.contains(r#""consumerOffset":1"#), "{all}");
    let span = text(RequestCode::QUERY_CONSUME_TIME_SPAN, &[("topic", "T"), ("group", "g")]).await;
    assert!(span.starts_with(r#"{"consumeTimeSpanSet":[{"#) && span.contains("minTimeStamp"), "{span}");
    broker.stop().await;
}

#[tokio::test]
async fn what_is_not_needed_is_cleaned() {
    let (broker, tool, _) = with_messages().await;
    for code in [
        RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE,
        RequestCode::CLEAN_UNUSED_TOPIC,
        RequestCode::DELETE_EXPIRED_COMMITLOG,
    ] {
        let answer = tool.ask(&broker, code, &[], "").await;
        assert_eq!(answer.code, 0, "{code}: {}", answer.remark());
    }
    let still = pull(&tool, &broker, RequestCode::PULL_MESSAGE, "0").await;
    assert_eq!(still.response_code(), ResponseCode::SUCCESS, "nothing was old or unused");
    broker.stop().await;
}

#[tokio::test]
async fn slaves_are_told_everything() {
    let (broker, slave, _) = with_messages().await;
    let text = async |code| {
        let answer = slave.ask(&broker, code, &[], "").await;
        assert_eq!(answer.code, 0, "{code}: {}", answer.remark());
        String::from_utf8(answer.body.bytes().to_vec()).unwrap()
    };
    assert!(text(RequestCode::GET_ALL_TOPIC_CONFIG).await.contains(r#""topicName":"T""#));
    assert!(text(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG).await.contains("TOOLS_CONSUMER"));
    assert_eq!(text(RequestCode::GET_ALL_CONSUMER_OFFSET).await, r#"{"offsetTable":{"T@g":{0:1}}}"#);
    assert!(text(RequestCode::GET_ALL_DELAY_OFFSET).await.starts_with(r#"{"offsetTable":{"#));
    assert_eq!(text(RequestCode::GET_ALL_MESSAGE_REQUEST_MODE).await, r#"{"messageRequestModeMap":{}}"#);
    assert!(text(RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER).await.contains("SCHEDULE_TOPIC_XXXX"));
    assert!(text(RequestCode::GET_BROKER_HA_STATUS).await.contains(r#""master":true"#));
    broker.stop().await;
}
