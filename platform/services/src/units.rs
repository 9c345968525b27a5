//! The units of a host, as whatever runs them tells and does.

use std::time::Duration;

use async_trait::async_trait;
use handover_engine::ports::Result;

/// How a unit stands, in systemd's own words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitState {
    /// Its own name: another one than was asked for where that is an alias.
    pub id: String,
    /// Whether its file could be read: `loaded`, `not-found`, `masked`, `bad-setting`…
    pub load: String,
    /// `active`, `reloading`, `activating`, `inactive`, `deactivating`, `failed`…
    pub active: String,
    /// The same more closely, by the kind of unit: `running`, `dead`, `listening`…
    pub sub: String,
    /// Whether it starts with the host: `enabled`, `enabled-runtime`, `disabled`, `static`…; empty where there is no file.
    pub file: String,
    /// How it ended last: `success`, `exit-code`, `timeout`…; empty for units that do not tell.
    pub result: String,
    /// It runs once and is done.
    pub is_oneshot: bool,
    /// What it starts when that is called for: a socket, a timer or a path. (The other way round systemd knows only while that is loaded.)
    pub triggers: Vec<String>,
    /// The files that its settings come from beside its own, as systemd has read them last.
    pub drop_ins: Vec<String>,
}

impl UnitState {
    /// Nothing of it runs.
    pub fn is_down(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }

    /// It runs, or has run as it should.
    pub fn is_up(&self) -> bool {
        let is_done = self.is_oneshot && self.active == "inactive" && self.result == "success";
        matches!(self.active.as_str(), "active" | "reloading") || is_done
    }

    /// It starts with the host because somebody said so, and can be told not to.
    pub fn is_enabled(&self) -> bool {
        matches!(self.file.as_str(), "enabled" | "enabled-runtime")
    }

    /// Why it cannot be handled, and what to do; none where it can be.
    pub fn problem(&self, unit: &str) -> Option<(String, String)> {
        let told = |what: &str, hint: String| Some((what.to_owned(), hint));
        match self.load.as_str() {
            "not-found" => told(
                "there is no such unit",
                format!("install it, or take [[service]] {unit} out of appliance.toml"),
            ),
            "masked" => told("it is masked", format!("systemctl unmask {unit}")),
            "loaded" | "merged" if !self.id.is_empty() && self.id != unit => {
                told("it is another name of a unit", format!("write {} in appliance.toml", self.id))
            }
            "loaded" | "merged" => None,
            load => told(
                &format!("systemd cannot read its file ({load})"),
                format!("systemd-analyze verify {unit}, mend it, then systemctl daemon-reload"),
            ),
        }
    }
}

/// What runs a host's units. Each act is idempotent; its failure names the unit.
#[async_trait]
pub trait Units: Send + Sync {
    /// How it stands; a unit that does not exist is no failure, its state says so.
    async fn look(&self, unit: &str) -> Result<UnitState>;

    /// Starts it, and waits until systemd says that it has, for so long.
    async fn start(&self, unit: &str, limit: Duration) -> Result<()>;

    /// Stops it, and waits until systemd says that it has, for so long.
    async fn stop(&self, unit: &str, limit: Duration) -> Result<()>;

    /// Has them start with the host: from the next boot on for good, or only until then.
    async fn enable(&self, units: &[&str], only_this_boot: bool) -> Result<()>;

    /// Has them start with the host no more: undoes what `enable` did with the same `only_this_boot`.
    async fn disable(&self, units: &[&str], only_this_boot: bool) -> Result<()>;

    /// Reads the files of all units anew.
    async fn reload(&self) -> Result<()>;

    /// Whether units can be sealed off from the network here: not every kernel does what systemd asks of it.
    async fn can_seal(&self) -> Result<bool>;

    /// The last lines of its journal, as they may stand in a message; none where they cannot be had.
    async fn last_lines(&self, unit: &str) -> Vec<String>;
}
