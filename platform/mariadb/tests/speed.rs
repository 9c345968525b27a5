//! How fast a database is carried; run by hand: `cargo test -p handover-mariadb --test speed -- --ignored --nocapture`.

mod support;

use std::sync::Arc;
use std::time::Instant;

use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::KeyRange;
use handover_mariadb::{MariaDatabase, MariaTarget};
use support::Server;

const ROWS: u32 = 500_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn four_tables_of_sysbench() {
    let server =
        Server::start(&["--local-infile=1", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G"]);
    let make: String = (1..=4)
        .map(|n| {
            format!(
                "CREATE TABLE sbtest{n} (id INT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL DEFAULT '', pad CHAR(60) NOT NULL DEFAULT '', KEY k_{n} (k));
                 INSERT INTO sbtest{n} SELECT seq, 1 + RAND(seq) * {ROWS}, REPEAT(CONCAT(RAND(seq), '-'), 5), REPEAT(CONCAT(RAND(seq + 7), '-'), 2) FROM seq_1_to_{ROWS};"
            )
        })
        .collect();
    let from = server.database("speed", &make);
    for binlog in ["off", "on"] {
        let url = format!("{}&connections=2&binlog={binlog}", server.url(&format!("speed_to_{binlog}")));
        let to = handover_mariadb::Settings::parse(&url).unwrap();
        let mut settings = server.settings(&from);
        settings.connections = 2;
        let source = MariaDatabase::new("db".parse().unwrap(), settings, Vec::new());
        let begun = Instant::now();
        let view = source.snapshot().await.unwrap();
        let opened = begun.elapsed();
        let migration: MigrationId = "speed".parse().unwrap();
        let target = Arc::new(MariaTarget::new("db".parse().unwrap(), to, &migration));
        target.prepare(view.schema()).await.unwrap();
        let work = Arc::new(tokio::sync::Mutex::new(view.schema().tables.clone()));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (view, target, work) = (view.clone(), target.clone(), work.clone());
                tokio::spawn(async move {
                    loop {
                        let Some(table) = work.lock().await.pop() else { return };
                        let (mut range, mut waiting) = (KeyRange::default(), None);
                        loop {
                            // The next chunk is read while the last one is applied, as over a network.
                            let read = view.read(&table.name, &range, 8 << 20);
                            let apply = async {
                                if let Some(chunk) = waiting.take() {
                                    target.apply(&[chunk]).await.unwrap();
                                }
                            };
                            let (chunk, ()) = tokio::join!(read, apply);
                            let chunk = chunk.unwrap();
                            range.after.clone_from(&chunk.header.range.until);
                            if range.after.is_none() {
                                target.apply(&[chunk]).await.unwrap();
                                break;
                            }
                            waiting = Some(chunk);
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        let loaded = begun.elapsed();
        println!("processor ticks of this process so far: {}", ticks());
        target.finish(view.schema()).await.unwrap();
        let finished = begun.elapsed();
        target.publish().await.unwrap();
        println!(
            "binlog {binlog}: snapshot {opened:.2?}, loaded {loaded:.2?}, finished {finished:.2?}, published {:.2?}",
            begun.elapsed()
        );
        target.undo().await.unwrap();
    }
}

/// Processor time of this process, in hundredths of a second.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let rest = stat.rsplit_once(") ").unwrap().1;
    rest.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum()
}
