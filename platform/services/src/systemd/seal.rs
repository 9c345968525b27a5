//! Whether this host's systemd and kernel seal units off from the network, found out by trying.
//!
//! systemd takes the setting everywhere, and says in its own log alone that the kernel does not do it (no BPF for control groups, a container that
//! may not load it). So a unit of a moment sends two datagrams, to an address that it may not reach and to one that it may: which of them arrive tells.

use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use zbus::Variant;

use super::{Systemd, end_of, failed};

const ITEM: &str = "systemd";
/// Both are this host's: nothing leaves it.
const DENIED: &str = "127.77.0.2";
const ALLOWED: &str = "127.77.0.1";
/// The network that the unit may not reach, and which family it is of.
const DENIED_NETWORK: (i32, [u8; 4], u32) = (2, [127, 77, 0, 2], 32);
/// A unit that says a word has done so by then.
const WITHIN: Duration = Duration::from_secs(20);
/// Datagrams of this host arrive at once.
const ARRIVES_WITHIN: Duration = Duration::from_millis(500);
const SAYS: &[u8] = b"x\n";

/// Tries it.
pub async fn probe(systemd: &Systemd) -> Result<bool> {
    let sockets = async { Ok::<_, std::io::Error>((listen(DENIED).await?, listen(ALLOWED).await?)) };
    let ((denied, denied_port), (allowed, allowed_port)) =
        sockets.await.map_err(|error| unknown("no socket can be opened").because(error))?;
    let (_, bytes, prefix) = DENIED_NETWORK;
    // The shell of every Debian; what it may not send is no reason for it to stop.
    let script = format!(
        "(echo x >/dev/udp/{DENIED}/{denied_port}) 2>/dev/null; echo x >/dev/udp/{ALLOWED}/{allowed_port}"
    );
    let command = vec![("/bin/bash".to_owned(), vec!["bash".to_owned(), "-c".to_owned(), script], false)];
    let settings: Vec<(&str, Variant<'_>)> = vec![
        ("Description", Variant::from("Handover: whether units are sealed off")),
        ("Type", Variant::from("oneshot")),
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("ExecStart", Variant::from(command)),
        ("IPAddressDeny", Variant::from(vec![(DENIED_NETWORK.0, bytes.to_vec(), prefix)])),
    ];
    let unit = format!("handover-seal-{}-{allowed_port}.service", std::process::id());
    run(systemd, &unit, settings).await?;
    match (arrives(&denied).await, arrives(&allowed).await) {
        (false, true) => Ok(true),
        (true, true) => Ok(false),
        _ => Err(unknown("a unit that was to send a datagram has sent none")),
    }
}

async fn listen(address: &str) -> std::io::Result<(UdpSocket, u16)> {
    let socket = UdpSocket::bind((address, 0)).await?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

async fn arrives(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 16];
    let received = timeout(ARRIVES_WITHIN, socket.recv(&mut buffer)).await;
    matches!(received, Ok(Ok(length)) if buffer[..length] == *SAYS)
}

/// Runs a unit of these settings to its end.
async fn run(systemd: &Systemd, unit: &str, settings: Vec<(&str, Variant<'_>)>) -> Result<()> {
    let manager = systemd.manager().await?;
    let cannot = |error| failed(ITEM, "whether it seals units off cannot be tried", error);
    let mut removed = manager.receive_signal("JobRemoved").await.map_err(cannot)?;
    let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
    let job = manager.call("StartTransientUnit", &(unit, "fail", settings, others)).await.map_err(cannot)?;
    let ended = timeout(WITHIN, end_of(&mut removed, manager.connection(), &job)).await;
    match ended {
        Ok(ended) => ended.map(drop).map_err(cannot),
        Err(_) => Err(unknown("a unit that was to send a datagram has not ended")),
    }
}

fn unknown(what: &str) -> Failure {
    let hint = "look at `systemctl status` and at `journalctl -b`, or write trial = \"stopped\" or \"open\"";
    Failure::operator(ITEM, format!("whether it seals units off is not known: {what}")).hint(hint)
}
