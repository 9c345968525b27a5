//! Putting a PostgreSQL database back: restored into one beside it, then both change their names in one transaction.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};

use super::client::{Client, literal, quote};
use crate::beside;
use crate::contents::{Dataset, PostgresServer};
use crate::note::Begun as Of;
use crate::restore::{Before, Restoring, Settled};
use crate::tool::{PrivateFile, Running, printed};
use crate::work::Work;

/// Longest name of a database, in bytes.
const LONGEST: usize = 63;
/// How often, and how long after each other, other sessions are ended before a database's name is changed.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(200);
/// What a migration adds to a database's comment begins so.
const MARK: &str = "\nhandover: ";

/// Drops all tables of a database: to drop the database itself a server writes all that it has to write, for which a full disk has no room.
const EMPTY: &str = "DO $$ DECLARE t record; BEGIN FOR t IN SELECT nspname, relname FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p') AND nspname NOT LIKE 'pg\\_%' \
    AND nspname <> 'information_schema' LOOP \
    EXECUTE pg_catalog.format('DROP TABLE IF EXISTS %I.%I CASCADE', t.nspname, t.relname); END LOOP; END $$";

/// A restore that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// The database.
    place: String,
    /// The one that it is built in.
    scratch: String,
    /// It is whole, and about to be put in place.
    swaps: bool,
    /// The name that what stands there gets; none where nothing does.
    before: Option<String>,
}

/// Puts it back; what stood there is a database of another name.
pub async fn restore(
    dataset: &Dataset,
    server: &PostgresServer,
    at: &Restoring<'_>,
    work: &Work,
) -> Result<Before> {
    let item = dataset.item();
    let client = Client::open(&item, server, work).await?;
    let place = server.database.clone();
    let scratch = beside::database(&place, beside::BUILT_DATABASE, LONGEST);
    let mut begun = Begun { place, scratch, swaps: false, before: None };
    at.pen.write(Of::Postgres(begun.clone()))?;
    build(&client, &item, &begun.scratch, at, work).await?;
    let taken = client.databases().await?;
    begun.swaps = true;
    begun.before =
        taken.contains(&begun.place).then(|| beside::free_database(&begun.place, at.id, LONGEST, &taken));
    at.pen.write(Of::Postgres(begun.clone()))?;
    swap(&client, &begun).await?;
    Ok(told(&begun))
}

fn told(begun: &Begun) -> Before {
    begun.before.as_ref().map(|name| format!("database {name}"))
}

/// Restores it into a database beside its place.
async fn build(client: &Client, item: &str, scratch: &str, at: &Restoring<'_>, work: &Work) -> Result<()> {
    let list = contents(client, item, &at.file).await?;
    let (of_database, of_rest): (Vec<&str>, Vec<&str>) =
        list.lines().filter(|line| !is_ours(line)).partition(|line| is_of_database(line));
    drop_database(client, scratch).await?;
    let made = statements(client, item, &at.file, &of_database, work).await?;
    client.maintain(&for_database(&made, scratch)).await?;
    let list = PrivateFile::new(&work.scratch, of_rest.join("\n").as_bytes())?;
    let mut command = client.command(&client.program("pg_restore"));
    command.args(["--exit-on-error", "--no-password", "--use-list"]).arg(list.path());
    command.args(["--dbname", &client.connection(scratch)]).arg(&at.file);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Running::start(command, item)?.succeed().await
}

/// Waits for whoever changes its name.
async fn drop_database(client: &Client, name: &str) -> Result<()> {
    client.maintain(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(name))).await.map(drop)
}

/// Ends what was put in place, and takes back what was not.
pub async fn settle(item: &str, server: &PostgresServer, begun: &Begun, work: &Work) -> Result<Settled> {
    let client = Client::open(item, server, work).await?;
    if is_swapped(&client, begun).await? {
        return Ok(Settled::Ended(told(begun)));
    }
    if client.databases().await?.contains(&begun.scratch) {
        // One that cannot be emptied is dropped as it is.
        let _ = client.ask(&begun.scratch, EMPTY).await;
    }
    drop_database(&client, &begun.scratch).await?;
    // A transaction of an earlier session may have ended meanwhile.
    let is_swapped = is_swapped(&client, begun).await?;
    Ok(if is_swapped { Settled::Ended(told(begun)) } else { Settled::TakenBack })
}

/// Both names are changed in one transaction: either tells of both. Nothing has the new one before.
async fn is_swapped(client: &Client, begun: &Begun) -> Result<bool> {
    let there = client.databases().await?;
    Ok(begun.swaps
        && there.contains(&begun.place)
        && !there.contains(&begun.scratch)
        && begun.before.as_ref().is_none_or(|before| there.contains(before)))
}

/// The archive's table of contents.
async fn contents(client: &Client, item: &str, file: &Path) -> Result<String> {
    let mut command = client.command(&client.program("pg_restore"));
    // Without `--create` it does not name what is made with the database itself.
    command.args(["--list", "--create"]).arg(file);
    Ok(String::from_utf8_lossy(&printed(command, item, b"").await?).into_owned())
}

/// The kind of an entry and what follows it: `12; 1262 16384 DATABASE - shop postgres`.
fn kind(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or_default()
}

/// What is made with the database itself.
fn is_of_database(line: &str) -> bool {
    let kind = kind(line);
    [
        "DATABASE - ",
        "DATABASE PROPERTIES - ",
        "ACL - DATABASE ",
        "COMMENT - DATABASE ",
        "SECURITY LABEL - DATABASE ",
    ]
    .iter()
    .any(|begin| kind.starts_with(begin))
}

/// What a migration had put into the database when it was backed up belongs to that migration.
fn is_ours(line: &str) -> bool {
    let kind = kind(line);
    (kind.starts_with("TRIGGER ") && kind.contains(" handover_fence "))
        || ["PUBLICATION - handover_", "COMMENT - PUBLICATION handover_"]
            .iter()
            .any(|begin| kind.starts_with(begin))
        || (kind.starts_with("PUBLICATION TABLE") && kind.contains(" handover_"))
}

/// The statements that make these entries.
async fn statements(
    client: &Client,
    item: &str,
    file: &Path,
    entries: &[&str],
    work: &Work,
) -> Result<String> {
    let list = PrivateFile::new(&work.scratch, entries.join("\n").as_bytes())?;
    let mut command = client.command(&client.program("pg_restore"));
    command.args(["--create", "--file=-", "--use-list"]).arg(list.path()).arg(file);
    Ok(String::from_utf8_lossy(&printed(command, item, b"").await?).into_owned())
}

/// Of statements that make a database those that name it, for one of another name.
fn for_database(text: &str, scratch: &str) -> String {
    let (mut out, mut lines) = (String::new(), text.lines());
    while let Some(line) = lines.next() {
        let begins = ["CREATE DATABASE ", "ALTER DATABASE ", "COMMENT ON DATABASE "]
            .iter()
            .find(|begin| line.starts_with(**begin))
            .map(|begin| begin.len());
        let grants = line.starts_with("GRANT ") || line.starts_with("REVOKE ");
        let on = " ON DATABASE ";
        let Some(at) = begins.or_else(|| line.find(on).filter(|_| grants).map(|at| at + on.len())) else {
            continue;
        };
        let mut statement =
            format!("{}{}{}", &line[..at], quote(scratch), &line[at + name_len(&line[at..])..]);
        // What is in quotes may have lines that look like an end, or like a command of psql's.
        while !is_whole(&statement) {
            let Some(more) = lines.next() else { return out };
            statement = format!("{statement}\n{more}");
        }
        if let Some(at) = statement.find(MARK).filter(|_| statement.starts_with("COMMENT")) {
            statement.truncate(at);
            statement += "';";
        }
        out += &statement;
        out.push('\n');
    }
    out
}

/// Whether a statement is at its end: no quotation is open there. As `pg_dump` writes them: quotes in quotations are doubled, and `E'…'`
/// has its backslashes doubled.
fn is_whole(statement: &str) -> bool {
    let mut open = None;
    for c in statement.chars() {
        match open {
            None if c == '\'' || c == '"' => open = Some(c),
            Some(quote) if quote == c => open = None,
            _ => {}
        }
    }
    open.is_none() && statement.ends_with(';')
}

/// The bytes of the name that a text begins with.
fn name_len(text: &str) -> usize {
    if !text.starts_with('"') {
        return text.find([' ', ';']).unwrap_or(text.len());
    }
    let mut end = 1;
    while let Some(found) = text[end..].find('"') {
        end += found + 1;
        if !text[end..].starts_with('"') {
            break;
        }
        end += 1;
    }
    end
}

/// Both change their names in one transaction, which needs them without sessions.
async fn swap(client: &Client, begun: &Begun) -> Result<()> {
    let (place, scratch) = (&begun.place, &begun.scratch);
    let mut sql = format!(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname IN ({}, {}) \
         AND pid <> pg_catalog.pg_backend_pid() AND usesysid IS NOT NULL;\nBEGIN;\n",
        literal(place),
        literal(scratch)
    );
    if let Some(before) = &begun.before {
        sql += &format!("ALTER DATABASE {} RENAME TO {};\n", quote(place), quote(before));
    }
    sql += &format!("ALTER DATABASE {} RENAME TO {};\nCOMMIT;\n", quote(scratch), quote(place));
    let mut tries = 0;
    loop {
        let Err(failure) = client.maintain(&sql).await else { return Ok(()) };
        tries += 1;
        if !failure.what.contains("being accessed by other users") {
            return Err(failure);
        }
        if tries == TRIES {
            return Err(Failure::operator(failure.item, failure.what)
                .hint("other programs keep connecting to it: stop its services, then restore again"));
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_quotes_ends_a_statement() {
        let text = "COMMENT ON DATABASE shop IS 'x;\ny';\nALTER DATABASE shop SET my.x TO '; \\! cmd --';\n\\! cmd\nALTER DATABASE shop SET y TO 'open;\n";
        let expected =
            "COMMENT ON DATABASE \"new\" IS 'x;\ny';\nALTER DATABASE \"new\" SET my.x TO '; \\! cmd --';\n";
        assert_eq!(for_database(text, "new"), expected);
    }

    #[test]
    fn statements_name_the_database_beside() {
        let text = "SET a = 1;\nCREATE DATABASE \"my \"\"db\" WITH TEMPLATE = template0;\n\\connect \"my db\"\n\
                    ALTER DATABASE shop SET work_mem TO '4MB';\nCOMMENT ON DATABASE shop IS 'two\nlines\nhandover: migration=m';\n\
                    GRANT ALL ON DATABASE shop TO app;\n";
        assert_eq!(
            for_database(text, "s"),
            "CREATE DATABASE \"s\" WITH TEMPLATE = template0;\nALTER DATABASE \"s\" SET work_mem TO '4MB';\n\
             COMMENT ON DATABASE \"s\" IS 'two\nlines';\nGRANT ALL ON DATABASE \"s\" TO app;\n"
        );
    }

    #[test]
    fn entries_are_told_apart() {
        for (line, database, ours) in [
            ("12; 1262 16384 DATABASE - shop postgres", true, false),
            ("13; 0 0 DATABASE PROPERTIES - shop postgres", true, false),
            ("14; 0 0 COMMENT - DATABASE shop postgres", true, false),
            ("15; 2620 1 TRIGGER public t handover_fence postgres", false, true),
            ("16; 2620 1 TRIGGER public t audit postgres", false, false),
            ("17; 6104 1 PUBLICATION - handover_m_1 postgres", false, true),
            ("18; 1259 1 TABLE public t postgres", false, false),
            ("; Archive created at 2026", false, false),
        ] {
            assert_eq!((is_of_database(line), is_ours(line)), (database, ours), "{line}");
        }
    }
}
