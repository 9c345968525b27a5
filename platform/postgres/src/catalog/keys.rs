//! Which unique index orders a table's rows.

use std::collections::BTreeMap;

use handover_engine::ports::Result;
use handover_engine::rows::TableName;

use super::{Reader, field};

/// What identifies a table's rows in the server's log.
pub struct Identity {
    /// All of the row.
    full: bool,
    /// The columns' numbers.
    columns: Vec<i32>,
}

impl Identity {
    /// Whether the log tells of each change which key it is about.
    pub fn tells(&self, key: &Candidate) -> bool {
        let sorted = |columns: &[i32]| {
            let mut columns = columns.to_vec();
            columns.sort_unstable();
            columns
        };
        self.full || sorted(&self.columns) == sorted(&key.columns)
    }
}

/// A table's column.
pub struct Column {
    /// Its number in the table.
    pub number: i32,
    pub name: String,
    pub declared: String,
    pub generated: bool,
}

impl Column {
    /// From a row of number, name, type and whether it is generated, after the table's own number.
    pub fn of(row: &[Option<String>]) -> Self {
        Self {
            number: field(row, 1).parse().unwrap_or_default(),
            name: field(row, 2),
            declared: field(row, 3),
            generated: !field(row, 4).is_empty(),
        }
    }
}

/// A unique index whose columns are never null.
pub struct Candidate {
    /// Its columns' numbers, in its order.
    pub columns: Vec<i32>,
    /// Collations of its columns and their versions, as `name version`; empty where byte order or none.
    collations: Vec<String>,
    /// The operators that order its columns, where they are not the server's own: `<`, `<=`, `=`, `>=` and `>` of the type, as
    /// statements name them, with tabs between.
    operators: Vec<String>,
}

impl Candidate {
    /// Whether all its columns travel.
    pub fn fits(&self, columns: &[Column]) -> bool {
        self.columns.iter().all(|number| columns.iter().any(|c| c.number == *number && !c.generated))
    }
}

impl Reader<'_> {
    /// Each table's candidates, best first: the primary key, then the one with the fewest columns. Only B-trees in the
    /// order that `ORDER BY` and row comparisons have by themselves: default operators, the columns' own collations, one
    /// direction. Columns whose order depends on the server's numbering of objects are no keys.
    pub async fn key_candidates(&self) -> Result<BTreeMap<String, Vec<Candidate>>> {
        let (default, version) = if self.value("SHOW server_version_num").await?.as_str() < "150000" {
            ("d.datcollate", "pg_catalog.pg_collation_actual_version(100)")
        } else {
            (
                "CASE WHEN d.datlocprovider = 'c' THEN d.datcollate ELSE d.daticulocale END",
                "pg_catalog.pg_database_collation_actual_version(d.oid)",
            )
        };
        let sql = format!(
            "SELECT i.indrelid, i.indexrelid, a.attnum, \
             CASE WHEN k.coll = 100 AND {default} NOT IN ('C', 'POSIX') THEN {default} || ' ' || coalesce({version}, '') \
             WHEN k.coll NOT IN (0, 100) AND co.collcollate IS DISTINCT FROM 'C' AND co.collcollate IS DISTINCT FROM 'POSIX' \
             THEN co.collname || ' ' || coalesce(pg_catalog.pg_collation_actual_version(co.oid), '') END, \
             o.opcdefault AND k.coll = a.attcollation AND a.attnotnull \
             AND k.option & 1 = i.indoption[0] & 1 AND t.typname !~ '^reg' AND coalesce(bt.typname, '') !~ '^reg', \
             (SELECT pg_catalog.string_agg('OPERATOR(' || pg_catalog.quote_ident(s.nspname) || '.' || p.oprname || ')', E'\\t' \
             ORDER BY a.amopstrategy) FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_operator p ON p.oid = a.amopopr \
             JOIN pg_catalog.pg_namespace s ON s.oid = p.oprnamespace WHERE a.amopfamily = o.opcfamily \
             AND a.amoplefttype = o.opcintype AND a.amoprighttype = o.opcintype AND s.nspname <> 'pg_catalog') \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree' \
             JOIN pg_catalog.pg_class r ON r.oid = i.indrelid AND r.relkind = 'r' \
             JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database() \
             CROSS JOIN LATERAL (SELECT n, i.indkey[n] AS att, i.indclass[n] AS class, i.indcollation[n] AS coll, \
             i.indoption[n] AS option FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) n) k \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.att \
             LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             LEFT JOIN pg_catalog.pg_type bt ON bt.oid = t.typbasetype \
             LEFT JOIN pg_catalog.pg_collation co ON co.oid = k.coll \
             JOIN pg_catalog.pg_opclass o ON o.oid = k.class \
             WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
             ORDER BY i.indrelid, NOT i.indisprimary, i.indnkeyatts, c.relname COLLATE \"C\", k.n"
        );
        let mut found: Vec<(String, String, bool, Candidate)> = Vec::new();
        for row in self.rows(&sql).await? {
            let (table, index) = (field(&row, 0), field(&row, 1));
            let number = field(&row, 2).parse().unwrap_or_default();
            let usable = field(&row, 4) == "t";
            match found.last_mut().filter(|(t, i, ..)| (t, i) == (&table, &index)) {
                Some((_, _, all, candidate)) => {
                    *all &= usable;
                    candidate.columns.push(number);
                    candidate.collations.push(field(&row, 3));
                    candidate.operators.push(field(&row, 5));
                }
                None => {
                    let first = Candidate {
                        columns: vec![number],
                        collations: vec![field(&row, 3)],
                        operators: vec![field(&row, 5)],
                    };
                    found.push((table, index, usable, first));
                }
            }
        }
        let mut out: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
        for (table, _, _, candidate) in found.into_iter().filter(|(_, _, usable, _)| *usable) {
            out.entry(table).or_default().push(candidate);
        }
        Ok(out)
    }

    /// What identifies the rows of each table, by its number; tables whose changes are not logged so are not among them.
    pub async fn identities(&self) -> Result<BTreeMap<String, Identity>> {
        let sql = "SELECT c.oid, c.relreplident, \
                   pg_catalog.array_to_string((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1], ' ') \
                   FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid \
                   AND i.indisvalid AND i.indimmediate \
                   AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END \
                   WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'n'";
        let identity = |row: &Vec<Option<String>>| {
            let columns = field(row, 2).split(' ').filter_map(|number| number.parse().ok()).collect();
            (field(row, 0), Identity { full: field(row, 1) == "f", columns })
        };
        Ok(self.rows(sql).await?.iter().map(identity).collect())
    }

    /// The version of a collation, or of the database's own locale; empty where it has none or is not there.
    pub async fn collation_version(&self, name: &str) -> Result<String> {
        let own = if self.value("SHOW server_version_num").await?.as_str() < "150000" {
            "SELECT pg_catalog.pg_collation_actual_version(100) FROM pg_catalog.pg_database d \
             WHERE d.datname = pg_catalog.current_database() AND d.datcollate"
        } else {
            "SELECT pg_catalog.pg_database_collation_actual_version(d.oid) FROM pg_catalog.pg_database d \
             WHERE d.datname = pg_catalog.current_database() AND coalesce(d.daticulocale, d.datcollate)"
        };
        let name = crate::sql::literal(name);
        let own = self.value(&format!("{own} = {name}")).await?;
        if !own.is_empty() {
            return Ok(own);
        }
        self.value(&format!(
            "SELECT coalesce(pg_catalog.pg_collation_actual_version(oid), '') FROM pg_catalog.pg_collation WHERE collname = {name}"
        ))
        .await
    }

    /// Notes, for the target, that a key's order depends on a collation, that it is byte order instead, and by which operators.
    pub fn note_order(&self, table: &TableName, key: &Candidate, state: &mut BTreeMap<String, String>) {
        if key.operators.iter().any(|own| !own.is_empty()) {
            state.insert(format!("key_operators/{table}"), key.operators.join("\n"));
        }
        let collated = key.collations.iter().enumerate().filter(|(_, collation)| !collation.is_empty());
        let mut bytewise = Vec::new();
        for (at, collation) in collated {
            if self.settings.bytewise_keys {
                bytewise.push(at.to_string());
            } else {
                let (name, version) = collation.rsplit_once(' ').unwrap_or((collation, ""));
                state.insert(format!("key_collation/{name}"), version.to_owned());
            }
        }
        if !bytewise.is_empty() {
            state.insert(format!("key_bytes/{table}"), bytewise.join(","));
        }
    }
}
