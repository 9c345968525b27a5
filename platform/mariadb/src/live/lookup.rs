//! Rows by their keys, as they are now.

use std::sync::Arc;

use handover_engine::change::Change;
use handover_engine::digest::Digest;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyRange, RowsChunk, RowsHeader, TableName};
use tokio::sync::Mutex;

use super::Live;
use super::part::Part;
use crate::catalog::Catalog;
use crate::cursor::{self, Place, Plan};
use crate::session::Session;
use crate::shape::Shape;

const WHAT: &str = "rows cannot be looked up";
/// Bytes of the keys of one statement: as literals they fit into the smallest usual `max_allowed_packet`.
const BYTES: usize = 1 << 20;
/// Bytes of a row, where nothing is known of it.
const ROW: u64 = 200;

/// How many of the first keys fit into one statement.
fn fit(keys: &[Key], most: usize) -> usize {
    let mut bytes = 0;
    let fits = |key: &&Key| {
        bytes += key.0.len();
        bytes <= BYTES
    };
    keys.iter().take(most.max(1)).take_while(fits).count().max(1)
}

/// What is looked up at once.
pub struct Rows<'a> {
    pub live: &'a Live,
    pub catalog: &'a Catalog,
    pub table: &'a TableName,
    /// The rest of the large values is read through it.
    pub aside: &'a Arc<Mutex<Session>>,
}

impl Rows<'_> {
    /// The rows of the first keys, until a budget is reached.
    pub async fn read(&self, session: &mut Session, keys: &[Key], budget: u64) -> Result<RowsChunk> {
        let shape = self.catalog.shape(self.table)?;
        let spec = self.catalog.schema.table(self.table);
        let average = spec
            .filter(|spec| spec.estimated_rows > 0)
            .map(|spec| spec.estimated_bytes / spec.estimated_rows);
        let (mut average, mut done, mut rows) = (average.unwrap_or(ROW).max(1), 0, 0);
        let mut block = Vec::new();
        while done < keys.len() {
            let room = budget.saturating_sub(block.len() as u64) / average;
            let most = usize::try_from(room).map_or(shape.batch(), |room| room.min(shape.batch()));
            let next = fit(&keys[done..], most);
            let (next, condition) = self.measured(session, &shape, &keys[done..], next, budget).await?;
            let range = KeyRange { after: None, until: keys.get(done + next - 1).cloned() };
            let place = Place {
                database: &self.live.settings.database,
                positioned: false,
                aside: Some(self.aside.clone()),
            };
            let plan = Plan::of_keys(self.table, &range, shape.clone(), place, &condition);
            let chunk = cursor::read_keys(session, &plan).await?;
            done += next;
            // What is large stays in its place.
            if done == keys.len() && block.is_empty() || shape.may_be_large() {
                return Ok(chunk);
            }
            block.extend_from_slice(&chunk.block);
            rows += chunk.header.rows;
            if block.len() as u64 >= budget {
                break;
            }
            average = (block.len() as u64 / rows.max(1)).max(1);
        }
        let header = RowsHeader {
            table: self.table.clone(),
            range: KeyRange { after: None, until: done.checked_sub(1).map(|last| keys[last].clone()) },
            rows,
            bytes: block.len() as u64,
            digest: Digest::of(&block),
            unchanged: false,
        };
        Ok(RowsChunk { header, block: block.into() })
    }

    /// How many keys to ask for, and for which condition: of a table with large values fewer, once these are known.
    async fn measured(
        &self,
        session: &mut Session,
        shape: &Shape,
        keys: &[Key],
        most: usize,
        budget: u64,
    ) -> Result<(usize, String)> {
        let mut next = most;
        loop {
            let condition = shape.has_key(&keys[..next])?;
            if next == 1 || !shape.may_be_large() {
                return Ok((next, condition));
            }
            let bytes = session
                .record(WHAT, &shape.measure(&self.live.settings.database, &condition))
                .await?
                .number(0);
            if bytes <= budget {
                return Ok((next, condition));
            }
            let share = u128::from(budget) * next as u128 / u128::from(bytes);
            next = usize::try_from(share).unwrap_or(1).clamp(1, next / 2);
        }
    }
}

/// Adds the keys of rows that have others since a foreign key's action.
pub async fn rekeyed(
    session: &mut Session,
    database: &str,
    catalog: &Catalog,
    part: &mut Part,
) -> Result<()> {
    for lookup in std::mem::take(&mut part.lookups) {
        let shape = catalog.shape(&lookup.table)?;
        let Some(condition) = shape.has_values(&lookup.columns, std::slice::from_ref(&lookup.values))? else {
            continue;
        };
        let table = part.table(&lookup.table);
        for row in session.records(WHAT, &shape.keys_where(database, &condition)).await? {
            part.push(Change::Row { table, key: shape.found(&row).key });
        }
    }
    Ok(())
}
