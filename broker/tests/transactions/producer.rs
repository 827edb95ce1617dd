//! A producer that sends half messages, ends transactions, and keeps what it is asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rocketmq_remoting::bodies::{Heartbeat, ProducerData};
use rocketmq_remoting::{Answer, Client, ClientConfig, Command, Peer, RequestCode, ResponseCode, Service, fastjson};
use rocketmq_store::{decode_message, property, push_property};

use crate::running::{PATIENCE, Running};

pub(crate) const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub(crate) const OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub(crate) const GIVEN_UP: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub(crate) const COMMIT: i32 = 8;
pub(crate) const ROLLBACK: i32 = 12;
/// Nobody is asked during the test.
pub(crate) const QUIET: &[(&str, &str)] = &[("transactionCheckInterval", "3600000"), DELAY_LEVELS];
/// Everybody is asked at once, and again and again.
pub(crate) const EAGER: &[(&str, &str)] = &[
    ("transactionCheckInterval", "20"),
    ("transactionTimeOut", "0"),
    ("transactionCheckMax", "1000000"),
    DELAY_LEVELS,
];
const DELAY_LEVELS: (&str, &str) = ("messageDelayLevel", "1s 1s 1s");

/// Waits until it is so.
pub(crate) async fn until(is_so: impl AsyncFn() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("it becomes so");
}

/// What a producer was asked by the broker.
#[derive(Default)]
pub(crate) struct Inbox(pub(crate) Mutex<Vec<Command>>);

impl Service for Inbox {
    fn call(&self, _: &Arc<Peer>, request: Command) -> Answer {
        self.0.lock().push(request);
        Answer::None
    }
}

/// A half message as its producer knows it.
#[derive(Clone, Debug)]
pub(crate) struct Half {
    /// Place in the half queue.
    pub(crate) offset: i64,
    /// Place in the log.
    pub(crate) physical: i64,
}

/// A question of the broker's.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) half: Half,
    pub(crate) topic: String,
    pub(crate) queue_id: i32,
    pub(crate) key: String,
    pub(crate) times: String,
    pub(crate) body: String,
}

/// A client with one connection.
pub(crate) struct Producer {
    pub(crate) client: Client,
    pub(crate) inbox: Arc<Inbox>,
}

impl Producer {
    pub(crate) fn new() -> Self {
        let inbox = Arc::new(Inbox::default());
        Self { client: Client::with_service(ClientConfig::default(), Arc::clone(&inbox) as _), inbox }
    }

    /// A member of the group `p`.
    pub(crate) async fn join(broker: &Running) -> Self {
        let producer = Self::new();
        let heartbeat = Heartbeat {
            client_id: "c".into(),
            consumer_data_set: Vec::new(),
            producer_data_set: vec![ProducerData { group_name: "p".into() }],
        };
        let answer = producer.ask(broker, RequestCode::HEART_BEAT, &[], &fastjson::to_string(&heartbeat)).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
        producer
    }

    pub(crate) async fn ask(
        &self,
        broker: &Running,
        code: RequestCode,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Command {
        let mut command = Command::request(code).with_body(body.to_owned());
        command.ext_fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.client.invoke(&broker.address, command, PATIENCE).await.unwrap()
    }

    /// Sends a half message for queue 1 of `T`; its body is also its key.
    pub(crate) async fn send(&self, broker: &Running, body: &str, more: &[(&str, &str)]) -> Command {
        let mut text = Vec::new();
        for (name, value) in [("TRAN_MSG", "true"), ("PGROUP", "p"), ("UNIQ_KEY", body)].iter().chain(more) {
            push_property(&mut text, name, value);
        }
        let text = String::from_utf8(text).unwrap();
        let born = now_ms().to_string();
        let fields = [
            ("a", "p"),
            ("b", "T"),
            ("c", "TBW102"),
            ("d", "2"),
            ("e", "1"),
            ("f", "4"),
            ("g", &born),
            ("h", "7"),
            ("i", &text),
        ];
        self.ask(broker, RequestCode::SEND_MESSAGE_V2, &fields, body).await
    }

    pub(crate) async fn half(&self, broker: &Running, body: &str, more: &[(&str, &str)]) -> Half {
        let answer = self.send(broker, body, more).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
        assert_eq!(answer.ext_fields.get("queueId"), Some("1"), "the queue that was asked for");
        assert_eq!(answer.ext_fields.get("transactionId"), Some(body));
        let id = answer.ext_fields.get("msgId").unwrap();
        let (_, physical) = rocketmq_store::parse_message_id(id).unwrap();
        let offset = answer.ext_fields.get("queueOffset").unwrap().parse().unwrap();
        Half { offset, physical: physical as i64 }
    }

    pub(crate) async fn end_as(
        &self,
        broker: &Running,
        group: &str,
        half: &Half,
        decision: i32,
        is_answer: bool,
    ) -> (i32, String) {
        let (offset, physical, decision) = (half.offset.to_string(), half.physical.to_string(), decision.to_string());
        let fields = [
            ("producerGroup", group),
            ("tranStateTableOffset", &offset),
            ("commitLogOffset", &physical),
            ("commitOrRollback", &decision),
            ("fromTransactionCheck", if is_answer { "true" } else { "false" }),
            ("msgId", "k"),
        ];
        let answer = self.ask(broker, RequestCode::END_TRANSACTION, &fields, "").await;
        (answer.code, answer.remark().to_owned())
    }

    pub(crate) async fn end(&self, broker: &Running, half: &Half, decision: i32) -> (i32, String) {
        self.end_as(broker, "p", half, decision, false).await
    }

    /// What it was asked so far.
    pub(crate) fn questions(&self) -> Vec<Question> {
        let inbox = self.inbox.0.lock();
        let checks = inbox.iter().filter(|command| command.request_code() == RequestCode::CHECK_TRANSACTION_STATE);
        checks.map(question).collect()
    }

    /// Waits for a question about the message with that key that `wanted` accepts.
    pub(crate) async fn asked(&self, key: &str, wanted: impl Fn(&Question) -> bool) -> Question {
        let find = || self.questions().into_iter().find(|question| question.key == key && wanted(question));
        until(async || find().is_some()).await;
        find().unwrap()
    }
}

pub(crate) fn question(command: &Command) -> Question {
    let field = |name: &str| command.ext_fields.get(name).unwrap().to_string();
    let body = command.body.bytes();
    let message = decode_message(&body).unwrap();
    assert!(message.crc_matches());
    assert_eq!(message.total_size as usize, body.len());
    let half = Half {
        offset: field("tranStateTableOffset").parse().unwrap(),
        physical: field("commitLogOffset").parse().unwrap(),
    };
    assert_eq!((message.queue_offset, message.physical_offset as i64), (half.offset, half.physical));
    assert_eq!(property(message.properties, "PGROUP"), Some("p"));
    assert_eq!((&*field("topic"), &*field("bname")), (message.topic, "b"));
    let (_, place) = rocketmq_store::parse_message_id(&field("offsetMsgId")).unwrap();
    assert_eq!(place as i64, half.physical);
    assert_eq!(field("msgId"), field("transactionId"));
    Question {
        half,
        topic: message.topic.to_owned(),
        queue_id: message.queue_id,
        key: field("msgId"),
        times: property(message.properties, "TRANSACTION_CHECK_TIMES").unwrap_or("").to_owned(),
        body: String::from_utf8(message.body.to_vec()).unwrap(),
    }
}

/// A stored message.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) body: String,
    pub(crate) sys_flag: i32,
    pub(crate) flag: i32,
    pub(crate) prepared: i64,
    pub(crate) physical: i64,
    pub(crate) at_ms: i64,
    pub(crate) text: Vec<u8>,
}

impl Stored {
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        property(&self.text, name)
    }
}

impl Producer {
    /// All messages of a queue, once there are so many.
    pub(crate) async fn read(&self, broker: &Running, topic: &str, queue_id: i32, count: usize) -> Vec<Stored> {
        let mut all = Vec::new();
        let pulled = async {
            while all.len() < count {
                let (queue, offset) = (queue_id.to_string(), all.len().to_string());
                let fields = [
                    ("consumerGroup", "g"),
                    ("topic", topic),
                    ("queueId", &*queue),
                    ("queueOffset", &*offset),
                    ("maxMsgNums", "1"),
                    ("sysFlag", "4"),
                    ("commitOffset", "0"),
                    ("suspendTimeoutMillis", "0"),
                    ("subscription", "*"),
                    ("subVersion", "0"),
                ];
                let answer = self.ask(broker, RequestCode::PULL_MESSAGE, &fields, "").await;
                if answer.response_code() != ResponseCode::SUCCESS {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                let body = answer.body.bytes();
                let message = decode_message(&body).unwrap();
                all.push(Stored {
                    body: String::from_utf8(message.body.to_vec()).unwrap(),
                    sys_flag: message.sys_flag,
                    flag: message.flag,
                    prepared: message.prepared_transaction_offset,
                    physical: message.physical_offset as i64,
                    at_ms: message.store_timestamp,
                    text: message.properties.to_vec(),
                });
            }
        };
        tokio::time::timeout(PATIENCE, pulled).await.unwrap_or_else(|_| panic!("{count} messages of {topic}"));
        all
    }

    /// A queue's next offset, once all that was stored has reached its queues.
    pub(crate) async fn max_offset(&self, broker: &Running, topic: &str, queue_id: i32) -> i64 {
        // What is stored now is dispatched after all before it.
        let born = now_ms().to_string();
        let fields = [
            ("a", "q"),
            ("b", "Fence"),
            ("c", "TBW102"),
            ("d", "1"),
            ("e", "0"),
            ("f", "0"),
            ("g", &*born),
            ("h", "0"),
            ("i", ""),
        ];
        let fence = self.ask(broker, RequestCode::SEND_MESSAGE_V2, &fields, "fence").await;
        let fence: i64 = fence.ext_fields.get("queueOffset").unwrap().parse().unwrap();
        until(async || self.max_offset_now(broker, "Fence", 0).await > fence).await;
        self.max_offset_now(broker, topic, queue_id).await
    }

    pub(crate) async fn max_offset_now(&self, broker: &Running, topic: &str, queue_id: i32) -> i64 {
        let queue = queue_id.to_string();
        let fields = [("topic", topic), ("queueId", &*queue)];
        let answer = self.ask(broker, RequestCode::GET_MAX_OFFSET, &fields, "").await;
        answer.ext_fields.get("offset").unwrap().parse().unwrap()
    }
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}
