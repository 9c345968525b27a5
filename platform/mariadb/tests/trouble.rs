//! Bad days: each is a failure of the right class that names its item and says what to do.

#[path = "trouble/locks.rs"]
mod locks;
mod support;

use std::sync::Arc;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::{KeyRange, TableName};
use handover_mariadb::{MariaDatabase, MariaTarget, Settings, offers, source_privileges, target_privileges};
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
