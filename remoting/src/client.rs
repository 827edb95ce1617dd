//! Requests to peers by address, over one connection each that is opened when needed and again
//! after it broke.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::command::Command;
use crate::error::RemotingError;
use crate::peer::{Answer, Connection, ConnectionLimits, Peer, Service, Stream};
use crate::response_code::ResponseCode;
use crate::tls::ClientTls;

/// Bounds of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How long the name may take to resolve and the connection to open, a TLS handshake
    /// included (`connectTimeoutMillis`).
    pub connect_timeout: Duration,
    /// Of each connection.
    pub limits: ConnectionLimits,
    /// How TLS connections are opened; where there is none, all are plain.
    pub tls: Option<Arc<ClientTls>>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(3), limits: ConnectionLimits::default(), tls: None }
    }
}

/// Answers what peers ask over connections that we opened: nothing is supported.
struct NoService;

impl Service for NoService {
    fn call(&self, _: &Arc<Peer>, request: Command) -> Answer {
        Answer::Now(unsupported(&request))
    }
}

/// The answer to a request code that nobody here knows; the leading blank is Java's.
pub fn unsupported(request: &Command) -> Command {
    let remark = format!(" request type {} not supported", request.code);
    Command::refusal(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark)
}

/// The connection to one address; empty until it is first needed.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Peer>>>>;

/// Sends requests to any number of addresses. Dropping it closes its connections.
pub struct Client {
    config: ClientConfig,
    service: Arc<dyn Service>,
    slots: Mutex<HashMap<String, Slot>>,
    shutdown: CancellationToken,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new(ClientConfig::default())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Client {
    /// A client that answers no requests of its peers.
    pub fn new(config: ClientConfig) -> Self {
        Self::with_service(config, Arc::new(NoService))
    }

    /// A client whose peers may ask back.
    pub fn with_service(config: ClientConfig, service: Arc<dyn Service>) -> Self {
        Self { config, service, slots: Mutex::default(), shutdown: CancellationToken::new() }
    }

    /// Sends a request to `host:port` and waits for its answer, at most `timeout` in all.
    ///
    /// # Errors
    /// No connection, or no answer in time.
    pub async fn invoke(&self, address: &str, command: Command, timeout: Duration) -> Result<Command, RemotingError> {
        let exchange = async { self.peer(address).await?.request(command, timeout).await };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(RemotingError::Timeout { address: address.to_owned(), timeout }),
        }
    }

    /// Sends a request to `host:port` that wants no answer.
    ///
    /// # Errors
    /// No connection, or too many commands wait to be sent on it.
    pub async fn oneway(&self, address: &str, command: Command) -> Result<(), RemotingError> {
        self.peer(address).await?.oneway(command)
    }

    /// The open connection to `host:port`, opened now where there is none.
    ///
    /// # Errors
    /// The name does not resolve, or none of its addresses answers.
    pub async fn peer(&self, address: &str) -> Result<Arc<Peer>, RemotingError> {
        let slot = Arc::clone(self.slots.lock().entry(address.to_owned()).or_default());
        let mut open = slot.lock().await;
        if let Some(peer) = open.as_ref().filter(|peer| !peer.is_closed()) {
            return Ok(Arc::clone(peer));
        }
        let failed = |reason| RemotingError::Connect { address: address.to_owned(), reason };
        // A name is resolved anew for each connection, and each of its addresses is tried.
        let stream = tokio::time::timeout(self.config.connect_timeout, self.connect(address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        let connection = Connection::new(stream, &self.config.limits).map_err(failed)?;
        let peer = Arc::clone(&connection.peer);
        tokio::spawn(connection.drive(
            Arc::clone(&self.service),
            self.config.limits,
            Arc::default(),
            self.shutdown.child_token(),
        ));
        *open = Some(Arc::clone(&peer));
        Ok(peer)
    }

    async fn connect(&self, address: &str) -> io::Result<Stream> {
        let stream = TcpStream::connect(address).await?;
        Ok(match &self.config.tls {
            None => Stream::Plain(stream),
            Some(tls) => Stream::Tls(Box::new(tls.connect(address, stream).await?.into())),
        })
    }

    /// Closes the connection to an address that is not needed any more.
    pub async fn forget(&self, address: &str) {
        let slot = self.slots.lock().remove(address);
        if let Some(slot) = slot
            && let Some(peer) = slot.lock().await.take()
        {
            peer.close();
        }
    }
}
