//! Triggers of a database that is written to behind its fence: they would act a second time on rows that come with what they have done
//! already, so they are kept in a table of our own meanwhile.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::Schema;

use super::{Live, fence};
use crate::catalog::{self, OWN};
use crate::privileges;
use crate::session::{Role, Session};
use crate::sql::{qualified, quote, text};
use crate::target::late::{self, Stage};

const WHAT: &str = "triggers cannot be put aside";
const BACK: &str = "triggers that were put aside cannot be put back";
/// Seconds that a trigger waits for the transactions that have used its table. Whoever comes to the table meanwhile waits behind it, and so does a
/// cut-over that is called off.
const WAIT: u64 = 10;
/// Seconds that another session is waited for which is at the triggers.
const TURN: u64 = 60;

fn table(live: &Live) -> String {
    qualified(&live.settings.database, &format!("{OWN}triggers"))
}

async fn session(live: &Live) -> Result<Session> {
    let mut session = Session::open(&live.dataset, &live.settings, Role::Loader).await?;
    session.enter(&live.settings.database).await?;
    Ok(session)
}

/// Whether anything may be put aside.
async fn is_any(live: &Live, session: &mut Session, what: &str) -> Result<bool> {
    let query = format!(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = {} AND table_name = '{OWN}triggers'",
        text(&live.settings.database)
    );
    Ok(!session.records(what, &query).await?.is_empty())
}

/// What was put aside, where anything may be; `None` where nothing was.
async fn kept(live: &Live, session: &mut Session, what: &str) -> Result<Option<Schema>> {
    // Made before it is filled: of one that is empty nothing was dropped.
    let rows = session.records(what, &format!("SELECT json FROM {}", table(live))).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let schema = serde_json::from_str(&row.text(0));
    schema.map(Some).map_err(|e| Failure::permanent(session.item().to_owned(), what).because(e))
}

/// Puts them aside. Idempotent.
pub async fn put(live: &Live) -> Result<()> {
    let mut session = session(live).await?;
    fence::turn(&mut session, &live.settings.database, WHAT, TURN).await?;
    let is_any = is_any(live, &mut session, WHAT).await?;
    let there = match if is_any { kept(live, &mut session, WHAT).await? } else { None } {
        Some(there) => there,
        None => {
            let mut schema = catalog::read(&mut session, &live.settings.database, &[]).await?.schema;
            schema.before_load.clear();
            schema.tables.clear();
            schema.after_load.retain(|ddl| ddl.kind == "trigger");
            schema.state.retain(|key, _| key.starts_with("definer/trigger/"));
            if schema.after_load.is_empty() {
                return Ok(());
            }
            check_definers(&mut session, &schema).await?;
            let json = serde_json::to_string(&schema)
                .map_err(|e| Failure::permanent(session.item(), WHAT).because(e))?;
            let make = format!(
                "CREATE TABLE IF NOT EXISTS {} (n INT PRIMARY KEY, json LONGTEXT CHARACTER SET utf8mb4) ENGINE = InnoDB",
                table(live)
            );
            session.run(WHAT, &make).await?;
            session.run(WHAT, &format!("REPLACE INTO {} VALUES (1, {})", table(live), text(&json))).await?;
            schema
        }
    };
    session.run(WHAT, &format!("SET lock_wait_timeout = {WAIT}")).await?;
    for ddl in &there.after_load {
        let dropped = session.run(WHAT, &format!("DROP TRIGGER IF EXISTS {}", quote(&ddl.name))).await;
        dropped.map_err(|failure| {
            if !fence::is_late(&failure) {
                return failure;
            }
            failure.hint("end long transactions that have read its table (SHOW PROCESSLIST)")
        })?;
    }
    Ok(())
}

/// Refuses triggers that could not be made again as they are.
async fn check_definers(session: &mut Session, schema: &Schema) -> Result<()> {
    let own = session.record(WHAT, "SELECT CURRENT_USER()").await?.text(0);
    let is_other = |definer: &&String| definer.replace('`', "") != own;
    let Some(definer) = schema.state.values().find(is_other) else { return Ok(()) };
    if privileges::may_set_user(session).await? {
        return Ok(());
    }
    let what = format!("a trigger runs as {definer}, and could not be made again so after it was put aside");
    Err(Failure::operator(session.item().to_owned(), what).hint(
        "GRANT SET USER ON *.* to the account of the source's `url`, or plan with --one-way: then the source does not follow the target",
    ))
}

/// Puts them back. Idempotent.
pub async fn put_back(live: &Live) -> Result<()> {
    let mut session = session(live).await?;
    // One that is still about to be dropped would be gone for good: what is kept of it goes with this.
    fence::turn(&mut session, &live.settings.database, BACK, TURN).await?;
    // Whose source never follows back may not drop it (DROP is no privilege for the fence).
    if !is_any(live, &mut session, BACK).await? {
        return Ok(());
    }
    if let Some(schema) = kept(live, &mut session, BACK).await? {
        late::make_all(&mut session, &live.settings.database, &schema, Stage::Final).await?;
    }
    session.run(BACK, &format!("DROP TABLE IF EXISTS {}", table(live))).await
}
