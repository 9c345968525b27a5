//! A directory with CAs and identities, and two ends that shake hands.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use handover_certs::authority::{Authority, InitOptions, IssueOptions};
use handover_certs::identity::{Identity, Role};
use handover_certs::material::{Material, MaterialPaths};
use rustls::{ClientConfig, ServerConfig};
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub const DOMAIN: &str = "demo.example";

pub struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    /// With a CA in `ca`.
    pub fn new() -> Self {
        let bed = Self { dir: tempfile::tempdir().unwrap() };
        Authority::init(&bed.path("ca"), DOMAIN, &InitOptions::default()).unwrap();
        bed
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn ca(&self) -> Authority {
        Authority::open(&self.path("ca")).unwrap()
    }

    /// Issues by the CA in `ca`, into a directory with the role's name.
    pub fn issue(&self, role: Role) -> PathBuf {
        self.issue_by("ca", role, role.as_str(), &IssueOptions::default())
    }

    pub fn issue_by(&self, ca: &str, role: Role, to: &str, options: &IssueOptions) -> PathBuf {
        let mut ca = Authority::open(&self.path(ca)).unwrap();
        let identity = Identity::new(ca.trust_domain(), role, to).unwrap();
        ca.issue(&identity, options).unwrap().write(&self.path(to)).unwrap();
        self.path(to)
    }
}

pub fn load(dir: &Path) -> Material {
    Material::load(&MaterialPaths::in_dir(dir)).unwrap()
}

pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[expect(clippy::disallowed_methods, reason = "certificates are checked against the host's clock")]
pub fn now() -> OffsetDateTime {
    std::time::SystemTime::now().into()
}

/// Good for an hour, two days ago.
pub fn expired() -> IssueOptions {
    let not_before = Some(now() - Duration::days(2));
    IssueOptions { not_before, validity: Duration::hours(1), ..IssueOptions::default() }
}

pub type Ends = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

/// Shakes hands and exchanges a byte each way: in TLS 1.3 a client learns only then that it was refused. The errors are
/// the client's and the server's.
pub async fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Ends, (String, String)> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connecting = async {
        let name = "192.0.2.1".try_into().unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        ping(&mut stream).await?;
        Ok(stream)
    };
    let accepting = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        ping(&mut stream).await?;
        Ok(stream)
    };
    let (near, far): (std::io::Result<_>, std::io::Result<_>) = tokio::join!(connecting, accepting);
    let said = |error: Option<std::io::Error>| error.map(|e| e.to_string()).unwrap_or_default();
    match (near, far) {
        (Ok(near), Ok(far)) => Ok((near, far)),
        (near, far) => Err((said(near.err()), said(far.err()))),
    }
}

/// One byte out, one byte in.
pub async fn ping<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    stream: &mut S,
) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    stream.flush().await?;
    stream.read_exact(&mut [0]).await.map(drop)
}
