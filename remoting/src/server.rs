//! A listening port that speaks the remoting protocol.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::peer::{Connection, ConnectionLimits, Service, Stream};
use crate::rejections::{self, Rejections};
use crate::tls::{HANDSHAKE, ServerTls};

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
    /// How TLS connections are served; where there is none they are closed.
    pub tls: Option<Arc<ServerTls>>,
    /// Where it counts what it refuses.
    pub rejections: Arc<Rejections>,
}

impl ServerConfig {
    /// The defaults, on that address.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections_max: 65_536,
            backlog: 1024,
            limits: ConnectionLimits::default(),
            tls: None,
            rejections: Arc::default(),
        }
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
        let Self { listener, config } = self;
        let reception = Arc::new(Reception {
            limits: config.limits,
            tls: config.tls,
            rejections: config.rejections,
            service,
            shutdown,
        });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = reception.shutdown.cancelled() => break,
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
            if connections.len() >= config.connections_max {
                tracing::warn!(limit = config.connections_max, "connection refused: too many are open");
                rejections::count(&reception.rejections.connections);
                continue;
            }
            connections.spawn(serve(stream, Arc::clone(&reception)));
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

/// What all connections of a server have in common.
struct Reception {
    limits: ConnectionLimits,
    tls: Option<Arc<ServerTls>>,
    rejections: Arc<Rejections>,
    service: Arc<dyn Service>,
    shutdown: CancellationToken,
}

/// Serves one connection, whichever sort its first byte says it is.
async fn serve(stream: TcpStream, reception: Arc<Reception>) {
    let stream = tokio::select! {
        // Nobody is owed anything yet.
        () = reception.shutdown.cancelled() => return,
        stream = reception.open(stream) => stream,
    };
    let Some(stream) = stream else { return };
    match Connection::new(stream, &reception.limits) {
        Ok(connection) => {
            let Reception { limits, service, shutdown, rejections, .. } = &*reception;
            connection.drive(Arc::clone(service), *limits, Arc::clone(rejections), shutdown.clone()).await;
        }
        Err(error) => tracing::debug!(%error, "a connection ended before it was served"),
    }
}

impl Reception {
    /// Looks at the first byte and, where it begins a TLS handshake, does that. `None` where there
    /// is nothing to serve.
    async fn open(&self, stream: TcpStream) -> Option<Stream> {
        let remote = stream.peer_addr().ok()?;
        let mut first = [0];
        match timeout(self.limits.idle, stream.peek(&mut first)).await {
            // Health checks connect and say nothing.
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(_)) => {}
            Err(_) => {
                tracing::info!(peer = %remote, "idle connection closed");
                return None;
            }
        }
        match (&self.tls, first[0] == HANDSHAKE) {
            (Some(tls), false) if tls.is_enforcing() => {
                tracing::warn!(peer = %remote, "plain connection closed: the server is running in TLS enforcing mode");
                None
            }
            (_, false) => Some(Stream::Plain(stream)),
            (None, true) => {
                tracing::warn!(peer = %remote, "TLS connection closed: the server is running in TLS disabled mode");
                None
            }
            // In a box of its own, so that plain connections do not carry its size.
            (Some(tls), true) => match timeout(self.limits.handshake, Box::pin(tls.accept(stream))).await {
                Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream.into()))),
                Ok(Err(error)) => {
                    tracing::warn!(peer = %remote, "TLS handshake failed: {error}");
                    None
                }
                Err(_) => {
                    tracing::warn!(peer = %remote, "TLS handshake not finished within {:?}", self.limits.handshake);
                    None
                }
            },
        }
    }
}
