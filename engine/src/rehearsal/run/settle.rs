//! Trying rows in quarantine again, in the order of the source's keys, as was decided.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::super::Conflict;
use super::super::decision::{Action, Value, changed};
use super::super::quarantine::{Entry, Fate, Form};
use super::{Table, Trial, is_positioned};
use crate::failure::Failure;
use crate::ports::Result;
use crate::ports::scratch::{Batch, Change, Refusal, TriedRow};
use crate::rows::{Key, TableName};

/// Rows that are tried again at once.
const TOGETHER: usize = 1000;

/// Rows that wait to be tried, by their places in the order of keys.
type Waiting = BTreeMap<(u64, u64), Entry>;

/// What comes of a row that was refused.
enum Ruled {
    /// It is left alone, as this.
    Left(Fate),
    /// It is tried again with these values.
    Again(Bytes),
}

impl Trial {
    /// Tries all rows of a table that are in quarantine.
    pub(super) async fn settle_table(&mut self, name: &TableName) -> Result<()> {
        let entries = self.stage.ledger.entries(&self.stage.dataset, name, None).await?;
        if entries.is_empty() {
            return Ok(());
        }
        self.tell(format!("table {name}: {} rows in quarantine are tried again", entries.len()));
        // Those that were loaded as was decided then: now something else may be decided.
        let numbers: Vec<_> = entries.iter().map(|entry| entry.number..=entry.number).collect();
        let table = self.tried(name)?;
        for numbers in numbers.chunks(TOGETHER) {
            self.stage.scratch.remove(&table.fit.table, numbers).await?;
        }
        let mut waiting: Waiting =
            entries.into_iter().map(|entry| (table.place(entry.number), entry)).collect();
        self.load_what_fits(name, &mut waiting).await?;
        self.try_all(name, waiting).await
    }

    /// Loads those that nothing is in the way of.
    async fn load_what_fits(&self, name: &TableName, waiting: &mut Waiting) -> Result<()> {
        let table = self.tried(name)?;
        for form in [Form::Source, Form::Scratch] {
            let some: Vec<_> = waiting.iter().filter(|(_, entry)| entry.form == form).collect();
            let some: Vec<_> = some.into_iter().map(|(place, entry)| (*place, entry.clone())).collect();
            for part in some.chunks(TOGETHER) {
                let rows = part.iter().map(|(_, e)| TriedRow { number: e.number, values: e.values.clone() });
                let batch = batch(table, form, rows.collect());
                let refused = self.stage.scratch.load(&batch).await?;
                let mut released = Vec::new();
                for (place, entry) in part {
                    if !refused.iter().any(|(number, _)| *number == entry.number) {
                        waiting.remove(place);
                        released.push(Change::Release(entry.number));
                    }
                }
                self.stage.ledger.change(&self.stage.dataset, name, released).await?;
            }
        }
        Ok(())
    }

    /// Tries rows one by one, the first before the later ones.
    pub(super) async fn try_all(&mut self, name: &TableName, mut waiting: Waiting) -> Result<()> {
        while let Some((_, entry)) = waiting.pop_first() {
            self.attempt(name, entry, &mut waiting).await?;
        }
        Ok(())
    }

    /// Tries one row, and does what was decided about it as long as it is refused.
    async fn attempt(&mut self, name: &TableName, mut entry: Entry, waiting: &mut Waiting) -> Result<()> {
        let (mut values, mut is_changed) = (entry.values.clone(), false);
        loop {
            let table = self.tried(name)?;
            let row = TriedRow { number: entry.number, values: values.clone() };
            let refused = self.stage.scratch.load(&batch(table, entry.form, vec![row])).await?;
            let Some((_, refusal)) = refused.into_iter().next() else {
                let change = if is_changed {
                    Change::Hold(Entry { fate: Fate::Settled, ..entry })
                } else {
                    Change::Release(entry.number)
                };
                return self.note(name, change).await;
            };
            let other = refusal.in_the_way;
            if let Some(other) = other.filter(|other| table.place(*other) > table.place(entry.number)) {
                // The first one stays, whichever was loaded first.
                let later = self.take_out(name, &[other], &refusal, Fate::Open).await?;
                self.taken.retain(|(table, row, _)| (table, *row) != (name, other));
                let table = self.tried(name)?;
                waiting.extend(later.into_iter().map(|entry| (table.place(entry.number), entry)));
                continue;
            }
            entry.conflict = self.conflict(name, &entry, &refusal).await?;
            match self.rule(name, &entry, &values, other).await? {
                Ruled::Again(new) => (values, is_changed) = (new, true),
                Ruled::Left(fate) => return self.note(name, Change::Hold(Entry { fate, ..entry })).await,
            }
        }
    }

    async fn conflict(&self, name: &TableName, entry: &Entry, refusal: &Refusal) -> Result<Conflict> {
        let other = match refusal.in_the_way {
            Some(other) => Some(self.key_of_loaded(name, other).await?),
            None => None,
        };
        let Refusal { kind, constraint, .. } = refusal.clone();
        Ok(Conflict { kind, constraint, other, ..entry.conflict.clone() })
    }

    /// The key of a row in the scratch database, as people read it.
    async fn key_of_loaded(&self, name: &TableName, number: u64) -> Result<String> {
        let mut keys = self.keys_of_loaded(name, &[number]).await?;
        Ok(keys.remove(&number).unwrap_or_else(|| "a row that is gone".to_owned()))
    }

    async fn keys_of_loaded(&self, name: &TableName, numbers: &[u64]) -> Result<HashMap<u64, String>> {
        let table = self.tried(name)?;
        let Some(key) = &table.fit.key else {
            let shown = |number: &u64| match is_positioned(&table.spec) {
                true => (*number, table.position_of(*number)),
                false => (*number, "a row whose key the new table lacks".to_owned()),
            };
            return Ok(numbers.iter().map(shown).collect());
        };
        let read = self.stage.scratch.read(&table.fit.table, key, numbers).await?;
        let shown = |row: TriedRow| (row.number, table.spec.show_key(&Key(row.values), self.engine()));
        Ok(read.into_iter().map(shown).collect())
    }

    /// Does what was decided about a row that is refused.
    async fn rule(
        &mut self,
        name: &TableName,
        entry: &Entry,
        values: &Bytes,
        other: Option<u64>,
    ) -> Result<Ruled> {
        let decisions = self.stage.decisions.clone();
        let may = |at| !self.taken.contains(&(name.clone(), entry.number, at));
        let Some((at, action)) = decisions.about(&self.stage.dataset, &entry.conflict, may) else {
            return Ok(Ruled::Left(Fate::Open));
        };
        self.taken.insert((name.clone(), entry.number, at));
        let ruled = match (action, other) {
            (Action::Drop, _) => Some(Ruled::Left(Fate::Dropped)),
            (Action::Keep, Some(other)) => {
                self.displace(name, other, entry).await?;
                Some(Ruled::Again(values.clone()))
            }
            (Action::Keep, None) => None,
            (Action::Rename(column, value), _) => {
                self.with_value(name, values, column, value, None).await?.map(Ruled::Again)
            }
            (Action::Merge(column, value), other) => {
                let new = self.with_value(name, values, column, value, other).await?;
                if let (Some(_), Some(other)) = (&new, other) {
                    self.displace(name, other, entry).await?;
                }
                new.map(Ruled::Again)
            }
        };
        // One that cannot be carried out is not used: the operator is told.
        let Some(ruled) = ruled else { return Ok(Ruled::Left(Fate::Open)) };
        self.use_decision(at);
        Ok(ruled)
    }

    /// A row with another value; none where the column is not there or the value cannot be had.
    async fn with_value(
        &self,
        name: &TableName,
        values: &Bytes,
        column: &str,
        value: Value<'_>,
        other: Option<u64>,
    ) -> Result<Option<Bytes>> {
        let table = self.tried(name)?;
        let Some(place) = table.fit.place(self.engine(), column) else { return Ok(None) };
        let mut taken = None;
        if let (Value::Other, Some(other)) = (value, other) {
            let columns = &table.fit.wanted[place..=place];
            taken = self.stage.scratch.read(&table.fit.table, columns, &[other]).await?.pop();
        }
        let other = taken.as_ref().map(|row| row.values.as_ref());
        Ok(changed(self.engine(), values, place, value, other))
    }

    /// Takes a row out, to make room for another as was decided.
    async fn displace(&self, name: &TableName, number: u64, by: &Entry) -> Result<()> {
        let Conflict { kind, constraint, .. } = by.conflict.clone();
        let refusal = Refusal { kind, constraint, in_the_way: None };
        for mut entry in self.take_out(name, &[number], &refusal, Fate::Displaced).await? {
            entry.conflict.other = Some(by.conflict.key.clone());
            self.note(name, Change::Hold(entry)).await?;
        }
        Ok(())
    }

    /// Takes rows out of the scratch database into quarantine.
    pub(super) async fn take_out(
        &self,
        name: &TableName,
        numbers: &[u64],
        refusal: &Refusal,
        fate: Fate,
    ) -> Result<Vec<Entry>> {
        let table = self.tried(name)?;
        let mut keys = self.keys_of_loaded(name, numbers).await?;
        // One that was loaded with another value, as was decided, is remembered as it came.
        let known = self.stage.ledger.entries(&self.stage.dataset, name, Some(numbers)).await?;
        let mut values: HashMap<u64, (Bytes, Form)> =
            known.into_iter().map(|entry| (entry.number, (entry.values, entry.form))).collect();
        for row in self.stage.scratch.read(&table.fit.table, &table.fit.wanted, numbers).await? {
            values.entry(row.number).or_insert((row.values, Form::Scratch));
        }
        let mut out = Vec::with_capacity(numbers.len());
        for number in numbers {
            let gone =
                || Failure::transient(format!("table {name}"), "a row of the scratch database is gone");
            let (values, form) = values.remove(number).ok_or_else(gone)?;
            let Refusal { kind, constraint, .. } = refusal.clone();
            let key = keys.remove(number).ok_or_else(gone)?;
            let conflict = Conflict { kind, table: name.clone(), key, constraint, other: None };
            out.push(Entry { number: *number, values, form, conflict, fate });
        }
        let held = out.iter().cloned().map(Change::Hold).collect();
        self.stage.ledger.change(&self.stage.dataset, name, held).await?;
        let numbers: Vec<_> = numbers.iter().map(|number| *number..=*number).collect();
        self.stage.scratch.remove(&table.fit.table, &numbers).await?;
        Ok(out)
    }

    pub(super) async fn note(&self, name: &TableName, change: Change) -> Result<()> {
        self.stage.ledger.change(&self.stage.dataset, name, vec![change]).await
    }

    /// Rules about a row that is in quarantine for a foreign key, and tries it again where it is changed.
    pub(super) async fn rule_orphan(&mut self, name: &TableName, mut entry: Entry) -> Result<()> {
        let values = entry.values.clone();
        match self.rule(name, &entry, &values, None).await? {
            // As it is recorded already.
            Ruled::Left(Fate::Open) => Ok(()),
            Ruled::Left(fate) => self.note(name, Change::Hold(Entry { fate, ..entry })).await,
            Ruled::Again(new) => {
                let original = std::mem::replace(&mut entry.values, new);
                self.try_changed(name, entry, original).await
            }
        }
    }

    /// Tries a changed row once; what it was is what is remembered.
    async fn try_changed(&self, name: &TableName, entry: Entry, original: Bytes) -> Result<()> {
        let table = self.tried(name)?;
        let row = TriedRow { number: entry.number, values: entry.values.clone() };
        let refused = self.stage.scratch.load(&batch(table, entry.form, vec![row])).await?;
        let entry = Entry { values: original, ..entry };
        let entry = match refused.into_iter().next() {
            None => Entry { fate: Fate::Settled, ..entry },
            Some((_, refusal)) => {
                let conflict = self.conflict(name, &entry, &refusal).await?;
                Entry { conflict, fate: Fate::Open, ..entry }
            }
        };
        self.note(name, Change::Hold(entry)).await
    }
}

fn batch(table: &Table, form: Form, rows: Vec<TriedRow>) -> Batch {
    let columns = match form {
        Form::Source => table.fit.columns.clone(),
        Form::Scratch => table.fit.wanted.clone(),
    };
    Batch { table: table.fit.table.clone(), columns, rows }
}
