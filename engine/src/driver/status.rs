//! What watchers see of a migration.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Driver, steps};
use crate::follow::{Figures, TreeFigures};
use crate::journal::{Migration, Record};
use crate::kept::Kept;
use crate::name::{DatasetName, MigrationId};
use crate::phase::{Operation, Phase, State};
use crate::ports::Result;
use crate::progress::Progress;
use crate::readiness::Readiness;
use crate::report::{Cutover, Planned};
use crate::reserve::Room;
use crate::throttle::Throttled;

/// The shown share moves in steps of this size, each journaled before it is shown: a restart shows no less.
const SHOWN_STEP: f64 = 0.001;

/// What watchers see of a migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The migration.
    pub migration: MigrationId,
    /// Its state.
    pub state: State,
    /// What may be asked of it now. What a later release allows besides is left out where it is read.
    #[serde(deserialize_with = "known")]
    pub allowed: Vec<Operation>,
    /// Progress of the task at hand.
    pub progress: Progress,
    /// The last event.
    pub last_event: u64,
    /// How following gets on, by database.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub following: BTreeMap<DatasetName, Figures>,
    /// How following gets on, by tree.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub following_trees: BTreeMap<DatasetName, TreeFigures>,
    /// The cut-over at hand, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// The cut-over that is planned for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Planned>,
    /// How fast the source may be read, and why; none once nobody drives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttled>,
    /// What may run out, as it was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    /// Differences that the last verification found.
    #[serde(default)]
    pub differences: u64,
    /// What an abort has kept of what was migrated, until somebody removes it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<DatasetName, Kept>,
    /// Whether it is ready for what comes next; none when it is over, or being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// Those that this release knows.
fn known<'de, D: Deserializer<'de>>(allowed: D) -> std::result::Result<Vec<Operation>, D::Error> {
    let words = Vec::<String>::deserialize(allowed)?;
    Ok(words.iter().filter_map(|word| Operation::named(word)).collect())
}

/// What workers have told of the task at hand for watchers alone: it is not journaled.
#[derive(Default)]
pub(super) struct Seen {
    pub following: BTreeMap<DatasetName, Figures>,
    pub following_trees: BTreeMap<DatasetName, TreeFigures>,
    pub room: Option<Room>,
}

impl Status {
    /// What the journal alone tells.
    pub(super) fn of(migration: &Migration, last_event: u64, progress: Progress) -> Self {
        Self {
            migration: migration.id.clone(),
            state: migration.state.clone(),
            allowed: allowed(migration),
            progress,
            last_event,
            following: BTreeMap::new(),
            following_trees: BTreeMap::new(),
            cutover: migration.outcome.cutover,
            planned: migration.outcome.planned,
            throttle: None,
            room: None,
            differences: migration.outcome.known_differences(),
            kept: migration.outcome.kept.clone(),
            readiness: None,
        }
    }
}

/// What may be asked of a migration now. What an abort has kept can be removed once that is through.
fn allowed(migration: &Migration) -> Vec<Operation> {
    let mut allowed = migration.state.allowed();
    if migration.state.phase == Phase::Aborted && !migration.outcome.kept.is_empty() {
        allowed.push(Operation::Terminate);
    }
    allowed
}

/// The status of a migration that nobody drives: one that has ended.
pub fn at_rest(migration: Migration, last_event: u64) -> Status {
    Status::of(&migration, last_event, steps::meter(&migration).read())
}

impl Driver {
    /// Renews what watchers see.
    pub(super) async fn show(&mut self) -> Result<()> {
        let progress = self.meter.read();
        if progress.share >= self.migration.shown + SHOWN_STEP {
            self.migration.shown = progress.share;
            self.commit(&[Record::Shown(self.migration.shown)]).await?;
        }
        self.show_as_journaled(progress);
        Ok(())
    }

    /// Shows no larger share than is journaled: else the next status could show less.
    pub(super) fn show_as_journaled(&self, progress: Progress) {
        let progress = Progress { share: self.migration.shown, ..progress };
        self.status.send_replace(Status {
            following: self.seen.following.clone(),
            following_trees: self.seen.following_trees.clone(),
            room: self.seen.room.clone(),
            throttle: Some(self.throttled()),
            ..Status::of(&self.migration, self.last_event, progress)
        });
    }
}
