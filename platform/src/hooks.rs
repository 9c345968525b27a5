//! Hooks as executables: those that this host's own manifest names, in the order of their names.

pub mod note;
pub(crate) mod run;
pub(crate) mod trust;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::check::{Finding, Severity};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::ports::hooks::{Hooks, Occasion};
use handover_engine::time::Clock;
use handover_notices::{Names, Noticing};

use self::run::Ended;
use crate::manifest::{HookSection, Manifest, OnFailure};

/// The part that a host plays in a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It is moved from.
    Source,
    /// It is moved to.
    Target,
}

impl Side {
    /// As hooks are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

/// This host's hooks.
#[derive(Debug)]
pub struct HookDirectory {
    directory: PathBuf,
    hooks: Vec<HookSection>,
    appliance: String,
    label: Option<String>,
    side: Side,
    /// Two occasions are never told at once: a target whose answer got lost tells the same one again.
    turn: tokio::sync::Mutex<()>,
}

/// Hooks of a host that is moved to, which gives notice to clients as well.
pub fn of_target(manifest: &Manifest, clock: Arc<dyn Clock>) -> Arc<dyn Hooks> {
    let hooks = Arc::new(HookDirectory::new(manifest, Side::Target));
    let (appliance, host) = (manifest.appliance.name.clone(), manifest.appliance.host_name.clone());
    Arc::new(Noticing::new(
        hooks,
        manifest.notices.as_ref(),
        &manifest.notice,
        Names { appliance, host },
        clock,
    ))
}

impl HookDirectory {
    /// Those that `manifest` names.
    pub fn new(manifest: &Manifest, side: Side) -> Self {
        let mut hooks = manifest.hook.clone();
        hooks.sort_by(|a, b| a.name.cmp(&b.name));
        let (directory, appliance) = (manifest.hooks.directory.clone(), manifest.appliance.name.clone());
        let label = manifest.label.as_ref().map(|label| label.text.clone());
        Self { directory, hooks, appliance, label, side, turn: tokio::sync::Mutex::default() }
    }

    /// What keeps hooks from running when their moments come: an error where that would stop a migration.
    pub fn findings(&self) -> Vec<Finding> {
        let finding = |hook: &HookSection| {
            let problem = trust::check(&self.directory, &self.directory.join(&hook.name)).err()?;
            let stops =
                hook.on_failure == OnFailure::Stop && hook.moments.iter().any(|moment| moment.can_stop());
            let severity = if stops { Severity::Error } else { Severity::Warning };
            Some(Finding::new(severity, format!("hook {}", hook.name), problem.what, problem.hint))
        };
        self.hooks.iter().filter_map(finding).collect()
    }

    async fn run_one(&self, hook: &HookSection, occasion: &Occasion) -> Result<()> {
        let item = format!("hook {} at the {}", hook.name, self.side.as_str());
        let failed = |what: String| Failure::operator(&item, format!("{what} ({})", occasion.moment));
        let path = self.directory.join(&hook.name);
        trust::check(&self.directory, &path).map_err(|problem| failed(problem.what).hint(problem.hint))?;
        let began = tokio::time::Instant::now();
        let ended = run::run(&path, self.environment(occasion), hook.limit()).await;
        let ended = ended.map_err(|error| failed("it cannot be run".to_owned()).because(error))?;
        tracing::info!(
            migration = %occasion.migration, moment = %occasion.moment, hook = hook.name, ?ended,
            ms = began.elapsed().as_millis() as u64, "a hook has run"
        );
        let hint = "put right what it complains of, or change its section in this host's manifest";
        match ended {
            Ended::Well => Ok(()),
            Ended::Badly { how, last } => Err(failed(format!("it {how}{}", told(&last))).hint(hint)),
            Ended::Late { last } => {
                let what = format!("it took longer than {} s and was killed{}", hook.seconds, told(&last));
                Err(failed(what).hint(hint))
            }
        }
    }

    /// All that a hook is told. Nothing of the agent's own environment is passed on.
    fn environment(&self, occasion: &Occasion) -> Vec<(&'static str, String)> {
        let mut out = vec![
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HANDOVER_MIGRATION", occasion.migration.to_string()),
            ("HANDOVER_MOMENT", occasion.moment.to_string()),
            ("HANDOVER_ROLE", self.side.as_str().to_owned()),
            ("HANDOVER_APPLIANCE", self.appliance.clone()),
        ];
        out.extend(occasion.at.map(|at| ("HANDOVER_AT", at.to_string())));
        let label = self.label.clone().filter(|_| occasion.moment.is_of_target());
        out.extend(label.map(|label| ("HANDOVER_LABEL", label)));
        out
    }
}

/// The last lines, as they end a message.
fn told(last: &[String]) -> String {
    if last.is_empty() { String::new() } else { format!(", saying: {}", last.join(" | ")) }
}

#[async_trait]
impl Hooks for HookDirectory {
    async fn run(&self, occasion: &Occasion) -> Result<Vec<String>> {
        let _turn = self.turn.lock().await;
        let mut warnings = Vec::new();
        for hook in self.hooks.iter().filter(|hook| hook.moments.contains(&occasion.moment)) {
            let Err(failure) = self.run_one(hook, occasion).await else { continue };
            tracing::warn!(migration = %occasion.migration, %failure, "a hook failed");
            if hook.on_failure == OnFailure::Stop && occasion.moment.can_stop() {
                return Err(failure);
            }
            warnings.push(failure.to_string());
        }
        Ok(warnings)
    }
}
