//! The target agent: plans, runs, journals and verifies migrations, and answers operators and watchers.

mod audited;
mod datasets;
mod notary;
mod rehearsals;
mod supervisor;
mod throttle;
mod upgrade;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use handover_certs::identity::Role;
use handover_certs::material::MaterialPaths;
use handover_certs::reload::Credentials;
use handover_engine::audit::Act;
use handover_engine::driver::Settings;
use handover_engine::journal::Journal;
use handover_engine::reserve::Reserve;
use handover_engine::time::Clock;
use handover_platform::SystemClock;
use handover_platform::backups::{self, Guard, Running};
use handover_platform::daemon::{self, StateDir, StateError};
use handover_platform::manifest::{Manifest, ManifestError, read_toml};
use handover_platform::spool::SpoolDirectory;
use handover_platform::store::Store;
use handover_transport::client::RemoteSource;
use handover_transport::control::service::ControlService;
use handover_transport::listen;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::audited::Audited;
use self::datasets::LocalDatasets;
use self::notary::Notary;
use self::supervisor::Supervisor;
use self::throttle::ThrottleSection;

/// The journal, in the state directory.
const JOURNAL: &str = "journal.db";

/// Brings an appliance's data to this host, from a Handover source agent.
#[derive(Debug, clap::Parser)]
#[command(name = "handover-target", version)]
pub struct Arguments {
    /// Settings of this agent.
    #[arg(long, value_name = "FILE", default_value = "/etc/handover/target.toml")]
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

/// `target.toml`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address to serve at; port 0 takes a free one, which is written to the file `address` in the state directory.
    pub listen: SocketAddr,
    /// The manifest.
    pub manifest: PathBuf,
    /// Where this agent keeps its journal.
    pub state: PathBuf,
    /// Certificate, key, CA bundle and revocation list.
    pub tls: MaterialPaths,
    /// The source agent.
    pub source: SourceSection,
    /// How much it takes on.
    #[serde(default)]
    pub limits: Limits,
    /// How the source is throttled.
    #[serde(default)]
    pub throttle: ThrottleSection,
}

/// `[source]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    /// Its address: host:port.
    pub address: String,
    /// Where it answers otherwise, tried in this order: after a swap of settings it is at another address.
    #[serde(default)]
    pub others: Vec<String>,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Streams side by side.
    pub lanes: usize,
    /// How long a step is tried again by itself without getting on, in seconds.
    pub patience_seconds: u64,
    /// How long each host waits for the other after a reboot with swapped settings, in seconds, before it takes its own back.
    pub swap_seconds: u64,
    /// Bytes of changes that may wait on disk, for each database.
    pub spool_bytes: u64,
    /// Bytes of changes that this host's databases may keep for a source that follows them and does not come for them, about.
    pub capture_bytes: u64,
    /// Bytes that are kept free of each disk; 512 MiB where nothing is said, or two percent of a small one.
    pub reserve_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lanes: 4,
            patience_seconds: 300,
            swap_seconds: 120,
            spool_bytes: 10 << 30,
            capture_bytes: 10 << 30,
            reserve_bytes: None,
        }
    }
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
    /// The journal, a dataset of the manifest, or the source's address.
    #[error(transparent)]
    Failed(#[from] handover_engine::failure::Failure),
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
        return upgrade::check(&arguments.config).await;
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

/// Serves until `stop`. Migrations that were running when the agent last ended go on.
pub async fn run(config: &Path, stop: CancellationToken) -> Result<(), AgentError> {
    let config: Config = read_toml(config)?;
    let manifest = Manifest::read(&config.manifest)?;
    let state = StateDir::open(&config.state)?;
    let credentials = Credentials::load(config.tls, Some(Role::Source))?;
    let identity = credentials.identity().to_string();
    let store = Store::open(&state.path().join(JOURNAL)).await?.of_agent(&identity);
    let source = Arc::new(RemoteSource::new(&config.source.address, &config.source.others, &credentials)?);
    let notary = Notary::new(credentials.clone(), state.path().join("reports"));
    let settings = Settings {
        lanes: config.limits.lanes.max(1),
        patience: Duration::from_secs(config.limits.patience_seconds),
        swap_limit: Duration::from_secs(config.limits.swap_seconds.max(1)),
        throttle: config.throttle.throttle(),
        reserve: Reserve { bytes: config.limits.reserve_bytes },
        calendar: manifest.calendar.calendar(),
    };
    // Whether a restore is safe is known by the supervisor, who is asked for it.
    let (guard, clock): (Guard, _) = (Arc::new(|| Ok(())), Arc::new(SystemClock));
    let backups = backups::of(&manifest, state.path(), guard, running(&store), clock, stop.clone())?;
    let datasets = LocalDatasets::new(manifest, state.path(), config.limits.capture_bytes)?;
    let spools =
        SpoolDirectory::new(state.path().join("spool"), config.limits.spool_bytes).beside(datasets.places()?);
    let supervisor = Supervisor::new(
        notary,
        source,
        datasets,
        backups.clone(),
        store.clone(),
        spools,
        settings,
        stop.clone(),
    );
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| AgentError::Listen { address: config.listen, source })?;
    let address = listener.local_addr().unwrap_or(config.listen);
    let began = Act::Began { release: env!("CARGO_PKG_VERSION").to_owned(), source: config.source.address };
    store.note(SystemClock.now(), None, None, began).await?;
    supervisor.carry_on().await?;
    state.publish_address(address)?;
    tracing::info!(%address, identity = %credentials.identity(), "the target agent serves");
    let service = ControlService::server(Audited::new(supervisor.clone(), store), Arc::new(SystemClock));
    let reload = credentials.clone().watch(handover_transport::RELOAD_EVERY, stop.clone().cancelled_owned());
    tokio::select! {
        served = listen::serve(listener, credentials, service, stop) => served?,
        () = reload => {}
    }
    // What the workers still do is journaled before the process ends.
    supervisor.ended().await?;
    backups.ended().await;
    Ok(())
}

/// The migrations that have not come to their end.
fn running(store: &Store) -> Running {
    let store = store.clone();
    Arc::new(move || {
        let store = store.clone();
        let running = async move {
            let all = store.migrations().await?.into_iter();
            Ok(all
                .filter(|migration| !migration.state.phase.is_final())
                .map(|migration| migration.id)
                .collect())
        };
        running.boxed()
    })
}
