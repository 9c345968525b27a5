//! What a role lacks on either side, with the statement that gives it.

use handover_engine::check::{Finding, Severity};
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;

use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{literal, quote};

/// Which side is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The database is read.
    Source,
    /// The database is built. What it needs beyond privileges is told by comparing its needs with what the server offers.
    Target,
}

/// What stands in the way of a migration of the settings' database; empty when nothing does.
pub async fn privileges(dataset: &DatasetName, settings: &Settings, side: Side) -> Result<Vec<Finding>> {
    let database = match side {
        Side::Source => settings.clone(),
        Side::Target => settings.with_database(&settings.maintenance),
    };
    let conn = Conn::open(dataset, &database).await?;
    let asker = Asker { dataset, settings, conn: &conn };
    let role = asker
        .rows("SELECT rolsuper, rolcreatedb, rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user")
        .await?;
    let has = |at: usize| role.first().and_then(|row| row.get(at)).is_some_and(|value| value == "t");
    let mut found = Vec::new();
    match side {
        _ if has(0) => {}
        Side::Source => asker.source(has(2), &mut found).await?,
        Side::Target => asker.target(has(1), &mut found).await?,
    }
    if side == Side::Target && has(0) {
        let what = "rows are loaded by a superuser: functions of the source's schema run with its rights";
        let hint = format!(
            "use a role that is none (docs/postgres.md), unless the source is as trusted as the target: CREATE ROLE handover LOGIN CREATEDB; now {}",
            settings.user
        );
        found.push(Finding::new(Severity::Info, asker.item(), what, hint));
    }
    Ok(found)
}

struct Asker<'a> {
    dataset: &'a DatasetName,
    settings: &'a Settings,
    conn: &'a Conn,
}

impl Asker<'_> {
    fn item(&self) -> String {
        format!("{}, {}", self.dataset, self.settings.location())
    }

    async fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let rows = self.conn.rows(sql).await;
        let rows = rows.map_err(|e| failed(self.item(), "its privileges cannot be looked at", &e))?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    fn error(&self, what: String, hint: String) -> Finding {
        Finding::new(Severity::Error, self.item(), what, hint)
    }

    async fn source(&self, bypasses: bool, found: &mut Vec<Finding>) -> Result<()> {
        let user = quote(&self.settings.user);
        let no_usage = self
            .rows(
                "SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' \
                 AND n.nspname <> 'information_schema' AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')",
            )
            .await?;
        for schema in no_usage.iter().flatten() {
            let hint = format!("GRANT USAGE ON SCHEMA {} TO {user}", quote(schema));
            found.push(self.error(format!("the schema {schema} cannot be read"), hint));
        }
        let no_select = self
            .rows(
                "SELECT n.nspname, c.relname, c.relkind FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
                 AND NOT CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT') \
                 ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END ORDER BY 1, 2",
            )
            .await?;
        for row in &no_select {
            let kind = if row[2] == "S" { "SEQUENCE" } else { "TABLE" };
            let hint = format!("GRANT SELECT ON {kind} {}.{} TO {user}", quote(&row[0]), quote(&row[1]));
            found.push(self.error(format!("{}.{} cannot be read", row[0], row[1]), hint));
        }
        if !self.rows("SELECT 1 FROM pg_catalog.pg_largeobject_metadata LIMIT 1").await?.is_empty() {
            let what = "large objects cannot be read: only a superuser may";
            found.push(self.error(what.to_owned(), format!("ALTER ROLE {user} SUPERUSER")));
        }
        let secured = self
            .rows(
                "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(c.relowner, 'USAGE'))",
            )
            .await?;
        if !bypasses && !secured.is_empty() {
            let names: Vec<&str> = secured.iter().flatten().map(String::as_str).collect();
            let what = format!("row security hides rows of {}", names.join(", "));
            found.push(self.error(what, format!("ALTER ROLE {user} BYPASSRLS")));
        }
        Ok(())
    }

    async fn target(&self, creates: bool, found: &mut Vec<Finding>) -> Result<()> {
        let user = quote(&self.settings.user);
        if !creates {
            found.push(
                self.error("it may not make databases".to_owned(), format!("ALTER ROLE {user} CREATEDB")),
            );
        }
        let database = &self.settings.database;
        let sql = format!(
            "SELECT pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_has_role(d.datdba, 'USAGE'), \
             pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') FROM pg_catalog.pg_database d WHERE d.datname = {}",
            literal(database)
        );
        for row in self.rows(&sql).await? {
            if row[1] != "t" {
                let what =
                    format!("{database} stands there and belongs to {}: it cannot be put aside", row[0]);
                found.push(self.error(what, format!("GRANT {} TO {user}", quote(&row[0]))));
            }
            if row[2] != "t" {
                let hint =
                    format!("GRANT pg_signal_backend TO {user}, or stop its services before the change-over");
                let what = format!("sessions of others on {database} cannot be ended");
                found.push(Finding::new(Severity::Warning, self.item(), what, hint));
            }
        }
        Ok(())
    }
}
