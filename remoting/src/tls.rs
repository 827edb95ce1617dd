//! TLS on the port that plain connections use too: a connection's first byte decides.
//!
//! * [`settings`]: the `tls.*` keys, and where they come from;
//! * `server` and `client`: what accepts and what opens a TLS connection;
//! * `key_files`: certificates and private keys as PEM files, and `test_certificate` where there are none;
//! * `verifiers`: whose certificate is accepted; `reload`: files that change under a running process.
//!
//! Nothing here may log a private key or a password. The rules are those of RocketMQ's
//! `TlsSystemConfig`, `TlsHelper` and `NettyRemotingServer.TlsModeHandler` (4.9.7, 5.x), but for
//! three: what cannot be used stops the start instead of being logged; a certificate that is set is
//! used, also while `tls.test.mode.enable` is true; and each change of a file is taken over, also
//! where only one of certificate and key has changed.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

mod client;
mod key_files;
mod reload;
mod server;
pub mod settings;
mod test_certificate;
mod verifiers;

pub use client::ClientTls;
pub use server::ServerTls;
pub use settings::{ClientAuth, TlsEnvironment, TlsMode, TlsSettings};

/// The first byte of a TLS connection, a handshake record; no frame begins with it, for it would
/// announce more than 350 MB.
pub const HANDSHAKE: u8 = 0x16;

/// Settings or files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No key of that name is known.
    #[error("{0} is not a key of TLS")]
    UnknownKey(String),
    /// A value is not of its key's kind.
    #[error("{key}={value} is not accepted: {accepted} is")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// A key needs another one.
    #[error("{key}={value} needs {needs}")]
    Incomplete {
        /// The key that is set.
        key: &'static str,
        /// Its value.
        value: String,
        /// What has to be set beside it.
        needs: &'static str,
    },
    /// A file that a key names cannot be used.
    #[error("{key}={}: {reason}", path.display())]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what is accepted.
        reason: String,
    },
    /// Certificate, key and trusted certificates do not work together.
    #[error("TLS cannot be set up: {0}")]
    SetUp(String),
}

/// The cryptography that both sides use.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
