//! One-step changes of the final place. Every step may be done again after a crash in its middle.

use std::collections::BTreeSet;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Ddl, Schema};

use super::late::{self, Stage};
use super::place::{self, Before, Names, State};
use crate::accounts;
use crate::catalog;
use crate::session::Session;
use crate::sql::{OURS, qualified, quote};

const WHAT: &str = "cannot be published";

/// Puts what was built in the final place.
pub async fn publish(session: &mut Session, names: &Names, state: &mut State) -> Result<()> {
    if !state.building {
        return Ok(());
    }
    let Some(schema) = state.schema.clone() else {
        return Err(Failure::permanent(session.item().to_owned(), "the database is not finished"));
    };
    if !state.publishing {
        if state.before.is_none() {
            state.before = Some(look(session, names).await?);
        }
        state.replaced = place::tables(session, &names.last).await?;
        // What the end of the last publication did not get to drop. Only now: later it holds what is replaced.
        place::drop_database(session, &names.gone).await?;
        state.publishing = true;
        place::write(session, names, state).await?;
    }
    session.run(WHAT, &format!("CREATE DATABASE IF NOT EXISTS {}{OURS}", quote(&names.last))).await?;
    // Tables with triggers cannot be renamed into another database, and what else is there gives way.
    late::drop_all(session, &names.build, None).await?;
    late::drop_all(session, &names.last, None).await?;
    let aside = if state.published { &names.gone } else { &names.kept };
    session.run(WHAT, &format!("CREATE DATABASE IF NOT EXISTS {}", quote(aside))).await?;
    let built = place::tables(session, &names.build).await?;
    let mut moves = Vec::new();
    let (away, here): (BTreeSet<String>, BTreeSet<String>) = (
        place::tables(session, aside).await?.into_iter().collect(),
        place::tables(session, &names.last).await?.into_iter().collect(),
    );
    for table in &state.replaced {
        if here.contains(table) && !away.contains(table) {
            moves.push((qualified(&names.last, table), qualified(aside, table)));
        }
    }
    moves.extend(built.iter().map(|table| (qualified(&names.build, table), qualified(&names.last, table))));
    rename(session, &moves).await?;
    place::set_charset(session, &names.last, &schema).await?;
    defaults(session, &names.build, &names.last).await?;
    late::make_all(session, &names.last, &schema, Stage::Final).await?;
    make_accounts(session, names, state, &schema).await?;
    place::unmark(session, names).await?;
    (state.building, state.publishing, state.published, state.continues) = (false, false, true, true);
    state.replaced.clear();
    place::write(session, names, state).await?;
    place::drop_database(session, &names.gone).await
}

/// Makes the accounts that are not there, and makes those of this migration anew that the source has changed since. Others are left
/// alone: what signs in with them here goes on.
async fn make_accounts(
    session: &mut Session,
    names: &Names,
    state: &mut State,
    schema: &Schema,
) -> Result<()> {
    for (account, statements) in accounts::of(&schema.after_load) {
        let name = account.to_string();
        let is_ours = state.accounts.contains(&name);
        match accounts::read(session, &account, &names.last).await? {
            Some(told) if is_ours && told.statements == statements => continue,
            Some(_) if is_ours => accounts::remove(session, &account).await?,
            Some(_) => {
                tracing::warn!(%account, "the account is there already: it stays as it is");
                continue;
            }
            None if is_ours => {}
            None => {
                state.accounts.push(name);
                place::write(session, names, state).await?;
            }
        }
        session.enter(&names.last).await?;
        accounts::make(session, &account, &statements, &names.last).await?;
    }
    Ok(())
}

/// The schema's accounts, as they are here. Those that are not made yet, and those that are left alone, count as what they should be.
pub async fn accounts(
    session: &mut Session,
    names: &Names,
    state: &State,
    intended: &Schema,
) -> Result<Vec<Ddl>> {
    let mut out = Vec::new();
    for (account, statements) in accounts::of(&intended.after_load) {
        let is_made = !state.building && state.accounts.contains(&account.to_string());
        let statements = if is_made {
            accounts::read(session, &account, &names.last).await?.map_or(Vec::new(), |told| told.statements)
        } else {
            statements.into_iter().map(str::to_owned).collect()
        };
        out.extend(accounts::ddl(&account, statements));
    }
    Ok(out)
}

/// What stands at the final place before the first publication.
async fn look(session: &mut Session, names: &Names) -> Result<Before> {
    if !place::exists(session, &names.last).await? {
        return Ok(Before { existed: false, tables: Vec::new(), schema: None });
    }
    session.enter(&names.last).await?;
    let schema = catalog::read(session, &names.last, &[]).await?.schema;
    Ok(Before { existed: true, tables: place::tables(session, &names.last).await?, schema: Some(schema) })
}

/// Renames all at once.
async fn rename(session: &mut Session, moves: &[(String, String)]) -> Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    let moves: Vec<String> = moves.iter().map(|(from, to)| format!("{from} TO {to}")).collect();
    // Foreign keys follow only while they are checked.
    session.run(WHAT, "SET foreign_key_checks = 1").await?;
    let done = session.run(WHAT, &format!("RENAME TABLE {}{OURS}", moves.join(", "))).await;
    session.run(WHAT, "SET foreign_key_checks = 0").await?;
    done
}

/// Defaults that name a sequence name its database too: they follow it.
async fn defaults(session: &mut Session, from: &str, to: &str) -> Result<()> {
    let (old, new) = (format!("nextval({}.", quote(from)), format!("nextval({}.", quote(to)));
    let query = format!(
        "SELECT table_name, column_name, column_default FROM information_schema.columns \
         WHERE table_schema = {} AND column_default LIKE '%nextval(%'",
        crate::sql::text(to)
    );
    for row in session.records(WHAT, &query).await? {
        let default = row.text(2);
        if !default.contains(&old) {
            continue;
        }
        let statement = format!(
            "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT ({}){OURS}",
            qualified(to, &row.text(0)),
            quote(&row.text(1)),
            default.replace(&old, &new)
        );
        session.run_on(&row.text(0), WHAT, &statement).await?;
    }
    Ok(())
}

/// What becomes of what was published when it is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is dropped.
    Dropped,
    /// Its tables and sequences are kept, in a database of their own.
    Kept,
}

/// Takes everything back.
pub async fn undo(session: &mut Session, names: &Names, state: Option<State>, fate: Fate) -> Result<()> {
    if let Some(mut state) = state.filter(|state| state.publishing || state.published)
        && let Some(before) = state.before.clone()
    {
        for account in state.accounts.iter().filter_map(|name| name.parse().ok()) {
            accounts::remove(session, &account).await?;
        }
        restore(session, names, &state, &before, fate).await?;
        // The server may still be about to drop the state for one that was cut short. Whoever goes on then must not begin to restore anew: with
        // the state gone in the middle of that, nobody would end it.
        (state.publishing, state.published) = (false, false);
        place::write(session, names, &state).await?;
    }
    // The state goes last: without it there is nothing to undo.
    for database in [&names.gone, &names.kept, &names.build] {
        place::drop_database(session, database).await?;
    }
    Ok(())
}

async fn restore(
    session: &mut Session,
    names: &Names,
    state: &State,
    before: &Before,
    fate: Fate,
) -> Result<()> {
    if !before.existed && fate == Fate::Dropped {
        return place::drop_database(session, &names.last).await;
    }
    late::drop_all(session, &names.last, None).await?;
    let aside = if fate == Fate::Kept { &names.aborted } else { &names.gone };
    session.run(WHAT, &format!("CREATE DATABASE IF NOT EXISTS {}", quote(aside))).await?;
    let kept: BTreeSet<String> = place::tables(session, &names.kept).await?.into_iter().collect();
    let mut moves = Vec::new();
    let mut dropped = Vec::new();
    for table in place::tables(session, &names.last).await? {
        let is_from_before = before.tables.contains(&table) && !kept.contains(&table);
        // While the first publication has not got to its renames, what stands here is not ours.
        let is_ours = !is_from_before && (state.published || !kept.is_empty() || before.tables.is_empty());
        if is_ours {
            moves.push((qualified(&names.last, &table), qualified(aside, &table)));
            dropped.push(table);
        }
    }
    // What an interrupted publication or undo has moved there is dropped with it; names must be free.
    for table in place::tables(session, &names.gone).await? {
        if dropped.contains(&table) {
            session.run(WHAT, &format!("DROP TABLE IF EXISTS {}", qualified(&names.gone, &table))).await?;
        }
    }
    moves.extend(kept.iter().map(|table| (qualified(&names.kept, table), qualified(&names.last, table))));
    rename(session, &moves).await?;
    if fate == Fate::Kept {
        settle_aside(session, names, state).await?;
    }
    if !before.existed {
        return place::drop_database(session, &names.last).await;
    }
    if let Some(schema) = &before.schema {
        place::set_charset(session, &names.last, schema).await?;
        defaults(session, &names.kept, &names.last).await?;
        late::make_all(session, &names.last, schema, Stage::Final).await?;
    }
    Ok(())
}

/// Makes what is kept whole by itself, or drops its database where nothing was there to keep.
async fn settle_aside(session: &mut Session, names: &Names, state: &State) -> Result<()> {
    if place::tables(session, &names.aborted).await?.is_empty() {
        return place::drop_database(session, &names.aborted).await;
    }
    if let Some(schema) = &state.schema {
        place::set_charset(session, &names.aborted, schema).await?;
    }
    defaults(session, &names.last, &names.aborted).await
}
