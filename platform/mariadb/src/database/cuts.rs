//! Keys that cut a table into parts of similar size.
//!
//! Every cut is the key of a row, and the server says that it lies between its neighbours, so that any cuts are sound
//! whatever the types and collations. How many rows lie between two of them is what the server's optimizer estimates, which
//! it does by two walks down the index. A gap with many rows is halved by guessing a value in its middle and asking for the
//! next row from there. What this costs does not depend on how large the table is.

use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyRange};

use crate::session::Session;
use crate::shape::{Found, Shape};

const WHAT: &str = "cannot be measured";
/// Gaps are halved until a part consists of about as many.
const FINENESS: u64 = 4;
/// Guesses for each part.
const GUESSES: usize = 80;
/// Rows that may be gone over where no value in the middle can be guessed.
const STRIDE: u64 = 20_000;

/// Neighbouring keys that are known, and what lies between them.
struct Gap {
    from: Found,
    to: Found,
    rows: u64,
    /// In a column of the key, rows of this gap lie below this value.
    below: Option<(usize, Vec<u8>)>,
    /// Nothing more can be found out about it.
    closed: bool,
}

/// Asks one table of a server.
pub struct Cutter<'a> {
    pub session: &'a mut Session,
    pub database: &'a str,
    pub shape: &'a Shape,
}

impl Cutter<'_> {
    /// Up to `parts - 1` keys, in key order.
    pub async fn cuts(&mut self, parts: usize) -> Result<Vec<Key>> {
        let whole = KeyRange::default();
        let first = self.find(&self.shape.edge(self.database, &whole, &[], false)?).await?;
        let last = self.find(&self.shape.edge(self.database, &whole, &[], true)?).await?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
        let mut gaps = vec![self.gap(first, last, None).await?];
        let enough = gaps[0].rows / (parts as u64 * FINENESS) + 1;
        for _ in 0..parts * GUESSES {
            let widest = gaps.iter().enumerate().filter(|(_, gap)| !gap.closed && gap.rows > enough);
            let Some((at, _)) = widest.max_by_key(|(_, gap)| gap.rows) else { break };
            let gap = gaps.remove(at);
            let pieces = self.halve(gap).await?;
            gaps.splice(at..at, pieces);
        }
        Ok(choose(&gaps, parts))
    }

    async fn find(&mut self, query: &str) -> Result<Option<Found>> {
        let rows = self.session.records(WHAT, query).await?;
        Ok(rows.first().map(|row| self.shape.found(row)))
    }

    async fn gap(&mut self, from: Found, to: Found, below: Option<(usize, Vec<u8>)>) -> Result<Gap> {
        let range = KeyRange { after: Some(from.key.clone()), until: Some(to.key.clone()) };
        let closed = from.key == to.key;
        let rows = if closed {
            0
        } else {
            // The ninth column of EXPLAIN.
            self.session.record(WHAT, &self.shape.estimate(self.database, &range)?).await?.number(8)
        };
        Ok(Gap { from, to, rows, below, closed })
    }

    /// A gap in two, or with what has been learnt of it.
    async fn halve(&mut self, mut gap: Gap) -> Result<Vec<Gap>> {
        let same = |at: &usize| gap.from.values.get(*at) == gap.to.values.get(*at);
        let column = (0..gap.from.values.len()).take_while(same).count();
        if column == gap.from.values.len() {
            gap.closed = true;
            return Ok(vec![gap]);
        }
        let range = KeyRange { after: Some(gap.from.key.clone()), until: Some(gap.to.key.clone()) };
        let high = match &gap.below {
            Some((of, value)) if *of == column => value,
            _ => &gap.to.values[column],
        };
        if let Some(middle) = self.shape.between(column, &gap.from.values[column], high) {
            let query = self.shape.next(self.database, &range, &gap.from, column, &middle)?;
            let below = Some((column, middle));
            return match self.find(&query).await?.filter(|found| found.key != gap.to.key) {
                Some(found) => self.split(gap, found, below).await,
                None => {
                    gap.below = below;
                    Ok(vec![gap])
                }
            };
        }
        // Many rows with one value: they end somewhere, and within them it is the next column that differs.
        if column + 1 < gap.from.values.len() {
            let query = self.shape.edge(self.database, &range, &gap.from.values[..=column], true)?;
            let found = self.find(&query).await?;
            if let Some(found) = found.filter(|found| found.key != gap.to.key) {
                return self.split(gap, found, None).await;
            }
        }
        let query = self.shape.stride(self.database, &range, (gap.rows / 2).min(STRIDE))?;
        match self.find(&query).await?.filter(|found| found.key != gap.to.key) {
            Some(found) => self.split(gap, found, None).await,
            None => {
                // The estimate was too high: there are no more rows than were gone over.
                gap.rows /= 2;
                Ok(vec![gap])
            }
        }
    }

    async fn split(&mut self, gap: Gap, found: Found, below: Option<(usize, Vec<u8>)>) -> Result<Vec<Gap>> {
        let lower = self.gap(gap.from, found.clone(), below).await?;
        let upper = self.gap(found, gap.to, None).await?;
        Ok(vec![lower, upper])
    }
}

/// Ends of gaps that come nearest to equal parts.
fn choose(gaps: &[Gap], parts: usize) -> Vec<Key> {
    let total: u64 = gaps.iter().map(|gap| gap.rows).sum();
    let (mut cuts, mut sum) = (Vec::new(), 0);
    for gap in &gaps[..gaps.len().saturating_sub(1)] {
        sum += gap.rows;
        let due = (cuts.len() as u64 + 1) * total / parts as u64;
        if cuts.len() + 1 < parts && sum >= due {
            cuts.push(gap.to.key.clone());
        }
    }
    cuts
}
