//! A database of the target as it would be with the rows that were tried beside it: its own schema, and the rows of the scratch
//! database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::inventory::DatabaseFacts;
use handover_engine::name::DatasetName;
use handover_engine::ports::{Database, DatabaseSnapshot, Result};
use handover_engine::rows::{Key, KeyRange, RowsChunk, Schema, SnapshotId, TableName, TableSpec};
use handover_postgres::PostgresScratch;

use crate::database::Place;

/// A database of the target with the rows that were tried.
pub struct FittedDatabase {
    name: DatasetName,
    /// Its schema counts.
    own: Arc<dyn Database>,
    /// Its rows do.
    tried: Arc<dyn Database>,
    tried_at: Place,
}

impl FittedDatabase {
    /// The database at `place`. Private copies are made in `scratch`.
    pub fn new(name: DatasetName, place: &Place, scratch: PathBuf) -> Self {
        let tried_at = place.rehearsal(&name);
        let own = place.without_accounts().database(name.clone(), Vec::new(), scratch.clone());
        let tried = tried_at.database(name.clone(), Vec::new(), scratch);
        Self { name, own, tried, tried_at }
    }

    /// Where sequences would have to stand, as far as the scratch database does not tell by itself.
    async fn positions(&self) -> Result<BTreeMap<String, String>> {
        match &self.tried_at {
            Place::Postgres(settings) => PostgresScratch::positions(&self.name, settings).await,
            Place::Sqlite(_) | Place::Mariadb(_) => Ok(BTreeMap::new()),
        }
    }
}

#[async_trait]
impl Database for FittedDatabase {
    async fn facts(&self) -> Result<DatabaseFacts> {
        self.own.facts().await
    }

    async fn snapshot(&self) -> Result<Arc<dyn DatabaseSnapshot>> {
        let own = self.own.snapshot().await?.schema().clone();
        let rows = self.tried.snapshot().await?;
        let schema = composed(&self.name, own, rows.schema(), &self.positions().await?)?;
        Ok(Arc::new(Snapshot { schema, rows }))
    }
}

/// The schema `own`, for the rows of `tried`; refused where these are not in the form of its tables.
fn composed(
    dataset: &DatasetName,
    mut own: Schema,
    tried: &Schema,
    positions: &BTreeMap<String, String>,
) -> Result<Schema> {
    let item = format!("dataset {dataset}");
    if own.settings.get("encoding") != tried.settings.get("encoding") {
        let what = "the target's own database has another encoding than the source's";
        return Err(
            Failure::operator(item, what).hint("make it anew with the source's encoding, then resume")
        );
    }
    for table in &mut own.tables {
        let Some(there) = tried.table(&table.name).filter(|there| has_rows_of(there, table)) else {
            let what = "the target's rows of it are kept by a module of the engine: they cannot be tried";
            return Err(Failure::operator(format!("{item}, table {}", table.name), what).hint(
                "take that table out of the target's schema, and let the new version make it afterwards",
            ));
        };
        (table.estimated_rows, table.estimated_bytes) = (there.estimated_rows, there.estimated_bytes);
    }
    // An empty table's position may be told by nobody: where it is now counts.
    let told = tried
        .state
        .iter()
        .filter(|(key, _)| key.starts_with("auto_increment/") || key.starts_with("sequence/"));
    for (key, position) in told {
        own.state.entry(key.clone()).or_insert_with(|| position.clone());
    }
    own.advance(&tried.state);
    own.advance(positions);
    Ok(own)
}

/// Whether rows of one are rows of the other.
fn has_rows_of(tried: &TableSpec, table: &TableSpec) -> bool {
    tried.key == table.key && tried.columns == table.columns
}

/// A view of the scratch database.
struct Snapshot {
    schema: Schema,
    rows: Arc<dyn DatabaseSnapshot>,
}

#[async_trait]
impl DatabaseSnapshot for Snapshot {
    fn id(&self) -> SnapshotId {
        self.rows.id()
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    async fn read(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        self.rows.read(table, range, budget).await
    }

    async fn split(&self, table: &TableName, parts: usize) -> Result<Vec<Key>> {
        self.rows.split(table, parts).await
    }
}

#[cfg(test)]
mod tests {
    use handover_engine::rows::{ColumnSpec, TableKey};

    use super::*;

    fn schema(tables: &[(&str, &[&str])], state: &[(&str, &str)]) -> Schema {
        let column = |name: &&str| ColumnSpec { name: (*name).to_owned(), declared: "int".to_owned() };
        let table = |(name, columns): &(&str, &[&str])| TableSpec {
            name: TableName::plain(*name),
            columns: columns.iter().map(column).collect(),
            key: TableKey::Columns(vec![0]),
            estimated_rows: 0,
            estimated_bytes: columns.len() as u64,
            cuts: Vec::new(),
            followed: false,
        };
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Schema {
            engine: "sqlite".to_owned(),
            version: String::new(),
            settings: BTreeMap::new(),
            before_load: Vec::new(),
            after_load: Vec::new(),
            state: state.iter().map(pair).collect(),
            tables: tables.iter().map(table).collect(),
        }
    }

    #[test]
    fn a_table_whose_rows_were_not_tried_is_refused() {
        let name: DatasetName = "main".parse().unwrap();
        let own = || schema(&[("a", &["id", "x"]), ("b", &["id"])], &[]);
        let none = BTreeMap::new();
        assert!(composed(&name, own(), &own(), &none).is_ok());
        for tried in [schema(&[("a", &["id", "x"])], &[]), schema(&[("a", &["id"]), ("b", &["id"])], &[])] {
            assert!(composed(&name, own(), &tried, &none).is_err());
        }
    }

    #[test]
    fn positions_go_on_with_the_rows() {
        let name = "main".parse().unwrap();
        let own = schema(&[("a", &["id"])], &[("sequence/a", "3"), ("sequence/s", "1 f"), ("owner/a", "x")]);
        let tried =
            schema(&[("a", &["id"])], &[("sequence/a", "90"), ("auto_increment/a", "91"), ("owner/a", "y")]);
        let positions = BTreeMap::from([("sequence/s".to_owned(), "12 t".to_owned())]);
        let composed = composed(&name, own, &tried, &positions).unwrap();
        let state: Vec<_> = composed.state.into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(state, ["auto_increment/a 91", "owner/a x", "sequence/a 90", "sequence/s 12 t"]);
    }
}
