//! Rows of 64 MiB: both sides together, in this process of its own, in less memory than either agent may have.

mod support;

use futures::{StreamExt, TryStreamExt};
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::KeyRange;
use support::{Server, source, target};

/// Most that an agent may have resident.
const LIMIT_MIB: u64 = 256;

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_rows_are_held_once() {
    let server = Server::shared();
    let from = server.create("huge", "");
    // A byte string of 64 MiB is twice as long as text. Two of them are read side by side, by several readers.
    server.sql(
        &from,
        "CREATE TABLE t (id integer PRIMARY KEY, b bytea, v text, j jsonb);
         ALTER TABLE t ALTER b SET STORAGE EXTERNAL, ALTER v SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL;
         INSERT INTO t VALUES (1, decode(repeat('00ff41c3', 16 << 20), 'hex')); INSERT INTO t VALUES (2, decode(repeat('7f80', 32 << 20), 'hex'));
         INSERT INTO t VALUES (3, NULL, repeat(E'0123456789abcde\n', 4 << 20)); INSERT INTO t VALUES (5, 'x', 'y', '{}');
         INSERT INTO t VALUES (4, NULL, NULL, jsonb_build_object('a', repeat('z', 64 << 20)));
         CREATE TABLE u AS SELECT * FROM t; ALTER TABLE u ADD PRIMARY KEY (id)",
    );
    let view = source(&server, &from).snapshot().await.unwrap();
    let name = server.name("copy");
    let to = target(&server, &name);
    to.prepare(view.schema()).await.unwrap();
    let tables = futures::stream::iter(&view.schema().tables);
    tables
        .map(Ok::<_, handover_engine::failure::Failure>)
        .try_for_each_concurrent(2, |table| {
            let (view, to) = (&view, &to);
            async move {
                let mut range = KeyRange::default();
                loop {
                    let chunk = view.read(&table.name, &range, 2 << 20).await?;
                    range.after.clone_from(&chunk.header.range.until);
                    let header = chunk.header.clone();
                    to.apply(&[chunk]).await?;
                    assert!(to.reread(&table.name, &header.range).await?.header == header);
                    if range.after.is_none() {
                        return Ok(());
                    }
                }
            }
        })
        .await
        .unwrap();
    to.finish(view.schema()).await.unwrap();
    let sums = "SELECT id, md5(b), md5(v), md5(j::text) FROM t UNION ALL SELECT id, md5(b), md5(v), md5(j::text) FROM u ORDER BY 1, 2";
    to.publish().await.unwrap();
    assert_eq!(server.sql(&from, sums), server.sql(&name, sums));
    let peak = peak_mib();
    assert!(peak <= LIMIT_MIB, "{peak} MiB were resident");
}
