//! How far the numbers go that sequences have given rows.

use std::collections::BTreeMap;

use handover_engine::name::DatasetName;
use handover_engine::ports::Result;

use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::quote;

/// Columns of integers, and the sequences that belong to them and count upwards.
const OWNED: &str = "SELECT pg_catalog.quote_ident(sn.nspname) || '.' || pg_catalog.quote_ident(s.relname), \
    n.nspname, c.relname, a.attname FROM pg_catalog.pg_depend d \
    JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid AND q.seqincrement > 0 \
    JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace JOIN pg_catalog.pg_class c ON c.oid = d.refobjid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid \
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
    AND d.deptype IN ('a', 'i') AND a.atttypid IN ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype) \
    AND n.nspname <> 'handover_state' ORDER BY 1";

/// The largest values, as a schema's state writes positions of sequences.
pub async fn of(dataset: &DatasetName, settings: &Settings) -> Result<BTreeMap<String, String>> {
    let conn = Conn::open(dataset, settings).await?;
    let item = || format!("{dataset}, {}", settings.location());
    let what = "its sequences cannot be looked at";
    let mut out = BTreeMap::new();
    for row in conn.rows(OWNED).await.map_err(|e| failed(item(), what, &e))? {
        let row: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
        let [sequence, schema, table, column] = &row[..] else { continue };
        let sql = format!("SELECT max({}) FROM {}.{}", quote(column), quote(schema), quote(table));
        if let Some(largest) = conn.text(&sql).await.map_err(|e| failed(item(), what, &e))? {
            out.insert(format!("sequence/{sequence}"), format!("{largest} t"));
        }
    }
    Ok(out)
}
