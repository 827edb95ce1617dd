//! A whole broker in this process, and clients of it, for the tests beside.

#![allow(dead_code)] // each test program uses what it needs

mod running;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rocketmq_remoting::bodies::{ConsumerData, Heartbeat, ProducerData, SubscriptionData};
use rocketmq_remoting::{Answer, Client, ClientConfig, Command, Peer, RequestCode, ResponseCode, Service, fastjson};
use rocketmq_store::push_property;
pub(crate) use running::{PATIENCE, Running};

/// What a member was asked by the broker.
pub(crate) struct Inbox(pub(crate) Mutex<Vec<Command>>, fn() -> Answer);

impl Service for Inbox {
    fn call(&self, _: &Arc<Peer>, request: Command) -> Answer {
        self.0.lock().push(request);
        (self.1)()
    }
}

/// A client with one connection.
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) inbox: Arc<Inbox>,
}

impl Member {
    pub(crate) fn new() -> Self {
        Self::answering(|| Answer::Now(Command::ok().with_body("what I am")))
    }

    /// A client that answers the broker in this way.
    pub(crate) fn answering(answer: fn() -> Answer) -> Self {
        let inbox = Arc::new(Inbox(Mutex::default(), answer));
        Self { client: Client::with_service(ClientConfig::default(), Arc::clone(&inbox) as _), inbox }
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

    pub(crate) async fn beat(&self, broker: &Running, client_id: &str, group: &str, topics: &[&str]) {
        let subscribe = |topic: &&str| SubscriptionData {
            topic: (*topic).into(),
            sub_string: "*".into(),
            expression_type: "TAG".into(),
            sub_version: 1,
            ..SubscriptionData::default()
        };
        let heartbeat = Heartbeat {
            client_id: client_id.into(),
            consumer_data_set: vec![ConsumerData {
                group_name: group.into(),
                subscription_data_set: topics.iter().map(subscribe).collect(),
                ..ConsumerData::default()
            }],
            producer_data_set: vec![ProducerData { group_name: "p".into() }],
        };
        let answer = self.ask(broker, RequestCode::HEART_BEAT, &[], &fastjson::to_string(&heartbeat)).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
        assert!(answer.version >= 233, "below that, Java clients refuse SQL92");
    }

    /// Waits until the broker has asked `count` times in all, and says for what.
    pub(crate) async fn asked(&self, count: usize) -> Vec<RequestCode> {
        let enough = async {
            while self.inbox.0.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("the broker asks");
        self.inbox.0.lock().iter().map(Command::request_code).collect()
    }
}

/// A topic `T` of two queues.
pub(crate) const NEW_TOPIC: &[(&str, &str)] = &[
    ("topic", "T"),
    ("defaultTopic", "TBW102"),
    ("readQueueNums", "2"),
    ("writeQueueNums", "2"),
    ("perm", "6"),
    ("topicFilterType", "SINGLE_TAG"),
    ("order", "false"),
];

/// The body of an answer that went well.
pub(crate) fn read<T: serde::de::DeserializeOwned>(answer: &Command) -> T {
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    fastjson::from_slice(&answer.body.bytes()).unwrap()
}

/// Properties as a producer writes them.
pub(crate) fn properties(pairs: &[(&str, &str)]) -> String {
    let mut text = Vec::new();
    for (name, value) in pairs {
        push_property(&mut text, name, value);
    }
    String::from_utf8(text).unwrap()
}

/// The fields of a send with the short names of `SEND_MESSAGE_V2`.
pub(crate) fn send_fields<'a>(topic: &'a str, queue: &'a str, properties: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("a", "p"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", queue),
        ("f", "0"),
        ("g", "77"),
        ("h", "0"),
        ("i", properties),
    ]
}

/// One field of an answer.
pub(crate) fn field<'a>(answer: &'a Command, name: &str) -> Option<&'a str> {
    answer.ext_fields.get(name)
}
