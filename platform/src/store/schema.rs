//! The journal's tables, and how an older journal is brought up to date.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;

use super::Store;

/// The version of the journal that this release writes (`PRAGMA user_version`). Every released version keeps a fixture
/// in `tests/fixtures/journal` that must still open.
pub const VERSION: i64 = 3;

/// What makes a journal of each version out of one of the version before.
const STEPS: [&str; 3] = [V1, V2, V3];

const V1: &str = "
CREATE TABLE plan (digest TEXT PRIMARY KEY, plan TEXT NOT NULL) STRICT;
CREATE TABLE migration (
    id TEXT PRIMARY KEY, plan TEXT NOT NULL, digest TEXT NOT NULL, started_by TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL, state TEXT NOT NULL, ended INTEGER NOT NULL, steps_done TEXT NOT NULL,
    pass INTEGER NOT NULL, shown REAL NOT NULL, outcome TEXT NOT NULL) STRICT;
-- At most one migration runs on a target.
CREATE UNIQUE INDEX one_running ON migration (ended) WHERE ended = 0;
CREATE TABLE event (
    migration TEXT NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL, event TEXT NOT NULL,
    PRIMARY KEY (migration, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE db_schema (
    migration TEXT NOT NULL, dataset TEXT NOT NULL, structure TEXT NOT NULL, db_schema TEXT NOT NULL,
    PRIMARY KEY (migration, dataset)) STRICT, WITHOUT ROWID;
-- A chunk is known by where it starts; x'' stands for the start of the table in `start` and for its end in `stop`
-- (no key is empty).
CREATE TABLE row_chunk (
    migration TEXT NOT NULL, dataset TEXT NOT NULL, table_schema TEXT NOT NULL, table_name TEXT NOT NULL,
    start BLOB NOT NULL, stop BLOB NOT NULL, row_count INTEGER NOT NULL, bytes INTEGER NOT NULL, digest BLOB NOT NULL,
    snapshot TEXT NOT NULL,
    UNIQUE (migration, dataset, table_schema, table_name, start)) STRICT;
-- `path` has NUL between components, so that SQLite sorts it in tree order.
CREATE TABLE tree_entry (
    migration TEXT NOT NULL, dataset TEXT NOT NULL, path BLOB NOT NULL, entry BLOB NOT NULL, landed BLOB NOT NULL,
    digest BLOB NOT NULL, is_file INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (migration, dataset, path)) STRICT, WITHOUT ROWID;
-- Blocks of large files that have landed.
CREATE TABLE file_blocks (
    migration TEXT NOT NULL, dataset TEXT NOT NULL, path BLOB NOT NULL, blocks BLOB NOT NULL,
    PRIMARY KEY (migration, dataset, path)) STRICT, WITHOUT ROWID;
-- Parts of large files that are durable, out of sight.
CREATE TABLE file_part (
    migration TEXT NOT NULL, dataset TEXT NOT NULL, path BLOB NOT NULL, start INTEGER NOT NULL, entry BLOB NOT NULL,
    blocks BLOB NOT NULL,
    PRIMARY KEY (migration, dataset, path, start)) STRICT, WITHOUT ROWID;
-- What was applied and when, in the names that the source logs: never changed, for those who look into what was sent (`names_chunks`).
CREATE TABLE applied (
    migration TEXT NOT NULL, dataset TEXT NOT NULL, chunk TEXT NOT NULL, at_ms INTEGER NOT NULL);
";

/// Which pass landed an entry; of those that were there nobody knows, so they count as the pass at hand's.
const V2: &str = "
ALTER TABLE tree_entry ADD COLUMN pass INTEGER NOT NULL DEFAULT 0;
UPDATE tree_entry SET pass = coalesce((SELECT pass FROM migration WHERE id = tree_entry.migration), 0);
";

/// Who did what: lines of JSON, each with the digest of the one before. The triggers stop mistakes; who means to change it is found by the
/// chain.
const V3: &str = "
CREATE TABLE audit (seq INTEGER PRIMARY KEY, entry TEXT NOT NULL) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
";

/// Brings the journal up to [`VERSION`], one version after the other, each in a transaction of its own.
pub(super) async fn bring_up_to_date(store: &Store) -> Result<()> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(store.pool())
        .await
        .map_err(|e| store.failed("cannot be read", e))?;
    if found > VERSION {
        return Err(Failure::operator(
            format!("journal {}", store.path.display()),
            format!("it has version {found}, this release knows version {VERSION}"),
        )
        .hint("a newer release has written it: install that one"));
    }
    let from = usize::try_from(found).unwrap_or(0);
    for (version, step) in STEPS.iter().enumerate().skip(from) {
        let sql = format!("BEGIN IMMEDIATE; {step} PRAGMA user_version = {}; COMMIT;", version + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(store.pool())
            .await
            .map_err(|e| store.failed("cannot be brought up to date", e))?;
    }
    Ok(())
}
