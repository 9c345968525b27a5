//! The one place where rustls is configured: TLS 1.3, aws-lc-rs, hybrid post-quantum key exchange preferred, both sides
//! authenticated by a certificate with a SPIFFE id.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder, UnknownStatusPolicy};

use crate::identity::{Identity, Role};
use crate::material::{Material, MaterialError};

/// HTTP/2, which is all that gRPC speaks.
const ALPN: &[u8] = b"h2";

/// The cryptography: aws-lc-rs with X25519MLKEM768 first (feature `prefer-post-quantum`).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn failed(material: &Material) -> impl Fn(Error) -> MaterialError {
    let path = material.key_path.clone();
    move |source| MaterialError::Key { path: path.clone(), source }
}

/// Serves with `material` to any verified peer of our trust domain; which role may call what is the service's to check.
pub fn server_config(material: &Material) -> Result<Arc<ServerConfig>, MaterialError> {
    let verifier = Arc::new(PeerVerifier::new(material, None).map_err(failed(material))?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed(material))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain.clone(), material.key.clone_key())
        .map_err(failed(material))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not look at the peer's certificate again: one revoked meanwhile would still pass.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Connects with `material` to a peer that has the role `expected`, or any role.
pub fn client_config(material: &Material, expected: Option<Role>) -> Result<Arc<ClientConfig>, MaterialError> {
    let verifier = Arc::new(PeerVerifier::new(material, expected).map_err(failed(material))?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed(material))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
        .map_err(failed(material))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    // Peers are known by SPIFFE id: there is no name to indicate.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Verifies a peer: chain to one of our CAs, not revoked, in time, right usage; one SPIFFE id, of our trust domain, of the
/// expected role. Signatures and paths are checked by rustls and webpki; only the last part is ours.
#[derive(Debug)]
struct PeerVerifier {
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    trust_domain: String,
    expected: Option<Role>,
    provider: Arc<CryptoProvider>,
}

/// A peer whose certificate is sound, but not the one wanted here.
#[derive(Debug, thiserror::Error)]
enum WrongPeer {
    #[error(transparent)]
    NoIdentity(crate::identity::IdentityError),
    #[error("{found} is not of the trust domain {ours}")]
    TrustDomain { found: Identity, ours: String },
    #[error("{found} has the role {}, here a {expected} belongs", .found.role)]
    Role { found: Identity, expected: Role },
}

fn wrong(peer: WrongPeer) -> Error {
    Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(peer))))
}

impl PeerVerifier {
    fn new(material: &Material, expected: Option<Role>) -> Result<Self, Error> {
        let bad = |error: webpki::Error| Error::General(format!("a CA certificate or revocation list: {error:?}"));
        let anchor = |ca: &CertificateDer<'static>| Ok(webpki::anchor_from_trusted_cert(ca).map_err(bad)?.to_owned());
        let crl = |crl: &rustls_pki_types::CertificateRevocationListDer<'static>| {
            OwnedCertRevocationList::from_der(crl).map(CertRevocationList::from).map_err(bad)
        };
        Ok(Self {
            anchors: material.cas.iter().map(anchor).collect::<Result<_, Error>>()?,
            crls: material.crls.iter().map(crl).collect::<Result<_, Error>>()?,
            trust_domain: material.identity().trust_domain.clone(),
            expected,
            provider: provider(),
        })
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(refused)?;
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // A CA without a revocation list has revoked nothing that we know of.
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
        let found = Identity::from_certificate(certificate).map_err(|error| wrong(WrongPeer::NoIdentity(error)))?;
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
    let reason = match error {
        webpki::Error::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        webpki::Error::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
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
