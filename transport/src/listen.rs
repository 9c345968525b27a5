//! Serving: TCP, TLS with a client certificate, and the caller's identity on every request.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use handover_certs::identity::{Identity, Role};
use handover_certs::reload::Credentials;
use handover_certs::tls::Side;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use crate::connect::{KEEPALIVE_EVERY, KEEPALIVE_TIMEOUT};
use crate::trusted::Trusted;

/// A peer that opens a connection and says nothing is dropped after this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long calls at hand may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// A connection whose peer has proven who it is.
pub type Authenticated = Trusted<TlsStream<TcpStream>>;

impl Connected for Authenticated {
    type ConnectInfo = Identity;
    fn connect_info(&self) -> Identity {
        self.peer().clone()
    }
}

/// Connections that have passed the handshake. A failed handshake is logged with its reason and ends that connection
/// alone. Ends with `stop`.
pub fn accept(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    stop: CancellationToken,
) -> impl Stream<Item = std::io::Result<Authenticated>> {
    let (ready, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        let handshakes = tokio_util::task::TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, from)) => {
                    let (ready, credentials) = (ready.clone(), credentials.clone());
                    handshakes.spawn(async move {
                        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(tcp, credentials)).await {
                            // The server has stopped when nobody takes it.
                            Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                            Ok(Err(reason)) => tracing::warn!(%from, reason, "refused a connection"),
                            Err(_) => tracing::warn!(%from, "refused a connection that did not complete its handshake"),
                        }
                    });
                }
                // Out of file descriptors, or the peer left at once: others may still come.
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

async fn handshake(tcp: TcpStream, credentials: Arc<Credentials>) -> Result<Authenticated, String> {
    let _ = tcp.set_nodelay(true);
    let acceptor = TlsAcceptor::from(credentials.server());
    let stream = acceptor.accept(tcp).await.map_err(|error| error.to_string())?;
    let presented = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    Trusted::new(stream, credentials, presented, Side::Client).map_err(|error| error.to_string())
}

/// The caller, if its role is one of `allowed`; a refusal otherwise.
pub fn caller<T>(request: &Request<T>, allowed: &[Role]) -> Result<Identity, Status> {
    crate::version::check(request.metadata())?;
    let identity =
        request.extensions().get::<Identity>().ok_or_else(|| Status::unauthenticated("no certificate"))?;
    if allowed.contains(&identity.role) {
        return Ok(identity.clone());
    }
    let wanted: Vec<String> = allowed.iter().map(|role| role.to_string()).collect();
    Err(Status::permission_denied(format!(
        "{identity} has the role {}, this call needs {}",
        identity.role,
        wanted.join(" or ")
    )))
}

/// Serves one gRPC service to authenticated peers until `stop`; then lets the calls at hand end, but not for long.
pub async fn serve<S>(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    service: S,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    S: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
{
    let connections = accept(listener, credentials, stop.clone());
    let serving = server()
        .add_service(service)
        .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
    tokio::select! {
        result = serving => result,
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

/// A gRPC server with our windows and keepalive.
fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_frame_size(Some(1 << 20))
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(16 << 20))
}
