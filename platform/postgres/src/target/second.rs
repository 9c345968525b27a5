//! The second half of a schema in three steps, for a database that is followed: indexes while it is loaded by key, everything
//! else at the change-over, and what takes long after that.
//!
//! What `finish` still does that grows with the rows: materialized views are filled, since queries refuse empty ones; tables
//! that are not followed get their unique indexes; unlogged tables are made so; foreign keys of partitioned tables
//! are validated, which the server does at once or never.

use std::collections::BTreeSet;

use handover_engine::ports::Result;
use handover_engine::rows::{Ddl, Schema, TableName};

use super::build::Builder;
use super::clear::{is_key, primary_key};
use crate::sql::{quote, skip_token};

impl Builder<'_> {
    /// Indexes, and constraints that are indexes. Notes that the rest is to be made quickly.
    pub async fn indexes(&self, schema: &Schema) -> Result<()> {
        self.index_places(schema).await?;
        let unfollowed = Unfollowed::of(schema);
        let mut pending = self.pending(&schema.after_load).await?;
        pending.retain(|ddl| {
            matches!(ddl.kind.as_str(), "index" | "constraint") && !unfollowed.refuses(schema, ddl)
        });
        self.side_by_side(schema, pending, false).await?;
        if !self.is_followed().await? {
            self.run("ANALYZE", "statistics cannot be made").await?;
            let sql = "INSERT INTO handover_state.followed DEFAULT VALUES ON CONFLICT DO NOTHING";
            self.run(sql, "our own tables cannot be written").await?;
        }
        Ok(())
    }

    /// Whether [`Builder::indexes`] has run since the first half was made.
    pub async fn is_followed(&self) -> Result<bool> {
        // A release that knew nothing of it may have made the rest.
        let sql =
            "SELECT 1 FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass('handover_state.followed')";
        if self.list(sql).await?.is_empty() {
            return Ok(false);
        }
        Ok(!self.list("SELECT 1 FROM handover_state.followed").await?.is_empty())
    }

    /// Validates foreign keys that were made without looking at the rows. Others read and write meanwhile.
    pub async fn settle(&self, schema: &Schema) -> Result<()> {
        for ddl in schema.after_load.iter().filter(|ddl| ddl.kind == "fk constraint") {
            if unvalidated(&ddl.sql).is_some()
                && let Some(sql) = validation(&ddl.sql)
            {
                self.run(&sql, &format!("{}: it cannot be validated", ddl.name)).await?;
            }
        }
        self.run("ANALYZE", "statistics cannot be made").await
    }
}

/// Tables that are loaded by ranges again once their indexes are there: a value may come with one range before it goes with
/// another, so that their unique indexes have to wait.
struct Unfollowed {
    /// Their names, however they are quoted.
    names: BTreeSet<String>,
}

impl Unfollowed {
    fn of(schema: &Schema) -> Self {
        let tables = schema.tables.iter().filter(|table| !table.followed);
        Self { names: tables.flat_map(|table| spellings(&table.name)).collect() }
    }

    /// Whether an object has to wait. Not what the ranges are found by.
    fn refuses(&self, schema: &Schema, ddl: &Ddl) -> bool {
        let is_unique = ddl.kind == "constraint" || ddl.sql.starts_with("CREATE UNIQUE INDEX");
        let named = table_of(&ddl.sql).filter(|name| is_unique && self.names.contains(*name));
        named.is_some_and(|name| {
            let table =
                schema.tables.iter().find(|table| spellings(&table.name).iter().any(|known| known == name));
            let key = primary_key(&ddl.sql);
            !table.zip(key).is_some_and(|(table, columns)| is_key(table, &columns))
        })
    }
}

/// A table's name as statements may write it.
fn spellings(table: &TableName) -> Vec<String> {
    let either = |name: &str| {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        [name.to_owned(), quoted, quote(name)]
    };
    let (schemas, names) = (either(&table.schema), either(&table.name));
    schemas.iter().flat_map(|schema| names.iter().map(move |name| format!("{schema}.{name}"))).collect()
}

/// The table that a statement of `pg_dump` makes an index or a constraint of.
fn table_of(sql: &str) -> Option<&str> {
    let (rest, end) = match sql.strip_prefix("ALTER TABLE ") {
        Some(rest) => (rest, "\n"),
        None => (sql.split_once(" ON ")?.1, " USING "),
    };
    let rest = rest.strip_prefix("ONLY ").unwrap_or(rest);
    rest.split_once(end).map(|(name, _)| name)
}

/// The statement that makes a foreign key without looking at the rows; `None` where it has to, or does not anyway.
pub fn unvalidated(sql: &str) -> Option<String> {
    let sql = sql.trim().trim_end_matches(';');
    // A partitioned table's foreign key is made for its partitions too.
    let may =
        sql.starts_with("ALTER TABLE ONLY ") && !sql.ends_with(" NOT VALID") && validation(sql).is_some();
    may.then(|| format!("{sql} NOT VALID"))
}

/// The statement that validates a foreign key, from the one that makes it.
fn validation(sql: &str) -> Option<String> {
    let (mut at, mut places) = (0, Vec::new());
    let words = ["ADD", "CONSTRAINT", "FOREIGN"];
    while at < sql.len() && places.len() < words.len() {
        let from = at;
        at = skip_token(sql.as_bytes(), at);
        if words.get(places.len()).is_some_and(|word| sql[from..at] == **word) {
            places.push((from, at));
        }
    }
    let [(add, _), (_, name), (end, _)] = places[..] else { return None };
    Some(format!("{} VALIDATE CONSTRAINT {}", sql[..add].trim(), sql[name..end].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_are_made_unvalidated_and_validated_by_name() {
        let plain = "ALTER TABLE ONLY s.\"ADD x\"\n    ADD CONSTRAINT \"a\"\"b FOREIGN\" FOREIGN KEY (a) REFERENCES s.u(b);";
        let made = unvalidated(plain).unwrap();
        assert!(made.ends_with("REFERENCES s.u(b) NOT VALID"), "{made}");
        assert_eq!(
            validation(plain).unwrap(),
            "ALTER TABLE ONLY s.\"ADD x\" VALIDATE CONSTRAINT \"a\"\"b FOREIGN\""
        );
        for as_it_is in [
            "ALTER TABLE s.p\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(b);",
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(b) NOT VALID;",
        ] {
            assert_eq!(unvalidated(as_it_is), None, "{as_it_is}");
        }
    }

    #[test]
    fn statements_tell_their_table() {
        for (sql, table) in [
            ("CREATE UNIQUE INDEX i ON public.t USING btree (a)", "public.t"),
            ("CREATE INDEX i ON ONLY \"S\".t USING gin (a)", "\"S\".t"),
            ("ALTER TABLE ONLY public.\"T t\"\n    ADD CONSTRAINT k UNIQUE (a)", "public.\"T t\""),
        ] {
            assert_eq!(table_of(sql), Some(table));
        }
    }
}
