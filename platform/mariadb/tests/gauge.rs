//! A server tells its load, and what it keeps of its log.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_engine::ports::LiveDatabase;
use handover_engine::ports::gauge::{DatabaseLoad, Gauge};
use handover_mariadb::MariaGauge;
use support::Server;
use support::pair::{capture, live_at};

fn gauge(server: &Server, database: &str) -> MariaGauge {
    MariaGauge::new("shop".parse().unwrap(), server.settings(database), None)
}

/// Looks until the load is as it should be.
async fn until(gauge: &MariaGauge, what: &str, is_it: impl Fn(&DatabaseLoad) -> bool) -> DatabaseLoad {
    let begun = Instant::now();
    loop {
        let load = gauge.load().await.unwrap();
        if is_it(&load) {
            return load;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "in vain: {what}: {load:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_others_are_counted() {
    let server = Arc::new(Server::start(&["--local-infile=1"]));
    let database = server.database("gauge", "CREATE TABLE t (id INT PRIMARY KEY)");
    let gauge = gauge(&server, &database);
    let idle = until(&gauge, "nobody at work", |load| load.threads == Some(0)).await;
    assert!(idle.latency < Duration::from_secs(1), "{idle:?}");
    assert_eq!(idle.replica_lag, None, "{idle:?}");
    assert_eq!(idle.ours.len(), 1, "the connection that looks: {idle:?}");
    let place = idle.place.clone().unwrap_or_default();
    assert_eq!(std::fs::canonicalize(place).unwrap(), std::fs::canonicalize(server.data()).unwrap());
    let sleepers: Vec<_> = (0..3)
        .map(|_| {
            let (server, database) = (server.clone(), database.clone());
            std::thread::spawn(move || server.allows(&database, "SELECT SLEEP(60)"))
        })
        .collect();
    until(&gauge, "three at work", |load| load.threads == Some(3)).await;
    let kill = "SELECT GROUP_CONCAT('KILL QUERY ', ID SEPARATOR '; ') FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'";
    let kill = server.sql("", kill);
    server.sql("", kill.lines().last().unwrap());
    for sleeper in sleepers {
        sleeper.join().unwrap();
    }
    until(&gauge, "nobody at work", |load| load.threads == Some(0)).await;
    // A server that comes back is looked at again.
    server.crash();
    while gauge.load().await.is_err() {}
    until(&gauge, "nobody at work", |load| load.threads == Some(0)).await;
    // The server may still be ending the connection that is let go.
    gauge.rest().await;
    until(&gauge, "one connection", |load| load.ours.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_position_is_told() {
    let server = Server::start(&["--local-infile=1"]);
    let database = server.database("kept", "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT)");
    let (gauge, live) = (gauge(&server, &database), live_at(&server, &database));
    let after = live.begin(&capture()).await.unwrap();
    let before = gauge.log(&capture(), &after).await.unwrap();
    assert!(before.bytes.is_some_and(|bytes| bytes < 1 << 20), "{before:?}");
    server.sql(&database, "INSERT INTO t (v) SELECT REPEAT('x', 1000) FROM seq_1_to_3000; FLUSH BINARY LOGS; INSERT INTO t (v) SELECT REPEAT('x', 1000) FROM seq_1_to_3000; FLUSH BINARY LOGS");
    let behind = gauge.log(&capture(), &after).await.unwrap();
    assert!(behind.bytes.is_some_and(|bytes| bytes > 6_000_000), "{behind:?}");
    // What was taken is no more counted than the file it is in.
    let caught_up = live.begin(&capture()).await.unwrap();
    let now = gauge.log(&capture(), &caught_up).await.unwrap();
    assert!(now.bytes.is_some_and(|bytes| bytes < 1 << 20), "{now:?}");
    server.sql("", "SET GLOBAL expire_logs_days = 2");
    let told = gauge.log(&capture(), &caught_up).await.unwrap();
    assert_eq!(told.keeps_ms, Some(2 * 86_400_000), "{told:?}");
    server.sql("", "SET GLOBAL expire_logs_days = 0");
    assert_eq!(gauge.log(&capture(), &caught_up).await.unwrap().keeps_ms, None);
    live.end(&capture(), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_that_is_named_tells_its_lag() {
    let server = Server::start(&["--local-infile=1", "--server-id=7"]);
    let replica = Server::start(&["--server-id=8"]);
    server.sql(
        "",
        "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'",
    );
    let database = server.database("lag", "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT)");
    let link = format!(
        "SET GLOBAL gtid_slave_pos = ''; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'repl', \
         MASTER_PASSWORD = 'secret', MASTER_USE_GTID = slave_pos; START SLAVE",
        server.port()
    );
    replica.sql("", &link);
    let (shop, beside) = ("shop".parse().unwrap(), replica.settings(&database));
    while !replica.allows(&database, "SELECT 1 FROM t") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gauge = MariaGauge::new(shop, server.settings(&database), Some(beside));
    until(&gauge, "no lag", |load| load.replica_lag == Some(0.0)).await;
    // It applies what it gets so many seconds later.
    replica.sql("", "STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 600; START SLAVE");
    server.sql(&database, "INSERT INTO t VALUES ()");
    until(&gauge, "a lag", |load| load.replica_lag.is_some_and(|lag| (2.0..600.0).contains(&lag))).await;
    // The server itself knows nothing of it.
    let alone = MariaGauge::new("shop".parse().unwrap(), server.settings(&database), None);
    assert_eq!(alone.load().await.unwrap().replica_lag, None);
    // One that is gone keeps nobody waiting.
    replica.kill();
    until(&gauge, "no replica", |load| load.replica_lag.is_none()).await;
    let begun = Instant::now();
    gauge.load().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}
