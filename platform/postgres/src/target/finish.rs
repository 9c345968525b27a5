//! What changes with the rows, after the second half of the schema: positions of sequences, materialized views, owners,
//! grants, statistics.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::Schema;
use tokio_postgres::error::SqlState;

use crate::Settings;
use crate::catalog::grants;
use crate::connect::Conn;
use crate::error::{describe, failed};
use crate::sql::{literal, quote, statements};
use crate::trust::refused;

/// Sequences that are set with one statement.
const TOGETHER: usize = 200;

/// Sets everything. Idempotent. Statistics may be left for later.
pub async fn state(
    item: &str,
    conn: &Conn,
    settings: &Settings,
    schema: &Schema,
    analyze: bool,
) -> Result<()> {
    sequences(item, conn, schema).await?;
    for (_, view) in with_prefix(schema, "refresh/") {
        let sql = format!("REFRESH MATERIALIZED VIEW {view}");
        run(item, conn, &sql, &format!("the materialized view {view} cannot be filled")).await?;
    }
    if settings.owners {
        owners(item, conn, schema).await?;
        super::large::owners(item, conn, schema).await?;
    }
    if analyze {
        run(item, conn, "ANALYZE", "statistics cannot be made").await?;
    }
    Ok(())
}

/// What the schema's state holds under names with this prefix, without it.
pub(super) fn with_prefix<'a>(
    schema: &'a Schema,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    schema.state.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_str())))
}

async fn run(item: &str, conn: &Conn, sql: &str, what: &str) -> Result<()> {
    if let Some(why) = statements(sql).into_iter().filter(|s| *s != "ANALYZE").find_map(refused) {
        return Err(Failure::permanent(item, format!("{what}: {why}")));
    }
    conn.execute(sql, &[]).await.map(drop).map_err(|e| failed(item, what, &e))
}

/// Sets sequences to where they stand.
pub async fn sequences(item: &str, conn: &Conn, schema: &Schema) -> Result<()> {
    let mut calls = Vec::new();
    for (name, position) in with_prefix(schema, "sequence/") {
        let parts =
            position.split_once(' ').and_then(|(n, called)| Some((n.parse::<i64>().ok()?, called == "t")));
        let (last, called) =
            parts.ok_or_else(|| Failure::permanent(item, "the position of a sequence is malformed"))?;
        calls.push(format!("pg_catalog.setval({}, {last}, {called})", literal(name)));
    }
    for batch in calls.chunks(TOGETHER) {
        let sql = format!("SELECT {}", batch.join(", "));
        conn.batch_execute(&sql).await.map_err(|e| failed(item, "sequences cannot be set", &e))?;
    }
    Ok(())
}

/// Gives objects their owners and grants, as far as the roles exist here and we may. What is left out is logged.
async fn owners(item: &str, conn: &Conn, schema: &Schema) -> Result<()> {
    let sql = "SELECT rolname FROM pg_catalog.pg_roles \
               WHERE rolname <> current_user AND pg_catalog.pg_has_role(current_user, oid, 'MEMBER')";
    let rows = conn.rows(sql).await.map_err(|e| failed(item, "roles cannot be looked at", &e))?;
    let roles: Vec<String> = rows.into_iter().flatten().flatten().collect();
    let mut missing = std::collections::BTreeSet::new();
    // A new owner needs the right to make objects in the schema, and in `public` the database's owner has it: these come first.
    let name = conn.text("SELECT pg_catalog.current_database()").await;
    let name = name.map_err(|e| failed(item, "its name cannot be asked for", &e))?.unwrap_or_default();
    if let Some(role) = schema.state.get("database/owner").filter(|role| roles.contains(role)) {
        let sql = format!("ALTER DATABASE {} OWNER TO {}", quote(&name), quote(role));
        try_to(item, conn, &sql).await?;
    }
    // Sequences last: those that belong to a column have its table's owner by then, and can have no other.
    let rank = |what: &str| match what.split(' ').next() {
        Some("SCHEMA") => 0,
        Some("SEQUENCE") => 2,
        _ => 1,
    };
    let mut owned: Vec<(&str, &str)> = with_prefix(schema, "owner/").collect();
    owned.sort_by_key(|(what, _)| rank(what));
    let (schemas, others) = owned.split_at(owned.partition_point(|(what, _)| rank(what) == 0));
    // Who is to own something in a schema may need a grant on the schema.
    let (on_schemas, on_others): (Vec<_>, Vec<_>) = with_prefix(schema, "grant/")
        .map(|(_, grant)| grant)
        .partition(|grant| grant.contains(" ON SCHEMA "));
    for (owned, given) in [(schemas, on_schemas), (others, on_others)] {
        for (what, role) in owned {
            if !roles.iter().any(|known| known == role) {
                missing.insert(*role);
                continue;
            }
            attempt(item, conn, &name, &format!("ALTER {what} OWNER TO {}", quote(role))).await?;
        }
        for grant in given {
            attempt(item, conn, &name, grant).await?;
        }
    }
    if !missing.is_empty() {
        tracing::info!(item, roles = ?missing, "objects of these roles stay with the loading role");
    }
    Ok(())
}

/// Runs, in the database of this name, what may fail for want of a role or a privilege.
async fn attempt(item: &str, conn: &Conn, database: &str, sql: &str) -> Result<()> {
    for statement in statements(sql) {
        if let Some(why) = refused(statement) {
            tracing::warn!(item, why, "a grant is left out");
            continue;
        }
        let Some(statement) = grants::with_name(statement, database) else {
            tracing::warn!(item, "a grant on another database is left out");
            continue;
        };
        try_to(item, conn, &statement).await?;
    }
    Ok(())
}

async fn try_to(item: &str, conn: &Conn, statement: &str) -> Result<()> {
    let Err(error) = conn.execute(statement, &[]).await else { return Ok(()) };
    let passable = [SqlState::UNDEFINED_OBJECT, SqlState::INSUFFICIENT_PRIVILEGE];
    if !error.code().is_some_and(|code| passable.contains(code)) {
        return Err(failed(item, "owners and grants cannot be set", &error));
    }
    tracing::warn!(item, error = describe(&error), "an owner or grant is left out");
    Ok(())
}
