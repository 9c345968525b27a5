//! The way back: what is written to the published database comes home to the one that it replaced.

use std::time::Duration;

use handover_engine::name::CaptureId;
use handover_engine::ports::{DatabaseSnapshot, Result};
use handover_engine::rows::{KeyRange, Schema, TableKey};

use super::live::{LiveSubject, capture, copied, follow, follow_as};

pub(super) fn back() -> CaptureId {
    match "contract-back".parse() {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

/// Where what goes on by itself stands.
fn positions(schema: &Schema) -> Vec<(&String, &String)> {
    let is_position =
        |(key, _): &(&String, &String)| key.starts_with("auto_increment/") || key.starts_with("sequence/");
    schema.state.iter().filter(is_position).collect()
}

/// The tables of both views hold the same rows, wherever a table without a key keeps them.
pub(super) async fn assert_home(
    there: &dyn DatabaseSnapshot,
    here: &dyn DatabaseSnapshot,
    only_followed: bool,
) -> Result<()> {
    for table in &there.schema().tables {
        if only_followed && !table.followed {
            continue;
        }
        let mut rows = Vec::new();
        for view in [there, here] {
            let block = view.read(&table.name, &KeyRange::default(), u64::MAX).await?.block;
            // Where an engine tells the place of a row that has no key, that comes first.
            let is_placed = matches!(table.key, TableKey::Hidden(_)) && !table.followed;
            let of_row = |line: &[u8]| {
                let from =
                    line.iter().position(|byte| *byte == b'\t').filter(|_| is_placed).map_or(0, |at| at + 1);
                line[from..].to_vec()
            };
            let mut lines: Vec<Vec<u8>> = block.split(|byte| *byte == b'\n').map(of_row).collect();
            lines.sort();
            rows.push(lines);
        }
        assert!(rows[0] == rows[1], "table {}: other rows than at the target", table.name);
    }
    Ok(())
}

/// Everything that is written to the published database arrives behind the fence, without any trigger acting on it, and the source is as it was
/// otherwise.
pub(super) async fn what_is_written_there_comes_home(subject: &impl LiveSubject) -> Result<()> {
    let live = subject.live();
    let begun = live.begin(&capture()).await?;
    let view = subject.source().snapshot().await?;
    let before = view.schema().clone();
    let target = copied(subject, &*view).await?;
    drop(view);
    subject.mutate().await;
    live.fence(&capture(), Duration::from_secs(5)).await?;
    follow(&*live, &*target, begun).await?;
    let view = subject.source().snapshot().await?;
    for table in view.schema().tables.iter().filter(|table| !table.followed) {
        target.apply(&[view.read(&table.name, &KeyRange::default(), u64::MAX).await?]).await?;
    }
    target.finish(view.schema()).await?;
    drop(view);
    subject.fenced().make_ready().await?;
    subject.fenced().stand_down().await?;
    subject.fenced().stand_down().await?;
    subject.fenced().make_ready().await?;
    subject.fenced().make_ready().await?;
    // Its log is not needed any more; the fence stays.
    live.end(&capture(), true).await?;
    // A cut-over that is called off takes it back.
    target.keep(&back()).await?;
    target.keep_none(&back()).await?;
    target.keep_none(&back()).await?;
    target.keep(&back()).await?;
    let mut begun = target.keep(&back()).await?;
    target.publish().await?;
    target.settle().await?;
    for round in 0..3 {
        subject.mutate_successor().await;
        let (there, replaced) = subject.successor();
        begun = follow_as(&back(), &*replaced, &*subject.fenced(), begun).await?;
        let (there, here) = (there.snapshot().await?, subject.source().snapshot().await?);
        assert_home(&*there, &*here, true).await?;
        assert!(!subject.write().await, "round {round}: a write gets through the fence");
    }
    let (there, replaced) = subject.successor();
    subject.mutate_successor().await;
    replaced.fence(&back(), Duration::from_secs(5)).await?;
    let fenced = subject.fenced();
    follow_as(&back(), &*replaced, &*fenced, begun).await?;
    let there = there.snapshot().await?;
    // Twice: the first answer may be lost.
    for _ in 0..2 {
        for table in there.schema().tables.iter().filter(|table| !table.followed) {
            fenced.clear(&table.name).await?;
            fenced.fill(&there.read(&table.name, &KeyRange::default(), u64::MAX).await?).await?;
        }
        fenced.set_positions(there.schema()).await?;
    }
    live.unfence(&capture()).await?;
    live.unfence(&capture()).await?;
    let here = subject.source().snapshot().await?;
    assert_home(&*there, &*here, false).await?;
    assert_eq!(positions(there.schema()), positions(here.schema()));
    assert_eq!(before.differences(here.schema()), [], "the schema is not as it was");
    drop((there, here));
    replaced.end(&back(), true).await?;
    target.undo_and_keep().await?;
    let Some(kept) = target.kept().await? else { panic!("nothing is kept") };
    let (aside, here) = (subject.kept(&kept.place).snapshot().await?, subject.source().snapshot().await?);
    assert_home(&*here, &*aside, false).await?;
    drop((aside, here));
    assert_eq!(subject.traces_at(&kept.place).await, "", "something is left in what is kept");
    target.remove_kept().await?;
    live.end(&capture(), false).await?;
    assert_eq!(subject.traces().await, "", "something is left");
    assert!(subject.write().await, "the source takes no writes");
    Ok(())
}
