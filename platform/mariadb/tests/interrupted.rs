//! Servers that die, fill up or refuse in the middle of a step: the step is told apart, and goes on when it is tried again.

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseSnapshot, DatabaseTarget};
use handover_engine::rows::{KeyRange, TableName};
use handover_mariadb::{MariaDatabase, MariaTarget, Settings};
use support::Server;

const TABLES: &str = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(300), n INT, KEY v (v), KEY n (n));
  INSERT INTO t SELECT seq, REPEAT(MD5(seq), 9), seq FROM seq_1_to_20000; CREATE TABLE u (id INT PRIMARY KEY); CREATE VIEW w AS SELECT id FROM t;
  CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.n = 1; CREATE PROCEDURE p() SELECT 1;";

async fn view(server: &Server, database: &str) -> Arc<dyn DatabaseSnapshot> {
    MariaDatabase::new("wiki".parse().unwrap(), server.settings(database), Vec::new())
        .snapshot()
        .await
        .unwrap()
}

fn target(settings: Settings) -> MariaTarget {
    let migration: MigrationId = "interrupted".parse().unwrap();
    MariaTarget::new("wiki".parse().unwrap(), settings, &migration)
}

async fn load(view: &dyn DatabaseSnapshot, target: &MariaTarget) -> Result<(), Failure> {
    for table in &view.schema().tables {
        let chunk = view.read(&table.name, &KeyRange::default(), u64::MAX).await?;
        target.apply(&[chunk]).await?;
    }
    Ok(())
}

#[track_caller]
fn check(failure: &Failure, class: Class, words: &[&str]) {
    let text = format!("{failure} {}", failure.hint);
    assert!(failure.class == class && failure.item.contains("wiki") && !failure.hint.is_empty(), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// The database that is built for a place.
fn build(server: &Server, to: &str) -> String {
    let query = format!(
        "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{to}\\\\_\\\\_handover%'"
    );
    server.sql("", &query).trim().to_owned()
}

/// One step of a target.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Finish,
    Publish,
    Undo,
}

async fn step(step: Step, target: &MariaTarget, view: &dyn DatabaseSnapshot) -> Result<(), Failure> {
    match step {
        Step::Finish => target.finish(view.schema()).await,
        Step::Publish => target.publish().await,
        Step::Undo => target.undo().await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_killed_in_any_step_goes_on() {
    let source = Server::start(&["--local-infile=1"]);
    let db = source.database("killed", TABLES);
    let view = view(&source, &db).await;
    let server = Arc::new(Server::start(&["--local-infile=1"]));
    let to = server.database("killed_to", "CREATE TABLE t (old INT); INSERT INTO t VALUES (7)");
    let target = Arc::new(target(server.settings(&to)));
    target.prepare(view.schema()).await.unwrap();
    load(&*view, &target).await.unwrap();
    for of in [Step::Finish, Step::Publish, Step::Undo] {
        // The busier the moment, the better: each attempt is given a little longer until it is through.
        for patience in 0.. {
            let (target, view) = (target.clone(), view.clone());
            let running = tokio::spawn(async move { step(of, &target, &*view).await });
            let _ = tokio::time::timeout(Duration::from_millis(2 << patience), async {
                while !running.is_finished() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            server.kill();
            let done = running.await.unwrap();
            server.crash();
            match done {
                Ok(()) => break,
                Err(failure) => check(&failure, Class::Transient, &["runs"]),
            }
        }
        // The connections that were kept are broken: a restarted agent looks.
        let looking = self::target(server.settings(&to));
        match of {
            Step::Finish => {
                let built = looking.reread_schema().await.unwrap();
                assert_eq!(built.structure(), view.schema().structure());
            }
            Step::Publish => {
                let sums = "CHECKSUM TABLE t, u; SELECT COUNT(*) FROM w";
                let there = source.sql(&db, sums).replace(&db, "db");
                assert_eq!(server.sql(&to, sums).replace(&to, "db"), there);
                assert_eq!(looking.reread_schema().await.unwrap().structure(), view.schema().structure());
            }
            Step::Undo => {
                assert_eq!(server.sql(&to, "SHOW TABLES; SELECT * FROM t"), "t\n7\n");
                assert_eq!(build(&server, &to), "");
            }
        }
    }
}

/// A small disk at a folder, until the end.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: std::path::PathBuf, options: &str) -> Self {
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).status().unwrap();
        assert!(done.success());
        Self(at)
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_at_the_target_is_told_and_goes_on_with_room() {
    let source = Server::shared();
    let db = source.database("full", TABLES);
    let view = view(&source, &db).await;
    let server = Server::start(&["--local-infile=1", "--innodb-file-per-table=1"]);
    let to = server.fresh("full_to");
    // The name of what will be built is learnt, then a small disk is mounted there.
    target(server.settings(&to)).prepare(view.schema()).await.unwrap();
    let place = build(&server, &to);
    target(server.settings(&to)).undo().await.unwrap();
    server.sql("", &format!("CREATE DATABASE `{place}`"));
    let owner = Command::new("id").args(["-u", "mysql"]).output().unwrap();
    let owner = String::from_utf8(owner.stdout).unwrap();
    let disk = Disk::mount(server.data().join(&place), &format!("size=4m,uid={},mode=0700", owner.trim()));
    let target = target(server.settings(&to));
    target.prepare(view.schema()).await.unwrap();
    let failure = load(&*view, &target).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["table t", "full", "free space"]);
    disk.grow("400m");
    load(&*view, &target).await.unwrap();
    let table = TableName::plain("t");
    let (there, here) = (
        view.read(&table, &KeyRange::default(), u64::MAX).await.unwrap(),
        target.reread(&table, &KeyRange::default()).await.unwrap(),
    );
    assert_eq!(there.header.digest, here.header.digest);
    target.finish(view.schema()).await.unwrap();
}

#[tokio::test]
async fn a_target_that_becomes_read_only_is_told_and_goes_on() {
    let server = Server::start(&["--local-infile=1"]);
    let db = server.database("readonly", TABLES);
    let view = view(&server, &db).await;
    server.sql("", "CREATE USER loader@localhost IDENTIFIED BY 's3cret'; GRANT ALL ON *.* TO loader@localhost; REVOKE READ_ONLY ADMIN, SUPER ON *.* FROM loader@localhost");
    let to = server.fresh("readonly_to");
    let url = server.url(&to).replace("root@", "loader:s3cret@");
    let target = target(Settings::parse(&url).unwrap());
    target.prepare(view.schema()).await.unwrap();
    server.sql("", "SET GLOBAL read_only = 1");
    for failure in [load(&*view, &target).await.unwrap_err(), target.finish(view.schema()).await.unwrap_err()]
    {
        check(&failure, Class::NeedsOperator, &["read-only", "read_only"]);
    }
    server.sql("", "SET GLOBAL read_only = 0");
    load(&*view, &target).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
    assert_eq!(server.sql(&to, "SELECT COUNT(*) FROM w").trim(), "20000");
}

#[tokio::test]
async fn a_collation_that_the_target_lacks_is_named() {
    let server = Server::shared();
    let db = server.database("collation", "CREATE TABLE t (v VARCHAR(9) COLLATE utf8mb4_bin PRIMARY KEY)");
    let mut schema = view(&server, &db).await.schema().clone();
    schema.before_load[0].sql = schema.before_load[0].sql.replace("utf8mb4_bin", "utf8mb4_from_the_future");
    let to = server.fresh("collation_to");
    let one = target(server.settings(&to));
    let failure = one.prepare(&schema).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["table t", "utf8mb4_from_the_future", "source's version"]);
    schema.settings.insert("collation".to_owned(), "utf8mb4_from_the_future".to_owned());
    let failure = target(server.settings(&server.fresh("collation_to"))).prepare(&schema).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["utf8mb4_from_the_future"]);
    one.undo().await.unwrap();
}

#[tokio::test]
async fn a_source_that_is_killed_is_waited_for_and_read_anew() {
    let server = Server::start(&["--local-infile=1"]);
    let db = server.database("source", TABLES);
    let first = view(&server, &db).await;
    let table = TableName::plain("t");
    let whole = first.read(&table, &KeyRange::default(), u64::MAX).await.unwrap();
    server.kill();
    let source = MariaDatabase::new("wiki".parse().unwrap(), server.settings(&db), Vec::new());
    let failure = source.facts().await.unwrap_err();
    check(&failure, Class::Transient, &["runs"]);
    let failure = first.read(&table, &KeyRange::default(), u64::MAX).await.unwrap_err();
    assert_eq!(failure.class, Class::Transient, "{failure}");
    server.crash();
    let again = source.snapshot().await.unwrap();
    assert_ne!(again.id(), first.id());
    assert_eq!(
        again.read(&table, &KeyRange::default(), u64::MAX).await.unwrap().header.digest,
        whole.header.digest
    );
}

#[tokio::test]
async fn an_engine_that_the_target_lacks_is_named() {
    let server = Server::shared();
    let db = server.database("engine", "CREATE TABLE t (id INT PRIMARY KEY)");
    let mut schema = view(&server, &db).await.schema().clone();
    schema.before_load[0].sql = schema.before_load[0].sql.replace("ENGINE=InnoDB", "ENGINE=FromTheFuture");
    let target = target(server.settings(&server.fresh("engine_to")));
    let failure = target.prepare(&schema).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["table t", "FromTheFuture", "storage engine"]);
    target.undo().await.unwrap();
}

#[tokio::test]
async fn a_schema_larger_than_any_packet_is_kept() {
    let server = Server::start(&["--local-infile=1", "--max-allowed-packet=1M"]);
    let mut tables = TABLES.to_owned();
    for table in 0..24 {
        let columns: Vec<String> =
            (0..25).map(|column| format!("c{column} INT COMMENT '{}'", "é".repeat(1000))).collect();
        tables += &format!("CREATE TABLE wide{table} (id INT PRIMARY KEY, {});", columns.join(", "));
    }
    let db = server.database("vast", &tables);
    let view = view(&server, &db).await;
    assert!(serde_json::to_vec(view.schema()).unwrap().len() > 1 << 20);
    // What stood there before is as large.
    let to = server.database("vast_to", &tables.replace("wide", "old"));
    let target = target(server.settings(&to));
    target.prepare(view.schema()).await.unwrap();
    load(&*view, &target).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    assert_eq!(server.sql(&to, "SHOW TABLES LIKE 'wide%'").lines().count(), 24);
    target.undo().await.unwrap();
    assert_eq!(server.sql(&to, "SHOW TABLES LIKE 'old%'").lines().count(), 24);
    assert_eq!(build(&server, &to), "");
}

#[tokio::test]
async fn the_state_of_an_older_release_is_read() {
    let server = Server::shared();
    let db = server.database("older", TABLES);
    let view = view(&server, &db).await;
    let to = server.fresh("older_to");
    let target = target(server.settings(&to));
    target.prepare(view.schema()).await.unwrap();
    load(&*view, &target).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    server.sql(&build(&server, &to), "UPDATE __handover_state SET k = 'state'");
    target.publish().await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    target.undo().await.unwrap();
}

#[tokio::test]
async fn positions_that_were_not_completed_are_completed() {
    let server = Server::shared();
    let db = server.database("positions", "CREATE TABLE t (a INT); INSERT INTO t VALUES (3), (1), (2)");
    let view = view(&server, &db).await;
    let to = server.fresh("positions_to");
    let target = target(server.settings(&to));
    let positions = "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = 't'";
    for interrupted in ["DROP INDEX __handover_pos", "DROP INDEX __handover_pos, DROP COLUMN __handover_pos"]
    {
        target.prepare(view.schema()).await.unwrap();
        let place = build(&server, &to);
        server.sql(&place, &format!("ALTER TABLE t {interrupted}; INSERT INTO t (a) VALUES (7), (8)"));
        target.prepare(view.schema()).await.unwrap();
        assert_eq!(server.sql(&place, positions).trim(), "1", "{interrupted}");
    }
    load(&*view, &target).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
    assert_eq!(server.sql(&to, "SELECT * FROM t"), "3\n1\n2\n");
    target.undo().await.unwrap();
}

#[tokio::test]
async fn leftovers_of_the_last_publication_are_in_nobodys_way() {
    let server = Server::shared();
    let db = server.database("leftover", TABLES);
    let view = view(&server, &db).await;
    let to = server.database("leftover_to", "CREATE TABLE t (old INT)");
    let target = target(server.settings(&to));
    for pass in 0..2 {
        target.prepare(view.schema()).await.unwrap();
        load(&*view, &target).await.unwrap();
        target.finish(view.schema()).await.unwrap();
        if pass == 1 {
            let all = build(&server, &to);
            let place = all.lines().min_by_key(|name| name.len()).unwrap();
            server
                .sql("", &format!("CREATE DATABASE `{place}_gone`; CREATE TABLE `{place}_gone`.t (id INT)"));
        }
        target.publish().await.unwrap();
    }
    assert!(!build(&server, &to).contains("gone"));
    assert_eq!(server.sql(&to, "SELECT COUNT(*) FROM t").trim(), "20000");
    target.undo().await.unwrap();
    assert_eq!(server.sql(&to, "SHOW TABLES; SELECT COUNT(*) FROM t"), "t\n0\n");
}

/// The server ends the statement of an agent that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_finish_that_is_overtaken_by_the_former_one_goes_on() {
    let server = Arc::new(Server::start(&["--local-infile=1"]));
    let db = server.database(
        "overtaken",
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(300), n INT, KEY v (v), KEY n (n), KEY vn (v, n), KEY nv (n, v));
         INSERT INTO t SELECT seq, CONCAT(MD5(seq), REPEAT('x', 200)), seq FROM seq_1_to_150000;
         CREATE TABLE p (n INT, v VARCHAR(300)); INSERT INTO p SELECT n, v FROM t;",
    );
    let view = view(&server, &db).await;
    for only in ["t", "p"] {
        let to = server.fresh("overtaken_to");
        let former = Arc::new(target(server.settings(&to)));
        former.prepare(view.schema()).await.unwrap();
        let chunk = view.read(&TableName::plain(only), &KeyRange::default(), u64::MAX).await.unwrap();
        former.apply(&[chunk]).await.unwrap();
        let place = build(&server, &to);
        let running = tokio::spawn({
            let (former, view) = (former.clone(), view.clone());
            async move { former.finish(view.schema()).await }
        });
        let altering = format!(
            "SELECT 1 FROM information_schema.processlist WHERE db = '{place}' AND info LIKE '%ALTER TABLE `{only}`%'"
        );
        while server.sql("", &altering).is_empty() {
            assert!(!running.is_finished(), "there was nothing to overtake");
        }
        running.abort();
        let _ = running.await;
        target(server.settings(&to)).finish(view.schema()).await.unwrap();
        let built = target(server.settings(&to)).reread_schema().await.unwrap();
        assert_eq!(built.structure(), view.schema().structure());
    }
}
