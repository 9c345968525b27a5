//! Rows that are not in the scratch database as they came, and why.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Conflict;

/// How the values of a row in quarantine are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As the source's columns.
    Source,
    /// As the columns of the scratch database, out of which they were read.
    Scratch,
}

/// What has become of a row in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nobody has decided: it is not loaded.
    Open,
    /// It was decided that it goes.
    Dropped,
    /// It made room for another row, as was decided.
    Displaced,
    /// It is loaded otherwise than it came, or in another's place, as was decided.
    Settled,
}

/// A row in quarantine: as it came, so that it can be tried again without the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in the scratch database.
    pub number: u64,
    /// Its values, as a row of a block without the newline.
    pub values: Bytes,
    /// How they are written.
    pub form: Form,
    /// Why it is here.
    pub conflict: Conflict,
    /// What has become of it.
    pub fate: Fate,
}

/// Rows of a chunk have numbers of so many bits after the chunk's.
const BITS: u32 = 24;

/// Rows that a chunk may have.
pub const ROWS_OF_CHUNK: u64 = 1 << BITS;

/// The number of a chunk's row, from 0.
pub fn number(chunk: u64, row: u64) -> u64 {
    (chunk << BITS) | row
}

/// The chunk of a row, and its place there.
pub fn place(number: u64) -> (u64, u64) {
    (number >> BITS, number & (ROWS_OF_CHUNK - 1))
}

/// All numbers of a chunk's rows.
pub fn numbers(chunk: u64) -> std::ops::RangeInclusive<u64> {
    number(chunk, 0)..=number(chunk, ROWS_OF_CHUNK - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_chunk_and_row() {
        for (chunk, row) in [(0, 0), (1, 0), (7, 3), (1 << 38, ROWS_OF_CHUNK - 1)] {
            assert_eq!(place(number(chunk, row)), (chunk, row));
            assert!(numbers(chunk).contains(&number(chunk, row)));
            assert!(!numbers(chunk + 1).contains(&number(chunk, row)));
        }
    }
}
