//! `record_wire_goldens VERSION FILE`: has Java's clients, tools and brokers of that version talk to Java's servers through a
//! recorder, and writes what was said, each kind of request once.
//!
//! The file is what `broker/tests/wire_goldens.rs` replays: `>` is the request and `<` its answer, header and then body; a
//! body is a JSON string, or `0x` and hex where it is not text.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rocketmq_tests::{
    client::{Client, Invocation},
    cluster::{Broker, Kind, NameServer},
    java::Version,
    mqadmin::{Mqadmin, Tool},
    process::wait_until,
    recorder::{Exchange, Frame, Recorder},
};

const LONG: Duration = Duration::from_mins(2);
const TOPIC: &str = "GoldenTopic";

/// Requests of which each topic, group and set of properties counts: what later answers depend on.
const BY_CONTENT: [i64; 7] = [10, 15, 34, 103, 310, 320, 325];

/// Said to a pull that has overtaken its client's heartbeat, which it does or not.
const SUBSCRIPTION_NOT_LATEST: i64 = 25;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [version, file] = &args[..] else { bail!("usage: record_wire_goldens VERSION FILE") };
    let version = Version::ALL.into_iter().find(|known| known.as_str() == version).context("no such version")?;
    let recorder = Recorder::default();
    record(version, &recorder)?;
    let mut text = format!(
        "What clients, tools and brokers of RocketMQ {version} say to its servers, and what they are answered.\nMade by record_wire_goldens; see broker/tests/wire_goldens.rs.\n"
    );
    let mut kinds = BTreeSet::new();
    for exchange in recorder.exchanges().into_iter().filter(|exchange| answered(exchange) != SUBSCRIPTION_NOT_LATEST) {
        if kinds.insert(kind_of(&exchange)) {
            write!(text, "\n# {}\n", exchange.code)?;
            write_frame(&mut text, '>', &exchange.request)?;
            if let Some(response) = &exchange.response {
                write_frame(&mut text, '<', response)?;
            }
        }
    }
    std::fs::write(file, text)?;
    println!("{} kinds of requests in {file}", kinds.len());
    Ok(())
}

/// The response code; -1 for none.
fn answered(exchange: &Exchange) -> i64 {
    exchange.response.as_ref().map_or(-1, |response| response.fields()["code"].as_i64().unwrap_or(-2))
}

/// What makes an exchange one of a kind: its codes and the names of its fields, and the names that its content gives where
/// later answers depend on it.
fn kind_of(exchange: &Exchange) -> String {
    let fields = exchange.request.fields();
    let mut kind = format!("{} {}", exchange.code, answered(exchange));
    let by_content = BY_CONTENT.contains(&exchange.code);
    for (name, value) in fields["extFields"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or("");
        kind.push_str(name);
        match name.as_str() {
            "topic" | "b" | "consumerGroup" if by_content => kind.push_str(value),
            "properties" | "i" if by_content => {
                let names: BTreeSet<&str> =
                    value.split('\u{2}').filter_map(|pair| pair.split('\u{1}').next()).collect();
                write!(kind, "{names:?}").expect("a string takes everything");
            }
            _ => {}
        }
    }
    if by_content {
        let body = String::from_utf8_lossy(&exchange.request.body);
        let named = |name: &str| -> BTreeSet<String> {
            body.split(name).skip(1).filter_map(|rest| rest.split([',', '}']).next()).map(str::to_owned).collect()
        };
        let names = ["groupName", "topicName", "subVersion"].map(|name| named(&format!("\"{name}\":")));
        write!(kind, "{names:?}").expect("a string takes everything");
    }
    kind
}

fn write_frame(text: &mut String, side: char, frame: &Frame) -> Result<()> {
    writeln!(text, "{side}{}", frame.header)?;
    match std::str::from_utf8(&frame.body) {
        Ok("") => {}
        Ok(body) => writeln!(text, "{side}{}", serde_json::to_string(body)?)?,
        Err(_) => {
            write!(text, "{side}0x")?;
            for byte in &frame.body {
                write!(text, "{byte:02x}")?;
            }
            text.push('\n');
        }
    }
    Ok(())
}

/// Commands of mqadmin, `ADDRESS` the broker's: on a broker without messages.
const FIRST: [&str; 7] = [
    "updateTopic -b ADDRESS -t GoldenTopic -r 1 -w 1 -p 6",
    "updateTopic -b ADDRESS -t GoldenRequest -r 1 -w 1",
    "updateSubGroup -b ADDRESS -g golden_group -r 3",
    "clusterList",
    "topicList",
    "topicRoute -t NoSuchTopic",
    "topicClusterList -t GoldenTopic",
];

/// While a producer and a consumer are online.
const ONLINE: [&str; 25] = [
    "topicRoute -t GoldenTopic",
    "topicStatus -t GoldenTopic",
    "consumerProgress -g golden_group",
    "consumerConnection -g golden_group",
    "consumerStatus -g golden_group",
    "producerConnection -g golden_online -t GoldenTopic",
    "consumerConnection -g no_such_group",
    "statsAll -t GoldenTopic",
    "queryMsgByKey -t GoldenTopic -k single-0",
    "queryMsgByKey -t GoldenTopic -k none",
    "brokerStatus -b ADDRESS",
    "getBrokerConfig -b ADDRESS",
    "updateBrokerConfig -b ADDRESS -k fileReservedTime -v 71",
    "brokerConsumeStats -b ADDRESS",
    "queryCq -b ADDRESS -t GoldenTopic -q 0 -i 0 -c 2",
    "haStatus -b ADDRESS",
    "getNamesrvConfig",
    "updateKvConfig -s GOLDEN -k key -v value",
    "deleteKvConfig -s GOLDEN -k key",
    "updateOrderConf -t GoldenTopic -m get",
    "wipeWritePerm -b broker-a",
    "addWritePerm -b broker-a",
    "getConsumerStatus -g golden_group -t GoldenTopic",
    "resetOffsetByTime -g golden_group -t GoldenTopic -s -1",
    "cloneGroupOffset -s golden_group -d golden_clone -t GoldenTopic",
];

/// When they have gone.
const LAST: [&str; 5] = [
    "cleanExpiredCQ -b ADDRESS",
    "cleanUnusedTopic -b ADDRESS",
    "deleteSubGroup -b ADDRESS -g golden_group",
    "deleteTopic -c DefaultCluster -t GoldenTopic",
    "topicStatus -t GoldenTopic",
];

/// A broker's whole life.
fn record(version: Version, recorder: &Recorder) -> Result<()> {
    let name_server = NameServer::start(Kind::Java(version))?;
    let names = recorder.proxy(name_server.socket())?.to_string();
    let builder = |id| Broker::builder(Kind::Java(version), "broker-a", &names).id(id);
    let mut master = builder(0).start()?;
    let address = recorder.proxy(master.socket())?.to_string();
    name_server.wait_registered(&master)?;

    let mut mqadmin = Mqadmin::new(Tool::Java(version), &names)?;
    let mut tools = |lines: &[&str]| {
        for line in lines.iter().map(|line| line.replace("ADDRESS", &address)) {
            // A command that fails is a refusal worth keeping.
            if let Err(error) = mqadmin.run(&line.split_whitespace().collect::<Vec<_>>()) {
                eprintln!("mqadmin {line}: {error:#}");
            }
        }
    };
    tools(&FIRST);
    let client = Client::new(version, &names);
    wait_for_route(&client)?;
    send_and_read(&client)?;
    let producer =
        client.produce("GoldenOther").arg("group", "golden_online").flag("until-stdin-closes").arg("rate", 1);
    let producer = producer.start()?;
    producer.wait_for_lines(2, LONG)?;
    request_and_reply(&client)?;
    let consumer = client.consume(TOPIC, "golden_group").arg("expect", 5).arg("fail-first", 1);
    let consumer = consumer.arg("linger", 600).arg("timeout", 600).start()?;
    consumer.wait_started()?;
    // Held pulls end after fifteen seconds, and offsets are committed after ten.
    thread::sleep(Duration::from_secs(22));
    tools(&ONLINE);
    let mut slave = builder(1).start()?;
    wait_for_code(recorder, 201)?;
    wait_for_code(recorder, 45)?;
    slave.stop()?;
    producer.stop(LONG)?;
    consumer.kill()?;
    tools(&LAST);
    master.stop()?;
    wait_for_code(recorder, 104)
}

fn send_and_read(client: &Client) -> Result<()> {
    let produce = || client.produce(TOPIC).arg("group", "golden_producer").arg("size", 40).arg("tags", "TagA");
    run(&produce().arg("run", "single"))?;
    run(&produce().arg("run", "long").property("org.apache.rocketmq.client.sendSmartMsg", "false"))?;
    run(&produce().arg("run", "batch").arg("mode", "batch").arg("count", 3))?;
    run(&client.command("read", TOPIC))?;
    run(&client.command("offsets", TOPIC).arg("group", "golden_reader"))?;
    run(&client.command("offset-by-time", TOPIC).arg("time", 1))?;
    run(&client.consume(TOPIC, "golden_orderly").flag("orderly").arg("expect", 5).arg("linger", 3))
}

fn request_and_reply(client: &Client) -> Result<()> {
    let topic = "GoldenRequest";
    let replier = client.consume(topic, "golden_replier").flag("reply-at-end").flag("until-stdin-closes").start()?;
    let requester = client.produce(topic).arg("group", "golden_requester").arg("mode", "request");
    let requester = requester.arg("timeout", 120_000).start()?;
    replier.wait_for_event("asked", LONG, |_| true)?;
    replier.stop(LONG)?;
    requester.finish(LONG)?;
    Ok(())
}

fn run(invocation: &Invocation) -> Result<()> {
    invocation.run(LONG).map(drop)
}

/// Waits until the topic has a route, as a client asks for it.
fn wait_for_route(client: &Client) -> Result<()> {
    let began = Instant::now();
    while client.command("offsets", TOPIC).run(LONG).is_err() {
        if began.elapsed() > LONG {
            bail!("{TOPIC} has no route");
        }
    }
    Ok(())
}

fn wait_for_code(recorder: &Recorder, code: i64) -> Result<()> {
    wait_until(LONG, || Ok(recorder.exchanges().iter().any(|exchange| exchange.code == code)))
}
