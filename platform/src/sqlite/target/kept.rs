//! What an abort keeps of a database that was in use: its file, under another name beside the final place.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use async_trait::async_trait;
use handover_engine::kept::Kept;
use handover_engine::ports::{Keeper, Result};

use super::super::error::failed;
use super::super::live;
use super::SqliteTarget;
use super::place::{Place, sync_directory, with_suffix};

impl Place {
    /// Where it is kept.
    fn aside(&self) -> PathBuf {
        with_suffix(self.path(), &format!(".handover-kept-{}", self.migration()))
    }

    /// As `undo`, but what was published stays under its other name.
    fn undo_and_keep(&self) -> Result<()> {
        self.undo(|| self.set_aside())?;
        self.free_aside()
    }

    /// Gives what was published its other name, too; its own goes by what takes it.
    fn set_aside(&self) -> Result<()> {
        let aside = self.aside();
        if aside.exists() {
            return Ok(());
        }
        // Where there are no hard links, no name is there for a moment.
        std::fs::hard_link(self.path(), &aside)
            .or_else(|_| std::fs::rename(self.path(), &aside))
            .and_then(|()| sync_directory(&aside))
            .map_err(self.io(&aside, "what was migrated cannot be kept"))
    }

    /// Takes the fence and what kept changes out of it. What is no database any more is kept as it is.
    fn free_aside(&self) -> Result<()> {
        let aside = self.aside();
        if !aside.exists() {
            return Ok(());
        }
        let db = self.open(&aside)?;
        let looked = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        if looked.is_err() {
            return Ok(());
        }
        live::strip(&db)
            .map_err(|error| failed(self.dataset(), &aside, "its fence cannot be taken away", error))
    }

    fn kept_aside(&self) -> Result<Option<Kept>> {
        let aside = self.aside();
        match std::fs::metadata(&aside) {
            Ok(meta) => Ok(Some(Kept { place: aside.display().to_string(), bytes: meta.blocks() * 512 })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(&aside, "cannot be looked at")(error)),
        }
    }

    fn remove_aside(&self) -> Result<()> {
        let aside = self.aside();
        self.remove_database(&aside)?;
        match sync_directory(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(self.io(&aside, "cannot be removed durably")(error))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Keeper for SqliteTarget {
    async fn undo_and_keep(&self) -> Result<()> {
        self.run(|shared| {
            shared.close();
            shared.place.undo_and_keep()
        })
        .await
    }

    async fn kept(&self) -> Result<Option<Kept>> {
        self.run(|shared| shared.place.kept_aside()).await
    }

    async fn remove_kept(&self) -> Result<()> {
        self.run(|shared| shared.place.remove_aside()).await
    }
}
