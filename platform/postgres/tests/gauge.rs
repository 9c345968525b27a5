//! A server tells its load, and what its slots keep.

mod support;

use std::time::{Duration, Instant};

use handover_engine::change::LogPosition;
use handover_engine::failure::{Class, Failure};
use handover_engine::ports::LiveDatabase;
use handover_engine::ports::gauge::{DatabaseLoad, Gauge};
use handover_postgres::PostgresGauge;
use support::Server;
use support::followed::{WAIT, capture, live, session, traces};

fn gauge(server: &Server, database: &str) -> PostgresGauge {
    PostgresGauge::new("shop".parse().unwrap(), &server.settings(database))
}

/// Looks until the load is as it should be.
async fn until(gauge: &PostgresGauge, what: &str, is_it: impl Fn(&DatabaseLoad) -> bool) -> DatabaseLoad {
    let begun = Instant::now();
    loop {
        let load = gauge.load().await.unwrap();
        if is_it(&load) {
            return load;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "in vain: {what}: {load:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_others_are_counted() {
    let server = Server::start("");
    let database = server.create("gauge", "");
    let gauge = gauge(&server, &database);
    let idle = until(&gauge, "nobody at work", |load| load.threads == Some(0)).await;
    assert!(idle.latency < Duration::from_secs(1), "{idle:?}");
    assert_eq!((idle.replica_lag, idle.ours.len()), (None, 1), "{idle:?}");
    assert!(idle.place.as_deref().is_some_and(|place| std::path::Path::new(place).is_absolute()), "{idle:?}");
    let sleepers: Vec<_> = (0..3).map(|_| session(&server, &database, "SELECT 1")).collect();
    until(&gauge, "three at work", |load| load.threads == Some(3)).await;
    server.sql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()");
    until(&gauge, "nobody at work", |load| load.threads == Some(0)).await;
    drop(sleepers);
    gauge.rest().await;
    assert_eq!(gauge.load().await.unwrap().ours.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_may_be_lost_is_told() {
    let server = Server::start("max_slot_wal_keep_size = 32MB\nmin_wal_size = 32MB");
    let database = server.create("kept", "");
    server.sql(&database, "CREATE TABLE t (id integer PRIMARY KEY)");
    let (gauge, live) = (gauge(&server, &database), live(&server, &database));
    let (capture, nowhere) = (capture("kept"), LogPosition(String::new()));
    assert_eq!(gauge.log(&capture, &nowhere).await.unwrap(), Default::default());
    live.begin(&capture).await.unwrap();
    let begun = gauge.log(&capture, &nowhere).await.unwrap();
    assert!(begun.room.is_some_and(|room| room > 0) && !begun.endangered, "{begun:?}");
    // Each switch fills the rest of a segment of 16 MiB.
    for id in 0..4 {
        server.sql(&database, &format!("INSERT INTO t VALUES ({id})"));
        server.sql(&database, "SELECT pg_switch_wal()");
    }
    let told = gauge.log(&capture, &nowhere).await.unwrap();
    assert!(told.endangered && told.room == Some(0), "{told:?}");
    live.end(&capture, false).await.unwrap();
}

#[track_caller]
fn check(failure: &Failure, words: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, Class::NeedsOperator, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_lost_stops_following() {
    let server = Server::start("max_slot_wal_keep_size = 32MB\nmin_wal_size = 32MB\nmax_wal_size = 64MB");
    let database = server.create("lost", "");
    server.sql(&database, "CREATE TABLE t (id integer PRIMARY KEY)");
    let (capture, known) = (capture("lost"), live(&server, &database));
    let after = known.begin(&capture).await.unwrap();
    server.sql(&database, "INSERT INTO t VALUES (1)");
    let next = known.changes(&capture, &after, WAIT).await.unwrap();
    assert_eq!(next.changes.len(), 1, "{next:?}");
    server.sql(&database, "INSERT INTO t VALUES (2)");
    let begun = Instant::now();
    while server.sql("postgres", "SELECT bool_or(wal_status = 'lost') FROM pg_replication_slots") != "t" {
        server.sql(&database, "SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()");
        server.sql(&database, "CHECKPOINT");
        assert!(begun.elapsed() < Duration::from_secs(60), "the slot is not lost");
    }
    // The agent that has followed, and one that was started anew.
    for live in [&known, &live(&server, &database)] {
        let failure = live.changes(&capture, &next.until, WAIT).await.unwrap_err();
        check(&failure, &["are lost", "begin anew", "max_slot_wal_keep_size"]);
        let failure = live.confirm(&capture, &next.until).await.unwrap_err();
        check(&failure, &["are lost", "begin anew", "max_slot_wal_keep_size"]);
    }
    // Begun anew it is a new slot.
    let after = known.begin(&capture).await.unwrap();
    server.sql(&database, "INSERT INTO t VALUES (3)");
    assert_eq!(known.changes(&capture, &after, WAIT).await.unwrap().changes.len(), 1);
    known.end(&capture, false).await.unwrap();
    assert_eq!(traces(&server, &database), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_tells_its_lag_and_is_not_followed_itself() {
    let server = Server::start("");
    let database = server.create("lag", "");
    server.sql(&database, "CREATE TABLE t (id serial PRIMARY KEY)");
    let gauge = gauge(&server, &database);
    assert_eq!(gauge.load().await.unwrap().replica_lag, None);
    let standby = server.standby("recovery_min_apply_delay = '4s'");
    let begun = Instant::now();
    let lag = loop {
        server.sql(&database, "INSERT INTO t DEFAULT VALUES");
        let lag = gauge.load().await.unwrap().replica_lag;
        if let Some(lag) = lag.filter(|lag| *lag > 2.0) {
            break lag;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain: {lag:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(lag < 60.0, "{lag}");
    let failure = live(&standby, &database).begin(&capture("standby")).await.unwrap_err();
    check(&failure, &["standby", "name the primary"]);
    let (dataset, settings) = ("shop".parse().unwrap(), standby.settings(&database));
    let found = handover_postgres::following_privileges(&dataset, &settings).await.unwrap();
    assert!(found.iter().any(|finding| finding.what.contains("a standby cannot be followed")), "{found:?}");
}
