//! Bad days: each is a failure of the right class that names its item and says what to do.

mod support;

use std::sync::Arc;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::{KeyRange, TableName};
use handover_mariadb::{MariaDatabase, MariaTarget, Settings, offers, source_privileges, target_privileges};
use mysql_async::prelude::Queryable;
use support::Server;

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(100), UNIQUE KEY v (v)); INSERT INTO t SELECT seq, CONCAT('s3cret', seq) FROM seq_1_to_2000;";

fn source(settings: Settings) -> MariaDatabase {
    MariaDatabase::new("wiki".parse().unwrap(), settings, Vec::new())
}

fn target(settings: Settings) -> MariaTarget {
    let migration: MigrationId = "trouble".parse().unwrap();
    MariaTarget::new("wiki".parse().unwrap(), settings, &migration)
}

#[track_caller]
fn check(failure: &Failure, class: Class, words: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, class, "{text}");
    assert!(!failure.hint.is_empty() && failure.item.contains("wiki"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
}

fn account(server: &Server, user: &str, database: &str) -> Settings {
    let url = format!("mariadb://{user}:s3cret@localhost/{database}?socket={}", server.socket().display());
    Settings::parse(&url).unwrap()
}

#[tokio::test]
async fn signing_in() {
    let server = Server::shared();
    let db = server.database("signing", TABLE);
    let failure = source(account(&server, "stranger", &db)).facts().await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["Access denied", "password"]);
    let failure = source(server.settings("not_there")).facts().await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["not_there", "1049"]);
    let nowhere =
        Settings::parse(&format!("mariadb://root@localhost/{db}?socket=/nonexistent/s.sock")).unwrap();
    let failure = source(nowhere).facts().await.unwrap_err();
    check(&failure, Class::Transient, &["/nonexistent/s.sock", "runs"]);
    let url = format!(
        "mariadb://root@localhost/{db}?socket={}&password_file=/nonexistent",
        server.socket().display()
    );
    let failure = source(Settings::parse(&url).unwrap()).facts().await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["/nonexistent"]);
}

#[tokio::test]
async fn privileges_are_named_with_their_grants() {
    let server = Server::shared();
    let db = server.database(
        "grants",
        &format!("{TABLE} CREATE VIEW w AS SELECT 1; CREATE FUNCTION f() RETURNS INT RETURN 1;"),
    );
    server.sql(
        "",
        &format!(
            "CREATE USER poor@localhost IDENTIFIED BY 's3cret'; GRANT SELECT ON `{db}`.* TO poor@localhost"
        ),
    );
    let poor = account(&server, "poor", &db);
    let name = "wiki".parse().unwrap();
    let found = source_privileges(&name, &poor).await.unwrap();
    assert!(found.iter().any(|f| f.required && f.what.contains("SHOW VIEW")), "{found:?}");
    for finding in &found {
        server.sql("", &finding.fix);
    }
    assert_eq!(source_privileges(&name, &poor).await.unwrap(), []);
    source(poor.clone()).snapshot().await.unwrap();
    let to = server.fresh("grants_to");
    let poor = account(&server, "poor", &to);
    let failure = target(poor.clone())
        .prepare(source(server.settings(&db)).snapshot().await.unwrap().schema())
        .await
        .unwrap_err();
    check(&failure, Class::NeedsOperator, &["denied to user", "grant"]);
    for finding in target_privileges(&name, &poor).await.unwrap() {
        assert!(
            finding.required || finding.fix.contains("SET USER") || finding.fix.contains("GLOBAL"),
            "{finding:?}"
        );
        server.sql("", &finding.fix);
    }
    assert_eq!(target_privileges(&name, &poor).await.unwrap(), []);
    server.sql("", "REVOKE SELECT ON mysql.global_priv FROM poor@localhost");
    let found = target_privileges(&name, &poor).await.unwrap();
    assert!(found.len() == 1 && found[0].what.contains("no definer is known here"), "{found:?}");
    server.sql("", &found[0].fix);
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    let target = target(poor);
    target.prepare(view.schema()).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
    target.undo().await.unwrap();
}

#[tokio::test]
async fn what_the_target_lacks_is_told_before_planning() {
    let server = Server::shared();
    let from = server.database(
        "needs",
        "CREATE TABLE `Kaste` (id INT PRIMARY KEY, a TEXT CHARACTER SET latin2 COLLATE latin2_czech_cs) ENGINE=Aria",
    );
    let settings = server.settings(&from);
    let facts = source(server.settings(&from)).facts().await.unwrap();
    let offers = offers(&"wiki".parse().unwrap(), &settings).await.unwrap();
    let missing = |lost: &str| {
        let here = |thing: &String| offers.contains(thing) && !thing.contains(lost);
        let lacking = facts.needs.iter().filter(|need| !here(&need.thing));
        lacking.map(|need| need.finding.what.clone()).collect::<Vec<_>>()
    };
    assert_eq!(missing("nothing that is asked for"), [""; 0]);
    for (lost, told) in [
        ("latin2_czech_cs", "the collation latin2_czech_cs"),
        ("Aria", "the storage engine Aria"),
        ("capitals", "call Kaste something else"),
    ] {
        let found = missing(lost);
        assert!(found.len() == 1 && found[0].contains(told), "{found:?}");
    }
}

#[tokio::test]
async fn no_reload_privilege_still_gives_one_moment() {
    let server = Server::shared();
    let db = server.database("reload", TABLE);
    server.sql("", &format!("CREATE USER modest@localhost IDENTIFIED BY 's3cret'; GRANT ALL ON `{db}`.* TO modest@localhost; GRANT SELECT ON mysql.proc TO modest@localhost"));
    let view = source(account(&server, "modest", &db)).snapshot().await.unwrap();
    assert!(view.schema().state.contains_key("binlog/gtid"), "{:?}", view.schema().state);
    server.sql(&db, "DELETE FROM t");
    let table = TableName::plain("t");
    let reads = (0..6).map(|n| {
        let range = KeyRange {
            after: Some(handover_engine::rows::Key(format!("{}", n * 10).into_bytes().into())),
            until: None,
        };
        let (view, table) = (Arc::clone(&view), table.clone());
        async move { view.read(&table, &range, u64::MAX).await.unwrap().header.rows }
    });
    assert_eq!(futures::future::join_all(reads).await, [2000, 1990, 1980, 1970, 1960, 1950]);
}

#[tokio::test]
async fn tables_that_change_under_the_snapshot() {
    let server = Server::shared();
    let db = server.database("changed", &format!("{TABLE} CREATE TABLE u (id INT PRIMARY KEY);"));
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    server.sql(&db, "ALTER TABLE t ADD COLUMN later INT, ALGORITHM=COPY; DROP TABLE u");
    let failure = view.read(&TableName::plain("t"), &KeyRange::default(), 100).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["table t", "altered"]);
    let failure = view.read(&TableName::plain("u"), &KeyRange::default(), 100).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["table u", "dropped"]);
}

#[tokio::test]
async fn a_server_that_dies_is_waited_for() {
    let server = Server::start(&["--local-infile=1"]);
    let db = server.database("dies", TABLE);
    let to = server.fresh("dies_to");
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    let table = TableName::plain("t");
    let first = view.read(&table, &KeyRange::default(), 1000).await.unwrap();
    let target = target(server.settings(&to));
    target.prepare(view.schema()).await.unwrap();
    target.apply(std::slice::from_ref(&first)).await.unwrap();
    server.kill();
    let failure = target.apply(std::slice::from_ref(&first)).await.unwrap_err();
    check(&failure, Class::Transient, &["runs"]);
    let rest = KeyRange { after: first.header.range.until.clone(), until: None };
    let failure = view.read(&table, &rest, u64::MAX).await.err();
    server.crash();
    let again = target.reread(&table, &first.header.range).await.unwrap();
    assert_eq!(again.header, first.header, "what was applied is gone after a crash");
    target.apply(&[first]).await.unwrap();
    if let Some(failure) = failure {
        check(&failure, Class::Transient, &[]);
    }
    let lost = view.read(&table, &KeyRange::default(), u64::MAX).await.unwrap_err();
    check(&lost, Class::Transient, &[]);
}

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

#[tokio::test]
async fn another_migrations_place_is_not_touched() {
    let server = Server::shared();
    let db = server.database("two", TABLE);
    let to = server.fresh("two_to");
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    target(server.settings(&to)).prepare(view.schema()).await.unwrap();
    let other = MariaTarget::new("wiki".parse().unwrap(), server.settings(&to), &"other".parse().unwrap());
    let failure = other.prepare(view.schema()).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["another migration", "abort"]);
    let mut foreign = view.schema().clone();
    foreign.before_load[0].sql = "CREATE TABLE x (id INT); DROP DATABASE mysql".to_owned();
    let failure =
        MariaTarget::new("wiki".parse().unwrap(), server.settings("elsewhere"), &"m".parse().unwrap())
            .prepare(&foreign)
            .await
            .unwrap_err();
    check_refused(&failure);
}

fn check_refused(failure: &Failure) {
    assert!(failure.to_string().contains("1064"), "a second statement was run: {failure}");
}

#[tokio::test]
async fn a_stale_row_elsewhere_gives_way() {
    let server = Server::shared();
    let db = server.database(
        "stale",
        "CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (5, 50)",
    );
    let to = server.fresh("stale_to");
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    let table = TableName::plain("t");
    let whole = view.read(&table, &KeyRange::default(), u64::MAX).await.unwrap();
    let target = target(server.settings(&to));
    target.prepare(view.schema()).await.unwrap();
    target.apply(&[whole]).await.unwrap();
    let build = server.sql(
        "",
        &format!("SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{to}%'"),
    );
    server.sql(build.trim(), "ALTER TABLE t ADD UNIQUE KEY v (v)");
    server.sql(&db, "DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (2, 50)");
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    let key = |key: &'static str| Some(handover_engine::rows::Key(key.into()));
    let range = KeyRange { after: None, until: key("3") };
    let part = view.read(&table, &range, u64::MAX).await.unwrap();
    target.apply(&[part]).await.unwrap();
    assert_eq!(server.sql(build.trim(), "SELECT id, v FROM t ORDER BY id"), "1\t10\n2\t50\n");
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

/// When the connection for large values is lost, the rest of the table is not fetched to be thrown away.
#[tokio::test]
async fn a_query_that_is_of_no_more_use_is_ended() {
    let server = Server::start(&["--local-infile=1"]);
    let db = server.database(
        "useless",
        "CREATE TABLE t (id INT PRIMARY KEY, v LONGBLOB); INSERT INTO t VALUES (1, REPEAT('x', 5000000));
         INSERT INTO t SELECT seq, REPEAT('x', 4000000) FROM seq_2_to_30",
    );
    let view = source(server.settings(&db)).snapshot().await.unwrap();
    // The last of those that have the view, which the next one has been opened after.
    let ours =
        format!("SELECT id FROM information_schema.processlist WHERE db = '{db}' ORDER BY id LIMIT 4, 1");
    server.sql("", &format!("KILL {}", server.sql("", &ours).trim()));
    let sent = || {
        let shown = server.sql("", "SHOW GLOBAL STATUS LIKE 'Bytes_sent'");
        shown.trim().rsplit('\t').next().unwrap().parse::<u64>().unwrap()
    };
    let before = sent();
    let failure = view.read(&TableName::plain("t"), &KeyRange::default(), u64::MAX).await.unwrap_err();
    check(&failure, Class::Transient, &["table t"]);
    assert!(sent() - before < 60_000_000, "{} bytes were sent", sent() - before);
}
