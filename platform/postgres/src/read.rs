//! Chunks from one running query.

use std::pin::Pin;

use bytes::Bytes;
use futures::StreamExt;
use handover_engine::digest::Digest;
use handover_engine::rows::{Key, KeyRange, RowsChunk, RowsHeader, TableName};
use tokio_postgres::{CopyOutStream, Error};

use crate::connect::Conn;
use crate::shape::Shape;

/// A query that has not come to its end: the next chunk follows the last one.
pub struct Cursor {
    /// The table it reads.
    pub table: TableName,
    /// What is still to be read.
    pub range: KeyRange,
    shape: Shape,
    rows: Pin<Box<CopyOutStream>>,
    /// The row after the last chunk.
    next: Option<Bytes>,
    conn: Conn,
}

impl Cursor {
    /// Begins to read a range on a connection of its own.
    pub async fn open(
        conn: Conn,
        table: &TableName,
        shape: Shape,
        range: &KeyRange,
        sql: &str,
    ) -> Result<Self, Error> {
        let mut rows = Box::pin(conn.copy_out(sql).await?);
        let next = rows.next().await.transpose()?;
        Ok(Self { table: table.clone(), range: range.clone(), shape, rows, next, conn })
    }

    /// True once the range is read whole.
    pub fn is_done(&self) -> bool {
        self.next.is_none()
    }

    /// The connection, for another query.
    pub fn into_conn(self) -> Conn {
        self.conn
    }

    /// The next chunk. The server sends one message for each row.
    pub async fn chunk(&mut self, budget: u64) -> Result<RowsChunk, Error> {
        let Some(first) = self.next.take() else { return Ok(self.pack(Bytes::new(), 0, &[])) };
        let (mut block, mut count, mut last) = (Vec::new(), 1, first);
        let (mut together, mut filled) = (false, last.len() as u64);
        while let Some(row) = self.rows.next().await.transpose()? {
            if filled >= budget {
                self.next = Some(row);
                break;
            }
            if !together {
                block.reserve(usize::try_from(budget.min(4 << 20)).unwrap_or_default());
                together = true;
            }
            block.extend_from_slice(&last);
            last = row;
            filled += last.len() as u64;
            count += 1;
        }
        // One row alone, which may be huge, is not copied.
        if together {
            block.extend_from_slice(&last);
            Ok(self.pack(block.into(), count, &last))
        } else {
            Ok(self.pack(last.clone(), count, &last))
        }
    }

    fn pack(&mut self, block: Bytes, rows: u64, last: &[u8]) -> RowsChunk {
        let after = self.range.after.clone();
        let until = if self.next.is_some() {
            let row = last.strip_suffix(b"\n").unwrap_or(last);
            Some(Key(self.shape.key_of(row).into()))
        } else {
            self.range.until.clone()
        };
        self.range.after.clone_from(&until);
        let header = RowsHeader {
            table: self.table.clone(),
            range: KeyRange { after, until },
            rows,
            bytes: block.len() as u64,
            digest: Digest::of(&block),
            unchanged: false,
        };
        RowsChunk { header, block }
    }
}
