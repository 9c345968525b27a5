//! Backups of databases on real servers.

mod support;

use handover_backups::Tools;
use handover_tests::server::{Engine, Server};

use support::Host;
use support::servers::{dump, mariadb, postgres};

const MARIADB: &str = "
    CREATE TABLE customer (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(80) CHARACTER SET latin1, born DATE) ENGINE=InnoDB;
    CREATE TABLE `order` (id BIGINT PRIMARY KEY, customer INT NOT NULL, paper LONGBLOB, j JSON,
        total DECIMAL(24,4) AS (id * 1.5) STORED, FOREIGN KEY (customer) REFERENCES customer (id) ON DELETE CASCADE) ENGINE=InnoDB;
    CREATE TABLE log (at TIMESTAMP, what TEXT) ENGINE=InnoDB;
    CREATE SEQUENCE numbers START WITH 41;
    INSERT INTO customer (name, born) VALUES ('Müller', '1970-01-01'), ('O''Hara \\\\ \"x\"', NULL), ('line\nbreak', '2000-02-29');
    INSERT INTO `order` (id, customer, paper, j) VALUES (1, 1, x'00ff0a0d27', '{\"a\": 1}'), (9007199254740993, 2, NULL, NULL);
    CREATE TRIGGER noted AFTER INSERT ON customer FOR EACH ROW INSERT INTO log VALUES (now(), new.name);
    CREATE VIEW names AS SELECT name FROM customer WHERE id < twice(100);
    CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
    CREATE PROCEDURE empty_log() DELETE FROM log;
    CREATE EVENT rarely ON SCHEDULE EVERY 1 YEAR DO DELETE FROM log;
";
#[tokio::test]
async fn a_mariadb_database_comes_back_whole() {
    let server = Server::start(Engine::Mariadb, &["--log-bin-trust-function-creators=1"]).unwrap();
    server.run("", "CREATE DATABASE `my shop` CHARACTER SET latin1 COLLATE latin1_german1_ci").unwrap();
    // The view needs the function.
    server
        .run(
            "my shop",
            "SET sql_mode = ''; CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
        )
        .unwrap();
    let made = MARIADB.replace("CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;", "");
    server.run("my shop", &made).unwrap();
    let before = dump(&server, "my shop");
    for part in ["noted", "twice", "rarely", "empty_log", "names", "numbers"] {
        assert!(before.contains(part), "{part}");
    }
    let host = Host::new(tempfile::tempdir().unwrap(), vec![mariadb(&server, "my shop")]);
    let backup = host.make("b-1").await.unwrap();
    assert!(
        backup.datasets[0].tool.contains("mariadb-dump") || backup.datasets[0].tool.contains("mysqldump"),
        "{backup:?}"
    );
    host.verify("b-1").await.unwrap();

    server.run("my shop", "DELETE FROM `order`; DROP VIEW names; CREATE TABLE younger (a INT); DROP TRIGGER noted; ALTER DATABASE CHARACTER SET utf8mb4").unwrap();
    let changed = dump(&server, "my shop");
    let restored = host.restore("b-1", None).await.unwrap();
    assert_eq!(dump(&server, "my shop"), before);
    assert!(server.run("", "SHOW CREATE DATABASE `my shop`").unwrap().contains("latin1_german1_ci"));
    let kept = restored[0].before.clone().unwrap();
    let name = kept.strip_prefix("database ").unwrap().split(" (its").next().unwrap().to_owned();
    assert_eq!(
        server.run(&name, "SHOW TABLES").unwrap().lines().collect::<Vec<_>>(),
        ["customer", "log", "numbers", "order", "younger"]
    );
    assert!(changed.contains("younger") && kept.contains(".sql.zst"), "{kept}");
    // Gone for good, it comes back as well; and what a migration had put there does not.
    server.run("my shop", "CREATE TABLE __handover_triggers (a INT); CREATE TRIGGER __handover_fence_insert_1 BEFORE INSERT ON customer FOR EACH ROW SIGNAL SQLSTATE '45000'").unwrap();
    host.make("b-2").await.unwrap();
    server
        .run("", "DROP DATABASE `my shop`; CREATE DATABASE `my shop`; CREATE SEQUENCE `my shop`.numbers")
        .unwrap();
    host.restore("b-2", Some("shop")).await.unwrap();
    assert_eq!(dump(&server, "my shop"), before);
    let left = server
        .run("", "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '%restore%'")
        .unwrap();
    assert_eq!(left, "");
}

#[tokio::test]
async fn a_postgres_database_comes_back_whole() {
    let server = Server::start(Engine::Postgres, &[]).unwrap();
    server.run("", "CREATE ROLE app LOGIN").unwrap();
    server.run("", "CREATE DATABASE \"my shop\" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' OWNER app").unwrap();
    server
        .run(
            "",
            "ALTER DATABASE \"my shop\" SET work_mem TO '5MB'; COMMENT ON DATABASE \"my shop\" IS 'the
        shop'; REVOKE TEMPORARY ON DATABASE \"my shop\" FROM PUBLIC",
        )
        .unwrap();
    server.run("my shop", "
        CREATE TABLE customer (id SERIAL PRIMARY KEY, name TEXT, photo BYTEA, tags TEXT[]);
        CREATE TABLE orders (id INT PRIMARY KEY, customer INT REFERENCES customer, at TIMESTAMPTZ DEFAULT now());
        INSERT INTO customer (name, photo, tags) VALUES ('Müller', '\\x00ff', '{a,\"b c\"}'), (NULL, NULL, NULL);
        INSERT INTO orders VALUES (1, 1, '2020-01-01');
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$;
        CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f();
        CREATE VIEW names AS SELECT name FROM customer;
        SELECT lo_from_bytea(0, 'large');
        CREATE SCHEMA handover_fence; CREATE FUNCTION handover_fence.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
    ").unwrap();
    let whole = |text: String| {
        text.lines().filter(|line| !line.contains("handover_fence")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = dump(&server, "my shop");
    server.run("my shop", "CREATE TRIGGER handover_fence BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION handover_fence.refuse()").unwrap();
    let host = Host::new(tempfile::tempdir().unwrap(), vec![postgres(&server, "my shop", None)]);
    host.make("b-1").await.unwrap();
    host.verify("b-1").await.unwrap();
    server.run("my shop", "DROP SCHEMA handover_fence CASCADE").unwrap();
    let before_without = dump(&server, "my shop");
    assert!(whole(before).len() >= whole(before_without.clone()).len());
    server.run("my shop", "DELETE FROM orders; CREATE TABLE younger (a INT)").unwrap();
    server.run("", "ALTER DATABASE \"my shop\" RESET work_mem").unwrap();

    // Who is signed in meanwhile is signed off.
    let mut busy = server.client("my shop");
    let mut busy = busy
        .args(["-c", "SELECT pg_sleep(60)"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let restored = host.restore("b-1", None).await.unwrap();
    assert!(!busy.wait().unwrap().success());
    assert_eq!(dump(&server, "my shop"), before_without);
    let about = "SELECT concat_ws(' ', pg_encoding_to_char(encoding), datcollate, pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'), \
                 datacl::text, (SELECT setconfig::text FROM pg_db_role_setting WHERE setdatabase = d.oid)) FROM pg_database d WHERE datname = 'my shop'";
    let told = server.run("", about).unwrap();
    for part in ["LATIN1 C app the", "shop", "=c/app", "work_mem=5MB"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let kept = restored[0].before.clone().unwrap();
    let name = kept.strip_prefix("database ").unwrap();
    assert_eq!(server.run(name, "SELECT count(*) FROM younger").unwrap().trim(), "0");
    // Gone for good, it comes back as well.
    server.run("", "DROP DATABASE \"my shop\"").unwrap();
    assert_eq!(host.restore("b-1", None).await.unwrap()[0].before, None);
    assert_eq!(dump(&server, "my shop"), before_without);
    let absent = Host::new(tempfile::tempdir().unwrap(), vec![postgres(&server, "nowhere", None)]);
    assert!(absent.make("b-1").await.unwrap_err().what.contains("nothing on this host"));
}

#[tokio::test]
async fn programs_that_are_missing_are_named_with_their_packages() {
    let server = Server::start(Engine::Postgres, &[]).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let host = Host::new(
        tempfile::tempdir().unwrap(),
        vec![postgres(&server, "shop", Some(empty.path().to_owned()))],
    );
    let missing = host.make("b-1").await.unwrap_err();
    assert!(missing.what.contains("need psql") && missing.hint.contains("postgresql-client"), "{missing}");
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("backups");
    let none = Tools::within(vec![empty.path().to_owned()]);
    let host = Host::at(dir, place, vec![mariadb(&server, "shop")], none, None);
    let missing = host.make("b-1").await.unwrap_err();
    assert!(
        missing.what.contains("need mariadb-dump") && missing.hint.contains("mariadb-client"),
        "{missing}"
    );
}
