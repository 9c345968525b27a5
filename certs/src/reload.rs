//! Credentials in use: reloaded when their files change, without dropping a connection.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};
use time::OffsetDateTime;

use crate::identity::{Identity, Role};
use crate::material::{Material, MaterialError, MaterialPaths};
use crate::tls;

/// A certificate is warned about when less than this share of its lifetime is left…
const WARN_SHARE: i32 = 3;
/// …and again this often.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

struct InUse {
    identity: Identity,
    not_after: OffsetDateTime,
    lifetime: time::Duration,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// An agent's or an operator's credentials. New handshakes use what the files hold now; connections live on.
pub struct Credentials {
    paths: MaterialPaths,
    peer: Option<Role>,
    now: ArcSwap<InUse>,
}

/// What tells that a file has changed.
type Seen = Vec<Option<(u64, i64, i64, u64)>>;

impl Credentials {
    /// Loads the files. Peers that we connect to must have the role `peer`, where given.
    pub fn load(paths: MaterialPaths, peer: Option<Role>) -> Result<Arc<Self>, MaterialError> {
        let now = ArcSwap::from_pointee(in_use(&paths, peer)?);
        Ok(Arc::new(Self { paths, peer, now }))
    }

    /// How to accept a connection now.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.now.load().server.clone()
    }

    /// How to make a connection now.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.now.load().client.clone()
    }

    /// Who we are.
    pub fn identity(&self) -> Identity {
        self.now.load().identity.clone()
    }

    /// When our certificate expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.now.load().not_after
    }

    /// Loads the files again. When they cannot be used, what is in use stays.
    pub fn reload(&self) -> Result<(), MaterialError> {
        self.now.store(Arc::new(in_use(&self.paths, self.peer)?));
        Ok(())
    }

    /// Reloads whenever a file has changed, until `stop`; warns of expiry. A half-written set is logged and tried again.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: impl Future<Output = ()>) {
        let watching = async {
            let (mut seen, mut warned) = (self.look(), None);
            loop {
                self.warn_of_expiry(&mut warned);
                tokio::time::sleep(every).await;
                let looks = self.look();
                if looks == seen {
                    continue;
                }
                seen = looks;
                match self.reload() {
                    Ok(()) => tracing::info!(identity = %self.identity(), not_after = %self.not_after(), "certificates reloaded"),
                    Err(error) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "changed certificate files cannot be used: the old ones stay in use"
                    ),
                }
            }
        };
        tokio::select! {
            () = watching => {}
            () = stop => {}
        }
    }

    fn warn_of_expiry(&self, warned: &mut Option<tokio::time::Instant>) {
        let now = self.now.load();
        let left = now.not_after - crate::authority::now();
        let due = warned.is_none_or(|at| at.elapsed() >= WARN_EVERY);
        if due && left < now.lifetime / WARN_SHARE {
            *warned = Some(tokio::time::Instant::now());
            tracing::warn!(
                identity = %now.identity, not_after = %now.not_after, days_left = left.whole_days(),
                "the certificate expires soon: `handover certs renew` makes a new one"
            );
        }
    }

    fn look(&self) -> Seen {
        let paths = [Some(&self.paths.certificate), Some(&self.paths.key), Some(&self.paths.ca), self.paths.crl.as_ref()];
        let look = |path: Option<&PathBuf>| {
            let meta = std::fs::metadata(path?).ok()?;
            Some((meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino()))
        };
        paths.into_iter().map(look).collect()
    }
}

fn in_use(paths: &MaterialPaths, peer: Option<Role>) -> Result<InUse, MaterialError> {
    let material = Material::load(paths)?;
    Ok(InUse {
        identity: material.identity().clone(),
        not_after: material.not_after(),
        lifetime: material.lifetime(),
        server: tls::server_config(&material)?,
        client: tls::client_config(&material, peer)?,
    })
}
