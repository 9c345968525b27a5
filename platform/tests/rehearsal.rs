//! Rehearsals of SQLite databases on real files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use handover_engine::ports::scratch::Scratch;
use handover_engine::rehearsal::ConflictKind;
use handover_platform::contract::rehearsal::{At, Rehearsed, rehearsal_contract};
use handover_platform::sqlite::SqliteScratch;
use rusqlite::Connection;
use rusqlite::types::Value;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, at: At) -> PathBuf {
        self.0.path().join(match at {
            At::Source => "source.db",
            At::Target => "target.db",
            At::Scratch => "target.db.handover-rehearsal",
        })
    }
}

impl Rehearsed for Files {
    fn url(&self) -> String {
        format!("sqlite:{}", self.path(At::Source).display())
    }

    fn scratch(&self) -> Arc<dyn Scratch> {
        Arc::new(SqliteScratch::new("main".parse().unwrap(), self.path(At::Target)))
    }

    fn directory(&self) -> &Path {
        self.0.path()
    }

    fn sql(&self, at: At, statements: &str) -> String {
        let db = Connection::open(self.path(at)).unwrap();
        if !statements.starts_with("SELECT") {
            db.execute_batch(&format!("BEGIN; {statements}; COMMIT")).unwrap();
            return String::new();
        }
        let mut select = db.prepare(statements).unwrap();
        let columns = select.column_count();
        let value = |value: Value| match value {
            Value::Null => "NULL".to_owned(),
            Value::Integer(integer) => integer.to_string(),
            Value::Text(text) => text,
            other => format!("{other:?}"),
        };
        let row = |row: &rusqlite::Row<'_>| {
            let values: Vec<String> = (0..columns).map(|n| value(row.get(n).unwrap())).collect();
            Ok(values.join("|"))
        };
        select.query_row([], row).unwrap()
    }

    fn columns(&self) -> &'static str {
        "code TEXT CHECK (length(code) <= 4), age INTEGER, score INTEGER CHECK (score < 100)"
    }

    fn after_table(&self) -> &'static str {
        " STRICT"
    }

    /// Tables that hold their columns to their types know these types alone.
    fn dialect(&self, statements: String) -> String {
        let mut out = statements;
        for varchar in ["VARCHAR(40)", "VARCHAR(3)", "VARCHAR(3000)"] {
            out = out.replace(varchar, "TEXT");
        }
        out
    }

    fn kinds(&self) -> (ConflictKind, ConflictKind) {
        (ConflictKind::Check, ConflictKind::Check)
    }

    fn is_there(&self) -> bool {
        self.path(At::Scratch).exists()
    }

    fn stride(&self) -> u32 {
        1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract_of_rehearsals() {
    rehearsal_contract(&Files::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_ours_is_left_alone() {
    let files = Files::new();
    files.sql(At::Source, "CREATE TABLE t (a)");
    files.sql(At::Scratch, "CREATE TABLE precious (a)");
    let schema = {
        use handover_engine::ports::Database;
        use handover_platform::sqlite::SqliteDatabase;
        let name = "main".parse().unwrap();
        let database =
            SqliteDatabase::new(name, files.path(At::Source), Vec::new(), files.0.path().join("scratch"));
        database.snapshot().await.unwrap().schema().clone()
    };
    let failure = files.scratch().make(&schema, "t").await.unwrap_err();
    assert!(failure.to_string().contains("no scratch database of ours"), "{failure}");
    files.scratch().drop_scratch().await.unwrap();
    assert_eq!(files.sql(At::Scratch, "SELECT count(*) FROM precious"), "0");
}
