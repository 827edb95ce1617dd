//! The rarer forms of a message: version 2, for topics longer than 127 bytes, and IPv6 hosts. Java's broker of 5.5 and ours
//! write them in turn into one store, and each reads what the other wrote.
//!
//! Nobody may create such a topic; it comes about as the retry topic of a group with a long name, which 4.9 allowed and 5.5
//! takes over with the broker's files, but does not create. Hosts are IPv6 when
//! `brokerIP1` is, and when a client connects by it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    cluster::{Broker, Kind, NameServer},
    java::Version,
    mqadmin::{Mqadmin, Tool},
    process::{scratch_dir, wait_until},
    reader::Reader,
    stored_message::StoredMessage,
    wire::Wire,
};
use serde_json::json;

const TOPIC: &str = "Forms";
const LONG: Duration = Duration::from_mins(1);
const SEND_MESSAGE_V2: i32 = 310;
const CONSUMER_SEND_MSG_BACK: i32 = 36;
const GET_BROKER_CLUSTER_INFO: i32 = 106;
const MAGIC_V1: u32 = 0xDAA3_20A7;
const MAGIC_V2: u32 = 0xDAA3_20AB;
const BOTH_HOSTS_V6: i32 = 0x30;
const STORE_HOST_V6: i32 = 0x20;
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// So long that the name of its retry topic has more than 127 bytes.
fn group() -> String {
    "G".repeat(200)
}

fn retry_topic() -> String {
    format!("%RETRY%{}", group())
}

#[test]
fn version_2_and_ipv6_hosts_go_from_java_to_us_and_back() -> Result<()> {
    let namesrv = NameServer::start(Kind::Ours)?;
    let java = Kind::Java(Version::V5_5_0);
    let tls: [(String, String); 1] = [("java.net.preferIPv4Stack".to_owned(), "false".to_owned())];
    let mut tool = Mqadmin::with_tls(Tool::Java(Version::V5_5_0), &namesrv.addr(), &tls)?;
    let mut stored = Vec::new();
    let mut dir = scratch_dir()?;
    write_group(&dir.path().join("store/config"))?;
    for (turn, kind) in [java, Kind::Ours, java, Kind::Ours].into_iter().enumerate() {
        let broker = Broker::builder(kind, "broker-a", &namesrv.addr())
            .data(dir)
            .set("bindAddress", "::")
            .set("brokerIP1", "::1")
            .set("messageDelayLevel", "1s 1s 1s 1s")
            .properties(if kind == java { tls.to_vec() } else { Vec::new() })
            .start()?;
        wait_registered(&namesrv, &broker)?;
        let port = broker.socket().port();
        let mut reader = Reader::connect(SocketAddr::new(V6, port))?;
        found(&mut reader, &mut tool, &stored)
            .with_context(|| format!("{kind}, turn {turn}: what was there before"))?;
        let new = fill(&mut reader, port, turn).with_context(|| format!("{kind}, turn {turn}: sending"))?;
        found(&mut reader, &mut tool, &new).with_context(|| format!("{kind}, turn {turn}: its own"))?;
        stored.extend(new);
        dir = broker.into_data()?;
    }
    Ok(())
}

/// What a broker of 4.9 leaves of the group.
fn write_group(config: &Path) -> Result<()> {
    let group = group();
    let table = json!({
        "dataVersion": { "counter": 1, "timestamp": 1_700_000_000_000_i64 },
        "subscriptionGroupTable": { &*group: {
            "brokerId": 0, "consumeBroadcastEnable": true, "consumeEnable": true, "consumeFromMinEnable": true, "groupName": group,
            "notifyConsumerIdsChangedEnable": true, "retryMaxTimes": 16, "retryQueueNums": 1, "whichBrokerWhenConsumeSlowly": 1,
        } },
    });
    std::fs::create_dir_all(config)?;
    Ok(std::fs::write(config.join("subscriptionGroup.json"), table.to_string())?)
}

fn wait_registered(namesrv: &NameServer, broker: &Broker) -> Result<()> {
    let mut wire = Wire::connect(namesrv.socket(), LONG)?;
    let address = format!("\"::1:{}\"", broker.socket().port());
    wait_until(LONG, || {
        let known = wire.call(GET_BROKER_CLUSTER_INFO, &[], &[])?;
        Ok(String::from_utf8_lossy(&known.body).contains(&address))
    })
    .with_context(|| format!("{address} does not register"))
}

/// Sends over both protocols, and lets a message come back to the group with the long name.
fn fill(reader: &mut Reader, port: u16, turn: usize) -> Result<Vec<StoredMessage>> {
    let created = reader.create_topic(TOPIC, 1)?;
    ensure!(created.code == 0, "creating the topic: {created:?}");

    let mut new = Vec::new();
    for (ip, flags) in [(V6, BOTH_HOSTS_V6), (IpAddr::V4(Ipv4Addr::LOCALHOST), STORE_HOST_V6)] {
        let mut wire = Wire::connect(SocketAddr::new(ip, port), LONG)?;
        let (id, offset) = send(&mut wire, &format!("turn{turn}-{}", ip.is_ipv4()))?;
        let message = message_at(reader, TOPIC, offset)?;
        ensure!(id == message_id(&message), "the id is {id}, of {message:?}");
        ensure!(message.magic == MAGIC_V1 && message.sys_flag == flags, "{message:?}");
        ensure!(message.born_host.ip() == ip && message.store_host == SocketAddr::new(V6, port), "{message:?}");
        new.push(message);
    }
    let offset = reader.max_offset(&retry_topic(), 0).unwrap_or(0);
    send_back(reader, &new[0])?;
    wait_until(LONG, || Ok(reader.max_offset(&retry_topic(), 0).unwrap_or(0) > offset))
        .context("nothing comes back to the group")?;
    let again = message_at(reader, &retry_topic(), offset)?;
    ensure!(again.magic == MAGIC_V2 && again.topic == retry_topic(), "{again:?}");
    ensure!(again.sys_flag == BOTH_HOSTS_V6 && again.born_host == new[0].born_host, "{again:?}");
    ensure!(again.body == new[0].body && again.store_host == SocketAddr::new(V6, port), "{again:?}");
    new.push(again);
    Ok(new)
}

/// Returns the message's id and its queue offset.
fn send(wire: &mut Wire, key: &str) -> Result<(String, i64)> {
    let properties = format!("KEYS\u{1}{key}\u{2}UNIQ_KEY\u{1}unique-{key}\u{2}TAGS\u{1}blue\u{2}");
    let ext = [
        ("a", "PID_forms"),
        ("b", TOPIC),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", properties.as_str()),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ];
    let sent = wire.call(SEND_MESSAGE_V2, &ext, format!("body of {key}").as_bytes())?;
    ensure!(sent.code == 0, "sending {key}: {sent:?}");
    let field = |name| sent.ext.get(name).with_context(|| format!("no {name} in {sent:?}"));
    Ok((field("msgId")?.clone(), field("queueOffset")?.parse()?))
}

fn send_back(reader: &mut Reader, message: &StoredMessage) -> Result<()> {
    let (offset, group, id) = (message.log_offset.to_string(), group(), message_id(message));
    let ext = [
        ("offset", offset.as_str()),
        ("group", group.as_str()),
        ("delayLevel", "1"),
        ("originMsgId", id.as_str()),
        ("originTopic", TOPIC),
        ("unitMode", "false"),
        ("maxReconsumeTimes", "16"),
    ];
    let sent = reader.call(CONSUMER_SEND_MSG_BACK, &ext, &[])?;
    ensure!(sent.code == 0, "sending back: {sent:?}");
    Ok(())
}

fn message_at(reader: &mut Reader, topic: &str, offset: i64) -> Result<StoredMessage> {
    // It was sent, and may not be in its queue yet.
    wait_until(LONG, || Ok(reader.max_offset(topic, 0)? > offset))?;
    reader.read_queue(topic, 0, offset)?.into_iter().next().with_context(|| format!("nothing at {offset} of {topic}"))
}

/// The messages are found by queue, by log offset, by each key, and by Java's tool by their ids.
fn found(reader: &mut Reader, tool: &mut Mqadmin, messages: &[StoredMessage]) -> Result<()> {
    for message in messages {
        let topic = message.topic.as_str();
        let pulled = message_at(reader, topic, message.queue_offset)?;
        ensure!(&pulled == message, "pulled: {pulled:?}, was {message:?}");
        let viewed = reader.view(message.log_offset)?;
        ensure!(viewed.as_ref() == Some(message), "by log offset: {viewed:?}, was {message:?}");
        for key in ["KEYS", "UNIQ_KEY"].iter().filter_map(|name| message.property(name)) {
            let mut queried = Vec::new();
            // The index comes behind the queue.
            wait_until(LONG, || {
                queried = reader.query(topic, key)?;
                Ok(!queried.is_empty())
            })
            .with_context(|| format!("by key {key}"))?;
            ensure!(queried.contains(message), "by key {key}: {queried:?}, was {message:?}");
        }
    }
    // The id says which broker to ask, and its port is another one now.
    let port = reader.remote()?.port();
    for message in messages.iter().filter(|message| message.topic == TOPIC && message.store_host.port() == port) {
        let id = message_id(message);
        let printed = tool.run(&["queryMsgById", "-i", &id, "-t", TOPIC])?;
        ensure!(printed.contains(&id), "by id {id}: {printed}");
    }
    Ok(())
}

/// The id that says where a message lies: 16 bytes of address, 4 of port, 8 of log offset.
fn message_id(message: &StoredMessage) -> String {
    let IpAddr::V6(ip) = message.store_host.ip() else { return String::new() };
    format!("{:032X}{:08X}{:016X}", u128::from(ip), message.store_host.port(), message.log_offset)
}
