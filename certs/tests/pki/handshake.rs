//! Who gets through a handshake, and what is said to who does not.

use std::path::Path;
use std::sync::Arc;

use handover_certs::authority::{Authority, InitOptions, IssueOptions, KeyAlgorithm, Which};
use handover_certs::identity::Role;
use handover_certs::material::{Material, MaterialPaths};
use handover_certs::peer::peer_identity;
use handover_certs::tls::{client_config, server_config};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion};
use rustls_pki_types::PrivateKeyDer;
use time::Duration;

use super::bed::{Bed, DOMAIN, Ends, expired, load, now, shake};

async fn connect(client: &Material, server: &Material, expected: Role) -> Result<Ends, (String, String)> {
    shake(client_config(client, expected).unwrap(), server_config(server).unwrap()).await
}

/// The server refuses for a reason that it can name, and the client is told in short.
#[track_caller]
fn server_refuses(result: Result<Ends, (String, String)>, reason: &str, alert: &str) {
    let (client, server) = result.expect_err("the handshake went through");
    assert!(server.contains(reason), "`{reason}` is not in the server's error: {server}");
    assert!(client.contains(alert), "`{alert}` is not in the client's error: {client}");
}

#[track_caller]
fn client_refuses(result: Result<Ends, (String, String)>, reason: &str, alert: &str) {
    server_refuses(result.map_err(|(client, server)| (server, client)), reason, alert);
}

#[tokio::test]
async fn the_right_roles_meet() {
    let bed = Bed::new();
    let (source, target) = (load(&bed.issue(Role::Source)), load(&bed.issue(Role::Target)));
    connect(&target, &source, Role::Source).await.unwrap();
    for role in [Role::Operator, Role::Watcher] {
        let (near, far) = connect(&load(&bed.issue(role)), &target, Role::Target).await.unwrap();
        let server_sees = peer_identity(far.get_ref().1.peer_certificates().unwrap()).unwrap();
        let client_sees = peer_identity(near.get_ref().1.peer_certificates().unwrap()).unwrap();
        assert_eq!((server_sees.role, client_sees.role), (role, Role::Target));
    }
}

#[tokio::test]
async fn it_is_tls_13_post_quantum_http2_and_not_resumed() {
    let bed = Bed::new();
    let (source, target) = (load(&bed.issue(Role::Source)), load(&bed.issue(Role::Target)));
    let (client, server) = (client_config(&target, Role::Source).unwrap(), server_config(&source).unwrap());
    for _ in 0..2 {
        let (near, _far) = shake(client.clone(), server.clone()).await.unwrap();
        let connection = near.get_ref().1;
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(connection.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn both_kinds_of_key_meet() {
    let bed = Bed::new();
    let options = IssueOptions { key_algorithm: KeyAlgorithm::Ed25519, ..IssueOptions::default() };
    let edwards = load(&bed.issue_by("ca", Role::Target, "edwards", &options));
    let source = load(&bed.issue(Role::Source));
    connect(&edwards, &source, Role::Source).await.unwrap();
    connect(&load(&bed.issue(Role::Operator)), &edwards, Role::Target).await.unwrap();
}

#[tokio::test]
async fn the_wrong_server_is_refused() {
    let bed = Bed::new();
    let (source, target) = (load(&bed.issue(Role::Source)), load(&bed.issue(Role::Target)));
    let result = connect(&target, &target, Role::Source).await;
    client_refuses(result, "has the role target, here a source belongs", "CertificateUnknown");
    let operator = load(&bed.issue(Role::Operator));
    // An operator's certificate is not for serving, whatever role is asked for.
    client_refuses(
        connect(&source, &operator, Role::Operator).await,
        "only a source or a target may serve",
        "",
    );
    let unasked = shake(client_config(&source, None).unwrap(), server_config(&operator).unwrap()).await;
    client_refuses(unasked, "only a source or a target may serve", "CertificateUnknown");
}

#[tokio::test]
async fn the_expired_are_refused_by_both_sides() {
    let bed = Bed::new();
    let (source, target) = (load(&bed.issue(Role::Source)), load(&bed.issue(Role::Target)));
    let dir = bed.issue_by("ca", Role::Source, "late", &expired());
    let late =
        Material::load_at(&MaterialPaths::in_dir(&dir), now() - Duration::days(2) + Duration::minutes(1))
            .unwrap();
    server_refuses(connect(&late, &target, Role::Target).await, "certificate expired", "CertificateExpired");
    client_refuses(connect(&target, &late, Role::Source).await, "certificate expired", "CertificateExpired");
    connect(&target, &source, Role::Source).await.unwrap();
}

#[tokio::test]
async fn the_revoked_are_refused_by_both_sides() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    connect(&load(&target), &load(&source), Role::Source).await.unwrap();
    let identity = load(&source).identity().clone();
    bed.ca().revoke(&Which::Identity(identity)).unwrap();
    // Until the list arrives, nobody knows.
    connect(&load(&target), &load(&source), Role::Source).await.unwrap();
    bed.ca().publish(&target).unwrap();
    client_refuses(
        connect(&load(&target), &load(&source), Role::Source).await,
        "Revoked",
        "CertificateRevoked",
    );
    server_refuses(
        connect(&load(&source), &load(&target), Role::Target).await,
        "Revoked",
        "CertificateRevoked",
    );
}

#[tokio::test]
async fn a_stale_list_in_front_hides_nothing() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    let stale = std::fs::read_to_string(target.join("crl.pem")).unwrap();
    bed.ca().revoke(&Which::Identity(load(&source).identity().clone())).unwrap();
    let fresh = std::fs::read_to_string(bed.path("ca/crl.pem")).unwrap();
    std::fs::write(target.join("crl.pem"), stale + &fresh).unwrap();
    client_refuses(
        connect(&load(&target), &load(&source), Role::Source).await,
        "Revoked",
        "CertificateRevoked",
    );
}

#[tokio::test]
async fn a_ca_without_a_list_and_a_list_without_a_ca_are_fine() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    Authority::init(&bed.path("foreign"), DOMAIN, &InitOptions::default()).unwrap();
    std::fs::copy(bed.path("foreign/crl.pem"), source.join("crl.pem")).unwrap();
    std::fs::remove_file(target.join("crl.pem")).unwrap();
    connect(&load(&target), &load(&source), Role::Source).await.unwrap();
}

#[tokio::test]
async fn another_ca_s_are_refused_by_both_sides() {
    let bed = Bed::new();
    Authority::init(&bed.path("foreign"), DOMAIN, &InitOptions::default()).unwrap();
    let foreign = load(&bed.issue_by("foreign", Role::Source, "stranger", &IssueOptions::default()));
    // One that trusts our CA, so that it comes as far as being refused.
    let dir = bed.path("stranger");
    std::fs::copy(bed.path("ca/ca.pem"), dir.join("ca.pem")).unwrap();
    let trusting = load(&dir);
    let target = load(&bed.issue(Role::Target));
    client_refuses(connect(&target, &foreign, Role::Source).await, "UnknownIssuer", "UnknownCA");
    server_refuses(connect(&trusting, &target, Role::Target).await, "UnknownIssuer", "UnknownCA");
}

#[tokio::test]
async fn another_trust_domain_s_are_refused_though_their_ca_is_trusted() {
    let bed = Bed::new();
    Authority::init(&bed.path("foreign"), "other.example", &InitOptions::default()).unwrap();
    let foreign = bed.issue_by("foreign", Role::Source, "stranger", &IssueOptions::default());
    let target = bed.issue(Role::Target);
    bed.ca().trust(&bed.path("foreign")).unwrap();
    for dir in [&foreign, &target] {
        bed.ca().publish(dir).unwrap();
    }
    let (foreign, target) = (load(&foreign), load(&target));
    let reason = "spiffe://other.example/handover/source/stranger is not of the trust domain demo.example";
    client_refuses(connect(&target, &foreign, Role::Source).await, reason, "CertificateUnknown");
    // The foreign client would refuse our server by the same rule: let it not look.
    let blind = with_certificate(&bed.path("stranger"), None);
    server_refuses(shake(blind, server_config(&target).unwrap()).await, reason, "CertificateUnknown");
}

#[tokio::test]
async fn certificates_of_our_ca_without_an_identity_are_refused() {
    let bed = Bed::new();
    let target = bed.issue(Role::Target);
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(bed.path("ca/ca.key")).unwrap()).unwrap();
    let ca = std::fs::read_to_string(bed.path("ca/ca.pem")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca, key).unwrap();
    let two = ["operator/a", "operator/b"].map(|who| format!("spiffe://{DOMAIN}/handover/{who}"));
    let none: [String; 0] = [];
    for (uris, reason) in [
        (&none[..], "carries 0 URIs"),
        (&two[..], "carries 2 URIs"),
        (&["https://demo.example/".to_owned()], "is not of the form spiffe://"),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["host.demo.example".to_owned()]).unwrap();
        let uri = |uri: &String| rcgen::SanType::URI(uri.as_str().try_into().unwrap());
        params.subject_alt_names.extend(uris.iter().map(uri));
        let made = params.signed_by(&key, &issuer).unwrap();
        let certificate = (made.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        let client = with_certificate(&target, Some(certificate));
        server_refuses(
            shake(client, server_config(&load(&target)).unwrap()).await,
            reason,
            "CertificateUnknown",
        );
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let bed = Bed::new();
    let target = bed.issue(Role::Target);
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind))
        .with_no_client_auth();
    let result = shake(h2(config), server_config(&load(&target)).unwrap()).await;
    server_refuses(result, "peer sent no certificates", "CertificateRequired");
}

#[tokio::test]
async fn a_client_that_knows_only_tls_12_is_refused() {
    let bed = Bed::new();
    let target = bed.issue(Role::Target);
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind))
        .with_no_client_auth();
    let result = shake(h2(config), server_config(&load(&target)).unwrap()).await;
    server_refuses(result, "Tls12NotOffered", "ProtocolVersion");
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn h2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A client that takes any server, with a certificate of its own, or that of an identity.
fn with_certificate(
    dir: &Path,
    own: Option<(rustls_pki_types::CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Arc<ClientConfig> {
    use rustls_pki_types::pem::PemObject;
    let (certificate, key) = own.unwrap_or_else(|| {
        let certificate = rustls_pki_types::CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
        (certificate, PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap())
    });
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind))
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    h2(config)
}

/// Takes any server: these tests are about what the server takes.
#[derive(Debug)]
struct Blind;

impl rustls::client::danger::ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
