//! The one place where rustls is configured: TLS 1.3, aws-lc-rs, hybrid post-quantum key exchange preferred, both sides
//! authenticated by a certificate with a SPIFFE id.

mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::OwnedCertRevocationList;

use crate::identity::Role;
use crate::material::{Material, MaterialError};
use verify::PeerVerifier;

/// What a peer is in a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It has connected to us.
    Client,
    /// We have connected to it.
    Server,
}

/// Whom `material` trusts, outside a handshake.
pub(crate) struct Trust {
    clients: PeerVerifier,
    servers: PeerVerifier,
}

impl Trust {
    /// Servers must have the role `expected`, where given.
    pub(crate) fn new(material: &Material, expected: Option<Role>) -> Self {
        Self { clients: PeerVerifier::new(material, None), servers: PeerVerifier::new(material, expected) }
    }

    /// An error when the peer that presented these certificates would not be let in now.
    pub(crate) fn verify(&self, presented: &[CertificateDer<'_>], side: Side) -> Result<(), rustls::Error> {
        let (own, intermediates) = presented.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = UnixTime::now();
        match side {
            Side::Client => self.clients.verify(own, intermediates, now, webpki::KeyUsage::client_auth()),
            Side::Server => self.servers.verify(own, intermediates, now, webpki::KeyUsage::server_auth()),
        }
    }
}

/// An error when `presented` was not a certificate of one of the CAs, for somebody with this role who may serve, at `at`, or has been
/// revoked since.
pub(crate) fn verify_signer(
    anchors: &[TrustAnchor<'static>],
    crls: &[OwnedCertRevocationList],
    trust_domain: &str,
    role: Role,
    presented: &[CertificateDer<'_>],
    at: UnixTime,
) -> Result<(), rustls::Error> {
    let (own, intermediates) = presented.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let verifier = PeerVerifier::of(anchors, crls, trust_domain, Some(role));
    verifier.verify(own, intermediates, at, webpki::KeyUsage::server_auth())
}

/// HTTP/2, which is all that gRPC speaks.
const ALPN: &[u8] = b"h2";

/// The cryptography: aws-lc-rs with X25519MLKEM768 first (feature `prefer-post-quantum`).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The key of `material` with its certificates, to sign with.
pub(crate) fn signing_key(material: &Material) -> Result<Arc<CertifiedKey>, MaterialError> {
    let key = provider().key_provider.load_private_key(material.key.clone_key());
    let key = key.map_err(material.unusable_key())?;
    Ok(Arc::new(CertifiedKey::new(material.chain.clone(), key)))
}

/// Serves with `material` to any verified peer of our trust domain; which role may call what is the service's to check, on
/// every call. A client without a certificate, or with one that names nobody of ours, is refused in the handshake.
pub fn server_config(material: &Material) -> Result<Arc<ServerConfig>, MaterialError> {
    let verifier = Arc::new(PeerVerifier::new(material, None));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(material.unusable_key())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain.clone(), material.key.clone_key())
        .map_err(material.unusable_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not look at the peer's certificate again: one revoked meanwhile would still pass.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Connects with `material` to a peer of our trust domain that may serve and has the role `expected` (`None`: any role
/// that may serve). The name or address that was dialled does not matter.
pub fn client_config(
    material: &Material,
    expected: impl Into<Option<Role>>,
) -> Result<Arc<ClientConfig>, MaterialError> {
    let verifier = Arc::new(PeerVerifier::new(material, expected.into()));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(material.unusable_key())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
        .map_err(material.unusable_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    // Peers are known by SPIFFE id: there is no name to indicate.
    config.enable_sni = false;
    Ok(Arc::new(config))
}
