//! The museum: a journal of every released version still opens, and says what it said.

use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use handover_engine::digest::Digest;
use handover_engine::journal::{Event, Holdings, Journal, Migration};
use handover_engine::name::DatasetName;
use handover_engine::phase::{Condition, Phase};
use handover_engine::rows::TableName;
use handover_engine::tree::{EntryKind, RelPath, Spots};
use handover_platform::store::{Store, VERSION};

fn fixture(version: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/journal/v{version}.sql"))
}

fn dataset(name: &str) -> DatasetName {
    name.parse().unwrap()
}

/// The journal of a version, opened by this release.
async fn open(version: i64, directory: &Path) -> (Store, Migration) {
    let sql =
        std::fs::read_to_string(fixture(version)).expect("every version has a fixture: see journal_fixture");
    let path = directory.join(format!("v{version}.db"));
    rusqlite::Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
    let store = Store::open(&path).await.unwrap();
    let mut migrations = store.migrations().await.unwrap();
    assert_eq!(migrations.len(), 1);
    (store, migrations.remove(0))
}

#[tokio::test]
async fn plan_and_migration_are_still_there() {
    let directory = tempfile::tempdir().unwrap();
    for version in 1..=VERSION {
        let (store, migration) = open(version, directory.path()).await;
        assert_eq!(migration.id.as_str(), "m-museum");
        assert_eq!(migration.started_by, "spiffe://handover/operator/ada");
        assert_eq!(migration.started_at.millis(), 1_700_000_000_123);
        assert_eq!((migration.pass, migration.shown), (1, 0.25));
        assert_eq!(migration.steps_done, ["prepare"]);
        assert_eq!(migration.state.phase, Phase::Copying);
        let Condition::Failed(failure) = &migration.state.condition else { panic!("it has failed") };
        assert_eq!(failure.to_string(), "dataset www: no space left on device (free some space)");
        assert_eq!(migration.outcome.chunks_applied, 4);
        // The digest that the operator approved is still the plan's.
        assert_eq!(migration.plan.digest(), migration.digest);
        let found = store.find_plans(&migration.digest.short()).await.unwrap();
        assert_eq!(found, [migration.plan]);
    }
}

#[tokio::test]
async fn events_are_still_there() {
    let directory = tempfile::tempdir().unwrap();
    for version in 1..=VERSION {
        let (store, migration) = open(version, directory.path()).await;
        let events = store.events(&migration.id, 0, 100).await.unwrap();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(events[1].event, Event::StepStarted { step: "prepare".to_owned() });
        assert!(matches!(&events[3].event, Event::Retry { step, after_ms: 100, .. } if step == "copy:www"));
        assert!(matches!(&events[4].event, Event::State { by: None, .. }));
    }
}

#[tokio::test]
async fn held_chunks_are_still_held() {
    let directory = tempfile::tempdir().unwrap();
    for version in 1..=VERSION {
        let (store, migration) = open(version, directory.path()).await;
        let (mail, table) = (dataset("mail"), TableName::plain("message"));
        let schema = store.schema(&migration.id, &mail).await.unwrap().unwrap();
        assert_eq!(schema.tables[0].name, table);
        let chunks = store.chunks(&migration.id, &mail, &table).await.unwrap();
        assert_eq!(chunks.len(), 2);
        let (snapshot, first) = &chunks[0];
        assert_eq!((snapshot.0.as_str(), first.rows, first.bytes), ("s-1", 2, 20));
        assert_eq!((&first.range.after, &first.digest), (&None, &Digest::of(b"i5")));
        assert_eq!(first.range.until, chunks[1].1.range.after);
        let sums = store.sums(&migration.id, &mail).await.unwrap();
        assert_eq!((sums.rows, sums.tables, sums.bytes), (3, 1, 30));
    }
}

#[tokio::test]
async fn the_index_of_a_tree_is_still_there() {
    let directory = tempfile::tempdir().unwrap();
    for version in 1..=VERSION {
        let (store, migration) = open(version, directory.path()).await;
        let www = dataset("www");
        let pages: Vec<_> = store.index(&migration.id, &www).try_collect().await.unwrap();
        let index: Vec<_> = pages.into_iter().flatten().collect();
        let paths: Vec<_> = index.iter().map(|entry| entry.source.path.as_bytes()).collect();
        assert_eq!(paths, [&b"a"[..], b"a/link", b"a-b", b"large"]);
        assert_eq!(index[1].source.kind, EntryKind::Symlink { target: b"../b".to_vec() });
        assert_eq!((index[2].digest, index[2].landed.inode), (Digest::of(b"hello"), 22));
        assert_eq!(index[2].source.meta.xattrs[&b"user.kind"[..]], b"page");
        let mut spots = Spots::default();
        for (place, deep) in [("a", true), ("a-b", false), ("larg", true), ("none", false)] {
            spots.add(RelPath::new(place).unwrap(), deep);
        }
        let some: Vec<_> = store.index_at(&migration.id, &www, &spots).try_collect().await.unwrap();
        assert_eq!(some.concat(), index[..3]);
        let large = RelPath::new("large").unwrap();
        assert_eq!(store.blocks(&migration.id, &www, &large).await.unwrap().len(), 2);
        let partials = store.partials(&migration.id, &www).await.unwrap();
        assert_eq!((partials.len(), partials[0].end()), (1, 3 << 19));
    }
}

#[tokio::test]
async fn the_audit_log_is_still_whole() {
    let directory = tempfile::tempdir().unwrap();
    for version in 1..=VERSION {
        let (store, migration) = open(version, directory.path()).await;
        let lines = store.audit(0, 100).await.unwrap();
        let head = handover_engine::audit::check(&lines).unwrap();
        // It begins where the journal has learnt to keep it.
        assert_eq!(head.seq, if version < 3 { 0 } else { 3 });
        store.commit(&migration.id, migration.started_at, &[]).await.unwrap();
        assert_eq!(store.audit_head().await.unwrap(), head);
    }
}
