//! Chunks from one running query.

use std::pin::Pin;

use bytes::Bytes;
use futures::StreamExt;
use handover_engine::chunk::room::{LARGE_BYTES, Room, Taken};
use handover_engine::digest::Digest;
use handover_engine::rows::{Key, KeyRange, RowsChunk, RowsHeader, TableName};
use tokio_postgres::{CopyOutStream, Error};

use crate::connect::Conn;
use crate::shape::Shape;

/// Rows that are larger than what a chunk usually is are read one at a time, until they are sent or looked at.
static ROOM: Room = Room::new();
/// Room that a chunk of several pieces is given at first.
const USUAL: usize = 2 << 20;

/// The text of a chunk's rows, as it grows.
#[derive(Default)]
pub struct Block {
    data: Vec<u8>,
    room: Option<Taken>,
}

impl Block {
    /// Appends a piece; waits for room once it is large.
    pub async fn add(&mut self, piece: &[u8]) {
        if self.data.len() + piece.len() > LARGE_BYTES && self.room.is_none() {
            self.room = Some(ROOM.take().await);
        }
        if !self.data.is_empty() && self.data.capacity() < USUAL {
            self.data.reserve(USUAL);
        }
        self.data.extend_from_slice(piece);
    }

    /// Its bytes so far.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Forgets what comes after so many bytes.
    pub fn truncate(&mut self, length: usize) {
        self.data.truncate(length);
    }

    /// True when it holds whole rows alone.
    pub fn is_between_rows(&self) -> bool {
        self.data.last().is_none_or(|byte| *byte == b'\n')
    }

    /// The bytes, which keep the room until they are dropped.
    pub fn freeze(self) -> Bytes {
        match self.room {
            Some(room) => room.until_dropped(self.data),
            None => self.data.into(),
        }
    }
}

/// A query that has not come to its end: the next chunk follows the last one.
pub struct Cursor {
    /// The table it reads.
    pub table: TableName,
    /// What is still to be read.
    pub range: KeyRange,
    shape: Shape,
    rows: Pin<Box<CopyOutStream>>,
    /// The beginning of the row after the last chunk.
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

    /// The next chunk. Rows come in pieces; a newline is nowhere but at a row's end.
    pub async fn chunk(&mut self, budget: u64) -> Result<RowsChunk, Error> {
        let mut block = Block::default();
        let (mut count, mut last) = (0, 0);
        let mut next = self.next.take();
        while let Some(piece) = next {
            if block.is_between_rows() {
                last = block.data.len();
                count += 1;
            }
            block.add(&piece).await;
            next = self.rows.next().await.transpose()?;
            if block.is_between_rows() && block.data.len() as u64 >= budget {
                self.next = next;
                break;
            }
        }
        Ok(self.pack(block, count, last))
    }

    fn pack(&mut self, block: Block, rows: u64, last: usize) -> RowsChunk {
        let block = block.freeze();
        let after = self.range.after.clone();
        let until = if self.next.is_some() {
            let row = &block[last..];
            let row = row.strip_suffix(b"\n").unwrap_or(row);
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
