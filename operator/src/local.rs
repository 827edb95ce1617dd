//! Runs a cluster as processes on this machine, from the same manifest and by the same plan as on Kubernetes.
//!
//! Every planned pod is one process of `mqnamesrv` or `mqbroker`, with its own folder, its own ports, and 127.0.0.1 as
//! its address. The loop below is the controller's: look, plan, act, publish; the supervisor is the kubelet.

pub mod child;
mod data_dir;
mod pod;
mod ports;
mod probe;
mod supervisor;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use crate::broker_admin::BrokerAdmin;
use crate::build::broker::{self, Role};
use crate::build::{Object, broker_config};
use crate::crd::RocketMQCluster;
use crate::plan::{self, Action, Observed, Plan};
use crate::validate::{Defaults, ValidatedCluster};
use crate::{manifest, observe};
use data_dir::DataDir;
use pod::{Pod, Program};
use ports::{Kind, PortTable, Ports};
use supervisor::{Spec, Supervised};

/// Log files are allocated whole, two ahead for each broker, and 1 GiB each is a server's measure. The manifest's own
/// `config` comes behind this and wins.
const SMALL_FILES: &str = "mappedFileSizeCommitLog=67108864\n";
/// Between two looks at a cluster that is complete.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two looks at one that is not.
const WAITING: Duration = Duration::from_millis(100);
/// How long processes of an earlier run may take to end.
const LEFTOVER_GRACE: Duration = Duration::from_mins(1);

/// What shall run where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The manifest.
    pub file: PathBuf,
    /// Folder of the cluster; by default below `.local`, by the cluster's name.
    pub data: Option<PathBuf>,
    /// Folder of the programs.
    pub bin_dir: PathBuf,
    /// This program, for the step in between that binds children to it.
    pub launcher: PathBuf,
}

impl Options {
    /// Fills in where this program lies.
    pub fn new(file: PathBuf, data: Option<PathBuf>, bin_dir: Option<PathBuf>) -> Result<Self> {
        let launcher = std::env::current_exe().context("cannot tell where this program lies")?;
        let bin_dir = match (bin_dir, launcher.parent()) {
            (Some(folder), _) => folder,
            (None, Some(folder)) => folder.to_owned(),
            (None, None) => bail!("cannot tell in which folder this program lies"),
        };
        // Children run in folders of their own.
        let bin_dir = bin_dir.canonicalize().with_context(|| format!("cannot find {}", bin_dir.display()))?;
        Ok(Self { file, data, bin_dir, launcher })
    }
}

/// Runs the cluster until the process is told to end by SIGINT, SIGTERM or SIGHUP, and then ends all of it in order.
pub async fn run(options: &Options) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut local = Local::open(options).await?;
    loop {
        let pause = local.pass().await?;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => break,
        }
    }
    tracing::info!("stopping");
    local.stop().await;
    Ok(())
}

/// The manifest as it was read last.
struct Manifest {
    file: PathBuf,
    /// When the file was changed and how long it is; another pair means it is read again.
    mark: Option<(SystemTime, u64)>,
    cluster: RocketMQCluster,
    valid: ValidatedCluster,
}

impl Manifest {
    fn read(file: &Path) -> Result<Self> {
        let mark = mark(file);
        let cluster = manifest::read(file)?;
        let mut valid = ValidatedCluster::new(&cluster, &Defaults::default())?;
        if valid.tls.take().is_some() {
            tracing::warn!("spec.tls is left out: its Secret is Kubernetes'");
        }
        Ok(Self { file: file.to_owned(), mark, cluster, valid })
    }

    /// Reads the file again if it has changed. One that cannot be used changes nothing.
    fn follow(&mut self) {
        let mark = mark(&self.file);
        if mark == self.mark || mark.is_none() {
            return;
        }
        // Whatever comes of it, it is said once.
        self.mark = mark;
        let changed =
            Self::read(&self.file).and_then(|new| manifest::check_change(&new.cluster, &self.cluster).map(|()| new));
        match changed {
            Ok(new) => {
                tracing::info!("{} has changed", self.file.display());
                *self = new;
            }
            Err(fault) => tracing::error!("the change is not followed: {fault:#}"),
        }
    }
}

fn mark(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

struct Running {
    supervised: Supervised,
    program: Program,
    is_slave: bool,
    ports: Ports,
    /// What it was started with: arguments and configuration.
    started_with: String,
    leaving: bool,
    /// What it kept goes with it.
    discard: bool,
}

struct Local {
    manifest: Manifest,
    data: DataDir,
    ports: PortTable,
    admin: BrokerAdmin,
    bin_dir: PathBuf,
    launcher: PathBuf,
    running: BTreeMap<String, Running>,
    announced: String,
}

impl Local {
    async fn open(options: &Options) -> Result<Self> {
        let manifest = Manifest::read(&options.file)?;
        for program in [Program::NameServer, Program::Broker] {
            let path = options.bin_dir.join(program.file_name());
            if !path.is_file() {
                bail!("{} is missing; --bin-dir says where it lies", path.display());
            }
        }
        let default = || Path::new(".local").join(&manifest.valid.name);
        let data = DataDir::open(&options.data.clone().unwrap_or_else(default))?;
        data.end_leftovers(LEFTOVER_GRACE).await?;
        Ok(Self {
            ports: PortTable::open(data.join("ports.json"))?,
            manifest,
            data,
            admin: BrokerAdmin::of_environment()?,
            bin_dir: options.bin_dir.clone(),
            launcher: options.launcher.clone(),
            running: BTreeMap::new(),
            announced: String::new(),
        })
    }

    /// One pass; returns how long to wait for the next.
    async fn pass(&mut self) -> Result<Duration> {
        self.manifest.follow();
        let observed = self.observe().await;
        let mut plan = plan::plan(&self.manifest.valid, &observed);
        self.arrange(&plan, &observed.ready_pods)?;
        let mut faults = Vec::new();
        for action in &plan.actions {
            faults.extend(self.act(action).await.err());
        }
        plan::note_faults(&mut plan.status, &faults);
        self.data.write_status(&observed.status, &plan.status)?;
        let steady = self.running.values().all(|running| !running.leaving);
        if plan.settled && steady {
            self.announce();
            return Ok(SETTLED);
        }
        Ok(WAITING)
    }

    async fn observe(&self) -> Observed {
        let cluster = &self.manifest.valid;
        let sets = self.data.sets();
        let slaves = (1..=i32::from(u8::MAX))
            .map_while(|index| Some((index, *sets.get(&broker::set_name(cluster, Role::Slave(index)))?)))
            .collect();
        let probes = self.running.iter().map(|(name, running)| async move {
            let ready = !running.leaving
                && match running.program {
                    Program::NameServer => probe::tcp(running.ports.remoting).await,
                    Program::Broker => probe::http(running.ports.http, "/readyz").await,
                };
            ready.then(|| name.clone())
        });
        let mut observed = Observed {
            masters: sets.get(&broker::set_name(cluster, Role::Master)).copied(),
            slaves,
            ready_pods: join_all(probes).await.into_iter().flatten().collect(),
            status: self.data.status(),
            ..Observed::nothing(Timestamp::now())
        };
        observed.pods = self.running.keys().cloned().collect();
        let questions = plan::questions(cluster, &observed);
        let asked: BTreeSet<i32> = questions.tables.iter().chain(&questions.access).copied().collect();
        let masters = asked.into_iter().filter_map(|ordinal| Some((ordinal, self.master_address(ordinal)?))).collect();
        observe::ask(&self.admin, cluster, &mut observed, &masters).await;
        observed
    }

    fn master_address(&self, ordinal: i32) -> Option<String> {
        let name = broker::pod_name(&self.manifest.valid, Role::Master, ordinal);
        self.running.get(&name).map(|running| address(running.ports))
    }

    /// Makes the processes be those of the plan.
    fn arrange(&mut self, plan: &Plan, ready: &BTreeSet<String>) -> Result<()> {
        for (name, running) in std::mem::take(&mut self.running) {
            if !running.supervised.has_stopped() {
                self.running.insert(name, running);
            } else if running.discard {
                self.data.discard(&name)?;
            }
        }
        let mut wanted: Vec<Pod> = Vec::new();
        let mut sets = BTreeMap::new();
        let mut discards = false;
        let mut config = String::new();
        for object in &plan.objects {
            match object {
                Object::StatefulSet(set) => {
                    let name = set.metadata.name.clone().unwrap_or_default();
                    sets.insert(name, set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1));
                    discards |= pod::discards(set);
                    wanted.extend(pod::pods(set));
                }
                Object::ConfigMap(map) => {
                    let file = map.data.as_ref().and_then(|data| data.get(broker_config::FILE));
                    config = file.map(|text| format!("{SMALL_FILES}{text}")).unwrap_or_default();
                }
                Object::Service(_) | Object::PodDisruptionBudget(_) => {}
            }
        }
        self.data.write_sets(&sets)?;
        let names: BTreeSet<String> = wanted.iter().map(|pod| pod.name.clone()).collect();
        for (name, running) in &mut self.running {
            if !names.contains(name) && !running.leaving {
                tracing::info!(pod = name, "is not wanted any more");
                running.leave();
                running.discard = discards && running.program == Program::Broker;
            }
        }
        let config_file = self.data.join(broker_config::FILE);
        if std::fs::read(&config_file).ok().as_deref() != Some(config.as_bytes()) {
            data_dir::write_whole(&config_file, config.as_bytes())?;
        }
        let mut ports = BTreeMap::new();
        for pod in &wanted {
            ports.insert(pod.name.clone(), self.ports.of(&pod.name, kind(pod.program))?);
        }
        let name_servers: Vec<String> = wanted
            .iter()
            .filter(|pod| pod.program == Program::NameServer)
            .filter_map(|pod| Some(address(*ports.get(&pod.name)?)))
            .collect();
        let name_servers = name_servers.join(";");
        let all_ready = names.iter().all(|name| ready.contains(name));
        // Slaves before masters: a group is without its master for as short as can be.
        wanted.sort_by_key(|pod| (pod.program, !pod.is_slave, pod.ordinal));
        let mut restarting = !all_ready;
        for pod in &wanted {
            let Some(ports) = ports.remove(&pod.name) else { continue };
            let args = self.args(pod, ports, &name_servers);
            let started_with = format!("{args:?}\n{}", if pod.program == Program::Broker { &config } else { "" });
            match self.running.get_mut(&pod.name) {
                None => {
                    let supervised = Supervised::start(self.spec(pod, args)?);
                    let Pod { program, is_slave, .. } = *pod;
                    let running =
                        Running { supervised, program, is_slave, ports, started_with, leaving: false, discard: false };
                    self.running.insert(pod.name.clone(), running);
                }
                Some(running)
                    if !running.leaving
                        && running.started_with != started_with
                        // One that does not work anyway need not wait for others.
                        && (!restarting || !ready.contains(&pod.name)) =>
                {
                    tracing::info!(pod = pod.name, "is restarted, for its configuration has changed");
                    running.leave();
                    restarting = true;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn args(&self, pod: &Pod, ports: Ports, name_servers: &str) -> Vec<String> {
        let folder = self.data.join(&pod.name);
        let text = |path: PathBuf| path.display().to_string();
        let port = |number: u16| number.to_string();
        let settings = match pod.program {
            Program::NameServer => {
                vec![("listenPort", port(ports.remoting)), ("kvConfigPath", text(folder.join("kvConfig.json")))]
            }
            Program::Broker => vec![
                ("brokerIP1", "127.0.0.1".to_owned()),
                ("brokerIP2", "127.0.0.1".to_owned()),
                ("listenPort", port(ports.remoting)),
                ("haListenPort", port(ports.ha)),
                ("httpPort", port(ports.http)),
                ("storePathRootDir", text(folder.join("store"))),
            ],
        };
        let options = [("-c", text(self.data.join(broker_config::FILE))), ("-n", name_servers.to_owned())];
        pod::with_values(&pod.args, &settings, &options)
    }

    fn spec(&self, pod: &Pod, args: Vec<String>) -> Result<Spec> {
        let mut command: Vec<OsString> = vec![self.launcher.clone().into()];
        let parent = std::process::id().to_string();
        command.extend(["child", "--parent", &parent, "--"].map(OsString::from));
        command.push(self.bin_dir.join(pod.program.file_name()).into());
        command.extend(args.into_iter().map(OsString::from));
        Ok(Spec {
            name: pod.name.clone(),
            command,
            folder: self.data.pod(&pod.name)?,
            grace: Duration::from_secs(pod.grace_seconds),
        })
    }

    async fn act(&self, action: &Action) -> Result<(), String> {
        let (Action::CopyTopics { to: of, .. } | Action::SetAccess { of, .. }) = action;
        let group = broker::group_name(*of);
        let address = self.master_address(*of).ok_or_else(|| format!("{group} does not run"))?;
        let result = match action {
            Action::CopyTopics { missing, .. } => {
                let count = missing.topics.len() + missing.groups.len();
                tracing::info!(group, count, "creating topics and consumer groups");
                self.admin.create(&address, missing).await
            }
            Action::SetAccess { access, .. } => {
                tracing::info!(group, ?access, "telling which messages to take");
                self.admin.set_access(&address, *access).await
            }
        };
        result.map_err(|fault| format!("{group}: {fault}"))
    }

    /// Says where clients find the cluster, each time that has changed.
    fn announce(&mut self) {
        let name_servers: Vec<String> = self
            .running
            .values()
            .filter(|running| running.program == Program::NameServer)
            .map(|running| address(running.ports))
            .collect();
        let name_servers = name_servers.join(";");
        if name_servers != self.announced {
            // Whoever waits for the line may have gone; the cluster runs on.
            let mut output = std::io::stdout().lock();
            let name = &self.manifest.valid.name;
            let _ = writeln!(output, "{name} is ready, NAMESRV_ADDR={name_servers}");
            let _ = output.flush();
            self.announced = name_servers;
        }
    }

    /// Ends everything: masters, then slaves, which get the rest of the log until then, then name servers.
    async fn stop(mut self) {
        let turn = |running: &Running| match (running.program, running.is_slave) {
            (Program::Broker, false) => 0,
            (Program::Broker, true) => 1,
            (Program::NameServer, _) => 2,
        };
        for current in 0..3 {
            let (now, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.running).into_iter().partition(|(_, running)| turn(running) == current);
            self.running = later.into_iter().collect();
            join_all(now.into_iter().map(|(_, running)| running.supervised.stop())).await;
        }
    }
}

impl Running {
    fn leave(&mut self) {
        self.leaving = true;
        self.supervised.begin_stop();
    }
}

fn kind(program: Program) -> Kind {
    match program {
        Program::NameServer => Kind::NameServer,
        Program::Broker => Kind::Broker,
    }
}

fn address(ports: Ports) -> String {
    format!("127.0.0.1:{}", ports.remoting)
}
