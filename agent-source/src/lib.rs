//! The source agent: serves an appliance's inventory, snapshots and chunks to the target agent. It keeps no progress.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use handover_certs::material::MaterialPaths;
use handover_certs::reload::Credentials;
use handover_engine::failure::Failure;
use handover_engine::mode::Mode;
use handover_engine::ports::Source;
use handover_platform::backups::{self, Guard};
use handover_platform::changeover::LocalChangeover;
use handover_platform::daemon::{self, StateDir, StateError};
use handover_platform::hooks::note::{self, Noting};
use handover_platform::hooks::{HookDirectory, Side};
use handover_platform::manifest::{Manifest, ManifestError, read_toml};
use handover_platform::source::{CaptureLimits, LocalSource};
use handover_platform::{SystemClock, access};
use handover_transport::listen;
use handover_transport::source::SourceService;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves an appliance's data to a Handover target agent.
#[derive(Debug, clap::Parser)]
#[command(name = "handover-source", version)]
pub struct Arguments {
    /// Settings of this agent.
    #[arg(long, value_name = "FILE", default_value = "/etc/handover/source.toml")]
    pub config: PathBuf,
    /// Says whether this agent may be upgraded now, and does nothing else. Exits with 1 while a migration goes on.
    #[arg(long)]
    pub check_upgrade: bool,
    /// Watches over a swap of settings, and does nothing else: takes back what is not confirmed in time, and reboots.
    #[arg(long)]
    pub dead_man: bool,
    /// Takes a swap of settings back and reboots, and does nothing else: for who has this host's console, when the other one cannot be reached.
    #[arg(long)]
    pub own_settings: bool,
}

/// `source.toml`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address to serve at; port 0 takes a free one, which is written to the file `address` in the state directory.
    pub listen: SocketAddr,
    /// The manifest.
    pub manifest: PathBuf,
    /// Where this agent keeps its own files.
    pub state: PathBuf,
    /// Certificate, key, CA bundle and revocation list.
    pub tls: MaterialPaths,
    /// How long a snapshot is held open for a target that no longer asks, in seconds.
    #[serde(default = "default_lease")]
    pub lease_seconds: u64,
    /// How long changes are kept for a target that follows and no longer asks, in hours.
    #[serde(default = "default_capture_hours")]
    pub capture_hours: u64,
    /// How many bytes of changes are kept for one at most, about.
    #[serde(default = "default_capture_bytes")]
    pub capture_bytes: u64,
}

fn default_capture_hours() -> u64 {
    CaptureLimits::default().idle.as_secs() / 3600
}

fn default_capture_bytes() -> u64 {
    CaptureLimits::default().bytes
}

fn default_lease() -> u64 {
    120
}

/// What keeps the agent from serving.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The settings or the manifest.
    #[error(transparent)]
    Settings(#[from] ManifestError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Certificate, key, CA or CRL.
    #[error(transparent)]
    Material(#[from] handover_certs::material::MaterialError),
    /// A dataset of the manifest.
    #[error(transparent)]
    Dataset(#[from] Failure),
    /// The address.
    #[error("cannot serve at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The server.
    #[error("the server ended")]
    Serve(#[from] handover_transport::ServeError),
}

/// Runs until a signal; the exit code says how it went.
pub async fn main(arguments: &Arguments) -> ExitCode {
    if arguments.check_upgrade {
        return check_upgrade(&arguments.config);
    }
    daemon::log_to_stderr();
    if arguments.dead_man {
        return daemon::watch_swap(&arguments.config).await;
    }
    if arguments.own_settings {
        return daemon::take_swap_back(&arguments.config).await;
    }
    let stop = CancellationToken::new();
    let signals = tokio::spawn(daemon::stop_at_signals(stop.clone()));
    let result = run(&arguments.config, stop).await;
    signals.abort();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", daemon::with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether this agent may be upgraded: not while a migration goes on. It may be running meanwhile.
fn check_upgrade(config: &Path) -> ExitCode {
    let state = match read_toml::<Config>(config) {
        Ok(config) => config.state,
        Err(error) => return daemon::refuse_upgrade(&daemon::with_causes(&error)),
    };
    match note::noted(&state) {
        Ok(None) => daemon::allow_upgrade(),
        Ok(Some(migration)) => daemon::refuse_upgrade(&format!(
            "migration {migration} goes on (mode {}): finalize or abort it first; if the target is gone for good, remove {}",
            Mode::Migration,
            note::file(&state).display()
        )),
        Err(error) => {
            daemon::refuse_upgrade(&format!("{}: cannot be read: {error}", note::file(&state).display()))
        }
    }
}

/// Serves until `stop`.
pub async fn run(config: &Path, stop: CancellationToken) -> Result<(), AgentError> {
    let config: Config = read_toml(config)?;
    let manifest = Manifest::read(&config.manifest)?;
    let state = StateDir::open(&config.state)?;
    let credentials = Credentials::load(config.tls, None)?;
    let clock = Arc::new(SystemClock);
    let lease = Duration::from_secs(config.lease_seconds);
    let idle = Duration::from_secs(config.capture_hours.saturating_mul(3600));
    let limits = CaptureLimits { idle, bytes: config.capture_bytes };
    let changeover = LocalChangeover::new(&manifest, state.path(), access::Side::Source, clock.clone());
    let source = LocalSource::new(&manifest, state.path(), lease, limits, clock.clone(), changeover.ports())?;
    let (guard, running) = (restore_guard(state.path()), backups::noted(state.path()));
    let backups = backups::of(&manifest, state.path(), guard, running, clock.clone(), stop.clone())?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| AgentError::Listen { address: config.listen, source })?;
    let address = listener.local_addr().unwrap_or(config.listen);
    state.publish_address(address)?;
    tracing::info!(%address, identity = %credentials.identity(), "the source agent serves");
    let hooks = Arc::new(HookDirectory::new(&manifest, Side::Source));
    let restoring: Guard = Arc::new({
        let backups = backups.clone();
        move || backups.refuse_while_restoring()
    });
    source.guarded_by(restoring.clone());
    let hooks = Arc::new(Noting::new(state.path(), hooks).guarded_by(restoring));
    let served = Source::of(source.clone())
        .with_home(source.clone())
        .with_hooks(hooks)
        .with_licences(source.licence())
        .with_changeover(changeover.ports())
        .with_backups(Arc::new(backups.clone()));
    let service = SourceService::server(served, clock);
    let reload = credentials.clone().watch(handover_transport::RELOAD_EVERY, stop.clone().cancelled_owned());
    tokio::select! {
        served = listen::serve(listener, credentials, service, stop) => served?,
        () = source.end_stale_leases() => {}
        () = source.end_stale_captures() => {}
        () = source.rest_gauges() => {}
        _ = changeover.end_stale_maintenance(&source) => {}
        () = reload => {}
    }
    backups.ended().await;
    Ok(())
}

/// Nothing is restored at a source while it is noted that a migration goes on: it is being read, or has been left.
fn restore_guard(state: &Path) -> Guard {
    let state = state.to_owned();
    Arc::new(move || match note::noted(&state) {
        Ok(None) => Ok(()),
        Ok(Some(migration)) => {
            Err(Failure::operator("restore", format!("migration {migration} goes on at this source")).hint(
                format!(
                    "finalize or abort it first; if the target is gone for good, remove {}",
                    note::file(&state).display()
                ),
            ))
        }
        Err(error) => {
            Err(Failure::operator(note::file(&state).display().to_string(), "cannot be read").because(error))
        }
    })
}
