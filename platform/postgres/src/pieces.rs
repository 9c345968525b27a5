//! A server's answers with large messages cut up.
//!
//! The server sends each row of a `COPY` as one message, and the protocol's reader holds messages whole, several of them: rows
//! of some 100 MiB would be in memory many times over. Where a message of rows ends means nothing to the protocol, so that
//! one message may as well be many: here they are cut before the reader sees them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// Most bytes of rows in one message.
const PIECE: u32 = 64 << 10;
/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;
/// A message's kind and its length.
const HEAD: usize = 5;
/// The kind of a message with rows.
const ROWS: u8 = b'd';

/// A connection whose answers come in pieces.
pub struct Pieces<S> {
    inner: S,
    binding: fn(&S) -> ChannelBinding,
    /// What the server has sent, from `at` on.
    raw: Vec<u8>,
    at: usize,
    cut: Cut,
}

/// Where in the server's messages the reader is.
#[derive(Debug, Default)]
struct Cut {
    /// The head of the message that begins, as far as it is there.
    head: Vec<u8>,
    /// Bytes of a head that the reader has not got yet.
    told: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: u32,
    /// Bytes of the piece that are still to come; all of the message where it is not cut.
    piece: u32,
}

impl Cut {
    /// Moves what it can from `raw` to `out`; how many bytes of `raw` were used.
    fn go(&mut self, raw: &[u8], out: &mut ReadBuf<'_>) -> usize {
        let mut rest = raw;
        while out.remaining() > 0 {
            if !self.told.is_empty() {
                let now = self.told.len().min(out.remaining());
                out.put_slice(&self.told[..now]);
                self.told.drain(..now);
            } else if self.piece > 0 {
                let now = rest.len().min(out.remaining()).min(self.piece as usize);
                if now == 0 {
                    break;
                }
                out.put_slice(&rest[..now]);
                rest = &rest[now..];
                // No more than a u32 was asked for.
                let now = u32::try_from(now).unwrap_or(u32::MAX);
                (self.left, self.piece) = (self.left - now, self.piece - now);
            } else if self.left > 0 {
                self.piece = self.left.min(PIECE);
                self.tell(ROWS, self.piece);
            } else {
                let now = rest.len().min(HEAD - self.head.len());
                if now == 0 {
                    break;
                }
                self.head.extend_from_slice(&rest[..now]);
                rest = &rest[now..];
                self.begin();
            }
        }
        raw.len() - rest.len()
    }

    /// Begins a message once its head is there.
    fn begin(&mut self) {
        let &[kind, a, b, c, d] = &self.head[..] else { return };
        self.head.clear();
        let length = u32::from_be_bytes([a, b, c, d]);
        // The length counts itself. One that cannot be is for the reader to refuse.
        self.left = length.saturating_sub(4);
        if kind != ROWS || self.left <= PIECE {
            self.told.push(kind);
            self.told.extend_from_slice(&length.to_be_bytes());
            self.piece = self.left;
        }
    }

    fn tell(&mut self, kind: u8, bytes: u32) {
        self.told.push(kind);
        self.told.extend_from_slice(&(bytes + 4).to_be_bytes());
    }
}

impl<S> Pieces<S> {
    /// A connection that is not encrypted.
    pub fn plain(inner: S) -> Self {
        Self::new(inner, |_| ChannelBinding::none())
    }

    fn new(inner: S, binding: fn(&S) -> ChannelBinding) -> Self {
        Self { inner, binding, raw: Vec::new(), at: 0, cut: Cut::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pieces<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, raw, at, cut, .. } = self.get_mut();
        let before = out.filled().len();
        loop {
            *at += cut.go(&raw[*at..], out);
            if out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // All that was read has been used.
            raw.resize(BUFFER, 0);
            *at = BUFFER;
            let mut read = ReadBuf::new(raw);
            let result = ready!(Pin::new(&mut *inner).poll_read(cx, &mut read));
            let found = read.filled().len();
            raw.truncate(found);
            *at = 0;
            result?;
            if found == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pieces<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Pieces<S> {
    fn channel_binding(&self) -> ChannelBinding {
        (self.binding)(&self.inner)
    }
}

/// Connects as `M` does, in pieces.
#[derive(Clone)]
pub struct Piecewise<M>(pub M);

/// Connects without encryption, in pieces. With a configuration that says that TLS begins at once, nothing is sent for it.
#[derive(Clone)]
pub struct Plain;

type Connecting<S, E> = Pin<Box<dyn Future<Output = Result<Pieces<S>, E>> + Send>>;

impl<M> MakeTlsConnect<Socket> for Piecewise<M>
where
    M: MakeTlsConnect<Socket>,
    M::TlsConnect: Send + 'static,
    <M::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    type Stream = Pieces<M::Stream>;
    type TlsConnect = Piecewise<M::TlsConnect>;
    type Error = M::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        self.0.make_tls_connect(domain).map(Piecewise)
    }
}

impl<T> TlsConnect<Socket> for Piecewise<T>
where
    T: TlsConnect<Socket> + 'static,
    T::Future: Send,
{
    type Stream = Pieces<T::Stream>;
    type Error = T::Error;
    type Future = Connecting<T::Stream, T::Error>;

    fn connect(self, stream: Socket) -> Self::Future {
        let connecting = self.0.connect(stream);
        Box::pin(async move { Ok(Pieces::new(connecting.await?, TlsStream::channel_binding)) })
    }
}

impl MakeTlsConnect<Socket> for Plain {
    type Stream = Pieces<Socket>;
    type TlsConnect = Plain;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _domain: &str) -> io::Result<Plain> {
        Ok(Plain)
    }
}

impl TlsConnect<Socket> for Plain {
    type Stream = Pieces<Socket>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Pieces<Socket>>>;

    fn connect(self, stream: Socket) -> Self::Future {
        std::future::ready(Ok(Pieces::plain(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// What arrives when the server sends this in parts of `step` bytes.
    async fn through(sent: Vec<u8>, step: usize) -> Vec<u8> {
        let (mut server, client) = tokio::io::duplex(step);
        let writer = tokio::spawn(async move { server.write_all(&sent).await });
        let mut out = Vec::new();
        Pieces::plain(client).read_to_end(&mut out).await.unwrap();
        writer.await.unwrap().unwrap();
        out
    }

    #[tokio::test]
    async fn rows_are_cut_and_nothing_else_is_touched() {
        let most = PIECE as usize;
        let body: Vec<u8> = (0..most * 2 + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let pieces = body.chunks(most).map(|piece| message(b'd', piece)).collect::<Vec<_>>().concat();
        let cases = [
            (message(b'd', &body), pieces.clone()),
            (message(b'D', &body), message(b'D', &body)),
            (message(b'd', &body[..most]), message(b'd', &body[..most])),
            (message(b'd', b""), message(b'd', b"")),
        ];
        for step in [1 << 20, 4096, 7] {
            for (sent, expected) in &cases {
                let sent = [&message(b'Z', b"I")[..], sent, &message(b'C', b"COPY")].concat();
                let expected = [&message(b'Z', b"I")[..], expected, &message(b'C', b"COPY")].concat();
                assert!(through(sent, step).await == expected, "{step}");
            }
        }
    }
}
