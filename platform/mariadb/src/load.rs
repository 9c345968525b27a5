//! Rows into tables.

use std::collections::HashSet;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyRange, KeyedRows, RowsChunk, text};

use crate::cursor::{self, Place, Plan};
use crate::session::{Loaded, Record, Session};
use crate::shape::Shape;

const WHAT: &str = "rows cannot be written";
/// Bytes of a statement with rows in it, where files may not be loaded.
const STATEMENT: u64 = 1 << 20;

/// How rows get into tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// LOAD DATA LOCAL INFILE.
    File,
    /// Statements of many rows, where the server has local_infile off; none may be larger than this.
    Statements(u64),
}

/// The way that a server allows.
pub async fn way(session: &mut Session) -> Result<Way> {
    let row = session.record("cannot be asked", "SELECT @@local_infile, @@max_allowed_packet").await?;
    Ok(if row.text(0) == "1" { Way::File } else { Way::Statements(row.number(1)) })
}

/// Makes a chunk's range hold exactly its rows; `fresh`: it certainly holds none. To be called inside a transaction.
pub async fn apply(
    session: &mut Session,
    database: &str,
    shape: &Shape,
    way: Way,
    chunk: &RowsChunk,
    fresh: bool,
) -> Result<()> {
    let range = &chunk.header.range;
    let failed = |session: &Session, error| session.failed(Some(shape.name()), WHAT, error);
    // Many ranges are empty before: asking is cheaper than deleting.
    if !fresh {
        let any = session.try_record(&shape.any(database, range)?).await;
        if any.map_err(|e| failed(session, e))?.is_some() {
            session.run_on(shape.name(), WHAT, &shape.delete(database, range)?).await?;
        }
    }
    if chunk.block.is_empty() {
        return Ok(());
    }
    let before = range.after.as_ref().filter(|_| shape.is_by_position());
    let before = before.map_or(Ok(0), |key| shape.position(&key.0))?;
    match way {
        Way::File => load(session, database, shape, chunk, before).await,
        Way::Statements(largest) => {
            insert(session, database, shape, chunk, before, largest).await?;
            let has_warnings = session.conn().get_warnings() > 0;
            if has_warnings { compare(session, database, shape, chunk).await } else { Ok(()) }
        }
    }
}

/// Makes keys hold exactly their rows, or none. To be called inside a transaction, with unique values checked.
pub async fn apply_keys(
    session: &mut Session,
    database: &str,
    shape: &Shape,
    way: Way,
    rows: &KeyedRows,
) -> Result<()> {
    let chunk = &rows.chunk;
    let malformed = |e: text::BadText| Failure::permanent(format!("table {}", shape.name()), e.to_string());
    let lines: Vec<&[u8]> = text::rows(&chunk.block).map_err(malformed)?.collect();
    let found: HashSet<Vec<u8>> = lines.iter().map(|row| shape.key_of(row)).collect();
    // First, since the server may take another key for the same, and find the new row by it.
    let gone: Vec<Key> = rows.keys.iter().filter(|key| !found.contains(&*key.0)).cloned().collect();
    for keys in gone.chunks(shape.batch()) {
        let delete = shape.delete_where(database, &shape.has_key(keys)?);
        session.run_on(shape.name(), "rows cannot be deleted", &delete).await?;
    }
    if lines.is_empty() {
        return Ok(());
    }
    let warnings = match way {
        Way::File => load_once(session, database, shape, chunk, 0, true).await?.warnings,
        Way::Statements(largest) => {
            insert(session, database, shape, chunk, 0, largest).await?;
            session.conn().get_warnings()
        }
    };
    if warnings == 0 {
        return Ok(());
    }
    let told = session.records(WHAT, "SHOW WARNINGS LIMIT 3").await?;
    let stored: Vec<Key> = found.into_iter().map(|key| Key(key.into())).collect();
    let mut there = Vec::new();
    for keys in stored.chunks(shape.batch()) {
        let place = Place { database, positioned: false, aside: None };
        let condition = shape.has_key(keys)?;
        let range = KeyRange::default();
        let plan = Plan::of_keys(&chunk.header.table, &range, shape.clone(), place, &condition);
        there.push(cursor::read_whole(session, &plan).await?.block);
    }
    let there: HashSet<&[u8]> =
        there.iter().flat_map(|block| text::rows(block).into_iter().flatten()).collect();
    if lines.iter().all(|row| there.contains(row)) { Ok(()) } else { Err(changed(session, shape, &told)) }
}

async fn load_once(
    session: &mut Session,
    database: &str,
    shape: &Shape,
    chunk: &RowsChunk,
    before: u64,
    replace: bool,
) -> Result<Loaded> {
    if shape.is_by_position() {
        session.run(WHAT, &format!("SET @handover_pos = {before}")).await?;
    }
    session.load(shape.name(), &shape.load(database, replace), chunk.block.clone()).await
}

/// Adds a chunk's rows to a table that holds none of them.
pub async fn fill(
    session: &mut Session,
    database: &str,
    shape: &Shape,
    way: Way,
    chunk: &RowsChunk,
) -> Result<()> {
    if chunk.block.is_empty() {
        return Ok(());
    }
    let Way::Statements(largest) = way else {
        let loaded = load_once(session, database, shape, chunk, 0, false).await?;
        return if loaded.rows == chunk.header.rows {
            Ok(())
        } else {
            Err(taken(session, shape, loaded.rows, chunk))
        };
    };
    insert(session, database, shape, chunk, 0, largest).await
}

fn taken(session: &Session, shape: &Shape, rows: u64, chunk: &RowsChunk) -> Failure {
    Failure::permanent(
        format!("{}, table {}", session.item(), shape.name()),
        format!("the server took {rows} of {} rows", chunk.header.rows),
    )
    .hint("this is a defect: report it")
}

async fn load(
    session: &mut Session,
    database: &str,
    shape: &Shape,
    chunk: &RowsChunk,
    before: u64,
) -> Result<()> {
    let mut loaded = load_once(session, database, shape, chunk, before, false).await?;
    if loaded.rows < chunk.header.rows {
        // A row elsewhere with the same unique value is stale, and its own chunk will bring it up to date.
        loaded = load_once(session, database, shape, chunk, before, true).await?;
    }
    if loaded.rows < chunk.header.rows {
        return Err(taken(session, shape, loaded.rows, chunk));
    }
    if loaded.warnings > 0 { compare(session, database, shape, chunk).await } else { Ok(()) }
}

/// The server has something to say about what it stored. It may be harmless (an ENUM's error value is one): the rows
/// themselves tell.
async fn compare(session: &mut Session, database: &str, shape: &Shape, chunk: &RowsChunk) -> Result<()> {
    let warnings = session.records(WHAT, "SHOW WARNINGS LIMIT 3").await?;
    let range = &chunk.header.range;
    let place = Place { database, positioned: true, aside: None };
    let plan = Plan::new(&chunk.header.table, range, shape.clone(), place)?;
    let stored = cursor::read_whole(session, &plan).await?;
    if stored.header.digest == chunk.header.digest {
        return Ok(());
    }
    Err(changed(session, shape, &warnings))
}

fn changed(session: &Session, shape: &Shape, warnings: &[Record]) -> Failure {
    let numbers: Vec<String> = warnings.iter().map(|row| row.text(1)).collect();
    Failure::operator(
        format!("{}, table {}", session.item(), shape.name()),
        format!("the server changes values as it stores them (warnings {})", numbers.join(", ")),
    )
    .hint("compare the table's definition and the server's version with the source's")
}

async fn insert(
    session: &mut Session,
    database: &str,
    shape: &Shape,
    chunk: &RowsChunk,
    before: u64,
    largest: u64,
) -> Result<()> {
    let head = shape.replace(database);
    let malformed = |e: text::BadText| Failure::permanent(format!("table {}", shape.name()), e.to_string());
    let (mut statement, mut position) = (head.clone(), before);
    let room = STATEMENT.min(largest / 2);
    for row in text::rows(&chunk.block).map_err(malformed)? {
        position += 1;
        let tuple = shape.tuple(row, position)?;
        if (head.len() + tuple.len()) as u64 + 1024 > largest {
            return Err(Failure::operator(
                format!("{}, table {}", session.item(), shape.name()),
                "a row is larger than the server takes in one statement",
            )
            .hint("set local_infile=1 or raise max_allowed_packet at the target's server, then resume"));
        }
        if statement.len() > head.len() && (statement.len() + tuple.len()) as u64 > room {
            session.run_on(shape.name(), WHAT, &statement).await?;
            statement.truncate(head.len());
        }
        if statement.len() > head.len() {
            statement.push(',');
        }
        statement.push_str(&tuple);
    }
    if statement.len() > head.len() {
        session.run_on(shape.name(), WHAT, &statement).await?;
    }
    Ok(())
}
