//! Others hold what is asked for, or wait for what is held.

use std::sync::Arc;

use handover_engine::failure::Class;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::{KeyRange, TableName};
use mysql_async::prelude::Queryable;

use super::{TABLE, account, check, source, target};
use crate::support::Server;

#[tokio::test]
async fn locks_readonly_and_duplicates() {
    let server = Server::start(&["--local-infile=1", "--innodb-lock-wait-timeout=1"]);
    let db = server.database("locks", TABLE);
    let to = server.fresh("locks_to");
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    let chunk = view.read(&TableName::plain("t"), &KeyRange::default(), u64::MAX).await.unwrap();
    let target = target(server.settings(&to));
    target.prepare(view.schema()).await.unwrap();
    target.apply(std::slice::from_ref(&chunk)).await.unwrap();
    let build = server
        .sql("", "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE 'locks_to%'");
    let lock = format!("BEGIN; SELECT COUNT(*) FROM `{}`.t FOR UPDATE; DO SLEEP(60)", build.trim());
    let holder = std::thread::spawn({
        let socket = server.socket();
        move || {
            std::process::Command::new("mariadb")
                .args(["--no-defaults", "-e", &lock])
                .arg(format!("--socket={}", socket.display()))
                .output()
        }
    });
    let sleeper = "SELECT id FROM information_schema.processlist WHERE info LIKE 'DO SLEEP%'";
    while server.sql("", sleeper).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let failure = target.apply(std::slice::from_ref(&chunk)).await.unwrap_err();
    check(&failure, Class::Transient, &["table t", "Lock wait"]);
    server.sql("", &format!("KILL {}", server.sql("", sleeper).trim()));
    holder.join().unwrap().unwrap();
    target.apply(std::slice::from_ref(&chunk)).await.unwrap();
    server.sql(build.trim(), "ALTER TABLE t DROP COLUMN v, ADD COLUMN v VARCHAR(3)");
    let failure = target.apply(&[chunk]).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["table t", "changes values"]);
    server.sql("", "SET GLOBAL max_connections = 10");
    let held: Vec<_> =
        futures::future::join_all((0..30).map(|_| async { source(server.settings(&db)).snapshot().await }))
            .await;
    let failure = held.iter().filter_map(|view| view.as_ref().err()).next().expect("too many connections");
    check(failure, Class::Transient, &["max_connections"]);
}

/// The server ends the lighter transaction of a deadlock: ours.
#[tokio::test]
async fn a_deadlock_is_tried_again_at_once() {
    let server = Server::start(&["--local-infile=1"]);
    let db = server.database("dead", TABLE);
    server.database("ballast", "CREATE TABLE b (id INT)");
    let to = server.fresh("dead_to");
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    let table = TableName::plain("t");
    let first = view.read(&table, &KeyRange::default(), 8_000).await.unwrap();
    let rest = KeyRange { after: first.header.range.until.clone(), until: None };
    let chunks = [first, view.read(&table, &rest, u64::MAX).await.unwrap()];
    let target = Arc::new(target(server.settings(&to)));
    target.prepare(view.schema()).await.unwrap();
    target.apply(&chunks).await.unwrap();
    let list = "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE ";
    let [build, ballast] =
        ["dead_to%", "ballast%"].map(|like| server.sql("", &format!("{list}'{like}'")).trim().to_owned());

    let middle = String::from_utf8(rest.after.unwrap().0.to_vec()).unwrap();
    let opts = mysql_async::OptsBuilder::default().socket(Some(server.socket().display().to_string()));
    let mut other = mysql_async::Conn::new(opts.user(Some("root"))).await.unwrap();
    let heavy = format!("INSERT INTO `{ballast}`.b SELECT seq FROM `{ballast}`.seq_1_to_20000");
    let behind = format!("SELECT id FROM `{build}`.t WHERE id > {middle} FOR UPDATE");
    for statement in ["BEGIN", &heavy, &behind] {
        other.query_drop(statement).await.unwrap();
    }
    let applying = tokio::spawn({
        let (target, chunks) = (target.clone(), chunks.clone());
        async move { target.apply(&chunks).await }
    });
    let waiting = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
    while server.sql("", waiting) != "1\n" {
        assert!(!applying.is_finished(), "nothing stood in its way");
        // The server looks anew only when nobody has asked for a tenth of a second.
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    other.query_drop(format!("SELECT id FROM `{build}`.t WHERE id <= {middle} FOR UPDATE")).await.unwrap();
    other.query_drop("COMMIT").await.unwrap();
    applying.await.unwrap().unwrap();
    assert!(server.sql("", "SHOW ENGINE INNODB STATUS").contains("LATEST DETECTED DEADLOCK"));
    for chunk in &chunks {
        assert_eq!(target.reread(&table, &chunk.header.range).await.unwrap().header, chunk.header);
    }
}

/// Read to its end, a table may be altered while the snapshot is still open.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_read_are_let_go() {
    let server = Server::start(&["--local-infile=1"]);
    let db = server.database(
        "read",
        &format!(
            "{TABLE} CREATE TABLE pieces (id INT PRIMARY KEY, v LONGBLOB); INSERT INTO pieces VALUES (1, REPEAT('x', 5000000));
             CREATE TABLE cut (id INT PRIMARY KEY, v LONGBLOB); INSERT INTO cut SELECT seq, REPEAT('x', 100000) FROM seq_1_to_400;
             ANALYZE TABLE cut; CREATE TABLE ended (id INT PRIMARY KEY); INSERT INTO ended SELECT seq FROM seq_1_to_900;
             CREATE TABLE parked (id INT PRIMARY KEY) AS SELECT * FROM t; CREATE TABLE later (id INT PRIMARY KEY); INSERT INTO later VALUES (1);
             CREATE USER modest@localhost IDENTIFIED BY 's3cret'; GRANT ALL ON `read%`.* TO modest@localhost; GRANT SELECT ON mysql.proc TO modest@localhost; GRANT BINLOG ADMIN ON *.* TO modest@localhost"
        ),
    );
    for settings in [server.settings(&db), account(&server, "modest", &db)] {
        let view = source(settings).snapshot().await.unwrap();
        assert!(view.schema().state.contains_key("binlog/gtid"), "{:?}", view.schema().state);
        let alter = |what: &str| server.sql(&db, &format!("SET lock_wait_timeout = 5; {what}"));
        for name in ["t", "pieces"] {
            let (table, mut range) = (TableName::plain(name), KeyRange::default());
            loop {
                range.after = view.read(&table, &range, 30_000).await.unwrap().header.range.until;
                if range.after.is_none() {
                    break;
                }
            }
            alter(&format!("ALTER TABLE {name} ADD COLUMN IF NOT EXISTS more INT"));
        }
        assert!(!view.split(&TableName::plain("cut"), 4).await.unwrap().is_empty());
        alter("ALTER TABLE cut ADD COLUMN IF NOT EXISTS more INT");
        // Four queries in the middle of their results: the first of them is ended for the next one.
        for (name, after) in [("ended", "1"), ("parked", "1"), ("parked", "100"), ("parked", "200")] {
            let range = KeyRange { after: Some(handover_engine::rows::Key(after.into())), until: None };
            view.read(&TableName::plain(name), &range, 10).await.unwrap();
        }
        // The moment that is seen is still the same.
        alter("INSERT INTO later SELECT MAX(id) + 1 FROM later");
        let rows = view.read(&TableName::plain("later"), &KeyRange::default(), u64::MAX).await.unwrap();
        assert_eq!(
            rows.header.rows + 1,
            server.sql(&db, "SELECT COUNT(*) FROM later").trim().parse::<u64>().unwrap()
        );
        alter("ALTER TABLE ended COMMENT 'again'; TRUNCATE later; TRUNCATE t");
        alter("INSERT INTO later VALUES (1); INSERT INTO t (id) VALUES (1), (2), (3)");
    }
}
