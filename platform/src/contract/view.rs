//! Reading: inventories, snapshots, chunks.

use handover_engine::ports::Result;
use handover_engine::rows::{KeyRange, text};

use super::{BUDGET, Subject, all_chunks, chunks};

/// The inventory names every table of the snapshot and has its structure.
pub async fn facts_name_the_tables(subject: &impl Subject) -> Result<()> {
    let source = subject.source();
    let (facts, view) = (source.facts().await?, source.snapshot().await?);
    let mut named: Vec<_> = facts.tables.iter().map(|table| &table.name).collect();
    let mut known: Vec<_> = view.schema().tables.iter().map(|table| &table.name).collect();
    named.sort();
    known.sort();
    assert_eq!(named, known, "the inventory names other tables than the schema");
    assert_eq!(facts.structure, Some(view.schema().structure()), "the inventory knows another structure");
    let sizes: Vec<u64> = facts.tables.iter().map(|table| table.bytes).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "the inventory's tables are not largest first");
    Ok(())
}

/// Chunks follow each other without gap or overlap, keep to the budget, and read the same again by their range.
pub async fn chunks_cover_every_table(subject: &impl Subject) -> Result<()> {
    let view = subject.source().snapshot().await?;
    let mut largest = 0;
    for table in &view.schema().tables {
        let table = &table.name;
        let whole = view.read(table, &KeyRange::default(), u64::MAX).await?;
        assert!(
            whole.is_whole() && whole.header.range == KeyRange::default(),
            "table {table}: not read whole"
        );
        for budget in [1, 60, BUDGET, 50_000] {
            let parts = chunks(&*view, table, budget).await?;
            largest = largest.max(parts.len());
            let (mut together, mut rows) = (Vec::new(), 0);
            for part in &parts {
                let what = format!("table {table}, budget {budget}, {:?}", part.header.range);
                assert!(part.is_whole() && part.header.table == *table, "{what}: damaged");
                let found = text::rows(&part.block).map_or(0, Iterator::count) as u64;
                assert_eq!(found, part.header.rows, "{what}: another number of rows");
                assert!(found > 0 || parts.len() == 1, "{what}: no rows");
                let last =
                    text::rows(&part.block).ok().and_then(Iterator::last).map_or(0, <[u8]>::len) as u64 + 1;
                assert!(found <= 1 || part.header.bytes - last < budget, "{what}: above the budget");
                let again = view.read(table, &part.header.range, u64::MAX).await?;
                assert_eq!(again.header, part.header, "{what}: reads differently by its range");
                together.extend_from_slice(&part.block);
                rows += found;
            }
            assert_eq!(rows, whole.header.rows, "table {table}, budget {budget}: rows are missing or double");
            assert!(together == whole.block, "table {table}, budget {budget}: other rows than in one chunk");
        }
    }
    assert!(largest > 10, "the subject has no table of many chunks");
    Ok(())
}

/// A snapshot shows the rows of one moment while others write, and another has another name.
pub async fn a_snapshot_stays_as_it_was(subject: &impl Subject) -> Result<()> {
    let source = subject.source();
    let view = source.snapshot().await?;
    let (id, before) = (view.id(), all_chunks(&*view).await?);
    let mut during = Vec::new();
    for table in &view.schema().tables {
        subject.mutate().await;
        during.extend(chunks(&*view, &table.name, BUDGET).await?);
    }
    assert!(before == during, "what was written later shows in the snapshot");
    assert_eq!(view.id(), id);
    let later = source.snapshot().await?;
    assert_ne!(later.id(), id, "two snapshots have one name");
    assert!(all_chunks(&*later).await? != before, "a new snapshot shows the old rows");
    Ok(())
}
