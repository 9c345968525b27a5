//! What the protocol's library asks over HTTP: a connection for each question, over TLS only, bounded in time and size.

use std::error::Error as StdError;
use std::io::Error as IoError;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::material::Unfit;

/// A question is answered within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// No answer may be larger.
const LARGEST: usize = 1024 * 1024;
/// Whom the system trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nobody is there.
    #[error("{0} is not reached")]
    Unreachable(Authority, #[source] IoError),
    /// Who is there is not who is meant.
    #[error("TLS with {0} fails")]
    Untrusted(Authority, #[source] IoError),
    /// It took too long.
    #[error("it does not answer within {} s", ANSWERS_WITHIN.as_secs())]
    Silent,
    /// It was cut short, or is too large.
    #[error("its answer does not come through")]
    Broken(#[source] Box<dyn StdError + Send + Sync>),
    /// It answers, but not as an authority does.
    #[error("it answers {0}")]
    Refused(StatusCode),
    /// It leads to where it cannot be asked.
    #[error("it leads to `{0}`, which is not asked over https")]
    Elsewhere(Uri),
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        Error::Other(Box::new(unanswered))
    }
}

/// Those that a directory's certificate must come from.
pub fn roots(path: Option<&Path>) -> Result<RootCertStore, Unfit> {
    let path = path.unwrap_or(Path::new(SYSTEM_ROOTS));
    let hint = "name a file with the CA's certificates in `acme_root`, or apt-get install ca-certificates";
    let refuse = |problem: String| Unfit::new(format!("{}: {problem}", path.display()), hint);
    let text = std::fs::read(path).map_err(|error| refuse(format!("it cannot be read ({error})")))?;
    let blocks = pem::parse_many(text).map_err(|error| refuse(format!("it is no sound PEM ({error})")))?;
    let mut roots = RootCertStore::empty();
    let certificates = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
    roots.add_parsable_certificates(certificates.map(|block| CertificateDer::from(block.into_contents())));
    if roots.is_empty() {
        return Err(refuse("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// Asks servers whose certificates come from certain roots.
pub struct Https(TlsConnector);

impl Https {
    pub fn new(roots: RootCertStore) -> Result<Self, Unfit> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| Unfit::new(format!("TLS cannot be used ({error})"), "install the agent again"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = self.0.clone();
        Box::pin(async move {
            match tokio::time::timeout(ANSWERS_WITHIN, ask(tls, request)).await {
                Ok(answer) => Ok(answer?),
                Err(_) => Err(Unanswered::Silent.into()),
            }
        })
    }
}

async fn ask(
    tls: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, Unanswered> {
    let uri = request.uri().clone();
    let elsewhere = || Unanswered::Elsewhere(uri.clone());
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(elsewhere)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| elsewhere())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| elsewhere())?;
    request.headers_mut().insert(HOST, host);
    let name = authority.host().trim_matches(['[', ']']);
    let server = ServerName::try_from(name.to_owned()).map_err(|_| elsewhere())?;
    let stream = TcpStream::connect((name, authority.port_u16().unwrap_or(443))).await;
    let stream = stream.map_err(|error| Unanswered::Unreachable(authority.clone(), error))?;
    let stream = tls.connect(server, stream).await;
    let stream = stream.map_err(|error| Unanswered::Untrusted(authority.clone(), error))?;
    let broken = |error: hyper::Error| Unanswered::Broken(Box::new(error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(Unanswered::Broken)?.to_bytes();
        let is_told = parts.status.is_success() || serde_json::from_slice::<Problem>(&body).is_ok();
        if !is_told || parts.status.is_redirection() {
            return Err(Unanswered::Refused(parts.status));
        }
        Ok(BytesResponse { parts, body: Box::new(body) })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // What has arrived by then is still to be read.
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let told = roots(Some(&path)).unwrap_err().to_string();
        assert!(told.contains("it cannot be read") && told.contains("`acme_root`"), "{told}");
        std::fs::write(&path, "nothing").unwrap();
        assert!(roots(Some(&path)).unwrap_err().to_string().contains("holds no certificate"));
        let minted = crate::minted::Ca::root("Root").minted;
        std::fs::write(&path, minted.chain.repeat(12)).unwrap();
        assert_eq!(roots(Some(&path)).unwrap().len(), 12);
    }
}
