//! Following: what changes at the source arrives by key, nothing is told too early, and a fence holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::change::{Change, Changes, LogPosition};
use handover_engine::name::CaptureId;
use handover_engine::ports::{
    Database, DatabaseSnapshot, DatabaseTarget, FencedDatabase, KeyedTarget, LiveDatabase, Result,
};
use handover_engine::rows::{Key, KeyRange, KeyedRows, TableName};

use super::{BUDGET, Subject, all_chunks, migration};

/// How long a call may wait for changes.
const WAIT: Duration = Duration::from_millis(200);

/// A subject whose source can be followed.
#[async_trait]
pub trait LiveSubject: Subject {
    /// The source, live. Asking again is a restart of the agent: nothing may be shared with what was handed out before.
    fn live(&self) -> Arc<dyn LiveDatabase>;

    /// One small write to a table of the source that is followed, by a connection of its own; false when it is refused.
    async fn write(&self) -> bool;

    /// What captures and fences have put into the source, as text; empty when there is nothing.
    async fn traces(&self) -> String;

    /// The same of what an abort has kept at a place.
    async fn traces_at(&self, place: &str) -> String;

    /// The source, to be written to behind its fence. Asking again is a restart of the agent.
    fn fenced(&self) -> Arc<dyn FencedDatabase>;

    /// What was published at the target, as a database that is followed. Asking again is a restart of the agent.
    fn successor(&self) -> (Arc<dyn Database>, Arc<dyn LiveDatabase>);

    /// As `mutate`, of what was published.
    async fn mutate_successor(&self);
}

/// Checks everything that is promised of followed databases, each on a fresh subject.
pub async fn live_contract<S: LiveSubject>(make: impl Fn() -> S) -> Result<()> {
    changes_arrive(&make()).await?;
    changes_during_the_copy_arrive(&make()).await?;
    what_was_told_is_told_again(&make()).await?;
    beginning_twice_loses_nothing(&make()).await?;
    rows_come_within_the_budget(&make()).await?;
    a_fence_holds_until_it_is_taken_away(&make()).await?;
    super::back::what_is_written_there_comes_home(&make()).await?;
    super::kept::what_is_kept_is_free(&make()).await?;
    the_end_leaves_nothing(&make()).await
}

pub(super) fn capture() -> CaptureId {
    match "contract".parse() {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

/// Carries changes from `after` to the end of the log; where that is.
pub async fn follow(
    live: &dyn LiveDatabase,
    target: &dyn KeyedTarget,
    after: LogPosition,
) -> Result<LogPosition> {
    follow_as(&capture(), live, target, after).await
}

/// As [`follow`], what is kept for some capture.
pub(super) async fn follow_as(
    capture: &CaptureId,
    live: &dyn LiveDatabase,
    target: &dyn KeyedTarget,
    mut after: LogPosition,
) -> Result<LogPosition> {
    loop {
        let changes = live.changes(capture, &after, WAIT).await?;
        carry(live, target, &changes).await?;
        after = changes.until;
        live.confirm(capture, &after).await?;
        if changes.is_end {
            return Ok(after);
        }
    }
}

/// Carries one part of the log.
async fn carry(live: &dyn LiveDatabase, target: &dyn KeyedTarget, changes: &Changes) -> Result<()> {
    let mut dirty: BTreeMap<&TableName, Vec<Key>> = BTreeMap::new();
    for change in &changes.changes {
        let table = &changes.tables[change.table() as usize];
        let keys = dirty.entry(table).or_default();
        match change {
            Change::Row { key, .. } => keys.push(key.clone()),
            Change::Cleared { .. } => target.clear(table).await?,
            Change::Children { columns, values, .. } => {
                keys.extend(target.children(table, columns, std::slice::from_ref(values)).await?);
            }
        }
    }
    for (table, mut keys) in dirty {
        while !keys.is_empty() {
            let chunk = live.rows(table, &keys, BUDGET).await?;
            let done = chunk.header.range.until.as_ref();
            let done = keys.iter().position(|key| Some(key) == done).map_or(0, |at| at + 1);
            assert!(done > 0, "table {table}: no key is looked up");
            let rest = keys.split_off(done);
            target.apply_keys(&[KeyedRows { keys, chunk }]).await?;
            keys = rest;
        }
    }
    Ok(())
}

/// The followed tables hold the rows of the view.
async fn assert_followed(view: &dyn DatabaseSnapshot, target: &dyn DatabaseTarget, when: &str) -> Result<()> {
    let followed: Vec<_> = view.schema().tables.iter().filter(|table| table.followed).collect();
    assert!(!followed.is_empty(), "no table can be followed");
    for table in followed {
        let there = view.read(&table.name, &KeyRange::default(), u64::MAX).await?;
        let here = target.reread(&table.name, &KeyRange::default()).await?;
        assert!(
            here.block == there.block,
            "{when}: table {} has other rows:\n{}\nthere:\n{}",
            table.name,
            here.block.escape_ascii(),
            there.block.escape_ascii()
        );
        let parts = in_parts(target, &table.name).await?;
        assert!(parts == there.block, "{when}: table {} has other rows when it is read in parts", table.name);
    }
    Ok(())
}

/// The rows of a table that is read again part by part.
async fn in_parts(target: &dyn DatabaseTarget, table: &TableName) -> Result<Vec<u8>> {
    let (mut out, mut range) = (Vec::new(), KeyRange::default());
    loop {
        let chunk = target.reread_part(table, &range, BUDGET).await?;
        assert!(chunk.is_whole() && chunk.header.range.after == range.after, "table {table}: another part");
        assert!(
            chunk.header.rows > 0 || chunk.header.range.until.is_none(),
            "table {table}: it gets nowhere"
        );
        out.extend_from_slice(&chunk.block);
        range.after = chunk.header.range.until;
        if range.after.is_none() {
            return Ok(out);
        }
    }
}

/// A target with all of a view's rows, ready for changes.
pub(super) async fn copied(
    subject: &impl LiveSubject,
    view: &dyn DatabaseSnapshot,
) -> Result<Arc<dyn DatabaseTarget>> {
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    super::load::apply(&*target, &all_chunks(view).await?).await?;
    target.index(view.schema()).await?;
    target.index(view.schema()).await?;
    Ok(target)
}

/// Changes after the copy arrive, and the finished database is whole.
async fn changes_arrive(subject: &impl LiveSubject) -> Result<()> {
    let live = subject.live();
    let mut after = live.begin(&capture()).await?;
    let view = subject.source().snapshot().await?;
    let target = copied(subject, &*view).await?;
    assert_followed(&*view, &*target, "after the copy").await?;
    drop(view);
    for round in 0..3 {
        subject.mutate().await;
        assert!(subject.write().await, "a write is refused");
        after = follow(&*live, &*target, after).await?;
        let view = subject.source().snapshot().await?;
        assert_followed(&*view, &*target, &format!("after round {round}")).await?;
    }
    let view = subject.source().snapshot().await?;
    for table in view.schema().tables.iter().filter(|table| !table.followed) {
        let whole = view.read(&table.name, &KeyRange::default(), u64::MAX).await?;
        target.apply(&[whole]).await?;
    }
    target.finish(view.schema()).await?;
    super::assert_equal(&*view, &*target, "after finishing").await?;
    target.publish().await?;
    target.settle().await?;
    super::assert_finished(&*view, &*target, "after publishing").await?;
    live.end(&capture(), false).await?;
    target.undo().await
}

/// Changes that are made while the copy is read arrive too, whatever the copy saw of them.
async fn changes_during_the_copy_arrive(subject: &impl LiveSubject) -> Result<()> {
    let live = subject.live();
    let after = live.begin(&capture()).await?;
    subject.mutate().await;
    let view = subject.source().snapshot().await?;
    subject.mutate().await;
    let target = copied(subject, &*view).await?;
    drop(view);
    follow(&*live, &*target, after).await?;
    let view = subject.source().snapshot().await?;
    assert_followed(&*view, &*target, "after following").await?;
    live.end(&capture(), false).await?;
    target.undo().await
}

/// An answer that was lost can be asked for again, also by an agent that was started anew.
async fn what_was_told_is_told_again(subject: &impl LiveSubject) -> Result<()> {
    let live = subject.live();
    let begun = live.begin(&capture()).await?;
    let view = subject.source().snapshot().await?;
    let target = copied(subject, &*view).await?;
    drop(view);
    subject.mutate().await;
    assert!(subject.write().await, "a write is refused");
    let lost = live.changes(&capture(), &begun, WAIT).await?;
    assert!(!lost.changes.is_empty(), "nothing is told of a change");
    drop(live);
    subject.mutate().await;
    let live = subject.live();
    assert_ne!(live.changes(&capture(), &begun, WAIT).await?.changes.len(), 0, "nothing is told again");
    follow(&*live, &*target, begun).await?;
    let view = subject.source().snapshot().await?;
    assert_followed(&*view, &*target, "after a restart").await?;
    live.end(&capture(), false).await?;
    target.undo().await
}

/// `begin` may be asked again, by an agent that lost the answer.
async fn beginning_twice_loses_nothing(subject: &impl LiveSubject) -> Result<()> {
    let begun = subject.live().begin(&capture()).await?;
    let view = subject.source().snapshot().await?;
    let target = copied(subject, &*view).await?;
    drop(view);
    subject.mutate().await;
    let live = subject.live();
    live.begin(&capture()).await?;
    subject.mutate().await;
    follow(&*live, &*target, begun).await?;
    let view = subject.source().snapshot().await?;
    assert_followed(&*view, &*target, "after beginning twice").await?;
    live.end(&capture(), false).await?;
    target.undo().await
}

/// Rows are read a few at a time, each once, and a key that has no row brings none.
async fn rows_come_within_the_budget(subject: &impl LiveSubject) -> Result<()> {
    let live = subject.live();
    let view = subject.source().snapshot().await?;
    for table in view.schema().tables.iter().filter(|table| table.followed) {
        let mut keys = Vec::new();
        for chunk in super::chunks(&*view, &table.name, 1).await? {
            keys.extend(chunk.header.range.until);
        }
        let (mut rest, mut rows, mut calls) = (keys.as_slice(), 0, 0);
        while !rest.is_empty() {
            let chunk = live.rows(&table.name, rest, BUDGET).await?;
            assert!(chunk.is_whole(), "a chunk is not what its header says");
            let until = chunk.header.range.until.as_ref();
            let done = rest.iter().position(|key| Some(key) == until).map_or(0, |at| at + 1);
            assert!(done > 0, "table {}: no key is looked up", table.name);
            (rest, rows, calls) = (&rest[done..], rows + chunk.header.rows, calls + 1);
        }
        let whole = view.read(&table.name, &KeyRange::default(), u64::MAX).await?.header;
        // The last chunk of a table ends at no key.
        assert!(whole.rows - rows <= 1, "table {}: {rows} of {} rows", table.name, whole.rows);
        assert!(
            calls > 1 || whole.bytes < 100 * BUDGET,
            "table {}: {} bytes came at once",
            table.name,
            whole.bytes
        );
    }
    Ok(())
}

/// Nobody writes behind a fence, whatever becomes of the agent; nothing is told after the end of the log.
async fn a_fence_holds_until_it_is_taken_away(subject: &impl LiveSubject) -> Result<()> {
    let live = subject.live();
    let after = live.begin(&capture()).await?;
    assert!(subject.write().await, "a write is refused before the fence");
    live.fence(&capture(), Duration::from_secs(5)).await?;
    live.fence(&capture(), Duration::from_secs(5)).await?;
    assert!(!subject.write().await, "a write gets through the fence");
    drop(live);
    let live = subject.live();
    assert!(!subject.write().await, "the fence is gone with the agent");
    let mut told = live.changes(&capture(), &after, WAIT).await?;
    while !told.is_end {
        told = live.changes(&capture(), &told.until, WAIT).await?;
    }
    let nothing = live.changes(&capture(), &told.until, WAIT).await?;
    assert!(nothing.changes.is_empty() && nothing.is_end, "the fence itself is told of: {nothing:?}");
    // A copy behind the fence has nothing of it.
    let view = subject.source().snapshot().await?;
    let text = format!("{:?}", view.schema().after_load).to_lowercase();
    assert!(!text.contains("handover"), "the fence is part of the schema: {text}");
    live.unfence(&capture()).await?;
    live.unfence(&capture()).await?;
    assert!(subject.write().await, "the fence does not go away");
    live.end(&capture(), false).await
}

/// The end of a capture removes all it has put there, the fence too.
async fn the_end_leaves_nothing(subject: &impl LiveSubject) -> Result<()> {
    let live = subject.live();
    live.end(&capture(), false).await?;
    assert_eq!(live.kept(&capture()).await?, None, "something is kept before it is asked for");
    let begun = live.begin(&capture()).await?;
    subject.mutate().await;
    let kept = live.kept(&capture()).await?;
    assert_eq!(kept.is_some(), !subject.traces().await.is_empty(), "{kept:?}");
    // Of tables that cannot be followed nothing is kept.
    let is_told = !live.changes(&capture(), &begun, WAIT).await?.changes.is_empty();
    assert!(kept != Some(0) || !is_told, "nothing is kept, and it is told nevertheless");
    live.fence(&capture(), Duration::from_secs(5)).await?;
    drop(live);
    let live = subject.live();
    live.end(&capture(), true).await?;
    assert!(!subject.write().await, "the fence goes with the capture although it is to be kept");
    live.end(&capture(), false).await?;
    live.end(&capture(), false).await?;
    assert_eq!(subject.traces().await, "", "something is left");
    assert_eq!(live.kept(&capture()).await?, None);
    assert!(subject.write().await, "the fence is left");
    Ok(())
}
