//! What real Java clients, tools and brokers said to real Java servers, said again to ours, byte for byte: the
//! answers must have the same code and remark, the same fields with the same values, and bodies of the same
//! shape.
//!
//! The files beside this one are made by `record_wire_goldens` of the tests. What differs and is meant to
//! stands in [`MEANT`] with its reason; a line there that nothing differs by any more fails too. Three things are
//! put right before a request goes out: held pulls wait shorter, and places in the commit log are those of
//! our log.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rocketmq_namesrv::{NameServer, NamesrvConfig};
use rocketmq_remoting::request_code::{Answerer, TABLE};
use rocketmq_remoting::tls::TlsEnvironment;
use rocketmq_remoting::{RequestCode as Code, fastjson};
use rocketmq_store::{decode_message, properties};
use serde_json::Value;
use support::{PATIENCE, Running};
use tokio_util::sync::CancellationToken;

/// A difference that is meant: from which version, in the answer to which request, where (`+` only here, `-`
/// only in Java's answer; what lies inside is meant too), and why.
const MEANT: &[(&str, Code, &str, &str)] = &[
    ("4.9.7", Code::GET_CONSUME_STATS, "+body.offsetTable.*.pullOffset", NEWER),
    ("4.9.7", Code::GET_BROKER_CONSUME_STATS, "+body.consumeStatsList[].*[].offsetTable.*.pullOffset", NEWER),
    ("5.5.0", Code::GET_BROKER_CLUSTER_INFO, "-body.brokerAddrTable.*.enableActingMaster", AS_4_9),
    ("5.5.0", Code::GET_ROUTEINFO_BY_TOPIC, "-body.brokerDatas[].enableActingMaster", AS_4_9),
    ("5.5.0", Code::GET_ROUTEINFO_BY_TOPIC, "remark", FAQ),
    ("5.5.0", Code::QUERY_CONSUMER_OFFSET, "code 22 is 0", YOUNG),
    ("5.5.0", Code::QUERY_CONSUMER_OFFSET, "remark", YOUNG),
    ("5.5.0", Code::QUERY_CONSUMER_OFFSET, "+ext.offset", YOUNG),
    ("5.5.0", Code::SEND_MESSAGE, "-ext.transactionId", AS_4_9),
    ("5.5.0", Code::SEND_MESSAGE_V2, "-ext.transactionId", AS_4_9),
    ("5.5.0", Code::SEND_BATCH_MESSAGE, "-ext.transactionId", AS_4_9),
    ("5.5.0", Code::HEART_BEAT, "-ext.IS_SUB_CHANGE", HEART_BEATS),
    ("5.5.0", Code::HEART_BEAT, "-ext.IS_SUPPORT_HEART_BEAT_V2", HEART_BEATS),
    ("5.5.0", Code::PULL_MESSAGE, "-ext.groupSysFlag", AS_4_9),
    ("5.5.0", Code::PULL_MESSAGE, "-ext.topicSysFlag", AS_4_9),
    ("5.5.0", Code::PULL_MESSAGE, "code 21 is 19", RESETS),
    ("5.5.0", Code::PULL_MESSAGE, "remark \"OFFSET_RESET\"", RESETS),
    ("5.5.0", Code::GET_ALL_TOPIC_CONFIG, "-ext.totalTopicNum", AS_4_9),
    ("5.5.0", Code::GET_ALL_TOPIC_CONFIG, "-body.dataVersion.stateVersion", AS_4_9),
    ("5.5.0", Code::GET_ALL_TOPIC_CONFIG, "-body.mappingDataVersion", AS_4_9),
    ("5.5.0", Code::GET_ALL_TOPIC_CONFIG, "-body.topicConfigTable.*.attributes", AS_4_9),
    ("5.5.0", Code::GET_ALL_TOPIC_CONFIG, "-body.topicQueueMappingDetailMap", AS_4_9),
    ("5.5.0", Code::GET_ALL_TOPIC_CONFIG, "-body.topicQueueMappingInfoMap", AS_4_9),
    ("5.5.0", Code::GET_TIMER_METRICS, "-body.dataVersion.stateVersion", AS_4_9),
    ("5.5.0", Code::GET_TOPIC_STATS_INFO, "-body.topicPutTps", AS_4_9),
    ("5.5.0", Code::GET_TOPIC_CONFIG, "-body.attributes", AS_4_9),
    ("5.5.0", Code::GET_BROKER_CONSUME_STATS, "-body.totalInflightDiff", AS_4_9),
    ("5.5.0", Code::GET_BROKER_HA_STATUS, "+body.haClientRuntimeInfo", "told of a master too"),
    ("5.5.0", Code::UPDATE_CONSUMER_OFFSET, "code 26 is 0", OFFSETS_FIRST),
    ("5.5.0", Code::UPDATE_CONSUMER_OFFSET, "remark", OFFSETS_FIRST),
    ("5.5.0", Code::GET_ALL_CONSUMER_OFFSET, "-body.dataVersion", AS_4_9),
    ("5.5.0", Code::GET_ALL_CONSUMER_OFFSET, "-body.groupTopicMap", AS_4_9),
    ("5.5.0", Code::GET_ALL_CONSUMER_OFFSET, "-body.pullOffsetTable", AS_4_9),
    ("5.5.0", Code::GET_ALL_DELAY_OFFSET, "-body.dataVersion", AS_4_9),
    ("5.5.0", Code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "-ext.totalGroupNum", AS_4_9),
    ("5.5.0", Code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "-body.dataVersion.stateVersion", AS_4_9),
    ("5.5.0", Code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "-body.forbiddenTable", AS_4_9),
    ("5.5.0", Code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "-body.subscriptionGroupTable.*.attributes", AS_4_9),
];
const NEWER: &str = "tools of 5.x want it, those of 4.9 pass over it";
const AS_4_9: &str = "came with 5.x, whose peers do without it: our servers are 4.9 to them";
const FAQ: &str = "4.9 and 5.x send users to different pages";
const YOUNG: &str = "a queue that has no message yet is begun at 0, as in 4.9; 5.x leaves it to the client";
const HEART_BEATS: &str = "the second form of heartbeats is not offered, so clients keep to the first";
const RESETS: &str = "offsets are reset through the clients, as in 4.9; 5.x keeps the new one until the next pull";
const OFFSETS_FIRST: &str = "as in 4.9 a group may have offsets before it is there: mqadmin copies them to new groups";

/// Fields whose values are of this moment or of this machine.
const OF_THE_MOMENT: [&str; 9] = [
    "masterAddr",
    "msgId",
    "transactionId",
    "batchUniqId",
    "version",
    "timestamp",
    "indexLastUpdateTimestamp",
    "indexLastUpdatePhyoffset",
    "haServerAddr",
];

/// JSON objects whose names are data: topics, groups, addresses, queues.
const MAPS: [&str; 15] = [
    "consumeStatsList[]",
    "table",
    "topicConfigTable",
    "subscriptionGroupTable",
    "subscriptionTable",
    "offsetTable",
    "consumerTable",
    "brokerAddrTable",
    "clusterAddrTable",
    "brokerAddrs",
    "filterServerTable",
    "data",
    "forbiddenTable",
    "topicQueueMappingInfoMap",
    "topicQueueMappingDetailMap",
];

/// Properties that are stored by some versions: 4.9 leaves `WAIT` out of a single message and has it twice in
/// those of a batch, 5.x leaves `CLUSTER` out of a batch and adds the others.
const OF_THE_VERSION: [&str; 4] = ["WAIT", "CLUSTER", "MSG_REGION", "TRACE_ON"];

/// Answers with messages in the form of the commit log.
const MESSAGES: [Code; 3] = [Code::PULL_MESSAGE, Code::QUERY_MESSAGE, Code::VIEW_MESSAGE_BY_ID];
/// Answers with settings, one a line, which are each server's own.
const SETTINGS: [Code; 2] = [Code::GET_BROKER_CONFIG, Code::GET_NAMESRV_CONFIG];
/// Answers that a client gives, and its broker passes on.
const OF_CLIENTS: [Code; 1] = [Code::GET_CONSUMER_RUNNING_INFO];
const SENDS: [Code; 3] = [Code::SEND_MESSAGE, Code::SEND_MESSAGE_V2, Code::SEND_BATCH_MESSAGE];

#[derive(Clone, Debug)]
struct Frame {
    header: String,
    body: Vec<u8>,
}

impl Frame {
    fn fields(&self) -> Value {
        serde_json::from_str(&self.header).unwrap()
    }

    fn ext(&self) -> BTreeMap<String, String> {
        let fields = self.fields();
        let fields = fields["extFields"].as_object().cloned().unwrap_or_default();
        fields.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect()
    }

    fn number(&self, name: &str) -> i64 {
        self.fields()[name].as_i64().unwrap_or(0)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = ((4 + self.header.len() + self.body.len()) as u32).to_be_bytes().to_vec();
        bytes.extend((self.header.len() as u32).to_be_bytes());
        bytes.extend(self.header.as_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

struct Exchange {
    code: Code,
    request: Frame,
    /// None for a one-way request.
    response: Option<Frame>,
}

fn exchanges(text: &str) -> Vec<Exchange> {
    text.split("\n# ").skip(1).map(exchange).collect()
}

fn exchange(block: &str) -> Exchange {
    let (code, lines) = block.split_once('\n').unwrap();
    let frame = |side: char| {
        let mut lines = lines.lines().filter_map(|line| line.strip_prefix(side));
        let header = lines.next()?.to_owned();
        let body = lines.next().map_or_else(Vec::new, |line| match line.strip_prefix("0x") {
            Some(hex) => {
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
            }
            None => serde_json::from_str::<String>(line).unwrap().into_bytes(),
        });
        Some(Frame { header, body })
    };
    Exchange { code: Code(code.parse().unwrap()), request: frame('>').unwrap(), response: frame('<') }
}

/// A connection over which everything is said again.
struct Replay {
    stream: TcpStream,
    /// Places in the commit log, from Java's to ours.
    places: HashMap<String, String>,
}

impl Replay {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, places: HashMap::new() }
    }

    /// Says it, and takes the answer. What the server asks in between is answered as well as anybody could.
    fn say(&mut self, request: &Frame) -> Option<Frame> {
        self.stream.write_all(&request.bytes()).unwrap();
        if request.number("flag") & 2 != 0 {
            return None;
        }
        loop {
            let frame = self.read();
            let (flag, opaque) = (frame.number("flag"), frame.number("opaque"));
            if flag & 1 != 0 {
                assert_eq!(opaque, request.number("opaque"), "an answer to nothing: {}", frame.header);
                return Some(frame);
            }
            if flag & 2 == 0 {
                let header = format!(r#"{{"code":0,"flag":1,"language":"JAVA","opaque":{opaque},"version":407}}"#);
                let yes = Frame { header, body: br#"{"messageQueueTable":{}}"#.to_vec() };
                self.stream.write_all(&yes.bytes()).unwrap();
            }
        }
    }

    fn read(&mut self) -> Frame {
        let mut lengths = [0; 8];
        self.stream.read_exact(&mut lengths).unwrap();
        let [whole, header] = [0, 4].map(|at| u32::from_be_bytes(lengths[at..at + 4].try_into().unwrap()) as usize);
        let mut rest = vec![0; whole - 4];
        self.stream.read_exact(&mut rest).unwrap();
        let body = rest.split_off(header);
        Frame { header: String::from_utf8(rest).unwrap(), body }
    }

    /// Says a request of Java's again; again and again where the answer is written behind the log.
    fn repeat(&mut self, exchange: &Exchange) -> Option<Frame> {
        let mut request = exchange.request.clone();
        for patience in ["15000", "20000"] {
            let field = |millis| format!(r#""suspendTimeoutMillis":"{millis}""#);
            request.header = request.header.replace(&field(patience), &field("100"));
        }
        if let Some(place) = exchange.request.ext().get("offset").and_then(|place| self.places.get(place)) {
            let field = |place: &str| format!(r#""offset":"{place}""#);
            request.header = request.header.replace(&field(&exchange.request.ext()["offset"]), &field(place));
        }
        let began = Instant::now();
        loop {
            let answer = self.say(&request);
            let (Some(ours), Some(java)) = (&answer, &exchange.response) else { return answer };
            let behind = match exchange.code {
                Code::PULL_MESSAGE | Code::QUERY_MESSAGE => java.number("code") == 0 && ours.number("code") != 0,
                Code::GET_ALL_DELAY_OFFSET => {
                    let delivered = |frame: &Frame| shape(&frame.body).contains("body.offsetTable.*: number");
                    delivered(java) && !delivered(ours)
                }
                _ => false,
            };
            if !behind || began.elapsed() > PATIENCE {
                self.note_places(java, ours);
                if SENDS.contains(&exchange.code) && ours.number("code") == 0 {
                    self.wait_for_queue(&exchange.request, ours);
                }
                return answer;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An offset id ends with the message's place in the commit log.
    fn note_places(&mut self, java: &Frame, ours: &Frame) {
        let ids = |frame: &Frame| frame.ext().get("msgId").cloned().unwrap_or_default();
        let place = |id: &str| u64::from_str_radix(id.get(16..)?, 16).ok().map(|place| place.to_string());
        for (java, ours) in ids(java).split(',').zip(ids(ours).split(',')) {
            if let (Some(java), Some(ours)) = (place(java), place(ours)) {
                self.places.insert(java, ours);
            }
        }
    }

    /// Until what was sent can be pulled.
    fn wait_for_queue(&mut self, request: &Frame, sent: &Frame) {
        let (request, sent) = (request.ext(), sent.ext());
        let topic = request.get("b").or(request.get("topic")).unwrap();
        let queue = &sent["queueId"];
        let header = format!(
            r#"{{"code":30,"extFields":{{"topic":"{topic}","queueId":"{queue}"}},"flag":0,"language":"JAVA","opaque":1,"version":407}}"#
        );
        let question = Frame { header, body: Vec::new() };
        let wanted: i64 = sent["queueOffset"].parse().unwrap();
        let began = Instant::now();
        while self.say(&question).unwrap().ext()["offset"].parse::<i64>().unwrap() <= wanted {
            assert!(began.elapsed() < PATIENCE, "what was sent to {topic} is not in its queue");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Where an answer of ours is another than Java's: `+` what only ours has, `-` what only Java's has, and what
/// both have with different values.
fn differences(code: Code, java: &Frame, ours: &Frame) -> Vec<String> {
    let mut found = Vec::new();
    if java.number("code") != ours.number("code") {
        found.push(format!("code {} is {}", java.number("code"), ours.number("code")));
    }
    if OF_CLIENTS.contains(&code) {
        return found;
    }
    let remark = |frame: &Frame| match frame.fields()["remark"].as_str() {
        // What Java's answers say until they are given a remark, and some never are.
        None | Some("not set any response code") => String::new(),
        Some(remark) => remark.to_owned(),
    };
    if remark(java) != remark(ours) {
        found.push(format!("remark {:?} is {:?}", remark(java), remark(ours)));
    }
    let (theirs, mine) = (java.ext(), ours.ext());
    for name in theirs.keys().chain(mine.keys()).collect::<BTreeSet<_>>() {
        match (theirs.get(name), mine.get(name)) {
            (Some(_), None) => found.push(format!("-ext.{name}")),
            (None, Some(_)) => found.push(format!("+ext.{name}")),
            (java, ours) if java != ours && !OF_THE_MOMENT.contains(&name.as_str()) => {
                found.push(format!("ext.{name} {java:?} is {ours:?}"));
            }
            _ => {}
        }
    }
    if SETTINGS.contains(&code) {
        if java.body.is_empty() != ours.body.is_empty() {
            found.push("body".to_owned());
        }
        return found;
    }
    if MESSAGES.contains(&code) {
        let (theirs, mine) = (messages(&java.body), messages(&ours.body));
        if theirs != mine {
            found.push(format!("messages {theirs:#?} are {mine:#?}"));
        }
        return found;
    }
    let (theirs, mine) = (shape(&java.body), shape(&ours.body));
    found.extend(theirs.difference(&mine).map(|path| format!("-{path}")));
    found.extend(mine.difference(&theirs).map(|path| format!("+{path}")));
    found
}

/// Topic, queue, offset, body and the names of the properties of each message.
fn messages(mut body: &[u8]) -> Vec<(String, i32, i64, String, Vec<String>)> {
    let mut found = Vec::new();
    while let Some(length) = body.first_chunk::<4>() {
        let (unit, rest) = body.split_at(u32::from_be_bytes(*length) as usize);
        body = rest;
        let message = decode_message(unit).unwrap();
        let names = properties(message.properties).map(|(name, _)| name.to_owned());
        let mut names: Vec<String> = names.filter(|name| !OF_THE_VERSION.contains(&name.as_str())).collect();
        names.sort();
        let text = String::from_utf8_lossy(message.body).into_owned();
        found.push((message.topic.to_owned(), message.queue_id, message.queue_offset, text, names));
    }
    found
}

/// The names in a JSON body, each with the kind of its value; elements of lists and of maps are one.
fn shape(body: &[u8]) -> BTreeSet<String> {
    fn walk(path: &str, value: &Value, shape: &mut BTreeSet<String>) {
        match value {
            Value::Null => {}
            Value::Bool(_) => drop(shape.insert(format!("{path}: bool"))),
            Value::Number(_) => drop(shape.insert(format!("{path}: number"))),
            Value::String(_) => drop(shape.insert(format!("{path}: text"))),
            Value::Array(values) => {
                shape.insert(format!("{path}[]"));
                for value in values {
                    walk(&format!("{path}[]"), value, shape);
                }
            }
            Value::Object(values) => {
                let is_map = MAPS.iter().any(|name| path.ends_with(&format!(".{name}")));
                shape.insert(format!("{path}{{}}"));
                for (name, value) in values {
                    // Queues and broker ids are data too.
                    let any = is_map || name.bytes().all(|byte| byte.is_ascii_digit());
                    walk(&format!("{path}.{}", if any { "*" } else { name }), value, shape);
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    if !body.is_empty() {
        match fastjson::from_slice::<Value>(body) {
            Ok(value) => walk("body", &value, &mut found),
            Err(_) => drop(found.insert("body that is no JSON".to_owned())),
        }
    }
    found
}

/// Says everything again, and tells what differs without being meant to.
fn replay(version: &str, text: &str, broker: &str, name_server: &str) -> Vec<String> {
    let (mut broker, mut name_server) = (Replay::connect(broker), Replay::connect(name_server));
    let mut unused: BTreeSet<usize> = (0..MEANT.len()).filter(|at| MEANT[*at].0 == version).collect();
    let mut wrong = Vec::new();
    for exchange in exchanges(text) {
        let row = TABLE.iter().find(|row| row.code == exchange.code).unwrap();
        let server = if row.answerer == Answerer::NameServer { &mut name_server } else { &mut broker };
        let (ours, java) = (server.repeat(&exchange), &exchange.response);
        let (Some(ours), Some(java)) = (&ours, java) else {
            assert!(ours.is_none() && java.is_none(), "{}: an answer where there was none", exchange.code);
            continue;
        };
        for difference in differences(exchange.code, java, ours) {
            let fits = |(of, code, place, _): &(&str, Code, &str, &str)| {
                let rest = difference.strip_prefix(place);
                *of == version
                    && *code == exchange.code
                    && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ':', '[', '{', ' ']))
            };
            match MEANT.iter().position(fits) {
                Some(at) => drop(unused.remove(&at)),
                None => wrong.push(format!("{}: {difference}", exchange.code)),
            }
        }
    }
    wrong.extend(unused.into_iter().map(|at| format!("nothing differs by {:?}", MEANT[at])));
    wrong
}

async fn replays(version: &'static str, text: &'static str) {
    let settings = [("brokerName", "broker-a"), ("messageDelayLevel", "1s 1s 1s 1s")];
    let broker = Running::start(&settings).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = NamesrvConfig { listen_port: 0, bind_address: Ipv4Addr::LOCALHOST.into(), ..Default::default() };
    config.kv_config_path = dir.path().join("kvConfig.json").display().to_string();
    config.config_store_path = dir.path().join("namesrv.properties").display().to_string();
    let server = NameServer::bind(config, &TlsEnvironment::default()).unwrap();
    let (names, shutdown) = (server.local_addr().to_string(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(shutdown.clone()));
    let address = broker.address.clone();
    let wrong = tokio::task::spawn_blocking(move || replay(version, text, &address, &names)).await.unwrap();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    shutdown.cancel();
    serving.await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn what_4_9_7_said_is_answered_as_its_servers_did() {
    replays("4.9.7", include_str!("wire_goldens/4.9.7.txt")).await;
}

#[tokio::test]
async fn what_5_5_0_said_is_answered_as_its_servers_did() {
    replays("5.5.0", include_str!("wire_goldens/5.5.0.txt")).await;
}
