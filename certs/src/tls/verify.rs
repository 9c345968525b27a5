//! Who is let in: the one verifier of both sides.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use crate::identity::{Identity, IdentityError, Role};
use crate::material::Material;

/// Verifies a peer: chain to one of our CAs, not revoked, in time, right usage; one SPIFFE id, of our trust domain, of the
/// expected role. Signatures and paths are checked by rustls and webpki; only the last part is ours.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    trust_domain: String,
    expected: Option<Role>,
    provider: Arc<CryptoProvider>,
}

/// A peer whose certificate is sound, but not the one wanted here.
#[derive(thiserror::Error)]
enum WrongPeer {
    #[error(transparent)]
    NoIdentity(IdentityError),
    #[error("its certificate is not for this side of a connection: only a source or a target may serve")]
    Usage,
    #[error("{found} is not of the trust domain {ours}")]
    TrustDomain { found: Identity, ours: String },
    #[error("{found} has the role {}, here a {expected} belongs", .found.role)]
    Role { found: Identity, expected: Role },
}

/// As a sentence: rustls shows what is wrong with a certificate by its `Debug`, and that is what ends up in the log.
impl fmt::Debug for WrongPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn wrong(peer: WrongPeer) -> Error {
    Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(peer))))
}

impl PeerVerifier {
    pub(super) fn new(material: &Material, expected: Option<Role>) -> Self {
        Self::of(&material.anchors, &material.crls, &material.identity().trust_domain, expected)
    }

    /// Without an identity of our own.
    pub(super) fn of(
        anchors: &[TrustAnchor<'static>],
        crls: &[OwnedCertRevocationList],
        trust_domain: &str,
        expected: Option<Role>,
    ) -> Self {
        Self {
            anchors: anchors.to_vec(),
            crls: crls.iter().cloned().map(CertRevocationList::from).collect(),
            trust_domain: trust_domain.to_owned(),
            expected,
            provider: super::provider(),
        }
    }

    pub(super) fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(refused)?;
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // A CA without a revocation list has revoked nothing that we know of; lists of CAs we do not know are passed over.
        let revocation = RevocationOptionsBuilder::new(&crls)
            .ok()
            .map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
        let algorithms = self.provider.signature_verification_algorithms.all;
        parsed
            .verify_for_usage(algorithms, &self.anchors, intermediates, now, usage, revocation, None)
            .map_err(refused)?;
        self.verify_identity(certificate)
    }

    fn verify_identity(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found =
            Identity::from_certificate(certificate).map_err(|error| wrong(WrongPeer::NoIdentity(error)))?;
        if found.trust_domain != self.trust_domain {
            return Err(wrong(WrongPeer::TrustDomain { found, ours: self.trust_domain.clone() }));
        }
        match self.expected {
            Some(expected) if found.role != expected => Err(wrong(WrongPeer::Role { found, expected })),
            _ => Ok(()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
}

/// What webpki found, in rustls's words, so that the right alert is sent.
fn refused(error: webpki::Error) -> Error {
    use webpki::Error as Found;
    let reason = match error {
        Found::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        Found::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Found::CertRevoked => CertificateError::Revoked,
        Found::UnknownIssuer => CertificateError::UnknownIssuer,
        Found::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Found::BadDer | Found::BadDerTime | Found::TrailingData(_) => CertificateError::BadEncoding,
        Found::RequiredEkuNotFoundContext(_) => return wrong(WrongPeer::Usage),
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(reason)
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(certificate, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Every peer has one certificate: hints would only tell strangers who our CAs are.
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(certificate, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
