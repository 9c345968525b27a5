//! What an abort keeps of a database that was in use: all of it, under another name.

use async_trait::async_trait;
use handover_engine::kept::Kept;
use handover_engine::ports::{Keeper, Result};

use super::super::PostgresTarget;
use super::Place;
use crate::connect::Conn;
use crate::dump::{FENCE_SCHEMA, FENCE_TRIGGER, OWN_COMMENT, OWN_SCHEMA};
use crate::sql::{literal, quote};

const FREEING: &str = "what is kept cannot be freed of its fence";
/// Triggers that are dropped at once: each takes a lock.
const BATCH: usize = 200;

impl Place {
    /// Brings back what stood here before; what was published gets another name, and keeps no changes and refuses no writes any more.
    async fn undo_and_keep(&self) -> Result<()> {
        let admin = self.writer().await?;
        self.drop(&admin, &self.partial).await?;
        self.put_back(&admin, &self.kept).await?;
        self.drop(&admin, &self.old).await?;
        if self.is_ours(&admin, &self.kept).await? {
            let conn = Conn::open(&self.dataset, &self.settings.with_database(&self.kept)).await?;
            self.free(&conn).await?;
            // Roles that own something cannot be dropped.
            self.accounts(&conn).dispossess(&self.migration).await?;
        }
        self.accounts(&admin).drop_all(&self.migration).await
    }

    async fn list(&self, conn: &Conn, sql: &str) -> Result<Vec<String>> {
        let rows = conn.rows(sql).await.map_err(self.failed(FREEING))?;
        Ok(rows.into_iter().flatten().flatten().collect())
    }

    async fn run(&self, conn: &Conn, sql: &str) -> Result<()> {
        conn.batch_execute(sql).await.map_err(self.failed(FREEING))
    }

    /// Takes captures, the fence and our own notes out of a database that nobody uses.
    async fn free(&self, conn: &Conn) -> Result<()> {
        let slots = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
                     WHERE database = pg_catalog.current_database() AND slot_name LIKE 'handover\\_%'";
        self.run(conn, slots).await?;
        let publications = format!(
            "SELECT 'DROP PUBLICATION IF EXISTS ' || pg_catalog.quote_ident(pubname) FROM pg_catalog.pg_publication \
             WHERE pubname LIKE 'handover\\_%' AND pg_catalog.starts_with(pg_catalog.obj_description(oid, 'pg_publication'), {})",
            literal(OWN_COMMENT)
        );
        let triggers = format!(
            "SELECT pg_catalog.format('DROP TRIGGER IF EXISTS %I ON %I.%I', t.tgname, n.nspname, c.relname) \
             FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE t.tgname = {} AND t.tgfoid = pg_catalog.to_regproc('{FENCE_SCHEMA}.refuse')::pg_catalog.oid",
            literal(FENCE_TRIGGER)
        );
        for statements in [self.list(conn, &publications).await?, self.list(conn, &triggers).await?] {
            for batch in statements.chunks(BATCH) {
                self.run(conn, &batch.join("; ")).await?;
            }
        }
        for schema in [FENCE_SCHEMA, OWN_SCHEMA] {
            self.run(conn, &format!("DROP SCHEMA IF EXISTS {} CASCADE", quote(schema))).await?;
        }
        Ok(())
    }

    async fn kept(&self) -> Result<Option<Kept>> {
        let admin = self.admin().await?;
        if !self.is_ours(&admin, &self.kept).await? {
            return Ok(None);
        }
        let sql = format!("SELECT pg_catalog.pg_database_size({})", literal(&self.kept));
        let bytes = admin.text(&sql).await.map_err(self.failed("what is kept cannot be looked at"))?;
        let bytes = bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Ok(Some(Kept { place: self.settings.with_database(&self.kept).location(), bytes }))
    }

    async fn remove_kept(&self) -> Result<()> {
        let admin = self.writer().await?;
        if self.is_ours(&admin, &self.kept).await? { self.drop(&admin, &self.kept).await } else { Ok(()) }
    }
}

#[async_trait]
impl Keeper for PostgresTarget {
    async fn undo_and_keep(&self) -> Result<()> {
        self.close();
        self.place.undo_and_keep().await
    }

    async fn kept(&self) -> Result<Option<Kept>> {
        self.place.kept().await
    }

    async fn remove_kept(&self) -> Result<()> {
        self.place.remove_kept().await
    }
}
