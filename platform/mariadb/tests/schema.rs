//! Every kind of object arrives, as the engine's own dump tool tells.

mod support;

use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::KeyRange;
use handover_mariadb::{MariaDatabase, MariaTarget};
use mysql_async::prelude::Queryable;
use support::Server;

const OBJECTS: &str = r#"
CREATE SEQUENCE numbers START WITH 100 INCREMENT BY 5 MAXVALUE 1000 CACHE 3 CYCLE;
SELECT NEXTVAL(numbers); SELECT NEXTVAL(numbers);
CREATE TABLE parent (id BIGINT UNSIGNED AUTO_INCREMENT, code VARCHAR(9) NOT NULL COMMENT 'it''s, a (comment)', other BIGINT UNSIGNED,
  PRIMARY KEY (id), UNIQUE KEY code (code), KEY other (other), KEY pre (code(3), id DESC) COMMENT 'two', KEY ign (id, code) IGNORED,
  CONSTRAINT positive CHECK (other >= 0 AND code <> 'a,)b')) AUTO_INCREMENT=4711 COMMENT='x AUTO_INCREMENT=3';
CREATE TABLE Child (a INT NOT NULL DEFAULT NEXTVAL(numbers), n INT NOT NULL AUTO_INCREMENT, pid BIGINT UNSIGNED, t TEXT DEFAULT (CONCAT('x', 'y')), g POINT NOT NULL,
  long_text TEXT, PRIMARY KEY (a), KEY n (n), FULLTEXT KEY ft (t), FULLTEXT KEY ft2 (t, long_text), SPATIAL KEY g (g), UNIQUE KEY hashed (long_text),
  CONSTRAINT `f 1` FOREIGN KEY (pid) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE SET NULL);
ALTER TABLE parent ADD CONSTRAINT loops FOREIGN KEY (other) REFERENCES parent (id);
INSERT INTO parent VALUES (1, 'one', NULL), (2, 'two', 1);
INSERT INTO Child (pid, t, g) VALUES (1, 'a', POINT(1, 2)), (2, 'b', POINT(3, 4)); DELETE FROM Child WHERE pid = 2;
CREATE TABLE parted (id INT NOT NULL, y YEAR NOT NULL, PRIMARY KEY (id, y)) ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4
  PARTITION BY RANGE (y) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (PARTITION `p old` VALUES LESS THAN (2000), PARTITION pn VALUES LESS THAN MAXVALUE);
INSERT INTO parted VALUES (1, 1999), (2, 2010);
CREATE TABLE kept (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING;
INSERT INTO kept VALUES (1, 2); UPDATE kept SET v = 3;
CREATE TABLE emoji (e ENUM('é', 'ü') NOT NULL, PRIMARY KEY (e)) COLLATE utf8mb4_bin; INSERT INTO emoji VALUES ('é');
CREATE TABLE isam (a INT, b VARCHAR(20), KEY (b)) ENGINE=MyISAM; INSERT INTO isam VALUES (3, 'c'), (1, 'a'), (2, NULL);
CREATE VIEW a_first AS SELECT * FROM z_last;
"#;

const LATE: &str = r#"
CREATE ALGORITHM=MERGE DEFINER=`nobody here`@`%` SQL SECURITY INVOKER VIEW checked AS SELECT id, code FROM parent WHERE id > 0 WITH CASCADED CHECK OPTION;
CREATE VIEW uses_f AS SELECT twice(id) AS d, 'é' AS e FROM parent;
DELIMITER //
CREATE DEFINER=known@localhost TRIGGER t2 BEFORE INSERT ON parent FOR EACH ROW BEGIN SET NEW.code = CONCAT(NEW.code, ';'); END//
CREATE TRIGGER t1 BEFORE INSERT ON parent FOR EACH ROW PRECEDES t2 SET @x = 'DEFINER=`a`@`b`'//
SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'//
CREATE PROCEDURE quotes(IN "a b" INT) COMMENT 'c' SELECT 'x' || "a b" AS "col" FROM "parent"//
SET sql_mode = 'NO_BACKSLASH_ESCAPES'//
CREATE FUNCTION backslash() RETURNS TEXT CHARSET utf8mb4 NO SQL RETURN '\'//
SET sql_mode = ORACLE//
CREATE PACKAGE pack AS FUNCTION one RETURN INT; END//
CREATE PACKAGE BODY pack AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END//
SET sql_mode = ''//
SET NAMES latin1//
CREATE PROCEDURE old_client() SELECT 1//
SET NAMES utf8mb4, time_zone = '+02:00'//
CREATE EVENT tick ON SCHEDULE EVERY 1 MINUTE STARTS '2030-06-01 00:00:00' ON COMPLETION PRESERVE ENABLE COMMENT 'tick' DO INSERT INTO isam VALUES (9, 'PRESERVE ENABLE')//
CREATE EVENT off_one ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' DISABLE DO SELECT 1//
"#;

/// The dump tool's text, without rows' order and without what names the database.
fn dump(server: &Server, database: &str) -> String {
    let out = std::process::Command::new("mariadb-dump")
        .args([
            "--no-defaults",
            "--skip-comments",
            "--routines",
            "--triggers",
            "--events",
            "--order-by-primary",
            "--skip-extended-insert",
        ])
        .arg(format!("--socket={}", server.socket().display()))
        .arg(database)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout)
        .replace(database, "db")
        .replace("`nobody here`@`%`", "`root`@`localhost`")
}

/// One pass of a database, to its end.
async fn carry(server: &Server, from: &str, to: &str) -> MariaTarget {
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(from), Vec::new());
    let view = source.snapshot().await.unwrap();
    let migration: MigrationId = "schema".parse().unwrap();
    let target = MariaTarget::new("db".parse().unwrap(), server.settings(to), &migration);
    target.prepare(view.schema()).await.unwrap();
    for table in &view.schema().tables {
        let chunk = view.read(&table.name, &KeyRange::default(), u64::MAX).await.unwrap();
        target.apply(&[chunk]).await.unwrap();
    }
    target.finish(view.schema()).await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().after_load, view.schema().after_load);
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    target.publish().await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    target
}

fn filled(server: &Server) -> String {
    let from = server.database(
        "objects",
        &OBJECTS.replace(
            "CREATE VIEW a_first",
            "CREATE VIEW z_last AS SELECT id FROM parent; CREATE VIEW a_first",
        ),
    );
    server.sql("", "CREATE USER IF NOT EXISTS known@localhost");
    server.sql(&from, "CREATE FUNCTION twice(x INT) RETURNS INT DETERMINISTIC RETURN 2 * x");
    server.sql(&from, LATE);
    from
}

#[tokio::test]
async fn every_object_arrives() {
    let server = Server::shared();
    let (from, to) = (filled(&server), server.fresh("objects_to"));
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&from), Vec::new());
    let view = source.snapshot().await.unwrap();
    let migration: MigrationId = "schema".parse().unwrap();
    let target = MariaTarget::new("db".parse().unwrap(), server.settings(&to), &migration);
    target.prepare(view.schema()).await.unwrap();
    for table in &view.schema().tables {
        let chunk = view.read(&table.name, &KeyRange::default(), u64::MAX).await.unwrap();
        target.apply(&[chunk]).await.unwrap();
    }
    target.finish(view.schema()).await.unwrap();
    let built = target.reread_schema().await.unwrap();
    assert_eq!(built.before_load, view.schema().before_load);
    assert_eq!(built.after_load, view.schema().after_load);
    assert_eq!(built.structure(), view.schema().structure());
    let build = server.sql(
        "",
        &format!(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{to}\\_\\_handover%'"
        ),
    );
    let enabled = format!(
        "SELECT COUNT(*) FROM information_schema.events WHERE status = 'ENABLED' AND event_schema = '{}'",
        build.trim()
    );
    assert_eq!(server.sql("", &enabled).trim(), "0", "an event may fire before it is published");
    target.publish().await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    let (there, here) = (dump(&server, &from), dump(&server, &to));
    for (a, b) in there.lines().zip(here.lines()) {
        assert_eq!(a, b);
    }
    assert_eq!(there.lines().count(), here.lines().count());
    let counters = "SELECT auto_increment FROM information_schema.tables WHERE table_name = 'parent' AND table_schema = DATABASE(); SELECT next_not_cached_value FROM numbers; SHOW CREATE DATABASE `db`";
    let counters =
        |name: &str| server.sql(name, &counters.replace("`db`", &format!("`{name}`"))).replace(name, "db");
    assert_eq!(counters(&from), counters(&to));
    server.sql("", &format!("GRANT ALL ON `{to}`.* TO known@localhost"));
    server.sql(
        &to,
        "INSERT INTO Child (g) VALUES (POINT(1,1)); INSERT INTO parent (code) VALUES ('n'); CALL quotes(1)",
    );
    assert_eq!(server.sql(&to, "SELECT id, code FROM parent ORDER BY id DESC LIMIT 1"), "4711\tn;\n");
    target.undo().await.unwrap();
    let left = format!("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE '{to}%'");
    assert_eq!(server.sql("", &left).trim(), "0");
}

#[tokio::test]
async fn a_finish_that_was_interrupted_goes_on() {
    let server = Server::shared();
    let (from, to) = (filled(&server), server.fresh("objects_to"));
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&from), Vec::new());
    let view = source.snapshot().await.unwrap();
    let migration: MigrationId = "schema".parse().unwrap();
    let target = || MariaTarget::new("db".parse().unwrap(), server.settings(&to), &migration);
    target().prepare(view.schema()).await.unwrap();
    let whole = view.schema();
    for upto in 0..whole.after_load.len() {
        let mut part = whole.clone();
        part.after_load.truncate(upto);
        part.after_load.retain(|ddl| ddl.kind != "view" || ddl.name == "z_last");
        target().finish(&part).await.unwrap();
    }
    target().finish(whole).await.unwrap();
    assert_eq!(target().reread_schema().await.unwrap().structure(), whole.structure());
    target().undo().await.unwrap();
}

#[tokio::test]
async fn the_history_of_versioned_tables_is_told_to_stay() {
    let server = Server::shared();
    let from = server.database(
        "versioned",
        "CREATE TABLE hidden (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING;
         CREATE TABLE told (id INT PRIMARY KEY, v INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END,
           PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING;
         INSERT INTO hidden VALUES (1, 1), (2, 2); UPDATE hidden SET v = 3; DELETE FROM hidden WHERE id = 2;
         INSERT INTO told (id, v) VALUES (1, 1), (2, 2); UPDATE told SET v = 3 WHERE id = 1;",
    );
    let to = server.fresh("versioned_to");
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&from), Vec::new());
    let notes = source.facts().await.unwrap().notes.join("\n");
    for table in ["hidden", "told"] {
        let expected =
            format!("table {table} is system-versioned: its current rows move, its history does not");
        assert!(notes.contains(&expected), "{notes}");
    }
    let view = source.snapshot().await.unwrap();
    let target = MariaTarget::new(
        "db".parse().unwrap(),
        server.settings(&to),
        &"versioned".parse::<MigrationId>().unwrap(),
    );
    target.prepare(view.schema()).await.unwrap();
    for table in &view.schema().tables {
        let chunk = view.read(&table.name, &KeyRange::default(), u64::MAX).await.unwrap();
        target.apply(std::slice::from_ref(&chunk)).await.unwrap();
        assert_eq!(
            target.reread(&table.name, &KeyRange::default()).await.unwrap().header.digest,
            chunk.header.digest
        );
    }
    target.finish(view.schema()).await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    target.publish().await.unwrap();
    let rows = "SELECT id, v FROM hidden ORDER BY id; SELECT id, v FROM told ORDER BY id";
    assert_eq!(server.sql(&from, rows), server.sql(&to, rows));
    // The target writes history from now on.
    server.sql(&to, "UPDATE told SET v = 9 WHERE id = 1");
    assert_eq!(server.sql(&to, "SELECT COUNT(*) FROM told FOR SYSTEM_TIME ALL").trim(), "3");
}

#[tokio::test]
async fn triggers_arrive_however_they_were_typed() {
    let server = Server::shared();
    let from = server.database("typed", "CREATE TABLE t (id INT PRIMARY KEY, log VARCHAR(99) DEFAULT ''); CREATE TABLE `o``n` (id INT PRIMARY KEY)");
    server.sql("", "CREATE USER IF NOT EXISTS typist@localhost");
    let statements = r#"
DELIMITER //
CREATE definer = typist@localhost trigger /* ON `x` */ `DB`.`tr` -- FOR EACH ROW
 before insert on `DB`.`t` for each row begin SET NEW.log = CONCAT(NEW.log, 'TRIGGER '); end//
CREATE TRIGGER second BEFORE INSERT ON DB . t FOR EACH ROW FOLLOWS tr SET NEW.log = CONCAT(NEW.log, 'c')//
CREATE TRIGGER between_both BEFORE INSERT ON t FOR EACH ROW PRECEDES second SET NEW.log = CONCAT(NEW.log, 'b')//
SET sql_mode = ANSI_QUOTES//
CREATE TRIGGER "DB"."o`n" AFTER DELETE ON "DB"."o`n" FOR EACH ROW INSERT INTO t (id) VALUES (100 + OLD.id)//
"#;
    server.sql(&from, &statements.replace("DB", &from));
    let to = server.database("typed_to", "CREATE TABLE t (old INT)");
    let target = carry(&server, &from, &to).await;
    let definer = format!(
        "SELECT trigger_name, definer FROM information_schema.triggers WHERE trigger_schema = '{to}' ORDER BY 1"
    );
    let expected =
        "between_both\troot@localhost\no`n\troot@localhost\nsecond\troot@localhost\ntr\ttypist@localhost\n";
    assert_eq!(server.sql("", &definer), expected);
    server.sql("", &format!("GRANT ALL ON `{to}`.* TO typist@localhost"));
    server.sql(&to, "INSERT INTO t (id) VALUES (1); INSERT INTO `o``n` VALUES (7); DELETE FROM `o``n`");
    assert_eq!(server.sql(&to, "SELECT id, log FROM t ORDER BY id"), "1\tTRIGGER bc\n107\tTRIGGER bc\n");
    assert_eq!(server.sql(&from, "SELECT COUNT(*) FROM t").trim(), "0");
    // What is published moves once more, and is taken back: triggers name no database any more.
    let again = server.fresh("typed_again");
    carry(&server, &to, &again).await;
    target.undo().await.unwrap();
}

/// A client that sends what it is told to, byte for byte.
async fn client(server: &Server, database: &str, statements: &[&[u8]]) {
    let opts = mysql_async::OptsBuilder::default()
        .socket(Some(server.socket().display().to_string()))
        .user(Some("root"))
        .db_name(Some(database));
    let mut client = mysql_async::Conn::new(opts).await.unwrap();
    for statement in statements {
        client.query_drop(*statement).await.unwrap();
    }
    client.disconnect().await.unwrap();
}

#[tokio::test]
async fn objects_of_clients_with_other_character_sets_arrive() {
    let server = Server::shared();
    let from =
        server.database("latin", "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9) CHARACTER SET latin1)");
    let made: [&[u8]; 6] = [
        b"SET NAMES latin1",
        b"CREATE PROCEDURE p() SELECT 'x\xe9', HEX('x\xe9')",
        b"CREATE FUNCTION f() RETURNS TEXT RETURN HEX('x\xe9')",
        b"CREATE VIEW w AS SELECT 'x\xe9' AS v, HEX('x\xe9') AS h",
        b"CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 'x\xe9'",
        b"CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DISABLE DO SET @x = 'x\xe9'",
    ];
    client(&server, &from, &made).await;
    let to = server.fresh("latin_to");
    carry(&server, &from, &to).await;
    let shown = |name: &str| {
        let query = "CALL p(); SELECT f(); SELECT v, HEX(v), h FROM w; INSERT INTO t (id) VALUES (1); SELECT HEX(v) FROM t;
            SELECT HEX(body), character_set_client FROM mysql.proc WHERE db = DATABASE() ORDER BY name;
            SELECT HEX(body), comment FROM mysql.event WHERE db = DATABASE(); SHOW CREATE VIEW w; SHOW CREATE TRIGGER tr";
        // A trigger was made at a moment of its own.
        let shown = server.sql(name, query);
        shown.split(&[' ', '\t']).filter(|word| !word.starts_with("20")).collect::<Vec<_>>().join(" ")
    };
    let there = shown(&from);
    assert!(there.contains("xé 78E9") && there.contains("\n78E9\n"), "{there}");
    let cut = |text: &str| text.split(" latin1_swedish_ci utf8mb4").next().unwrap_or_default().to_owned();
    assert_eq!(cut(&there), cut(&shown(&to)));
}

#[tokio::test]
async fn an_object_that_is_no_text_is_named() {
    let server = Server::shared();
    let from = server.database("binary", "CREATE TABLE t (id INT PRIMARY KEY)");
    client(&server, &from, &[b"SET NAMES binary", b"CREATE PROCEDURE `bad one`() SELECT 'x\xe9'"]).await;
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&from), Vec::new());
    let failure = source.facts().await.unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("procedure bad one") && text.contains("character_set_client binary"), "{text}");
    server.sql(&from, "DROP PROCEDURE `bad one`");
    source.facts().await.unwrap();
    // What the server does not show as it is.
    for (kind, made) in [
        ("PROCEDURE told", b"CREATE PROCEDURE told() COMMENT '\xe9' SELECT 1".as_slice()),
        ("EVENT told", b"CREATE EVENT told ON SCHEDULE EVERY 1 DAY COMMENT '\xe9' DO SELECT 1".as_slice()),
    ] {
        client(&server, &from, &[b"SET NAMES latin1", made]).await;
        let text = source.facts().await.unwrap_err().to_string();
        assert!(text.contains("told") && text.contains("latin1"), "{text}");
        server.sql(&from, &format!("DROP {kind}"));
    }
}

#[tokio::test]
async fn a_view_that_is_broken_at_the_source_is_named() {
    let server = Server::shared();
    let from = server.database("broken", "CREATE TABLE t (a INT PRIMARY KEY, b INT); CREATE VIEW `no more` AS SELECT b FROM t; ALTER TABLE t DROP COLUMN b");
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&from), Vec::new());
    let view = source.snapshot().await.unwrap();
    let migration: MigrationId = "broken".parse().unwrap();
    let to = server.settings(&server.fresh("broken_to"));
    let target = MariaTarget::new("db".parse().unwrap(), to, &migration);
    target.prepare(view.schema()).await.unwrap();
    let failure = target.finish(view.schema()).await.unwrap_err().to_string();
    assert!(failure.contains("view no more cannot be made"), "{failure}");
    target.undo().await.unwrap();
}
