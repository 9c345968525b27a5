//! The databases around a final place, and what undo needs to know. Kept in the server itself.

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::rows::Schema;
use serde::{Deserialize, Serialize};

use crate::session::Session;
use crate::sql::{self, OURS, qualified, quote};

/// Version of the state.
const FORMAT: u32 = 1;
/// The table of states, in the database that is being built.
const STATES: &str = "__handover_state";
/// Bytes of the state in one row: as a literal of hexadecimal digits they fit into the smallest usual `max_allowed_packet`.
const PIECE: usize = 256 << 10;
/// The rows of the state in their order. Older releases kept it in a single one, without a number.
const ITS_ROWS: &str = "(k = 'state' OR k LIKE 'state/%')";
/// How the name of what an abort has kept ends.
const ABORTED: &str = "_kept";
/// Longest name of a database.
const LONGEST: usize = 64;

/// Names of the databases around a final place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The final place.
    pub last: String,
    /// What is being built, and the state.
    pub build: String,
    /// What stood at the final place before this migration.
    pub kept: String,
    /// What is about to be dropped.
    pub gone: String,
    /// What was published, once an abort has kept it.
    pub aborted: String,
    /// What the names of all of them begin with.
    pub prefix: String,
}

impl Names {
    pub fn new(database: &str, migration: &MigrationId) -> Self {
        let id = short(migration.as_str());
        // Room for `__handover_`, the id, `_undo`.
        let room = LONGEST - 11 - 8 - 5;
        let base = if database.chars().count() <= room {
            database.to_owned()
        } else {
            let head: String = database.chars().take(room - 9).collect();
            format!("{head}_{}", short(database))
        };
        let prefix = format!("{base}__handover_");
        let build = format!("{prefix}{id}");
        Self {
            last: database.to_owned(),
            kept: format!("{build}_undo"),
            gone: format!("{build}_gone"),
            aborted: format!("{build}{ABORTED}"),
            build,
            prefix,
        }
    }
}

impl Names {
    /// The scratch database of rehearsals, which belongs to no migration.
    pub fn rehearsal(&self) -> String {
        format!("{}rehearsal", self.prefix)
    }

    /// The name is that of what some aborted migration has kept.
    fn is_aborted(&self, name: &str) -> bool {
        let id = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_suffix(ABORTED));
        id.is_some_and(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

fn short(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string().chars().take(8).collect()
}

/// What stood at the final place before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The database was there, be it empty.
    pub existed: bool,
    /// Its tables and sequences.
    pub tables: Vec<String>,
    /// The rest of it, to be made again.
    pub schema: Option<Schema>,
}

/// How far a migration has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: u32,
    migration: String,
    /// Something is being built.
    pub building: bool,
    /// The final place is about to change.
    pub publishing: bool,
    /// What stands at the final place is ours.
    pub published: bool,
    /// The next build starts from what was published.
    pub continues: bool,
    /// What stood at the final place before, once it is about to change.
    pub before: Option<Before>,
    /// What stands at the final place while it is about to change.
    pub replaced: Vec<String>,
    /// The source's schema, once the load is finished.
    pub schema: Option<Schema>,
    /// Accounts that this migration makes: undo drops them.
    #[serde(default)]
    pub accounts: Vec<String>,
}

impl State {
    pub fn new(migration: &MigrationId) -> Self {
        Self {
            format: FORMAT,
            migration: migration.to_string(),
            building: true,
            publishing: false,
            published: false,
            continues: false,
            before: None,
            replaced: Vec::new(),
            schema: None,
            accounts: Vec::new(),
        }
    }
}

const WHAT: &str = "the migration's state cannot be read";

/// The state, if this migration has one here.
pub async fn state(session: &mut Session, names: &Names) -> Result<Option<State>> {
    let query = format!("SELECT v FROM {} WHERE {ITS_ROWS} ORDER BY k", qualified(&names.build, STATES));
    // No such database, no such table; an account that may see neither is told so when it makes them.
    let rows = match session.try_records(&query).await {
        Ok(rows) => rows,
        Err(error) if matches!(crate::error::code(&error), Some(1049 | 1146)) => Vec::new(),
        Err(error) => return Err(session.failed(None, WHAT, error)),
    };
    if rows.is_empty() {
        return Ok(None);
    }
    let text: Vec<u8> = rows.iter().flat_map(|row| row.bytes(0).unwrap_or_default()).copied().collect();
    let state: State = serde_json::from_slice(&text).map_err(|error| {
        Failure::permanent(format!("{}, {}", session.item(), names.build), "the migration's state is damaged")
            .because(error)
            .hint("docs/mariadb.md tells how to go on without it")
    })?;
    Ok(Some(state))
}

/// Writes the state; durable when it returns.
pub async fn write(session: &mut Session, names: &Names, state: &State) -> Result<()> {
    let text = serde_json::to_vec(state).map_err(|e| {
        Failure::permanent(session.item().to_owned(), "the state cannot be written").because(e)
    })?;
    let table = qualified(&names.build, STATES);
    // A schema of thousands of tables may be larger than a statement, or than any value the server makes: it goes in pieces.
    session.run(WHAT, "START TRANSACTION").await?;
    session.run(WHAT, &format!("DELETE FROM {table} WHERE {ITS_ROWS}")).await?;
    for (n, piece) in text.chunks(PIECE).enumerate() {
        let insert = format!("INSERT INTO {table} VALUES ('state/{n:08}', {})", sql::hex(piece));
        session.run(WHAT, &insert).await?;
    }
    session.run(WHAT, "COMMIT").await
}

/// A mark that something is done.
pub async fn is_marked(session: &mut Session, names: &Names, mark: &str) -> Result<bool> {
    let query = format!("SELECT 1 FROM {} WHERE k = {}", qualified(&names.build, STATES), sql::text(mark));
    Ok(!session.records(WHAT, &query).await?.is_empty())
}

/// The statement that sets a mark.
pub fn mark(names: &Names, mark: &str) -> String {
    format!("REPLACE INTO {} VALUES ({}, '')", qualified(&names.build, STATES), sql::text(mark))
}

/// Takes all marks away.
pub async fn unmark(session: &mut Session, names: &Names) -> Result<()> {
    let table = qualified(&names.build, STATES);
    session.run(WHAT, &format!("DELETE FROM {table} WHERE NOT {ITS_ROWS}")).await
}

/// Makes the database that is built, with its state; refuses while another migration has one.
pub async fn begin(
    session: &mut Session,
    names: &Names,
    migration: &MigrationId,
    schema: &Schema,
) -> Result<State> {
    if let Some(state) = state(session, names).await? {
        return Ok(state);
    }
    let pattern = names.prefix.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%") + "%";
    let query = format!(
        "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE {}",
        sql::text(&pattern)
    );
    let others = session.records(WHAT, &query).await?;
    let is_other = |name: &String| {
        !name.starts_with(&names.build) && *name != names.rehearsal() && !names.is_aborted(name)
    };
    if let Some(other) = others.iter().map(|row| row.text(0)).find(is_other) {
        return Err(Failure::operator(
            session.item().to_owned(),
            format!("the database {other} belongs to another migration"),
        )
        .hint(
            "abort or finalize that migration; if it is gone for good, drop that database (docs/mariadb.md)",
        ));
    }
    let build = quote(&names.build);
    session.run_unless("cannot be prepared", &format!("CREATE DATABASE {build}"), &[1007]).await?;
    set_charset(session, &names.build, schema).await?;
    let table = qualified(&names.build, STATES);
    session
        .run(
            "cannot be prepared",
            &format!("CREATE TABLE IF NOT EXISTS {table} (k VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, v LONGBLOB NOT NULL) ENGINE=InnoDB"),
        )
        .await?;
    let state = State::new(migration);
    write(session, names, &state).await?;
    Ok(state)
}

/// Gives a database the source's character set and collation.
pub async fn set_charset(session: &mut Session, database: &str, schema: &Schema) -> Result<()> {
    let setting = |name: &str| schema.settings.get(name).map_or("", String::as_str);
    let statement = format!(
        "ALTER DATABASE {} CHARACTER SET {} COLLATE {}{OURS}",
        quote(database),
        quote(setting("character_set")),
        quote(setting("collation"))
    );
    session.run("the database's character set cannot be set", &statement).await
}

/// Tables and sequences of a database, but for the adapter's own; empty where there is no such database.
pub async fn tables(session: &mut Session, database: &str) -> Result<Vec<String>> {
    let query = format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = {} \
         AND table_type IN ('BASE TABLE', 'SEQUENCE', 'SYSTEM VERSIONED') AND table_name NOT LIKE '\\_\\_handover\\_%' ORDER BY table_name",
        sql::text(database)
    );
    Ok(session.records("tables cannot be listed", &query).await?.iter().map(|row| row.text(0)).collect())
}

/// The database exists.
pub async fn exists(session: &mut Session, database: &str) -> Result<bool> {
    let query =
        format!("SELECT 1 FROM information_schema.schemata WHERE schema_name = {}", sql::text(database));
    Ok(!session.records("databases cannot be listed", &query).await?.is_empty())
}

/// Drops a database, if it is there.
pub async fn drop_database(session: &mut Session, database: &str) -> Result<()> {
    session.run("cannot be dropped", &format!("DROP DATABASE IF EXISTS {}", quote(database))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
        let migration: MigrationId = "m1".parse().unwrap();
        let names = Names::new("rt5", &migration);
        assert!(names.build.starts_with("rt5__handover_") && names.build.len() == 22, "{names:?}");
        let (one, other) = (
            Names::new(&"ä".repeat(64), &migration),
            Names::new(&format!("{}b", "ä".repeat(63)), &migration),
        );
        assert!(one.kept.chars().count() <= 64 && one.build != other.build);
        assert!(one.aborted.chars().count() <= 64);
        let later = Names::new("rt5", &"m2".parse().unwrap());
        assert!(later.is_aborted(&names.aborted), "{}", names.aborted);
        let strange = ["rt5__handover_rehearsal", "rt6__handover_00000000_kept", "rt5__handover_mine_kept"];
        for other in [&*names.build, &*names.kept, &*names.gone].into_iter().chain(strange) {
            assert!(!later.is_aborted(other), "{other}");
        }
    }
}
