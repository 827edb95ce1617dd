//! Java's mqadmin, command by command, against the goldens that it made with its own servers: same columns, same lines, no
//! error. One scenario, because the commands build on one another.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    client::Client,
    cluster::{Cluster, Kind},
    java::Version,
    mqadmin::{self, Mqadmin, Tool},
    process::{scratch_dir, wait_until},
    wire::Wire,
};

use crate::{
    Scenario,
    peer::{BROKERS, Peer},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] =
    &[("mqadmin", mqadmin_of_java), ("mqadmin_of_ours", mqadmin_of_ours), ("lists_from_files", lists_from_files)];

/// What only tools of 5.x can do.
pub(crate) const OF_5: [&str; 1] = ["lists_from_files"];

const LONG: Duration = Duration::from_mins(1);
const QUERY_CONSUMER_OFFSET: i32 = 14;
const GET_BROKER_RUNTIME_INFO: i32 = 28;
const GET_TOPIC_CONFIG: i32 = 351;
const GET_SUBSCRIPTIONGROUP_CONFIG: i32 = 352;

/// Keys of brokerStatus that operators and the dashboard read; the tools only print what they are given.
const STATUS_KEYS: [&str; 20] = [
    "bootTimestamp",
    "brokerVersionDesc",
    "commitLogDiskRatio",
    "commitLogMaxOffset",
    "commitLogMinOffset",
    "consumeQueueDiskRatio",
    "dispatchBehindBytes",
    "earliestMessageTimeStamp",
    "getFoundTps",
    "getMessageEntireTimeMax",
    "getTotalTps",
    "msgGetTotalTodayNow",
    "msgPutTotalTodayNow",
    "pageCacheLockTimeMills",
    "pullThreadPoolQueueSize",
    "putMessageDistributeTime",
    "putTps",
    "runtime",
    "sendThreadPoolQueueHeadWaitTimeMills",
    "sendThreadPoolQueueSize",
];

/// Keys of broker.conf that every broker has an answer for.
const CONFIG_KEYS: [&str; 10] = [
    "brokerClusterName",
    "brokerId",
    "brokerIP1",
    "brokerName",
    "brokerRole",
    "fileReservedTime",
    "flushDiskType",
    "listenPort",
    "namesrvAddr",
    "storePathRootDir",
];

/// How an output is judged.
enum Check {
    /// Its shape is the golden's.
    Shape,
    /// It has a line that begins with each of these keys.
    Keys(Vec<&'static str>),
    /// It contains each of these texts.
    Contains(Vec<String>),
}

struct Step {
    golden: &'static str,
    args: Vec<String>,
    check: Check,
}

fn step(golden: &'static str, line: &str) -> Step {
    Step { golden, args: line.split_whitespace().map(str::to_owned).collect(), check: Check::Shape }
}

fn mqadmin_of_java(peer: &Peer) -> Result<()> {
    run_all(peer, Tool::Java(peer.client))
}

/// Our own mqadmin prints what Java's of 4.9 prints, against Java's servers as well as against ours.
fn mqadmin_of_ours(peer: &Peer) -> Result<()> {
    run_all(peer, Tool::Ours)
}

/// Topics and groups that 5.x makes many at once, out of files.
fn lists_from_files(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let broker = session.cluster.brokers[0].addr();
        let mut mqadmin = Mqadmin::new(Tool::Java(peer.client), &session.cluster.addr())?;
        let dir = scratch_dir()?;
        let (topics, groups) = (dir.path().join("topics.json"), dir.path().join("groups.json"));
        let topic = |name: &str| format!(r#"{{"topicName":"{name}","readQueueNums":3,"writeQueueNums":3,"perm":6}}"#);
        std::fs::write(&topics, format!("[{},{}]", topic("ListedOne"), topic("ListedTwo")))?;
        std::fs::write(&groups, r#"[{"groupName":"listed_one","retryMaxTimes":3},{"groupName":"listed_two"}]"#)?;
        mqadmin.run(&["updateTopicList", "-b", &broker, "-f", &topics.display().to_string()])?;
        mqadmin.run(&["updateSubGroupList", "-b", &broker, "-f", &groups.display().to_string()])?;
        let mut wire = Wire::connect(session.cluster.brokers[0].socket(), LONG)?;
        for name in ["ListedOne", "ListedTwo"] {
            let made = wire.call(GET_TOPIC_CONFIG, &[("topic", name)], &[])?;
            let text = String::from_utf8_lossy(&made.body).into_owned();
            ensure!(made.code == 0 && text.contains("\"writeQueueNums\":3"), "{name}: {} {text}", made.code);
        }
        let made = wire.call(GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "listed_one")], &[])?;
        let text = String::from_utf8_lossy(&made.body).into_owned();
        ensure!(made.code == 0 && text.contains("\"retryMaxTimes\":3"), "listed_one: {} {text}", made.code);
        Ok(())
    })
}

/// Each command leaves behind what the next ones look at. On a cluster of its own: nobody else's groups are to be listed, and
/// nobody else is to see a broker lose its write permission.
fn run_all(peer: &Peer, tool: Tool) -> Result<()> {
    let cluster = Cluster::start(peer.servers, &BROKERS)?;
    // A Java broker's first answer to this can take longer than the tools wait, and they list it without figures then.
    for broker in &cluster.brokers {
        let mut wire = Wire::connect(broker.socket(), LONG)?;
        wait_until(LONG, || {
            let info = wire.call(GET_BROKER_RUNTIME_INFO, &[], &[])?;
            Ok(String::from_utf8_lossy(&info.body).contains("brokerVersionDesc"))
        })?;
    }
    let namesrv = cluster.addr();
    let address = cluster.brokers[0].addr();
    let client = Client::new(peer.client, &namesrv);
    let topic = "GoldenTopic";
    let mut mqadmin = Mqadmin::new(tool, &namesrv)?;
    let mut faults = Vec::new();
    let mut judge = |steps: Vec<Step>| {
        for step in steps {
            if !mqadmin.has_command(&step.args[0]) {
                eprintln!("{tool:?} has no {}", step.args[0]);
                continue;
            }
            let args: Vec<&str> = step.args.iter().map(String::as_str).collect();
            let bless = tool != Tool::Ours && peer.servers != Kind::Ours;
            let judged = mqadmin.run(&args).and_then(|output| judge(peer, &step, &output, bless));
            if let Err(error) = judged {
                faults.push(format!("mqadmin {}: {error:#}", args.join(" ")));
            }
        }
    };

    judge(first_steps(&address));

    let produced = client.produce(topic).arg("count", 64).arg("tags", "TagA").run(LONG)?;
    let consumer =
        client.consume(topic, "golden_group").arg("expect", 64).arg("linger", 600).arg("timeout", 600).start()?;
    consumer.wait_for_lines(64, Duration::from_secs(30))?;
    let producer =
        client.produce(topic).arg("group", "golden_producer").flag("until-stdin-closes").arg("rate", 1).start()?;
    producer.wait_for_lines(1, Duration::from_secs(30))?;
    // A client commits its offsets for the first time ten seconds after its start.
    std::thread::sleep(Duration::from_secs(12));
    wait_until(LONG, || Ok(committed(&cluster, topic, "golden_group")? >= 64))
        .context("the group's committed offsets")?;
    let first = produced.sent.first().context("nothing was sent")?;
    let (offset_id, id) = (first.offset_msg_id.clone().unwrap_or_default(), first.msg_id.clone().unwrap_or_default());
    let broker = first.broker.clone().unwrap_or_default();
    // 5.5 wants the topic too, 4.9 does not know the option.
    let by_id = match tool {
        Tool::Java(Version::V5_5_0) => format!("queryMsgById -i {offset_id} -t {topic}"),
        _ => format!("queryMsgById -i {offset_id}"),
    };
    let (queue, offset) = (first.queue_id.unwrap_or(-1), first.queue_offset.unwrap_or(-1));
    judge(vec![
        step("topicStatus", "topicStatus -t GoldenTopic"),
        Step { check: Check::Keys(STATUS_KEYS.to_vec()), ..step("", &format!("brokerStatus -b {address}")) },
        step("consumerProgress-g", "consumerProgress -g golden_group"),
        Step {
            check: Check::Contains(vec!["golden_group".into(), "#Diff Total".into()]),
            ..step("", "consumerProgress")
        },
        step("consumerConnection", "consumerConnection -g golden_group"),
        step("producerConnection", "producerConnection -g golden_producer -t GoldenTopic"),
        Step { check: Check::Contains(vec![first.key.clone(), "CommitLog Offset:".into()]), ..step("", &by_id) },
        Step {
            check: Check::Contains(vec![id.clone(), "Queue Offset:".into()]),
            ..step("", &format!("queryMsgByUniqueKey -t GoldenTopic -i {id}"))
        },
        Step {
            check: Check::Contains(vec![id.clone()]),
            ..step("", &format!("queryMsgByKey -t GoldenTopic -k {}", first.key))
        },
        Step {
            check: Check::Contains(vec![offset_id.clone(), "Topic:".into()]),
            ..step("", &format!("queryMsgByOffset -t GoldenTopic -b {broker} -i {queue} -o {offset}"))
        },
        Step { check: Check::Contains(vec!["GoldenTopic".into(), "#Topic".into()]), ..step("", "statsAll") },
        Step { check: Check::Keys(CONFIG_KEYS.to_vec()), ..step("", &format!("getBrokerConfig -b {address}")) },
        step("updateBrokerConfig", &format!("updateBrokerConfig -b {address} -k fileReservedTime -v 71")),
        Step {
            check: Check::Contains(vec!["listenPort".into(), "kvConfigPath".into()]),
            ..step("", "getNamesrvConfig")
        },
        step("updateKvConfig", "updateKvConfig -s GOLDEN -k key -v value"),
        step("deleteKvConfig", "deleteKvConfig -s GOLDEN -k key"),
        step("brokerConsumeStats", &format!("brokerConsumeStats -b {address}")),
        step("resetOffsetByTime", "resetOffsetByTime -g golden_group -t GoldenTopic -s -1"),
        step("cloneGroupOffset", "cloneGroupOffset -s golden_group -d golden_clone -t GoldenTopic"),
    ]);
    producer.stop(LONG)?;
    consumer.kill()?;

    judge(last_steps(&address));
    ensure!(faults.is_empty(), "{} commands differ:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

/// What a group has committed of a topic's four queues on all brokers.
fn committed(cluster: &Cluster, topic: &str, group: &str) -> Result<i64> {
    let mut sum = 0;
    for broker in &cluster.brokers {
        let mut wire = Wire::connect(broker.socket(), LONG)?;
        for queue in ["0", "1", "2", "3"] {
            let fields = [("consumerGroup", group), ("topic", topic), ("queueId", queue)];
            let answer = wire.call(QUERY_CONSUMER_OFFSET, &fields, &[])?;
            sum += answer.ext.get("offset").map_or(Ok(0), |offset| offset.parse())?;
        }
    }
    Ok(sum)
}

/// On a cluster without traffic.
fn first_steps(address: &str) -> Vec<Step> {
    vec![
        step("clusterList", "clusterList"),
        step("clusterList-m", "clusterList -m"),
        step("updateTopic-cluster", "updateTopic -c DefaultCluster -t GoldenTopic -r 4 -w 4 -p 6"),
        step("updateTopic-broker", &format!("updateTopic -b {address} -t GoldenTopicB")),
        Step {
            check: Check::Contains(vec![
                "TBW102".into(),
                "GoldenTopic".into(),
                "broker-a".into(),
                "DefaultCluster".into(),
            ]),
            ..step("", "topicList")
        },
        step("topicRoute", "topicRoute -t GoldenTopic"),
        step("topicClusterList", "topicClusterList -t GoldenTopic"),
        step("updateSubGroup", "updateSubGroup -c DefaultCluster -g golden_group"),
        step("updateSubGroup-clone", "updateSubGroup -c DefaultCluster -g golden_clone"),
    ]
}

/// When the clients have gone.
fn last_steps(address: &str) -> Vec<Step> {
    vec![
        step("updateTopicPerm", &format!("updateTopicPerm -b {address} -t GoldenTopic -p 4")),
        step("wipeWritePerm", "wipeWritePerm -b broker-b"),
        step("addWritePerm", "addWritePerm -b broker-b"),
        step("updateTopic-cluster", "updateTopic -c DefaultCluster -t GoldenTopic -r 4 -w 4 -p 6"),
        step("sendMessage", "sendMessage -t GoldenTopic -p golden -k golden-key -c TagA -b broker-a -i 0"),
        step("cleanExpiredCQ", "cleanExpiredCQ -c DefaultCluster"),
        step("cleanUnusedTopic", "cleanUnusedTopic -c DefaultCluster"),
        step("deleteSubGroup-clone", "deleteSubGroup -c DefaultCluster -g golden_clone"),
        step("deleteSubGroup", "deleteSubGroup -c DefaultCluster -g golden_group"),
        step("deleteTopic", "deleteTopic -c DefaultCluster -t GoldenTopic"),
        step("deleteTopicB", "deleteTopic -c DefaultCluster -t GoldenTopicB"),
    ]
}

fn judge(peer: &Peer, step: &Step, output: &str, bless: bool) -> Result<()> {
    match &step.check {
        Check::Shape => {
            // 4.9 lists the group's retry topic from the start, 5.x once something was retried.
            let shape = mqadmin::shape(output);
            let shape = shape.lines().filter(|line| !line.starts_with("%RETRY%golden_group broker-"));
            let shape = shape.fold(String::new(), |text, line| {
                text + line
                    + "
"
            });
            mqadmin::compare(peer.client, step.golden, &shape, bless)
        }
        Check::Keys(wanted) => {
            let found = mqadmin::keys(output);
            let missing: BTreeSet<_> = wanted.iter().filter(|key| !found.contains(**key)).collect();
            ensure!(missing.is_empty(), "keys missing: {missing:?}");
            Ok(())
        }
        Check::Contains(wanted) => {
            let missing: Vec<_> = wanted.iter().filter(|text| !output.contains(text.as_str())).collect();
            ensure!(missing.is_empty(), "texts missing: {missing:?} in\n{output}");
            Ok(())
        }
    }
}
