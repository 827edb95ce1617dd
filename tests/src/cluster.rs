//! Name servers and brokers under test, ours or Java's behind the same handle: a RocketMQ server is a kind, a configuration
//! file, a port and a directory, and can be killed and started again on what it left there.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    binaries, java,
    java::Version,
    ports,
    process::{Process, scratch_dir, wait_until},
    small_disk::{self, SmallDisk},
    wire::Wire,
};

const START: Duration = Duration::from_mins(2);
const STOP: Duration = Duration::from_mins(1);

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Ours,
    Java(Version),
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ours => f.write_str("ours"),
            Self::Java(version) => write!(f, "java-{version}"),
        }
    }
}

impl Kind {
    fn command(self, program: &str, main_class: &str, home: &std::path::Path, heap_mib: u32) -> Result<Command> {
        match self {
            Self::Ours => {
                let mut command = Command::new(binaries::binary(program)?);
                command.env("ROCKETMQ_HOME", home).env_remove("NAMESRV_ADDR").current_dir(home);
                Ok(command)
            }
            Self::Java(version) => java::server_command(version, main_class, home, heap_mib),
        }
    }

    /// Sets what Java takes as system properties and ours in its configuration file.
    fn set_properties(self, properties: &[(String, String)], command: &mut Command, conf: &Path) -> Result<()> {
        match self {
            Self::Ours => {
                let mut file = File::options().append(true).open(conf)?;
                properties.iter().try_for_each(|(key, value)| writeln!(file, "{key}={value}"))?;
            }
            Self::Java(_) => java::set_properties(command, properties),
        }
        Ok(())
    }
}

/// A name server on loopback.
#[derive(Debug)]
pub struct NameServer {
    kind: Kind,
    port: u16,
    dir: TempDir,
    properties: Vec<(String, String)>,
    process: Process,
}

impl NameServer {
    /// Starts one and waits until it listens.
    pub fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, Vec::new())
    }

    /// As [`start`](Self::start), with what Java takes as system properties.
    pub fn start_with(kind: Kind, properties: Vec<(String, String)>) -> Result<Self> {
        let dir = scratch_dir()?;
        let port = ports::free_port()?;
        let process = Self::launch(kind, port, &dir, &properties)?;
        Ok(Self { kind, port, dir, properties, process })
    }

    fn launch(kind: Kind, port: u16, dir: &TempDir, properties: &[(String, String)]) -> Result<Process> {
        let home = dir.path();
        let conf = home.join("namesrv.conf");
        let kv = home.join("kvConfig.json");
        std::fs::write(&conf, format!("listenPort={port}\nbindAddress=127.0.0.1\nkvConfigPath={}\n", kv.display()))?;
        let mut command = kind.command("mqnamesrv", "org.apache.rocketmq.namesrv.NamesrvStartup", home, 128)?;
        kind.set_properties(properties, &mut command, &conf)?;
        command.arg("-c").arg(&conf);
        let mut process = Process::spawn(&format!("{kind} name server"), command, &home.join("log"))?;
        process.wait_for_port(loopback(port), START)?;
        Ok(process)
    }

    /// Stops it with SIGTERM and starts it again at the same address, with nothing in its memory.
    pub fn restart(&mut self) -> Result<()> {
        self.process.terminate(STOP)?;
        self.process = Self::launch(self.kind, self.port, &self.dir, &self.properties)?;
        Ok(())
    }

    /// `host:port`, as clients are told.
    pub fn addr(&self) -> String {
        loopback(self.port).to_string()
    }

    /// The socket address.
    pub fn socket(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// The process behind it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until the route of `broker` with `id` and address `addr` is known here.
    pub fn wait_registered(&self, broker: &Broker) -> Result<()> {
        let (address, name) = (format!("\"{}\"", broker.addr()), format!("\"{}\"", broker.name));
        self.wait_cluster_info(|info| info.contains(&address) && info.contains(&name)).with_context(|| {
            format!("broker {} at {} does not register with {}", broker.name, broker.addr(), self.addr())
        })
    }

    /// Waits until nothing is known of the address of `broker` any more.
    pub fn wait_unregistered(&self, broker: &Broker) -> Result<()> {
        let address = format!("\"{}\"", broker.addr());
        self.wait_cluster_info(|info| !info.contains(&address))
            .with_context(|| format!("broker {} stays registered with {}", broker.addr(), self.addr()))
    }

    fn wait_cluster_info(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let mut wire = Wire::connect(self.socket(), Duration::from_secs(10))?;
        wait_until(START, || {
            let response = wire.call(106, &[], &[])?;
            Ok(response.code == 0 && wanted(&String::from_utf8_lossy(&response.body)))
        })
    }
}

/// How a broker is to be started.
#[derive(Debug)]
pub struct BrokerBuilder {
    kind: Kind,
    name: String,
    keys: BTreeMap<String, String>,
    properties: Vec<(String, String)>,
    dir: Option<TempDir>,
    namespace: Option<u32>,
}

impl BrokerBuilder {
    /// `brokerId`: 0 for a master. A slave also gets its role.
    #[must_use]
    pub fn id(self, id: u64) -> Self {
        let role = if id == 0 { "ASYNC_MASTER" } else { "SLAVE" };
        self.set("brokerId", id).set("brokerRole", role)
    }

    /// Sets a key of broker.conf.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.keys.insert(key.to_owned(), value.to_string());
        self
    }

    /// Sets what Java takes as system properties.
    #[must_use]
    pub fn properties(mut self, properties: Vec<(String, String)>) -> Self {
        self.properties = properties;
        self
    }

    /// Uses what another broker left behind.
    #[must_use]
    pub fn data(mut self, dir: TempDir) -> Self {
        self.dir = Some(dir);
        self
    }

    /// Runs it in the mount namespace of that disk.
    #[must_use]
    pub fn on_disk(mut self, disk: &SmallDisk) -> Self {
        self.namespace = Some(disk.namespace());
        self
    }

    /// Starts it and waits until it listens (and not until it is registered).
    pub fn start(self) -> Result<Broker> {
        let dir = self.dir.map_or_else(scratch_dir, Ok)?;
        let port = ports::free_broker_port()?;
        let store = dir.path().join("store");
        std::fs::create_dir_all(&store)?;
        let mut keys = self.keys;
        for (key, value) in [
            ("brokerName", self.name.clone()),
            ("listenPort", port.to_string()),
            ("haListenPort", (port + 1).to_string()),
            ("storePathRootDir", store.display().to_string()),
            ("storePathCommitLog", store.join("commitlog").display().to_string()),
        ] {
            keys.insert(key.to_owned(), value);
        }
        let mut broker = Broker {
            kind: self.kind,
            name: self.name,
            keys,
            properties: self.properties,
            port,
            dir,
            namespace: self.namespace,
            process: None,
            starts: 0,
        };
        broker.start()?;
        Ok(broker)
    }
}

/// A broker on loopback. It may be down: killed or stopped, and not yet started again.
#[derive(Debug)]
pub struct Broker {
    kind: Kind,
    name: String,
    keys: BTreeMap<String, String>,
    properties: Vec<(String, String)>,
    port: u16,
    dir: TempDir,
    /// A process in whose mount namespace it runs.
    namespace: Option<u32>,
    process: Option<Process>,
    starts: u32,
}

impl Broker {
    /// A broker with the settings that every test wants: loopback, small files, quick timers.
    pub fn builder(kind: Kind, name: &str, namesrv: &str) -> BrokerBuilder {
        let keys = [
            ("brokerClusterName", "DefaultCluster"),
            ("brokerIP1", "127.0.0.1"),
            ("brokerIP2", "127.0.0.1"),
            ("bindAddress", "127.0.0.1"),
            ("namesrvAddr", namesrv),
            ("autoCreateTopicEnable", "true"),
            ("mappedFileSizeCommitLog", "67108864"),
            ("mapedFileSizeCommitLog", "67108864"),
            ("diskMaxUsedSpaceRatio", "95"),
            ("enablePropertyFilter", "true"),
            ("messageDelayLevel", "1s 2s 2s 2s 2s 3s 3s 3s 3s 3s 3s 3s 3s 3s 3s 3s 3s 3s"),
            ("transactionCheckInterval", "1000"),
            ("transactionTimeOut", "1000"),
            // A busy machine is no reason to refuse a request; these tests are not about that.
            ("brokerFastFailureEnable", "false"),
            ("osPageCacheBusyTimeOutMills", "10000"),
        ];
        let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        BrokerBuilder { kind, name: name.to_owned(), keys, properties: Vec::new(), dir: None, namespace: None }.id(0)
    }

    /// Starts it on its data after a kill or a stop.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        self.starts += 1;
        let home = self.dir.path();
        let conf = home.join("broker.conf");
        let mut text = String::new();
        for (key, value) in &self.keys {
            writeln!(text, "{key}={value}")?;
        }
        std::fs::write(&conf, text)?;
        let mut command = self.kind.command("mqbroker", "org.apache.rocketmq.broker.BrokerStartup", home, 512)?;
        self.kind.set_properties(&self.properties, &mut command, &conf)?;
        command.arg("-c").arg(&conf);
        if let Some(namespace) = self.namespace {
            command = small_disk::entered(namespace, &command);
        }
        let log = home.join(format!("log.{}", self.starts));
        let process =
            self.process.insert(Process::spawn(&format!("{} broker {}", self.kind, self.name), command, &log)?);
        process.wait_for_port(loopback(self.port), START)
    }

    /// Sets a key of broker.conf from the next start on.
    pub fn set(&mut self, key: &str, value: impl std::fmt::Display) {
        self.keys.insert(key.to_owned(), value.to_string());
    }

    /// SIGKILL.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("{} is down", self.name))?.kill()
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().with_context(|| format!("{} is down", self.name))?.terminate(STOP)
    }

    /// Stops it for good and gives away its data.
    pub fn into_data(mut self) -> Result<TempDir> {
        if self.process.is_some() {
            self.stop()?;
        }
        Ok(self.dir)
    }

    /// `host:port`, as it registers.
    pub fn addr(&self) -> String {
        self.socket().to_string()
    }

    /// The socket address.
    pub fn socket(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// Whose it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// brokerName.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its store, as it is seen from here.
    pub fn store(&self) -> PathBuf {
        let store = self.dir.path().join("store");
        self.namespace.map_or(store.clone(), |namespace| small_disk::outside(namespace, &store))
    }

    /// The process behind it.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is down", self.name))
    }
}

/// A name server and some masters of one kind.
#[derive(Debug)]
pub struct Cluster {
    pub brokers: Vec<Broker>,
    pub namesrv: NameServer,
}

impl Cluster {
    /// One name server and one master per name, registered.
    pub fn start(kind: Kind, names: &[&str]) -> Result<Self> {
        let namesrv = NameServer::start(kind)?;
        let mut brokers = Vec::new();
        for name in names {
            brokers.push(Broker::builder(kind, name, &namesrv.addr()).start()?);
        }
        for broker in &brokers {
            namesrv.wait_registered(broker)?;
        }
        Ok(Self { brokers, namesrv })
    }

    /// `host:port` of the name server.
    pub fn addr(&self) -> String {
        self.namesrv.addr()
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
