//! Reading what is held of datasets.

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use handover_engine::digest::Digest;
use handover_engine::journal::{Holdings, PartialFile, Sums};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::{Answers, Result};
use handover_engine::rows::{HeldChunk, Key, KeyRange, Schema, SnapshotId, TableName};
use handover_engine::tree::{Block, Entry, IndexEntry, RelPath, Spots};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::Store;

/// Index entries in one batch.
const BATCH: usize = 512;

/// A path as the journal sorts it: NUL between components.
pub(super) fn path_key(path: &RelPath) -> Vec<u8> {
    path.as_bytes().iter().map(|&b| if b == b'/' { 0 } else { b }).collect()
}

/// A value as a compact blob (postcard: <https://postcard.jamesmunns.com/wire-format>). The journal's version tells
/// which types it was written with.
pub(super) fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Fails only for types without a known length or with their own errors: ours have neither.
    postcard::to_allocvec(value).unwrap_or_default()
}

impl Store {
    fn decode<T: serde::de::DeserializeOwned>(&self, row: &SqliteRow, column: usize) -> Result<T> {
        postcard::from_bytes(row.get::<&[u8], _>(column)).map_err(|error| self.damaged(error))
    }

    fn digest(&self, row: &SqliteRow, column: usize) -> Result<Digest> {
        Digest::from_slice(row.get(column)).ok_or_else(|| self.damaged(handover_engine::digest::NotADigest))
    }

    fn entry(&self, row: &SqliteRow) -> Result<IndexEntry> {
        Ok(IndexEntry {
            source: self.decode(row, 0)?,
            landed: self.decode(row, 1)?,
            digest: self.digest(row, 2)?,
            pass: row.get(4),
        })
    }

    /// The index of a directory and all it holds. In pages by path, not as one long query: a read transaction over a whole pass
    /// would keep the journal's write-ahead log from being checkpointed.
    fn index_within(
        &self,
        id: &MigrationId,
        dataset: &DatasetName,
        directory: &RelPath,
    ) -> Answers<Vec<IndexEntry>> {
        let (store, id, dataset) = (self.clone(), id.to_string(), dataset.to_string());
        let key = path_key(directory);
        // Everything from the path up to, not including, path + 0x01; below the root, everything: no name is as long.
        let end = if directory.is_root() { vec![0xff; 256] } else { [&key[..], &[1]].concat() };
        let pages = futures::stream::try_unfold(Some((key, true)), move |after: Option<(Vec<u8>, bool)>| {
            let (store, id, dataset, end) = (store.clone(), id.clone(), dataset.clone(), end.clone());
            async move {
                let Some((after, first)) = after else { return Ok(None) };
                let sql = if first {
                    "SELECT entry, landed, digest, path, pass FROM tree_entry WHERE migration = ? AND dataset = ? AND path >= ? \
                     AND path < ? ORDER BY path LIMIT ?"
                } else {
                    "SELECT entry, landed, digest, path, pass FROM tree_entry WHERE migration = ? AND dataset = ? AND path > ? \
                     AND path < ? ORDER BY path LIMIT ?"
                };
                let query = sqlx::query(sql).bind(id).bind(dataset).bind(after).bind(end);
                let rows = query.bind(BATCH as i64).fetch_all(store.pool()).await;
                let rows = rows.map_err(|e| store.failed("cannot be read", e))?;
                let page = rows.iter().map(|row| store.entry(row)).collect::<Result<Vec<_>>>()?;
                let next = rows.last().filter(|_| rows.len() == BATCH);
                Ok(Some((page, next.map(|row| (row.get::<Vec<u8>, _>(3), false)))))
            }
        });
        pages.try_filter(|page| std::future::ready(!page.is_empty())).boxed()
    }

    /// What the index has of one path.
    fn index_of(&self, id: &MigrationId, dataset: &DatasetName, path: &RelPath) -> Answers<Vec<IndexEntry>> {
        let (store, id, dataset, key) = (self.clone(), id.to_string(), dataset.to_string(), path_key(path));
        let one = async move {
            let sql = "SELECT entry, landed, digest, path, pass FROM tree_entry WHERE migration = ? AND dataset = ? AND path = ?";
            let row = sqlx::query(sql).bind(id).bind(dataset).bind(key).fetch_optional(store.pool()).await;
            let row = row.map_err(|e| store.failed("cannot be read", e))?;
            row.iter().map(|row| store.entry(row)).collect::<Result<Vec<_>>>()
        };
        futures::stream::once(one).try_filter(|page| std::future::ready(!page.is_empty())).boxed()
    }

    fn chunk(&self, row: &SqliteRow) -> Result<(SnapshotId, HeldChunk)> {
        let key =
            |column| Some(row.get::<Vec<u8>, _>(column)).filter(|key| !key.is_empty()).map(|k| Key(k.into()));
        let chunk = HeldChunk {
            range: KeyRange { after: key(0), until: key(1) },
            rows: row.get::<i64, _>(2).unsigned_abs(),
            bytes: row.get::<i64, _>(3).unsigned_abs(),
            digest: self.digest(row, 4)?,
        };
        Ok((SnapshotId(row.get(5)), chunk))
    }
}

#[async_trait]
impl Holdings for Store {
    async fn schema(&self, id: &MigrationId, dataset: &DatasetName) -> Result<Option<Schema>> {
        let row = sqlx::query("SELECT db_schema FROM db_schema WHERE migration = ? AND dataset = ?")
            .bind(id.as_str())
            .bind(dataset.as_str())
            .fetch_optional(self.pool())
            .await
            .map_err(|e| self.failed("cannot be read", e))?;
        row.map(|row| self.json(&row.get::<String, _>(0))).transpose()
    }

    async fn chunks(
        &self,
        id: &MigrationId,
        dataset: &DatasetName,
        table: &TableName,
    ) -> Result<Vec<(SnapshotId, HeldChunk)>> {
        let rows = sqlx::query(
            "SELECT start, stop, row_count, bytes, digest, snapshot FROM row_chunk WHERE migration = ? AND dataset = ? \
             AND table_schema = ? AND table_name = ? ORDER BY rowid",
        )
        .bind(id.as_str())
        .bind(dataset.as_str())
        .bind(&table.schema)
        .bind(&table.name)
        .fetch_all(self.pool())
        .await
        .map_err(|e| self.failed("cannot be read", e))?;
        rows.iter().map(|row| self.chunk(row)).collect()
    }

    fn index(&self, id: &MigrationId, dataset: &DatasetName) -> Answers<Vec<IndexEntry>> {
        self.index_within(id, dataset, &RelPath::root())
    }

    fn index_at(&self, id: &MigrationId, dataset: &DatasetName, spots: &Spots) -> Answers<Vec<IndexEntry>> {
        let places: Vec<(RelPath, bool)> = spots.iter().map(|(path, deep)| (path.clone(), deep)).collect();
        let (store, id, dataset) = (self.clone(), id.clone(), dataset.clone());
        let pages = futures::stream::iter(places).map(move |(path, deep)| {
            if deep { store.index_within(&id, &dataset, &path) } else { store.index_of(&id, &dataset, &path) }
        });
        pages.flatten().boxed()
    }

    async fn blocks(&self, id: &MigrationId, dataset: &DatasetName, path: &RelPath) -> Result<Vec<Block>> {
        let row =
            sqlx::query("SELECT blocks FROM file_blocks WHERE migration = ? AND dataset = ? AND path = ?")
                .bind(id.as_str())
                .bind(dataset.as_str())
                .bind(path_key(path))
                .fetch_optional(self.pool())
                .await
                .map_err(|e| self.failed("cannot be read", e))?;
        row.map_or(Ok(Vec::new()), |row| self.decode(&row, 0))
    }

    async fn partials(&self, id: &MigrationId, dataset: &DatasetName) -> Result<Vec<PartialFile>> {
        let sql =
            "SELECT entry, blocks FROM file_part WHERE migration = ? AND dataset = ? ORDER BY path, start";
        let rows = sqlx::query(sql)
            .bind(id.as_str())
            .bind(dataset.as_str())
            .fetch_all(self.pool())
            .await
            .map_err(|e| self.failed("cannot be read", e))?;
        let mut partials: Vec<PartialFile> = Vec::new();
        for row in &rows {
            let (entry, blocks): (Entry, Vec<Block>) = (self.decode(row, 0)?, self.decode(row, 1)?);
            match partials.last_mut().filter(|partial| partial.entry.path == entry.path) {
                Some(partial) => partial.blocks.extend(blocks),
                None => partials.push(PartialFile { entry, blocks }),
            }
        }
        Ok(partials)
    }

    async fn sums(&self, id: &MigrationId, dataset: &DatasetName) -> Result<Sums> {
        let row = sqlx::query(
            "SELECT coalesce(sum(row_count), 0), coalesce(sum(bytes), 0), \
             count(DISTINCT table_schema || char(0) || table_name), \
             (SELECT coalesce(sum(is_file), 0) FROM tree_entry WHERE migration = ?1 AND dataset = ?2), \
             (SELECT coalesce(sum(bytes), 0) FROM tree_entry WHERE migration = ?1 AND dataset = ?2) \
             FROM row_chunk WHERE migration = ?1 AND dataset = ?2",
        )
        .bind(id.as_str())
        .bind(dataset.as_str())
        .fetch_one(self.pool())
        .await
        .map_err(|e| self.failed("cannot be read", e))?;
        let number = |column: usize| row.get::<i64, _>(column).unsigned_abs();
        Ok(Sums { rows: number(0), tables: number(2), files: number(3), bytes: number(1) + number(4) })
    }
}
