//! A fence against writers: triggers, which hold for every account and outlive the server.

use std::time::Duration;

use futures::future::join_all;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{Live, moment, replicated};
use crate::catalog::OWN;
use crate::session::Session;
use crate::sql::{self, qualified, quote};

const WHAT: &str = "the fence cannot be put up";
const DOWN: &str = "the fence cannot be taken away";
/// What a writer is told.
const MESSAGE: &str = "handover: this database has moved and is read-only here";
/// A session that sets this variable may write: what is applied here is.
pub const APPLYING: &str = "@handover_applying";
/// How often it is looked whether XA transactions have ended.
const PAUSE: Duration = Duration::from_millis(20);
/// Seconds that taking a trigger away waits for readers and writers of its table.
const DOWN_WAIT: u64 = 60;

/// A trigger, and the table it stands on.
type Post = (String, String, &'static str);

/// The triggers that make the whole fence, whose names no table's rename changes.
async fn posts(session: &mut Session, database: &str) -> Result<Vec<Post>> {
    let query = format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = {} \
         AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY table_name",
        sql::text(database)
    );
    let mut out = Vec::new();
    for row in session.records(WHAT, &query).await? {
        let table = row.text(0);
        if table.starts_with(OWN) {
            continue;
        }
        let id: String = Digest::of(table.as_bytes()).to_string().chars().take(24).collect();
        for event in ["INSERT", "UPDATE", "DELETE"] {
            out.push((format!("{OWN}fence_{}_{id}", event.to_ascii_lowercase()), table.clone(), event));
        }
    }
    Ok(out)
}

/// The triggers that stand.
async fn standing(session: &mut Session, database: &str) -> Result<Vec<String>> {
    let query = format!(
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = {} AND trigger_name LIKE '{}fence\\_%'",
        sql::text(database),
        OWN.replace('_', "\\_")
    );
    Ok(session.records(WHAT, &query).await?.iter().map(|row| row.text(0)).collect())
}

/// Whether any of it stands.
pub async fn stands(session: &mut Session, database: &str) -> Result<bool> {
    Ok(!standing(session, database).await?.is_empty())
}

/// A connection that leaves no trace in the binary log, where it may.
async fn quiet(live: &Live) -> Result<Session> {
    let mut session = live.session().await?;
    session.enter(&live.settings.database).await?;
    let _ = session.try_run("SET SESSION sql_log_bin = 0").await;
    Ok(session)
}

/// Waits until no other session changes triggers, and keeps others from it until this one ends. The session of an agent that is gone may
/// still be about to put one up, or to take one away.
pub async fn turn(session: &mut Session, database: &str, what: &str, seconds: u64) -> Result<()> {
    let name = Digest::of(database.as_bytes()).short();
    let got = session.record(what, &format!("SELECT GET_LOCK('handover fence {name}', {seconds})")).await?;
    if got.text(0) == "1" {
        return Ok(());
    }
    let what = format!("{what}: another session is at it");
    Err(Failure::transient(session.item().to_owned(), what).hint("SHOW PROCESSLIST tells which"))
}

/// Puts up what does not stand yet, in all tables at once: a writer that met the fence in one table, and kept its transaction open,
/// could otherwise stand in the way of the next. Waits for the transactions that have used the tables; with a failure, the triggers
/// that were made go again.
///
/// TRUNCATE, definitions of tables, sequences, and row events that a replica applies are not stopped by triggers. A replica that applies
/// some is refused; looked at before, and once more behind the triggers.
pub async fn up(live: &Live, wait: Duration) -> Result<()> {
    let until = Instant::now() + wait;
    let mut session = quiet(live).await?;
    replicated::refuse(&mut session).await?;
    let there = standing(&mut session, &live.settings.database).await?;
    let mut missing = posts(&mut session, &live.settings.database).await?;
    missing.retain(|(name, ..)| !there.contains(name));
    let (made, mut result) = put_up(live, missing, until).await;
    if result.is_ok() {
        result = until_nothing_is_prepared(&mut session, until).await;
    }
    if result.is_ok() {
        result = replicated::refuse(&mut session).await;
    }
    let Err(failure) = result else { return Ok(()) };
    let names = made.into_iter().map(|(name, ..)| name).collect();
    remove(live, names).await?;
    Err(if is_late(&failure) {
        Failure::transient(failure.item, "the fence cannot be put up in time: a transaction holds a table")
            .hint("end long transactions (SHOW PROCESSLIST, XA RECOVER), or give it more time")
    } else {
        failure
    })
}

/// Whether a transaction has held a table for too long.
pub fn is_late(failure: &Failure) -> bool {
    failure.causes.iter().any(|cause| cause.contains("(error 1205)"))
}

/// Makes triggers behind a lock on all their tables; those that were made, in any case.
async fn put_up(live: &Live, missing: Vec<Post>, until: Instant) -> (Vec<Post>, Result<()>) {
    let mut made = Vec::new();
    if missing.is_empty() {
        return (made, Ok(()));
    }
    let database = &live.settings.database;
    let mut tables: Vec<String> =
        missing.iter().map(|(_, table, _)| format!("{} WRITE", qualified(database, table))).collect();
    tables.dedup();
    let result = async {
        let mut session = quiet(live).await?;
        // Whole seconds; less than one would not wait at all.
        let wait = until.saturating_duration_since(Instant::now()).as_secs() + 1;
        session.run(WHAT, &format!("SET lock_wait_timeout = {wait}")).await?;
        turn(&mut session, database, WHAT, wait).await?;
        // It ends with the session, at the latest.
        session.run(WHAT, &format!("LOCK TABLES {}", tables.join(", "))).await?;
        for post in missing {
            let (name, table, event) = &post;
            let statement = format!(
                "CREATE TRIGGER {} BEFORE {event} ON {} FOR EACH ROW \
                 IF {APPLYING} IS NULL THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{MESSAGE}'; END IF",
                quote(name),
                qualified(database, table)
            );
            session.run(WHAT, &statement).await?;
            made.push(post);
        }
        session.run(WHAT, "UNLOCK TABLES").await
    }
    .await;
    (made, result)
}

/// XA transactions that were prepared by sessions that are gone hold no table, and may still be committed.
async fn until_nothing_is_prepared(session: &mut Session, until: Instant) -> Result<()> {
    while !moment::prepared(session).await?.is_empty() {
        if Instant::now() >= until {
            let what = "the fence cannot be put up in time: an XA transaction is prepared";
            return Err(Failure::transient(session.item().to_owned(), what)
                .hint("end it (XA RECOVER shows it), or give it more time"));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Drops triggers, on several connections.
async fn remove(live: &Live, names: Vec<String>) -> Result<()> {
    let lanes = names.len().min(live.settings.connections);
    let names = Mutex::new(names);
    let lane = |_| async {
        let mut session = quiet(live).await?;
        session.run(DOWN, &format!("SET lock_wait_timeout = {DOWN_WAIT}")).await?;
        loop {
            let Some(name) = names.lock().await.pop() else { return Ok(()) };
            let drop = format!("DROP TRIGGER IF EXISTS {}", qualified(&live.settings.database, &name));
            session.run(DOWN, &drop).await?;
        }
    };
    join_all((0..lanes).map(lane)).await.into_iter().collect()
}

/// Takes the whole fence away.
pub async fn down(live: &Live) -> Result<()> {
    let mut session = live.session().await?;
    turn(&mut session, &live.settings.database, DOWN, DOWN_WAIT).await?;
    let there = standing(&mut session, &live.settings.database).await?;
    remove(live, there).await
}
