//! The copy that a replica begins with: read from one snapshot of its primary, built beside the final place and put there, as by any
//! migration. What stood there is kept in the replica itself until it is forgotten.

use std::sync::atomic::{AtomicU64, Ordering};

use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::{DatabaseSnapshot, DatabaseTarget, Result};
use handover_engine::rows::{KeyRange, TableName};

use super::{Shared, compare};
use crate::database::Snapshot;
use crate::session::Session;
use crate::target::{MariaTarget, late};

/// Text bytes of a chunk.
const BUDGET: u64 = 4 << 20;

/// The copies have names of their own: what the primary does to those of the migration itself reaches the replica by its log.
fn target(one: &Shared, migration: &MigrationId) -> Result<MariaTarget> {
    let digest = handover_engine::digest::Digest::of(migration.as_str().as_bytes()).short();
    let own = format!("replica-{digest}").parse::<MigrationId>();
    let own = own.map_err(|error| Failure::permanent("replica", "its copy has no name").because(error))?;
    Ok(MariaTarget::new(one.dataset.clone(), one.replica.clone(), &own))
}

/// Copies everything, and counts its rows; the position that was copied.
pub async fn seed(
    shared: &[Shared],
    migration: &MigrationId,
    item: &str,
    rows: &AtomicU64,
) -> Result<String> {
    undo(shared, migration).await?;
    let views = compare::views(shared, |one| &one.primary).await?;
    let one = shared.first().ok_or_else(|| Failure::permanent(item, "no database is named for it"))?;
    let mut primary = Session::open(&one.dataset, &one.primary, crate::session::Role::Reader).await?;
    let position = position(&views, &mut primary).await?;
    let mut targets = Vec::new();
    for (one, view) in shared.iter().zip(&views) {
        let target = target(one, migration)?;
        copy(view, &target, rows).await?;
        targets.push(target);
    }
    drop(views);
    for target in targets {
        target.publish().await?;
    }
    Ok(position)
}

async fn copy(view: &Snapshot, target: &MariaTarget, rows: &AtomicU64) -> Result<()> {
    let mut schema = view.schema().clone();
    for event in schema.after_load.iter_mut().filter(|ddl| ddl.kind == "event") {
        event.sql = late::of_replica(&event.sql);
    }
    target.prepare(&schema).await?;
    for table in &schema.tables {
        copy_table(view, target, &table.name, rows).await?;
    }
    target.index(&schema).await?;
    target.finish(&schema).await
}

/// The next chunk is read while one is applied.
async fn copy_table(
    view: &Snapshot,
    target: &MariaTarget,
    table: &TableName,
    rows: &AtomicU64,
) -> Result<()> {
    let mut chunk = view.read(table, &KeyRange::default(), BUDGET).await?;
    loop {
        let count = chunk.header.rows;
        let Some(after) = chunk.header.range.until.clone() else {
            target.apply(&[chunk]).await?;
            rows.fetch_add(count, Ordering::Relaxed);
            return Ok(());
        };
        let rest = KeyRange { after: Some(after), until: None };
        let applied = [chunk];
        let (next, ()) = tokio::try_join!(view.read(table, &rest, BUDGET), target.apply(&applied))?;
        rows.fetch_add(count, Ordering::Relaxed);
        chunk = next;
    }
}

/// The position in the primary's log that views are of.
pub async fn position(views: &[Snapshot], primary: &mut Session) -> Result<String> {
    let state = views.first().map(|view| &view.schema().state);
    let told = state.and_then(|state| state.get("binlog/gtid")).cloned().unwrap_or_default();
    if told.is_empty() {
        let now =
            primary.record("its log cannot be asked", "SELECT @@log_bin, @@global.gtid_binlog_pos").await?;
        if now.text(0) != "1" || !now.text(1).is_empty() {
            return Err(Failure::operator(
                primary.item().to_owned(),
                "its position in its binary log is not known",
            )
            .hint("switch its binary log on, and GRANT RELOAD, BINLOG MONITOR to the agent's account"));
        }
    }
    Ok(told)
}

/// Takes back what was copied: what stood there before is there again.
pub async fn undo(shared: &[Shared], migration: &MigrationId) -> Result<()> {
    for one in shared {
        target(one, migration)?.undo().await?;
    }
    Ok(())
}

/// What stood there before goes for good.
pub async fn forget(shared: &[Shared], migration: &MigrationId) -> Result<()> {
    for one in shared {
        target(one, migration)?.forget().await?;
    }
    Ok(())
}
