//! Views, routines, triggers and events at the target: made after the load, and made again at the final place.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Ddl, Schema};

use crate::accounts;
use crate::catalog::create::with_definer;
use crate::catalog::{Late, parse_late};
use crate::session::{Role, Session};
use crate::sql::{self, quote};

const ENABLED: &str = " PRESERVE ENABLE";
const DISABLED: &str = " PRESERVE DISABLE";
const OF_REPLICA: &str = " PRESERVE DISABLE ON SLAVE";

/// Where objects are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Beside the final place: events must not fire.
    Build,
    /// At the final place.
    Final,
}

fn is_late(ddl: &Ddl) -> bool {
    !matches!(ddl.kind.as_str(), "index" | "foreign key" | "table" | "sequence" | accounts::KIND)
}

/// What an event is like while it must not fire.
pub fn held_back(sql: &str) -> String {
    sql.replacen(ENABLED, DISABLED, 1)
}

/// What an event is like on a replica: what it does there comes from the primary.
pub fn of_replica(sql: &str) -> String {
    sql.replacen(ENABLED, OF_REPLICA, 1)
}

/// What an event of a replica is like on its primary.
pub fn of_primary(sql: &str) -> String {
    sql.replacen(OF_REPLICA, ENABLED, 1)
}

/// Names of what is there: kind and name.
async fn present(session: &mut Session, database: &str) -> Result<Vec<(String, String)>> {
    let here = sql::text(database);
    let query = format!(
        "SELECT 'view', table_name FROM information_schema.views WHERE table_schema = {here} \
         UNION ALL SELECT LOWER(routine_type), routine_name FROM information_schema.routines WHERE routine_schema = {here} \
         UNION ALL SELECT 'trigger', trigger_name FROM information_schema.triggers WHERE trigger_schema = {here} \
         UNION ALL SELECT 'event', event_name FROM information_schema.events WHERE event_schema = {here}"
    );
    let rows = session.records("objects cannot be listed", &query).await?;
    Ok(rows.iter().map(|row| (row.text(0), row.text(1))).collect())
}

/// Something other than tables stands in a database.
pub async fn any(session: &mut Session, database: &str) -> Result<bool> {
    Ok(!present(session, database).await?.is_empty())
}

/// Drops all of them.
pub async fn drop_all(session: &mut Session, database: &str, only: Option<&str>) -> Result<()> {
    for (kind, name) in present(session, database).await? {
        if only.is_some_and(|only| only != kind) {
            continue;
        }
        let statement =
            format!("DROP {} IF EXISTS {}.{}", kind.to_ascii_uppercase(), quote(database), quote(&name));
        let is_package = kind.starts_with("package");
        if is_package {
            // The word is known to this mode only.
            session.run("cannot be dropped", "SET sql_mode = ORACLE").await?;
        }
        session.run("cannot be dropped", &statement).await?;
        if is_package {
            session.reset(Role::Loader).await?;
        }
    }
    Ok(())
}

/// Makes those that are not there yet. What fails is tried again while anything gets on: they may need each other.
pub async fn make_all(session: &mut Session, database: &str, schema: &Schema, stage: Stage) -> Result<()> {
    let there = present(session, database).await?;
    let is_missing = |ddl: &&Ddl| {
        is_late(ddl)
            && !there.iter().any(|(kind, name)| *kind == ddl.kind && name.eq_ignore_ascii_case(&ddl.name))
    };
    let mut waiting: Vec<&Ddl> = schema.after_load.iter().filter(is_missing).collect();
    session.enter(database).await?;
    while !waiting.is_empty() {
        let (mut failed, mut first) = (Vec::new(), None);
        for ddl in &waiting {
            let definer = schema.state.get(&format!("definer/{}/{}", ddl.kind, ddl.name));
            if let Err(failure) = make(session, ddl, definer, stage).await {
                if failure.is_transient() {
                    return Err(failure);
                }
                first = first.or(Some(failure));
                failed.push(*ddl);
            }
        }
        match first {
            Some(failure) if failed.len() == waiting.len() => return Err(failure),
            _ => waiting = failed,
        }
    }
    Ok(())
}

async fn make(session: &mut Session, ddl: &Ddl, definer: Option<&String>, stage: Stage) -> Result<()> {
    let what = format!("{} {} cannot be made", ddl.kind, ddl.name);
    let late =
        parse_late(&ddl.sql).filter(|late| late.statement.starts_with("CREATE ")).ok_or_else(|| {
            Failure::permanent(session.item().to_owned(), format!("{what}: its definition is malformed"))
        })?;
    let mut done = Err(Failure::permanent(session.item().to_owned(), what.clone()));
    let known = match definer {
        Some(account) if is_known(session, account).await => Some(account),
        _ => None,
    };
    if definer.is_some() && known.is_none() {
        tracing::info!(
            kind = ddl.kind,
            name = ddl.name,
            "its definer is not known here: the connecting account takes its place"
        );
    }
    // Another's name in it takes a privilege of its own; without that, it is the connecting account's.
    for account in [known, None] {
        let mut statement = late.statement.clone();
        if ddl.kind == "event" && stage == Stage::Build {
            statement = held_back(&statement);
        }
        if let Some(account) = account {
            statement = with_definer(&statement, account);
        }
        done = run(session, &what, &late, &statement).await;
        let is_denied =
            done.as_ref().is_err_and(|f| f.causes.iter().any(|cause| cause.contains("(error 1227)")));
        if account.is_none() || !is_denied {
            break;
        }
    }
    session.reset(Role::Loader).await?;
    done
}

async fn run(session: &mut Session, what: &str, late: &Late, statement: &str) -> Result<()> {
    let zone =
        late.time_zone.as_ref().map_or(String::new(), |zone| format!(", time_zone = {}", sql::text(zone)));
    let immediate = sql::immediate(statement);
    let setting = format!(
        "SET character_set_client = {}, collation_connection = {}, sql_mode = {}{zone}",
        late.charset,
        late.collation,
        sql::text(&late.sql_mode)
    );
    session.run(what, &setting).await?;
    session.run(what, &immediate).await
}

/// The account exists at this server. Where that may not be asked for, it does not.
async fn is_known(session: &mut Session, account: &str) -> bool {
    let parts: Vec<String> =
        account.split("`@`").map(|part| part.trim_matches('`').replace("``", "`")).collect();
    let (user, host) = (&parts[0], parts.get(1).map_or("", String::as_str));
    let query = format!(
        "SELECT 1 FROM mysql.global_priv WHERE user = {} AND host = {}",
        sql::text(user),
        sql::text(host)
    );
    matches!(session.try_record(&query).await, Ok(Some(_)))
}
