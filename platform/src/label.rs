//! The label of a trial, in a file of this host that services read.
//!
//! What is to lie there is written down, durably, before it does: what was begun by an agent that was cut short is known for ours.

mod record;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use handover_certificates::Reloader;
use handover_engine::changeover::LabelFacts;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::changeover::Label;
use handover_services::place;

use self::record::{Record, Records, digest};
use crate::manifest::LabelSection;

/// The label of this host, as its manifest has it.
pub struct LocalLabel {
    here: Arc<Mutex<Here>>,
    reloader: Arc<dyn Reloader>,
}

/// What threads that may wait for the disk work with. One after another: what was given up on comes to its end before the next.
struct Here {
    section: Option<LabelSection>,
    records: Records,
}

impl LocalLabel {
    /// What `section` says, if there is one; what must be undone is recorded below `state`.
    pub fn new(section: Option<LabelSection>, state: &Path, reloader: Arc<dyn Reloader>) -> Self {
        let here = Here { section, records: Records::new(state.join("label")) };
        Self { here: Arc::new(Mutex::new(here)), reloader }
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Here) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let here = self.here.clone();
        let locked = move || act(&here.lock().unwrap_or_else(PoisonError::into_inner));
        let done = tokio::task::spawn_blocking(locked).await;
        done.map_err(|error| Failure::transient("label", "it was not looked at").because(error))?
    }

    async fn reload(&self, units: &[String]) -> Result<()> {
        for unit in units {
            self.reloader.reload(unit).await?;
        }
        Ok(())
    }
}

impl Here {
    fn facts(&self) -> Option<LabelFacts> {
        let section = self.section.as_ref()?;
        let problem = section.file.as_deref().and_then(|file| self.problem(file));
        let file = section.file.as_ref().map(|file| file.display().to_string());
        Some(LabelFacts { text: section.text.clone(), file, problem })
    }

    /// What keeps the label from lying there.
    fn problem(&self, file: &Path) -> Option<String> {
        if let Err(error) = place::may_write(file) {
            let directory = place::directory(file).display();
            return Some(format!(
                "{directory} cannot be written to: {error}: make it, and let the agent's unit write there (ReadWritePaths=)"
            ));
        }
        self.refuse_others(file).err().map(|failure| failure.to_string())
    }

    /// Refuses where something lies that no record tells of.
    fn refuse_others(&self, file: &Path) -> Result<()> {
        let item = item(file);
        let hint = "move it away, or name another file in [label] of the target's appliance.toml";
        let unread =
            |error| Failure::operator(&item, "what lies there is not ours").because(error).hint(hint);
        let Some(found) = place::read(file).map_err(unread)? else { return Ok(()) };
        match self.records.all()?.iter().any(|record| record.is_ours(file, &found)) {
            true => Ok(()),
            false => Err(Failure::operator(item, "another file stands there already").hint(hint)),
        }
    }

    /// Puts it there; the units that are to read it.
    fn show(&self, migration: &MigrationId) -> Result<Vec<String>> {
        let Some(section) = &self.section else { return Ok(Vec::new()) };
        let known = self.records.read(migration)?;
        if let Some(record) = known.as_ref().filter(|record| record.file != section.file) {
            remove(record)?;
        }
        let contents = section.contents();
        let mut record = known.unwrap_or_default();
        if let Some(file) = &section.file {
            self.refuse_others(file)?;
            record.ours.insert(digest(contents.as_bytes()));
        }
        record.file.clone_from(&section.file);
        record.reload.clone_from(&section.reload);
        self.records.write(migration, &record)?;
        if let Some(file) = &section.file {
            let failed = |error| {
                let hint = "is its directory there, and may the agent write to it? Then resume";
                Failure::operator(item(file), "it cannot be written").because(error).hint(hint)
            };
            place::write(file, contents.as_bytes(), section.mode).map_err(failed)?;
        }
        Ok(record.reload)
    }

    /// Takes it away; the units that are to see that.
    fn take_away(&self, migration: &MigrationId) -> Result<Vec<String>> {
        let Some(record) = self.records.read(migration)? else { return Ok(Vec::new()) };
        remove(&record)?;
        Ok(record.reload)
    }
}

/// Takes away what is ours.
fn remove(record: &Record) -> Result<()> {
    let Some(file) = &record.file else { return Ok(()) };
    let hint = "take the label out of it by hand, or remove it, then resume";
    let unread =
        |error| Failure::operator(item(file), "it is not as it was written").because(error).hint(hint);
    match place::read(file).map_err(unread)? {
        Some(found) if !record.is_ours(file, &found) => {
            Err(Failure::operator(item(file), "somebody has changed it").hint(hint))
        }
        _ => place::remove(file).map_err(|error| {
            let hint = "let the agent write to its directory, then resume";
            Failure::operator(item(file), "it cannot be removed").because(error).hint(hint)
        }),
    }
}

fn item(file: &Path) -> String {
    format!("label {}", file.display())
}

#[async_trait]
impl Label for LocalLabel {
    async fn facts(&self) -> Result<Option<LabelFacts>> {
        self.with(|here| Ok(here.facts())).await
    }

    async fn show(&self, migration: &MigrationId) -> Result<()> {
        let id = migration.clone();
        let units = self.with(move |here| here.show(&id)).await?;
        tracing::info!(%migration, "the label is shown");
        self.reload(&units).await
    }

    async fn is_known(&self, migration: &MigrationId) -> Result<bool> {
        let id = migration.clone();
        self.with(move |here| Ok(here.records.read(&id)?.is_some())).await
    }

    async fn take_away(&self, migration: &MigrationId) -> Result<()> {
        let id = migration.clone();
        let units = self.with(move |here| here.take_away(&id)).await?;
        self.reload(&units).await
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let id = migration.clone();
        self.with(move |here| here.records.forget(&id)).await
    }
}

#[cfg(test)]
mod tests;
