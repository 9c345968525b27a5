//! Bringing databases into the schemas that stand at the target: rows are tried beside the target's own database, as was decided about
//! those that do not fit, and copied from there to where the database is built.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

use super::task::Runner;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::journal::Record;
use crate::name::{DatasetName, LeaseId};
use crate::pass::database::CHUNK_BYTES;
use crate::pass::{self, Message, TargetDataset, Work};
use crate::plan::StepKind;
use crate::ports::scratch::Trials;
use crate::ports::{Parts, Result, Source};
use crate::rehearsal::fit::is_same_table;
use crate::rehearsal::fitted::Fitted;
use crate::rehearsal::run::{Found, Stage, rehearse};
use crate::rows::{KeyRange, RowsRequest, RowsWanted, Schema, TableKey, TableSpec, text};
use crate::throttle::gate::Gate;

/// What the new system has filled itself: how many rows, and all of them added up in whatever order they come.
type Sum = (u64, u128);

impl Runner {
    /// Whether the plan brings databases into the target's schemas.
    pub(super) fn fits(&self) -> bool {
        self.plan.options.decisions.is_some()
    }

    fn trials(&self) -> Result<&Trials> {
        let item = || format!("migration {}", self.work.migration);
        self.trials.as_ref().ok_or_else(|| Failure::permanent(item(), "there is nothing to try rows in"))
    }

    fn fitted_databases(&self) -> impl Iterator<Item = &DatasetName> {
        self.plan
            .steps
            .iter()
            .filter_map(|step| if let StepKind::Fit(dataset) = &step.step { Some(dataset) } else { None })
    }

    /// Tries the rows that have changed since they were tried last, and copies what fits.
    pub(super) async fn fit(&self, dataset: &DatasetName, work: &Work) -> Result<()> {
        let found = self.try_rows(dataset, work).await?;
        if self.seeds_stand(dataset, &found.source).await? {
            return self.copy_fitted(dataset, work, &StepKind::Fit(dataset.clone()), &found.source).await;
        }
        // Made anew with them: rows of production may refer to them.
        self.forget_trial(dataset).await?;
        let found = self.try_rows(dataset, work).await?;
        self.copy_fitted(dataset, work, &StepKind::Fit(dataset.clone()), &found.source).await
    }

    /// The same once more behind the fence, to the end: what is copied is compared, too.
    pub(super) async fn refit(&self, dataset: &DatasetName, work: &Work) -> Result<()> {
        let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
        let found = self.try_rows(dataset, work).await?;
        if !self.seeds_stand(dataset, &found.source).await? {
            let what = "rows of tables that production does not have were changed at the target meanwhile";
            return Err(Failure::operator(format!("dataset {dataset}"), what)
                .hint("stop what writes there, then `handover cutover` again"));
        }
        self.copy_fitted(dataset, work, &StepKind::Refit(dataset.clone()), &found.source).await?;
        database.index(&self.held_schema(dataset).await?).await?;
        let differences = pass::verify::database(work.clone(), dataset.clone(), database, false).await?;
        if differences > 0 {
            let what = "what was copied is not what was tried: verification found differences";
            return Err(Failure::operator(format!("dataset {dataset}"), what)
                .hint("`handover report` names them; `handover cutover` copies again what differs"));
        }
        Ok(())
    }

    /// A round over all of them before the fence: what it finds to be new does not have to be done behind it.
    pub(super) fn fit_all(&self) -> Vec<BoxFuture<'_, Result<()>>> {
        let one = |dataset| self.fit(dataset, &self.work).boxed();
        self.fitted_databases().map(one).collect()
    }

    /// What behind the fence is expected to take beside what such a round does.
    pub(super) fn refits_ms(&self) -> u64 {
        let refits = self.plan.steps.iter().filter(|step| matches!(step.step, StepKind::Refit(_)));
        refits.map(|step| step.expected_ms).sum()
    }

    /// Tries rows, and tells what was done about those that do not fit. A failure where something does not that nobody has decided
    /// about.
    async fn try_rows(&self, dataset: &DatasetName, work: &Work) -> Result<Found> {
        let trials = self.trials()?;
        let scratch = trials.scratch.get(dataset).cloned().ok_or_else(|| {
            Failure::operator(format!("dataset {dataset}"), "the target's manifest no longer names it")
                .hint("put its section back into the target's appliance.toml and restart the agent")
        })?;
        // It may have to be made anew.
        trials.fitted.host.close(&self.lease_of_fitted(dataset)?).await?;
        let decisions = Arc::new(self.plan.options.decisions.clone().unwrap_or_default());
        let used = Arc::new(Mutex::new(BTreeSet::new()));
        let stage = Stage {
            source: work.source.clone(),
            dataset: dataset.clone(),
            scratch,
            ledger: trials.ledger.clone(),
            decisions: decisions.clone(),
            used: used.clone(),
            tell: Arc::new(|line: String| tracing::info!("fitting: {line}")),
        };
        let fresh = self.fresh();
        let found = tokio::select! {
            biased;
            found = rehearse(stage, &fresh) => found?,
            // Whatever that falls between, the next one goes on.
            () = work.desk.stopping() => return Err(pass::stopped()),
        };
        let used = used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fitted = Fitted::of(&found, &decisions, &used)?;
        work.desk.send(Message::Fitted(dataset.clone(), Box::new(fitted))).await?;
        Ok(found)
    }

    /// Copies what has changed in the scratch database, in the target's schema.
    async fn copy_fitted(
        &self,
        dataset: &DatasetName,
        work: &Work,
        step: &StepKind,
        source: &Schema,
    ) -> Result<()> {
        let TargetDataset::Database(database) = self.target(dataset)? else { return Ok(()) };
        let fitted = self.trials()?.fitted.clone();
        let lease = self.lease_of_fitted(dataset)?;
        // It is read at this host: nothing is asked of the source.
        let here = Work { source: fitted.clone(), throttle: Gate::default(), ..work.clone() };
        let copied = pass::database::copy_under(here, dataset.clone(), database, lease.clone(), step).await;
        fitted.host.close(&lease).await?;
        copied?;
        work.desk.flush().await?;
        // Keys that production has given out are not given out again.
        let mut schema = self.held_schema(dataset).await?;
        schema.advance(&source.state);
        let record = Record::Database { dataset: dataset.clone(), schema: Box::new(schema) };
        work.desk.send(Message::Records(vec![record])).await?;
        work.desk.flush().await
    }

    /// Whether the tables that production does not have hold what they held when the scratch database was made.
    async fn seeds_stand(&self, dataset: &DatasetName, source: &Schema) -> Result<bool> {
        let (fitted, lease) = (&self.trials()?.fitted, self.lease_of_fitted(dataset)?);
        let compared = async {
            let then = sums(fitted, &lease, dataset, source).await?;
            Ok::<_, Failure>(then == sums(&self.here, &lease, dataset, source).await?)
        };
        let compared = compared.await;
        self.here.host.close(&lease).await?;
        fitted.host.close(&lease).await?;
        compared
    }

    /// Nothing is tried any more.
    pub(super) async fn forget_trials(&self) -> Result<()> {
        for dataset in self.fitted_databases() {
            self.forget_trial(dataset).await?;
        }
        Ok(())
    }

    /// What was tried is forgotten first: a scratch database that is there is known by its token only.
    async fn forget_trial(&self, dataset: &DatasetName) -> Result<()> {
        let trials = self.trials()?;
        trials.fitted.host.close(&self.lease_of_fitted(dataset)?).await?;
        trials.ledger.clear(dataset).await?;
        match trials.scratch.get(dataset) {
            Some(scratch) => scratch.drop_scratch().await,
            None => Ok(()),
        }
    }

    /// One at a time: it is opened anew for each copy.
    fn lease_of_fitted(&self, dataset: &DatasetName) -> Result<LeaseId> {
        let digest = Digest::of(format!("{}/fitted/{dataset}", self.work.migration).as_bytes());
        let name = format!("f-{}", digest.short());
        name.parse().map_err(|e| Failure::permanent("lease", "cannot be named").because(e))
    }

    /// A name that no scratch database, and no lease of the source's, has had.
    fn fresh(&self) -> String {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let (now, made) = (self.work.clock.now(), MADE.fetch_add(1, Ordering::Relaxed));
        Digest::of(format!("fit/{}/{now:?}/{made}", self.work.migration).as_bytes()).short()
    }
}

/// The sums of the tables that `without` does not have.
async fn sums(of: &Source, lease: &LeaseId, dataset: &DatasetName, without: &Schema) -> Result<Vec<Sum>> {
    let opened = of.host.open(lease, dataset, Parts::Whole).await?;
    let mut out = Vec::new();
    let engine = &opened.schema.engine;
    let is_there =
        |table: &TableSpec| without.tables.iter().any(|one| is_same_table(engine, &one.name, &table.name));
    for table in opened.schema.tables.iter().filter(|table| !is_there(table)) {
        let request = RowsRequest {
            lease: lease.clone(),
            snapshot: opened.snapshot.clone(),
            table: table.name.clone(),
            wanted: RowsWanted::Range(KeyRange::default()),
            budget: CHUNK_BYTES,
        };
        let (mut chunks, mut sum) = (of.rows.rows(request).await?, Sum::default());
        while let Some(chunk) = chunks.next().await {
            add(&mut sum, table, &chunk?.block)?;
        }
        out.push(sum);
    }
    Ok(out)
}

/// Adds a block's rows, without hidden keys: copies have others.
fn add(sum: &mut Sum, table: &TableSpec, block: &[u8]) -> Result<()> {
    let malformed =
        |e| Failure::permanent(format!("table {}", table.name), "a chunk is malformed").because(e);
    let skipped = usize::from(matches!(table.key, TableKey::Hidden(_)));
    for row in text::rows(block).map_err(malformed)? {
        let values: Vec<&[u8]> = text::values(row).skip(skipped).collect();
        let digest = Digest::of(&values.join(&b'\t'));
        let low: [u8; 16] = std::array::from_fn(|at| digest.0[at]);
        sum.0 += 1;
        sum.1 = sum.1.wrapping_add(u128::from_le_bytes(low));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::TableName;

    #[test]
    fn sums_depend_on_values_alone() {
        let table = |key| TableSpec {
            name: TableName::plain("t"),
            columns: Vec::new(),
            key,
            estimated_rows: 0,
            estimated_bytes: 0,
            cuts: Vec::new(),
            followed: false,
        };
        let of = |key, blocks: &[&[u8]]| {
            let (mut sum, table) = (Sum::default(), table(key));
            blocks.iter().for_each(|block| add(&mut sum, &table, block).unwrap());
            sum
        };
        let keyed = || TableKey::Columns(vec![0]);
        let hidden = || TableKey::Hidden("rowid".to_owned());
        assert_eq!(of(keyed(), &[b"1\ta\n2\tb\n"]), of(keyed(), &[b"2\tb\n", b"1\ta\n"]));
        assert_ne!(of(keyed(), &[b"1\ta\n2\tb\n"]), of(keyed(), &[b"1\ta\n2\tc\n"]));
        assert_ne!(of(keyed(), &[b"1\ta\n1\ta\n"]), of(keyed(), &[b"1\ta\n"]));
        assert_eq!(of(hidden(), &[b"i1\ta\ni2\tb\n"]), of(hidden(), &[b"i7\tb\ni9\ta\n"]));
    }
}
