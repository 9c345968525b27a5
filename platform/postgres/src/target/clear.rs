//! Clearing what a former `finish` made out of the way of loading.

use handover_engine::ports::Result;
use handover_engine::rows::{Schema, TableKey, TableName, TableSpec};

use super::build::{Builder, digest};
use crate::dump::OWN_SCHEMA;
use crate::sql::literal;

impl Builder<'_> {
    /// Drops what a former `finish` made that would get in the way of loading: triggers, foreign keys, rules,
    /// conditions that not all rows meet, and what forbids equal values that are on their way to each other's rows. The primary keys stay.
    /// What belongs to an extension stays: nobody would make it again.
    pub(super) async fn clear_the_way(&self, schema: &Schema) -> Result<()> {
        let free = |class: &str, object: &str| {
            format!(
                "NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' \
                 AND d.classid = 'pg_catalog.{class}'::pg_catalog.regclass AND d.objid = {object})"
            )
        };
        let table = |object: &str| free("pg_class", object);
        let sql = format!(
            "SELECT 'DROP EVENT TRIGGER ' || pg_catalog.quote_ident(evtname) FROM pg_catalog.pg_event_trigger e WHERE {events} \
             UNION ALL SELECT 'DROP TRIGGER ' || pg_catalog.quote_ident(tgname) || ' ON ' || tgrelid::pg_catalog.regclass \
             FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgparentid = 0 AND {triggers} \
             UNION ALL SELECT 'DROP RULE ' || pg_catalog.quote_ident(rulename) || ' ON ' || ev_class::pg_catalog.regclass \
             FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = ev_class \
             WHERE rulename <> '_RETURN' AND c.oid > 16383 AND {rules} \
             UNION ALL SELECT 'ALTER TABLE ' || conrelid::pg_catalog.regclass || ' DROP CONSTRAINT ' || pg_catalog.quote_ident(conname) \
             FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0 AND {constraints} \
             UNION ALL SELECT 'ALTER TABLE ' || conrelid::pg_catalog.regclass || ' DROP CONSTRAINT ' || pg_catalog.quote_ident(conname) \
             FROM pg_catalog.pg_constraint WHERE contype = 'c' AND NOT convalidated AND conrelid <> 0 AND coninhcount = 0 AND {constraints} \
             UNION ALL SELECT 'ALTER DOMAIN ' || contypid::pg_catalog.regtype || ' DROP CONSTRAINT ' || pg_catalog.quote_ident(conname) \
             FROM pg_catalog.pg_constraint WHERE contype = 'c' AND NOT convalidated AND contypid <> 0 AND {domains} \
             UNION ALL SELECT 'ALTER TABLE ' || conrelid::pg_catalog.regclass || ' DROP CONSTRAINT IF EXISTS ' || pg_catalog.quote_ident(conname) || ' CASCADE' \
             FROM pg_catalog.pg_constraint WHERE contype IN ('u', 'x') AND oid > 16383 AND conparentid = 0 AND connamespace <> {own}::pg_catalog.regnamespace AND {constraints} \
             UNION ALL SELECT 'DROP INDEX IF EXISTS ' || i.indexrelid::pg_catalog.regclass || ' CASCADE' FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             WHERE i.indisunique AND NOT i.indisprimary AND c.oid > 16383 AND NOT c.relispartition AND c.relnamespace <> {own}::pg_catalog.regnamespace AND {indexes} \
             AND c.relnamespace::pg_catalog.regnamespace::text NOT LIKE 'pg_toast%' \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid)",
            events = free("pg_event_trigger", "e.oid"),
            triggers = table("tgrelid"),
            rules = table("ev_class"),
            constraints = table("conrelid"),
            domains = free("pg_type", "contypid"),
            indexes = table("i.indrelid"),
            own = literal(OWN_SCHEMA),
        );
        let mut drops = self.list(&sql).await?;
        let keys = self.other_primary_keys(schema).await?;
        drops.extend(keys.iter().map(|(_, drop)| vec![drop.clone()]));
        if drops.is_empty() {
            return Ok(());
        }
        // All in one, with the notes: what is dropped is made again by `finish`, comments with it.
        let kinds = ["event trigger", "trigger", "rule", "fk constraint", "check constraint", "comment"]
            .map(literal)
            .join(", ");
        let mut script = format!("BEGIN; DELETE FROM handover_state.made WHERE kind IN ({kinds});");
        for ddl in &schema.after_load {
            let text = ddl.sql.to_ascii_uppercase();
            let is_key = text.contains("PRIMARY KEY");
            let dropped = |(table, _): &(TableName, String)| ddl.name.starts_with(&format!("{table} "));
            let unique = (ddl.kind == "constraint" && (!is_key || keys.iter().any(dropped)))
                || (ddl.kind == "index" && text.contains("CREATE UNIQUE INDEX"))
                || ddl.kind == "index attach"
                || ddl.kind == "table attach";
            if unique {
                script +=
                    &format!("DELETE FROM handover_state.made WHERE digest = {};", literal(&digest(ddl)));
            }
        }
        for drop in drops {
            script += &drop.join("");
            script.push(';');
        }
        script += "COMMIT";
        let done = self.run(&script, "what is in the way of loading cannot be dropped").await;
        if done.is_err() {
            let _ = self.conn.batch_execute("ROLLBACK").await;
        }
        done
    }

    /// Primary keys that are not what their table's rows are found by, with the statements that drop them: what one range
    /// brings may still be in another's rows.
    async fn other_primary_keys(&self, schema: &Schema) -> Result<Vec<(TableName, String)>> {
        let sql = "SELECT n.nspname, r.relname, \
                   'ALTER TABLE ' || k.conrelid::pg_catalog.regclass || ' DROP CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' CASCADE', \
                   a.attname FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class r ON r.oid = k.conrelid \
                   JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace \
                   CROSS JOIN LATERAL unnest(k.conkey) WITH ORDINALITY c (att, place) \
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.att \
                   WHERE k.contype = 'p' AND k.conparentid = 0 ORDER BY k.oid, c.place";
        let mut found: Vec<(TableName, String, Vec<String>)> = Vec::new();
        for row in self.list(sql).await? {
            let Ok([schema, name, drop, column]) = <[String; 4]>::try_from(row) else { continue };
            match found.last_mut().filter(|(_, last, _)| *last == drop) {
                Some((.., columns)) => columns.push(column),
                None => found.push((TableName { schema, name }, drop, vec![column])),
            }
        }
        found.retain(|(table, _, columns)| schema.table(table).is_some_and(|spec| !is_key(spec, columns)));
        Ok(found.into_iter().map(|(table, drop, _)| (table, drop)).collect())
    }
}

/// Whether these columns are what a table's rows are found by.
pub fn is_key(table: &TableSpec, columns: &[String]) -> bool {
    let TableKey::Columns(key) = &table.key else { return false };
    let key = key.iter().map(|at| table.columns.get(*at as usize).map(|column| &column.name));
    key.eq(columns.iter().map(Some))
}

/// The columns of a primary key, from the statement that makes it.
pub fn primary_key(sql: &str) -> Option<Vec<String>> {
    let (_, list) = sql.split_once(" PRIMARY KEY (")?;
    let (list, _) = list.split_once(')')?;
    Some(list.split(", ").map(|name| name.trim_matches('"').replace("\"\"", "\"")).collect())
}
