//! Transactions through a whole broker in this process, over real sockets: commit, rollback, questions to producers, giving up,
//! restarts, and stores that a Java broker has left.

mod producer;
#[path = "../support/running.rs"]
mod running;

use std::net::SocketAddr;

use producer::{COMMIT, EAGER, GIVEN_UP, HALF_TOPIC, Half, OP_TOPIC, Producer, QUIET, ROLLBACK, now_ms, until};
use rocketmq_remoting::{Command, RequestCode, ResponseCode};
use rocketmq_store::{MessageStore, NewMessage, StoreConfig, push_property, sys_flag};
use running::Running;

const DONE: (i32, String) = (0, String::new());

fn refused(remark: &str) -> (i32, String) {
    (1, remark.to_owned())
}

#[tokio::test]
async fn a_commit_delivers_and_a_rollback_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), QUIET).await;
    let producer = Producer::new();
    let wishes = [("REAL_TOPIC", "Other"), ("TRANSACTION_CHECK_TIMES", "99"), ("TRAN_PREPARED_QUEUE_OFFSET", "0")];
    let one = producer.half(&broker, "one", &wishes).await;
    let two = producer.half(&broker, "two", &[]).await;
    assert_eq!((one.offset, two.offset), (0, 1));
    assert_eq!(producer.max_offset(&broker, "T", 1).await, 0, "nobody gets a half message");
    let halves = producer.read(&broker, HALF_TOPIC, 0, 2).await;
    assert_eq!((&*halves[0].body, halves[0].sys_flag, halves[0].flag), ("one", 0, 7));
    let real = ["REAL_TOPIC", "REAL_QID", "TRAN_MSG"].map(|name| halves[0].property(name).unwrap_or(""));
    assert_eq!(real, ["T", "1", "true"]);
    assert_eq!(halves[0].property("TRANSACTION_CHECK_TIMES"), None, "that is for the broker to say");

    assert_eq!(producer.end(&broker, &one, COMMIT).await, DONE);
    assert_eq!(producer.end(&broker, &two, ROLLBACK).await, DONE);
    let committed = producer.read(&broker, "T", 1, 1).await.remove(0);
    assert_eq!((&*committed.body, committed.flag, committed.prepared), ("one", 7, one.physical));
    assert_eq!(sys_flag::transaction(committed.sys_flag), sys_flag::TRANSACTION_COMMIT);
    for name in ["REAL_TOPIC", "REAL_QID", "TRAN_PREPARED_QUEUE_OFFSET"] {
        assert_eq!(committed.property(name), None, "{name}");
    }
    assert_eq!(committed.property("TRAN_MSG"), Some("true"), "consumers take the transaction's id from the unique key");
    assert_eq!((committed.property("UNIQ_KEY"), committed.property("PGROUP")), (Some("one"), Some("p")));
    let ends = producer.read(&broker, OP_TOPIC, 0, 2).await;
    assert_eq!((&*ends[0].body, &*ends[1].body), ("0", "1"));
    assert!(ends.iter().all(|end| end.property("TAGS") == Some("d")));

    // A producer that says it again changes nothing, and one that has changed its mind is told.
    assert_eq!(producer.end(&broker, &one, COMMIT).await, DONE);
    assert_eq!(producer.end(&broker, &two, ROLLBACK).await, DONE);
    let already = refused("The transaction has been committed already");
    assert_eq!(producer.end(&broker, &one, ROLLBACK).await, already);
    let already = refused("The transaction has been rolled back already");
    assert_eq!(producer.end(&broker, &two, COMMIT).await, already);
    assert_eq!(producer.max_offset(&broker, "T", 1).await, 1);
    assert_eq!(producer.max_offset(&broker, OP_TOPIC, 0).await, 2);
    broker.stop().await;
}

#[tokio::test]
async fn an_end_must_fit_its_half_message() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), QUIET).await;
    let producer = Producer::new();
    let half = producer.half(&broker, "one", &[]).await;
    let other = producer.half(&broker, "two", &[]).await;
    let end = async |group: &str, half: &Half| producer.end_as(&broker, group, half, COMMIT, false).await;
    let not_found = refused("Find prepared transaction message failed");
    for physical in [half.physical + 1, -1, 1 << 40] {
        assert_eq!(end("p", &Half { physical, ..half.clone() }).await, not_found);
    }
    assert_eq!(end("q", &half).await, refused("The producer group wrong"));
    let offset_wrong = refused("The transaction state table offset wrong");
    assert_eq!(end("p", &Half { offset: 1, ..half.clone() }).await, offset_wrong);
    assert_eq!(end("p", &Half { physical: other.physical, ..half.clone() }).await, offset_wrong);
    let wrong = producer.end(&broker, &half, 5).await;
    assert_eq!(wrong, refused("commitOrRollback field wrong"), "neither an end nor that it is not known yet");
    assert_eq!(end("p", &half).await, DONE);
    let committed = producer.read(&broker, "T", 1, 1).await.remove(0);
    let copy = Half { offset: 0, physical: committed.physical };
    assert_eq!(end("p", &copy).await, not_found, "what is committed cannot be committed");
    let missing = producer.ask(&broker, RequestCode::END_TRANSACTION, &[("producerGroup", "p")], "").await;
    assert_eq!((missing.code, missing.remark()), (1, "the custom field <tranStateTableOffset> is null"));
    broker.stop().await;
}

#[tokio::test]
async fn what_is_no_half_message_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), &[("rejectTransactionMessage", "true")]).await;
    let producer = Producer::new();
    let answer = producer.send(&broker, "one", &[]).await;
    assert_eq!(answer.response_code(), ResponseCode::NO_PERMISSION);
    assert_eq!(answer.remark(), "the broker[127.0.0.1] sending transaction message is forbidden");
    assert_eq!(answer.ext_fields.get("MSG_REGION"), Some("DefaultRegion"));
    let change = "rejectTransactionMessage=false\n";
    producer.ask(&broker, RequestCode::UPDATE_BROKER_CONFIG, &[], change).await;
    producer.half(&broker, "one", &[]).await;

    let room = "x".repeat(32_500);
    let full = producer.send(&broker, "full", &[("K", &room)]).await;
    assert_eq!(full.response_code(), ResponseCode::MESSAGE_ILLEGAL, "it could not be asked about");
    let direct = [("b", HALF_TOPIC), ("a", "p"), ("c", ""), ("d", "1"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0")];
    let direct = producer.ask(&broker, RequestCode::SEND_MESSAGE_V2, &direct, "x").await;
    assert_eq!(direct.response_code(), ResponseCode::NO_PERMISSION);
    let mut batch = vec![0; 12];
    batch.extend([0, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0]);
    let batch = String::from_utf8(batch).unwrap();
    let fields = [("b", "T"), ("a", "p"), ("c", ""), ("d", "1"), ("e", "0"), ("f", "4"), ("g", "1"), ("h", "0")];
    let answer = producer.ask(&broker, RequestCode::SEND_BATCH_MESSAGE, &fields, &batch).await;
    assert_eq!(answer.response_code(), ResponseCode::MESSAGE_ILLEGAL, "{}", answer.remark());
    // A message that an old client sends back keeps the properties of the transaction that it came by.
    let text = "TRAN_MSG\u{1}true\u{2}DELAY\u{1}1\u{2}";
    let fields = [
        ("b", "T"),
        ("a", "p"),
        ("c", ""),
        ("d", "1"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1"),
        ("h", "0"),
        ("i", text),
        ("j", "1"),
    ];
    let answer = producer.ask(&broker, RequestCode::SEND_MESSAGE_V2, &fields, "again").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    assert_eq!(producer.read(&broker, "T", 0, 1).await[0].body, "again");
    broker.stop().await;
}

#[tokio::test]
async fn an_open_transaction_is_asked_about_until_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), EAGER).await;
    let producer = Producer::join(&broker).await;
    let [one, two, three] = [
        producer.half(&broker, "one", &[]).await,
        producer.half(&broker, "two", &[]).await,
        producer.half(&broker, "three", &[]).await,
    ];
    // Who does not know gets no answer, and is asked again.
    let unknown = [
        ("producerGroup", "p"),
        ("tranStateTableOffset", "0"),
        ("commitLogOffset", &one.physical.to_string()),
        ("commitOrRollback", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut command = Command::request(RequestCode::END_TRANSACTION);
    command.ext_fields = unknown.into_iter().collect();
    producer.client.peer(&broker.address).await.unwrap().oneway(command).unwrap();

    let first = producer.asked("one", |_| true).await;
    assert_eq!((&*first.topic, first.queue_id, &*first.times, &*first.body), ("T", 1, "1", "one"));
    assert_ne!(first.half.offset, one.offset, "it was stored again");
    let second = producer.asked("one", |question| question.times == "2").await;
    assert_eq!(producer.end_as(&broker, "p", &second.half, COMMIT, true).await, DONE);
    assert_eq!(producer.end_as(&broker, "p", &first.half, COMMIT, true).await, DONE, "it has ended");
    assert_eq!(producer.end(&broker, &one, COMMIT).await, DONE, "also by its first place");
    // The producer's own word may come after it was asked, and counts.
    producer.asked("two", |question| question.times == "2").await;
    assert_eq!(producer.end(&broker, &two, COMMIT).await, DONE);
    let third = producer.asked("three", |_| true).await;
    assert_eq!(producer.end_as(&broker, "p", &third.half, ROLLBACK, true).await, DONE);
    let late = refused("The transaction has been rolled back already");
    assert_eq!(producer.end(&broker, &three, COMMIT).await, late);

    let stored = producer.read(&broker, "T", 1, 2).await;
    let bodies: Vec<_> =
        stored.iter().map(|stored| (&*stored.body, stored.property("TRAN_PREPARED_QUEUE_OFFSET"))).collect();
    assert_eq!(bodies, [("one", None), ("two", None)]);
    assert_eq!(producer.max_offset(&broker, "T", 1).await, 2, "once each");
    // Both marks come to stand at the ends of their queues, and nobody is asked any more.
    let offsets = async |topic| {
        let fields = [("consumerGroup", "CID_RMQ_SYS_TRANS"), ("topic", topic), ("queueId", "0")];
        let answer = producer.ask(&broker, RequestCode::QUERY_CONSUMER_OFFSET, &fields, "").await;
        answer.ext_fields.get("offset").map_or(-1, |offset| offset.parse().unwrap())
    };
    for topic in [HALF_TOPIC, OP_TOPIC] {
        until(async || offsets(topic).await == producer.max_offset(&broker, topic, 0).await).await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn another_producer_of_the_group_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), EAGER).await;
    let sender = Producer::join(&broker).await;
    sender.half(&broker, "one", &[]).await;
    sender.asked("one", |_| true).await;
    drop(sender);
    let other = Producer::join(&broker).await;
    let question = other.asked("one", |_| true).await;
    assert_eq!(other.end_as(&broker, "p", &question.half, COMMIT, true).await, DONE);
    assert_eq!(other.read(&broker, "T", 1, 1).await[0].body, "one");
    broker.stop().await;
}

#[tokio::test]
async fn who_does_not_want_to_be_asked_yet_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), &[EAGER, &[("transactionCheckMax", "2")]].concat()).await;
    let producer = Producer::join(&broker).await;
    let immune = producer.half(&broker, "immune", &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "3600")]).await;
    let other = producer.half(&broker, "other", &[]).await;
    producer.asked("other", |_| true).await;
    // It does not hold up the other, which is given up at last, and is itself kept.
    until(async || producer.max_offset(&broker, GIVEN_UP, 0).await == 1).await;
    assert!(producer.questions().iter().all(|question| question.key == "other"));
    let copies = producer.max_offset(&broker, HALF_TOPIC, 0).await;
    until(async || producer.max_offset(&broker, HALF_TOPIC, 0).await > copies).await;
    assert_eq!(producer.end(&broker, &immune, COMMIT).await, DONE, "by its first place, which is passed long since");
    assert_eq!(producer.read(&broker, "T", 1, 1).await[0].body, "immune");
    // A message that was given up can still be committed by who remembers it.
    assert_eq!(producer.end(&broker, &other, COMMIT).await, DONE);
    assert_eq!(producer.read(&broker, "T", 1, 2).await[1].body, "other");
    broker.stop().await;
}

#[tokio::test]
async fn what_is_asked_about_too_often_is_given_up_and_can_be_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), &[EAGER, &[("transactionCheckMax", "3")]].concat()).await;
    let producer = Producer::join(&broker).await;
    producer.half(&broker, "one", &[]).await;
    let given_up = {
        until(async || producer.max_offset(&broker, GIVEN_UP, 0).await == 1).await;
        producer.read(&broker, GIVEN_UP, 0, 1).await.remove(0)
    };
    assert_eq!(given_up.body, "one");
    let kept = ["REAL_TOPIC", "REAL_QID", "PGROUP", "TRANSACTION_CHECK_TIMES"];
    assert_eq!(kept.map(|name| given_up.property(name).unwrap_or("")), ["T", "1", "p", "3"]);
    let times: Vec<_> = producer.questions().into_iter().map(|question| question.times).collect();
    assert_eq!(times, ["1", "2", "3"]);

    let store_host: SocketAddr = broker.address.parse().unwrap();
    let resume = async |physical: i64| {
        let id = rocketmq_store::message_id(store_host, physical as u64);
        producer.ask(&broker, RequestCode::RESUME_CHECK_HALF_MESSAGE, &[("msgId", &id)], "").await
    };
    assert_eq!(resume(given_up.physical + 1).await.response_code(), ResponseCode::SYSTEM_ERROR);
    producer.inbox.0.lock().clear();
    let answer = resume(given_up.physical).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    let question = producer.asked("one", |_| true).await;
    assert_eq!(question.times, "1");
    assert_eq!(producer.end_as(&broker, "p", &question.half, COMMIT, true).await, DONE);
    let committed = producer.read(&broker, "T", 1, 1).await.remove(0);
    assert_eq!(committed.body, "one");
    assert_eq!(resume(committed.physical).await.response_code(), ResponseCode::SYSTEM_ERROR, "it is no half message");
    broker.stop().await;
}

#[tokio::test]
async fn open_transactions_survive_a_restart_and_ended_ones_stay_ended() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), QUIET).await;
    let producer = Producer::new();
    let [open, committed, rolled_back] = [
        producer.half(&broker, "open", &[]).await,
        producer.half(&broker, "committed", &[]).await,
        producer.half(&broker, "rolled_back", &[]).await,
    ];
    assert_eq!(producer.end(&broker, &committed, COMMIT).await, DONE);
    assert_eq!(producer.end(&broker, &rolled_back, ROLLBACK).await, DONE);
    broker.stop().await;

    let broker = Running::start_in(dir.path(), EAGER).await;
    let producer = Producer::join(&broker).await;
    // Whether a transaction was committed or rolled back stands nowhere: it has ended.
    assert_eq!(producer.end(&broker, &committed, COMMIT).await, DONE);
    assert_eq!(producer.end(&broker, &rolled_back, COMMIT).await, DONE);
    let question = producer.asked("open", |question| question.times == "2").await;
    assert!(producer.questions().iter().all(|question| question.key == "open"));
    // Copies of it wait now; the end names the first one.
    assert!(question.half.offset > open.offset);
    assert_eq!(producer.end(&broker, &open, COMMIT).await, DONE);
    broker.stop().await;

    let broker = Running::start_in(dir.path(), EAGER).await;
    let producer = Producer::join(&broker).await;
    producer.half(&broker, "last", &[]).await;
    producer.asked("last", |question| question.times == "2").await;
    assert!(producer.questions().iter().all(|question| question.key == "last"));
    let bodies: Vec<_> = producer.read(&broker, "T", 1, 2).await.into_iter().map(|stored| stored.body).collect();
    assert_eq!(bodies, ["committed", "open"]);
    assert_eq!(producer.max_offset(&broker, "T", 1).await, 2);
    broker.stop().await;
}

/// Halves and ends as both lines of Java leave them.
#[tokio::test]
async fn a_store_of_java_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let host = SocketAddr::from(([127, 0, 0, 1], 10_911));
    let store = MessageStore::open(StoreConfig {
        mapped_file_size_commit_log: 1 << 20,
        mapped_file_size_consume_queue: 20_000,
        max_hash_slot_num: 100,
        max_index_num: 400,
        disk_max_used_space_ratio: 95,
        disk_space_warning_level_ratio: 100,
        disk_space_clean_forcibly_ratio: 100,
        ..StoreConfig { store_path_root_dir: dir.path().to_owned(), ..StoreConfig::default() }
    })
    .unwrap();
    let born_timestamp = now_ms() - 60_000;
    let append = |topic: &str, body: &str, pairs: &[(&str, &str)]| {
        let mut text = Vec::new();
        for (name, value) in pairs {
            push_property(&mut text, name, value);
        }
        let message = NewMessage {
            topic,
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            properties: &text,
        };
        store.append(&message).unwrap();
    };
    for key in ["h0", "h1", "h2", "h3", "h4", "h5"] {
        let pairs = [("UNIQ_KEY", key), ("PGROUP", "p"), ("TRAN_MSG", "true"), ("REAL_TOPIC", "T"), ("REAL_QID", "1")];
        append(HALF_TOPIC, key, &pairs);
    }
    // 4.9 writes one, 5.x lists; what is neither is passed over.
    append(OP_TOPIC, "0", &[("TAGS", "d")]);
    append(OP_TOPIC, "1,3,", &[("TAGS", "d")]);
    append(OP_TOPIC, "4", &[("TAGS", "x")]);
    append(OP_TOPIC, "-1,nonsense,", &[("TAGS", "d")]);
    // A half message of nobody, a copy of h3 that Java has made because it was not to be asked about yet, and one that only
    // says to be a copy.
    append(HALF_TOPIC, "nobody", &[]);
    for (key, body) in [("h3", "h3"), ("h5", "forged")] {
        let pairs = [
            ("UNIQ_KEY", key),
            ("PGROUP", "p"),
            ("TRAN_MSG", "true"),
            ("REAL_TOPIC", "T"),
            ("REAL_QID", "1"),
            ("TRAN_PREPARED_QUEUE_OFFSET", &key[1..]),
        ];
        append(HALF_TOPIC, body, &pairs);
    }
    append(OP_TOPIC, "5", &[("TAGS", "d")]);
    store.shutdown();
    drop(store);

    let broker = Running::start_in(dir.path(), EAGER).await;
    let producer = Producer::join(&broker).await;
    for key in ["h2", "h4"] {
        let question = producer.asked(key, |question| question.times == "2").await;
        assert_eq!(question.body, key);
    }
    let other = producer.asked("h5", |_| true).await;
    assert_eq!(other.body, "forged");
    let keys: std::collections::BTreeSet<_> = producer.questions().into_iter().map(|question| question.key).collect();
    assert_eq!(keys.iter().collect::<Vec<_>>(), ["h2", "h4", "h5"]);
    broker.stop().await;
}

/// A sender may want the message delayed; that counts from the commit on. Java loses such a message.
#[tokio::test]
async fn a_delay_counts_from_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_in(dir.path(), QUIET).await;
    let producer = Producer::new();
    let level = producer.half(&broker, "level", &[("DELAY", "2")]).await;
    let timer = producer.half(&broker, "timer", &[("TIMER_DELAY_MS", "1000")]).await;
    let far = producer.send(&broker, "far", &[("TIMER_DELAY_SEC", "99999999")]).await;
    assert_eq!(far.response_code(), ResponseCode::MESSAGE_ILLEGAL);
    // A commit whose message cannot be stored leaves the transaction open.
    producer.ask(&broker, RequestCode::UPDATE_BROKER_CONFIG, &[], "timerMaxDelaySec=0\n").await;
    let refused = producer.end(&broker, &timer, COMMIT).await;
    assert_eq!(refused.0, ResponseCode::MESSAGE_ILLEGAL.0, "{}", refused.1);
    assert_eq!(producer.max_offset(&broker, OP_TOPIC, 0).await, 0);
    producer.ask(&broker, RequestCode::UPDATE_BROKER_CONFIG, &[], "timerMaxDelaySec=100\n").await;
    let began = now_ms();
    assert_eq!(producer.end(&broker, &level, COMMIT).await, DONE);
    assert_eq!(producer.end(&broker, &timer, COMMIT).await, DONE);
    let stored = producer.read(&broker, "T", 1, 2).await;
    assert!(stored.iter().all(|stored| stored.at_ms >= began + 1000), "{stored:?}");
    broker.stop().await;
}

#[tokio::test]
async fn a_slave_ends_nothing_and_goes_on_when_it_is_made_a_master() {
    let dir = tempfile::tempdir().unwrap();
    let master = Running::start_in(dir.path(), QUIET).await;
    let producer = Producer::new();
    producer.half(&master, "open", &[]).await;
    let ended = producer.half(&master, "ended", &[]).await;
    assert_eq!(producer.end(&master, &ended, COMMIT).await, DONE);

    let slave_dir = tempfile::tempdir().unwrap();
    let slave = [("brokerRole", "SLAVE"), ("brokerId", "1"), ("haMasterAddress", &*master.ha_address)];
    let broker = Running::start_in(slave_dir.path(), &[EAGER, &slave].concat()).await;
    let fields =
        [("producerGroup", "p"), ("tranStateTableOffset", "0"), ("commitLogOffset", "0"), ("commitOrRollback", "8")];
    let answer = producer.ask(&broker, RequestCode::END_TRANSACTION, &fields, "").await;
    assert_eq!(answer.response_code(), ResponseCode::SLAVE_NOT_AVAILABLE);
    let id = [("msgId", "7F00000100002A9F0000000000000000")];
    let answer = producer.ask(&broker, RequestCode::RESUME_CHECK_HALF_MESSAGE, &id, "").await;
    assert_eq!(answer.response_code(), ResponseCode::SLAVE_NOT_AVAILABLE);
    until(async || producer.max_offset_now(&broker, OP_TOPIC, 0).await == 1).await;
    master.stop().await;
    broker.stop().await;

    let broker = Running::start_in(slave_dir.path(), EAGER).await;
    let producer = Producer::join(&broker).await;
    let question = producer.asked("open", |question| question.times == "2").await;
    assert!(producer.questions().iter().all(|question| question.key == "open"));
    assert_eq!(producer.end_as(&broker, "p", &question.half, COMMIT, true).await, DONE);
    // Without name servers the slave did not learn of the topic: its queue is all that can be seen.
    assert_eq!(producer.max_offset(&broker, "T", 1).await, 2);
    broker.stop().await;
}
