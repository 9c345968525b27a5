//! The source's note of the migration that goes on: it keeps no journal, and its agent is not to be upgraded meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::hooks::{Hooks, Moment, Occasion};

use crate::backups::Guard;

/// The file, in the agent's state directory.
const FILE: &str = "migration";

/// Hooks whose host notes which migration has begun and not ended, as far as it was told.
pub struct Noting {
    file: PathBuf,
    hooks: Arc<dyn Hooks>,
    guard: Option<Guard>,
}

impl Noting {
    /// Hooks with a note in `state`.
    pub fn new(state: &Path, hooks: Arc<dyn Hooks>) -> Self {
        Self { file: state.join(FILE), hooks, guard: None }
    }

    /// The same, where `guard` may refuse that a migration begins.
    #[must_use]
    pub fn guarded_by(self, guard: Guard) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Notes that a migration begins. First it is noted, and then the guard is asked: whoever looks for the note from then on finds it.
    fn begin(&self, migration: &MigrationId) -> Result<()> {
        let is_noted = self.file.exists();
        write(&self.file, migration).map_err(|error| self.failed(error))?;
        let refused = self.guard.as_ref().map_or(Ok(()), |guard| guard());
        if refused.is_err() && !is_noted {
            self.forget()?;
        }
        refused
    }

    fn forget(&self) -> Result<()> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, error: io::Error) -> Failure {
        Failure::operator(self.file.display().to_string(), "cannot be written")
            .because(error)
            .hint("is the disk full?")
    }
}

/// The file of the note in `state`.
pub fn file(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// The migration that is noted in `state`, if one is.
pub fn noted(state: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(file(state)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the note whole or not at all.
fn write(file: &Path, migration: &MigrationId) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{migration}\n"))?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(&new, file)
}

#[async_trait]
impl Hooks for Noting {
    async fn run(&self, occasion: &Occasion) -> Result<Vec<String>> {
        if occasion.moment == Moment::BeforeStart {
            self.begin(&occasion.migration)?;
        }
        let done = self.hooks.run(occasion).await;
        if matches!(occasion.moment, Moment::AfterAbort | Moment::AfterFinalize) {
            self.forget()?;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use handover_engine::ports::hooks::NoHooks;

    #[tokio::test]
    async fn a_migration_is_noted_from_its_start_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = Noting::new(dir.path(), Arc::new(NoHooks));
        for (moment, expected) in [
            (Moment::AfterFence, None),
            (Moment::BeforeStart, Some("m-7")),
            (Moment::BeforeStart, Some("m-7")),
            (Moment::AfterAccept, Some("m-7")),
            (Moment::AfterFinalize, None),
            (Moment::AfterFinalize, None),
            (Moment::BeforeStart, Some("m-7")),
            (Moment::AfterAbort, None),
        ] {
            let occasion = Occasion { migration: "m-7".parse().unwrap(), moment, at: None };
            hooks.run(&occasion).await.unwrap();
            assert_eq!(noted(dir.path()).unwrap().as_deref(), expected, "{moment}");
        }
    }

    #[tokio::test]
    async fn one_that_may_not_begin_leaves_no_note() {
        let dir = tempfile::tempdir().unwrap();
        let restoring = Arc::new(AtomicBool::new(true));
        let (seen, state) = (restoring.clone(), dir.path().to_owned());
        let guard: Guard = Arc::new(move || {
            assert!(file(&state).exists(), "whoever restores must find it");
            match seen.load(Ordering::SeqCst) {
                true => Err(Failure::operator("backup b-1", "it is being restored here")),
                false => Ok(()),
            }
        });
        let hooks = Noting::new(dir.path(), Arc::new(NoHooks)).guarded_by(guard);
        let begins = Occasion { migration: "m-7".parse().unwrap(), moment: Moment::BeforeStart, at: None };
        let refused = hooks.run(&begins).await.unwrap_err();
        assert_eq!((refused.item.as_str(), noted(dir.path()).unwrap()), ("backup b-1", None));
        restoring.store(false, Ordering::SeqCst);
        hooks.run(&begins).await.unwrap();
        // One that goes on stays noted.
        restoring.store(true, Ordering::SeqCst);
        hooks.run(&begins).await.unwrap_err();
        assert_eq!(noted(dir.path()).unwrap().as_deref(), Some("m-7"));
    }
}
