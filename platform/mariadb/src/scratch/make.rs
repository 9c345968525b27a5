//! Making a scratch database, and finding out whether one that is there is ours.

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::scratch::{ForeignKey, Made, OnServer, Wanted, WantedTable, made_for, only_in};
use handover_engine::rows::{Schema, TableName, TableSpec};

use crate::catalog;
use crate::session::Session;
use crate::settings::Settings;
use crate::shape::POSITION;
use crate::sql::{self, qualified, quote};
use crate::target::build;
use crate::target::place::{self, Names};

/// The table that says what the database was made for.
const MARK: &str = "__handover_rehearsal";
const WHAT: &str = "its scratch database cannot be made";

/// The columns of a unique key, and how much of each counts.
type Unique = Vec<(String, Option<u64>)>;

/// What is known of a scratch database that was made.
#[derive(Debug, Default)]
pub struct Known {
    /// Declared types, by table and column in lower case.
    declared: BTreeMap<(String, String), String>,
    /// By table and name.
    unique: BTreeMap<(String, String), Unique>,
    /// Tables whose engine cannot take back.
    untransactional: BTreeSet<String>,
}

impl Known {
    /// A column's type, as it is declared in the scratch database.
    pub fn declared(&self, table: &TableName, column: &str) -> &str {
        let name = (table.name.clone(), column.to_ascii_lowercase());
        self.declared.get(&name).map_or("", String::as_str)
    }

    /// The columns of a unique key.
    pub fn unique(&self, table: &TableName, key: &str) -> Option<&Unique> {
        self.unique.get(&(table.name.clone(), key.to_ascii_lowercase()))
    }

    /// Whether the table's rows can be taken back.
    pub fn is_transactional(&self, table: &TableName) -> bool {
        !self.untransactional.contains(&table.name)
    }
}

/// The name of the scratch database beside another.
pub fn name(database: &str) -> String {
    Names::new(database, &MigrationId::nobody()).rehearsal()
}

/// What a scratch database is like that is there.
enum There {
    Nothing,
    /// It was made for this, under this token; for nothing while it is being made.
    Ours(String, String),
}

/// As the port's `make`.
pub async fn make(
    session: &mut Session,
    settings: &Settings,
    database: &str,
    source: &Schema,
    fresh: &str,
) -> Result<(Known, Made)> {
    let own = own_schema(session, &settings.database).await?;
    let schema = own.as_ref().unwrap_or(source);
    let made_for = made_for(source, schema);
    let token = match there(session, database).await? {
        There::Ours(of, token) if of == made_for => token,
        _ => {
            drop_ours(session, database).await?;
            build(session, database, schema, fresh).await?;
            if own.is_some() {
                seed(session, settings, database, source, schema).await?;
            }
            let (mark, made_for) = (qualified(database, MARK), sql::text(&made_for));
            session.run(WHAT, &format!("UPDATE {mark} SET made_for = {made_for}")).await?;
            fresh.to_owned()
        }
    };
    session.enter(database).await?;
    let mut wanted = look(session, database, schema).await?;
    wanted.own = own.is_some();
    wanted.environment = OnServer {
        engine: "mariadb",
        database,
        user: &settings.user,
        socket: settings.socket.as_deref(),
        host: &settings.host,
        port: settings.socket.is_none().then_some(settings.port),
        password_file: settings.password_file.as_deref(),
    }
    .environment();
    Ok((known(session, database, schema).await?, Made { wanted, token }))
}

/// The schema of the target's own database; none where it has no table.
async fn own_schema(session: &mut Session, database: &str) -> Result<Option<Schema>> {
    if !place::exists(session, database).await? || place::tables(session, database).await?.is_empty() {
        return Ok(None);
    }
    session.enter(database).await?;
    Ok(Some(catalog::read(session, database, &[]).await?.schema))
}

async fn there(session: &mut Session, database: &str) -> Result<There> {
    if !place::exists(session, database).await? {
        return Ok(There::Nothing);
    }
    let query = format!("SELECT made_for, token FROM {}", qualified(database, MARK));
    match session.try_records(&query).await {
        Ok(rows) => {
            let row = rows.first();
            let text = |n| row.map(|row| row.text(n)).unwrap_or_default();
            Ok(There::Ours(text(0), text(1)))
        }
        // What is empty may have been made by a run that was cut short; nothing is lost with it.
        Err(error) if crate::error::code(&error) == Some(1146) => {
            if place::tables(session, database).await?.is_empty() {
                return Ok(There::Ours(String::new(), String::new()));
            }
            let what = format!("the database {database} is no scratch database of ours");
            Err(Failure::operator(session.item().to_owned(), what).hint("rename it, then rehearse again"))
        }
        Err(error) => Err(session.failed(None, "its scratch database cannot be looked at", error)),
    }
}

/// Drops it; one that is not ours stays.
pub async fn drop_ours(session: &mut Session, database: &str) -> Result<()> {
    match there(session, database).await {
        Ok(There::Ours(..)) => place::drop_database(session, database).await,
        Ok(There::Nothing) => Ok(()),
        Err(failure) if failure.causes.is_empty() => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Tables with the column of numbers, indexes, foreign keys.
async fn build(session: &mut Session, database: &str, schema: &Schema, token: &str) -> Result<()> {
    session.run(WHAT, &format!("CREATE DATABASE {}", quote(database))).await?;
    let mark = qualified(database, MARK);
    let definition =
        "(made_for VARCHAR(100) NOT NULL, token VARCHAR(100) NOT NULL) CHARACTER SET ascii ENGINE=InnoDB";
    session.run(WHAT, &format!("CREATE TABLE {mark} {definition}")).await?;
    session.run(WHAT, &format!("INSERT INTO {mark} VALUES ('', {})", sql::text(token))).await?;
    place::set_charset(session, database, schema).await?;
    session.enter(database).await?;
    for ddl in &schema.before_load {
        build::create(session, ddl).await?;
    }
    for table in &schema.tables {
        let name = quote(&table.name.name);
        let alter = format!(
            "ALTER TABLE {name} ADD COLUMN {POSITION} BIGINT UNSIGNED NOT NULL DEFAULT 0 INVISIBLE, ADD KEY {POSITION} ({POSITION})"
        );
        session.run_on(&table.name.name, WHAT, &alter).await?;
    }
    for kind in ["index", "foreign key"] {
        let alters = schema.after_load.iter().filter(|ddl| ddl.kind == kind);
        for ddl in alters.filter(|ddl| ddl.sql.starts_with("ALTER TABLE ")) {
            session
                .run_one(&format!("{kind} {} cannot be made in its scratch database", ddl.name), &ddl.sql)
                .await?;
        }
    }
    Ok(())
}

/// Rows of tables that production does not have: the new system has filled them itself.
async fn seed(
    session: &mut Session,
    settings: &Settings,
    database: &str,
    source: &Schema,
    schema: &Schema,
) -> Result<()> {
    for table in only_in(schema, source) {
        let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
        let (into, from) =
            (qualified(database, &table.name.name), qualified(&settings.database, &table.name.name));
        let columns = columns.join(", ");
        let copy = format!("INSERT INTO {into} ({columns}) SELECT {columns} FROM {from}");
        session
            .run_on(&table.name.name, "what the new system has filled itself cannot be copied", &copy)
            .await?;
    }
    Ok(())
}

/// What rows are tried against. The session is in the scratch database.
async fn look(session: &mut Session, database: &str, schema: &Schema) -> Result<Wanted> {
    let query = format!(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = {} \
         AND is_nullable = 'NO' AND column_default IS NULL AND extra NOT LIKE '%auto_increment%'",
        sql::text(database)
    );
    let needed = session.records("its columns cannot be listed", &query).await?;
    let needed: BTreeSet<(String, String)> = needed.iter().map(|row| (row.text(0), row.text(1))).collect();
    let table = |table: &TableSpec| {
        WantedTable::of(table, |spec| needed.contains(&(table.name.name.clone(), spec.name.clone())))
    };
    let tables = schema.tables.iter().map(table).collect();
    Ok(Wanted { tables, foreign_keys: foreign_keys(session, database).await?, ..Wanted::default() })
}

async fn foreign_keys(session: &mut Session, database: &str) -> Result<Vec<ForeignKey>> {
    let query = format!(
        "SELECT constraint_name, table_name, column_name, referenced_table_name, referenced_column_name \
         FROM information_schema.key_column_usage WHERE constraint_schema = {here} AND referenced_table_schema = {here} \
         ORDER BY table_name, constraint_name, ordinal_position",
        here = sql::text(database)
    );
    let mut out: Vec<ForeignKey> = Vec::new();
    for row in session.records("its foreign keys cannot be listed", &query).await? {
        let (name, table) = (row.text(0), TableName::plain(row.text(1)));
        if out.last().is_none_or(|key| (&key.name, &key.table) != (&name, &table)) {
            let parent = TableName::plain(row.text(3));
            let (columns, parent_columns) = (Vec::new(), Vec::new());
            out.push(ForeignKey { name, table, columns, parent, parent_columns });
        }
        if let Some(key) = out.last_mut() {
            key.columns.push(row.text(2));
            key.parent_columns.push(row.text(4));
        }
    }
    Ok(out)
}

async fn known(session: &mut Session, database: &str, schema: &Schema) -> Result<Known> {
    let mut known = Known::default();
    for table in &schema.tables {
        for column in &table.columns {
            let name = (table.name.name.clone(), column.name.to_ascii_lowercase());
            known.declared.insert(name, column.declared.clone());
        }
    }
    let here = sql::text(database);
    let query = format!(
        "SELECT table_name, index_name, column_name, sub_part FROM information_schema.statistics \
         WHERE table_schema = {here} AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index"
    );
    for row in session.records("its indexes cannot be listed", &query).await? {
        let name = (row.text(0), row.text(1).to_ascii_lowercase());
        let prefix = row.maybe(3).and_then(|length| length.parse().ok());
        known.unique.entry(name).or_default().push((row.text(2), prefix));
    }
    let query = format!(
        "SELECT t.table_name FROM information_schema.tables t LEFT JOIN information_schema.engines e ON e.engine = t.engine \
         WHERE t.table_schema = {here} AND NOT e.transactions <=> 'YES'"
    );
    let tables = session.records("its tables cannot be listed", &query).await?;
    known.untransactional = tables.iter().map(|row| row.text(0)).collect();
    Ok(known)
}
