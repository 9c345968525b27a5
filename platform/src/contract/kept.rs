//! Aborting: what was published and worked on stays aside until somebody removes it.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use handover_engine::kept::Kept;
use handover_engine::ports::{DatabaseSnapshot, DatabaseTarget, Result};

use super::back::{assert_home, back};
use super::live::{LiveSubject, copied};
use super::load::apply;
use super::place::{publish, publish_as};
use super::{Subject, all_chunks, migration, named};

/// A call that others stand in the way of is tried so often.
const TRIES: u32 = 50;

/// What is kept has the rows of the view.
async fn whole(
    subject: &impl Subject,
    view: &dyn DatabaseSnapshot,
    target: &dyn DatabaseTarget,
    when: &str,
) -> Result<Kept> {
    let Some(kept) = target.kept().await? else { panic!("{when}: nothing is kept") };
    assert!(kept.bytes > 0, "{when}: what is kept takes no room");
    let here = subject.kept(&kept.place).snapshot().await?;
    assert_home(view, &*here, false).await?;
    Ok(kept)
}

/// What was published stays, and what stood there before comes back. Each may be done again; other migrations have nothing to do with it, and
/// only its own removes it.
pub async fn an_abort_keeps_what_was_published(subject: &impl Subject, occupied: bool) -> Result<()> {
    if occupied {
        subject.occupy().await;
    }
    let before = subject.standing().await;
    let (view, target) = publish(subject).await?;
    assert_eq!(target.kept().await?, None, "something is kept before an abort");
    // A later pass is under way.
    target.prepare(view.schema()).await?;
    target.undo_and_keep().await?;
    assert_eq!(subject.standing().await, before, "an abort does not bring back what stood there");
    assert!(!target.is_prepared().await?, "prepared after an abort");
    whole(subject, &*view, &*target, "after an abort").await?;
    target.undo_and_keep().await?;
    target.undo().await?;
    target.forget().await?;
    drop(target);
    let target = subject.target(&migration());
    target.undo_and_keep().await?;
    assert_eq!(subject.standing().await, before, "an abort twice changes something");
    let kept = whole(subject, &*view, &*target, "after an abort twice").await?;

    let other = named("another");
    let (_, second) = publish_as(subject, &other).await?;
    second.undo_and_keep().await?;
    assert_eq!(subject.standing().await, before, "a second abort does not bring back what stood there");
    let its = whole(subject, &*view, &*second, "after a second abort").await?;
    assert_ne!(kept.place, its.place);
    let (_, third) = publish_as(subject, &named("third")).await?;
    third.forget().await?;
    let standing = subject.standing().await;
    whole(subject, &*view, &*target, "after another was finalized").await?;
    target.remove_kept().await?;
    target.remove_kept().await?;
    subject.target(&migration()).remove_kept().await?;
    assert_eq!(target.kept().await?, None, "it is still kept once it was removed");
    whole(subject, &*view, &*second, "after what another kept was removed").await?;
    subject.target(&other).remove_kept().await?;
    assert_eq!(second.kept().await?, None, "it is still kept once it was removed");
    assert_eq!(subject.standing().await, standing, "removing what is kept changes what stands there");
    Ok(())
}

/// What was never published goes.
pub async fn an_abort_keeps_nothing_that_was_not_published(subject: &impl Subject) -> Result<()> {
    subject.occupy().await;
    let before = subject.standing().await;
    let view = subject.source().snapshot().await?;
    let target = subject.target(&migration());
    target.undo_and_keep().await?;
    target.prepare(view.schema()).await?;
    apply(&*target, &all_chunks(&*view).await?).await?;
    target.undo_and_keep().await?;
    assert_eq!(target.kept().await?, None, "something is kept that was not published");
    assert_eq!(subject.standing().await, before, "an abort changes what it did not make");
    assert!(!target.is_prepared().await?, "prepared after an abort");
    Ok(())
}

/// Runs a call until it has waited so often; `None` where it was cut short then, as a crash would.
async fn cut_after<T>(waits: u32, call: impl Future<Output = T>) -> Option<T> {
    let (mut call, mut left) = (pin!(call), waits);
    std::future::poll_fn(|context| match call.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Asks a target that was just started, each time for a little longer, until it has done it. What the server is still about to do for one that was
/// cut short may stand in the way of the next.
async fn cut_ever_later<F: Future<Output = Result<()>>>(mut call: impl FnMut() -> F) -> Result<()> {
    let (mut waits, mut tries) = (1, 0);
    loop {
        match cut_after(waits, call()).await {
            Some(Ok(())) => return Ok(()),
            Some(Err(failure)) => {
                tries += 1;
                if tries == TRIES {
                    return Err(failure);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            None => waits += 1,
        }
    }
}

/// An abort, and the removal of what it has kept, go on wherever a crash has cut them short.
pub async fn an_abort_that_is_cut_short_is_carried_on(subject: &impl Subject, occupied: bool) -> Result<()> {
    if occupied {
        subject.occupy().await;
    }
    let before = subject.standing().await;
    let (view, target) = publish(subject).await?;
    drop(target);
    let started = || subject.target(&migration());
    cut_ever_later(|| {
        let target = started();
        async move { target.undo_and_keep().await }
    })
    .await?;
    assert_eq!(
        subject.standing().await,
        before,
        "an abort that was cut short does not bring back what stood there"
    );
    assert!(!started().is_prepared().await?, "prepared after an abort");
    whole(subject, &*view, &*started(), "after an abort that was cut short").await?;
    cut_ever_later(|| {
        let target = started();
        async move { target.remove_kept().await }
    })
    .await?;
    assert_eq!(started().kept().await?, None, "it is still kept once it was removed");
    assert_eq!(subject.standing().await, before, "removing what is kept changes what stands there");
    Ok(())
}

/// Nothing of ours is left in what is kept, although its changes were kept and its writers fenced off.
pub(super) async fn what_is_kept_is_free(subject: &impl LiveSubject) -> Result<()> {
    let view = subject.source().snapshot().await?;
    let target = copied(subject, &*view).await?;
    target.finish(view.schema()).await?;
    target.keep(&back()).await?;
    target.publish().await?;
    let (_, replaced) = subject.successor();
    replaced.fence(&back(), Duration::from_secs(5)).await?;
    target.undo_and_keep().await?;
    let kept = whole(subject, &*view, &*target, "behind a fence").await?;
    assert_eq!(subject.traces_at(&kept.place).await, "", "something is left in what is kept");
    target.remove_kept().await
}
