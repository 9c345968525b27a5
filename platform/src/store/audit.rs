//! The audit log's table: one line of JSON an entry. The chain is the engine's ([`handover_engine::audit`]).

use handover_engine::audit::{Act, Entry, Head};
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::time::Timestamp;
use sqlx::Row;

use super::{Store, Tx};

impl Store {
    /// What happens by itself is written down as done by this agent.
    pub fn of_agent(mut self, identity: &str) -> Self {
        self.agent = identity.into();
        self
    }

    /// Writes an entry; durable when it returns. Whose it is: the agent's own, where nobody is named. Returns its number.
    pub async fn note(
        &self,
        at: Timestamp,
        by: Option<&str>,
        migration: Option<&MigrationId>,
        act: Act,
    ) -> Result<u64> {
        let mut tx = self.begin().await?;
        let seq = append(self, &mut tx, at, by, migration, act).await?;
        tx.commit().await.map_err(|e| self.failed("an audit entry cannot be made durable", e))?;
        Ok(seq)
    }

    /// The lines of the entries after `after`, at most `limit`.
    pub async fn audit(&self, after: u64, limit: u32) -> Result<Vec<String>> {
        let rows = sqlx::query_scalar("SELECT entry FROM audit WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(limit);
        rows.fetch_all(self.pool()).await.map_err(|e| self.failed("the audit log cannot be read", e))
    }

    /// The end of the log now.
    pub async fn audit_head(&self) -> Result<Head> {
        let row = sqlx::query(LAST).fetch_optional(self.pool()).await;
        let row = row.map_err(|e| self.failed("the audit log cannot be read", e))?;
        Ok(head(row.as_ref()))
    }
}

const LAST: &str = "SELECT seq, entry FROM audit ORDER BY seq DESC LIMIT 1";

fn head(row: Option<&sqlx::sqlite::SqliteRow>) -> Head {
    row.map_or(Head::NONE, |row| Head::after(row.get::<i64, _>(0).unsigned_abs(), &row.get::<String, _>(1)))
}

/// Adds an entry to what the transaction writes. (Transactions that write come one after the other: the head is the last one's.)
pub(super) async fn append(
    store: &Store,
    tx: &mut Tx,
    at: Timestamp,
    by: Option<&str>,
    migration: Option<&MigrationId>,
    act: Act,
) -> Result<u64> {
    let failed = |error| store.failed("an audit entry cannot be written", error);
    let last = sqlx::query(LAST).fetch_optional(&mut **tx).await.map_err(failed)?;
    let before = head(last.as_ref());
    let seq = before.seq + 1;
    let by = by.unwrap_or(&store.agent).to_owned();
    let entry = Entry { seq, at, by, migration: migration.cloned(), act, before: before.digest };
    sqlx::query("INSERT INTO audit VALUES (?, ?)")
        .bind(i64::try_from(seq).unwrap_or(i64::MAX))
        .bind(entry.line())
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
    Ok(seq)
}
