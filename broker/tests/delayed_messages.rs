//! Delayed messages through a whole broker in this process, over real sockets: wishes, refusals,
//! arrival, recall, a restart, and what slaves and tools are told.

#[path = "support/running.rs"]
mod running;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocketmq_remoting::bodies::KvTable;
use rocketmq_remoting::{Client, ClientConfig, Command, RequestCode, ResponseCode, fastjson};
use rocketmq_store::{decode_message, property, push_property};
use running::{PATIENCE, Running};

/// A broker and one client of it: what it asks first is served first.
struct Served {
    running: Running,
    client: Client,
}

impl Served {
    async fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let own = [("messageDelayLevel", "1s 1s 1s"), ("timerPrecisionMs", "100"), ("recallMessageEnable", "true")];
        let running = Running::start_in(dir, &[&own, settings].concat()).await;
        Self { running, client: Client::new(ClientConfig::default()) }
    }

    async fn stop(self) {
        self.running.stop().await;
    }

    async fn ask(&self, code: RequestCode, fields: &[(&str, &str)], body: &str) -> Command {
        let mut command = Command::request(code).with_body(body.to_owned());
        command.ext_fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.client.invoke(&self.running.address, command, PATIENCE).await.unwrap()
    }

    async fn send(&self, topic: &str, body: &str, pairs: &[(&str, &str)]) -> Command {
        let mut text = Vec::new();
        push_property(&mut text, "UNIQ_KEY", body);
        for (name, value) in pairs {
            push_property(&mut text, name, value);
        }
        let text = String::from_utf8(text).unwrap();
        let born = now_ms().to_string();
        let fields = [
            ("a", "p"),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "1"),
            ("e", "0"),
            ("f", "0"),
            ("g", &born),
            ("h", "0"),
            ("i", &text),
        ];
        self.ask(RequestCode::SEND_MESSAGE_V2, &fields, body).await
    }

    /// Waits for the message at a place of a topic's queue 0.
    async fn receive(&self, topic: &str, offset: i64) -> Received {
        let offset = offset.to_string();
        let fields = [
            ("consumerGroup", "g"),
            ("topic", topic),
            ("queueId", "0"),
            ("queueOffset", &offset),
            ("maxMsgNums", "1"),
            // Held until there is one; the subscription comes along.
            ("sysFlag", "6"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "15000"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ];
        let pulled = async {
            loop {
                let answer = self.ask(RequestCode::PULL_MESSAGE, &fields, "").await;
                if answer.response_code() == ResponseCode::SUCCESS {
                    return answer.body.bytes().to_vec();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let unit = tokio::time::timeout(PATIENCE, pulled).await.expect("a message comes");
        let message = decode_message(&unit).unwrap();
        Received {
            body: String::from_utf8(message.body.to_vec()).unwrap(),
            stored_ms: message.store_timestamp,
            physical: message.physical_offset,
            out_ms: property(message.properties, "TIMER_OUT_MS").map(|text| text.parse().unwrap()),
            level: property(message.properties, "DELAY").map(str::to_owned),
        }
    }
}

struct Received {
    body: String,
    stored_ms: i64,
    physical: u64,
    out_ms: Option<i64>,
    level: Option<String>,
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test]
async fn a_timer_message_comes_at_its_time_and_can_be_recalled() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[]).await;
    let began = now_ms();
    let answer = broker.send("T", "first", &[("TIMER_DELAY_MS", "700")]).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    let at = (now_ms() + 3000).to_string();
    let recalled = broker.send("T", "recalled", &[("TIMER_DELIVER_MS", &at)]).await;
    let handle = recalled.ext_fields.get("recallHandle").expect("a recall handle").to_string();
    broker.send("T", "kept", &[("TIMER_DELIVER_MS", &at)]).await;
    let recall = |handle: &str, topic: &str| {
        let fields = [("producerGroup", "p"), ("topic", topic), ("recallHandle", handle)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let broker = &broker;
        async move {
            let fields = fields.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
            broker.ask(RequestCode::RECALL_MESSAGE, &fields, "").await
        }
    };
    let answer = recall(&handle, "T").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{}", answer.remark());
    assert_eq!(answer.ext_fields.get("msgId"), Some("recalled"));
    assert_eq!(recall("nonsense", "T").await.response_code(), ResponseCode::ILLEGAL_OPERATION);
    assert_eq!(recall(&handle, "Unknown").await.response_code(), ResponseCode::TOPIC_NOT_EXIST);
    let forged = recall(&handle, "TBW102").await;
    assert_eq!(forged.remark(), "recall failed, topic not match");

    let first = broker.receive("T", 0).await;
    assert_eq!(first.body, "first");
    assert!(first.stored_ms >= began + 700, "{} ms early", began + 700 - first.stored_ms);
    assert!(first.out_ms.is_some());
    let kept = broker.receive("T", 1).await;
    assert_eq!(kept.body, "kept", "the other was recalled");
    assert!(kept.stored_ms >= at.parse().unwrap());
    broker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_waited_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[("timerMaxDelaySec", "100")]).await;
    let far = broker.send("T", "far", &[("TIMER_DELAY_SEC", "101")]).await;
    assert_eq!(far.response_code(), ResponseCode::MESSAGE_ILLEGAL);
    assert!(
        far.remark()
            .starts_with("timer message illegal, the delay time should not be bigger than the max delay 100000ms")
    );
    let room = "x".repeat(32_600);
    let full = broker.send("T", "full", &[("TIMER_DELAY_SEC", "1"), ("K", &room)]).await;
    assert_eq!(full.response_code(), ResponseCode::MESSAGE_ILLEGAL, "it could never be delivered");
    let direct = broker.send("rmq_sys_wheel_timer", "direct", &[]).await;
    assert_eq!(direct.response_code(), ResponseCode::NO_PERMISSION);
    let past = broker.send("T", "past", &[("TIMER_DELIVER_MS", "1")]).await;
    assert_eq!(past.response_code(), ResponseCode::SUCCESS);
    assert!(past.ext_fields.get("recallHandle").is_none());
    let at_once = broker.receive("T", 0).await;
    assert_eq!((&*at_once.body, at_once.out_ms), ("past", None));
    broker.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[("timerWheelEnable", "false"), ("recallMessageEnable", "false")]).await;
    let off = broker.send("T", "off", &[("TIMER_DELAY_SEC", "1")]).await;
    assert_eq!(off.response_code(), ResponseCode::SYSTEM_ERROR);
    assert_eq!(off.remark(), "accurate timer message is not enabled, timerWheelEnable is false");
    let fields = [("topic", "T"), ("recallHandle", "x")];
    let recall = broker.ask(RequestCode::RECALL_MESSAGE, &fields, "").await;
    assert_eq!(recall.response_code(), ResponseCode::NO_PERMISSION);
    broker.stop().await;
}

#[tokio::test]
async fn messages_wait_through_a_restart_and_tools_see_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[]).await;
    let began = now_ms();
    broker.send("T", "done", &[("TIMER_DELAY_MS", "100")]).await;
    broker.send("T", "level", &[("DELAY", "2"), ("TIMER_DELAY_SEC", "50")]).await;
    broker.send("T", "waits", &[("TIMER_DELAY_SEC", "9")]).await;
    assert_eq!(broker.receive("T", 0).await.body, "done");
    let level = broker.receive("T", 1).await;
    assert_eq!((&*level.body, level.out_ms), ("level", None), "the level counts");
    assert_eq!(level.level.as_deref(), Some("2"), "a consumer asks for it");
    assert!(level.stored_ms >= began + 1000);
    let waits = async {
        loop {
            let info = broker.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], "").await;
            let info: KvTable = fastjson::from_slice(&info.body.bytes()).unwrap();
            if info.table["timerCongestNum"] == "1" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("one message waits");
    let check_point = broker.ask(RequestCode::GET_TIMER_CHECK_POINT, &[], "").await;
    assert_eq!(check_point.response_code(), ResponseCode::SUCCESS, "{}", check_point.remark());
    let body = check_point.body.bytes();
    let number = |at: usize| i64::from_be_bytes(body[at * 8..][..8].try_into().unwrap());
    assert_eq!((number(2), number(3)), (2, 2), "two timer messages were looked at");
    assert!(number(0) >= began, "the time up to which they are delivered");
    let metrics = broker.ask(RequestCode::GET_TIMER_METRICS, &[], "").await;
    assert!(String::from_utf8_lossy(&metrics.body.bytes()).contains("timingCount"));
    broker.stop().await;

    let broker = Served::start(dir.path(), &[]).await;
    let waited = broker.receive("T", 2).await;
    assert_eq!(waited.body, "waits");
    assert!(waited.stored_ms >= began + 9000);
    broker.stop().await;
}

/// The level of a message that is sent back is the consumer's, and not one of its own.
#[tokio::test]
async fn a_message_that_is_sent_back_waits_its_level() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), &[]).await;
    broker.send("T", "again", &[]).await;
    let physical = broker.receive("T", 0).await.physical.to_string();
    let began = now_ms();
    let fields = [("group", "g"), ("offset", &physical), ("delayLevel", "2"), ("originTopic", "T")];
    let back = broker.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &fields, "").await;
    assert_eq!(back.response_code(), ResponseCode::SUCCESS, "{}", back.remark());
    let again = broker.receive("%RETRY%g", 0).await;
    assert_eq!(again.body, "again");
    assert!(again.stored_ms >= began + 1000, "it came after {} ms", again.stored_ms - began);
    broker.stop().await;
}
