//! The state store: the target's journal in SQLite, through sqlx. One file; WAL; a commit returns when it is on disk
//! (`synchronous = FULL`: SQLite manual, PRAGMA synchronous).

mod audit;
mod holdings;
mod peek;
mod records;
mod schema;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::journal::{Journal, Logged, Migration, Record};
use handover_engine::name::MigrationId;
use handover_engine::plan::Plan;
use handover_engine::ports::Result;
use handover_engine::time::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

pub use schema::VERSION;

/// The journal of a target agent.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    pool: SqlitePool,
    /// Who writes what happens by itself.
    agent: Arc<str>,
}

impl Store {
    /// Opens the journal at `path`, or makes it. A journal of an older version is brought up to date; one of a newer
    /// version is refused.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(std::time::Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await;
        let pool = pool.map_err(|e| failed(path, "cannot be opened", e))?;
        let store = Self { path: path.to_owned(), pool, agent: "this agent".into() };
        schema::bring_up_to_date(&store).await?;
        Ok(store)
    }

    fn failed(&self, what: &str, error: sqlx::Error) -> Failure {
        failed(&self.path, what, error)
    }

    fn damaged(&self, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        Failure::permanent(format!("journal {}", self.path.display()), "a record cannot be read")
            .because(error)
            .hint("docs/recovery.md tells how to go on from the last good copy")
    }

    fn json<T: serde::de::DeserializeOwned>(&self, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.damaged(error))
    }

    fn migration(&self, row: &sqlx::sqlite::SqliteRow) -> Result<Migration> {
        let text =
            |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed("cannot be read", e));
        let number =
            |column: &str| row.try_get::<i64, _>(column).map_err(|e| self.failed("cannot be read", e));
        Ok(Migration {
            id: text("id")?.parse().map_err(|e| self.damaged(e))?,
            plan: self.json(&text("plan")?)?,
            digest: Digest::from_str(&text("digest")?).map_err(|e| self.damaged(e))?,
            started_by: text("started_by")?,
            started_at: Timestamp::from_millis(number("started_at_ms")?),
            state: self.json(&text("state")?)?,
            steps_done: self.json(&text("steps_done")?)?,
            pass: u32::try_from(number("pass")?).unwrap_or(u32::MAX),
            shown: row.try_get("shown").map_err(|e| self.failed("cannot be read", e))?,
            outcome: self.json(&text("outcome")?)?,
        })
    }
}

/// A failure of the journal's own file.
fn failed(path: &Path, what: &str, error: sqlx::Error) -> Failure {
    let item = format!("journal {}", path.display());
    let code = error.as_database_error().and_then(|e| e.code()).map(|c| c.to_string()).unwrap_or_default();
    // SQLite result codes: 5 BUSY, 10 IOERR, 11 CORRUPT, 13 FULL, 14 CANTOPEN, 26 NOTADB; extended ones in higher bits.
    let failure =
        match code.parse::<u32>().unwrap_or(0) & 0xff {
            5 => Failure::transient(item, what),
            13 => Failure::operator(item, what)
                .hint("free space on the file system that holds the state directory"),
            11 | 26 => Failure::permanent(item, what)
                .hint("docs/recovery.md tells how to go on from the last good copy"),
            _ => Failure::operator(item, what)
                .hint("is the state directory writable, and its file system sound?"),
        };
    failure.because(error)
}

pub(crate) fn text<T: serde::Serialize>(value: &T) -> String {
    // The engine's values are plain data with string keys: they always serialize.
    serde_json::to_string(value).unwrap_or_default()
}

pub(crate) type Tx = Transaction<'static, Sqlite>;

#[async_trait]
impl Journal for Store {
    async fn keep_plan(&self, plan: &Plan) -> Result<()> {
        let json = String::from_utf8_lossy(&plan.to_bytes()).into_owned();
        sqlx::query("INSERT INTO plan (digest, plan) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(plan.digest().to_string())
            .bind(json)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed("a plan cannot be written", e))?;
        Ok(())
    }

    async fn find_plans(&self, prefix: &str) -> Result<Vec<Plan>> {
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let rows = sqlx::query("SELECT plan FROM plan WHERE digest LIKE ? || '%' LIMIT 2")
            .bind(prefix.to_ascii_lowercase())
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed("cannot be read", e))?;
        rows.iter().map(|row| self.json(&row.get::<String, _>(0))).collect()
    }

    async fn create(&self, migration: &Migration) -> Result<()> {
        let mut tx = self.begin().await?;
        records::refuse_second(self, &mut tx).await?;
        records::insert_migration(self, &mut tx, migration).await?;
        records::inherit_index(self, &mut tx, migration).await?;
        tx.commit().await.map_err(|e| self.failed("a migration cannot be written", e))
    }

    async fn migrations(&self) -> Result<Vec<Migration>> {
        let rows = sqlx::query("SELECT * FROM migration ORDER BY started_at_ms, rowid")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed("cannot be read", e))?;
        rows.iter().map(|row| self.migration(row)).collect()
    }

    async fn commit(&self, id: &MigrationId, at: Timestamp, records: &[Record]) -> Result<()> {
        let mut tx = self.begin().await?;
        let mut writer = records::Writer { store: self, tx: &mut tx, migration: id, id: id.as_str(), at };
        for record in records {
            writer.write(record).await?;
        }
        tx.commit().await.map_err(|e| self.failed("records cannot be made durable", e))
    }

    async fn events(&self, id: &MigrationId, seq: u64, limit: u32) -> Result<Vec<Logged>> {
        let rows = sqlx::query(
            "SELECT seq, at_ms, event FROM event WHERE migration = ? AND seq > ? ORDER BY seq LIMIT ?",
        )
        .bind(id.as_str())
        .bind(i64::try_from(seq).unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.failed("cannot be read", e))?;
        let event = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Logged {
                seq: row.get::<i64, _>(0).unsigned_abs(),
                at: Timestamp::from_millis(row.get(1)),
                event: self.json(&row.get::<String, _>(2))?,
            })
        };
        rows.iter().map(event).collect()
    }
}

impl Store {
    /// Number of a migration's last event; 0 when nothing has happened yet.
    pub async fn last_event(&self, id: &MigrationId) -> Result<u64> {
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM event WHERE migration = ?")
            .bind(id.as_str())
            .fetch_one(&self.pool)
            .await
            .map_err(|e| self.failed("cannot be read", e))?;
        Ok(last.unsigned_abs())
    }

    pub(crate) async fn begin(&self) -> Result<Tx> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed("cannot be written", e))
    }

    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }
}
