//! A whole broker in this process, without name servers, on free ports of loopback.

#![allow(dead_code)] // each test program uses what it needs

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rocketmq_broker::config::{BrokerConfig, Environment};
use rocketmq_remoting::{Client, ClientConfig};
use tokio_util::sync::CancellationToken;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Running {
    pub(crate) address: String,
    pub(crate) ha_address: String,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    /// Its own directory, if it has one.
    dir: Option<tempfile::TempDir>,
}

impl Running {
    /// Starts one in a directory that goes with it.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = Self::start_in(dir.path(), settings).await;
        Self { dir: Some(dir), ..running }
    }

    /// Starts one on what lies in `dir`.
    pub(crate) async fn start_in(dir: &Path, settings: &[(&str, &str)]) -> Self {
        // Both are held until both are known, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, ha_port] = free.each_ref().map(|listener| listener.local_addr().unwrap().port().to_string());
        drop(free);
        let root = dir.to_string_lossy();
        let own = [
            ("brokerName", "b"),
            ("brokerIP1", "127.0.0.1"),
            ("bindAddress", "127.0.0.1"),
            ("mappedFileSizeCommitLog", "1048576"),
            ("mappedFileSizeConsumeQueue", "20000"),
            ("maxHashSlotNum", "100"),
            ("maxIndexNum", "400"),
            ("diskMaxUsedSpaceRatio", "95"),
            ("diskSpaceWarningLevelRatio", "100"),
            ("diskSpaceCleanForciblyRatio", "100"),
            ("listenPort", &port),
            ("haListenPort", &ha_port),
            ("storePathRootDir", &root),
        ];
        let entries: Vec<(String, String)> =
            own.iter().chain(settings).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (config, _) = BrokerConfig::load(None, &entries, &Environment::default()).unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(rocketmq_broker::run(config, shutdown.clone()));
        let [address, ha_address] = [port, ha_port].map(|port| format!("127.0.0.1:{port}"));
        let asking = Client::new(ClientConfig::default());
        let up = async {
            while asking.peer(&address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("the broker comes up");
        Self { address, ha_address, shutdown, task, dir: None }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}
