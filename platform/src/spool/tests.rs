use super::*;
use std::path::Path;

use bytes::Bytes;
use handover_engine::change::Change;
use handover_engine::rows::{Key, TableName};

fn part(n: u64, count: u64) -> Changes {
    let key = |at: u64| Change::Row { table: 0, key: Key(Bytes::from(format!("{n}\tx{at}"))) };
    let mut changes: Vec<Change> = (0..count).map(key).collect();
    changes.push(Change::Cleared { table: 1 });
    changes.push(Change::Children {
        table: 1,
        columns: vec![2, 0],
        values: Key(Bytes::from_static(b"a\tb\\n")),
    });
    Changes {
        tables: vec![TableName::plain("t"), TableName { schema: "s".into(), name: "u \"".into() }],
        changes,
        until: LogPosition(n.to_string()),
        at: Timestamp::from_millis(1000 * n as i64),
        is_end: false,
    }
}

fn open(dir: &Path) -> FileSpool {
    FileSpool::open("db".parse().unwrap(), dir.join("db"), 1 << 30).unwrap()
}

async fn all(spool: &FileSpool) -> Vec<Change> {
    let mut out = Vec::new();
    while let Some(window) = spool.oldest(50).await.unwrap() {
        out.extend(window.changes);
        spool.done(window.end).await.unwrap();
    }
    out
}

#[tokio::test]
async fn large_changes_are_taken_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.begin(&LogPosition("0".into())).await.unwrap();
    let large = |n| Changes {
        changes: vec![Change::Row { table: 0, key: Key(vec![b'k'; 6 << 20].into()) }],
        ..part(n, 1)
    };
    for n in 1..=5 {
        spool.append(&large(n)).await.unwrap();
    }
    let mut windows = Vec::new();
    while let Some(window) = spool.oldest(50).await.unwrap() {
        windows.push(window.changes.len());
        spool.done(window.end).await.unwrap();
    }
    assert_eq!(windows, [2, 2, 1]);
}

#[tokio::test]
async fn changes_come_back_in_their_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert_eq!(spool.position().await.unwrap(), None);
    spool.begin(&LogPosition("0".into())).await.unwrap();
    for n in 1..=5 {
        spool.append(&part(n, 30)).await.unwrap();
    }
    let expected: Vec<Change> = (1..=5).flat_map(|n| part(n, 30).changes).collect();
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.position().await.unwrap(), Some(LogPosition("5".into())));
    let backlog = spool.backlog();
    assert_eq!((backlog.changes, backlog.known_at.millis(), backlog.oldest_at.millis()), (160, 5000, 1000));
    // One window at a time; the one that was not said to be done comes again.
    let first = spool.oldest(50).await.unwrap().unwrap();
    assert_eq!(first.changes, expected[..32]);
    assert_eq!(spool.oldest(50).await.unwrap().unwrap(), first);
    spool.done(first.end).await.unwrap();
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(all(&spool).await, expected[32..]);
    assert_eq!(spool.backlog().changes, 0);
    assert_eq!(spool.oldest(50).await.unwrap(), None);
    spool.remove().await.unwrap();
    spool.remove().await.unwrap();
    assert!(!dir.path().join("db").exists());
}

#[tokio::test]
async fn segments_are_left_behind_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.begin(&LogPosition("0".into())).await.unwrap();
    let mut large = part(1, 0);
    large.changes.push(Change::Row { table: 0, key: Key(Bytes::from(vec![b'x'; 6 << 20])) });
    for _ in 0..9 {
        spool.append(&large).await.unwrap();
    }
    let count = || fs::read_dir(dir.path().join("db")).unwrap().count();
    assert!(count() >= 3, "{} segments", count());
    assert_eq!(all(&spool).await.len(), 27);
    assert!(count() <= 2, "{} files are left: the last segment, and the head", count());
    // It goes on in the last one, and is found again.
    spool.append(&part(7, 1)).await.unwrap();
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.position().await.unwrap(), Some(LogPosition("7".into())));
    assert_eq!(all(&spool).await.len(), 3);
}

#[tokio::test]
async fn what_a_crash_has_cut_off_is_cut_away() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.begin(&LogPosition("0".into())).await.unwrap();
    spool.append(&part(1, 3)).await.unwrap();
    let file = dir.path().join("db/00000001.log");
    let whole = fs::metadata(&file).unwrap().len();
    spool.append(&part(2, 3)).await.unwrap();
    let end = fs::metadata(&file).unwrap().len();
    drop(spool);
    let contents = fs::read(&file).unwrap();
    for cut in whole..end {
        fs::write(&file, &contents[..cut as usize]).unwrap();
        let spool = open(dir.path());
        assert_eq!(spool.position().await.unwrap(), Some(LogPosition("1".into())), "cut at {cut}");
        spool.append(&part(3, 1)).await.unwrap();
        assert_eq!(spool.backlog().changes, 8);
        drop(spool);
        assert_eq!(open(dir.path()).position().await.unwrap(), Some(LogPosition("3".into())));
    }
}

#[tokio::test]
async fn damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.begin(&LogPosition("0".into())).await.unwrap();
    spool.append(&part(1, 3)).await.unwrap();
    let file = dir.path().join("db/00000001.log");
    let mut contents = fs::read(&file).unwrap();
    let last = contents.len() - 1;
    contents[last] ^= 1;
    fs::write(&file, &contents).unwrap();
    let failure = spool.oldest(10).await.unwrap_err();
    assert!(failure.to_string().contains("00000001.log: a record is damaged"), "{failure}");
}

#[tokio::test]
async fn it_grows_to_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let spool = FileSpool::open("db".parse().unwrap(), dir.path().join("db"), 20_000).unwrap();
    spool.begin(&LogPosition("0".into())).await.unwrap();
    let mut n = 0;
    let failure = loop {
        n += 1;
        match spool.append(&part(n, 100)).await {
            Ok(()) => assert!(n < 1000, "there is no limit"),
            Err(failure) => break failure,
        }
    };
    assert!(failure.to_string().contains("spool_bytes"), "{failure}");
    assert_eq!(spool.position().await.unwrap(), Some(LogPosition((n - 1).to_string())));
    // There is room again once some of it is carried out.
    assert_eq!(all(&spool).await.len() as u64, (n - 1) * 102);
    spool.append(&part(n, 100)).await.unwrap();
}

#[tokio::test]
async fn parts_that_are_added_side_by_side_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.begin(&LogPosition("0".into())).await.unwrap();
    let parts: Vec<Changes> = (1..=20).map(|n| part(n, 30)).collect();
    futures::future::try_join_all(parts.iter().map(|part| spool.append(part))).await.unwrap();
    let end = spool.end();
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.end(), end);
    let (mut changes, mut last) = (0, SpoolMark::default());
    while let Some(window) = spool.oldest(50).await.unwrap() {
        (changes, last) = (changes + window.changes.len(), window.end);
        spool.done(window.end).await.unwrap();
    }
    assert_eq!((changes, last), (20 * 32, end));
}
