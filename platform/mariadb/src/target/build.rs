//! What is made beside the final place: tables before the load, indexes and the rest after it.

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Ddl, Schema, TableKey, TableSpec};
use tokio::sync::Mutex;

use super::late::{self, Stage};
use super::place::{self, Names, State};
use crate::session::Session;
use crate::shape::POSITION;
use crate::sql::{self, qualified, quote};

/// Makes the tables that are not there yet; after a publication, with the rows that were published.
pub async fn prepare(session: &mut Session, names: &Names, state: &State, schema: &Schema) -> Result<()> {
    place::set_charset(session, &names.build, schema).await?;
    late::drop_all(session, &names.build, Some("trigger")).await?;
    late::drop_all(session, &names.build, Some("event")).await?;
    session.enter(&names.build).await?;
    let there: BTreeSet<String> = place::tables(session, &names.build).await?.into_iter().collect();
    for ddl in &schema.before_load {
        if !there.contains(&ddl.name) {
            create(session, ddl).await?;
        }
    }
    let positioned = with_positions(session, &names.build).await?;
    for table in &schema.tables {
        if table.key == TableKey::Position && !positioned.contains(&table.name.name) {
            add_positions(session, names, table).await?;
        }
        if state.published && state.continues {
            copy(session, names, table).await?;
        }
    }
    Ok(())
}

/// Runs one statement of the source's schema. Nothing but one CREATE.
pub async fn create(session: &mut Session, ddl: &Ddl) -> Result<()> {
    if !ddl.sql.starts_with("CREATE TABLE ") && !ddl.sql.starts_with("CREATE SEQUENCE ") {
        return Err(Failure::permanent(
            session.item().to_owned(),
            format!("{} {}: its definition makes something else", ddl.kind, ddl.name),
        ));
    }
    session.run_one(&format!("{} {} cannot be made", ddl.kind, ddl.name), &ddl.sql).await
}

/// Tables whose positions are complete: the index is made last.
async fn with_positions(session: &mut Session, database: &str) -> Result<BTreeSet<String>> {
    let query = format!(
        "SELECT DISTINCT table_name FROM information_schema.statistics WHERE table_schema = {} AND index_name = '{POSITION}'",
        sql::text(database)
    );
    Ok(session.records("tables cannot be listed", &query).await?.iter().map(|row| row.text(0)).collect())
}

/// Tables with a column of positions, be they complete or not.
async fn positioned(session: &mut Session, database: &str) -> Result<BTreeSet<String>> {
    let query = format!(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = {} AND column_name = '{POSITION}'",
        sql::text(database)
    );
    Ok(session.records("tables cannot be listed", &query).await?.iter().map(|row| row.text(0)).collect())
}

/// Gives a table without a key one for the time of the load. An interrupted attempt may have got to any step.
async fn add_positions(session: &mut Session, names: &Names, table: &TableSpec) -> Result<()> {
    let (name, what) = (&table.name.name, "cannot be given positions");
    let full = qualified(&names.build, name);
    session
        .run_on(
            name,
            what,
            &format!(
                "ALTER TABLE {full} ADD COLUMN IF NOT EXISTS {POSITION} BIGINT UNSIGNED NOT NULL DEFAULT 0"
            ),
        )
        .await?;
    session.run(what, "SET @handover_pos = 0").await?;
    session
        .run_on(name, what, &format!("UPDATE {full} SET {POSITION} = (@handover_pos := @handover_pos + 1)"))
        .await?;
    let index = format!("ALTER TABLE {full} ADD UNIQUE KEY IF NOT EXISTS {POSITION} ({POSITION})");
    session.run_on(name, what, &index).await
}

/// Copies what was published, once.
async fn copy(session: &mut Session, names: &Names, table: &TableSpec) -> Result<()> {
    let (name, what) = (&table.name.name, "what was published cannot be copied");
    let mark = format!("copied/{name}");
    if place::is_marked(session, names, &mark).await? {
        return Ok(());
    }
    let mut columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
    let mut values = columns.clone();
    if table.key == TableKey::Position {
        columns.push(POSITION.to_owned());
        values.push("(@handover_pos := @handover_pos + 1)".to_owned());
        session.run(what, "SET @handover_pos = 0").await?;
    }
    let index = if table.key == TableKey::Position { " USE INDEX ()" } else { "" };
    let target = qualified(&names.build, name);
    let insert = format!(
        "INSERT INTO {target} ({}) SELECT {} FROM {}{index}",
        columns.join(", "),
        values.join(", "),
        qualified(&names.last, name)
    );
    session.run_on(name, what, "START TRANSACTION").await?;
    session.run_on(name, what, &format!("DELETE FROM {target}")).await?;
    session.run_on(name, what, &insert).await?;
    session.run_on(name, what, &place::mark(names, &mark)).await?;
    session.run_on(name, what, "COMMIT").await
}

/// Drops all that was built, but for the state.
pub async fn discard(session: &mut Session, names: &Names) -> Result<()> {
    late::drop_all(session, &names.build, None).await?;
    for table in place::tables(session, &names.build).await? {
        // Sequences answer to DROP TABLE too.
        session
            .run_on(
                &table,
                "cannot be dropped",
                &format!("DROP TABLE IF EXISTS {}", qualified(&names.build, &table)),
            )
            .await?;
    }
    place::unmark(session, names).await
}

/// Makes the indexes of tables with a key, a table on each connection at a time. The others keep their positions, which their rows are
/// loaded by.
pub async fn index(sessions: &mut [Session], names: &Names, schema: &Schema) -> Result<()> {
    let is_keyed = |table: &TableSpec| table.key != TableKey::Position;
    alter_all(sessions, names, schema, is_keyed).await
}

async fn alter_all(
    sessions: &mut [Session],
    names: &Names,
    schema: &Schema,
    is_meant: fn(&TableSpec) -> bool,
) -> Result<()> {
    let mut round = 1;
    while !alter(sessions, names, schema, is_meant, round < ROUNDS).await? {
        round += 1;
    }
    Ok(())
}

/// Makes the second half, a table on each connection at a time.
pub async fn finish(sessions: &mut [Session], names: &Names, schema: &Schema) -> Result<()> {
    alter_all(sessions, names, schema, |_| true).await?;
    let session = &mut sessions[0];
    session.enter(&names.build).await?;
    foreign_keys(session, names, schema).await?;
    counters(session, schema).await?;
    late::make_all(session, &names.build, schema, Stage::Build).await
}

/// How often the alterations are looked up again, after a former agent's were in the way.
const ROUNDS: usize = 5;
/// The table is not what it was when it was looked up: no such column, a name that is taken, nothing to drop.
const OVERTAKEN: [u16; 3] = [1054, 1061, 1091];

/// Makes the alterations. Of an agent that was stopped, the server ends the last statement nevertheless: tables that
/// were overtaken by it are left as they are, which `may_be_overtaken` allows. True when nothing is left.
async fn alter(
    sessions: &mut [Session],
    names: &Names,
    schema: &Schema,
    is_meant: fn(&TableSpec) -> bool,
    may_be_overtaken: bool,
) -> Result<bool> {
    let work = Mutex::new(alterations(&mut sessions[0], names, schema, is_meant).await?);
    let work = &work;
    let workers = sessions.iter_mut().map(|session| async move {
        session.enter(&names.build).await?;
        let mut is_complete = true;
        loop {
            let Some((table, statements)) = work.lock().await.pop() else { return Ok(is_complete) };
            for statement in statements {
                let Err(error) = session.try_run(&sql::immediate(&statement)).await else { continue };
                let is_overtaken = crate::error::code(&error).is_some_and(|code| OVERTAKEN.contains(&code));
                if !(is_overtaken && may_be_overtaken) {
                    return Err(session.failed(Some(&table), "its indexes cannot be made", error));
                }
                is_complete = false;
                break;
            }
        }
    });
    let done = futures::future::try_join_all(workers).await?;
    Ok(done.into_iter().all(|is_complete| is_complete))
}

/// What is still to be altered, by table; the largest table last, where work is taken from.
async fn alterations(
    session: &mut Session,
    names: &Names,
    schema: &Schema,
    is_meant: fn(&TableSpec) -> bool,
) -> Result<Vec<(String, Vec<String>)>> {
    let query = format!(
        "SELECT DISTINCT table_name, index_name FROM information_schema.statistics WHERE table_schema = {}",
        sql::text(&names.build)
    );
    let there = session.records("indexes cannot be listed", &query).await?;
    let there: BTreeSet<String> =
        there.iter().map(|row| format!("{}.{}", row.text(0), row.text(1))).collect();
    let positioned = positioned(session, &names.build).await?;
    let mut out = Vec::new();
    for table in schema.tables.iter().filter(|table| is_meant(table)) {
        let quoted = quote(&table.name.name);
        let mut statements = Vec::new();
        let mut together = Vec::new();
        if positioned.contains(&table.name.name) {
            // Engines that keep rows where there is room are told the order first.
            if !is_innodb(schema, &table.name.name) {
                statements.push(format!("ALTER TABLE {quoted} ORDER BY {POSITION}"));
            }
            statements.push(format!(
                "ALTER TABLE {quoted} DROP INDEX IF EXISTS {POSITION}, DROP COLUMN IF EXISTS {POSITION}"
            ));
        }
        let head = format!("ALTER TABLE {quoted} ");
        for ddl in schema.after_load.iter().filter(|ddl| ddl.kind == "index" && !there.contains(&ddl.name)) {
            let Some(part) = ddl.sql.strip_prefix(&head).filter(|part| part.starts_with("ADD ")) else {
                continue;
            };
            if part.starts_with("ADD FULLTEXT") {
                statements.push(ddl.sql.clone());
            } else {
                together.push(part);
            }
        }
        if !together.is_empty() {
            let at = statements.iter().position(|s| s.contains("ADD FULLTEXT")).unwrap_or(statements.len());
            statements.insert(at, format!("{head}{}", together.join(", ")));
        }
        if !statements.is_empty() {
            out.push((table.estimated_bytes, (table.name.name.clone(), statements)));
        }
    }
    out.sort_by_key(|(bytes, _)| *bytes);
    Ok(out.into_iter().map(|(_, work)| work).collect())
}

fn is_innodb(schema: &Schema, table: &str) -> bool {
    let ddl = schema.before_load.iter().find(|ddl| ddl.name == table);
    ddl.is_none_or(|ddl| ddl.sql.contains("ENGINE=InnoDB"))
}

async fn foreign_keys(session: &mut Session, names: &Names, schema: &Schema) -> Result<()> {
    let query = format!(
        "SELECT table_name, constraint_name FROM information_schema.table_constraints \
         WHERE constraint_schema = {} AND constraint_type = 'FOREIGN KEY'",
        sql::text(&names.build)
    );
    let there = session.records("foreign keys cannot be listed", &query).await?;
    let there: BTreeSet<String> =
        there.iter().map(|row| format!("{}.{}", row.text(0), row.text(1))).collect();
    for ddl in schema.after_load.iter().filter(|ddl| ddl.kind == "foreign key" && !there.contains(&ddl.name))
    {
        if !ddl.sql.starts_with("ALTER TABLE ") {
            continue;
        }
        session.run_one(&format!("foreign key {} cannot be made", ddl.name), &ddl.sql).await?;
    }
    Ok(())
}

/// Positions of AUTO_INCREMENT columns and sequences.
pub async fn counters(session: &mut Session, schema: &Schema) -> Result<()> {
    for (key, value) in &schema.state {
        let what = format!("{key} cannot be set");
        let Ok(value) = value.parse::<i128>() else { continue };
        if let Some(table) = key.strip_prefix("auto_increment/") {
            session.run(&what, &format!("ALTER TABLE {} AUTO_INCREMENT = {value}", quote(table))).await?;
        } else if let Some(sequence) = key.strip_prefix("sequence/") {
            session.run(&what, &format!("ALTER SEQUENCE {} RESTART {value}", quote(sequence))).await?;
        }
    }
    Ok(())
}

/// Events do not fire before they are published: they count as what they will be.
pub fn as_intended(schema: &mut Schema, intended: &Schema) {
    let events: BTreeMap<&str, &str> = intended
        .after_load
        .iter()
        .filter(|ddl| ddl.kind == "event")
        .map(|ddl| (ddl.name.as_str(), ddl.sql.as_str()))
        .collect();
    for ddl in schema.after_load.iter_mut().filter(|ddl| ddl.kind == "event") {
        if let Some(sql) = events.get(ddl.name.as_str()).filter(|sql| late::held_back(sql) == ddl.sql) {
            ddl.sql = (*sql).to_owned();
        }
    }
}
