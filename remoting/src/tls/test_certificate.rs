//! A certificate of our own making, for servers that have none: encryption without identity.
//!
//! It is made anew at each start and never written anywhere.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use crate::tls::{TlsError, provider};

/// A self-signed certificate of `CN=localhost`, valid for that name and for 127.0.0.1.
pub(crate) fn make() -> Result<CertifiedKey, TlsError> {
    let generate = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "localhost");
        params.distinguished_name = name;
        Ok((params.self_signed(&key)?.der().clone(), key.serialize_der()))
    };
    let (certificate, key) =
        generate().map_err(|error| TlsError::SetUp(format!("no test certificate can be made: {error}")))?;
    CertifiedKey::from_der(vec![certificate], PrivatePkcs8KeyDer::from(key).into(), &provider())
        .map_err(|error| TlsError::SetUp(error.to_string()))
}
