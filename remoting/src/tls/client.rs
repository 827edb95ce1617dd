//! What turns a connection that we opened into a TLS connection.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::tls::reload::Reloaded;
use crate::tls::settings::{CLIENT_AUTH_SERVER, CLIENT_IDENTITY, CLIENT_TRUST_CERT_PATH};
use crate::tls::verifiers::{Servers, Trusted};
use crate::tls::{TlsError, TlsSettings, key_files, provider};

/// Which servers a client believes, and the certificate that it shows them.
#[derive(Debug)]
pub struct ClientTls {
    config: Arc<Reloaded<ClientConfig>>,
}

impl ClientTls {
    /// Reads what the settings name; `None` where our connections are plain.
    ///
    /// # Errors
    /// A file cannot be used, or a key is set without another that it needs.
    pub fn open(settings: &TlsSettings) -> Result<Option<Arc<Self>>, TlsError> {
        if !settings.client_enabled() {
            return Ok(None);
        }
        let files = [CLIENT_IDENTITY.cert_path, CLIENT_IDENTITY.key_path, CLIENT_TRUST_CERT_PATH];
        let config = Arc::new(Reloaded::new(settings, &files, config)?);
        if settings.flag(CLIENT_AUTH_SERVER, false) {
            tracing::info!("TLS is used for our own connections");
        } else {
            tracing::warn!(
                "TLS is used for our own connections, and any certificate of a server is accepted, for {CLIENT_AUTH_SERVER} is false"
            );
        }
        Ok(Some(Arc::new(Self { config })))
    }

    /// Does the handshake with `host:port`.
    pub(crate) async fn connect(&self, address: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = server_name(address)?;
        let handshake = TlsConnector::from(self.config.get()).connect(name, stream).await;
        handshake.map_err(|error| io::Error::new(error.kind(), format!("TLS handshake: {error}")))
    }

    /// Takes over certificates, keys and trusted certificates that change on disk, until `shutdown`.
    pub async fn keep_current(self: Arc<Self>, shutdown: CancellationToken) {
        Arc::clone(&self.config).keep_current(shutdown).await;
    }
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    let trusted = match settings.path(CLIENT_TRUST_CERT_PATH) {
        _ if !settings.flag(CLIENT_AUTH_SERVER, false) => None,
        Some(path) => Some(Trusted::load(CLIENT_TRUST_CERT_PATH, &path)?),
        None => {
            let (key, value) = (CLIENT_AUTH_SERVER, "true".to_owned());
            return Err(TlsError::Incomplete { key, value, needs: CLIENT_TRUST_CERT_PATH });
        }
    };
    let identity = key_files::identity(settings, CLIENT_IDENTITY)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::SetUp(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers::new(trusted)));
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    })
}

/// The host of `host:port`, a name or an address (IPv6 in brackets).
fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no name that TLS can ask for")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_understood() {
        for (address, host) in
            [("broker-0.demo:10911", "broker-0.demo"), ("127.0.0.1:1", "127.0.0.1"), ("[::1]:1", "::1")]
        {
            assert_eq!(server_name(address).unwrap().to_str(), host);
        }
        assert!(server_name("no name:1").is_err());
    }
}
