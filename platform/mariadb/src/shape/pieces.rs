//! Large values, read piece by piece: the protocol's client holds several copies of what comes in one row.

use std::fmt::Write as _;

use handover_engine::ports::Result;

use super::Shape;
use crate::sql::quote;

/// Values of more bytes are read piece by piece.
const WHOLE: u64 = 4 << 20;
/// Bytes of a piece at least, or characters where a value is text: those the server counts from its beginning for each piece.
const PIECE: u64 = 4 << 20;
/// How many pieces a value has at most.
const PIECES: u64 = 64;

impl Shape {
    /// Columns whose large values a query for small ones leaves out, in its order.
    pub fn in_pieces(&self) -> &[usize] {
        &self.in_pieces
    }

    /// As selected, but with NULL for large values; behind all columns how many bytes each of these has, or NULL.
    pub(super) fn selected_small(&self) -> String {
        let mut columns: Vec<String> = self.columns.iter().map(|(name, kind)| kind.select(name)).collect();
        for at in &self.in_pieces {
            let name = &self.columns[*at].0;
            columns[*at] = format!("IF(OCTET_LENGTH({name}) > {WHOLE}, NULL, {name})");
            columns.push(format!("IF(OCTET_LENGTH({name}) > {WHOLE}, OCTET_LENGTH({name}), NULL)"));
        }
        columns.join(", ")
    }

    /// Selects the value of this many bytes that the row of a key has in a column, as pieces in order.
    ///
    /// The row is found by its whole key, so the server reads it once, before the join.
    pub fn pieces(&self, database: &str, key: &[u8], column: usize, bytes: u64) -> Result<String> {
        let mut row = String::new();
        for (value, at) in self.key_values(key)?.iter().zip(&self.key) {
            let joint = if row.is_empty() { "" } else { " AND " };
            let _ = write!(row, "{joint}t.{} = {value}", self.columns[*at].0);
        }
        let name = &self.columns[column].0;
        let length = PIECE.max(bytes / PIECES + 1);
        let mut starts = "SELECT 1 start".to_owned();
        for n in 1..bytes.div_ceil(length) {
            let _ = write!(starts, " UNION ALL SELECT {}", n * length + 1);
        }
        Ok(format!(
            "SELECT SUBSTRING(t.{name}, p.start, {length}) FROM {}.{} t{} JOIN ({starts}) p WHERE {row} ORDER BY p.start",
            quote(database),
            quote(&self.name),
            self.forced()
        ))
    }
}
