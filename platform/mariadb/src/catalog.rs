//! What a database is made of, as its server tells.

mod columns;
pub mod create;
pub mod foreign;
mod objects;
pub mod references;
mod trigger;
mod wide;

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Ddl, Schema, TableKey, TableName, TableSpec};

pub use objects::{Late, parse as parse_late};
pub use references::Reference;

use crate::accounts;
use crate::session::Session;
use crate::settings::Settings;
use crate::shape::{POSITION, Shape};
use crate::sql::{self, quote};

/// Tables and triggers whose names begin so are the adapter's own.
pub const OWN: &str = "__handover_";
const WHAT: &str = "the schema cannot be read";
/// Engines whose tables show rows of other tables, files or servers: copied, they would be there twice, or be written elsewhere.
const WITHOUT_ROWS: [&str; 6] = ["MRG_MyISAM", "FEDERATED", "CONNECT", "SPIDER", "SPHINX", "OQGRAPH"];

/// A table beyond its specification.
#[derive(Debug, Clone)]
pub struct Table {
    /// The index its rows are found by.
    pub index: Option<String>,
    /// Its engine reads and writes in transactions.
    pub transactional: bool,
    /// Its engine and kind are such that the log tells all of its rows' changes, but for what foreign keys do.
    logged: bool,
}

/// A database's schema, and what only this adapter needs to know.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub schema: Schema,
    pub tables: BTreeMap<String, Table>,
    /// Foreign keys that act.
    pub references: Vec<Reference>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

impl Catalog {
    /// The shape of one of its tables.
    pub fn shape(&self, name: &TableName) -> Result<Shape> {
        let spec = self.schema.table(name).filter(|_| name.schema.is_empty()).ok_or_else(|| {
            Failure::permanent(format!("table {name}"), "is not in the schema").hint("start a new pass")
        })?;
        Ok(Shape::new(spec, self.tables.get(&name.name).and_then(|t| t.index.as_deref())))
    }
}

/// One row of `information_schema.tables`.
struct Listed {
    name: String,
    engine: String,
    rows: u64,
    bytes: u64,
    transactional: bool,
    is_sequence: bool,
    versioned: bool,
}

async fn list(session: &mut Session, database: &str) -> Result<Vec<Listed>> {
    let query = format!(
        "SELECT t.table_name, t.engine, t.table_rows, t.data_length, t.index_length, t.table_type, e.transactions \
         FROM information_schema.tables t LEFT JOIN information_schema.engines e ON e.engine = t.engine \
         WHERE t.table_schema = {} AND t.table_type IN ('BASE TABLE', 'SEQUENCE', 'SYSTEM VERSIONED') ORDER BY t.table_name",
        sql::text(database)
    );
    let rows = session.records(WHAT, &query).await?;
    Ok(rows
        .into_iter()
        .map(|row| Listed {
            name: row.text(0),
            engine: row.text(1),
            rows: row.number(2),
            bytes: row.number(3) + row.number(4),
            is_sequence: row.text(5) == "SEQUENCE",
            versioned: row.text(5) == "SYSTEM VERSIONED",
            transactional: row.text(6) == "YES",
        })
        .filter(|table| !table.name.starts_with(OWN))
        .collect())
}

/// What a table's SHOW CREATE says, without the column of positions that a load adds.
fn without_positions(statement: &str) -> String {
    let line = |line: &&str| !line.contains(&format!("`{POSITION}`"));
    let lines: Vec<&str> = statement.lines().filter(line).collect();
    let text = lines.join("\n");
    // The last line before the closing parenthesis has no comma.
    text.replace(",\n) ", "\n) ")
}

/// Reads a database's schema. The session must be in it.
pub async fn read(session: &mut Session, database: &str, exclude: &[String]) -> Result<Catalog> {
    let head = session
        .record(
            WHAT,
            &format!(
                "SELECT VERSION(), default_character_set_name, default_collation_name FROM information_schema.schemata \
                 WHERE schema_name = {}",
                sql::text(database)
            ),
        )
        .await
        .map_err(|failure| match failure.causes.is_empty() {
            true => Failure::operator(failure.item, "there is no such database, or the account may not see it")
                .hint(format!("make it, correct `url`, or: GRANT SELECT ON {}.* TO the account", quote(database))),
            false => failure,
        })?;
    let settings =
        BTreeMap::from([("character_set".to_owned(), head.text(1)), ("collation".to_owned(), head.text(2))]);
    let listed = list(session, database).await?;
    if let Some(missing) = exclude.iter().find(|name| !listed.iter().any(|table| table.name == **name)) {
        return Err(Failure::operator(
            session.item().to_owned(),
            format!("`exclude` names the table {missing}, which is not there"),
        )
        .hint("correct appliance.toml"));
    }
    let excluded: BTreeSet<&String> = exclude.iter().collect();
    let mut reading = Reading {
        catalog: Catalog {
            schema: Schema {
                engine: "mariadb".to_owned(),
                version: head.text(0),
                settings,
                before_load: Vec::new(),
                after_load: Vec::new(),
                state: BTreeMap::new(),
                tables: Vec::new(),
            },
            tables: BTreeMap::new(),
            references: references::read(session, database).await?,
            notes: Vec::new(),
        },
        columns: columns::read(session, database).await?,
        foreign_keys: Vec::new(),
    };
    let (sequences, tables): (Vec<_>, Vec<_>) =
        listed.into_iter().filter(|t| !excluded.contains(&t.name)).partition(|t| t.is_sequence);
    for sequence in sequences {
        reading.sequence(session, &sequence.name).await?;
    }
    for table in tables {
        reading.table(session, database, table).await?;
    }
    let Reading { mut catalog, foreign_keys, .. } = reading;
    catalog.schema.after_load.extend(foreign_keys);
    references_to_excluded(&mut catalog, exclude);
    follow(session, database, &mut catalog).await?;
    objects::read(session, database, exclude, &mut catalog).await?;
    Ok(catalog)
}

/// Why the server's log cannot be followed, and the statement that makes it right where one does.
pub async fn unfollowable(session: &mut Session) -> Result<Option<(String, &'static str)>> {
    let row =
        session.record(WHAT, "SELECT @@log_bin, @@global.binlog_format, @@global.binlog_row_image").await?;
    Ok(if row.text(0) != "1" {
        Some(("the binary log is off".to_owned(), "set log_bin in the server's configuration and restart it"))
    } else if row.text(1) != "ROW" {
        Some((format!("binlog_format is {}", row.text(1)), "SET GLOBAL binlog_format = 'ROW'"))
    } else if row.text(2) != "FULL" {
        Some((format!("binlog_row_image is {}", row.text(2)), "SET GLOBAL binlog_row_image = 'FULL'"))
    } else {
        None
    })
}

/// Marks the tables whose changes the server's log tells by key.
async fn follow(session: &mut Session, database: &str, catalog: &mut Catalog) -> Result<()> {
    if unfollowable(session).await?.is_some() {
        return Ok(());
    }
    let unseen = references::unseen(database, &catalog.references, &catalog.schema.tables);
    for table in &mut catalog.schema.tables {
        let is_logged = catalog.tables.get(&table.name.name).is_some_and(|table| table.logged);
        let is_keyed = matches!(table.key, TableKey::Columns(_));
        table.followed = is_logged && is_keyed && !unseen.contains(&table.name.name);
    }
    Ok(())
}

/// Appends the accounts that the settings name.
pub async fn accounts(session: &mut Session, settings: &Settings, catalog: &mut Catalog) -> Result<()> {
    for account in &settings.accounts {
        let told = accounts::read(session, account, &settings.database).await?.ok_or_else(|| {
            Failure::operator(
                session.item().to_owned(),
                format!("`accounts` names {account}, which is not there"),
            )
            .hint(
                "correct the URL's option `accounts` (SELECT user, host FROM mysql.user shows what there is)",
            )
        })?;
        catalog.schema.after_load.extend(accounts::ddl(account, told.statements));
        catalog.notes.extend(told.notes);
    }
    Ok(())
}

/// Tells of foreign keys to tables that are left out: they are made, and no row with such a reference can be added.
fn references_to_excluded(catalog: &mut Catalog, exclude: &[String]) {
    for ddl in catalog.schema.after_load.iter().filter(|ddl| ddl.kind == "foreign key") {
        if let Some(table) =
            exclude.iter().find(|table| ddl.sql.contains(&format!(" REFERENCES {} (", quote(table))))
        {
            catalog.notes.push(format!(
                "foreign key {} references the excluded table {table}: new references need that table at the target",
                ddl.name
            ));
        }
    }
}

struct Reading {
    catalog: Catalog,
    columns: columns::Columns,
    foreign_keys: Vec<Ddl>,
}

impl Reading {
    async fn sequence(&mut self, session: &mut Session, name: &str) -> Result<()> {
        let quoted = quote(name);
        let sql = session.record(WHAT, &format!("SHOW CREATE SEQUENCE {quoted}")).await?.text(1);
        let query = format!("SELECT next_not_cached_value, cycle_count FROM {quoted}");
        let position = session.record(WHAT, &query).await?.text(0);
        let schema = &mut self.catalog.schema;
        schema.before_load.push(Ddl { kind: "sequence".to_owned(), name: name.to_owned(), sql });
        schema.state.insert(format!("sequence/{name}"), position);
        Ok(())
    }

    async fn table(&mut self, session: &mut Session, database: &str, table: Listed) -> Result<()> {
        if WITHOUT_ROWS.iter().any(|engine| table.engine.eq_ignore_ascii_case(engine)) {
            let item = format!("{}, table {}", session.item(), table.name);
            let what = format!("its storage engine, {}, shows rows that are kept elsewhere", table.engine);
            return Err(
                Failure::operator(item, what).hint("name it in `exclude`, and make it at the target by hand")
            );
        }
        let statement =
            session.record(WHAT, &format!("SHOW CREATE TABLE {}", quote(&table.name))).await?.text(1);
        let statement =
            without_positions(&statement).replace(&format!("nextval({}.", quote(database)), "nextval(");
        let statement = wide::restore(session, &table.name, statement).await?;
        let (mut columns, key, index) = self.columns.of(&table.name);
        for column in columns.iter_mut().filter(|column| column.declared.contains('?')) {
            if let Some(real) = wide::member_type(&statement, &column.name) {
                column.declared = with_type(&column.declared, &real);
            }
        }
        let unusable = || {
            Failure::operator(
                format!("{}, table {}", session.item(), table.name),
                "its definition is not understood",
            )
            .hint("name it in `exclude`, and report this")
        };
        let parts = create::parts(&statement, index.as_deref()).ok_or_else(unusable)?;
        let Catalog { schema, tables, notes, .. } = &mut self.catalog;
        let alter = format!("ALTER TABLE {} ", quote(&table.name));
        let ddl = |kind: &str, (name, what): (String, String)| Ddl {
            kind: kind.to_owned(),
            name: format!("{}.{name}", table.name),
            sql: format!("{alter}{what}"),
        };
        schema.before_load.push(Ddl {
            kind: "table".to_owned(),
            name: table.name.clone(),
            sql: parts.before,
        });
        schema.after_load.extend(parts.indexes.into_iter().map(|index| ddl("index", index)));
        self.foreign_keys.extend(parts.foreign_keys.into_iter().map(|key| ddl("foreign key", key)));
        if let Some(next) = parts.auto_increment {
            schema.state.insert(format!("auto_increment/{}", table.name), next);
        }
        if !table.transactional {
            notes.push(format!(
                "table {} ({}) has no transactions: writers of it wait while it is read, and it is read at a moment of its own",
                table.name, table.engine
            ));
        }
        if table.versioned {
            notes.push(format!(
                "table {} is system-versioned: its current rows move, its history does not",
                table.name
            ));
        }
        if key == TableKey::Position {
            notes.push(format!(
                "table {} has no primary key or unique key without NULLs: it is read in one sweep",
                table.name
            ));
        }
        schema.tables.push(TableSpec {
            name: TableName::plain(&table.name),
            columns,
            key,
            estimated_rows: table.rows,
            estimated_bytes: table.bytes,
            cuts: Vec::new(),
            followed: false,
        });
        let logged = table.engine.eq_ignore_ascii_case("InnoDB") && !table.versioned;
        tables.insert(table.name, Table { index, transactional: table.transactional, logged });
        Ok(())
    }
}

/// A declared type with another column type; the character set stays.
fn with_type(declared: &str, column_type: &str) -> String {
    match declared.rfind(" CHARACTER SET ") {
        Some(at) => format!("{column_type}{}", &declared[at..]),
        None => column_type.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_keeps_its_character_set() {
        let declared = "enum('a','?') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
        assert_eq!(with_type(declared, "enum('😀')"), "enum('😀') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        assert_eq!(with_type("set('?')", "set('x')"), "set('x')");
    }
}
