//! A name server and a broker of either kind, started for a round and ended by their own process ids.

use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rocketmq_remoting::bodies::{PERM_READ, PERM_WRITE, TopicConfig, TopicConfigTable};
use rustix::process::{Pid, Signal, kill_process};

use super::QUEUES;
use crate::load::{Amount, Load};
use crate::process_cost;
use crate::send::{self, Messages};
use crate::topic;

/// The Java release that is compared with.
pub const JAVA_VERSION: &str = "4.9.7";
/// Flags of the Java broker: after RocketMQ's `runbroker.sh`, with a heap that fits a small
/// machine, and without `AlwaysPreTouch`, which would make its idle memory the whole heap.
pub const JAVA_FLAGS: [&str; 9] = [
    "-server",
    "-Xms2g",
    "-Xmx2g",
    "-XX:+UseG1GC",
    "-XX:G1HeapRegionSize=16m",
    "-XX:G1ReservePercent=25",
    "-XX:InitiatingHeapOccupancyPercent=30",
    "-XX:SoftRefLRUPolicyMSPerMB=0",
    "-XX:-UseLargePages",
];
/// Of the Java name server, which is not measured.
const JAVA_NAME_SERVER_FLAGS: [&str; 2] = ["-Xms128m", "-Xmx256m"];
/// What RocketMQ reaches into on Java 17.
const OPENED: [&str; 5] = ["java.nio", "sun.nio.ch", "jdk.internal.ref", "java.lang", "java.util"];
/// The settings of both brokers; all else is the default of each. The two times keep a broker that
/// gets no CPU for a while from refusing what waited: slow is a figure, refused is none.
pub const SETTINGS: [&str; 7] = [
    "brokerRole=ASYNC_MASTER",
    "flushDiskType=ASYNC_FLUSH",
    "mappedFileSizeCommitLog=1073741824",
    "autoCreateTopicEnable=true",
    "diskMaxUsedSpaceRatio=95",
    "waitTimeMillsInSendQueue=60000",
    "osPageCacheBusyTimeOutMills=60000",
];

const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_mins(1);

/// Whose broker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Apache RocketMQ's.
    Java,
    /// The one beside this program.
    Ours,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Java => "Java",
            Self::Ours => "ours",
        })
    }
}

/// Where the programs of each kind are.
#[derive(Debug)]
pub struct Programs {
    /// The jars of the Java servers.
    jars: PathBuf,
    /// The log configuration of the Java servers.
    log_configuration: PathBuf,
    /// The directory of `mqnamesrv` and `mqbroker`.
    ours: PathBuf,
}

impl Programs {
    /// Finds both; the jars are resolved by the script beside the log configuration.
    ///
    /// # Errors
    /// One of the programs is not there.
    pub fn find(java_scripts: &Path, ours: &Path) -> Result<Self> {
        for name in ["mqnamesrv", "mqbroker"] {
            let path = ours.join(name);
            ensure!(path.is_file(), "{} is not built", path.display());
        }
        let name = format!("server-{JAVA_VERSION}");
        let resolve = java_scripts.join("resolve");
        let status = Command::new(&resolve).arg(&name).status().with_context(|| resolve.display().to_string())?;
        ensure!(status.success(), "the jars of {name} do not resolve: {status}");
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let cache = variable("RMQ_JAVA_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("rocketmq-rs/java")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/rocketmq-rs/java")))
            .context("HOME is not set")?;
        let log_configuration = java_scripts.join("conf/logback.xml");
        Ok(Self { jars: cache.join(name), log_configuration, ours: ours.to_owned() })
    }

    fn command(&self, kind: Kind, program: &Program, home: &Path) -> Result<Command> {
        let mut command = match kind {
            Kind::Ours => Command::new(self.ours.join(program.ours)),
            Kind::Java => self.java(program, home)?,
        };
        command.env("ROCKETMQ_HOME", home).env_remove("NAMESRV_ADDR").current_dir(home);
        Ok(command)
    }

    fn java(&self, program: &Program, home: &Path) -> Result<Command> {
        let conf = home.join("conf");
        fs::create_dir_all(&conf)?;
        // 4.9 looks for one name, 5.x for the other.
        for name in [format!("logback_{}.xml", program.name), format!("rmq.{}.logback.xml", program.name)] {
            fs::copy(&self.log_configuration, conf.join(name))?;
        }
        let mut command = Command::new("java");
        command.args(program.java_flags);
        for package in OPENED {
            command.arg("--add-opens").arg(format!("java.base/{package}=ALL-UNNAMED"));
        }
        let log = home.join(format!("{}.log", program.name));
        command
            .arg(format!("-Duser.home={}", home.display()))
            .arg(format!("-Drmq.log={}", log.display()))
            .arg("-cp")
            .arg(format!("{}:{}/*", conf.display(), self.jars.display()))
            .arg(program.java_class);
        Ok(command)
    }
}

struct Program {
    name: &'static str,
    ours: &'static str,
    java_class: &'static str,
    java_flags: &'static [&'static str],
}

const NAME_SERVER: Program = Program {
    name: "namesrv",
    ours: "mqnamesrv",
    java_class: "org.apache.rocketmq.namesrv.NamesrvStartup",
    java_flags: &JAVA_NAME_SERVER_FLAGS,
};
const BROKER: Program = Program {
    name: "broker",
    ours: "mqbroker",
    java_class: "org.apache.rocketmq.broker.BrokerStartup",
    java_flags: &JAVA_FLAGS,
};

/// The prefix of the topics that a broker may be given to begin with.
pub const MANY: &str = "bench-many-";
/// With many topics, a consume queue's files are small, for the disk's sake: 2,000 entries.
const SMALL_QUEUES: &str = "mappedFileSizeConsumeQueue=40000";

/// A running pair. Dropping it ends both, the broker first.
#[derive(Debug)]
pub struct Server {
    /// `host:port` of the broker.
    pub address: String,
    /// From the start of the broker's process to the first message that it acknowledged; to a tick
    /// of the kernel's clock, 10 ms.
    pub start_up: Duration,
    /// `host:port` of the name server.
    pub routes_address: String,
    broker: Process,
    routes: Process,
}

impl Server {
    /// Starts both with their data under `home`, and waits until the broker serves. It has that many topics of one queue each
    /// from the beginning, named by [`MANY`].
    ///
    /// # Errors
    /// One of them ends or does not serve in time.
    pub fn start(kind: Kind, programs: &Programs, home: &Path, topics: u32) -> Result<Self> {
        let ports = free_ports(5)?;
        let (name_server_port, broker_port) = (ports[0], ports[3]);
        let name_server_home = home.join("namesrv");
        fs::create_dir_all(&name_server_home)?;
        let conf = format!(
            "listenPort={name_server_port}\nkvConfigPath={0}/kvConfig.json\nconfigStorePath={0}/namesrv.properties\n",
            name_server_home.display()
        );
        let mut name_server = Process::spawn(kind, programs, &NAME_SERVER, &name_server_home, &conf)?;
        name_server.wait(|| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, name_server_port)).is_ok())?;

        let broker_home = home.join("broker");
        let store = broker_home.join("store");
        fs::create_dir_all(&store)?;
        if topics > 0 {
            write_topics(&store.join("config"), topics)?;
        }
        let conf = format!(
            "brokerName=broker-a\nbrokerId=0\nbrokerIP1=127.0.0.1\nbrokerIP2=127.0.0.1\nlistenPort={broker_port}\n\
             haListenPort={}\nnamesrvAddr=127.0.0.1:{name_server_port}\nstorePathRootDir={1}\nstorePathCommitLog={1}/commitlog\n{2}\n{3}\n",
            ports[4],
            store.display(),
            SETTINGS.join("\n"),
            if topics > 0 { SMALL_QUEUES } else { "" },
        );
        let mut broker = Process::spawn(kind, programs, &BROKER, &broker_home, &conf)?;
        let address = format!("127.0.0.1:{broker_port}");
        broker.wait(|| serves(&address))?;
        let start_up = Duration::try_from_secs_f64(process_cost::age_seconds(broker.pid())?.max(0.0))?;
        let routes_address = format!("127.0.0.1:{name_server_port}");
        Ok(Self { address, start_up, routes_address, broker, routes: name_server })
    }

    /// The broker's process.
    pub fn pid(&self) -> u32 {
        self.broker.pid()
    }

    /// The name server's process.
    pub fn routes_pid(&self) -> u32 {
        self.routes.pid()
    }
}

/// The topic file of both brokers.
fn write_topics(config: &Path, topics: u32) -> Result<()> {
    let mut table = TopicConfigTable::default();
    table.data_version.advance(1);
    for number in 0..topics {
        let name = topic::numbered(MANY, number);
        table.topic_config_table.insert(name.clone(), TopicConfig::new(name, 1, PERM_READ | PERM_WRITE));
    }
    fs::create_dir_all(config)?;
    fs::write(config.join("topics.json"), serde_json::to_vec(&table)?)?;
    Ok(())
}

/// Whether a broker creates a topic and acknowledges a message.
fn serves(address: &str) -> bool {
    if std::net::TcpStream::connect(address).is_err() {
        return false;
    }
    let load = Load {
        broker: address.to_owned(),
        connections: 1,
        in_flight: 1,
        amount: Amount::Messages(1),
        warm_up: Duration::ZERO,
        rate: None,
        pid: None,
    };
    let messages = Messages { topic: "bench-first".into(), topics: 1, queues: QUEUES, size: 16, batch: 1 };
    topic::create(address, &messages.topic, QUEUES).is_ok()
        && send::run(&load, &messages).is_ok_and(|outcome| outcome.errors.is_empty())
}

/// A child that ends with its guard: SIGTERM first, as it has a store to close, then SIGKILL.
#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(kind: Kind, programs: &Programs, program: &Program, home: &Path, conf: &str) -> Result<Self> {
        let conf_path = home.join(format!("{}.conf", program.name));
        fs::write(&conf_path, conf)?;
        let log = home.join("stdout.log");
        let out = File::create(&log)?;
        let mut command = programs.command(kind, program, home)?;
        command.arg("-c").arg(&conf_path).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        super::interruption::started(child.id());
        Ok(Self { child, log })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let began = Instant::now();
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("a server does not serve ({ended:?}):\n{log}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        // It may have ended already; its exit status is collected below in any case.
        let _ = kill_process(pid, Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > STOP {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        super::interruption::ended(self.child.id());
    }
}

/// The first of `count` neighbouring ports that are free, and those after it.
fn free_ports(count: u16) -> Result<Vec<u16>> {
    let first = 12_000 + (std::process::id() % 8_000) as u16;
    let mut at = first;
    while at < first + 4_000 {
        let block: Vec<u16> = (at..at + count).collect();
        let taken = block.iter().rposition(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_err());
        match taken {
            None => return Ok(block),
            Some(taken) => at += taken as u16 + 1,
        }
    }
    bail!("no {count} free ports from {first} on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_side_by_side() {
        let ports = free_ports(5).unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[2])).unwrap();
        let others = free_ports(5).unwrap();
        assert!(ports.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert!(!others.contains(&ports[2]));
        drop(taken);
    }
}
