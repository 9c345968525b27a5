//! Making the schema's objects: each once, in its own transaction, remembered in the database itself.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Ddl, Schema, TableKey, TableSpec};
use tokio_postgres::error::SqlState;

use super::clear::{is_key, primary_key};
use super::load::places;
use super::second::unvalidated;
use crate::catalog::LARGE_OBJECTS;
use crate::connect::Conn;
use crate::dump::OWN_SCHEMA;
use crate::error::failed;
use crate::shape::Shape;
use crate::sql::{literal, quote, statements};
use crate::trust::{is_type, refused};

/// Indexes that are built at a time.
const BUILDERS: usize = 2;
/// How often a statement that met a deadlock is tried.
const TRIES: u32 = 4;
/// Tables of our own: what has been made, and the schema.
const OWN_TABLES: &str = "CREATE SCHEMA IF NOT EXISTS handover_state; \
    CREATE TABLE IF NOT EXISTS handover_state.made (digest text PRIMARY KEY, kind text NOT NULL); \
    CREATE TABLE IF NOT EXISTS handover_state.followed (one boolean PRIMARY KEY DEFAULT true); \
    DELETE FROM handover_state.followed; \
    CREATE TABLE IF NOT EXISTS handover_state.schema (one boolean PRIMARY KEY DEFAULT true, json text NOT NULL)";

/// Who builds: names for messages, and more connections to the same database.
pub struct Builder<'a> {
    /// What failures name.
    pub item: String,
    /// The session that does what must be done in order.
    pub conn: &'a Conn,
    /// Opens another session.
    pub open: &'a (dyn Fn() -> futures::future::BoxFuture<'a, Result<Conn>> + Send + Sync),
}

pub(super) fn digest(ddl: &Ddl) -> String {
    Digest::of(format!("{}\0{}\0{}", ddl.kind, ddl.name, ddl.sql).as_bytes()).to_string()
}

/// A failure unless every statement of the schema is one that a schema may hold, and its tables are such as users have.
pub fn guard(item: &str, schema: &Schema) -> Result<()> {
    for table in &schema.tables {
        let own = ["information_schema", OWN_SCHEMA].contains(&table.name.schema.as_str());
        let is_system = table.name.schema.starts_with("pg_") || own;
        let is_large_objects = LARGE_OBJECTS.iter().any(|(name, ..)| *name == table.name.name);
        let bad_type = table.columns.iter().find(|column| !is_type(&column.declared));
        if is_system && !(table.name.schema == "pg_catalog" && is_large_objects) || bad_type.is_some() {
            let item = format!("{item}, table {}", table.name);
            return Err(Failure::operator(item, "the source sends a table that no user can have")
                .hint("make sure that the source is what it should be"));
        }
    }
    for ddl in schema.before_load.iter().chain(&schema.after_load) {
        if let Some(why) = statements(&ddl.sql).into_iter().find_map(refused) {
            return Err(Failure::operator(
                format!("{item}, {} {}", ddl.kind, ddl.name),
                "it is not made here",
            )
            .because(Why(why))
            .hint("drop it at the source, or make it at the target by hand"));
        }
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Why(String);

impl Builder<'_> {
    fn failed<'a>(&'a self, what: &'a str) -> impl Fn(tokio_postgres::Error) -> Failure + 'a {
        move |error| failed(&self.item, what, &error)
    }

    pub(super) async fn run(&self, sql: &str, what: &str) -> Result<()> {
        self.conn.batch_execute(sql).await.map_err(self.failed(what))
    }

    pub(super) async fn list(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let rows = self.conn.rows(sql).await.map_err(self.failed("its catalog cannot be read"))?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    async fn made(&self) -> Result<BTreeSet<String>> {
        let rows = self.list("SELECT digest FROM handover_state.made").await?;
        Ok(rows.into_iter().flatten().collect())
    }

    pub(super) async fn pending<'d>(&self, all: &'d [Ddl]) -> Result<Vec<&'d Ddl>> {
        let made = self.made().await?;
        Ok(all.iter().filter(|ddl| !made.contains(&digest(ddl))).collect())
    }

    async fn make(&self, conn: &Conn, ddl: &Ddl) -> Result<()> {
        self.make_as(conn, ddl, &ddl.sql).await
    }

    /// Makes an object by another statement than its own.
    async fn make_as(&self, conn: &Conn, ddl: &Ddl, sql: &str) -> Result<()> {
        make(conn, ddl, sql).await.map_err(|error| {
            failed(format!("{}, {} {}", self.item, ddl.kind, ddl.name), "it cannot be made", &error)
                .hint(hint(ddl, &error))
        })
    }

    /// The first half, and our own tables.
    pub async fn first_half(&self, schema: &Schema) -> Result<()> {
        self.run(OWN_TABLES, "our own tables cannot be made").await?;
        if schema.settings.contains_key("public") {
            self.run("DROP SCHEMA IF EXISTS public", "the schema public cannot be dropped").await?;
        }
        self.clear_the_way(schema).await?;
        for ddl in self.pending(&schema.before_load).await? {
            self.make(self.conn, ddl).await?;
        }
        self.set_logged(schema, true).await?;
        for table in schema.tables.iter().filter(|table| matches!(table.key, TableKey::Hidden(_))) {
            let places = places(&table.name);
            let sql = format!("CREATE TABLE IF NOT EXISTS {places} (place tid NOT NULL, at tid NOT NULL)");
            self.run(&sql, "our own tables cannot be made").await?;
        }
        let json = serde_json::to_string(schema)
            .map_err(|e| Failure::permanent(&self.item, "the schema cannot be kept").because(e))?;
        let sql = format!(
            "INSERT INTO handover_state.schema (json) VALUES ({}) ON CONFLICT (one) DO UPDATE SET json = excluded.json",
            literal(&json)
        );
        self.run(&sql, "the schema cannot be kept").await
    }

    /// Unlogged tables are logged while they are loaded: otherwise a crash of the server would empty them, and what was applied
    /// would be gone. Not those without a key, since the change moves their rows.
    async fn set_logged(&self, schema: &Schema, logged: bool) -> Result<()> {
        let (now, word) = if logged { ('u', "LOGGED") } else { ('p', "UNLOGGED") };
        let unlogged = |table: &&TableSpec| {
            let name = table.name.to_string();
            let mut ddls = schema.before_load.iter().filter(|ddl| ddl.kind == "table" && ddl.name == name);
            ddls.any(|ddl| statements(&ddl.sql).iter().any(|sql| sql.starts_with("CREATE UNLOGGED TABLE ")))
        };
        let keyed = schema.tables.iter().filter(|table| matches!(table.key, TableKey::Columns(_)));
        for table in keyed.filter(unlogged) {
            let name = format!("{}.{}", quote(&table.name.schema), quote(&table.name.name));
            let is_so = format!(
                "SELECT 1 FROM pg_catalog.pg_class WHERE oid = {}::pg_catalog.regclass AND relpersistence = '{now}'",
                literal(&name)
            );
            if !self.list(&is_so).await?.is_empty() {
                let what = format!("table {}: it cannot be made {}", table.name, word.to_lowercase());
                self.run(&format!("ALTER TABLE {name} SET {word}"), &what).await?;
            }
        }
        Ok(())
    }

    /// Tables that have rows get the index of their key now: their ranges are going to be looked at. Returns the tables
    /// that are empty.
    pub async fn index_filled(&self, schema: &Schema) -> Result<Vec<usize>> {
        let mut empty = Vec::new();
        for (at, table) in schema.tables.iter().enumerate() {
            let shape =
                Shape::of(schema, &table.name).map_err(|e| Failure::permanent(&self.item, e.to_string()))?;
            let filled = self.list(&format!("SELECT 1 FROM ONLY {} LIMIT 1", shape.table)).await?;
            if filled.is_empty() {
                if shape.hidden {
                    // A crash of the server may have emptied it, and what we noted of its rows with that.
                    let sql = format!("TRUNCATE {}", places(&table.name));
                    self.run(&sql, "our own tables cannot be emptied").await?;
                }
                empty.push(at);
                continue;
            }
            if shape.hidden {
                self.index_places(schema).await?;
                continue;
            }
            if table.name.schema == "pg_catalog" {
                continue;
            }
            let own = |ddl: &&Ddl| {
                ddl.kind == "constraint"
                    && ddl.name.starts_with(&format!("{} ", table.name))
                    && primary_key(&ddl.sql).is_some_and(|columns| is_key(table, &columns))
            };
            match schema.after_load.iter().find(own) {
                Some(key) if !self.pending(std::slice::from_ref(key)).await?.is_empty() => {
                    self.make(self.conn, key).await?;
                }
                Some(_) => {}
                None => {
                    let id = Digest::of(table.name.to_string().as_bytes()).short();
                    let sql = format!(
                        "CREATE INDEX IF NOT EXISTS handover_key_{id} ON {} ({})",
                        shape.table,
                        shape.order()
                    );
                    self.run(&sql, "an index for the load cannot be made").await?;
                }
            }
        }
        Ok(empty)
    }

    pub(super) async fn index_places(&self, schema: &Schema) -> Result<()> {
        for table in schema.tables.iter().filter(|table| matches!(table.key, TableKey::Hidden(_))) {
            let places = places(&table.name);
            let index = places.rsplit_once('.').map_or(places.as_str(), |(_, name)| name);
            let sql = format!("CREATE UNIQUE INDEX IF NOT EXISTS {index}_place ON {places} (place)");
            self.run(&sql, "our own tables cannot be indexed").await?;
        }
        Ok(())
    }

    /// The second half: indexes side by side, then everything else in its order.
    pub async fn second_half(&self, schema: &Schema) -> Result<()> {
        self.index_places(schema).await?;
        self.drop_helpers(schema).await?;
        self.set_logged(schema, false).await?;
        let pending = self.pending(&schema.after_load).await?;
        let is_index = |ddl: &&Ddl| matches!(ddl.kind.as_str(), "index" | "constraint");
        let (indexes, others): (Vec<&Ddl>, Vec<&Ddl>) = pending.into_iter().partition(is_index);
        self.side_by_side(schema, indexes, false).await?;
        let is_reference = |ddl: &&Ddl| ddl.kind == "fk constraint";
        let late = |ddl: &&Ddl| matches!(ddl.kind.as_str(), "event trigger" | "comment" | "security label");
        let (references, others): (Vec<&Ddl>, Vec<&Ddl>) = others.into_iter().partition(is_reference);
        let (late, others): (Vec<&Ddl>, Vec<&Ddl>) = others.into_iter().partition(late);
        for ddl in others {
            self.make(self.conn, ddl).await?;
        }
        let followed = self.is_followed().await?;
        self.side_by_side(schema, references, followed).await?;
        for ddl in late {
            self.make(self.conn, ddl).await?;
        }
        Ok(())
    }

    /// Makes those objects of the second half that are of these kinds, in their order.
    pub async fn those_of(&self, schema: &Schema, kinds: &[&str]) -> Result<()> {
        let pending = self.pending(&schema.after_load).await?;
        for ddl in pending.into_iter().filter(|ddl| kinds.contains(&ddl.kind.as_str())) {
            self.make(self.conn, ddl).await?;
        }
        Ok(())
    }

    async fn drop_helpers(&self, schema: &Schema) -> Result<()> {
        for table in &schema.tables {
            let id = Digest::of(table.name.to_string().as_bytes()).short();
            if matches!(table.key, TableKey::Columns(_)) && table.name.schema != "pg_catalog" {
                let sql = format!("DROP INDEX IF EXISTS {}.handover_key_{id}", quote(&table.name.schema));
                self.run(&sql, "an index for the load cannot be dropped").await?;
            }
        }
        Ok(())
    }

    /// Makes objects that do not need each other in several sessions; those of the largest tables first. Foreign keys may be left
    /// without validation.
    pub(super) async fn side_by_side(
        &self,
        schema: &Schema,
        mut ddls: Vec<&Ddl>,
        unvalidated_keys: bool,
    ) -> Result<()> {
        let size = |ddl: &Ddl| {
            let of = |name: &str| ddl.name.starts_with(name) || ddl.sql.contains(name);
            schema.tables.iter().filter(|t| of(&t.name.to_string())).map(|t| t.estimated_bytes).max()
        };
        ddls.sort_by_key(|ddl| std::cmp::Reverse(size(ddl)));
        let builders = BUILDERS.min(ddls.len());
        let queue = Arc::new(Mutex::new(ddls.into_iter().collect::<VecDeque<_>>()));
        let work = (0..builders).map(|_| async {
            let conn = (self.open)().await?;
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(ddl) = next else { return Ok::<(), Failure>(()) };
                let quick = unvalidated(&ddl.sql).filter(|_| unvalidated_keys);
                self.make_as(&conn, ddl, quick.as_deref().unwrap_or(&ddl.sql)).await?;
            }
        });
        futures::future::try_join_all(work).await.map(drop)
    }
}

/// Makes one object and remembers it, in one transaction. One that lost a deadlock is tried again.
async fn make(conn: &Conn, ddl: &Ddl, sql: &str) -> std::result::Result<(), tokio_postgres::Error> {
    let note = format!(
        "INSERT INTO handover_state.made VALUES ({}, {}) ON CONFLICT DO NOTHING",
        literal(&digest(ddl)),
        literal(&ddl.kind)
    );
    let mut tries = 0;
    loop {
        tries += 1;
        // Statement by statement, so that none can end the transaction around them; prepared, since the server then refuses
        // text that is more than one statement after all.
        let mut done = conn.batch_execute("BEGIN").await;
        for statement in statements(sql) {
            if done.is_ok() {
                done = conn.execute(statement, &[]).await.map(drop);
            }
        }
        if done.is_ok() {
            done = conn.batch_execute(&format!("{note}; COMMIT")).await;
        }
        let Err(error) = done else { return Ok(()) };
        let _ = conn.batch_execute("ROLLBACK").await;
        let again = error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) && tries < TRIES;
        if !again {
            return Err(error);
        }
    }
}

/// What helps when an object cannot be made.
fn hint(ddl: &Ddl, error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else { return "it is tried again".to_owned() };
    let code = db.code();
    if ddl.kind == "extension" {
        format!(
            "install the package with the extension {} at the target; where it is there, only a superuser may make it, unless its control file says `trusted = true`",
            ddl.name
        )
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        "grant it to the role of `url`: the preflight shows the statements".to_owned()
    } else if *code == SqlState::UNDEFINED_OBJECT && db.message().contains("collation") {
        "install the locale at the target (dpkg-reconfigure locales), run pg_import_system_collations, then resume".to_owned()
    } else if *code == SqlState::DISK_FULL {
        "free space on the file system of the server's data directory, then resume".to_owned()
    } else {
        "compare the two servers' versions and extensions, then resume".to_owned()
    }
}
