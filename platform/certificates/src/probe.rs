//! What a service serves, asked for over TLS.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::names;
use crate::record::digest;
use crate::section::host_and_port;

/// One that is silent is asked again after this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions: a service needs a moment to read its files.
const PAUSE: Duration = Duration::from_millis(200);

/// What a server has shown.
#[derive(Debug, Default)]
struct Seen {
    leaf: Option<CertificateDer<'static>>,
    /// It has signed the handshake with the key of that certificate.
    has_key: bool,
}

/// Takes any chain and keeps the leaf. This asks *what* a server serves, to compare it with what is on disk: whom a client should trust is
/// not its matter. That the server holds the certificate's key is checked all the same.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Seen>,
}

impl Witness {
    fn with_seen<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn signed(
        &self,
        valid: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.with_seen(|seen| seen.has_key = valid.is_ok());
        valid
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.with_seen(|seen| seen.leaf = Some(end_entity.clone().into_owned()));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signed(verify_tls12_signature(message, cert, dss, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signed(verify_tls13_signature(message, cert, dss, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks `place` (`host:port`) for `name` until it serves `wanted`, or `until` has come: then it tells what was served instead.
pub async fn until_served(
    place: &str,
    name: &ServerName<'static>,
    wanted: &CertificateDer<'_>,
    until: Instant,
) -> Result<(), String> {
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
        let problem = match timeout(left.min(PATIENCE), ask(place, name)).await {
            Ok(Ok(leaf)) if leaf == *wanted => return Ok(()),
            Ok(Ok(leaf)) => format!("it serves {}", shown(&leaf)),
            Ok(Err(problem)) => problem,
            Err(_) => "it is silent".to_owned(),
        };
        if Instant::now() + PAUSE >= until {
            return Err(problem);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The certificate that is served there now.
async fn ask(place: &str, name: &ServerName<'static>) -> Result<CertificateDer<'static>, String> {
    let (host, port) = host_and_port(place).ok_or("it is not like host:port")?;
    let stream = TcpStream::connect((host, port)).await.map_err(|e| format!("it cannot be reached ({e})"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let witness = Arc::new(Witness { provider: provider.clone(), seen: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    let mut shaken = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream).await;
    if let Ok(stream) = &mut shaken {
        // Servers log those who leave without a word; it makes no difference here.
        let _ = stream.shutdown().await;
    }
    // A server that wants a certificate of its clients ends the handshake, but has shown its own by then.
    witness.with_seen(|seen| match (seen.leaf.take(), seen.has_key, shaken.err()) {
        (Some(leaf), true, _) => Ok(leaf),
        (_, _, Some(error)) => Err(format!("TLS fails there ({error})")),
        (_, _, None) => Err("it shows no certificate".to_owned()),
    })
}

/// A certificate, for the operator: whose, until when, which.
pub fn shown(certificate: &CertificateDer<'_>) -> String {
    let fingerprint = digest(certificate);
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => {
            let seconds = parsed.validity().not_after.timestamp();
            let expires = handover_engine::time::Timestamp { seconds, nanos: 0 };
            let subject = names::subject(&parsed);
            format!("{subject}, good until {expires}, SHA-256 {fingerprint}")
        }
        Err(_) => format!("what cannot be read as a certificate, SHA-256 {fingerprint}"),
    }
}
