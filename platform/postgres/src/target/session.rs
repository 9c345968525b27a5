//! Sessions at the database that is built or written to.

use handover_engine::ports::Result;
use handover_engine::rows::Schema;

use super::PostgresTarget;
use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::fenced;

/// Connections that are kept for the next chunk.
const KEPT: usize = 8;
/// Sessions that load and build. Triggers and foreign keys are not there while rows are loaded, but a former pass's
/// functions may be.
const LOADING: &str = "SET lock_timeout = 0; SET maintenance_work_mem = '256MB'; SET synchronous_commit = on";

impl PostgresTarget {
    /// Looks at the database anew; a connection that writes past the fence.
    pub async fn begin_in_place(&self) -> Result<Conn> {
        self.close();
        self.conn(&self.place.settings).await
    }

    /// A session to load and build with.
    pub(super) async fn conn(&self, settings: &Settings) -> Result<Conn> {
        let conn = Conn::open(&self.place.dataset, settings).await?;
        let failed = |e| failed(self.item(None), "its session cannot be set up", &e);
        conn.batch_execute(LOADING).await.map_err(failed)?;
        if self.in_place {
            let user = &self.place.settings.user;
            let done = conn.batch_execute(fenced::PASS).await;
            done.map_err(|e| fenced::refused(&self.item(None), user, &e))?;
        } else {
            // Only where allowed; nothing depends on it.
            let _ = conn.batch_execute("SET session_replication_role = replica").await;
        }
        Ok(conn)
    }

    /// A connection for rows: text is the database's own.
    pub(super) async fn rows_conn(&self, settings: &Settings, schema: &Schema) -> Result<Conn> {
        let idle = self.lock().idle.pop();
        if let Some(conn) = idle.filter(|conn| !conn.is_closed()) {
            return Ok(conn);
        }
        let conn = self.conn(settings).await?;
        let encoding = schema.settings.get("encoding").map_or("UTF8", String::as_str);
        // Indexes and keys that are built side by side wait for each other as long as it takes; rows wait for strangers.
        let set_up = async {
            conn.batch_execute("SET lock_timeout = '30s'").await?;
            conn.raw_text(encoding).await
        };
        set_up.await.map_err(|e| failed(self.item(None), "its session cannot be set up", &e))?;
        Ok(conn)
    }

    /// Keeps a connection for the next chunk.
    pub(super) fn keep_conn(&self, conn: Conn) {
        let mut open = self.lock();
        if open.at.is_some() && open.idle.len() < KEPT {
            open.idle.push(conn);
        }
    }
}
