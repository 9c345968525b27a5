//! Putting a MariaDB database back: loaded into one beside it, put in place by one `RENAME TABLE`, then what acts by itself.

use std::path::Path;

use bytes::Bytes;
use handover_engine::backup::Restored;
use handover_engine::ports::Result;
use tokio::sync::mpsc;

use super::client::{Client, quote, text};
use super::{DIVIDE, OWN};
use crate::archive::{self, Archive};
use crate::contents::{Dataset, MariadbServer};
use crate::restore::{Restoring, beside, free_name, free_path};
use crate::work::Work;

/// Longest name of a database, in bytes.
const LONGEST: usize = 64;
/// What a rename moves.
const MOVABLE: &str = "table_type IN ('BASE TABLE', 'SEQUENCE', 'SYSTEM VERSIONED')";

/// Puts it back; what stood there is in a database beside it. Cut short, it is given again: until the rename the old tables are in place,
/// and from then on the new ones.
pub async fn restore(
    dataset: &Dataset,
    server: &MariadbServer,
    at: &Restoring<'_>,
    work: &Work,
) -> Result<Restored> {
    let client = Client::open(&dataset.item(), server, work)?;
    let (place, scratch) = (&server.database, beside(&server.database, "handover_restore", LONGEST));
    let setting = |name: &str| at.kept.settings.get(name).cloned().unwrap_or_default();
    let charset = format!(
        "CHARACTER SET {} COLLATE {}",
        quote(&setting("character_set")),
        quote(&setting("collation"))
    );
    client
        .ask(&format!("DROP DATABASE IF EXISTS {0}; CREATE DATABASE {0} {charset}", quote(&scratch)))
        .await?;
    load(&client, &scratch, &at.file, Part::Tables, work).await?;
    let mut moves: Vec<(String, String)> = Vec::new();
    let (mut before, is_there) = (None, client.charset(place).await?.is_some());
    if is_there {
        let old = client.names("table_name", "tables", "table_schema", MOVABLE).await?;
        let aside = free_path(&at.aside.join(format!("{}-{}.sql.zst", dataset.name, at.id)));
        keep_what_acts(&client, place, &aside, work).await?;
        let kept = free_name(place, at.id, LONGEST, &databases(&client).await?);
        let own = client.charset(place).await?.unwrap_or_default();
        client
            .ask(&format!(
                "CREATE DATABASE {} CHARACTER SET {} COLLATE {}",
                quote(&kept),
                quote(&own.0),
                quote(&own.1)
            ))
            .await?;
        drop_what_acts(&client, place).await?;
        moves.extend(old.iter().map(|table| (qualified(place, table), qualified(&kept, table))));
        before =
            Some(format!("database {kept} (its triggers, routines, events and views: {})", aside.display()));
    } else {
        client.ask(&format!("CREATE DATABASE {} {charset}", quote(place))).await?;
    }
    let new = client.names_in(&scratch, "table_name", "tables", "table_schema", MOVABLE).await?;
    moves.extend(new.iter().map(|table| (qualified(&scratch, table), qualified(place, table))));
    rename(&client, &moves).await?;
    client.ask(&format!("ALTER DATABASE {} {charset}", quote(place))).await?;
    load(&client, place, &at.file, Part::Rest, work).await?;
    take_ours_away(&client, place).await?;
    client.ask(&format!("DROP DATABASE {}", quote(&scratch))).await?;
    Ok(Restored { dataset: dataset.name.clone(), before })
}

fn qualified(database: &str, table: &str) -> String {
    format!("{}.{}", quote(database), quote(table))
}

/// All at once: foreign keys follow only while they are checked.
async fn rename(client: &Client, moves: &[(String, String)]) -> Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    let moves: Vec<String> = moves.iter().map(|(from, to)| format!("{from} TO {to}")).collect();
    client.ask(&format!("SET foreign_key_checks = 1; RENAME TABLE {}", moves.join(", "))).await.map(drop)
}

async fn databases(client: &Client) -> Result<Vec<String>> {
    let rows = client.ask("SELECT schema_name FROM information_schema.schemata").await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next()).collect())
}

/// Half of a backup.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Tables,
    Rest,
}

/// Runs one half of the script in a database.
async fn load(client: &Client, database: &str, file: &Path, part: Part, work: &Work) -> Result<()> {
    let mut shell = client.shell(database)?;
    let (to, halves) = mpsc::channel(4);
    let pieces = archive::read(file, work);
    let ((), ()) = futures::try_join!(divide(pieces, part, to), shell.feed(halves))?;
    shell.succeed().await
}

type Piece = std::io::Result<Bytes>;

/// Passes on what comes before or after the line that divides a script.
async fn divide(mut pieces: mpsc::Receiver<Piece>, part: Part, to: mpsc::Sender<Piece>) -> Result<()> {
    let (mut held, mut is_past) = (Vec::new(), false);
    while let Some(piece) = pieces.recv().await {
        let piece = match piece {
            Ok(piece) => piece,
            failed => {
                let _ = to.send(failed).await;
                return Ok(());
            }
        };
        if is_past {
            if part == Part::Tables || to.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        held.extend_from_slice(&piece);
        if let Some(at) = line_of(&held) {
            is_past = true;
            let rest = held.split_off(at);
            let wanted = if part == Part::Tables { std::mem::take(&mut held) } else { rest };
            if to.send(Ok(wanted.into())).await.is_err() || part == Part::Tables {
                return Ok(());
            }
        } else {
            // The line may be cut by the end of a piece.
            let keep = held.len().min(DIVIDE.len());
            let rest = held.split_off(held.len() - keep);
            let whole = std::mem::replace(&mut held, rest);
            if part == Part::Tables && to.send(Ok(whole.into())).await.is_err() {
                return Ok(());
            }
        }
    }
    if part == Part::Tables && !is_past {
        let _ = to.send(Ok(held.into())).await;
    }
    Ok(())
}

/// Where the line that divides begins. Values have no line ends in them, but for those that are escaped.
fn line_of(text: &[u8]) -> Option<usize> {
    let found = text.windows(DIVIDE.len()).position(|part| part == DIVIDE)?;
    (found == 0 || text[found - 1] == b'\n').then_some(found)
}

/// Keeps what cannot be renamed into another database.
async fn keep_what_acts(client: &Client, place: &str, aside: &Path, work: &Work) -> Result<()> {
    let mut archive = Archive::create(aside, work);
    let late = ["--no-data", "--no-create-info", "--triggers", "--routines", "--events"].map(str::to_owned);
    client.pour(&late, &[place], &mut archive).await?;
    let views = client.names("table_name", "tables", "table_schema", "table_type = 'VIEW'").await?;
    if !views.is_empty() {
        let names: Vec<&str> = std::iter::once(place).chain(views.iter().map(String::as_str)).collect();
        client.pour(&["--no-data", "--skip-triggers"].map(str::to_owned), &names, &mut archive).await?;
    }
    archive.finish().await.map(drop)
}

/// Tables with triggers cannot be renamed into another database, and what else is there gives way.
async fn drop_what_acts(client: &Client, place: &str) -> Result<()> {
    let mut statements = Vec::new();
    for (kind, column, of, schema, which) in [
        ("TRIGGER", "trigger_name", "triggers", "trigger_schema", "1"),
        ("EVENT", "event_name", "events", "event_schema", "1"),
        ("VIEW", "table_name", "tables", "table_schema", "table_type = 'VIEW'"),
        ("FUNCTION", "routine_name", "routines", "routine_schema", "routine_type = 'FUNCTION'"),
        ("PROCEDURE", "routine_name", "routines", "routine_schema", "routine_type = 'PROCEDURE'"),
        ("PACKAGE", "routine_name", "routines", "routine_schema", "routine_type = 'PACKAGE'"),
    ] {
        for name in client.names(column, of, schema, which).await? {
            statements.push(format!("DROP {kind} IF EXISTS {}", qualified(place, &name)));
        }
    }
    if statements.is_empty() { Ok(()) } else { client.ask(&statements.join(";\n")).await.map(drop) }
}

/// What a migration had put into the database when it was backed up belongs to that migration.
async fn take_ours_away(client: &Client, place: &str) -> Result<()> {
    let ours = |column: &str| format!("LEFT({column}, {}) = {}", OWN.len(), text(OWN));
    let mut statements = Vec::new();
    for (kind, column, of, schema) in [
        ("TRIGGER", "trigger_name", "triggers", "trigger_schema"),
        ("TABLE", "table_name", "tables", "table_schema"),
    ] {
        for name in client.names(column, of, schema, &ours(column)).await? {
            statements.push(format!("DROP {kind} IF EXISTS {}", qualified(place, &name)));
        }
    }
    if statements.is_empty() { Ok(()) } else { client.ask(&statements.join(";\n")).await.map(drop) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn halves(pieces: &[&[u8]], part: Part) -> Vec<u8> {
        let (to, from) = mpsc::channel(1024);
        for piece in pieces {
            to.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
        }
        drop(to);
        let (to, mut out) = mpsc::channel(1024);
        divide(from, part, to).await.unwrap();
        let mut all = Vec::new();
        while let Some(piece) = out.recv().await {
            all.extend_from_slice(&piece.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn a_script_is_divided_wherever_its_pieces_end() {
        let script = [b"CREATE TABLE t (a INT);\n".as_slice(), DIVIDE, b"CREATE TRIGGER x;\n"].concat();
        for cut in 0..script.len() {
            let pieces = [&script[..cut], &script[cut..]];
            assert_eq!(halves(&pieces, Part::Tables).await, b"CREATE TABLE t (a INT);\n", "{cut}");
            let rest = halves(&pieces, Part::Rest).await;
            assert_eq!(rest, [DIVIDE, b"CREATE TRIGGER x;\n"].concat(), "{cut}");
        }
        let bytes: Vec<&[u8]> = script.chunks(1).collect();
        assert_eq!(halves(&bytes, Part::Tables).await, b"CREATE TABLE t (a INT);\n");
        assert_eq!(halves(&[b"no line".as_slice()], Part::Tables).await, b"no line");
    }
}
