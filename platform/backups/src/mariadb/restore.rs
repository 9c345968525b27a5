//! Putting a MariaDB database back: built in one beside it, put in place by one `RENAME TABLE`, then what acts by itself.
//!
//! The rename is the point of no return: a restore that is cut short before it is taken back, with all that acted. After it, programs write to what
//! was put back: it is ended, however long that takes, and never taken back.

use std::collections::BTreeSet;
use std::path::PathBuf;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};

use super::acts;
use super::client::{Charset, Client, qualified, quote};
use super::script::{Part, load};
use crate::archive::Archive;
use crate::beside;
use crate::contents::{Dataset, MariadbServer};
use crate::note::{Begun as Of, Pen};
use crate::restore::{Before, Restoring, Settled};
use crate::work::{Work, io_failed};

/// Longest name of a database, in bytes.
const LONGEST: usize = 64;
/// What a rename moves.
const MOVABLE: &str = "table_type IN ('BASE TABLE', 'SEQUENCE', 'SYSTEM VERSIONED')";

/// A restore that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// The database.
    place: String,
    /// The one that its tables are built in.
    scratch: String,
    /// The backup's file.
    file: PathBuf,
    /// As the database is to be.
    charset: Charset,
    /// What stood there; none where nothing did.
    before: Option<Replaced>,
    /// The tables that were built; none before they all are. From then on what stands there may have given way.
    built: Option<Vec<String>>,
    /// They are in place.
    #[serde(default)]
    in_place: bool,
}

impl Begun {
    /// The tables that are replaced.
    fn replaced(&self) -> impl Iterator<Item = &String> {
        self.before.iter().flat_map(|before| &before.tables)
    }
}

/// What is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replaced {
    /// The database that its tables go to.
    database: String,
    /// The file that what acts by itself is kept in.
    aside: PathBuf,
    charset: Charset,
    tables: Vec<String>,
    /// What acts by itself.
    acts: Vec<String>,
}

/// Puts it back; what stood there is in a database beside it.
pub async fn restore(
    dataset: &Dataset,
    server: &MariadbServer,
    at: &Restoring<'_>,
    work: &Work,
) -> Result<Before> {
    let client = Client::open(&dataset.item(), server, work)?;
    let mut begun = build(&client, dataset, server, at, work).await?;
    swap(&client, &begun).await?;
    begun.in_place = true;
    at.pen.write(Of::Mariadb(Box::new(begun.clone())))?;
    end(&client, &begun, work).await?;
    Ok(told(&begun))
}

fn told(begun: &Begun) -> Before {
    let told = |before: &Replaced| {
        let aside = before.aside.display();
        format!("database {} (its triggers, routines, events and views: {aside})", before.database)
    };
    begun.before.as_ref().map(told)
}

/// Builds the tables, and keeps what is to give way. Nothing that stands there is touched.
async fn build(
    client: &Client,
    dataset: &Dataset,
    server: &MariadbServer,
    at: &Restoring<'_>,
    work: &Work,
) -> Result<Begun> {
    let place = server.database.clone();
    let scratch = beside::database(&place, beside::BUILT_DATABASE, LONGEST);
    let setting = |name: &str| at.kept.settings.get(name).cloned().unwrap_or_default();
    let charset = Charset { character_set: setting("character_set"), collation: setting("collation") };
    let taken = client.databases().await?;
    let before = client.charset(&place).await?.map(|charset| Replaced {
        database: beside::free_database(&place, at.id, LONGEST, &taken),
        aside: beside::free_path(&at.aside.join(format!("{}-{}.sql.zst", dataset.name, at.id))),
        charset,
        tables: Vec::new(),
        acts: Vec::new(),
    });
    let mut begun =
        Begun { place, scratch, file: at.file.clone(), charset, before, built: None, in_place: false };
    at.pen.write(Of::Mariadb(Box::new(begun.clone())))?;
    let mut made = vec![drop_database(&begun.scratch), create(&begun.scratch, &begun.charset)];
    // Whether the account may make it is better known before all is loaded.
    made.extend(begun.before.iter().map(|before| create(&before.database, &before.charset)));
    client.change(&made).await?;
    load(client, &begun.scratch, &at.file, Part::Tables, work).await?;
    acts::drop_our_tables(client, &begun.scratch).await?;
    if let Some(before) = &mut begun.before {
        before.tables = movable(client, &begun.place).await?.into_iter().collect();
        let mut archive = Archive::create(&before.aside, work);
        acts::pour(client, &begun.place, &acts::views(client, &begun.place).await?, &mut archive).await?;
        archive.finish().await?;
        before.acts = acts::all(client, &begun.place).await?;
    }
    begun.built = Some(movable(client, &begun.scratch).await?.into_iter().collect());
    at.pen.write(Of::Mariadb(Box::new(begun.clone())))?;
    Ok(begun)
}

/// Tables in place of tables. What acts by itself gives way first: tables with triggers cannot be renamed into another database.
async fn swap(client: &Client, begun: &Begun) -> Result<()> {
    let mut moves = Vec::new();
    match &begun.before {
        Some(before) => {
            acts::drop_all(client, &begun.place).await?;
            moves.extend(moved(&begun.place, &before.database, &before.tables));
        }
        None => client.change(&[create(&begun.place, &begun.charset)]).await?,
    }
    moves.extend(moved(&begun.scratch, &begun.place, begun.built.iter().flatten()));
    rename(client, &moves).await
}

/// What comes after the tables are in place. Idempotent.
async fn finish(client: &Client, begun: &Begun, work: &Work) -> Result<()> {
    client.change(&[format!("ALTER DATABASE {} {}", quote(&begun.place), begun.charset)]).await?;
    acts::drop_all(client, &begun.place).await?;
    load(client, &begun.place, &begun.file, Part::Rest, work).await?;
    acts::drop_our_triggers(client, &begun.place).await?;
    client.change(&[drop_database(&begun.scratch)]).await
}

/// The same, where there is no other way: a failure says how things stand.
async fn end(client: &Client, begun: &Begun, work: &Work) -> Result<()> {
    finish(client, begun, work).await.map_err(|mut failure| {
        failure.what = format!(
            "its tables are put back and stay, but its triggers, routines, events and views are not there yet: {}",
            failure.what
        );
        let hint = if failure.hint.is_empty() { "put right what the server says" } else { failure.hint.as_str() };
        failure.hint = format!("{hint}; the agent then ends the restore by itself");
        failure
    })
}

/// Ends it where its tables are in place, and takes it back where they are not.
pub async fn settle(
    item: &str,
    server: &MariadbServer,
    begun: &Begun,
    pen: &Pen<'_>,
    work: &Work,
) -> Result<Settled> {
    let client = Client::open(item, server, work)?;
    client.alone().await?;
    let found = Found::look(&client, begun).await?;
    found.check(item, begun)?;
    let mut begun = begun.clone();
    if found.is_past_return(&begun) {
        if !begun.in_place {
            let left = begun.built.iter().flatten().filter(|table| found.scratch.contains(*table));
            rename(&client, &moved(&begun.scratch, &begun.place, left)).await?;
            begun.in_place = true;
            pen.write(Of::Mariadb(Box::new(begun.clone())))?;
        }
        end(&client, &begun, work).await?;
        return Ok(Settled::Ended(told(&begun)));
    }
    if begun.built.is_some() {
        bring_back(&client, &begun, &found, work).await?;
        // All of it is there: from here on nothing but what was built is touched.
        begun.built = None;
        pen.write(Of::Mariadb(Box::new(begun.clone())))?;
    }
    client.change(&[drop_database(&begun.scratch)]).await?;
    if let Some(before) = &begun.before {
        drop_empty(&client, item, &before.database).await?;
        match std::fs::remove_file(&before.aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_failed(&before.aside, "cannot be removed")(error));
            }
            _ => {}
        }
    }
    Ok(Settled::TakenBack)
}

/// The old tables are put in place again, with all that acted; those that were built have not left theirs. Idempotent.
async fn bring_back(client: &Client, begun: &Begun, found: &Found, work: &Work) -> Result<()> {
    // Whatever is in its place has been there all the time, or was brought back as a whole.
    if let Some(before) = begun.before.as_ref().filter(|_| found.is_untouched(begun))
        && acts::all(client, &begun.place).await? == before.acts
        && client.charset(&begun.place).await?.as_ref() == Some(&before.charset)
    {
        return Ok(());
    }
    if found.is_there {
        acts::drop_all(client, &begun.place).await?;
    }
    let Some(before) = &begun.before else {
        return if found.is_there { drop_empty(client, client.item(), &begun.place).await } else { Ok(()) };
    };
    let away = before.tables.iter().filter(|table| found.kept.contains(*table));
    rename(client, &moved(&before.database, &begun.place, away)).await?;
    client.change(&[format!("ALTER DATABASE {} {}", quote(&begun.place), before.charset)]).await?;
    load(client, &begun.place, &before.aside, Part::Rest, work).await
}

/// The tables that there are by now.
struct Found {
    /// Whether there is a database at the place.
    is_there: bool,
    place: BTreeSet<String>,
    scratch: BTreeSet<String>,
    kept: BTreeSet<String>,
}

impl Found {
    async fn look(client: &Client, begun: &Begun) -> Result<Self> {
        let kept = match &begun.before {
            Some(before) => movable(client, &before.database).await?,
            None => BTreeSet::new(),
        };
        Ok(Self {
            is_there: client.charset(&begun.place).await?.is_some(),
            place: movable(client, &begun.place).await?,
            scratch: movable(client, &begun.scratch).await?,
            kept,
        })
    }

    /// Refuses to touch anything where the tables are not what was left: it may be another server, or somebody has moved or dropped some. Once
    /// they are in place they are the programs', which may do both: then it is another server where there is none of them.
    fn check(&self, item: &str, begun: &Begun) -> Result<()> {
        let Some(built) = &begun.built else { return Ok(()) };
        let is_gone = |table: &&String| !self.scratch.contains(*table) && !self.place.contains(*table);
        let is_lost = |table: &&String| !self.kept.contains(*table) && !self.place.contains(*table);
        let is_early = |table: &&String| !self.scratch.contains(*table) && !self.is_past_return(begun);
        let odd = if begun.in_place {
            built.first().filter(|_| built.iter().all(|table| is_gone(&table)))
        } else {
            let odd = built.iter().find(is_gone).or_else(|| begun.replaced().find(is_lost));
            odd.or_else(|| built.iter().find(is_early))
        };
        let Some(table) = odd else { return Ok(()) };
        let what = format!("its table {table} is not where a restore that was cut short has left it");
        Err(Failure::operator(item, what).hint(
            "is `url` in appliance.toml that of another server? else see to the database by hand, and remove the note in `.restores` in the directory of backups",
        ))
    }

    /// Whether all tables are where they were.
    fn is_untouched(&self, begun: &Begun) -> bool {
        self.kept.is_empty() && begun.built.iter().flatten().all(|table| self.scratch.contains(table))
    }

    /// Whether tables that were built are in place: what is in them may be new. What stood there has gone first, also on servers before 10.6, which
    /// may be cut short in the middle of a rename.
    fn is_past_return(&self, begun: &Begun) -> bool {
        let has_left =
            |built: &Vec<String>| built.is_empty() || built.iter().any(|table| !self.scratch.contains(table));
        begun.in_place
            || self.is_there
                && begun.built.as_ref().is_some_and(has_left)
                && begun.replaced().all(|table| self.kept.contains(table))
    }
}

async fn movable(client: &Client, database: &str) -> Result<BTreeSet<String>> {
    let names = client.names(database, "table_name", "tables", "table_schema", MOVABLE).await?;
    Ok(names.into_iter().collect())
}

fn create(database: &str, charset: &Charset) -> String {
    format!("CREATE DATABASE IF NOT EXISTS {} {charset}", quote(database))
}

fn drop_database(database: &str) -> String {
    format!("DROP DATABASE IF EXISTS {}", quote(database))
}

/// What a restore has made and has nothing in it. Idempotent.
async fn drop_empty(client: &Client, item: &str, database: &str) -> Result<()> {
    if client.charset(database).await?.is_none() {
        return Ok(());
    }
    if movable(client, database).await?.is_empty() {
        return client.change(&[drop_database(database)]).await;
    }
    Err(Failure::operator(item, format!("there are tables in database {database}, which should be empty"))
        .hint("they are none of a restore's: move them away"))
}

fn moved<'a>(from: &str, to: &str, tables: impl IntoIterator<Item = &'a String>) -> Vec<(String, String)> {
    tables.into_iter().map(|table| (qualified(from, table), qualified(to, table))).collect()
}

/// All at once: foreign keys follow only while they are checked.
async fn rename(client: &Client, moves: &[(String, String)]) -> Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    let moves: Vec<String> = moves.iter().map(|(from, to)| format!("{from} TO {to}")).collect();
    let all = format!("RENAME TABLE {}", moves.join(", "));
    client.change(&["SET foreign_key_checks = 1".to_owned(), all]).await
}
