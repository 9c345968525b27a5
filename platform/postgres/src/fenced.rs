//! The source's side of the way back: rows are written to the database behind its fence.

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::{FencedDatabase, KeyedTarget, Result};
use handover_engine::rows::{Key, KeyedRows, RowsChunk, Schema, TableName};

use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::quote;
use crate::target::{PostgresTarget, finish};

/// What sessions that write behind the fence are set to: the fence lets them pass, and neither triggers nor foreign keys act.
pub const PASS: &str = "SET handover.applying = 'on'; SET session_replication_role = replica";
/// Triggers that act in such sessions too, but for the fence's.
const ALWAYS: &str = "SELECT t.tgname, t.tgrelid::pg_catalog.regclass FROM pg_catalog.pg_trigger t \
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
    WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') AND n.nspname <> 'handover_fence' LIMIT 1";

/// A database that is written to where it stands, past its fence.
pub struct PostgresFenced {
    item: String,
    settings: Settings,
    target: PostgresTarget,
}

impl PostgresFenced {
    /// The database of `settings`.
    pub fn new(dataset: DatasetName, settings: &Settings) -> Self {
        let item = format!("{dataset}, {}", settings.location());
        let target = PostgresTarget::in_place(dataset, settings);
        Self { item, settings: settings.clone(), target }
    }
}

/// Why a role may not write behind a fence, told by the failure to set it up.
pub fn refused(item: &str, user: &str, error: &tokio_postgres::Error) -> Failure {
    let mut failure = failed(item, "rows cannot be written behind the fence without firing triggers", error);
    failure.class = handover_engine::failure::Class::NeedsOperator;
    failure.hint(hint(user))
}

/// What lets a role write behind a fence.
pub fn hint(user: &str) -> String {
    format!("GRANT SET ON PARAMETER session_replication_role TO {}, or plan with --one-way", quote(user))
}

/// A trigger that acts whatever a session is set to.
pub async fn always(conn: &Conn) -> std::result::Result<Option<String>, tokio_postgres::Error> {
    let row = conn.rows(ALWAYS).await?.into_iter().next();
    let field = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    Ok(row.map(|row| format!("trigger {} of {} is enabled for replicas too", field(&row, 0), field(&row, 1))))
}

#[async_trait]
impl KeyedTarget for PostgresFenced {
    async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        self.target.apply_keys(rows).await
    }

    async fn clear(&self, table: &TableName) -> Result<()> {
        self.target.clear(table).await
    }

    async fn children(&self, table: &TableName, columns: &[u32], values: &[Key]) -> Result<Vec<Key>> {
        self.target.children(table, columns, values).await
    }
}

#[async_trait]
impl FencedDatabase for PostgresFenced {
    async fn make_ready(&self) -> Result<()> {
        let conn = self.target.begin_in_place().await?;
        let found = always(&conn).await;
        let found = found.map_err(|e| failed(&self.item, "its triggers cannot be looked at", &e))?;
        match found {
            None => Ok(()),
            Some(what) => Err(Failure::operator(&self.item, format!("{what}: it would act twice"))
                .hint("ALTER TABLE … ENABLE TRIGGER … makes it an ordinary one; or plan with --one-way")),
        }
    }

    async fn fill(&self, chunk: &RowsChunk) -> Result<()> {
        self.target.fill(chunk).await
    }

    async fn stand_down(&self) -> Result<()> {
        // Triggers are off for those sessions alone that write.
        Ok(())
    }

    async fn set_positions(&self, schema: &Schema) -> Result<()> {
        let conn = Conn::open(self.target.dataset(), &self.settings).await?;
        finish::sequences(&self.item, &conn, schema).await
    }
}
