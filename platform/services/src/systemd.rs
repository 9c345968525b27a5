//! systemd, asked and told over the system's D-Bus.
//!
//! The connection is made when it is needed and made again when it is lost: a bus that is away for a moment is a transient failure.

mod error;
mod journal;
mod seal;

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryFutureExt};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{sleep, timeout};
use zbus::connection::Builder;
use zbus::proxy::{CacheProperties, SignalStream};
use zbus::{Connection, OwnedObjectPath, Proxy};

use self::error::{failed, has_gone, has_no_file};
pub use self::journal::told;
use crate::section::whole_name;
use crate::units::{UnitState, Units};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PEER: &str = "org.freedesktop.DBus.Peer";
const JOB: &str = "org.freedesktop.systemd1.Job";
/// systemd answers every call at once, but for `Reload`, which may take a while on a busy host.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// A service may reload or restart for so long, whoever asks for it.
const RESTARTS_WITHIN: Duration = Duration::from_secs(90);
/// How often it is looked whether a job is there at all: its end may have been told while systemd itself was replaced.
const LOOKS_EVERY: Duration = Duration::from_secs(2);

/// This host's systemd.
#[derive(Debug, Default)]
pub struct Systemd {
    bus: Mutex<Option<Connection>>,
    /// Whether it can seal units off, once that was tried.
    seals: OnceCell<bool>,
}

impl Systemd {
    /// Nothing is connected to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has a service that runs take its new settings: it reloads them, or is restarted where it cannot. One that does not run stays as it is.
    /// Returns once systemd says that it has. Idempotent. A name without a suffix is a service's.
    pub async fn reload_or_try_restart(&self, unit: &str) -> Result<()> {
        self.run(Act::ReloadOrTryRestart, &whole_name(unit), RESTARTS_WITHIN).await
    }

    /// Restarts it; one that does not run is started. Returns once systemd says that it has.
    pub async fn restart(&self, unit: &str) -> Result<()> {
        self.run(Act::Restart, &whole_name(unit), RESTARTS_WITHIN).await
    }

    /// Has the host go down and boot again, its services stopped in order. Returns before it goes down.
    pub async fn reboot(&self) -> Result<()> {
        let rebooting = self.manager().await?.call::<_, _, ()>("Reboot", &()).await;
        rebooting.map_err(|error| failed("systemd", "this host cannot be rebooted", error))
    }

    /// What manages the units, on a connection that works.
    async fn manager(&self) -> Result<Proxy<'static>> {
        let mut bus = self.bus.lock().await;
        if let Some(known) = bus.take() {
            // A bus that was restarted meanwhile knows nothing of this connection any more.
            let answers =
                known.call_method(Some(SYSTEMD), MANAGER_PATH, Some(PEER), "Ping", &()).await.is_ok();
            if answers && let Ok(manager) = proxy(&known, MANAGER_PATH.to_owned(), MANAGER).await {
                *bus = Some(known);
                return Ok(manager);
            }
        }
        let connecting = async {
            let connection = Builder::system().method_timeout(ANSWERS_WITHIN).build().await?;
            let manager = proxy(&connection, MANAGER_PATH.to_owned(), MANAGER).await?;
            // Only who has subscribed is told of jobs that others end.
            manager.call::<_, _, ()>("Subscribe", &()).await?;
            Ok::<_, zbus::Error>((connection, manager))
        };
        let connected = timeout(ANSWERS_WITHIN, connecting).await.unwrap_or_else(|_| {
            let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
            Err(zbus::Error::InputOutput(late.into()))
        });
        let (connection, manager) =
            connected.map_err(|error| failed("systemd", "it cannot be reached", error))?;
        *bus = Some(connection);
        Ok(manager)
    }

    /// Does something to a unit, and waits until it is done.
    async fn run(&self, act: Act, unit: &str, limit: Duration) -> Result<()> {
        let item = format!("service {unit}");
        let manager = self.manager().await?;
        let cannot = |error| failed(&item, act.cannot(), error);
        // First of all: a job may end before its number is known here.
        let mut removed = manager.receive_signal("JobRemoved").await.map_err(cannot)?;
        let job: OwnedObjectPath = manager.call(act.method(), &(unit, "replace")).await.map_err(cannot)?;
        let result = timeout(limit, end_of(&mut removed, manager.connection(), &job)).await;
        let lines = async { told(&self.last_lines(unit).await) };
        match result {
            Ok(Ok(result)) => match act.judge(&item, &result) {
                Some(failure) if !failure.is_transient() => Err(with_lines(failure, lines.await)),
                Some(failure) => Err(failure),
                None => Ok(()),
            },
            Ok(Err(error)) => Err(failed(&item, act.cannot(), error)),
            Err(_) => {
                let what = format!("{} within {} s{}", act.has_not(), limit.as_secs(), lines.await);
                let hint = format!("look at systemctl status {unit}, put it right, then resume");
                Err(Failure::operator(item, what).hint(hint))
            }
        }
    }

    async fn properties(&self, manager: &Proxy<'static>, unit: &str) -> zbus::Result<UnitState> {
        let path: OwnedObjectPath = manager.call("LoadUnit", &unit).await?;
        let of = proxy(manager.connection(), path.to_string(), UNIT).await?;
        let mut state = UnitState {
            id: of.get_property("Id").await?,
            load: of.get_property("LoadState").await?,
            active: of.get_property("ActiveState").await?,
            sub: of.get_property("SubState").await?,
            triggers: of.get_property("Triggers").await?,
            drop_ins: of.get_property("DropInPaths").await?,
            ..UnitState::default()
        };
        if let Some(kind) = kind(&state.id) {
            let of = proxy(manager.connection(), path.to_string(), kind).await?;
            state.result = of.get_property("Result").await?;
            state.is_oneshot =
                kind.ends_with(".Service") && of.get_property::<String>("Type").await? == "oneshot";
        }
        // The property of this name is remembered by systemd; this looks at the files.
        state.file = match manager.call("GetUnitFileState", &unit).await {
            Ok(file) => file,
            Err(error) if has_no_file(&error) => String::new(),
            Err(error) => return Err(error),
        };
        Ok(state)
    }

    async fn read_files(&self, manager: &Proxy<'static>) -> zbus::Result<()> {
        manager.call("Reload", &()).await
    }
}

#[async_trait]
impl Units for Systemd {
    async fn look(&self, unit: &str) -> Result<UnitState> {
        let manager = self.manager().await?;
        let cannot = |error| failed(&format!("service {unit}"), "systemd does not tell how it stands", error);
        self.properties(&manager, unit).await.map_err(cannot)
    }

    async fn start(&self, unit: &str, limit: Duration) -> Result<()> {
        self.run(Act::Start, unit, limit).await
    }

    async fn stop(&self, unit: &str, limit: Duration) -> Result<()> {
        self.run(Act::Stop, unit, limit).await
    }

    async fn enable(&self, units: &[&str], only_this_boot: bool) -> Result<()> {
        let manager = self.manager().await?;
        let cannot = |error| failed(&named(units), "systemd cannot have it start with the host", error);
        let replace_others = false;
        let body = (units, only_this_boot, replace_others);
        let enabling = manager.call::<_, _, (bool, Vec<Change>)>("EnableUnitFiles", &body);
        enabling.and_then(|_| self.read_files(&manager)).await.map_err(cannot)
    }

    async fn disable(&self, units: &[&str], only_this_boot: bool) -> Result<()> {
        let manager = self.manager().await?;
        let cannot =
            |error| failed(&named(units), "systemd cannot keep it from starting with the host", error);
        let body = (units, only_this_boot);
        let disabling = manager.call::<_, _, Vec<Change>>("DisableUnitFiles", &body);
        disabling.and_then(|_| self.read_files(&manager)).await.map_err(cannot)
    }

    async fn reload(&self) -> Result<()> {
        let manager = self.manager().await?;
        let cannot = |error| failed("systemd", "it cannot read the files of its units anew", error);
        self.read_files(&manager).await.map_err(cannot)
    }

    async fn can_seal(&self) -> Result<bool> {
        self.seals.get_or_try_init(|| seal::probe(self)).await.copied()
    }

    async fn last_lines(&self, unit: &str) -> Vec<String> {
        journal::last_lines(unit).await
    }
}

/// What was done to a link: how, its name, where it leads to.
type Change = (String, String, String);

/// What is done to a unit by a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Start,
    Stop,
    Restart,
    ReloadOrTryRestart,
}

impl Act {
    fn method(self) -> &'static str {
        match self {
            Act::Start => "StartUnit",
            Act::Stop => "StopUnit",
            Act::Restart => "RestartUnit",
            Act::ReloadOrTryRestart => "ReloadOrTryRestartUnit",
        }
    }

    fn cannot(self) -> &'static str {
        match self {
            Act::Start => "systemd cannot start it",
            Act::Stop => "systemd cannot stop it",
            Act::Restart => "systemd cannot restart it",
            Act::ReloadOrTryRestart => "systemd cannot reload it",
        }
    }

    fn has_not(self) -> &'static str {
        match self {
            Act::Start => "it did not start",
            Act::Stop => "it did not stop",
            Act::Restart => "it did not restart",
            Act::ReloadOrTryRestart => "it did not take its settings",
        }
    }

    /// What the end of its job means. None: it is done.
    fn judge(self, item: &str, result: &str) -> Option<Failure> {
        let unit = item.trim_start_matches("service ");
        let failure = |why: &str| Failure::operator(item, format!("{}: {why}", self.has_not()));
        let look = format!("look at systemctl status {unit}, put it right, then resume");
        match result {
            // Nothing was to be done; or it has ended, and how it stands now tells the rest.
            "done" | "skipped" | "once" | GONE => None,
            "failed" => Some(failure("it failed").hint(look)),
            "timeout" => Some(failure("it took longer than its unit allows").hint(look)),
            "dependency" => {
                let hint =
                    format!("look at systemctl list-dependencies {unit} for what has failed, then resume");
                Some(failure("a unit that it needs has failed").hint(hint))
            }
            "canceled" | "collected" => {
                let what = format!("{}: somebody else had another thing done with it", self.has_not());
                Some(Failure::transient(item, what).hint("let nobody start or stop it meanwhile"))
            }
            other => Some(failure(&format!("systemd says `{other}`")).hint(look)),
        }
    }
}

fn with_lines(mut failure: Failure, lines: String) -> Failure {
    failure.what.push_str(&lines);
    failure
}

fn named(units: &[&str]) -> String {
    format!("service {}", units.join(", "))
}

/// The interface of its kind, where that tells how it ended.
fn kind(unit: &str) -> Option<&'static str> {
    match unit.rsplit('.').next()? {
        "service" => Some("org.freedesktop.systemd1.Service"),
        "socket" => Some("org.freedesktop.systemd1.Socket"),
        "timer" => Some("org.freedesktop.systemd1.Timer"),
        "path" => Some("org.freedesktop.systemd1.Path"),
        _ => None,
    }
}

/// A job that is not there any more, whose end was not told.
const GONE: &str = "gone";

/// How a job ends.
async fn end_of(
    removed: &mut SignalStream<'_>,
    bus: &Connection,
    job: &OwnedObjectPath,
) -> zbus::Result<String> {
    loop {
        tokio::select! {
            signal = removed.next() => {
                let lost = || zbus::Error::InputOutput(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
                let signal = signal.ok_or_else(lost)?;
                let (_, path, _, result): (u32, OwnedObjectPath, String, String) = signal.body().deserialize()?;
                if path == *job {
                    return Ok(result);
                }
            }
            () = sleep(LOOKS_EVERY) => {
                let there = proxy(bus, job.to_string(), JOB).await?.get_property::<String>("State").await;
                if there.is_err_and(|error| has_gone(&error)) {
                    return Ok(GONE.to_owned());
                }
            }
        }
    }
}

async fn proxy(bus: &Connection, path: String, interface: &'static str) -> zbus::Result<Proxy<'static>> {
    let builder = zbus::proxy::Builder::new(bus).destination(SYSTEMD).path(path).interface(interface);
    builder.cache_properties(CacheProperties::No).build().await
}
