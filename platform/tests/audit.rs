//! The audit log in the journal: what is written to it, and that it only grows.

use std::path::Path;

use handover_engine::audit::{self, Act, Broken, Entry, Head};
use handover_engine::journal::{Event, Journal, Record};
use handover_engine::name::MigrationId;
use handover_engine::phase::State;
use handover_engine::time::Timestamp;
use handover_platform::store::Store;

const AGENT: &str = "spiffe://a/handover/target/new";
const ADA: &str = "spiffe://a/handover/operator/ada";

async fn open(directory: &Path) -> Store {
    Store::open(&directory.join("journal.db")).await.unwrap().of_agent(AGENT)
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn id() -> MigrationId {
    "m-1".parse().unwrap()
}

fn asked(what: &str) -> Act {
    Act::Asked { what: what.to_owned() }
}

async fn entries(store: &Store) -> Vec<Entry> {
    let lines = store.audit(0, 100).await.unwrap();
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn entries_are_chained_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    assert_eq!(store.audit_head().await.unwrap(), Head::NONE);
    assert_eq!(store.note(at(1), Some(ADA), None, asked("plan")).await.unwrap(), 1);
    assert_eq!(store.note(at(2), None, Some(&id()), asked("start")).await.unwrap(), 2);
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(store.note(at(3), Some(ADA), None, asked("abort")).await.unwrap(), 3);
    let lines = store.audit(0, 100).await.unwrap();
    assert_eq!(audit::check(&lines), Ok(store.audit_head().await.unwrap()));
    let all = entries(&store).await;
    assert_eq!((all[0].by.as_str(), all[1].by.as_str(), &all[1].migration), (ADA, AGENT, &Some(id())));
    // By pages.
    assert_eq!(store.audit(1, 1).await.unwrap(), lines[1..2]);
    assert!(store.audit(3, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn changes_of_state_are_written_with_their_entries() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let state = State::started();
    let events = [
        Event::State { state: state.clone(), by: Some(ADA.to_owned()) },
        Event::StepStarted { step: "prepare".to_owned() },
        Event::StepDone { step: "prepare".to_owned() },
        Event::State { state, by: None },
    ];
    let records: Vec<Record> = events.iter().cloned().map(Record::Event).collect();
    store.commit(&id(), at(7), &records).await.unwrap();
    let all = entries(&store).await;
    let by: Vec<&str> = all.iter().map(|entry| entry.by.as_str()).collect();
    assert_eq!(by, [ADA, AGENT, AGENT]);
    assert!(all.iter().all(|entry| entry.migration == Some(id()) && entry.at == at(7)));
    assert_eq!(all[1].act, Act::Happened { event: events[2].clone() });
}

#[tokio::test]
async fn writers_side_by_side_make_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let writers = (0..20).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.note(at(number), None, None, asked(&number.to_string())).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap().unwrap();
    }
    let lines = store.audit(0, 100).await.unwrap();
    assert_eq!(audit::check(&lines).unwrap().seq, 20);
}

#[tokio::test]
async fn an_entry_that_a_crash_cut_short_was_never_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    for what in ["a", "b", "c"] {
        store.note(at(1), None, None, asked(what)).await.unwrap();
    }
    // As the disk is while the agent runs: what was committed is in the write-ahead log, whose last frame is torn.
    let crashed = tempfile::tempdir().unwrap();
    for name in ["journal.db", "journal.db-wal"] {
        std::fs::copy(directory.path().join(name), crashed.path().join(name)).unwrap();
    }
    let wal = crashed.path().join("journal.db-wal");
    let length = std::fs::metadata(&wal).unwrap().len();
    std::fs::File::options().write(true).open(&wal).unwrap().set_len(length - 100).unwrap();
    let store = open(crashed.path()).await;
    let head = audit::check(&store.audit(0, 100).await.unwrap()).unwrap();
    assert_eq!(head.seq, 2);
    assert_eq!(store.note(at(2), None, None, asked("d")).await.unwrap(), 3);
    assert_eq!(audit::check(&store.audit(0, 100).await.unwrap()).unwrap().seq, 3);
}

#[tokio::test]
async fn it_only_grows_and_who_goes_round_that_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    for what in ["a", "b", "c"] {
        store.note(at(1), None, None, asked(what)).await.unwrap();
    }
    let db = rusqlite::Connection::open(directory.path().join("journal.db")).unwrap();
    for sql in ["DELETE FROM audit WHERE seq = 2", "UPDATE audit SET entry = '' WHERE seq = 2"] {
        let refused = db.execute(sql, []).unwrap_err();
        assert!(refused.to_string().contains("only grows"), "{refused}");
    }
    db.execute_batch(
        "DROP TRIGGER audit_is_not_changed; UPDATE audit SET entry = replace(entry, '\"b\"', '\"x\"')",
    )
    .unwrap();
    let lines = store.audit(0, 100).await.unwrap();
    assert_eq!(audit::check(&lines), Err(Broken::Changed { seq: 2 }));
}
