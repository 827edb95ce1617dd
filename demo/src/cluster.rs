//! The cluster under the demo: `rocketmq-operator local` on a copy of the manifest, which the demo
//! edits as a user would.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long the cluster may take to serve.
const START_MAX: Duration = Duration::from_mins(2);
/// And to stop.
const STOP_MAX: Duration = Duration::from_secs(90);

pub(crate) struct Cluster {
    manifest: PathBuf,
    supervisor: Child,
    /// `host:port[;host:port]`
    pub(crate) name_servers: String,
}

impl Cluster {
    /// Starts the cluster of `example`, with everything it keeps in the empty folder `dir`.
    pub(crate) async fn start(bin_dir: &Path, example: &Path, dir: &Path) -> anyhow::Result<Self> {
        let manifest = dir.join("cluster.yaml");
        std::fs::copy(example, &manifest).with_context(|| format!("copy {}", example.display()))?;
        let log = std::fs::File::create(dir.join("operator.log"))?;
        let mut supervisor = Command::new(bin_dir.join("rocketmq-operator"))
            .arg("local")
            .arg(&manifest)
            .arg("--data")
            .arg(dir.join("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start rocketmq-operator")?;
        let stdout = supervisor.stdout.take().context("its output is not to be had")?;
        let mut lines = BufReader::new(stdout).lines();
        let found = tokio::time::timeout(START_MAX, async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, addresses)) = line.split_once("NAMESRV_ADDR=") {
                    return Ok(addresses.trim().to_owned());
                }
            }
            bail!("it ended before the cluster served; see {}", dir.join("operator.log").display())
        });
        let name_servers = found.await.context("the cluster did not serve in time")??;
        // The rest of what it says is read, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { manifest, supervisor, name_servers })
    }

    /// Changes `replicas` in the manifest, which the operator watches.
    pub(crate) fn scale(&self, from: u32, to: u32) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(&self.manifest)?;
        let line = format!("replicas: {from}");
        ensure!(text.contains(&line), "{} does not say {line:?}", self.manifest.display());
        Ok(std::fs::write(&self.manifest, text.replacen(&line, &format!("replicas: {to}"), 1))?)
    }

    /// Stops it as Ctrl-C does.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid =
            self.supervisor.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)).context("it ended early")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let status =
            tokio::time::timeout(STOP_MAX, self.supervisor.wait()).await.context("it did not stop in time")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}
