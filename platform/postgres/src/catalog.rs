//! A database's schema, from its catalogs and `pg_dump`.

pub mod grants;
mod keys;
mod own;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::failure::Failure;
use handover_engine::inventory::{DatabaseFacts, TableFacts};
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::rows::{ColumnSpec, Ddl, Schema, TableKey, TableName, TableSpec};

use crate::Settings;
use crate::connect::Conn;
use crate::dump::{self, FENCE_SCHEMA, OWN_SCHEMA, Scope};
use crate::error::failed;
use crate::scratch::ROW;
use crate::sql::{self, literal, quote};
use crate::toc::{Entry, Section};

/// Name of the hidden key of tables without a key of their own: a row's place in the source's snapshot.
pub const PLACE: &str = "ctid";
/// Large objects: their numbers, and their pages;
/// with how many columns are their key.
pub const LARGE_OBJECTS: [(&str, u32, &[&str]); 2] = [
    ("pg_largeobject_metadata", 1, &["oid", "lomowner"]),
    ("pg_largeobject", 2, &["loid", "pageno", "data"]),
];

/// What a schema is read through.
pub struct Reader<'a> {
    /// The dataset, for messages.
    pub dataset: &'a DatasetName,
    /// Where the connection leads.
    pub settings: &'a Settings,
    /// A connection, inside the snapshot's transaction if there is one.
    pub conn: &'a Conn,
    /// Tables left out, as the operator writes them.
    pub exclude: &'a [String],
}

/// An ordinary table as the catalog shows it.
struct Listed {
    oid: String,
    name: TableName,
    rows: u64,
    bytes: u64,
}

type Rows = Vec<Vec<Option<String>>>;

/// A row's value as a string; empty for NULL.
fn field(row: &[Option<String>], at: usize) -> String {
    row.get(at).cloned().flatten().unwrap_or_default()
}

impl Reader<'_> {
    async fn rows(&self, sql: &str) -> Result<Rows> {
        let item = || format!("{}, {}", self.dataset, self.settings.location());
        self.conn.rows(sql).await.map_err(|e| failed(item(), "its catalog cannot be read", &e))
    }

    async fn value(&self, sql: &str) -> Result<String> {
        Ok(self.rows(sql).await?.first().map(|row| field(row, 0)).unwrap_or_default())
    }

    /// The schema, seen through an exported snapshot or as it is now.
    pub async fn schema(&self, snapshot: Option<&str>) -> Result<Schema> {
        let listed = self.tables().await?;
        let excluded = self.excluded(&listed)?;
        let version = self.value("SHOW server_version").await?;
        let number: u32 = self.value("SHOW server_version_num").await?.parse().unwrap_or_default();
        let scope = Scope { snapshot, exclude: &excluded, major: number / 10_000 };
        let entries = dump::entries(self.dataset, self.settings, &scope).await?;
        let foreign = self.constraints_to(&excluded).await?;
        let leads_there = |entry: &Entry| {
            entry.kind.ends_with("FK CONSTRAINT")
                && foreign.contains(&(entry.namespace.clone(), entry.tag.clone()))
        };
        let publications = self.own_publications().await?;
        let is_ours = |entry: &Entry| own::is_ours(entry, &publications);
        let entries: Vec<Entry> =
            entries.into_iter().filter(|entry| !leads_there(entry) && !is_ours(entry)).collect();
        let kept: Vec<&Listed> = listed.iter().filter(|t| !excluded.contains(&t.name)).collect();
        self.refuse_hashed_enums(&kept).await?;
        let (tables, mut state) = self.specs(&kept).await?;
        self.add_state(&entries, &mut state).await?;
        Ok(Schema {
            engine: "postgres".to_owned(),
            version,
            settings: self.database_settings(number).await?,
            before_load: statements(&entries, Section::Before),
            after_load: statements(&entries, Section::After),
            state,
            tables,
        })
    }

    /// Refuses partitions by hash of an enum, whose members' hashes are others on every server: each row would have to find
    /// its partition anew, and none would be found where it was.
    async fn refuse_hashed_enums(&self, tables: &[&Listed]) -> Result<()> {
        let sql = "SELECT r.relid::pg_catalog.oid, n.nspname || '.' || c.relname FROM pg_catalog.pg_partitioned_table p \
                   JOIN pg_catalog.pg_class c ON c.oid = p.partrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   CROSS JOIN LATERAL pg_catalog.pg_partition_tree(p.partrelid) r WHERE p.partstrat = 'h' AND r.isleaf \
                   AND EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                   LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype WHERE a.attrelid = p.partrelid \
                   AND a.attnum = ANY (p.partattrs::pg_catalog.int2[]) AND 'e' IN (t.typtype, b.typtype))";
        let found = self.rows(sql).await?;
        let Some(row) = found.iter().find(|row| tables.iter().any(|table| table.oid == field(row, 0))) else {
            return Ok(());
        };
        let item = format!("{}, {}, table {}", self.dataset, self.settings.location(), field(row, 1));
        let what =
            "it is partitioned by the hash of an enum, and a member's hash is another one on every server";
        Err(Failure::operator(item, what)
            .hint("partition it by LIST or by the member's text, or name its partitions in `exclude`"))
    }

    /// The tables that move, with their numbers in the catalog, and what reading them takes: no statements.
    pub async fn tables_only(&self) -> Result<(Schema, Vec<String>)> {
        let listed = self.tables().await?;
        let excluded = self.excluded(&listed)?;
        let kept: Vec<&Listed> = listed.iter().filter(|t| !excluded.contains(&t.name)).collect();
        let (tables, state) = self.specs(&kept).await?;
        let number: u32 = self.value("SHOW server_version_num").await?.parse().unwrap_or_default();
        let schema = Schema {
            engine: "postgres".to_owned(),
            version: self.value("SHOW server_version").await?,
            settings: self.database_settings(number).await?,
            before_load: Vec::new(),
            after_load: Vec::new(),
            state,
            tables,
        };
        Ok((schema, kept.iter().map(|table| table.oid.clone()).collect()))
    }

    /// What an inventory shows of a schema.
    pub async fn facts(&self, schema: &Schema) -> Result<DatabaseFacts> {
        let mut tables: Vec<TableFacts> = schema
            .tables
            .iter()
            .map(|t| TableFacts { name: t.name.clone(), rows: t.estimated_rows, bytes: t.estimated_bytes })
            .collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
        let size = self.value("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())").await?;
        Ok(DatabaseFacts {
            engine: schema.engine.clone(),
            version: schema.version.clone(),
            location: self.settings.location(),
            structure: Some(schema.structure()),
            tables,
            bytes: size.parse().unwrap_or_default(),
            index_entries: None,
            notes: self.notes(schema).await?,
            needs: Vec::new(),
        })
    }

    async fn notes(&self, schema: &Schema) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let keyless: Vec<String> = schema
            .tables
            .iter()
            .filter(|table| matches!(table.key, TableKey::Hidden(_)))
            .map(|table| table.name.to_string())
            .collect();
        if !keyless.is_empty() {
            notes.push(format!("without a key, copied by their rows' places: {}", keyless.join(", ")));
        }
        for (what, sql) in [
            (
                "foreign tables: their rows stay where they are",
                "SELECT ft.ftrelid::pg_catalog.regclass FROM pg_catalog.pg_foreign_table ft",
            ),
            (
                "table spaces are not carried over: everything goes to the default one",
                "SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c WHERE c.reltablespace <> 0 AND c.relkind IN ('r', 'i', 'm') AND c.oid > 16383",
            ),
            (
                "subscriptions are not carried over",
                "SELECT s.oid FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database() AND pg_catalog.has_column_privilege('pg_catalog.pg_subscription', 'oid', 'SELECT')",
            ),
            (
                "rows of tables that belong to extensions are not carried over",
                "SELECT unnest(e.extconfig)::pg_catalog.regclass FROM pg_catalog.pg_extension e",
            ),
        ] {
            let found: Vec<String> = self.rows(sql).await?.iter().map(|row| field(row, 0)).collect();
            if !found.is_empty() {
                notes.push(format!("{what} ({})", found.join(", ")));
            }
        }
        Ok(notes)
    }

    async fn tables(&self) -> Result<Vec<Listed>> {
        let sql = format!(
            "SELECT c.oid, n.nspname, c.relname, greatest(c.reltuples, 0)::pg_catalog.int8, \
             pg_catalog.pg_table_size(c.oid), c.relpages \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'pg_catalog' \
             AND n.nspname <> 'information_schema' AND n.nspname NOT IN ({}, {}) AND n.nspname !~ '^pg_(toast|temp)' \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
             AND d.objid = c.oid AND d.deptype = 'e') ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"",
            literal(OWN_SCHEMA),
            literal(FENCE_SCHEMA)
        );
        let mut listed: Vec<Listed> = self.rows(&sql).await?.iter().map(|row| listed(row)).collect();
        listed.extend(self.large_objects().await?);
        Ok(listed)
    }

    /// Keeps others from altering or dropping tables while the connection's transaction lasts. Writers do not notice.
    pub async fn lock_tables(&self) -> Result<()> {
        let names: Vec<String> = self
            .tables()
            .await?
            .iter()
            .filter(|t| t.name.schema != "pg_catalog" && !self.exclude.contains(&t.name.to_string()))
            .map(|t| format!("ONLY {}.{}", quote(&t.name.schema), quote(&t.name.name)))
            .collect();
        for batch in names.chunks(500) {
            self.rows(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", batch.join(", "))).await?;
        }
        Ok(())
    }

    /// Large objects are two tables of the system, if there are any.
    async fn large_objects(&self) -> Result<Vec<Listed>> {
        if self.value("SELECT 1 FROM pg_catalog.pg_largeobject_metadata LIMIT 1").await?.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "SELECT c.oid, 'pg_catalog', c.relname, greatest(c.reltuples, 0)::pg_catalog.int8, \
                   pg_catalog.pg_table_size(c.oid) FROM pg_catalog.pg_class c WHERE c.relnamespace = 11 \
                   AND c.relname IN ('pg_largeobject_metadata', 'pg_largeobject') ORDER BY 1";
        Ok(self.rows(sql).await?.iter().map(|row| listed(row)).collect())
    }

    /// The excluded tables' names; each must be there.
    fn excluded(&self, listed: &[Listed]) -> Result<Vec<TableName>> {
        let mut out = Vec::new();
        for wanted in self.exclude {
            let matches = |t: &&Listed| {
                t.name.to_string() == *wanted || (t.name.schema == "public" && t.name.name == *wanted)
            };
            let found = listed.iter().find(matches).ok_or_else(|| {
                let what = format!("`exclude` names the table {wanted}, which is not there");
                Failure::operator(self.dataset.to_string(), what).hint("correct appliance.toml")
            })?;
            out.push(found.name.clone());
        }
        Ok(out)
    }

    /// Foreign keys that lead to excluded tables, by their schemas and tags in a dump.
    async fn constraints_to(&self, excluded: &[TableName]) -> Result<BTreeSet<(String, String)>> {
        let mut out = BTreeSet::new();
        for table in excluded {
            let sql = format!(
                "SELECT rn.nspname, r.relname || ' ' || c.conname FROM pg_catalog.pg_constraint c \
                 JOIN pg_catalog.pg_class r ON r.oid = c.conrelid \
                 JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace JOIN pg_catalog.pg_class f ON f.oid = c.confrelid \
                 JOIN pg_catalog.pg_namespace n ON n.oid = f.relnamespace \
                 WHERE c.contype = 'f' AND f.relname = {} AND n.nspname = {}",
                literal(&table.name),
                literal(&table.schema)
            );
            out.extend(self.rows(&sql).await?.iter().map(|row| (field(row, 0), field(row, 1))));
        }
        Ok(out)
    }

    /// Tables' columns and keys; keys whose order needs care are noted in the state.
    async fn specs(&self, listed: &[&Listed]) -> Result<(Vec<TableSpec>, BTreeMap<String, String>)> {
        let mut columns: BTreeMap<String, Vec<keys::Column>> = BTreeMap::new();
        let sql = format!(
            "SELECT a.attrelid, a.attnum, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
             a.attgenerated FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
             WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attname <> '{ROW}' AND c.relkind = 'r' ORDER BY a.attrelid, a.attnum"
        );
        for row in self.rows(&sql).await? {
            columns.entry(field(&row, 0)).or_default().push(keys::Column::of(&row));
        }
        let candidates = self.key_candidates().await?;
        let identities = self.identities().await?;
        let (mut out, mut state) = (Vec::new(), BTreeMap::new());
        for table in listed {
            let all = columns.remove(&table.oid).unwrap_or_default();
            let key = candidates.get(&table.oid).and_then(|c| c.iter().find(|key| key.fits(&all)));
            let stored: Vec<&keys::Column> = all.iter().filter(|c| !c.generated).collect();
            let spec = stored
                .iter()
                .map(|c| ColumnSpec { name: c.name.clone(), declared: c.declared.clone() })
                .collect();
            let followed = key.zip(identities.get(&table.oid)).is_some_and(|(key, known)| known.tells(key));
            let position = |number: &i32| stored.iter().position(|c| c.number == *number).map(|at| at as u32);
            let key = match key {
                Some(key) => {
                    self.note_order(&table.name, key, &mut state);
                    TableKey::Columns(key.columns.iter().filter_map(position).collect())
                }
                None => TableKey::Hidden(PLACE.to_owned()),
            };
            let mut spec = TableSpec {
                name: table.name.clone(),
                columns: spec,
                key,
                estimated_rows: table.rows,
                estimated_bytes: table.bytes,
                cuts: Vec::new(),
                followed,
            };
            if spec.name.schema == "pg_catalog" {
                system_columns(&mut spec);
            }
            out.push(spec);
        }
        Ok((out, state))
    }
}

fn listed(row: &[Option<String>]) -> Listed {
    let number = |at| field(row, at).parse::<u64>().unwrap_or_default();
    Listed {
        oid: field(row, 0),
        name: TableName { schema: field(row, 1), name: field(row, 2) },
        rows: number(3),
        bytes: number(4),
    }
}

/// Large objects travel by their numbers and pages; who owns them is told by role numbers, which mean nothing elsewhere.
fn system_columns(spec: &mut TableSpec) {
    for (_, key, names) in LARGE_OBJECTS.iter().filter(|(name, ..)| *name == spec.name.name) {
        spec.columns.retain(|column| names.contains(&column.name.as_str()));
        spec.key = TableKey::Columns((0..*key).collect());
        spec.followed = false;
    }
}

/// Entries that are no objects of the schema, or travel as its state.
const APART: [&str; 12] = [
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
    "DATABASE",
    "DATABASE PROPERTIES",
    "ACL",
    "DEFAULT ACL",
    "BLOB",
    "BLOBS",
    "BLOB METADATA",
    "SUBSCRIPTION",
    "SEQUENCE SET",
];

/// The statements of one half. Comments and the like follow what they are about.
fn statements(entries: &[Entry], half: Section) -> Vec<Ddl> {
    let before: BTreeSet<&str> =
        entries.iter().filter(|e| e.section == Section::Before).map(|e| e.tag.as_str()).collect();
    let belongs = |entry: &&Entry| {
        let section = match entry.section {
            Section::None if before.contains(entry.tag.as_str()) && entry.kind != "COMMENT" => {
                Section::Before
            }
            Section::None => Section::After,
            section => section,
        };
        let apart = APART.contains(&entry.kind.as_str())
            || (entry.kind == "COMMENT" && entry.tag.starts_with("DATABASE "));
        // Of a schema `public` that somebody else owns there is nothing but a comment: every database has it.
        section == half && !apart && !sql::statements(&entry.make).is_empty()
    };
    let made = |entry: &Entry| Ddl {
        kind: entry.kind.to_lowercase(),
        name: if entry.namespace.is_empty() {
            entry.tag.clone()
        } else {
            format!("{}.{}", entry.namespace, entry.tag)
        },
        sql: entry.make.trim().to_owned(),
    };
    entries.iter().filter(belongs).map(made).collect()
}
