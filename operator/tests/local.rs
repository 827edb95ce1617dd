//! `rocketmq-operator local` from outside: the real program, with pretended name servers and brokers.
//!
//! The pretended ones are this very test program, started by a script under their names: they listen where they are told,
//! are ready at once, and keep topics and consumer groups in their store folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rocketmq_operator::broker_admin::BrokerAdmin;
use rocketmq_operator::plan::Access;
use rocketmq_operator::topics::Missing;
use rocketmq_remoting::bodies::{SubscriptionGroup, TopicConfig, TopicConfigTable};
use rocketmq_remoting::header::broker::CreateTopicRequest;
use rocketmq_remoting::{
    Answer, Command as Remoting, Header, Peer, RequestCode, ResponseCode, Server, ServerConfig, Service,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_mins(1);

/// Not a test: what `mqnamesrv` and `mqbroker` become. Run as a test it does nothing.
#[test]
fn pretend() {
    let Ok(arguments) = std::env::var("PRETEND") else { return };
    let settings: BTreeMap<&str, &str> = arguments.split(' ').filter_map(|argument| argument.split_once('=')).collect();
    let port = |key: &str| settings[key].parse::<u16>().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(store) = settings.get("storePathRootDir") else {
            let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port("listenPort"))).await.unwrap();
            return std::future::pending().await;
        };
        fs::create_dir_all(store).unwrap();
        let store = Arc::new(Store { topics: Path::new(store).join("topics.json"), settings: Mutex::default() });
        let address = (Ipv4Addr::LOCALHOST, port("listenPort")).into();
        let server = Server::bind(ServerConfig::new(address)).unwrap();
        tokio::spawn(server.run(store, CancellationToken::new()));
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, port("httpPort"))).await.unwrap();
        loop {
            let (mut stream, _) = http.accept().await.unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
}

/// A pretended broker's topics, which outlive it, and its settings, which do not. Consumer groups are accepted and forgotten.
struct Store {
    topics: PathBuf,
    settings: Mutex<String>,
}

impl Store {
    fn read(&self) -> TopicConfigTable {
        fs::read(&self.topics).map(|text| serde_json::from_slice(&text).unwrap()).unwrap_or_default()
    }
}

impl Service for Store {
    fn call(&self, _: &Arc<Peer>, request: Remoting) -> Answer {
        Answer::Now(match request.request_code() {
            RequestCode::GET_ALL_TOPIC_CONFIG => Remoting::ok().with_body(serde_json::to_vec(&self.read()).unwrap()),
            RequestCode::UPDATE_AND_CREATE_TOPIC => {
                let header = CreateTopicRequest::decode(&request.ext_fields).unwrap();
                let mut table = self.read();
                let mut topic = TopicConfig::new(&*header.topic, header.read_queue_nums, header.perm);
                topic.write_queue_nums = header.write_queue_nums;
                table.topic_config_table.insert(topic.topic_name.clone(), topic);
                fs::write(&self.topics, serde_json::to_vec(&table).unwrap()).unwrap();
                Remoting::ok()
            }
            RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => {
                Remoting::ok().with_body(r#"{"subscriptionGroupTable":{}}"#)
            }
            RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => Remoting::ok(),
            RequestCode::GET_BROKER_CONFIG => Remoting::ok().with_body(self.settings.lock().unwrap().clone()),
            RequestCode::UPDATE_BROKER_CONFIG => {
                *self.settings.lock().unwrap() = String::from_utf8(request.body.into_bytes().to_vec()).unwrap();
                Remoting::ok()
            }
            RequestCode::GET_BROKER_RUNTIME_INFO => Remoting::ok().with_body(r#"{"table":{"timerCongestNum":"3"}}"#),
            RequestCode::GET_ALL_CONSUMER_OFFSET
            | RequestCode::GET_ALL_DELAY_OFFSET
            | RequestCode::GET_TOPIC_STATS_INFO => Remoting::ok().with_body(r#"{"offsetTable":{}}"#),
            _ => Remoting::refusal(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, "not pretended"),
        })
    }
}

/// A folder with a manifest, the pretended programs and the cluster's data.
struct House {
    folder: TempDir,
}

/// A running `local`.
struct Local {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl House {
    fn new(spec: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let house = Self { folder };
        let bin = house.path("bin");
        fs::create_dir(&bin).unwrap();
        let me = std::env::current_exe().unwrap();
        for name in ["mqnamesrv", "mqbroker"] {
            let script = format!("#!/bin/sh\nPRETEND=\"$*\" exec {} --exact pretend\n", me.display());
            fs::write(bin.join(name), script).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        house.write_spec(spec);
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_spec(&self, spec: &str) {
        let text = format!(
            "apiVersion: rocketmq.rs/v1alpha1\nkind: RocketMQCluster\nmetadata: {{ name: demo }}\nspec: {spec}\n"
        );
        fs::write(self.path("cluster.yaml"), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rocketmq-operator"));
        command.arg("local").arg(self.path("cluster.yaml"));
        command.arg("--data").arg(self.path("data")).arg("--bin-dir").arg(self.path("bin"));
        command
    }

    fn start(&self) -> Local {
        let mut process = self.command().stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Local { process, lines }
    }

    fn status(&self) -> serde_json::Value {
        let text = fs::read(self.path("data/status.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let status = self.status();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == type_);
        let text = |key: &str| found.and_then(|found| found[key].as_str()).unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    fn pid(&self, pod: &str) -> Option<u32> {
        let text = fs::read_to_string(self.path("data").join(pod).join("pid")).ok()?;
        text.split(' ').next()?.parse().ok()
    }

    fn broker(&self, pod: &str) -> String {
        let text = fs::read(self.path("data/ports.json")).unwrap();
        let ports: serde_json::Value = serde_json::from_slice(&text).unwrap();
        format!("127.0.0.1:{}", ports[pod]["remoting"])
    }
}

impl Local {
    /// The name servers it announces.
    fn ready(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).expect("it says that it is ready");
        line.split_once("NAMESRV_ADDR=").expect("the line says where").1.to_owned()
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn end(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.process.wait().unwrap()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn runs(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_cluster_comes_up_survives_its_processes_and_goes_down_cleanly() {
    let house = House::new("{ replicas: 1, slaves: 1, nameServers: { replicas: 2 } }");
    let local = house.start();
    let name_servers = local.ready();
    assert_eq!(name_servers.split(';').count(), 2, "{name_servers}");
    assert_eq!(house.condition("Ready").0, "True");

    let second = house.command().stdout(Stdio::null()).output().unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("runs on") && text.contains(&local.process.id().to_string()), "{text}");

    let master = "demo-broker-master-0";
    let before = house.pid(master).unwrap();
    assert!(Command::new("kill").args(["-KILL", &before.to_string()]).status().unwrap().success());
    until("the master is started again", || house.pid(master).is_some_and(|pid| pid != before && runs(pid)));

    let pods = [master, "demo-broker-slave-1-0", "demo-namesrv-0", "demo-namesrv-1"];
    until("all is well again", || house.condition("Ready").0 == "True");
    let processes: Vec<u32> = pods.iter().filter_map(|pod| house.pid(pod)).collect();
    assert_eq!(processes.len(), 4);
    assert_eq!(local.end().code(), Some(0));
    assert!(!processes.iter().any(|pid| runs(*pid)), "nothing runs on");

    let again = house.start();
    assert_eq!(again.ready(), name_servers, "addresses stay");
    assert_eq!(again.end().code(), Some(0));
}

#[test]
fn new_groups_get_the_topics_and_those_that_go_are_closed_until_they_are_wanted_again() {
    let house = House::new("{ replicas: 1, slaves: 0, nameServers: { replicas: 1 } }");
    let local = house.start();
    let name_servers = local.ready();
    let admin = BrokerAdmin::default();
    let orders = TopicConfig { write_queue_nums: 3, ..TopicConfig::new("orders", 5, 6) };
    let missing = Missing {
        topics: vec![orders.clone(), TopicConfig::new("TBW102", 8, 7)],
        groups: vec![SubscriptionGroup::default()],
    };
    on_runtime(admin.create(&house.broker("demo-broker-master-0"), &missing)).unwrap();

    house.write_spec("{ replicas: 2, slaves: 0, nameServers: { replicas: 1 } }");
    until("the second group serves", || house.status()["readyReplicas"] == 2);
    // Another runtime, so another client: connections belong to the runtime that opened them.
    let admin = BrokerAdmin::default();
    let tables = on_runtime(admin.tables(&house.broker("demo-broker-master-1"))).unwrap();
    assert_eq!(tables.topics.into_values().collect::<Vec<_>>(), [orders]);

    house.write_spec("{ replicas: 1, slaves: 0, nameServers: { replicas: 1 } }");
    until("the second group is closed", || house.status()["groups"][1]["drain"]["readOnlySince"].is_string());
    assert_eq!(house.condition("Reconciling").1, "Draining");
    assert_eq!(house.status()["groups"][1]["drain"]["remaining"], 3);
    let second = house.broker("demo-broker-master-1");
    let access = || on_runtime(async { BrokerAdmin::default().access(&second).await.unwrap() });
    assert_eq!(access(), Access::ReadOnly);
    assert!(house.pid("demo-broker-master-1").is_some_and(runs));

    house.write_spec("{ replicas: 99 }");
    house.write_spec("{ replicas: 2, slaves: 0, nameServers: { replicas: 2 } }");
    let more = local.ready();
    until("the second group serves again", || house.status()["readyReplicas"] == 2);
    assert_eq!(access(), Access::Open);
    assert!(more.starts_with(&name_servers) && more.contains(';'), "{more}");
    assert_eq!(local.end().code(), Some(0));
}

#[test]
fn processes_end_with_an_operator_that_is_killed() {
    let house = House::new("{ replicas: 1, slaves: 0, nameServers: { replicas: 1 } }");
    let local = house.start();
    local.ready();
    let pids = ["demo-broker-master-0", "demo-namesrv-0"].map(|pod| house.pid(pod).unwrap());
    local.signal("-KILL");
    until("they end", || !pids.iter().any(|pid| runs(*pid)));
    drop(local);
    let again = house.start();
    again.ready();
    assert_eq!(again.end().code(), Some(0));
}

#[test]
fn a_manifest_that_is_wrong_starts_nothing() {
    let house = House::new("{ replicas: 99, config: { brokerId: 1 } }");
    let output = house.command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("spec.replicas: 99 is above the maximum 64"), "{text}");
    assert!(!house.path("data").exists());
}
