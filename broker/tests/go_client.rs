//! What only the Go client (`rocketmq-client-go` 2.1.2) says, through a whole broker in this process.

#[path = "support/running.rs"]
mod running;

use rocketmq_remoting::{Client, ClientConfig, Command, RequestCode, ResponseCode};
use rocketmq_store::{decode_message, push_property};
use running::{PATIENCE, Running};

/// Its heartbeat for `TagA || TagC`: the codes of the tags are texts and versions are nanoseconds.
const HEARTBEAT: &str = r#"{"clientID":"192.0.2.1@go","producerDataSet":[],"consumerDataSet":[{"groupName":"g",
    "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
    "subscriptionDataSet":[{"classFilterMode":false,"topic":"T","subString":"TagA || TagC","tagsSet":["TagA","TagC"],
    "codeSet":["2598919","2598921"],"subVersion":1795436729366123456,"expressionType":"TAG"},
    {"classFilterMode":false,"topic":"%RETRY%g","subString":"*","tagsSet":[],"codeSet":[],
    "subVersion":1795436729366123457,"expressionType":"TAG"}],"unitMode":false}]}"#;

async fn ask(client: &Client, broker: &Running, code: RequestCode, fields: &[(&str, &str)], body: &str) -> Command {
    let mut command = Command::request(code).with_body(body.to_owned());
    command.ext_fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    client.invoke(&broker.address, command, PATIENCE).await.unwrap()
}

/// Sends to the first queue of the topic a message that says its tag.
async fn send(client: &Client, broker: &Running, tag: &str) {
    let mut properties = Vec::new();
    push_property(&mut properties, "TAGS", tag);
    let properties = String::from_utf8(properties).unwrap();
    let fields = [
        ("producerGroup", "p"),
        ("topic", "T"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "1"),
        ("queueId", "0"),
        ("sysFlag", "0"),
        ("bornTimestamp", "1"),
        ("flag", "0"),
        ("properties", &properties),
    ];
    let answer = ask(client, broker, RequestCode::SEND_MESSAGE, &fields, tag).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
}

#[tokio::test]
async fn tags_of_its_heartbeat_filter_its_pulls() {
    let broker = Running::start(&[]).await;
    let client = Client::new(ClientConfig::default());
    for tag in ["TagA", "TagB", "TagC"] {
        send(&client, &broker, tag).await;
    }
    let answer = ask(&client, &broker, RequestCode::HEART_BEAT, &[], HEARTBEAT).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());

    let mut got = Vec::new();
    let mut offset = "0".to_owned();
    while offset != "3" {
        // The pull says nothing of an expression but its kind, and may wait for what is not dispatched yet.
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "T"),
            ("queueId", "0"),
            ("queueOffset", &*offset),
            ("maxMsgNums", "32"),
            ("sysFlag", "2"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "20000"),
            ("subscription", ""),
            ("subVersion", "0"),
            ("expressionType", "TAG"),
        ];
        let answer = ask(&client, &broker, RequestCode::PULL_MESSAGE, &fields, "").await;
        let next = answer.ext_fields.get("nextBeginOffset").map(ToString::to_string);
        let body = answer.body.bytes();
        let mut rest = &body[..];
        while answer.response_code() == ResponseCode::SUCCESS && !rest.is_empty() {
            let message = decode_message(rest).unwrap();
            got.push(String::from_utf8(message.body.to_vec()).unwrap());
            rest = &rest[message.total_size as usize..];
        }
        offset = next.unwrap_or_else(|| panic!("{:?} {}", answer.response_code(), answer.remark()));
    }
    assert_eq!(got, ["TagA", "TagC"]);
    broker.stop().await;
}

/// It gives many up at once, does not look at the answer, and goes on: every one must become a dead letter, although the topic for them
/// is made by the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_it_gives_up_at_once_becomes_dead_letters() {
    let broker = Running::start(&[]).await;
    let client = Client::new(ClientConfig::default());
    send(&client, &broker, "TagA").await;
    let mut asked = tokio::task::JoinSet::new();
    for group in (0..64).map(|i| format!("g-{}", i / 8)) {
        let client = Client::new(ClientConfig::default());
        let address = broker.address.clone();
        asked.spawn(async move {
            let fields = [
                ("group", &*group),
                ("offset", "0"),
                ("delayLevel", "-1"),
                ("originMsgId", "id"),
                ("originTopic", "T"),
                ("unitMode", "false"),
                ("maxReconsumeTimes", "1"),
            ];
            let mut command = Command::request(RequestCode::CONSUMER_SEND_MSG_BACK);
            command.ext_fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            client.invoke(&address, command, PATIENCE).await.unwrap()
        });
    }
    for answer in asked.join_all().await {
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    }
    for group in 0..8 {
        let letters = [("topic", &*format!("%DLQ%g-{group}")), ("queueId", "0")];
        // The queue follows the log.
        let counted = async {
            loop {
                let answer = ask(&client, &broker, RequestCode::GET_MAX_OFFSET, &letters, "").await;
                if answer.ext_fields.get("offset").map(ToString::to_string).as_deref() == Some("8") {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.expect("eight dead letters");
    }
    broker.stop().await;
}
