//! Many of everything on one broker: 10,000 topics, 2,000 groups, 5,000 connections, 2,000 waiting pulls. What rests costs
//! nothing, what one of them does costs the same as if it were alone, and a start finds all of it again at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    cluster::{Broker, Kind, NameServer},
    process::wait_until,
    reader::Reader,
    wire::{Response, Wire},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

const TOPICS: usize = 10_000;
const GROUPS: usize = 2_000;
const CONNECTIONS: usize = 5_000;
const WAITING_PULLS: usize = 2_000;
/// Requests on their way at a time.
const WINDOW: usize = 256;

const HEART_BEAT: i32 = 34;
const PULL_MESSAGE: i32 = 11;
const SEND_MESSAGE: i32 = 10;
const PATIENCE: Duration = Duration::from_mins(2);
const REST: Duration = Duration::from_secs(10);

#[test]
fn many_of_everything_rest_at_no_cost() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let names = NameServer::start(Kind::Ours)?;
    let mut broker = Broker::builder(Kind::Ours, "broker-a", &names.addr())
        // Here nobody reads what the broker asks of its clients.
        .set("notifyConsumerIdsChangedEnable", false)
        .start()?;
    names.wait_registered(&broker)?;
    let small_kib = broker.process()?.rss_anon_kib()?;

    let began = Instant::now();
    make_topics(&broker)?;
    eprintln!("{TOPICS} topics made in {:?}, {:?} of the broker's CPU", began.elapsed(), broker.process()?.cpu()?);
    let mut route = Wire::connect(names.socket(), PATIENCE)?;
    wait_until(PATIENCE, || Ok(route.call(105, &[("topic", &topic(TOPICS - 1))], &[])?.code == 0))?;

    let mut clients = (0..CONNECTIONS).map(|_| Wire::connect(broker.socket(), PATIENCE)).collect::<Result<Vec<_>>>()?;
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(HEART_BEAT, &[], &heartbeat(number))?;
    }
    for client in &mut clients {
        let (_, response) = client.receive()?;
        ensure!(response.code == 0, "{response:?}");
    }
    for (number, client) in clients.iter_mut().take(WAITING_PULLS).enumerate() {
        client.send(PULL_MESSAGE, &pull(&group(number % GROUPS), &topic(number)), &[])?;
    }
    // Answered behind the pulls of the same connection only when those wait.
    for (number, client) in clients.iter_mut().take(WAITING_PULLS).enumerate() {
        client.send(HEART_BEAT, &[], &heartbeat(number))?;
        let (_, response) = client.receive()?;
        ensure!(response.code == 0, "a pull did not wait: {response:?}");
    }

    // What was made is told to the name server and written, and then it rests.
    let mut idle = Duration::MAX;
    wait_until(PATIENCE, || {
        let before = broker.process()?.cpu()?;
        std::thread::sleep(REST);
        idle = broker.process()?.cpu()?.saturating_sub(before);
        Ok(idle < REST / 50)
    })
    .with_context(|| format!("resting costs {idle:?} in {REST:?}"))?;
    let many_kib = broker.process()?.rss_anon_kib()?;
    eprintln!("at rest: {idle:?} of CPU in {REST:?}; anonymous memory {small_kib} KiB before, {many_kib} KiB now");
    ensure!(many_kib < 200 << 10, "{many_kib} KiB for {CONNECTIONS} connections and {TOPICS} topics");

    // One message wakes one pull.
    let woken = 7;
    let mut sender = Wire::connect(broker.socket(), PATIENCE)?;
    let sent = send(&mut sender, &topic(woken))?;
    ensure!(sent.code == 0, "{sent:?}");
    let (_, found) = clients[woken].receive()?;
    let body = b"one of many";
    ensure!(found.code == 0 && found.body.windows(body.len()).any(|part| part == body), "{found:?}");
    drop(clients);

    broker.stop()?;
    let began = Instant::now();
    broker.start()?;
    let cpu = broker.process()?.cpu()?;
    eprintln!("started again in {:?}, {cpu:?} of CPU", began.elapsed());
    ensure!(cpu < Duration::from_secs(3), "starting with {TOPICS} topics costs {cpu:?}");
    let mut reader = Reader::connect(broker.socket())?;
    ensure!(reader.max_offset(&topic(woken), 0)? == 1);
    let sent = send(&mut Wire::connect(broker.socket(), PATIENCE)?, &topic(TOPICS - 1))?;
    ensure!(sent.code == 0, "{sent:?}");
    broker.stop()?;
    Ok(())
}

fn topic(number: usize) -> String {
    format!("Many-{number:05}")
}

fn group(number: usize) -> String {
    format!("many-{number:04}")
}

fn make_topics(broker: &Broker) -> Result<()> {
    let mut wire = Wire::connect(broker.socket(), PATIENCE)?;
    let mut open = 0;
    for number in 0..TOPICS {
        let ext = [
            ("topic", topic(number)),
            ("defaultTopic", "TBW102".to_owned()),
            ("readQueueNums", "1".to_owned()),
            ("writeQueueNums", "1".to_owned()),
            ("perm", "6".to_owned()),
            ("topicFilterType", "SINGLE_TAG".to_owned()),
            ("topicSysFlag", "0".to_owned()),
            ("order", "false".to_owned()),
        ];
        wire.send(17, &ext.each_ref().map(|(key, value)| (*key, value.as_str())), &[])?;
        open += 1;
        if open == WINDOW || number + 1 == TOPICS {
            for _ in 0..open {
                let (_, response) = wire.receive()?;
                ensure!(response.code == 0, "{response:?}");
            }
            open = 0;
        }
    }
    Ok(())
}

fn heartbeat(number: usize) -> Vec<u8> {
    let group = group(number % GROUPS);
    let topic = topic(number);
    let subscription = json!({
        "classFilterMode": false, "codeSet": [], "expressionType": "TAG", "subString": "*", "subVersion": 1, "tagsSet": [],
        "topic": topic,
    });
    let consumer = json!({
        "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "subscriptionDataSet": [subscription], "unitMode": false,
    });
    json!({ "clientID": format!("127.0.0.1@{number}"), "consumerDataSet": [consumer], "producerDataSet": [] })
        .to_string()
        .into_bytes()
}

fn pull<'a>(group: &'a str, topic: &'a str) -> [(&'static str, &'a str); 11] {
    [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        // May wait, and the subscription is in this request.
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "600000"),
        ("subscription", "*"),
        ("subVersion", "1"),
        ("expressionType", "TAG"),
    ]
}

fn send(wire: &mut Wire, topic: &str) -> Result<Response> {
    let ext = [
        ("producerGroup", "many"),
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", "0"),
        ("sysFlag", "0"),
        ("bornTimestamp", "1700000000000"),
        ("flag", "0"),
        ("properties", "TAGS\u{1}a\u{2}"),
        ("reconsumeTimes", "0"),
        ("unitMode", "false"),
        ("batch", "false"),
    ];
    wire.call(SEND_MESSAGE, &ext, b"one of many")
}
