//! Certificates and private keys as PEM files.
//!
//! Every error names the key of the configuration, the file and what is accepted, and none of them
//! says anything of what stands in a private key.

use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use crate::tls::settings::{IdentityKeys, TlsSettings};
use crate::tls::{TlsError, provider};

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
/// Of the encrypted keys that are older than PKCS#8.
const OLD_ENCRYPTED: &str = "Proc-Type: 4,ENCRYPTED";

/// The certificate chain and private key of one side; `None` where neither is set.
pub(crate) fn identity(settings: &TlsSettings, keys: IdentityKeys) -> Result<Option<CertifiedKey>, TlsError> {
    let incomplete = |key, path: &Path, needs| TlsError::Incomplete { key, value: path.display().to_string(), needs };
    let (cert_path, key_path) = match (settings.path(keys.cert_path), settings.path(keys.key_path)) {
        (None, None) => return Ok(None),
        (Some(cert_path), Some(key_path)) => (cert_path, key_path),
        (Some(cert_path), None) => return Err(incomplete(keys.cert_path, &cert_path, keys.key_path)),
        (None, Some(key_path)) => return Err(incomplete(keys.key_path, &key_path, keys.cert_path)),
    };
    let chain = certificates(keys.cert_path, &cert_path)?;
    let key = private_key(keys, &key_path, settings.secret(keys.key_password))?;
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(certified) => Ok(Some(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let reason =
                format!("is not the private key of the certificate {}={}", keys.cert_path, cert_path.display());
            Err(TlsError::File { key: keys.key_path, path: key_path, reason })
        }
        Err(rustls::Error::InvalidCertificate(error)) => {
            let reason = format!("the first certificate cannot be used: {error}; accepted is X.509 version 3");
            Err(TlsError::File { key: keys.cert_path, path: cert_path, reason })
        }
        Err(_) => {
            let reason = "holds no private key that can be used; accepted are RSA, ECDSA P-256 or P-384, and Ed25519";
            Err(TlsError::File { key: keys.key_path, path: key_path, reason: reason.to_owned() })
        }
    }
}

/// All certificates of a PEM file, at least one.
pub(crate) fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File { key, path: path.to_owned(), reason };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(key, path)?).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(wrong("holds no certificate; accepted is PEM with `BEGIN CERTIFICATE`".to_owned()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(format!("is not PEM: {error}"))),
    }
}

fn private_key(keys: IdentityKeys, path: &Path, password: Option<&str>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wrong = |reason: String| TlsError::File { key: keys.key_path, path: path.to_owned(), reason };
    let text = String::from_utf8(read(keys.key_path, path)?).map_err(|_| wrong("is not PEM: not text".to_owned()))?;
    if text.contains(OLD_ENCRYPTED) {
        return Err(wrong(
            "is encrypted in OpenSSL's old form; accepted is PKCS#8, which `openssl pkcs8 -topk8` makes of it"
                .to_owned(),
        ));
    }
    if text.contains(ENCRYPTED) {
        let password = password.ok_or_else(|| wrong(format!("is encrypted, and {} is not set", keys.key_password)))?;
        // Under the name of a plain key the PEM reader takes it.
        let encrypted = PrivatePkcs8KeyDer::from_pem_slice(text.replace(ENCRYPTED, "PRIVATE KEY").as_bytes())
            .map_err(|error| wrong(format!("is not PEM: {error}")))?;
        let info = EncryptedPrivateKeyInfoRef::try_from(encrypted.secret_pkcs8_der())
            .map_err(|_| wrong("is encrypted in a way that is not known; accepted is PKCS#8 with PBES2".to_owned()))?;
        let plain = info.decrypt(password).map_err(|_| {
            wrong(format!(
                "cannot be decrypted with {}; accepted is PKCS#8 with PBES2 (AES or 3DES)",
                keys.key_password
            ))
        })?;
        return Ok(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into());
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| wrong("holds no private key; accepted is PEM with PKCS#8, PKCS#1 (RSA) or SEC1 (EC)".to_owned()))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::File {
        key,
        path: path.to_owned(),
        reason: format!("cannot be read: {error}; accepted is a PEM file"),
    })
}
