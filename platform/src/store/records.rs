//! Writing records.

use handover_engine::audit::Act;
use handover_engine::failure::Failure;
use handover_engine::journal::{Event, Landing, Migration, Record};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::rows::{HeldChunk, Schema, SnapshotId, TableName};
use handover_engine::time::Timestamp;
use handover_engine::tree::{Block, Entry, RelPath};
use sqlx::Row;
use sqlx::sqlite::SqliteArguments;

use super::holdings::{encode, path_key};
use super::{Store, Tx, text};

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

/// A second migration while one runs: refused by the one's name.
pub(super) async fn refuse_second(store: &Store, tx: &mut Tx) -> Result<()> {
    let running = sqlx::query("SELECT id, started_by FROM migration WHERE ended = 0")
        .fetch_optional(&mut **tx)
        .await
        .map_err(|e| store.failed("cannot be read", e))?;
    let Some(row) = running else { return Ok(()) };
    let (id, by): (String, String) = (row.get(0), row.get(1));
    Err(Failure::operator(format!("migration {id}"), format!("it is running already (started by {by})"))
        .hint("watch it, or abort or finalize it before starting another"))
}

pub(super) async fn insert_migration(store: &Store, tx: &mut Tx, m: &Migration) -> Result<()> {
    sqlx::query(
        "INSERT INTO migration (id, plan, digest, started_by, started_at_ms, state, ended, steps_done, pass, shown, \
         outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(m.id.as_str())
    .bind(text(&m.plan))
    .bind(m.digest.to_string())
    .bind(&m.started_by)
    .bind(m.started_at.millis())
    .bind(text(&m.state))
    .bind(m.state.phase.is_final())
    .bind(text(&m.steps_done))
    .bind(m.pass)
    .bind(m.shown)
    .bind(text(&m.outcome))
    .execute(&mut **tx)
    .await
    .map_err(|e| store.failed("a migration cannot be written", e))?;
    Ok(())
}

/// The index of the last finalized migration from the same source describes what stands here: a new migration begins
/// with it, so that it need not send again what is there. Entries that no longer fit are found by the walk.
pub(super) async fn inherit_index(store: &Store, tx: &mut Tx, m: &Migration) -> Result<()> {
    let rows = sqlx::query("SELECT * FROM migration WHERE ended = 1 ORDER BY started_at_ms DESC, rowid DESC")
        .fetch_all(&mut **tx)
        .await
        .map_err(|e| store.failed("cannot be read", e))?;
    for row in rows {
        let earlier = store.migration(&row)?;
        if earlier.state.phase != handover_engine::phase::Phase::Finalized
            || earlier.plan.source.agent != m.plan.source.agent
        {
            continue;
        }
        for sql in [
            "INSERT INTO tree_entry SELECT ?, dataset, path, entry, landed, digest, is_file, bytes, 0 \
             FROM tree_entry WHERE migration = ?",
            "INSERT INTO file_blocks SELECT ?, dataset, path, blocks FROM file_blocks WHERE migration = ?",
        ] {
            let query = sqlx::query(sql).bind(m.id.as_str()).bind(earlier.id.as_str());
            query.execute(&mut **tx).await.map_err(|e| store.failed("an index cannot be written", e))?;
        }
        return Ok(());
    }
    Ok(())
}

/// Writes the records of one transaction.
pub(super) struct Writer<'a> {
    pub store: &'a Store,
    pub tx: &'a mut Tx,
    pub migration: &'a MigrationId,
    pub id: &'a str,
    pub at: Timestamp,
}

impl Writer<'_> {
    pub async fn write(&mut self, record: &Record) -> Result<()> {
        let id = self.id.to_owned();
        match record {
            Record::State(state) => {
                let ended = state.phase.is_final();
                let query = sqlx::query("UPDATE migration SET state = ?, ended = ? WHERE id = ?");
                self.run(query.bind(text(state)).bind(ended).bind(id)).await
            }
            Record::TaskBegun { pass } => {
                let sql = "UPDATE migration SET steps_done = '[]', shown = 0, pass = ? WHERE id = ?";
                self.run(sqlx::query(sql).bind(*pass).bind(id)).await
            }
            Record::StepDone(step) => {
                let sql = "UPDATE migration SET steps_done = json_insert(steps_done, '$[#]', ?) WHERE id = ?";
                self.run(sqlx::query(sql).bind(step.clone()).bind(id)).await
            }
            Record::Event(event) => {
                let sql = "INSERT INTO event SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3 FROM event WHERE migration = ?1";
                self.run(sqlx::query(sql).bind(id).bind(self.at.millis()).bind(text(event))).await?;
                self.audit(event).await
            }
            Record::Shown(shown) => {
                self.run(sqlx::query("UPDATE migration SET shown = ? WHERE id = ?").bind(*shown).bind(id))
                    .await
            }
            Record::Outcome(outcome) => {
                let query = sqlx::query("UPDATE migration SET outcome = ? WHERE id = ?");
                self.run(query.bind(text(outcome)).bind(id)).await
            }
            Record::Database { dataset, schema } => self.database(dataset, schema).await,
            Record::Rows { dataset, table, snapshot, chunk } => {
                self.applied_rows(dataset, table, chunk).await?;
                self.rows(dataset, table, snapshot, chunk).await
            }
            Record::Doubted { dataset, table, chunk } => {
                let (snapshot, chunk) = chunk.doubted();
                self.rows(dataset, table, &snapshot, &chunk).await
            }
            Record::Landed { dataset, entries } => self.landed(dataset, entries).await,
            Record::Gone { dataset, paths } => self.gone(dataset, paths).await,
            Record::Partial { dataset, entry, offset, blocks, segments } => {
                self.applied_file(dataset, &entry.path, segments).await?;
                self.partial(dataset, entry, *offset, blocks).await
            }
        }
    }

    /// What belongs in the audit log is in it with the event, or neither is.
    async fn audit(&mut self, event: &Event) -> Result<()> {
        let Some(act) = Act::of(event) else { return Ok(()) };
        let by = match event {
            Event::State { by, .. } => by.as_deref(),
            _ => None,
        };
        super::audit::append(self.store, self.tx, self.at, by, Some(self.migration), act).await.map(drop)
    }

    async fn run(&mut self, query: Query<'_>) -> Result<()> {
        let result = query.execute(&mut **self.tx).await;
        result.map(drop).map_err(|e| self.store.failed("a record cannot be written", e))
    }

    async fn database(&mut self, dataset: &DatasetName, schema: &Schema) -> Result<()> {
        let structure = schema.structure().to_string();
        let sql = "DELETE FROM row_chunk WHERE migration = ?1 AND dataset = ?2 AND EXISTS (SELECT 1 FROM db_schema s \
                   WHERE s.migration = ?1 AND s.dataset = ?2 AND s.structure <> ?3)";
        let query =
            sqlx::query(sql).bind(self.id.to_owned()).bind(dataset.to_string()).bind(structure.clone());
        self.run(query).await?;
        let sql = "INSERT OR REPLACE INTO db_schema VALUES (?, ?, ?, ?)";
        let query = sqlx::query(sql).bind(self.id.to_owned()).bind(dataset.to_string());
        self.run(query.bind(structure).bind(text(schema))).await
    }

    async fn rows(
        &mut self,
        dataset: &DatasetName,
        table: &TableName,
        snapshot: &SnapshotId,
        chunk: &HeldChunk,
    ) -> Result<()> {
        let bound =
            |key: &Option<handover_engine::rows::Key>| key.as_ref().map(|k| k.0.to_vec()).unwrap_or_default();
        let sql = "INSERT INTO row_chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
                   ON CONFLICT (migration, dataset, table_schema, table_name, start) DO UPDATE SET stop = excluded.stop, \
                   row_count = excluded.row_count, bytes = excluded.bytes, \
                   digest = excluded.digest, snapshot = excluded.snapshot";
        let query = sqlx::query(sql)
            .bind(self.id.to_owned())
            .bind(dataset.to_string())
            .bind(table.schema.clone())
            .bind(table.name.clone())
            .bind(bound(&chunk.range.after))
            .bind(bound(&chunk.range.until))
            .bind(signed(chunk.rows))
            .bind(signed(chunk.bytes))
            .bind(chunk.digest.0.to_vec())
            .bind(snapshot.0.clone());
        self.run(query).await
    }

    async fn landed(&mut self, dataset: &DatasetName, entries: &[Landing]) -> Result<()> {
        for Landing { entry, blocks, segments } in entries {
            let key = path_key(&entry.source.path);
            let size = entry.source.size();
            let query = sqlx::query("INSERT OR REPLACE INTO tree_entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
                .bind(self.id.to_owned())
                .bind(dataset.to_string())
                .bind(key.clone())
                .bind(encode(&entry.source))
                .bind(encode(&entry.landed))
                .bind(entry.digest.0.to_vec())
                .bind(size.is_some())
                .bind(signed(size.unwrap_or(0)))
                .bind(entry.pass);
            self.run(query).await?;
            if size.is_none() {
                continue;
            }
            self.applied_file(dataset, &entry.source.path, segments).await?;
            if blocks.is_empty() {
                self.forget_blocks(dataset, &key, "file_blocks").await?;
            } else {
                let query = sqlx::query("INSERT OR REPLACE INTO file_blocks VALUES (?, ?, ?, ?)")
                    .bind(self.id.to_owned())
                    .bind(dataset.to_string())
                    .bind(key.clone())
                    .bind(encode(blocks));
                self.run(query).await?;
                self.forget_blocks(dataset, &key, "file_part").await?;
            }
        }
        Ok(())
    }

    async fn forget_blocks(&mut self, dataset: &DatasetName, key: &[u8], table: &'static str) -> Result<()> {
        let sql = match table {
            "file_part" => "DELETE FROM file_part WHERE migration = ? AND dataset = ? AND path = ?",
            _ => "DELETE FROM file_blocks WHERE migration = ? AND dataset = ? AND path = ?",
        };
        let query = sqlx::query(sql).bind(self.id.to_owned()).bind(dataset.to_string()).bind(key.to_vec());
        self.run(query).await
    }

    /// Removes the paths with all they hold: everything from the path up to, not including, path + 0x01.
    async fn gone(&mut self, dataset: &DatasetName, paths: &[RelPath]) -> Result<()> {
        for path in paths {
            let key = path_key(path);
            let (mut inside, mut end) = (key.clone(), key.clone());
            inside.push(0);
            end.push(1);
            for sql in [
                "DELETE FROM tree_entry WHERE migration = ? AND dataset = ? AND (path = ? OR path >= ? AND path < ?)",
                "DELETE FROM file_blocks WHERE migration = ? AND dataset = ? AND (path = ? OR path >= ? AND path < ?)",
                "DELETE FROM file_part WHERE migration = ? AND dataset = ? AND (path = ? OR path >= ? AND path < ?)",
            ] {
                let query = sqlx::query(sql)
                    .bind(self.id.to_owned())
                    .bind(dataset.to_string())
                    .bind(key.clone())
                    .bind(inside.clone())
                    .bind(end.clone());
                self.run(query).await?;
            }
        }
        Ok(())
    }

    async fn partial(
        &mut self,
        dataset: &DatasetName,
        entry: &Entry,
        offset: u64,
        blocks: &[Block],
    ) -> Result<()> {
        let key = path_key(&entry.path);
        if offset == 0 {
            self.forget_blocks(dataset, &key, "file_part").await?;
        }
        let query = sqlx::query(
            "INSERT INTO file_part VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (migration, dataset, path, start) DO UPDATE \
             SET entry = excluded.entry, blocks = excluded.blocks",
        )
            .bind(self.id.to_owned())
            .bind(dataset.to_string())
            .bind(key)
            .bind(signed(offset))
            .bind(encode(entry))
            .bind(encode(blocks));
        self.run(query).await
    }

    /// Remembers that a chunk of rows was applied, unless it was only found still true. Only where chunks are named: it grows
    /// with every pass.
    async fn applied_rows(
        &mut self,
        dataset: &DatasetName,
        table: &TableName,
        chunk: &HeldChunk,
    ) -> Result<()> {
        if !crate::names_chunks() {
            return Ok(());
        }
        let start = chunk.range.after.as_ref().map(|key| key.0.to_vec()).unwrap_or_default();
        let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = "INSERT INTO applied SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM row_chunk WHERE \
                   migration = ?1 AND dataset = ?2 AND table_schema = ?5 AND table_name = ?6 AND start = ?7 AND digest = ?8)";
        let query = sqlx::query(sql)
            .bind(self.id.to_owned())
            .bind(dataset.to_string())
            .bind(format!("table/{} after {hex}", table.name))
            .bind(self.at.millis())
            .bind(table.schema.clone())
            .bind(table.name.clone())
            .bind(start)
            .bind(chunk.digest.0.to_vec());
        self.run(query).await
    }

    /// Remembers that a file's contents were applied: those of a small file whole, those of a large one by segments.
    async fn applied_file(&mut self, dataset: &DatasetName, path: &RelPath, segments: &[u64]) -> Result<()> {
        if !crate::names_chunks() {
            return Ok(());
        }
        // As the source logs it: a path that is not UTF-8 is shown with replacement characters.
        let segments = segments.iter().map(|offset| format!("file/{path}@{offset}"));
        for chunk in std::iter::once(format!("file/{path}")).chain(segments) {
            let query = sqlx::query("INSERT INTO applied VALUES (?, ?, ?, ?)")
                .bind(self.id.to_owned())
                .bind(dataset.to_string())
                .bind(chunk)
                .bind(self.at.millis());
            self.run(query).await?;
        }
        Ok(())
    }
}

/// SQLite's integers are signed; no size comes near the bound.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
