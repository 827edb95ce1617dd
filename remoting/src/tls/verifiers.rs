//! Whose certificate is accepted: anybody's, or those that a file of trusted certificates vouches for.
//!
//! That the other side has the private key of its certificate is checked in either case. As in
//! Java, a certificate need not name the host that was dialled: brokers are dialled by addresses that
//! change, and what counts is whom the cluster's own authority has given a certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::tls::{TlsError, key_files, provider};

/// The certificates of a trust file.
#[derive(Debug)]
pub(crate) struct Trusted {
    roots: Arc<RootCertStore>,
    /// The same as they stand in the file: a self-signed certificate there vouches for itself, which
    /// the rules of certificate authorities would not let it.
    themselves: Vec<CertificateDer<'static>>,
}

impl Trusted {
    pub(crate) fn load(key: &'static str, path: &Path) -> Result<Self, TlsError> {
        let themselves = key_files::certificates(key, path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &themselves {
            roots.add(certificate.clone()).map_err(|error| TlsError::File {
                key,
                path: path.to_owned(),
                reason: format!("a certificate cannot be used: {error}"),
            })?;
        }
        Ok(Self { roots: Arc::new(roots), themselves })
    }
}

/// Accepts servers: those that `trusted` vouches for, or all.
#[derive(Debug)]
pub(crate) struct Servers {
    trusted: Option<Trusted>,
    provider: Arc<CryptoProvider>,
}

impl Servers {
    pub(crate) fn new(trusted: Option<Trusted>) -> Self {
        Self { trusted, provider: provider() }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trusted) = &self.trusted
            && !trusted.themselves.iter().any(|known| known == end_entity)
        {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, &trusted.roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts clients: those that a trust file vouches for, or all; and perhaps those without a certificate.
#[derive(Debug)]
pub(crate) struct Clients {
    trusted: Option<(Arc<dyn ClientCertVerifier>, Vec<CertificateDer<'static>>)>,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl Clients {
    /// `mandatory`: clients without a certificate are refused.
    pub(crate) fn new(trusted: Option<Trusted>, mandatory: bool) -> Result<Self, TlsError> {
        let by_authority = |trusted: Trusted| {
            let verifier = WebPkiClientVerifier::builder_with_provider(trusted.roots, provider()).build();
            verifier.map(|verifier| (verifier, trusted.themselves)).map_err(|error| TlsError::SetUp(error.to_string()))
        };
        Ok(Self { trusted: trusted.map(by_authority).transpose()?, mandatory, provider: provider() })
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.as_ref().map_or(&[], |(verifier, _)| verifier.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.trusted {
            Some((verifier, themselves)) if !themselves.iter().any(|known| known == end_entity) => {
                verifier.verify_client_cert(end_entity, intermediates, now)
            }
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
