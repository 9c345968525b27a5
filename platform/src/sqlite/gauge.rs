//! A database's load: how long it takes to be looked at. It has no server.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::ports::gauge::{DatabaseLoad, Gauge};
use tokio::time::Instant;

use super::error::failed;
use super::{error, estimate};
use crate::tree::blocking;

/// Looks at a database.
pub struct SqliteGauge {
    dataset: DatasetName,
    path: PathBuf,
}

impl SqliteGauge {
    /// The database at `path`.
    pub fn new(dataset: DatasetName, path: PathBuf) -> Self {
        Self { dataset, path }
    }
}

/// Waits for a writer, where readers do.
fn look(path: &Path) -> error::Result<()> {
    let db = estimate::open(path, "", estimate::BUSY)?;
    Ok(db.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()))?)
}

#[async_trait]
impl Gauge for SqliteGauge {
    async fn load(&self) -> Result<DatabaseLoad> {
        let (dataset, path) = (self.dataset.clone(), self.path.clone());
        let place = path.parent().map(|parent| parent.display().to_string());
        let latency = blocking(&self.dataset, move || {
            let asked = Instant::now();
            look(&path).map_err(|e| failed(&dataset, &path, "cannot be looked at", e))?;
            Ok(asked.elapsed())
        })
        .await?;
        Ok(DatabaseLoad { latency, place, ..DatabaseLoad::default() })
    }

    async fn rest(&self) {}
}
