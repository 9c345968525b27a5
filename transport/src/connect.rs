//! Connections to a peer: TCP, TLS with our identity, HTTP/2 with windows sized for 1 Gbit/s at 100 ms.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use handover_certs::peer::peer_not_after;
use handover_certs::reload::Credentials;
use handover_certs::tls::Side;
use handover_engine::time::Timestamp;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::trusted::Trusted;

/// Receive window of one stream: 1 Gbit/s × 100 ms, and some.
const STREAM_WINDOW: u32 = 16 << 20;
/// Receive window of a connection: what all its streams together may hold in memory.
const CONNECTION_WINDOW: u32 = 24 << 20;
/// Largest HTTP/2 frame that the peer may send: the default of 16 KiB makes a TLS record of each frame's header, and costs a lock for each.
const HTTP2_FRAME: u32 = 256 << 10;
/// How long connecting may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is probed this often…
pub(crate) const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// …and given up after this long without an answer.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What keeps a connection from being made.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("cannot reach {address}")]
    Tcp { address: String, source: std::io::Error },
    #[error("no TLS session with {address}")]
    Tls { address: String, source: std::io::Error },
}

/// When the certificate ends that the peer of a channel showed last.
#[derive(Debug, Clone, Default)]
pub struct PeerEnds(Arc<AtomicI64>);

impl PeerEnds {
    /// None before the first connection.
    pub fn get(&self) -> Option<Timestamp> {
        let seconds = self.0.load(Ordering::Relaxed);
        (seconds != 0).then_some(Timestamp { seconds, nanos: 0 })
    }

    fn seen(&self, presented: &[CertificateDer<'_>]) {
        if let Some(at) = peer_not_after(presented) {
            self.0.store(at.unix_timestamp(), Ordering::Relaxed);
        }
    }
}

/// A lazy channel to a peer at one of `addresses` (host:port), tried in their order. It connects at the first call, and again after a lost
/// connection; each connection uses the credentials of that moment. Bad TLS and an unreachable peer fail the call, which may be made again.
pub fn channel(
    addresses: &[String],
    credentials: Arc<Credentials>,
    ends: PeerEnds,
) -> Result<Channel, tonic::transport::Error> {
    let name = addresses.first().map_or("", String::as_str);
    let endpoint = Endpoint::from_shared(format!("http://{name}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let addresses: Arc<[String]> = addresses.into();
    let connector =
        tower::service_fn(move |_: Uri| connect_to_one(addresses.clone(), credentials.clone(), ends.clone()));
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// The first of the addresses at which a trusted peer answers; what went wrong with the first one where none does.
async fn connect_to_one(
    addresses: Arc<[String]>,
    credentials: Arc<Credentials>,
    ends: PeerEnds,
) -> Result<Io, ConnectError> {
    let share = CONNECT_TIMEOUT / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut first = None;
    for address in addresses.iter() {
        let connecting = connect(address.clone(), credentials.clone(), &ends);
        let connected = tokio::time::timeout(share, connecting).await;
        let failed = match connected {
            Ok(Ok(io)) => return Ok(io),
            Ok(Err(failed)) => failed,
            Err(late) => ConnectError::Tcp { address: address.clone(), source: late.into() },
        };
        first.get_or_insert(failed);
    }
    let none =
        || ConnectError::Tcp { address: String::new(), source: std::io::ErrorKind::AddrNotAvailable.into() };
    Err(first.unwrap_or_else(none))
}

type Io = TokioIo<Trusted<tokio_rustls::client::TlsStream<TcpStream>>>;

async fn connect(
    address: String,
    credentials: Arc<Credentials>,
    ends: &PeerEnds,
) -> Result<Io, ConnectError> {
    let tcp = TcpStream::connect(&address)
        .await
        .map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
    // Best effort: a connection without it works, only slower.
    let _ = tcp.set_nodelay(true);
    // The peer is known by its SPIFFE id, not by a DNS name: the verifier does not look at this one.
    let refused = |source| ConnectError::Tls { address: address.clone(), source };
    let name = ServerName::try_from("handover.invalid").map_err(|e| refused(std::io::Error::other(e)))?;
    let stream = TlsConnector::from(credentials.client()).connect(name, tcp).await.map_err(refused)?;
    let presented = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    ends.seen(&presented);
    let trusted = Trusted::new(stream, credentials, presented, Side::Server);
    trusted.map(TokioIo::new).map_err(|e| refused(std::io::Error::other(e)))
}
