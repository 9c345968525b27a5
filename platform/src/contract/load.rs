//! Loading: any order, again, after a crash, over other rows.

use handover_engine::ports::{DatabaseTarget, Result};
use handover_engine::rows::RowsChunk;

use super::place::assert_empty;
use super::{Subject, all_chunks, assert_equal, assert_finished, migration};

/// Chunks in another order than they were read in: every third, then the others backwards.
fn shuffled(chunks: &[RowsChunk]) -> Vec<RowsChunk> {
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for (at, chunk) in chunks.iter().enumerate() {
        if at % 3 == 1 { first.push(chunk.clone()) } else { rest.push(chunk.clone()) }
    }
    rest.reverse();
    first.extend(rest);
    first
}

/// Applies chunks a few at a time.
pub async fn apply(target: &dyn DatabaseTarget, chunks: &[RowsChunk]) -> Result<()> {
    for batch in chunks.chunks(7) {
        target.apply(batch).await?;
    }
    Ok(())
}

/// Chunks may come in any order, and twice.
pub async fn any_order_and_again(subject: &impl Subject) -> Result<()> {
    let view = subject.source().snapshot().await?;
    let chunks = shuffled(&all_chunks(&*view).await?);
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    apply(&*target, &chunks).await?;
    assert_equal(&*view, &*target, "after the load").await?;
    apply(&*target, &shuffled(&chunks)).await?;
    assert_equal(&*view, &*target, "after applying twice").await?;
    target.finish(view.schema()).await?;
    assert_finished(&*view, &*target, "after finishing").await?;
    target.finish(view.schema()).await?;
    assert_finished(&*view, &*target, "after finishing twice").await?;
    for chunk in chunks {
        let again = target.reread(&chunk.header.table, &chunk.header.range).await?;
        assert_eq!(again.header, chunk.header, "a chunk reads differently at the target");
    }
    Ok(())
}

/// What `apply` has returned for is there after a crash, and `prepare` keeps it.
pub async fn a_restart_keeps_what_was_applied(subject: &impl Subject) -> Result<()> {
    let view = subject.source().snapshot().await?;
    let chunks = all_chunks(&*view).await?;
    let (first, second) = chunks.split_at(chunks.len() / 2);
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    apply(&*target, first).await?;
    drop(target);
    let target = subject.target(&migration());
    target.prepare(view.schema()).await?;
    for chunk in first {
        let again = target.reread(&chunk.header.table, &chunk.header.range).await?;
        assert_eq!(again.header, chunk.header, "what was applied is gone after a restart");
    }
    apply(&*target, second).await?;
    drop(target);
    let target = subject.target(&migration());
    target.finish(view.schema()).await?;
    drop(target);
    let target = subject.target(&migration());
    target.finish(view.schema()).await?;
    assert_finished(&*view, &*target, "after restarts").await
}

/// A range whose rows were deleted, changed or joined by others at the source ends as it is there.
pub async fn replaced_chunks_end_equal(subject: &impl Subject) -> Result<()> {
    let source = subject.source();
    let target = subject.target(&migration());
    let view = source.snapshot().await?;
    let mut held = all_chunks(&*view).await?;
    target.prepare(view.schema()).await?;
    apply(&*target, &held).await?;
    for round in 0..3 {
        subject.mutate().await;
        let view = source.snapshot().await?;
        let mut changed = Vec::new();
        for chunk in &mut held {
            let now = view.read(&chunk.header.table, &chunk.header.range, u64::MAX).await?;
            if now.header.digest != chunk.header.digest {
                *chunk = now.clone();
                changed.push(now);
            }
        }
        assert!(!changed.is_empty(), "the subject's change is none");
        assert!(changed.len() < held.len() / 2, "a small change shows in too many chunks: {}", changed.len());
        apply(&*target, &shuffled(&changed)).await?;
        assert_equal(&*view, &*target, &format!("after change {round}")).await?;
    }
    Ok(())
}

/// After `discard` nothing of the load is left.
pub async fn discarding_starts_anew(subject: &impl Subject) -> Result<()> {
    let view = subject.source().snapshot().await?;
    let chunks = all_chunks(&*view).await?;
    let target = subject.target(&migration());
    target.discard().await?;
    target.prepare(view.schema()).await?;
    apply(&*target, &chunks).await?;
    target.discard().await?;
    target.discard().await?;
    target.prepare(view.schema()).await?;
    assert_empty(&*view, &*target).await?;
    apply(&*target, &chunks).await?;
    target.finish(view.schema()).await?;
    assert_finished(&*view, &*target, "after starting anew").await
}
