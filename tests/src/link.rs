//! A link between the agents that can be cut: a forwarder of TCP connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

/// Forwards connections until it is dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    accepts: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Both ends of every connection that was made.
    open: Vec<TcpStream>,
    is_cut: bool,
    is_over: bool,
    /// How long each piece of up to 64 KiB waits.
    wait: Duration,
}

impl Link {
    /// A link to `to`, on a free port.
    pub fn to(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let ours = shared.clone();
        let accepts = std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if lock(&ours).is_over {
                    return;
                }
                if !lock(&ours).is_cut
                    && let Ok(far) = TcpStream::connect(to)
                {
                    join(near, far, &ours);
                }
            }
        });
        Ok(Self { address, shared, accepts: Some(accepts) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and refuses new ones.
    pub fn cut(&self) {
        let mut shared = lock(&self.shared);
        shared.is_cut = true;
        for stream in shared.open.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets each piece of up to 64 KiB wait for so long, in either direction.
    pub fn slow_down(&self, wait: Duration) {
        lock(&self.shared).wait = wait;
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        lock(&self.shared).is_cut = false;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
        lock(&self.shared).is_over = true;
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepts) = self.accepts.take() {
            let _ = accepts.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(near: TcpStream, far: TcpStream, shared: &Arc<Mutex<Shared>>) {
    let (Ok(ours), Ok(theirs)) = (near.try_clone(), far.try_clone()) else { return };
    let mut known = lock(shared);
    if known.is_cut {
        return;
    }
    // Before anything passes: a cut must find it.
    known.open.extend([ours, theirs]);
    drop(known);
    for (from, to) in [(&near, &far), (&far, &near)] {
        if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
            let shared = shared.clone();
            std::thread::spawn(move || pump(from, to, &shared));
        }
    }
}

/// Ends when either side does.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Mutex<Shared>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        let wait = lock(shared).wait;
        if !wait.is_zero() {
            crate::poll::pause(wait);
        }
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_until_it_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Link::to(listener.local_addr().unwrap()).unwrap();
        let mut near = TcpStream::connect(link.address()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        far.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        link.cut();
        assert_eq!(near.read(&mut heard).unwrap_or(0), 0);
        let mut refused = TcpStream::connect(link.address()).unwrap();
        assert_eq!(refused.read(&mut heard).unwrap_or(0), 0);
        link.mend();
        let mut near = TcpStream::connect(link.address()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.write_all(b"again").unwrap();
        near.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"again");
    }
}
