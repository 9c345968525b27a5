//! What is done to a place in one step: published, undone, dropped.

use std::time::Duration;

use handover_engine::ports::Result;
use tokio_postgres::error::SqlState;

use super::Place;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{literal, quote};

/// How often, and how long after each other, other sessions are ended before a database's name is changed.
const TRIES: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(50);

impl Place {
    /// Drops what is being built; the next build starts empty.
    pub async fn discard(&self) -> Result<()> {
        let admin = self.writer().await?;
        self.drop(&admin, &self.partial).await?;
        if self.is_ours(&admin, &self.settings.database).await? {
            self.mark(&admin, &self.settings.database, "continues", "no").await?;
        }
        Ok(())
    }

    fn rename(from: &str, to: &str) -> String {
        format!("ALTER DATABASE {} RENAME TO {};", quote(from), quote(to))
    }

    /// Puts the finished database in its final place.
    pub async fn publish(&self) -> Result<()> {
        let admin = self.writer().await?;
        if self.is_ready(&admin).await? {
            self.drop(&admin, &self.old).await?;
            let place = &self.settings.database;
            let mut sql = "BEGIN;".to_owned();
            if self.marks(&admin, place).await?.is_some() {
                let ours = self.is_ours(&admin, place).await?;
                sql += &Self::rename(place, if ours { &self.old } else { &self.undo });
            }
            sql += &Self::rename(&self.partial, place);
            sql += "COMMIT";
            self.alone(&admin, &[place, &self.partial], &sql, "it cannot be put in place").await?;
        }
        self.drop(&admin, &self.old).await
    }

    /// Brings back what stood here before.
    pub async fn undo(&self) -> Result<()> {
        let admin = self.writer().await?;
        self.drop(&admin, &self.partial).await?;
        self.drop(&admin, &self.old).await?;
        self.put_back(&admin, &self.old).await?;
        self.drop(&admin, &self.old).await?;
        self.accounts(&admin).drop_all(&self.migration).await
    }

    /// What stood here before gets its name back, and what was published another one, in one step.
    pub(super) async fn put_back(&self, admin: &Conn, other: &str) -> Result<()> {
        let place = &self.settings.database;
        if !self.is_ours(admin, place).await? {
            return Ok(());
        }
        let mut sql = format!("BEGIN;{}", Self::rename(place, other));
        if self.marks(admin, &self.undo).await?.is_some() {
            sql += &Self::rename(&self.undo, place);
        }
        sql += "COMMIT";
        self.alone(admin, &[place, &self.undo], &sql, "what stood there cannot be put back").await
    }

    /// Drops what undo would need; `true` when the published database is this migration's.
    pub async fn forget(&self) -> Result<bool> {
        let admin = self.writer().await?;
        for database in [&self.partial, &self.undo, &self.old] {
            self.drop(&admin, database).await?;
        }
        self.accounts(&admin).keep_all(&self.migration).await?;
        self.is_ours(&admin, &self.settings.database).await
    }

    /// Runs a statement that needs some databases without sessions, ending those that are there. Not the server's own, such
    /// as autovacuum's, which only a superuser may end: they give way by themselves.
    pub(super) async fn alone(&self, admin: &Conn, databases: &[&str], sql: &str, what: &str) -> Result<()> {
        let names: Vec<String> = databases.iter().map(|name| literal(name)).collect();
        let terminate = format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE datname IN ({}) AND pid <> pg_catalog.pg_backend_pid() AND usesysid IS NOT NULL",
            names.join(", ")
        );
        let mut tries = 0;
        loop {
            admin.batch_execute(&terminate).await.map_err(|error| {
                failed(self.item(), "other sessions cannot be ended", &error).hint(format!(
                    "stop its services, or GRANT pg_signal_backend TO {}",
                    quote(&self.settings.user)
                ))
            })?;
            let Err(error) = admin.batch_execute(sql).await else { return Ok(()) };
            let _ = admin.batch_execute("ROLLBACK").await;
            tries += 1;
            if error.code() != Some(&SqlState::OBJECT_IN_USE) {
                return Err(failed(self.item(), what, &error));
            }
            if tries >= TRIES {
                return Err(failed(self.item(), what, &error)
                    .hint("other programs keep connecting to it: stop its services, then resume"));
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    /// Drops a database, if there is one.
    pub(super) async fn drop(&self, admin: &Conn, database: &str) -> Result<()> {
        if self.marks(admin, database).await?.is_none() {
            return Ok(());
        }
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(database));
        admin.batch_execute(&sql).await.map_err(self.failed("a database cannot be dropped"))
    }
}
