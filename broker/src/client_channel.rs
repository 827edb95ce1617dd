//! A client on one of its connections: what producers' and consumers' tables have in common.
//!
//! Owns copies of everything, for a request's fields share the memory of a read buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rocketmq_remoting::bodies::Connection;
use rocketmq_remoting::{Command, Language, Peer};

/// A client that is silent for longer than this is taken for dead, in milliseconds
/// (`CHANNEL_EXPIRED_TIMEOUT` of RocketMQ 4.9's managers).
pub(crate) const SILENCE_MAX_MS: i64 = 120_000;

/// Who speaks on a connection (`ClientChannelInfo` in Java). A connection is the identity: client
/// ids may repeat.
#[derive(Debug)]
pub(crate) struct ClientChannel {
    /// The connection.
    pub(crate) peer: Arc<Peer>,
    /// The client's own name.
    pub(crate) client_id: Box<str>,
    /// As its last new registration said.
    pub(crate) language: Language,
    /// An ordinal of `MQVersion`.
    pub(crate) version: i32,
    heard_ms: AtomicI64,
}

impl ClientChannel {
    /// The client that sent `request` over `peer` at `now_ms`.
    pub(crate) fn new(peer: &Arc<Peer>, client_id: &str, request: &Command, now_ms: i64) -> Self {
        Self {
            peer: Arc::clone(peer),
            client_id: client_id.into(),
            language: request.language,
            version: request.version,
            heard_ms: AtomicI64::new(now_ms),
        }
    }

    /// Milliseconds since 1970 of its last heartbeat.
    pub(crate) fn heard_ms(&self) -> i64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    /// Notes a heartbeat.
    pub(crate) fn heard_at(&self, now_ms: i64) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether it said nothing for longer than [`SILENCE_MAX_MS`].
    pub(crate) fn is_silent(&self, now_ms: i64) -> bool {
        now_ms - self.heard_ms() > SILENCE_MAX_MS
    }

    /// The form in which tools ask for it.
    pub(crate) fn connection(&self) -> Connection {
        Connection {
            client_addr: self.peer.remote().to_string(),
            client_id: self.client_id.to_string(),
            language: self.language.name().to_owned(),
            version: self.version,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Real connections on loopback, for a [`Peer`] cannot be had without one.

    use std::sync::Arc;

    use parking_lot::Mutex;
    use rocketmq_remoting::{Answer, Client, ClientConfig, Command, Peer, Server, ServerConfig, Service};
    use tokio_util::sync::CancellationToken;

    /// Keeps what a side received.
    #[derive(Default)]
    pub(crate) struct Inbox(pub(crate) Mutex<Vec<Command>>, pub(crate) Mutex<Vec<Arc<Peer>>>);

    impl Service for Inbox {
        fn call(&self, peer: &Arc<Peer>, request: Command) -> Answer {
            self.0.lock().push(request);
            self.1.lock().push(Arc::clone(peer));
            Answer::Now(Command::ok())
        }
    }

    /// A broker's port with clients connected to it.
    pub(crate) struct Harness {
        address: String,
        server: Arc<Inbox>,
        shutdown: CancellationToken,
    }

    /// One connection, seen from both ends.
    pub(crate) struct Connected {
        /// The broker's end.
        pub(crate) peer: Arc<Peer>,
        /// What the client was asked.
        pub(crate) inbox: Arc<Inbox>,
        _client: Client,
    }

    impl Harness {
        pub(crate) fn start() -> Self {
            let server = Server::bind(ServerConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
            let address = server.local_addr().unwrap().to_string();
            let inbox = Arc::new(Inbox::default());
            let shutdown = CancellationToken::new();
            tokio::spawn(server.run(Arc::clone(&inbox) as Arc<dyn Service>, shutdown.clone()));
            Self { address, server: inbox, shutdown }
        }

        pub(crate) async fn connect(&self) -> Connected {
            let inbox = Arc::new(Inbox::default());
            let client = Client::with_service(ClientConfig::default(), Arc::clone(&inbox) as Arc<dyn Service>);
            client.invoke(&self.address, Command::default(), std::time::Duration::from_secs(5)).await.unwrap();
            let peer = self.server.1.lock().pop().unwrap();
            Connected { peer, inbox, _client: client }
        }
    }

    impl Drop for Harness {
        fn drop(&mut self) {
            self.shutdown.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_is_silent_after_two_minutes_without_a_heartbeat() {
        let harness = testing::Harness::start();
        let connected = harness.connect().await;
        let channel = ClientChannel::new(&connected.peer, "c", &Command::default(), 1_000);
        assert!(!channel.is_silent(121_000));
        assert!(channel.is_silent(121_001));
        channel.heard_at(2_000);
        assert!(!channel.is_silent(121_001));
    }
}
