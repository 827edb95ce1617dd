//! RocketMQ's name server: brokers tell it what they serve, clients ask it where a topic lives.
//!
//! * [`config`]: the keys of `namesrv.conf`;
//! * [`route_table`]: brokers, clusters and topics, and which broker is alive; pure;
//! * [`kv_config`]: the key-value settings, the only state that outlives the process;
//! * `http`: health and metrics;
//! * `requests` and `handlers`: the request codes, one file a family, joined by one router.
//!
//! Name servers do not know each other: each broker registers with all of them. Nothing here
//! reads or writes messages.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rocketmq_remoting::tls::{ServerTls, TlsEnvironment};
use rocketmq_remoting::{Rejections, Server, ServerConfig};
use tokio_util::sync::CancellationToken;

pub mod config;
mod handlers;
mod http;
#[cfg(test)]
mod instructions;
pub mod kv_config;
mod request_support;
mod requests;
pub mod route_table;

pub use config::NamesrvConfig;
pub use request_support::SUPPORT;

use crate::kv_config::KvConfig;
use crate::requests::{Requests, Router};

/// Runs a name server until `shutdown`.
///
/// # Errors
/// The port cannot be taken, a certificate cannot be used, or the stored key-value settings cannot be read.
pub async fn run(config: NamesrvConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    NameServer::bind(config, &TlsEnvironment::of_process())?.serve(shutdown).await;
    Ok(())
}

/// A name server that has taken its port and does not serve yet.
#[derive(Debug)]
pub struct NameServer {
    server: Server,
    address: SocketAddr,
    scan_interval: Duration,
    requests: Arc<Requests>,
    tls: Option<Arc<ServerTls>>,
    http: Option<TcpListener>,
    rejections: Arc<Rejections>,
}

impl NameServer {
    /// Loads the key-value settings and takes the port (`bindAddress:listenPort`; port 0 takes any
    /// free one). Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The port cannot be taken, the settings cannot be read, or a certificate cannot be used.
    pub fn bind(config: NamesrvConfig, environment: &TlsEnvironment) -> anyhow::Result<Self> {
        let (tls, warnings) = config.tls.clone().complete(environment)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let tls = ServerTls::open(&tls)?;
        let kv_config = KvConfig::load(&config.kv_config_path)?;
        let address = SocketAddr::new(config.bind_address, config.listen_port);
        let mut server = ServerConfig::new(address);
        server.backlog = i32::try_from(config.server_socket_backlog).unwrap_or(i32::MAX);
        server.limits.idle = config.idle();
        server.limits.in_flight = config.server_connection_requests_max.get();
        server.connections_max = config.server_connections_max.get();
        let rejections = Arc::clone(&server.rejections);
        server.tls.clone_from(&tls);
        let server = Server::bind(server).with_context(|| format!("listen on {address}"))?;
        let address = server.local_addr()?;
        let http = http::bind(&config)?;
        let scan_interval = Duration::from_millis(config.scan_not_active_broker_interval.get());
        let requests = Arc::new(Requests::new(config, kv_config));
        Ok(Self { server, address, scan_interval, requests, tls, http, rejections })
    }

    /// The address that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`.
    pub async fn serve(self, shutdown: CancellationToken) {
        let scan = scan(Arc::clone(&self.requests), self.scan_interval);
        if let Some(tls) = self.tls {
            tokio::spawn(tls.keep_current(shutdown.clone()));
        }
        tracing::info!("listening on {}", self.address);
        // The line that scripts wait for, on stdout whatever the log goes to.
        // Nobody may be reading it, which is no reason to stop.
        let _ = writeln!(io::stdout(), "The Name Server boot success. serializeType=JSON");
        tokio::select! {
            () = self.server.run(Arc::new(Router(self.requests)), shutdown) => {}
            () = scan => {}
            () = http::serve(self.http, self.rejections) => {}
        }
        tracing::info!("the name server has stopped");
    }
}

/// Removes the brokers that have fallen silent, for ever.
async fn scan(requests: Arc<Requests>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        requests.expire(Instant::now());
    }
}
