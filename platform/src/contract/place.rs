//! The final place: publishing, undoing, forgetting.

use std::sync::Arc;

use handover_engine::name::MigrationId;
use handover_engine::ports::{DatabaseSnapshot, DatabaseTarget, Result};
use handover_engine::rows::KeyRange;

use super::load::apply;
use super::{Subject, all_chunks, assert_equal, assert_finished, migration};

type Published = (Arc<dyn DatabaseSnapshot>, Arc<dyn DatabaseTarget>);

/// Loads everything and publishes it.
pub(super) async fn publish(subject: &impl Subject) -> Result<Published> {
    publish_as(subject, &migration()).await
}

/// The same as some migration.
pub(super) async fn publish_as(subject: &impl Subject, migration: &MigrationId) -> Result<Published> {
    let view = subject.source().snapshot().await?;
    let target = subject.target(migration);
    target.prepare(view.schema()).await?;
    apply(&*target, &all_chunks(&*view).await?).await?;
    target.finish(view.schema()).await?;
    target.publish().await?;
    Ok((view, target))
}

/// Nothing shows before `publish`; it replaces what stood there; `undo` brings that back. Each may be done again.
pub async fn publishing_and_undoing(subject: &impl Subject, occupied: bool) -> Result<()> {
    if occupied {
        subject.occupy().await;
    }
    let before = subject.standing().await;
    assert_eq!(before.is_some(), occupied);
    let target = subject.target(&migration());
    assert_eq!(target.occupied().await?.is_some(), occupied, "`occupied` sees something else");
    assert!(!target.is_prepared().await?, "prepared before `prepare`");
    let view = subject.source().snapshot().await?;
    target.prepare(view.schema()).await?;
    assert!(subject.target(&migration()).is_prepared().await?, "not prepared after `prepare`");
    apply(&*target, &all_chunks(&*view).await?).await?;
    target.finish(view.schema()).await?;
    assert_eq!(subject.standing().await, before, "the unfinished database shows at the final place");
    drop(target);

    let (view, target) = publish(subject).await?;
    let published = subject.standing().await;
    assert!(published.is_some() && published != before, "what was published does not show");
    assert_finished(&*view, &*target, "after publishing").await?;
    target.publish().await?;
    drop(target);
    let target = subject.target(&migration());
    target.publish().await?;
    assert_eq!(subject.standing().await, published, "publishing twice changes something");
    assert!(target.is_prepared().await?, "not prepared after `publish`");
    assert_finished(&*view, &*target, "after publishing again").await?;
    assert!(target.occupied().await?.is_some());

    target.undo().await?;
    assert_eq!(subject.standing().await, before, "undo does not bring back what stood there");
    assert!(!target.is_prepared().await?, "prepared after `undo`");
    target.undo().await?;
    subject.target(&migration()).undo().await?;
    assert_eq!(subject.standing().await, before, "undo twice changes something");
    Ok(())
}

/// What was finished and not published, since verification found it to differ, takes chunks again: the pass after it.
pub async fn a_finished_database_can_be_mended(subject: &impl Subject) -> Result<()> {
    let view = subject.source().snapshot().await?;
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    let held = all_chunks(&*view).await?;
    apply(&*target, &held).await?;
    target.finish(view.schema()).await?;
    drop(target);
    subject.mutate().await;
    let view = subject.source().snapshot().await?;
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    for chunk in &held {
        let now = view.read(&chunk.header.table, &chunk.header.range, u64::MAX).await?;
        apply(&*target, &[now]).await?;
    }
    target.finish(view.schema()).await?;
    assert_finished(&*view, &*target, "after mending").await?;
    assert_eq!(subject.standing().await, None, "mending shows at the final place");
    target.publish().await?;
    assert_finished(&*view, &*target, "after publishing what was mended").await?;
    target.undo().await
}

/// `undo` of a load that was not published leaves what stands at the final place alone, and nothing of the load.
pub async fn undoing_what_was_never_published(subject: &impl Subject) -> Result<()> {
    subject.occupy().await;
    let before = subject.standing().await;
    subject.target(&migration()).undo().await?;
    assert_eq!(subject.standing().await, before, "undo of nothing changes something");
    let view = subject.source().snapshot().await?;
    let chunks = all_chunks(&*view).await?;
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    apply(&*target, &chunks).await?;
    target.undo().await?;
    assert_eq!(subject.standing().await, before, "undo changes what it did not make");
    // Another migration may begin now, and finds nothing of this one.
    let other = subject.target(&super::named("another"));
    other.prepare(view.schema()).await?;
    assert_empty(&*view, &*other).await?;
    other.undo().await
}

/// The larger tables have lost most of their rows; an engine may put a few of its own into a new table.
pub async fn assert_empty(view: &dyn DatabaseSnapshot, target: &dyn DatabaseTarget) -> Result<()> {
    for table in &view.schema().tables {
        let there = view.read(&table.name, &KeyRange::default(), u64::MAX).await?.header.rows;
        let here = target.reread(&table.name, &KeyRange::default()).await?.header.rows;
        assert!(here * 2 < there || here < 10, "table {} is still filled", table.name);
    }
    Ok(())
}

/// A pass after `publish` changes what was published, and `undo` still brings back what stood there first.
pub async fn a_later_pass_starts_from_what_was_published(subject: &impl Subject) -> Result<()> {
    subject.occupy().await;
    let before = subject.standing().await;
    let (view, target) = publish(subject).await?;
    let held = all_chunks(&*view).await?;
    let first = subject.standing().await;
    subject.mutate().await;
    let view = subject.source().snapshot().await?;
    target.prepare(view.schema()).await?;
    let mut changed = Vec::new();
    for chunk in &held {
        let now = view.read(&chunk.header.table, &chunk.header.range, u64::MAX).await?;
        if now.header.digest != chunk.header.digest {
            changed.push(now);
        }
    }
    apply(&*target, &changed).await?;
    assert_equal(&*view, &*target, "after a later pass").await?;
    assert_eq!(subject.standing().await, first, "a later pass shows before it is published");
    drop(target);
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    target.finish(view.schema()).await?;
    target.publish().await?;
    assert_finished(&*view, &*target, "after publishing a later pass").await?;
    assert_ne!(subject.standing().await, first, "a later pass does not show");
    target.undo().await?;
    assert_eq!(subject.standing().await, before, "undo does not bring back what stood there first");
    Ok(())
}

/// `discard` after `publish` leaves what was published until the next one, which starts from nothing.
pub async fn discarding_a_later_pass_starts_anew(subject: &impl Subject) -> Result<()> {
    subject.occupy().await;
    let before = subject.standing().await;
    let (_, target) = publish(subject).await?;
    let first = subject.standing().await;
    subject.mutate().await;
    let view = subject.source().snapshot().await?;
    target.discard().await?;
    drop(target);
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    assert_empty(&*view, &*target).await?;
    assert_eq!(subject.standing().await, first, "discarding takes away what was published");
    apply(&*target, &all_chunks(&*view).await?).await?;
    target.finish(view.schema()).await?;
    target.publish().await?;
    assert_finished(&*view, &*target, "after publishing anew").await?;
    target.undo().await?;
    assert_eq!(subject.standing().await, before, "undo does not bring back what stood there first");
    Ok(())
}

/// `forget` leaves what was published, and nothing for `undo` to bring back.
pub async fn forgetting_keeps_what_was_published(subject: &impl Subject) -> Result<()> {
    subject.occupy().await;
    let (_, target) = publish(subject).await?;
    let published = subject.standing().await;
    target.forget().await?;
    target.forget().await?;
    assert_eq!(subject.standing().await, published, "forgetting changes what was published");
    target.undo().await?;
    assert_eq!(subject.standing().await, published, "what was forgotten comes back");
    Ok(())
}
