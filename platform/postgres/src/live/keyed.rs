//! Rows by their keys, as they are now.

use std::collections::HashSet;

use futures::StreamExt;
use handover_engine::digest::Digest;
use handover_engine::rows::{Key, KeyRange, RowsChunk, RowsHeader, TableName};
use tokio_postgres::Error;

use crate::connect::Conn;
use crate::read::Block;
use crate::shape::{BadShape, Shape};

/// Most keys in one statement.
const KEYS: usize = 10_000;
/// Bytes that are read in vain rather than to give up a session.
const IN_VAIN: usize = 1 << 20;
/// How its sessions look rows up: each by the index, in the order of the keys.
pub const LOOK_UP: &str = "SELECT pg_catalog.set_config(name, 'off', false) FROM pg_catalog.pg_settings \
    WHERE name IN ('enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_memoize')";

/// Why rows could not be read.
pub enum Refused {
    /// By the server.
    Server(Error),
    /// A key is none.
    Key(BadShape),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// Rows that are read by key.
pub struct Keyed<'a> {
    pub table: &'a TableName,
    pub shape: &'a Shape,
    pub keys: &'a [Key],
    pub budget: u64,
    /// Bytes of a usual row.
    pub usual: f64,
}

/// What was read, and whether the session can be used again.
pub struct Found {
    pub chunk: RowsChunk,
    pub usable: bool,
}

impl Keyed<'_> {
    /// Reads until about the budget is together.
    pub async fn read(&self, conn: &Conn) -> Result<Found, Refused> {
        let mut block = Block::default();
        let (mut rows, mut done, mut usable) = (0, 0, true);
        // Keys that differ as text may be equal.
        let mut seen = HashSet::new();
        while usable && done < self.keys.len() && (done == 0 || (block.len() as u64) < self.budget) {
            let now = &self.keys[done..][..self.together(self.keys.len() - done, block.len())];
            let sql = self.shape.read_keys(now).map_err(Refused::Key)?;
            let mut stream = Box::pin(conn.copy_out(&sql).await?);
            let (mut place, mut start) = (0, 0);
            while let Some(piece) = stream.next().await.transpose()? {
                let mut piece = &piece[..];
                if block.is_between_rows() {
                    start = block.len();
                    (place, piece) = split_place(piece);
                }
                block.add(piece).await;
                if !block.is_between_rows() {
                    continue;
                }
                let row = &block.data()[start..];
                if seen.insert(self.shape.key_of(row.strip_suffix(b"\n").unwrap_or(row))) {
                    rows += 1;
                } else {
                    block.truncate(start);
                }
                if block.len() as u64 >= self.budget {
                    break;
                }
            }
            if block.len() as u64 >= self.budget && place > 0 {
                // Whatever follows is asked for again.
                done += place;
                let mut in_vain = 0;
                while let Some(piece) = stream.next().await.transpose()? {
                    in_vain += piece.len();
                    if in_vain > IN_VAIN {
                        usable = false;
                        break;
                    }
                }
                break;
            }
            done += now.len();
        }
        Ok(Found { chunk: self.pack(block, rows, done), usable })
    }

    /// How many keys are likely to fill what is left of the budget, not quite.
    fn together(&self, left: usize, have: usize) -> usize {
        let room = self.budget.saturating_sub(have as u64);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        let likely = (0.95 * room as f64 / self.usual.max(1.0)) as usize;
        likely.clamp(1, KEYS).min(left)
    }

    fn pack(&self, block: Block, rows: u64, done: usize) -> RowsChunk {
        let block = block.freeze();
        let until = done.checked_sub(1).and_then(|last| self.keys.get(last)).cloned();
        let header = RowsHeader {
            table: self.table.clone(),
            range: KeyRange { after: None, until },
            rows,
            bytes: block.len() as u64,
            digest: Digest::of(&block),
            unchanged: false,
        };
        RowsChunk { header, block }
    }
}

/// The place that a row begins with, and the rest of it.
fn split_place(piece: &[u8]) -> (usize, &[u8]) {
    let end = piece.iter().position(|byte| *byte == b'\t').unwrap_or(piece.len());
    let place = std::str::from_utf8(&piece[..end]).ok().and_then(|text| text.parse().ok());
    (place.unwrap_or_default(), piece.get(end + 1..).unwrap_or_default())
}
