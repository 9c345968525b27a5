//! The source's side: inventories and snapshots.

mod cuts;
mod snapshot;

use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::inventory::{DatabaseFacts, TableFacts};
use handover_engine::name::DatasetName;
use handover_engine::ports::{Database, DatabaseSnapshot, Result};
use handover_engine::rows::Schema;

use crate::catalog::{self, Catalog};
use crate::needs::needs;
use crate::session::{Role, Session};
use crate::settings::Settings;

pub use snapshot::{Snapshot, snapshot_position, take_together};

/// A database to be read.
#[derive(Clone)]
pub struct MariaDatabase {
    dataset: DatasetName,
    settings: Settings,
    exclude: Vec<String>,
}

impl MariaDatabase {
    /// The database that the settings name, without the excluded tables.
    pub fn new(dataset: DatasetName, settings: Settings, exclude: Vec<String>) -> Self {
        Self { dataset, settings, exclude }
    }
}

/// What is in a database.
pub fn facts(catalog: &Catalog, settings: &Settings) -> DatabaseFacts {
    let schema: &Schema = &catalog.schema;
    let mut tables: Vec<TableFacts> = schema
        .tables
        .iter()
        .map(|table| TableFacts {
            name: table.name.clone(),
            rows: table.estimated_rows,
            bytes: table.estimated_bytes,
        })
        .collect();
    tables.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    DatabaseFacts {
        engine: schema.engine.clone(),
        version: schema.version.clone(),
        location: format!("{} at {}", settings.database, settings.server()),
        structure: Some(schema.structure()),
        bytes: tables.iter().map(|table| table.bytes).sum(),
        tables,
        index_entries: None,
        notes: catalog.notes.clone(),
        needs: Vec::new(),
    }
}

/// Which accounts move.
fn note(settings: &Settings) -> String {
    if settings.accounts.is_empty() {
        return "accounts and their grants do not move (the URL's option `accounts`)".to_owned();
    }
    let accounts: Vec<String> = settings.accounts.iter().map(ToString::to_string).collect();
    let accounts = accounts.join(", ");
    format!(
        "the accounts {accounts} move, with their passwords and grants on this database; the target's URL must name them too"
    )
}

#[async_trait]
impl Database for MariaDatabase {
    async fn facts(&self) -> Result<DatabaseFacts> {
        let mut session = Session::open(&self.dataset, &self.settings, Role::Reader).await?;
        session.enter(&self.settings.database).await?;
        let mut catalog = catalog::read(&mut session, &self.settings.database, &self.exclude).await?;
        catalog::accounts(&mut session, &self.settings, &mut catalog).await?;
        catalog.notes.push(note(&self.settings));
        let mut facts = facts(&catalog, &self.settings);
        facts.needs = needs(&mut session, &self.settings, &catalog.schema).await?;
        Ok(facts)
    }

    async fn snapshot(&self) -> Result<Arc<dyn DatabaseSnapshot>> {
        Ok(Arc::new(snapshot::take(&self.dataset, &self.settings, &self.exclude).await?))
    }
}
