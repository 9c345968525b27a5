//! Measures a whole load; not run by default: `cargo test -p handover-postgres --test speed -- --ignored --nocapture`.

mod support;

use std::process::Command;
use std::sync::Arc;

use handover_engine::ports::{Database, DatabaseSnapshot, DatabaseTarget};
use handover_engine::rows::{KeyRange, TableName};
use handover_postgres::PostgresTarget;
use support::{Server, source, target};

const BUDGET: u64 = 2 << 20;

/// Reads one range and applies it, a few chunks at a time, reading ahead of writing.
async fn range(view: Arc<dyn DatabaseSnapshot>, to: Arc<PostgresTarget>, table: TableName, range: KeyRange) {
    let (send, mut receive) = tokio::sync::mpsc::channel(8);
    let reader = tokio::spawn(async move {
        let mut range = range;
        loop {
            let chunk = view.read(&table, &range, BUDGET).await.unwrap();
            range.after.clone_from(&chunk.header.range.until);
            let done = range.after == range.until;
            if send.send(chunk).await.is_err() || done {
                return;
            }
        }
    });
    while let Some(first) = receive.recv().await {
        let mut batch = vec![first];
        while batch.len() < 4
            && let Ok(more) = receive.try_recv()
        {
            batch.push(more);
        }
        to.apply(&batch).await.unwrap();
    }
    reader.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long, and tells speed, not right or wrong"]
async fn pgbench_scale_20() {
    let server = Server::start("shared_buffers = 512MB\nmax_wal_size = 8GB");
    let from = server.create("bench", "");
    let mut pgbench = Command::new("/usr/lib/postgresql/15/bin/pgbench");
    pgbench.env("PGHOST", &server.dir).env("PGPORT", support::PORT.to_string()).env("PGUSER", "postgres");
    assert!(pgbench.args(["-i", "-s", "20", "-q", &from]).status().unwrap().success());
    server.sql(&from, "CHECKPOINT");
    for _ in 0..3 {
        let view = source(&server, &from).snapshot().await.unwrap();
        let to = Arc::new(target(&server, &server.name("copy")));
        to.prepare(view.schema()).await.unwrap();
        let start = tokio::time::Instant::now();
        let table = TableName { schema: "public".to_owned(), name: "pgbench_accounts".to_owned() };
        let cuts = view.split(&table, 2).await.unwrap();
        let split = start.elapsed();
        let mut ends: Vec<_> = cuts.into_iter().map(Some).collect();
        ends.push(None);
        let mut after = None;
        let mut tasks = Vec::new();
        for until in ends {
            let part = KeyRange { after: after.clone(), until: until.clone() };
            tasks.push(tokio::spawn(range(view.clone(), to.clone(), table.clone(), part)));
            after = until;
        }
        for name in ["pgbench_tellers", "pgbench_branches", "pgbench_history"] {
            let table = TableName { schema: "public".to_owned(), name: name.to_owned() };
            range(view.clone(), to.clone(), table, KeyRange::default()).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        let loaded = start.elapsed();
        to.finish(view.schema()).await.unwrap();
        println!("split {split:?}, loaded {loaded:?}, finished {:?}", start.elapsed());
        to.undo().await.unwrap();
    }
}

/// A row of 64 MiB passes, and a large table needs no more memory than a chunk.
#[tokio::test]
#[ignore = "takes long"]
async fn memory_stays_bounded() {
    let server = Server::start("shared_buffers = 128MB\nmax_wal_size = 8GB");
    let from = server.create("large", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t SELECT n, repeat('x', 64 << 20) FROM generate_series(1, 3) n;
        INSERT INTO t SELECT n, repeat('y', 1000) FROM generate_series(10, 500000) n");
    support::migrate_streaming(&server, &from, &server.name("copy")).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}
