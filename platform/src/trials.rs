//! What rehearsals have tried, in a database of its own in the state directory: the chunks in the scratch databases, and the rows in
//! quarantine. It holds rows of production: only the agent's user may read it.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::ports::scratch::{Change, TrialLedger, TriedChunk};
use handover_engine::rehearsal::quarantine::{Entry, numbers};
use handover_engine::rows::TableName;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::tree::blocking;

/// The version of its tables. They hold nothing that cannot be tried again: another version's are made anew.
const VERSION: i64 = 1;
const TABLES: &str = "
    CREATE TABLE trial (dataset TEXT PRIMARY KEY, token TEXT NOT NULL);
    CREATE TABLE chunk (id INTEGER PRIMARY KEY AUTOINCREMENT, dataset TEXT NOT NULL, name TEXT NOT NULL, held BLOB);
    CREATE INDEX chunks ON chunk (dataset, name);
    CREATE TABLE entry (dataset TEXT, name TEXT, number INTEGER, held BLOB NOT NULL, form TEXT NOT NULL,
        fate TEXT NOT NULL, conflict TEXT NOT NULL, PRIMARY KEY (dataset, name, number)) WITHOUT ROWID;";

/// The record of all rehearsals on this host.
#[derive(Clone)]
pub struct Trials {
    path: Arc<PathBuf>,
    db: Arc<Mutex<Connection>>,
}

type Answer<T> = std::result::Result<T, rusqlite::Error>;

fn failed(path: &Path, error: rusqlite::Error) -> Failure {
    Failure::operator(path.display().to_string(), "the record of rehearsals cannot be used")
        .because(error)
        .hint("is there room, and is the state directory writable? It may be removed: the next rehearsal begins anew")
}

impl Trials {
    /// Opens it, or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        let made =
            std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        made.map_err(|error| {
            Failure::operator(path.display().to_string(), "cannot be made")
                .because(error)
                .hint("is the state directory writable?")
        })?;
        let db = open(path).map_err(|error| failed(path, error))?;
        Ok(Self { path: Arc::new(path.to_owned()), db: Arc::new(Mutex::new(db)) })
    }

    async fn run<T: Send + 'static>(
        &self,
        dataset: &DatasetName,
        work: impl FnOnce(&Connection) -> Answer<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        blocking(dataset, move || {
            let db = this.db.lock().unwrap_or_else(PoisonError::into_inner);
            let done = db.unchecked_transaction().and_then(|transaction| {
                let done = work(&db)?;
                transaction.commit()?;
                Ok(done)
            });
            done.map_err(|error| failed(&this.path, error))
        })
        .await
    }
}

fn open(path: &Path) -> Answer<Connection> {
    let db = Connection::open(path)?;
    db.execute_batch("PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != VERSION {
        let transaction = db.unchecked_transaction()?;
        for table in ["trial", "chunk", "entry"] {
            db.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?;
        }
        db.execute_batch(TABLES)?;
        db.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    Ok(db)
}

/// A table's name as it is kept: no two have the same.
fn kept(table: &TableName) -> String {
    format!("{}\n{}", table.schema, table.name)
}

/// A value that another version, or another hand, has written.
fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error))
}

fn printed<T: serde::Serialize>(value: &T) -> Answer<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Answer<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| damaged(column, error))
}

fn clear(db: &Connection, dataset: &str) -> Answer<()> {
    for table in ["trial", "chunk", "entry"] {
        db.execute(&format!("DELETE FROM {table} WHERE dataset = ?"), [dataset])?;
    }
    Ok(())
}

fn entry(row: &Row<'_>) -> Answer<Entry> {
    Ok(Entry {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        values: row.get::<_, Vec<u8>>(1)?.into(),
        form: parsed(row, 2)?,
        fate: parsed(row, 3)?,
        conflict: parsed(row, 4)?,
    })
}

fn hold(db: &Connection, dataset: &str, table: &str, entry: &Entry) -> Answer<()> {
    let sql = "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)";
    let Entry { number, values, form, fate, conflict } = entry;
    let (form, fate, conflict) = (printed(form)?, printed(fate)?, printed(conflict)?);
    let values: &[u8] = values;
    db.prepare_cached(sql)?.execute((dataset, table, *number as i64, values, form, fate, conflict))?;
    Ok(())
}

fn change(db: &Connection, dataset: &str, table: &str, change: &Change) -> Answer<()> {
    match change {
        Change::Doubt(ids) => {
            let mut doubt = db.prepare_cached("UPDATE chunk SET held = NULL WHERE id = ?")?;
            ids.iter().try_for_each(|id| doubt.execute([*id as i64]).map(drop))
        }
        Change::Forget(ids) => {
            let mut chunk = db.prepare_cached("DELETE FROM chunk WHERE id = ?")?;
            let sql = "DELETE FROM entry WHERE dataset = ? AND name = ? AND number BETWEEN ? AND ?";
            let mut entries = db.prepare_cached(sql)?;
            for id in ids {
                let numbers = numbers(*id);
                entries.execute((dataset, table, *numbers.start() as i64, *numbers.end() as i64))?;
                chunk.execute([*id as i64])?;
            }
            Ok(())
        }
        Change::Keep(id, held, entries) => {
            let held = postcard::to_allocvec(held);
            let held = held.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            db.prepare_cached("UPDATE chunk SET held = ? WHERE id = ?")?.execute((held, *id as i64))?;
            entries.iter().try_for_each(|entry| hold(db, dataset, table, entry))
        }
        Change::Hold(entry) => hold(db, dataset, table, entry),
        Change::Release(number) => {
            let sql = "DELETE FROM entry WHERE dataset = ? AND name = ? AND number = ?";
            db.prepare_cached(sql)?.execute((dataset, table, *number as i64)).map(drop)
        }
    }
}

#[async_trait]
impl TrialLedger for Trials {
    async fn begin(&self, dataset: &DatasetName, token: &str) -> Result<bool> {
        let (name, token) = (dataset.to_string(), token.to_owned());
        self.run(dataset, move |db| {
            let known = db.query_row("SELECT token FROM trial WHERE dataset = ?", [&name], |row| row.get(0));
            let known: Option<String> = known.optional()?;
            if known.as_deref() == Some(token.as_str()) {
                return db.query_row(
                    "SELECT EXISTS (SELECT 1 FROM chunk WHERE dataset = ?)",
                    [&name],
                    |row| row.get(0),
                );
            }
            clear(db, &name)?;
            db.execute("INSERT INTO trial VALUES (?, ?)", [&name, &token])?;
            Ok(false)
        })
        .await
    }

    async fn chunks(&self, dataset: &DatasetName, table: &TableName) -> Result<Vec<TriedChunk>> {
        let (name, table) = (dataset.to_string(), kept(table));
        self.run(dataset, move |db| {
            let mut select =
                db.prepare_cached("SELECT id, held FROM chunk WHERE dataset = ? AND name = ?")?;
            let chunks = select.query_map([name, table], |row| {
                let held: Option<Vec<u8>> = row.get(1)?;
                let held = held.map(|held| postcard::from_bytes(&held).map_err(|error| damaged(1, error)));
                Ok(TriedChunk { id: row.get::<_, i64>(0)?.unsigned_abs(), held: held.transpose()? })
            })?;
            chunks.collect()
        })
        .await
    }

    async fn entries(
        &self,
        dataset: &DatasetName,
        table: &TableName,
        only: Option<&[u64]>,
    ) -> Result<Vec<Entry>> {
        let (name, table, only) = (dataset.to_string(), kept(table), only.map(<[u64]>::to_vec));
        self.run(dataset, move |db| {
            let sql = "SELECT number, held, form, fate, conflict FROM entry WHERE dataset = ? AND name = ?";
            let Some(only) = only else {
                let mut select = db.prepare_cached(sql)?;
                return select.query_map([name, table], entry)?.collect();
            };
            let mut select = db.prepare_cached(&format!("{sql} AND number = ?"))?;
            let mut out = Vec::new();
            for number in only {
                out.extend(select.query_row((&name, &table, number as i64), entry).optional()?);
            }
            Ok(out)
        })
        .await
    }

    async fn allot(&self, dataset: &DatasetName, table: &TableName) -> Result<u64> {
        let (name, table) = (dataset.to_string(), kept(table));
        self.run(dataset, move |db| {
            db.execute("INSERT INTO chunk (dataset, name) VALUES (?, ?)", [name, table])?;
            Ok(db.last_insert_rowid().unsigned_abs())
        })
        .await
    }

    async fn change(&self, dataset: &DatasetName, table: &TableName, changes: Vec<Change>) -> Result<()> {
        let (name, table) = (dataset.to_string(), kept(table));
        self.run(dataset, move |db| changes.iter().try_for_each(|c| change(db, &name, &table, c))).await
    }

    async fn clear(&self, dataset: &DatasetName) -> Result<()> {
        let name = dataset.to_string();
        self.run(dataset, move |db| clear(db, &name)).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use handover_engine::digest::Digest;
    use handover_engine::rehearsal::quarantine::{Fate, Form, number};
    use handover_engine::rehearsal::{Conflict, ConflictKind};
    use handover_engine::rows::{HeldChunk, KeyRange};

    use super::*;

    fn entry(number: u64) -> Entry {
        let conflict = Conflict {
            kind: ConflictKind::Check,
            table: TableName::plain("t"),
            key: "id 1".to_owned(),
            constraint: "c".to_owned(),
            other: None,
        };
        let values = Bytes::from_static(b"a\t\xff");
        Entry { number, values, form: Form::Scratch, conflict, fate: Fate::Open }
    }

    #[tokio::test]
    async fn what_was_tried_is_known_after_a_restart_until_another_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rehearsal.db");
        let (main, table): (DatasetName, _) = ("main".parse().unwrap(), TableName::plain("t"));
        let trials = Trials::open(&path).unwrap();
        assert!(!trials.begin(&main, "one").await.unwrap());
        let (kept, doubted) =
            (trials.allot(&main, &table).await.unwrap(), trials.allot(&main, &table).await.unwrap());
        assert_ne!(kept, doubted);
        let range = KeyRange::default();
        let held = HeldChunk { range, rows: 3, bytes: 9, digest: Digest::of(b"x") };
        let rows = vec![entry(number(kept, 0)), entry(number(kept, 2))];
        trials.change(&main, &table, vec![Change::Keep(kept, held.clone(), rows)]).await.unwrap();
        trials.change(&main, &table, vec![Change::Hold(entry(number(doubted, 1)))]).await.unwrap();
        drop(trials);

        let trials = Trials::open(&path).unwrap();
        assert!(trials.begin(&main, "one").await.unwrap());
        let mut chunks = trials.chunks(&main, &table).await.unwrap();
        chunks.sort_by_key(|chunk| chunk.id);
        assert_eq!(
            chunks,
            [TriedChunk { id: kept, held: Some(held) }, TriedChunk { id: doubted, held: None }]
        );
        assert_eq!(trials.entries(&main, &table, None).await.unwrap().len(), 3);
        let second = trials.entries(&main, &table, Some(&[number(kept, 2), 77])).await.unwrap();
        assert_eq!(second, [entry(number(kept, 2))]);
        trials
            .change(&main, &table, vec![Change::Forget(vec![doubted]), Change::Doubt(vec![kept])])
            .await
            .unwrap();
        trials.change(&main, &table, vec![Change::Release(number(kept, 0))]).await.unwrap();
        assert_eq!(trials.chunks(&main, &table).await.unwrap(), [TriedChunk { id: kept, held: None }]);
        assert_eq!(trials.entries(&main, &table, None).await.unwrap(), [entry(number(kept, 2))]);
        assert!(trials.chunks(&main, &TableName::plain("u")).await.unwrap().is_empty());

        assert!(!trials.begin(&main, "two").await.unwrap());
        assert!(trials.chunks(&main, &table).await.unwrap().is_empty());
        assert!(trials.entries(&main, &table, None).await.unwrap().is_empty());
        assert!(trials.allot(&main, &table).await.unwrap() > doubted, "no number is used twice");
    }
}
