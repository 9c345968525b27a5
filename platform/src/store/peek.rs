//! Looking into a journal that an agent may be writing: nothing is made, changed or brought up to date.

use std::path::Path;

use handover_engine::name::MigrationId;
use handover_engine::phase::State;
use handover_engine::ports::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::{Store, failed};

impl Store {
    /// The migration in the journal at `path` that has not ended; none where there is no journal.
    pub async fn unended(path: &Path) -> Result<Option<(MigrationId, State)>> {
        if !path.exists() {
            return Ok(None);
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(std::time::Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        let pool = pool.map_err(|e| failed(path, "cannot be opened", e))?;
        let store = Self { path: path.to_owned(), pool, agent: "nobody".into() };
        let row = sqlx::query_as::<_, (String, String)>("SELECT id, state FROM migration WHERE ended = 0")
            .fetch_optional(&store.pool)
            .await
            .map_err(|e| store.failed("cannot be read", e))?;
        let Some((id, state)) = row else { return Ok(None) };
        Ok(Some((id.parse().map_err(|e| store.damaged(e))?, store.json(&state)?)))
    }
}
