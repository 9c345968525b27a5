//! Rehearsals on this host: the scratch databases, what was tried in them, and the last report.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use handover_certs::file;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::scratch::{self, Scratch, TrialLedger};
use handover_engine::ports::{Result, Source};
use handover_engine::rehearsal::decision::Decisions;
use handover_engine::rehearsal::report::{Checked, DatabaseReport, FORMAT, RehearsalReport};
use handover_engine::rehearsal::run::{Stage, rehearse};
use handover_engine::time::{Clock, Timestamp};
use handover_platform::SystemClock;
use handover_platform::checks::CheckScripts;
use handover_platform::manifest::{DatabaseSection, Manifest};
use handover_platform::source::place;
use handover_platform::trials::Trials;

/// The last report.
const REPORT: &str = "rehearsal.json";
/// What is there as long as there are scratch databases: whether these are to stay.
const MARK: &str = "rehearsal.scratch";
const KEEP: &[u8] = b"keep\n";
const DROP: &[u8] = b"drop\n";

/// Takes lines that say how far it is.
pub type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// What a rehearsal is to do.
pub struct Order {
    /// What was decided.
    pub decisions: Decisions,
    /// The scratch databases stay.
    pub keep: bool,
    /// Who asks for it.
    pub by: String,
    /// Takes lines.
    pub tell: Tell,
}

/// All that is needed for rehearsals.
pub struct Rehearsals {
    databases: Vec<DatabaseSection>,
    checks: CheckScripts,
    trials: Trials,
    /// The state directory.
    state: PathBuf,
    /// Held by whoever rehearses.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

impl Rehearsals {
    /// Of the databases that `manifest` names. What was tried is kept in `state`.
    pub fn new(manifest: &Manifest, state: PathBuf) -> Result<Self> {
        let trials = Trials::open(&state.join("rehearsal.db"))?;
        let (databases, checks) = (manifest.database.clone(), CheckScripts::new(manifest));
        Ok(Self { databases, checks, trials, state, turn: Arc::default() })
    }

    /// The same scratch databases and record, for a migration; `fitted` is what it makes of them.
    pub fn trials(&self, fitted: Source) -> Result<scratch::Trials> {
        let one = |section: &DatabaseSection| {
            Ok((section.name.clone(), place(section)?.scratch(section.name.clone())))
        };
        let scratch = self.databases.iter().map(one).collect::<Result<_>>()?;
        Ok(scratch::Trials { scratch, ledger: Arc::new(self.trials.clone()), fitted })
    }

    /// Rehearses every database, and keeps the report. Whatever comes of it, the scratch databases go at its end unless they
    /// are to stay. To be called by whoever holds the turn.
    pub async fn run(&self, source: &Source, order: Order) -> Result<RehearsalReport> {
        self.mark(if order.keep { KEEP } else { DROP })?;
        let done = self.try_all(source, &order).await;
        if !order.keep {
            self.drop_all().await?;
        }
        let report = done?;
        self.keep_report(&report)?;
        Ok(report)
    }

    async fn try_all(&self, source: &Source, order: &Order) -> Result<RehearsalReport> {
        let began = SystemClock.now();
        let fresh = Digest::of(format!("{began:?}{}{}", order.by, std::process::id()).as_bytes()).short();
        let decisions = Arc::new(order.decisions.clone());
        let used = Arc::new(Mutex::new(BTreeSet::new()));
        let (mut databases, mut checks) = (Vec::new(), Vec::new());
        for section in &self.databases {
            let dataset = section.name.clone();
            let stage = Stage {
                source: source.clone(),
                dataset: dataset.clone(),
                scratch: place(section)?.scratch(dataset.clone()),
                ledger: Arc::new(self.trials.clone()),
                decisions: decisions.clone(),
                used: used.clone(),
                tell: order.tell.clone(),
            };
            let found = rehearse(stage, &fresh).await?;
            databases.push(found.report);
            checks.extend(self.check(&dataset, &found.environment, &order.tell).await);
        }
        let used = used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(report(order, (began, SystemClock.now()), databases, checks, &used))
    }

    async fn check(
        &self,
        dataset: &DatasetName,
        environment: &[(String, String)],
        tell: &Tell,
    ) -> Vec<Checked> {
        let checked = self.checks.run(dataset, environment).await;
        for check in &checked {
            tell(format!(
                "{dataset}: check {}: {}",
                check.name,
                if check.well { "well" } else { "not well" }
            ));
        }
        checked
    }

    /// What the last rehearsal found.
    pub fn last_report(&self) -> Result<RehearsalReport> {
        let path = self.state.join(REPORT);
        let text = std::fs::read(&path).map_err(|error| {
            let hint = "`handover rehearse` makes one";
            let none = Failure::operator("rehearsal", "there was none on this target").hint(hint);
            if error.kind() == std::io::ErrorKind::NotFound { none } else { none.because(error) }
        })?;
        serde_json::from_slice(&text).map_err(|error| {
            Failure::operator(path.display().to_string(), "the last report cannot be read")
                .because(error)
                .hint("rehearse again")
        })
    }

    /// Drops what a rehearsal has left that was cut short by the agent's end, unless it was to stay: then the next one goes on with it.
    /// What cannot be dropped now is the next time.
    pub async fn recover(&self) {
        let _turn = self.turn.lock().await;
        self.recover_now().await;
    }

    /// As [`Self::recover`], for whoever holds the turn.
    pub async fn recover_now(&self) {
        let mark = std::fs::read(self.state.join(MARK));
        if mark.is_ok_and(|mark| mark != KEEP)
            && let Err(failure) = self.drop_all().await
        {
            tracing::warn!(%failure, "what is left of a rehearsal is not dropped yet");
        }
    }

    async fn drop_all(&self) -> Result<()> {
        for section in &self.databases {
            self.drop_one(&section.name, &*place(section)?.scratch(section.name.clone())).await?;
        }
        let path = self.state.join(MARK);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::operator(path.display().to_string(), "cannot be removed").because(error))
            }
            _ => Ok(()),
        }
    }

    /// What was tried is forgotten first: a scratch database that is there is known by its token only.
    async fn drop_one(&self, dataset: &DatasetName, scratch: &dyn Scratch) -> Result<()> {
        self.trials.clear(dataset).await?;
        scratch.drop_scratch().await
    }

    fn mark(&self, mark: &[u8]) -> Result<()> {
        self.write(MARK, mark)
    }

    fn keep_report(&self, report: &RehearsalReport) -> Result<()> {
        let text = serde_json::to_vec(report).map_err(|error| {
            Failure::permanent("rehearsal", "its report cannot be written").because(error)
        })?;
        self.write(REPORT, &text)
    }

    fn write(&self, name: &str, contents: &[u8]) -> Result<()> {
        let path = self.state.join(name);
        file::replace(&path, contents, file::SECRET).map_err(|error| {
            Failure::operator(path.display().to_string(), "cannot be written")
                .because(error)
                .hint("is there room, and is the state directory writable?")
        })
    }
}

fn report(
    order: &Order,
    (began, ended): (Timestamp, Timestamp),
    databases: Vec<DatabaseReport>,
    checks: Vec<Checked>,
    used: &BTreeSet<usize>,
) -> RehearsalReport {
    let shown = |is_used: bool| {
        let all = order.decisions.decision.iter().enumerate();
        all.filter(|(at, _)| used.contains(at) == is_used).map(|(_, decision)| decision.shown()).collect()
    };
    RehearsalReport {
        format: FORMAT,
        by: order.by.clone(),
        began,
        ended,
        kept: order.keep,
        databases,
        checks,
        used: shown(true),
        unused: shown(false),
    }
}
