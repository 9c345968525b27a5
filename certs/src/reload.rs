//! Credentials in use: reloaded when their files change, without dropping the connection of a peer that is still trusted.

mod expiry;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::sync::watch;
use webpki::OwnedCertRevocationList;

use crate::clock;
use crate::identity::{Identity, Role};
use crate::material::{Material, MaterialError, MaterialPaths};
use crate::signed::{Signed, SignedError};
use crate::tls::{self, Side};

struct InUse {
    identity: Identity,
    not_after: OffsetDateTime,
    lifetime: time::Duration,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    trust: tls::Trust,
    signing: Arc<CertifiedKey>,
    crls: Vec<OwnedCertRevocationList>,
}

/// An agent's or an operator's credentials. New handshakes use what the files hold now; connections live
/// on, as long as their peers are trusted ([`Standing`]).
pub struct Credentials {
    paths: MaterialPaths,
    peer: Option<Role>,
    /// How the files looked at `load`.
    loaded: Seen,
    now: ArcSwap<InUse>,
    reloads: watch::Sender<u64>,
    /// As many as `reloads` has sent: cheap to look at.
    generation: AtomicU64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("paths", &self.paths)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What tells that a file has changed: length, time of change, inode.
type Seen = [Option<(u64, i64, i64, u64)>; 4];

impl Credentials {
    /// Loads the files. Peers that we connect to must have the role `peer`, where given.
    pub fn load(paths: MaterialPaths, peer: Option<Role>) -> Result<Arc<Self>, MaterialError> {
        let loaded = seen(&paths);
        let now = ArcSwap::from_pointee(in_use(Material::load(&paths)?, peer)?);
        Ok(Arc::new(Self {
            paths,
            peer,
            loaded,
            now,
            reloads: watch::Sender::new(0),
            generation: AtomicU64::new(0),
        }))
    }

    /// How to accept a connection now. Ask for each connection.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.now.load().server.clone()
    }

    /// How to make a connection now. Ask for each connection.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.now.load().client.clone()
    }

    /// Who we are.
    pub fn identity(&self) -> Identity {
        self.now.load().identity.clone()
    }

    /// Signs a text with the key in use now.
    pub fn sign(&self, text: String) -> Result<Signed, SignedError> {
        Signed::make(text, &self.now.load().signing)
    }

    /// When our certificate expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.now.load().not_after
    }

    /// Counts the reloads, and wakes whoever waits for one: to connect anew, or to show the new expiry.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// Loads the files again. When they cannot be used, what is in use stays; so do revocation lists whose file is gone: else whoever
    /// deletes it would let everybody in again.
    pub fn reload(&self) -> Result<(), MaterialError> {
        let mut material = Material::load(&self.paths)?;
        let before = self.now.load();
        if material.crls.is_empty() && !before.crls.is_empty() {
            let path = self.paths.crl.as_deref().unwrap_or(Path::new("")).display();
            tracing::warn!(
                %path,
                "the revocation list is gone: the last one stays in use; bring the CA's `crl.pem` back"
            );
            material.crls.clone_from(&before.crls);
        }
        self.now.store(Arc::new(in_use(material, self.peer)?));
        self.generation.fetch_add(1, Ordering::Release);
        self.reloads.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Looks at the files at once and then every so often, and reloads when they have changed, until `stop`; warns of expiry.
    /// A set that cannot be used, half-written for example, is logged once and tried again each time; the old one stays.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: impl Future<Output = ()>) {
        let watching = async {
            let mut watcher = Watcher { seen: self.loaded, failure: None, warned: None };
            loop {
                watcher.look(&self);
                tokio::time::sleep(every).await;
            }
        };
        tokio::select! {
            () = watching => {}
            () = stop => {}
        }
    }
}

/// Whether the peer of a connection is still trusted: looked at again each time our files have changed.
pub struct Standing {
    credentials: Arc<Credentials>,
    certificates: Vec<CertificateDer<'static>>,
    /// What the peer is to us.
    side: Side,
    checked: u64,
}

impl Standing {
    /// For a peer that has just passed the handshake, with what it presented.
    pub fn new(
        credentials: Arc<Credentials>,
        certificates: Vec<CertificateDer<'static>>,
        side: Side,
    ) -> Self {
        // The files may have changed during the handshake: looked at once more in any case.
        Self { credentials, certificates, side, checked: u64::MAX }
    }

    /// An error once the peer would no longer be let in: revoked, or of a CA that is no longer trusted.
    pub fn check(&mut self) -> Result<(), rustls::Error> {
        let generation = self.credentials.generation.load(Ordering::Acquire);
        if generation != self.checked {
            self.credentials.now.load().trust.verify(&self.certificates, self.side)?;
            self.checked = generation;
        }
        Ok(())
    }
}

fn seen(paths: &MaterialPaths) -> Seen {
    let look = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino()))
    };
    [look(&paths.certificate), look(&paths.key), look(&paths.ca), paths.crl.as_deref().and_then(look)]
}

/// What one watch remembers between looks.
struct Watcher {
    seen: Seen,
    /// What was said of a set that cannot be used.
    failure: Option<String>,
    warned: Option<tokio::time::Instant>,
}

impl Watcher {
    fn look(&mut self, credentials: &Credentials) {
        // Looked at before it is read: what changes while it is read is seen as changed the next time.
        let seen = seen(&credentials.paths);
        // A failure may end without a change that shows here, as when a mode is set right or a clock moves on.
        if self.seen != seen || self.failure.is_some() {
            self.reload(credentials);
            self.seen = seen;
        }
        self.warn_of_expiry(credentials);
    }

    fn reload(&mut self, credentials: &Credentials) {
        match credentials.reload() {
            Ok(()) => {
                (self.failure, self.warned) = (None, None);
                let (identity, not_after) = (credentials.identity(), credentials.not_after());
                tracing::info!(%identity, %not_after, "certificates reloaded");
            }
            Err(error) => {
                let said = error.to_string();
                if self.failure.as_ref() != Some(&said) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "changed certificate files cannot be used: the old ones stay in use"
                    );
                }
                self.failure = Some(said);
            }
        }
    }

    fn warn_of_expiry(&mut self, credentials: &Credentials) {
        let now = credentials.now.load();
        let left = now.not_after - clock::now();
        let due = self.warned.is_none_or(|at| at.elapsed() >= expiry::WARN_EVERY);
        if !due || !expiry::is_near(left, now.lifetime) {
            return;
        }
        self.warned = Some(tokio::time::Instant::now());
        let (identity, not_after, days_left) = (&now.identity, now.not_after, left.whole_days());
        if left.is_negative() {
            tracing::error!(%identity, %not_after, "the certificate has expired: `handover certs renew` makes a new one");
        } else {
            tracing::warn!(%identity, %not_after, days_left, "the certificate expires soon: `handover certs renew` makes a new one");
        }
    }
}

fn in_use(material: Material, peer: Option<Role>) -> Result<InUse, MaterialError> {
    Ok(InUse {
        identity: material.identity().clone(),
        not_after: material.not_after(),
        lifetime: material.lifetime(),
        server: tls::server_config(&material)?,
        client: tls::client_config(&material, peer)?,
        trust: tls::Trust::new(&material, peer),
        signing: tls::signing_key(&material)?,
        crls: material.crls,
    })
}
