//! A whole broker in this process, asked over real sockets for what clients and tools ask beside
//! sending and pulling.

mod support;

use rocketmq_remoting::bodies::{
    Connection, ConsumerConnection, ConsumerIdList, KvTable, LockBatchRequest, LockBatchResponse, MessageQueue,
    ResetOffset, TopicConfig, TopicConfigTable, TopicStats,
};
use rocketmq_remoting::{RequestCode, ResponseCode, fastjson};
use support::{Member, NEW_TOPIC, Running, read, send_fields};

#[tokio::test]
async fn members_of_a_group_hear_of_each_other() {
    let broker = Running::start(&[]).await;
    let (one, two) = (Member::new(), Member::new());
    one.beat(&broker, "c1", "g", &["T"]).await;
    assert_eq!(one.asked(1).await, [RequestCode::NOTIFY_CONSUMER_IDS_CHANGED], "the newcomer too");
    one.beat(&broker, "c1", "g", &["T"]).await;
    two.beat(&broker, "c2", "g", &["T"]).await;
    assert_eq!(one.asked(2).await.len(), 2, "a heartbeat that says nothing new tells nobody");
    two.asked(1).await;
    let list = one.ask(&broker, RequestCode::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", "g")], "").await;
    let mut ids = read::<ConsumerIdList>(&list).consumer_id_list;
    ids.sort();
    assert_eq!(ids, ["c1", "c2"]);
    let topics = one.ask(&broker, RequestCode::GET_ALL_TOPIC_CONFIG, &[], "").await;
    assert_eq!(read::<TopicConfigTable>(&topics).topic_config_table["%RETRY%g"].write_queue_nums, 1);

    drop(two);
    one.asked(3).await;
    let seen = one.ask(&broker, RequestCode::GET_CONSUMER_CONNECTION_LIST, &[("consumerGroup", "g")], "").await;
    let seen: ConsumerConnection = read(&seen);
    let ids: Vec<&str> = seen.connection_set.iter().map(|Connection { client_id, .. }| client_id.as_str()).collect();
    assert_eq!(ids, ["c1"]);

    let fields = [("clientID", "c1"), ("consumerGroup", "g"), ("producerGroup", "p")];
    one.ask(&broker, RequestCode::UNREGISTER_CLIENT, &fields, "").await;
    let gone = one.ask(&broker, RequestCode::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", "g")], "").await;
    assert_eq!((gone.code, gone.remark()), (1, "no consumer for this group, g"));
    let gone = one.ask(&broker, RequestCode::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", "p")], "").await;
    assert_eq!((gone.code, gone.remark()), (1, "the producer group[p] not exist"));
    broker.stop().await;
}

#[tokio::test]
async fn offsets_are_kept_and_reset_through_the_members() {
    let broker = Running::start(&[]).await;
    let member = Member::new();
    let created = member.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;
    assert_eq!(created.code, 0, "{}", created.remark());
    let queue = |id| vec![("consumerGroup", "g"), ("topic", "T"), ("queueId", id)];
    let young = member.ask(&broker, RequestCode::QUERY_CONSUMER_OFFSET, &queue("0"), "").await;
    assert_eq!(young.ext_fields.get("offset"), Some("0"), "a young queue begins at 0");
    let strict = [queue("0"), vec![("setZeroIfNotFound", "false")]].concat();
    let strict = member.ask(&broker, RequestCode::QUERY_CONSUMER_OFFSET, &strict, "").await;
    assert_eq!(strict.response_code(), ResponseCode::QUERY_NOT_FOUND);

    let reset = [("topic", "T"), ("group", "g"), ("timestamp", "-1"), ("isForce", "true")];
    let refused = member.ask(&broker, RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset, "").await;
    assert_eq!((refused.code, refused.remark()), (1, "THe consumer group <g> not exist"));
    for id in ["0", "1"] {
        let commit = [queue(id), vec![("commitOffset", "7")]].concat();
        assert_eq!(member.ask(&broker, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, "").await.code, 0);
    }
    let beyond = [queue("2"), vec![("commitOffset", "7")]].concat();
    assert_eq!(member.ask(&broker, RequestCode::UPDATE_CONSUMER_OFFSET, &beyond, "").await.code, 1);
    let stored = member.ask(&broker, RequestCode::QUERY_CONSUMER_OFFSET, &queue("1"), "").await;
    assert_eq!(stored.ext_fields.get("offset"), Some("7"));
    let all = member.ask(&broker, RequestCode::GET_ALL_CONSUMER_OFFSET, &[], "").await;
    assert_eq!(&all.body.bytes()[..], br#"{"offsetTable":{"T@g":{0:7,1:7}}}"#);

    let offline = member.ask(&broker, RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset, "").await;
    assert_eq!(offline.response_code(), ResponseCode::CONSUMER_NOT_ONLINE, "tools then go the old way");
    // As mqadmin of 5.x asks for one queue.
    let single = |offset| [("topic", "T"), ("group", "g"), ("timestamp", "0"), ("queueId", "1"), ("offset", offset)];
    let done = member.ask(&broker, RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &single("1"), "").await;
    assert_eq!(&done.body.bytes()[..], br#"{"offsetTable":{{"brokerName":"b","queueId":1,"topic":"T"}:1}}"#);
    let all = member.ask(&broker, RequestCode::GET_ALL_CONSUMER_OFFSET, &[], "").await;
    assert_eq!(&all.body.bytes()[..], br#"{"offsetTable":{"T@g":{0:7,1:1}}}"#, "the other queue stays");
    let beyond = member.ask(&broker, RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &single("2"), "").await;
    assert_eq!((beyond.code, beyond.remark()), (1, "Target offset 2 not in consume queue range [0-0]"));
    member.beat(&broker, "c1", "g", &["T"]).await;
    member.asked(1).await;
    let done = member.ask(&broker, RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset, "").await;
    assert_eq!(read::<ResetOffset>(&done).offset_table.into_values().collect::<Vec<_>>(), [0, 0]);
    assert_eq!(member.asked(2).await[1], RequestCode::RESET_CONSUMER_CLIENT_OFFSET);
    assert_eq!(member.inbox.0.lock()[1].body.bytes(), done.body.bytes());
    let done = member.ask(&broker, RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &single("-1"), "").await;
    assert_eq!(read::<ResetOffset>(&done).offset_table.len(), 1, "the queue at that time");
    assert_eq!(member.asked(3).await[2], RequestCode::RESET_CONSUMER_CLIENT_OFFSET);
    assert_eq!(member.inbox.0.lock()[2].body.bytes(), done.body.bytes());

    let running = [("consumerGroup", "g"), ("clientId", "c1")];
    let info = member.ask(&broker, RequestCode::GET_CONSUMER_RUNNING_INFO, &running, "").await;
    assert_eq!(&info.body.bytes()[..], b"what I am");
    let nobody = [("consumerGroup", "g"), ("clientId", "c9")];
    let info = member.ask(&broker, RequestCode::GET_CONSUMER_RUNNING_INFO, &nobody, "").await;
    assert_eq!((info.code, info.remark()), (1, "The Consumer <g> <c9> not online"));
    broker.stop().await;
}

/// `useServerSideResetOffset` of 5.x: online or not, and whatever its clients understand, a group goes where it is sent.
#[tokio::test]
async fn a_group_is_reset_by_the_broker_itself() {
    let broker = Running::start(&[("useServerSideResetOffset", "true")]).await;
    let member = Member::new();
    member.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;
    for _ in 0..3 {
        let sent = member.ask(&broker, RequestCode::SEND_MESSAGE_V2, &send_fields("T", "0", ""), "body").await;
        assert_eq!(sent.code, 0, "{}", sent.remark());
    }
    let reset = |topic, group, timestamp| [("topic", topic), ("group", group), ("timestamp", timestamp)];
    let ask = async |fields: &[(&str, &str)]| {
        member.ask(&broker, RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, fields, "").await
    };
    let refused = ask(&reset("None", "g", "0")).await;
    assert_eq!((refused.code, refused.remark()), (17, "Topic None does not exist"));
    let refused = ask(&reset("T", "g", "0")).await;
    assert_eq!((refused.code, refused.remark()), (26, "Group g does not exist"));

    member.beat(&broker, "c1", "g", &["T"]).await;
    let queue = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];
    let commit = [&queue[..], &[("commitOffset", "3")]].concat();
    member.ask(&broker, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, "").await;
    let pull = |offset| {
        let rest = [
            ("queueOffset", offset),
            ("maxMsgNums", "32"),
            ("sysFlag", "7"),
            ("commitOffset", "3"),
            ("suspendTimeoutMillis", "1500"),
            ("subscription", "*"),
            ("subVersion", "1"),
        ];
        [&queue[..], &rest].concat()
    };
    let done = ask(&reset("T", "g", "0")).await;
    assert_eq!(read::<ResetOffset>(&done).offset_table.into_values().collect::<Vec<_>>(), [0, 0]);
    // What the members have still to say is of before.
    let late = member.ask(&broker, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, "").await;
    assert_eq!((late.code, late.remark()), (0, "Offset has been previously reset"));
    let stored = member.ask(&broker, RequestCode::QUERY_CONSUMER_OFFSET, &queue, "").await;
    assert_eq!(stored.ext_fields.get("offset"), Some("0"));
    let sent = member.ask(&broker, RequestCode::PULL_MESSAGE, &pull("3"), "").await;
    assert_eq!((sent.code, sent.remark()), (21, "OFFSET_RESET"));
    assert_eq!(sent.ext_fields.get("nextBeginOffset"), Some("0"));
    let stored = member.ask(&broker, RequestCode::QUERY_CONSUMER_OFFSET, &queue, "").await;
    assert_eq!(stored.ext_fields.get("offset"), Some("0"), "nor does the pull commit");
    assert_eq!(member.ask(&broker, RequestCode::PULL_MESSAGE, &pull("0"), "").await.remark(), "FOUND", "once");

    // A held pull is sent there at its end; nobody is asked to reset.
    let held = pull("3");
    let (held, ()) = tokio::join!(member.ask(&broker, RequestCode::PULL_MESSAGE, &held, ""), async {
        let single = [&reset("T", "g", "0")[..], &[("queueId", "0"), ("offset", "2")]].concat();
        assert_eq!(ask(&single).await.code, 0);
    });
    assert_eq!((held.code, held.ext_fields.get("nextBeginOffset")), (21, Some("2")));
    assert!(!member.asked(1).await.contains(&RequestCode::RESET_CONSUMER_CLIENT_OFFSET));
    let last = [&reset("T", "g", "0")[..], &[("queueId", "2147483647")]].concat();
    assert_eq!(ask(&last).await.code, 1);
    broker.stop().await;
    let slave =
        Running::start(&[("useServerSideResetOffset", "true"), ("brokerRole", "SLAVE"), ("brokerId", "1")]).await;
    let refused = member.ask(&slave, RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset("T", "g", "0"), "").await;
    assert_eq!((refused.code, refused.remark()), (1, "Can not reset offset in slave broker"));
    slave.stop().await;
}

#[tokio::test]
async fn queues_are_locked_for_one_member() {
    let broker = Running::start(&[]).await;
    let member = Member::new();
    let body = |client_id: &str| {
        let queue = MessageQueue { broker_name: "b".into(), queue_id: 0, topic: "T".into() };
        fastjson::to_string(&LockBatchRequest {
            client_id: client_id.into(),
            consumer_group: "g".into(),
            mq_set: vec![queue],
        })
    };
    for (client_id, locked) in [("c1", 1), ("c2", 0), ("c1", 1)] {
        let answer = member.ask(&broker, RequestCode::LOCK_BATCH_MQ, &[], &body(client_id)).await;
        assert_eq!(read::<LockBatchResponse>(&answer).lock_ok_mq_set.len(), locked);
    }
    member.ask(&broker, RequestCode::UNLOCK_BATCH_MQ, &[], &body("c1")).await;
    let answer = member.ask(&broker, RequestCode::LOCK_BATCH_MQ, &[], &body("c2")).await;
    assert_eq!(read::<LockBatchResponse>(&answer).lock_ok_mq_set.len(), 1);
    broker.stop().await;
}

#[tokio::test]
async fn topics_are_administered_on_the_master() {
    let broker = Running::start(&[]).await;
    let tool = Member::new();
    tool.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;
    let config = tool.ask(&broker, RequestCode::GET_TOPIC_CONFIG, &[("topic", "T"), ("lo", "true")], "").await;
    assert_eq!(read::<TopicConfig>(&config).read_queue_nums, 2);
    // As mqadmin of 5.x; one of 4.9 changes the topic then, and leaves its attributes.
    for attributes in ["+message.type=FIFO", ""] {
        let fields = [NEW_TOPIC, &[("attributes", attributes)]].concat();
        assert_eq!(tool.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC, &fields, "").await.code, 0);
        let config = tool.ask(&broker, RequestCode::GET_TOPIC_CONFIG, &[("topic", "T")], "").await;
        assert_eq!(read::<TopicConfig>(&config).attributes["message.type"], "FIFO");
    }
    let fields = [NEW_TOPIC, &[("attributes", "+nope=1")]].concat();
    let refused = tool.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC, &fields, "").await;
    assert_eq!((refused.code, refused.remark()), (1, "unsupported key: nope"));
    let stats = tool.ask(&broker, RequestCode::GET_TOPIC_STATS_INFO, &[("topic", "T")], "").await;
    assert_eq!(read::<TopicStats>(&stats).offset_table.len(), 2);
    assert_eq!(tool.ask(&broker, RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", "T")], "").await.code, 0);
    let stats = tool.ask(&broker, RequestCode::GET_TOPIC_STATS_INFO, &[("topic", "T")], "").await;
    assert_eq!((stats.code, stats.remark()), (17, "topic[T] not exist"));
    for path in ["", "..", "../../config"] {
        let refused = tool.ask(&broker, RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", path)], "").await;
        assert_eq!(refused.code, 1, "{path:?} is no topic");
    }
    let system = tool.ask(&broker, RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", "TBW102")], "").await;
    assert_eq!((system.code, system.remark()), (1, "The topic[TBW102] is conflict with system topic."));
    broker.stop().await;

    let slave = Running::start(&[("brokerRole", "SLAVE"), ("brokerId", "1")]).await;
    for code in [
        RequestCode::UPDATE_AND_CREATE_TOPIC,
        RequestCode::DELETE_TOPIC_IN_BROKER,
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        RequestCode::DELETE_SUBSCRIPTIONGROUP,
    ] {
        let refused = tool.ask(&slave, code, NEW_TOPIC, "{}").await;
        assert!(
            refused.code == 1 && refused.remark().starts_with("Can't modify topic or subscription group"),
            "{code}"
        );
    }
    slave.stop().await;
}

#[tokio::test]
async fn the_broker_tells_of_itself_and_takes_live_settings() {
    let broker = Running::start(&[]).await;
    let tool = Member::new();
    let info = tool.ask(&broker, RequestCode::GET_BROKER_RUNTIME_INFO, &[], "").await;
    let info = read::<KvTable>(&info).table;
    assert_eq!(info["brokerVersionDesc"], "V4_9_7");
    for key in ["putTps", "getTransferedTps", "getTotalTps"] {
        assert_eq!(info[key].split(' ').count(), 3, "{key}: clusterList takes the first of three");
    }
    let updated = tool.ask(&broker, RequestCode::UPDATE_BROKER_CONFIG, &[], "brokerPermission=4\nnoSuchKey=1\n").await;
    assert_eq!(updated.code, 0, "{}", updated.remark());
    let config = tool.ask(&broker, RequestCode::GET_BROKER_CONFIG, &[], "").await;
    let text = String::from_utf8(config.body.bytes().to_vec()).unwrap();
    assert!(text.lines().any(|line| line == "brokerPermission=4"), "{text}");
    assert!(config.ext_fields.get("version").is_some());
    let refused = tool.ask(&broker, RequestCode::UPDATE_BROKER_CONFIG, &[], "listenPort=1\n").await;
    assert!(refused.code == 1 && refused.remark().contains("listenPort"), "{}", refused.remark());

    let stats = [("statsName", "TOPIC_PUT_NUMS"), ("statsKey", "none")];
    let missing = tool.ask(&broker, RequestCode::VIEW_BROKER_STATS_DATA, &stats, "").await;
    assert_eq!((missing.code, missing.remark()), (1, "The stats <TOPIC_PUT_NUMS> <none> not exist"));
    let unknown = tool.ask(&broker, RequestCode(9999), &[], "").await;
    assert_eq!((unknown.code, unknown.remark()), (3, " request type 9999 not supported"));
    let broken = tool.ask(&broker, RequestCode::HEART_BEAT, &[], "{\"clientID\":").await;
    assert_eq!(broken.code, 1, "and the connection goes on");
    let missing = tool.ask(&broker, RequestCode::GET_MAX_OFFSET, &[("topic", "T")], "").await;
    assert_eq!((missing.code, missing.remark()), (1, "the custom field <queueId> is null"));
    broker.stop().await;
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_a_code_that_clients_know() {
    let broker = Running::start(&[]).await;
    let member = Member::new();
    member.ask(&broker, RequestCode::UPDATE_AND_CREATE_TOPIC, NEW_TOPIC, "").await;

    let sql = [
        ("consumerGroup", "g"),
        ("topic", "T"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("subscription", "a > 1"),
        ("expressionType", "SQL92"),
    ];
    let answer = member.ask(&broker, RequestCode::PULL_MESSAGE, &sql, "").await;
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(answer.remark().ends_with("filter message by SQL92"), "{}", answer.remark());
    broker.stop().await;
}
