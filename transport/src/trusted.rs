//! A TLS connection that ends when its peer is no longer trusted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use handover_certs::identity::{Identity, IdentityError};
use handover_certs::peer::peer_identity;
use handover_certs::reload::{Credentials, Standing};
use handover_certs::tls::Side;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose peer has passed the handshake.
pub struct Trusted<S> {
    stream: S,
    peer: Identity,
    standing: Standing,
}

impl<S> Trusted<S> {
    /// `presented` is what the peer showed in the handshake.
    pub fn new(
        stream: S,
        credentials: Arc<Credentials>,
        presented: Vec<CertificateDer<'static>>,
        side: Side,
    ) -> Result<Self, IdentityError> {
        let peer = peer_identity(&presented)?;
        Ok(Self { stream, peer, standing: Standing::new(credentials, presented, side) })
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &Identity {
        &self.peer
    }

    fn check(&mut self) -> std::io::Result<()> {
        self.standing.check().map_err(|error| {
            tracing::warn!(peer = %self.peer, %error, "a connection ends: its peer is no longer trusted");
            // As any lost connection, and told as one (a word about certificates would be taken for a refusal): the peer may
            // have another certificate by now, and only a handshake will tell.
            std::io::Error::new(
                std::io::ErrorKind::ConnectionAborted,
                "the peer has to introduce itself anew",
            )
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Trusted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Trusted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
