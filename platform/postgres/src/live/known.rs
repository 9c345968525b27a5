//! What is known of the tables of a database that is followed.

use std::collections::BTreeMap;
use std::sync::Arc;

use handover_engine::ports::Result;
use handover_engine::rows::{Schema, TableKey, TableName, TableSpec};

use super::At;
use crate::connect::Conn;
use crate::sql::quote;

/// A server of this version publishes some columns of a table alone.
const COLUMN_LISTS: u32 = 150_000;

/// The tables that move.
#[derive(Debug)]
pub struct Known {
    /// Their shapes; no statements.
    pub schema: Schema,
    /// Those whose changes are told, by their numbers in the catalog.
    pub followed: BTreeMap<u32, Arc<Followed>>,
}

/// A table whose changes are told by key.
#[derive(Debug, PartialEq, Eq)]
pub struct Followed {
    /// The table.
    pub name: TableName,
    /// The columns that the log tells of: name in the database's encoding, number and modifier of the type.
    pub columns: Vec<(Vec<u8>, u32, i32)>,
    /// Which of them are the key, in the key's order.
    pub key: Vec<usize>,
    /// The columns to be published, quoted; empty for all of them.
    pub published: Vec<String>,
}

/// A column as the catalog shows it.
struct Listed {
    name: String,
    bytes: Vec<u8>,
    kind: u32,
    modifier: i32,
    /// The table's changes are logged with whole rows.
    full: bool,
}

impl Known {
    /// Looks at the database.
    pub async fn load(at: &At, conn: &Conn) -> Result<Self> {
        let (schema, numbers) = at.reader(conn).tables_only().await?;
        let failed = |e| at.failed("its catalog cannot be read", &e);
        let version = conn.text("SHOW server_version_num").await.map_err(failed)?;
        let lists =
            version.and_then(|text| text.parse().ok()).is_some_and(|number: u32| number >= COLUMN_LISTS);
        let mut columns = columns(conn).await.map_err(failed)?;
        let mut followed = BTreeMap::new();
        for (table, number) in schema.tables.iter().zip(numbers) {
            let Ok(number) = number.parse() else { continue };
            let found = columns.remove(&number).unwrap_or_default();
            if let Some(table) = follow(table, found, lists) {
                followed.insert(number, Arc::new(table));
            }
        }
        Ok(Self { schema, followed })
    }
}

/// How a table is followed, if it is.
fn follow(table: &TableSpec, mut columns: Vec<Listed>, lists: bool) -> Option<Followed> {
    let TableKey::Columns(key) = &table.key else { return None };
    if !table.followed {
        return None;
    }
    let key: Vec<&String> = key
        .iter()
        .map(|at| table.columns.get(*at as usize).map(|column| &column.name))
        .collect::<Option<_>>()?;
    let mut published = Vec::new();
    // Of a row that is logged whole the server publishes all columns or none.
    if lists && !columns.iter().any(|column| column.full) {
        columns.retain(|column| key.contains(&&column.name));
        published = columns.iter().map(|column| quote(&column.name)).collect();
    }
    let place = |name: &&String| columns.iter().position(|column| column.name == **name);
    Some(Followed {
        name: table.name.clone(),
        key: key.iter().map(place).collect::<Option<_>>()?,
        columns: columns.into_iter().map(|column| (column.bytes, column.kind, column.modifier)).collect(),
        published,
    })
}

/// The columns of all tables that a log may tell of.
async fn columns(conn: &Conn) -> std::result::Result<BTreeMap<u32, Vec<Listed>>, tokio_postgres::Error> {
    let sql = "SELECT a.attrelid, a.attname, pg_catalog.encode(pg_catalog.convert_to(a.attname::pg_catalog.text, \
               pg_catalog.getdatabaseencoding()), 'hex'), a.atttypid, a.atttypmod, c.relreplident \
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
               WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND c.relkind = 'r' \
               AND c.relpersistence = 'p' AND c.oid > 16383 ORDER BY a.attrelid, a.attnum";
    let mut out = BTreeMap::<u32, Vec<Listed>>::new();
    for row in conn.rows(sql).await? {
        let field = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let column = Listed {
            name: field(1),
            bytes: unhex(&field(2)),
            kind: field(3).parse().unwrap_or_default(),
            modifier: field(4).parse().unwrap_or(-1),
            full: field(5) == "f",
        };
        out.entry(field(0).parse().unwrap_or_default()).or_default().push(column);
    }
    Ok(out)
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default();
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap_or_default();
    text.as_bytes().chunks_exact(2).map(byte).collect()
}
