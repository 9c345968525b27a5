//! Rows by their ranges: chunks that are written, and read again.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyRange, RowsChunk, Schema, TableName};

use super::PostgresTarget;
use super::load::{self, Part, Refused, places};
use crate::error::failed;
use crate::read::Cursor;
use crate::shape::{BadShape, Shape};

/// Rows that are read again at once, where only a part of a range is asked for.
const PART_ROWS: u64 = 20_000;

impl PostgresTarget {
    /// Makes the chunks' ranges hold exactly their rows.
    pub(super) async fn put_chunks(&self, chunks: &[RowsChunk]) -> Result<()> {
        let (settings, schema) = self.at().await?;
        let parts = chunks.iter().map(|chunk| self.part(&schema, chunk)).collect::<Result<Vec<_>>>()?;
        let conn = self.rows_conn(&settings, &schema).await?;
        load::apply(&conn, &parts).await.map_err(|e| self.refused(e))?;
        self.keep_conn(conn);
        Ok(())
    }

    /// Adds rows to a table that was cleared.
    pub async fn fill(&self, chunk: &RowsChunk) -> Result<()> {
        let (settings, schema) = self.at().await?;
        let table = &chunk.header.table;
        let shape = self.shape(&schema, table)?;
        let conn = self.rows_conn(&settings, &schema).await?;
        let done = load::fill(&conn, &shape, &chunk.block).await;
        done.map_err(|e| failed(self.item(Some(table)), "rows cannot be written", &e))?;
        self.keep_conn(conn);
        Ok(())
    }

    /// The rows of a range, as they are.
    pub(super) async fn read_again(&self, table: &TableName, range: &KeyRange) -> Result<RowsChunk> {
        let (settings, schema) = self.at().await?;
        let shape = self.shape(&schema, table)?;
        let sql = if shape.hidden { read_placed(&shape, table, range) } else { shape.read(range) };
        let sql = sql.map_err(|e| self.malformed(table, &e))?;
        let conn = self.rows_conn(&settings, &schema).await?;
        let refused = |e| failed(self.item(Some(table)), "its rows cannot be read again", &e);
        let mut cursor = Cursor::open(conn, table, shape, range, &sql).await.map_err(refused)?;
        let chunk = cursor.chunk(u64::MAX).await.map_err(refused)?;
        self.keep_conn(cursor.into_conn());
        Ok(chunk)
    }

    /// The first rows of a range.
    pub(super) async fn read_part_again(
        &self,
        table: &TableName,
        range: &KeyRange,
        budget: u64,
    ) -> Result<RowsChunk> {
        let (settings, schema) = self.at().await?;
        let shape = self.shape(&schema, table)?;
        // Bounded, so that the rows are found by their index, and not all sorted for the first of them.
        let sql = shape.read_first(range, PART_ROWS).map_err(|e| self.malformed(table, &e))?;
        let conn = self.rows_conn(&settings, &schema).await?;
        let refused = |e| failed(self.item(Some(table)), "its rows cannot be read again", &e);
        let key_of = shape.clone();
        let mut cursor = Cursor::open(conn, table, shape, range, &sql).await.map_err(refused)?;
        let mut chunk = cursor.chunk(budget).await.map_err(refused)?;
        if cursor.is_done() {
            // What is left of any other is not waited for.
            self.keep_conn(cursor.into_conn());
            if chunk.header.rows == PART_ROWS {
                let rows = chunk.block.strip_suffix(b"\n").unwrap_or(&chunk.block);
                let last = rows.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                chunk.header.range.until = Some(Key(key_of.key_of(last).into()));
            }
        }
        Ok(chunk)
    }

    /// A table of the schema, as statements name it.
    pub(super) fn shape(&self, schema: &Schema, table: &TableName) -> Result<Shape> {
        Shape::of(schema, table).map_err(|e| self.malformed(table, &e))
    }

    /// A table or a key does not belong to the schema.
    pub(super) fn malformed(&self, table: &TableName, bad: &BadShape) -> Failure {
        Failure::permanent(self.item(Some(table)), bad.to_string())
    }

    fn part<'c>(&self, schema: &Schema, chunk: &'c RowsChunk) -> Result<Part<'c>> {
        let table = &chunk.header.table;
        let shape = self.shape(schema, table)?;
        let condition = if shape.hidden {
            shape.with_places("place").condition(&chunk.header.range)
        } else {
            shape.condition(&chunk.header.range)
        };
        let fresh = self.lock().fresh.take(table, &chunk.header.range);
        let condition = condition.map_err(|e| self.malformed(table, &e))?;
        Ok(Part { chunk, shape, fresh, condition })
    }

    fn refused(&self, refused: Refused) -> Failure {
        match refused {
            Refused::Server(table, error) => {
                failed(self.item(Some(&table)), "rows cannot be written", &error)
            }
            Refused::Moved(table) => {
                let what = "rows were changed or moved at the target since they were loaded";
                Failure::operator(self.item(Some(&table)), what)
                    .begin_anew("nothing else may write there before the change-over: abort, and start again")
            }
        }
    }
}

/// The statement that reads the rows of a table without a key, with their places at the source.
fn read_placed(shape: &Shape, table: &TableName, range: &KeyRange) -> Result<String, BadShape> {
    let columns: Vec<String> = shape.columns.iter().map(|column| format!(", t.{column}")).collect();
    Ok(format!(
        "COPY (SELECT p.place{} FROM {} p JOIN ONLY {} t ON t.ctid = p.at{} ORDER BY p.place) TO STDOUT",
        columns.concat(),
        places(table),
        shape.table,
        shape.with_places("p.place").condition(range)?
    ))
}
