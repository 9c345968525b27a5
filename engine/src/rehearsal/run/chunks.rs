//! Bringing the scratch database's rows up to date, chunk by chunk.

use futures::StreamExt;

use super::super::Conflict;
use super::super::quarantine::{self, Entry, Fate, Form, number};
use super::{MOST, Table, Trial, chain, is_positioned, malformed, position};
use crate::check::{Finding, Severity};
use crate::failure::Failure;
use crate::pass::database::CHUNK_BYTES;
use crate::pass::database::cover::Course;
use crate::ports::Result;
use crate::ports::scratch::{Batch, Change, Refusal, TriedRow};
use crate::rows::{HeldChunk, KeyRange, RowsChunk, RowsRequest, RowsWanted, TableName, text};

/// Held chunks that are checked with one request.
const RECHECK: usize = 256;

/// How far a table is.
struct Progress {
    /// The chunks that stand, in the order of keys.
    order: u64,
    /// Rows in quarantine that this run has found.
    refused: u64,
}

impl Trial {
    /// Brings a table's rows up to date.
    pub(super) async fn load_chunks(&mut self, name: &TableName) -> Result<()> {
        let chunks = self.stage.ledger.chunks(&self.stage.dataset, name).await?;
        let (mut held, mut doubted) = (Vec::new(), Vec::new());
        for chunk in chunks {
            match chunk.held {
                Some(range) => held.push((chunk.id, range)),
                None => doubted.push(chunk.id),
            }
        }
        let (held, loose) = chain(held);
        doubted.extend(loose);
        self.forget(name, &doubted).await?;
        let mut progress = Progress { order: 0, refused: 0 };
        for batch in held.chunks(RECHECK) {
            let wanted = RowsWanted::Recheck(batch.iter().map(|(_, chunk)| chunk.clone()).collect());
            if !self.take(name, wanted, batch, &mut progress).await? {
                return Ok(());
            }
        }
        let after = held.last().map(|(_, chunk)| chunk.range.until.clone());
        let rest = match after {
            // The last chunk reaches to the end of the table.
            Some(None) => None,
            Some(after) => Some(KeyRange { after, until: None }),
            None => Some(KeyRange::default()),
        };
        if let Some(range) = rest {
            self.take(name, RowsWanted::Range(range), &[], &mut progress).await?;
        }
        let rows = self.tried(name)?.rows;
        self.tell(format!("table {name}: {rows} rows tried, {} refused at first", progress.refused));
        Ok(())
    }

    /// Takes chunks from the source until all that is wanted has come; false where the table is given up.
    async fn take(
        &mut self,
        name: &TableName,
        wanted: RowsWanted,
        held: &[(u64, HeldChunk)],
        progress: &mut Progress,
    ) -> Result<bool> {
        let mut course = Course::new(&wanted);
        let request = RowsRequest {
            lease: self.lease.clone(),
            snapshot: self.opened.snapshot.clone(),
            table: name.clone(),
            wanted,
            budget: CHUNK_BYTES,
        };
        let broken = |what| Failure::transient(format!("table {name}"), what).hint("rehearse again");
        let mut chunks = self.stage.source.rows.rows(request).await?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if chunk.header.table != *name || !chunk.is_whole() || !course.take(&chunk.header.range) {
                return Err(broken("a chunk arrived damaged or out of turn"));
            }
            let old = held.iter().find(|(_, old)| old.range.after == chunk.header.range.after);
            if chunk.header.unchanged {
                let (id, old) =
                    old.ok_or_else(|| broken("a chunk that is not held is told to be unchanged"))?;
                self.stand(name, *id, old, progress)?;
                continue;
            }
            if let Some((id, _)) = old {
                self.forget(name, &[*id]).await?;
            }
            self.load_chunk(name, &chunk, progress).await?;
            if progress.refused > MOST {
                self.give_up(name, progress.refused);
                return Ok(false);
            }
        }
        if course.is_over() {
            Ok(true)
        } else {
            Err(broken("its stream ended before all chunks had arrived"))
        }
    }

    fn give_up(&mut self, name: &TableName, refused: u64) {
        let what = format!("{refused} rows are refused: the table is tried no further");
        let hint = "repair what they have in common, then rehearse again";
        self.report.findings.push(Finding::new(Severity::Error, format!("table {name}"), what, hint));
    }

    /// A chunk that stands.
    fn stand(&mut self, name: &TableName, id: u64, chunk: &HeldChunk, progress: &mut Progress) -> Result<()> {
        self.report.chunks_kept += 1;
        self.place(name, id, chunk, progress)
    }

    fn place(&mut self, name: &TableName, id: u64, chunk: &HeldChunk, progress: &mut Progress) -> Result<()> {
        let missing = || Failure::permanent(format!("table {name}"), "it is not tried");
        let table = self.tables.get_mut(name).ok_or_else(missing)?;
        let before = if is_positioned(&table.spec) { position(chunk.range.after.as_ref()) } else { 0 };
        table.order.insert(id, (progress.order, before));
        table.rows += chunk.rows;
        progress.order += 1;
        Ok(())
    }

    /// Removes all of these chunks, from the scratch database and from quarantine. Whenever it is cut short they are in doubt.
    async fn forget(&self, name: &TableName, chunks: &[u64]) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let (ledger, dataset) = (&self.stage.ledger, &self.stage.dataset);
        ledger.change(dataset, name, vec![Change::Doubt(chunks.to_vec())]).await?;
        let numbers: Vec<_> = chunks.iter().map(|chunk| quarantine::numbers(*chunk)).collect();
        self.stage.scratch.remove(&self.tried(name)?.fit.table, &numbers).await?;
        ledger.change(dataset, name, vec![Change::Forget(chunks.to_vec())]).await
    }

    /// Loads a chunk; its rows that are refused go to quarantine.
    async fn load_chunk(
        &mut self,
        name: &TableName,
        chunk: &RowsChunk,
        progress: &mut Progress,
    ) -> Result<()> {
        let id = self.stage.ledger.allot(&self.stage.dataset, name).await?;
        let held = chunk.held();
        self.place(name, id, &held, progress)?;
        let table = self.tried(name)?;
        let rows: Vec<&[u8]> = text::rows(&chunk.block).map_err(|e| malformed(name, e))?.collect();
        let tried = |(at, row): (usize, &&[u8])| TriedRow {
            number: number(id, at as u64),
            values: table.fit.project(row),
        };
        let batch = Batch {
            table: table.fit.table.clone(),
            columns: table.fit.columns.clone(),
            rows: rows.iter().enumerate().map(tried).collect(),
        };
        let refused = self.stage.scratch.load(&batch).await?;
        progress.refused += refused.len() as u64;
        let mut entries = Vec::with_capacity(refused.len());
        for (number, Refusal { kind, constraint, .. }) in refused {
            let (_, at) = quarantine::place(number);
            let (Some(row), Some(tried)) = (rows.get(at as usize), batch.rows.get(at as usize)) else {
                return Err(Failure::permanent(
                    format!("table {name}"),
                    "a row was refused that was not tried",
                ));
            };
            let key = table.key_of(row, number, self.engine());
            let conflict = Conflict { kind, table: name.clone(), key, constraint, other: None };
            let values = tried.values.clone();
            entries.push(Entry { number, values, form: Form::Source, conflict, fate: Fate::Open });
        }
        self.report.chunks_loaded += 1;
        self.report.bytes_loaded += held.bytes;
        if self.report.chunks_loaded.is_multiple_of(16) {
            let Table { rows, spec, .. } = self.tried(name)?;
            self.tell(format!("table {name}: {rows} of about {} rows", spec.estimated_rows));
        }
        let keep = vec![Change::Keep(id, held, entries)];
        self.stage.ledger.change(&self.stage.dataset, name, keep).await
    }
}
