//! What turns an accepted connection into a TLS connection.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoClientAuth;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::tls::reload::Reloaded;
use crate::tls::settings::{
    SERVER_AUTH_CLIENT, SERVER_IDENTITY, SERVER_NEED_CLIENT_AUTH, SERVER_TRUST_CERT_PATH, TEST_MODE_ENABLE,
};
use crate::tls::verifiers::{Clients, Trusted};
use crate::tls::{ClientAuth, TlsError, TlsMode, TlsSettings, key_files, provider, test_certificate};

/// A server's certificate, and what it asks of clients.
#[derive(Debug)]
pub struct ServerTls {
    enforcing: bool,
    config: Arc<Reloaded<ServerConfig>>,
}

impl ServerTls {
    /// Reads what the settings name, and says in the log what TLS there is; `None` where
    /// `tls.server.mode` is `disabled`.
    ///
    /// # Errors
    /// A file cannot be used, or a key is set without another that it needs. Java logs that and
    /// goes on without TLS.
    pub fn open(settings: &TlsSettings) -> Result<Option<Arc<Self>>, TlsError> {
        let mode = settings.mode();
        if mode == TlsMode::Disabled {
            tracing::info!("Server is running in TLS disabled mode");
            return Ok(None);
        }
        let files = [SERVER_IDENTITY.cert_path, SERVER_IDENTITY.key_path, SERVER_TRUST_CERT_PATH];
        let config = Arc::new(Reloaded::new(settings, &files, config)?);
        tell(settings);
        Ok(Some(Arc::new(Self { enforcing: mode == TlsMode::Enforcing, config })))
    }

    /// Whether plain connections are refused.
    pub(crate) fn is_enforcing(&self) -> bool {
        self.enforcing
    }

    /// Does the handshake; how long it may take is the caller's affair.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config.get()).accept(stream).await
    }

    /// Takes over certificates, keys and trusted certificates that change on disk, until `shutdown`.
    pub async fn keep_current(self: Arc<Self>, shutdown: CancellationToken) {
        Arc::clone(&self.config).keep_current(shutdown).await;
    }
}

fn config(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let identity = match key_files::identity(settings, SERVER_IDENTITY)? {
        Some(identity) => identity,
        None if settings.flag(TEST_MODE_ENABLE, true) => test_certificate::make()?,
        None => {
            return Err(TlsError::Incomplete {
                key: TEST_MODE_ENABLE,
                value: "false".to_owned(),
                needs: "tls.server.certPath and tls.server.keyPath, or tls.server.mode=disabled",
            });
        }
    };
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::SetUp(error.to_string()))
        .and_then(|builder| Ok(builder.with_client_cert_verifier(clients(settings)?)))
        .map(|builder| builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
}

fn clients(settings: &TlsSettings) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let trusted = match settings.path(SERVER_TRUST_CERT_PATH) {
        _ if !settings.flag(SERVER_AUTH_CLIENT, false) => None,
        Some(path) => Some(Trusted::load(SERVER_TRUST_CERT_PATH, &path)?),
        None => {
            let (key, value) = (SERVER_AUTH_CLIENT, "true".to_owned());
            return Err(TlsError::Incomplete { key, value, needs: SERVER_TRUST_CERT_PATH });
        }
    };
    match settings.client_auth() {
        ClientAuth::None => Ok(Arc::new(NoClientAuth)),
        auth => Ok(Arc::new(Clients::new(trusted, auth == ClientAuth::Require)?)),
    }
}

fn tell(settings: &TlsSettings) {
    let mode = settings.mode().name();
    let certificate = settings.path(SERVER_IDENTITY.cert_path).map_or_else(
        || {
            let (cert, key) = (SERVER_IDENTITY.cert_path, SERVER_IDENTITY.key_path);
            format!("a test certificate that proves nothing to clients: {cert} and {key} are not set")
        },
        |path| format!("the certificate {}", path.display()),
    );
    tracing::info!("Server is running in TLS {mode} mode, with {certificate}");
    match (settings.flag(SERVER_AUTH_CLIENT, false), settings.client_auth()) {
        (true, ClientAuth::None) => tracing::warn!(
            "{SERVER_AUTH_CLIENT}=true has no effect: clients are not asked for a certificate while {SERVER_NEED_CLIENT_AUTH} is none"
        ),
        (false, ClientAuth::Optional | ClientAuth::Require) => {
            tracing::warn!("TLS: any certificate of a client is accepted, for {SERVER_AUTH_CLIENT} is false");
        }
        (true, _) | (false, ClientAuth::None) => {}
    }
}
