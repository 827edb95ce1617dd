//! A listening port that speaks the remoting protocol.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::peer::{Connection, ConnectionLimits, Service};

/// Where a server listens, and its bounds.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address to listen on; port 0 takes any free one.
    pub address: SocketAddr,
    /// Connections that may be open at once; more are closed as they come.
    pub connections_max: usize,
    /// Connections that the kernel may hold until they are accepted (`serverSocketBacklog`).
    pub backlog: i32,
    /// Of each connection.
    pub limits: ConnectionLimits,
}

impl ServerConfig {
    /// The defaults, on that address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connections_max: 65_536, backlog: 1024, limits: ConnectionLimits::default() }
    }
}

/// Lets this process open as many files, and so connections, as the system lets it ask for. The usual limit of 1,024 is for
/// programs that cannot handle more.
pub fn allow_all_connections() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, ?limit, "the limit of open files stays");
    }
}

/// A bound port that is not served yet.
pub struct Server {
    listener: TcpListener,
    config: ServerConfig,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the port. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn bind(config: ServerConfig) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(config.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&config.address.into())?;
        socket.listen(config.backlog)?;
        Ok(Self { listener: TcpListener::from_std(socket.into())?, config })
    }

    /// The address that was taken.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then lets the open connections write the answers that they owe.
    pub async fn run(self, service: Arc<dyn Service>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or the peer is gone already: neither is worth a busy loop.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if connections.len() >= self.config.connections_max {
                tracing::warn!(limit = self.config.connections_max, "connection refused: too many are open");
                continue;
            }
            match Connection::new(stream, &self.config.limits) {
                Ok(connection) => {
                    let service = Arc::clone(&service);
                    connections.spawn(connection.drive(service, self.config.limits, shutdown.clone()));
                }
                Err(error) => tracing::debug!(%error, "a connection ended before it was served"),
            }
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}
