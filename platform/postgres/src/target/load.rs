//! Writing rows: whole chunks by `COPY`, in one transaction.

use std::pin::pin;

use bytes::Bytes;
use futures::SinkExt;
use handover_engine::digest::Digest;
use handover_engine::rows::{RowsChunk, TableName};
use tokio_postgres::Error;

use crate::connect::Conn;
use crate::dump::OWN_SCHEMA;
use crate::shape::Shape;

/// Bytes that are sent with one message.
const PIECE: usize = 256 << 10;

/// A table of rows' places at the source and here, for a table without a key.
pub fn places(table: &TableName) -> String {
    format!("{OWN_SCHEMA}.places_{}", Digest::of(table.to_string().as_bytes()).short())
}

/// A chunk with its table's shape, and whether its range is certainly empty.
pub struct Part<'a> {
    pub chunk: &'a RowsChunk,
    pub shape: Shape,
    pub fresh: bool,
    /// The range's condition.
    pub condition: String,
}

/// Why a chunk could not be written.
pub enum Refused {
    /// By the server.
    Server(TableName, Error),
    /// Rows of a table without a key are not where they were put.
    Moved(TableName),
}

/// Makes the chunks' ranges hold exactly their rows, in one transaction.
pub async fn apply(conn: &Conn, parts: &[Part<'_>]) -> Result<(), Refused> {
    let Some(first) = parts.first() else { return Ok(()) };
    let on = |part: &Part<'_>| part.chunk.header.table.clone();
    conn.batch_execute("BEGIN").await.map_err(|e| Refused::Server(on(first), e))?;
    let mut rest = parts;
    while let Some(part) = rest.first() {
        // Neighbours in one table that need no emptying go through one COPY.
        let same = |p: &&Part<'_>| p.fresh && p.chunk.header.table == part.chunk.header.table;
        let together =
            if part.fresh && !part.shape.hidden { rest.iter().take_while(same).count() } else { 1 };
        let (now, later) = rest.split_at(together);
        rest = later;
        let done =
            if part.shape.hidden { apply_placed(conn, part).await } else { apply_keyed(conn, now).await };
        if let Err(refused) = done {
            let _ = conn.batch_execute("ROLLBACK").await;
            return Err(refused);
        }
    }
    // Durable with the commit: synchronous_commit is on.
    conn.batch_execute("COMMIT").await.map_err(|e| Refused::Server(on(first), e))
}

async fn apply_keyed(conn: &Conn, parts: &[Part<'_>]) -> Result<(), Refused> {
    let Some(part) = parts.first() else { return Ok(()) };
    let refused = |e| Refused::Server(part.chunk.header.table.clone(), e);
    let Shape { table, columns, .. } = &part.shape;
    if !part.fresh {
        let sql = format!("DELETE FROM ONLY {table}{}", part.condition);
        conn.batch_execute(&sql).await.map_err(refused)?;
    }
    let mut blocks: Vec<Bytes> = Vec::with_capacity(parts.len());
    blocks.extend(parts.iter().map(|part| part.chunk.block.clone()));
    copy(conn, &format!("COPY {table} ({}) FROM STDIN", columns.join(", ")), blocks).await.map_err(refused)
}

/// Sends rows to a COPY.
pub async fn copy(conn: &Conn, sql: &str, mut blocks: Vec<Bytes>) -> Result<(), Error> {
    blocks.retain(|block| !block.is_empty());
    if blocks.is_empty() {
        return Ok(());
    }
    let mut sink = pin!(conn.copy_in::<_, Bytes>(sql).await?);
    // Piece by piece: what is sent is copied once more, and a row may be huge.
    for mut block in blocks {
        while !block.is_empty() {
            let piece = block.split_to(block.len().min(PIECE));
            sink.send(piece).await?;
        }
    }
    sink.finish().await.map(drop)
}

/// Rows of a table without a key come with their places at the source; where each is put here is remembered.
async fn apply_placed(conn: &Conn, part: &Part<'_>) -> Result<(), Refused> {
    let name = &part.chunk.header.table;
    let refused = |e| Refused::Server(name.clone(), e);
    let (table, places, condition) = (&part.shape.table, places(name), &part.condition);
    if !part.fresh {
        let sql = format!(
            "WITH gone AS (DELETE FROM {places}{condition} RETURNING at), \
             rows AS (DELETE FROM ONLY {table} t USING gone WHERE t.ctid = gone.at RETURNING 1) \
             SELECT (SELECT count(*) FROM gone) = (SELECT count(*) FROM rows)"
        );
        if conn.text(&sql).await.map_err(refused)?.as_deref() != Some("t") {
            return Err(Refused::Moved(name.clone()));
        }
    }
    stage(conn, &part.shape, &part.chunk.block).await.map_err(refused)?;
    let sql = format!(
        "WITH put AS ({} RETURNING ctid AS at), \
         a AS (SELECT \"handover place\" AS place, row_number() OVER () AS n FROM {STAGING}), \
         b AS (SELECT at, row_number() OVER () AS n FROM put) \
         INSERT INTO {places} (place, at) SELECT a.place, b.at FROM a JOIN b USING (n); DROP TABLE {STAGING}",
        insert_staged(&part.shape)
    );
    conn.batch_execute(&sql).await.map_err(refused)
}

/// Where rows of a table without a key wait with their places at the source.
const STAGING: &str = "pg_temp.handover_staging";

/// Puts them there, until the transaction ends.
async fn stage(conn: &Conn, shape: &Shape, block: &Bytes) -> Result<(), Error> {
    let (table, columns) = (&shape.table, shape.columns.join(", "));
    let begin = format!(
        "CREATE TEMP TABLE handover_staging ON COMMIT DROP AS SELECT '(0,0)'::pg_catalog.tid AS \"handover place\", {columns} \
         FROM ONLY {table} WITH NO DATA"
    );
    let begin = if columns.is_empty() { begin.replace("place\",  ", "place\" ") } else { begin };
    conn.batch_execute(&begin).await?;
    copy(conn, &format!("COPY {STAGING} FROM STDIN"), vec![block.clone()]).await
}

/// The statement that brings them into their table.
fn insert_staged(shape: &Shape) -> String {
    let (table, columns) = (&shape.table, shape.columns.join(", "));
    let values = if columns.is_empty() { String::new() } else { format!("({columns}) ") };
    format!("INSERT INTO {table} {values}OVERRIDING SYSTEM VALUE SELECT {columns} FROM {STAGING}")
}

/// Adds rows to a table that holds none of them, wherever the server puts them.
pub async fn fill(conn: &Conn, shape: &Shape, block: &Bytes) -> Result<(), Error> {
    if !shape.hidden {
        let sql = format!("COPY {} ({}) FROM STDIN", shape.table, shape.columns.join(", "));
        return copy(conn, &sql, vec![block.clone()]).await;
    }
    conn.batch_execute("BEGIN").await?;
    let done = async {
        stage(conn, shape, block).await?;
        conn.batch_execute(&format!("{}; COMMIT", insert_staged(shape))).await
    };
    let done = done.await;
    if done.is_err() {
        let _ = conn.batch_execute("ROLLBACK").await;
    }
    done
}
