//! Databases as years of use leave them: owners, extensions, exclusions, tables that are not logged.

mod support;

use handover_engine::failure::Class;
use handover_engine::ports::{Database, DatabaseSnapshot, DatabaseTarget};
use handover_engine::rows::{KeyRange, TableName};
use handover_postgres::{PostgresDatabase, PostgresTarget};
use support::{Server, all_chunks, migrate, source, target};

fn table(name: &str) -> TableName {
    TableName { schema: "public".to_owned(), name: name.to_owned() }
}

/// Another pass over what was published.
async fn pass(view: &dyn DatabaseSnapshot, target: &PostgresTarget, budget: u64) {
    target.prepare(view.schema()).await.unwrap();
    for chunk in all_chunks(view, budget).await {
        target.apply(&[chunk]).await.unwrap();
    }
    target.finish(view.schema()).await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    target.publish().await.unwrap();
}

#[tokio::test]
async fn public_and_serial_columns_of_other_owners() {
    let server = Server::start("");
    let from = server.create("shop", "");
    server.sql(
        &from,
        "CREATE ROLE keeper; CREATE ROLE clerk; ALTER SCHEMA public OWNER TO keeper; GRANT ALL ON SCHEMA public TO clerk;
         CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('a'), ('b'); ALTER TABLE t OWNER TO keeper;
         CREATE SEQUENCE a_free_one; ALTER SEQUENCE a_free_one OWNER TO clerk",
    );
    let copy = server.name("copy");
    let (view, to) = migrate(&server, &from, &copy).await;
    assert_eq!(to.reread_schema().await.unwrap().structure(), view.schema().structure());
    assert_eq!(server.dump(&from, &[]), server.dump(&copy, &[]));
    let owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'";
    assert_eq!(server.sql(&copy, owner), "keeper");
    assert_eq!(server.sql(&copy, "SELECT nextval('t_id_seq')"), "3");
}

#[tokio::test]
async fn what_an_excluded_table_has_stays_with_it() {
    let server = Server::shared();
    let from = server.create("without", "");
    server.sql(
        &from,
        "CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); INSERT INTO log DEFAULT VALUES;
         CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.customer (id integer PRIMARY KEY); CREATE TABLE b.customer (id integer PRIMARY KEY);
         CREATE TABLE a.orders (customer integer REFERENCES a.customer); CREATE TABLE b.orders (customer integer REFERENCES b.customer)",
    );
    let exclude = ["log", "a.customer"].map(str::to_owned).to_vec();
    let database = PostgresDatabase::new("shop".parse().unwrap(), &server.settings(&from), exclude);
    let (view, copy) = (database.snapshot().await.unwrap(), server.name("copy"));
    pass(&*view, &target(&server, &copy), 1000).await;
    let keys = "SELECT string_agg(conrelid::regclass || ' to ' || confrelid::regclass, ', ') FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(server.sql(&copy, keys), "b.orders to b.customer");
}

#[tokio::test]
async fn rows_are_not_read_without_the_locks_of_their_snapshot() {
    let server = Server::start("");
    let from = server.create("held", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000); CREATE TABLE u (id integer PRIMARY KEY)");
    let view = source(&server, &from).snapshot().await.unwrap();
    // A reader that shares the snapshot stays.
    view.read(&table("u"), &KeyRange::default(), 1000).await.unwrap();
    server.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%' OR pid IN (SELECT pid FROM pg_locks
         WHERE mode = 'AccessShareLock' GROUP BY pid HAVING count(*) > 3) AND application_name = 'handover'",
    );
    let failure = loop {
        match view.read(&table("u"), &KeyRange::default(), 1000).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.class, Class::Transient, "{failure}");
    assert!(failure.to_string().contains("snapshot is gone"), "{failure}");
    server.sql(&from, "TRUNCATE t");
    view.read(&table("t"), &KeyRange::default(), 1000).await.unwrap_err();
}

#[tokio::test]
async fn unlogged_tables_outlive_a_crash_while_they_are_loaded() {
    let server = Server::start("");
    let from = server.create("fast", "");
    server.sql(
        &from,
        "CREATE UNLOGGED TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) SELECT repeat('x', 100) FROM generate_series(1, 1000);
         CREATE UNLOGGED TABLE u (t integer REFERENCES t)",
    );
    let view = source(&server, &from).snapshot().await.unwrap();
    let copy = server.name("copy");
    let to = target(&server, &copy);
    to.prepare(view.schema()).await.unwrap();
    let chunks = all_chunks(&*view, 20_000).await;
    let (first, rest) = chunks.split_at(2);
    to.apply(first).await.unwrap();
    server.stop();
    server.boot();
    let view = source(&server, &from).snapshot().await.unwrap();
    let to = target(&server, &copy);
    to.prepare(view.schema()).await.unwrap();
    assert_eq!(to.reread(&table("t"), &first[0].header.range).await.unwrap().header, first[0].header);
    to.apply(rest).await.unwrap();
    to.finish(view.schema()).await.unwrap();
    to.finish(view.schema()).await.unwrap();
    assert_eq!(to.reread_schema().await.unwrap().structure(), view.schema().structure());
    to.publish().await.unwrap();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM t"), "1000");
    // And again, over what was published.
    pass(&*view, &to, 20_000).await;
    assert!(server.sorted_dump(&from) == server.sorted_dump(&copy));
}

#[tokio::test]
async fn a_later_pass_where_the_primary_key_is_not_how_rows_are_found() {
    let server = Server::shared();
    let from = server.create("generated", "");
    server.sql(
        &from,
        "CREATE TABLE g (a integer, v text, b integer GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY);
         INSERT INTO g SELECT n, repeat('x', 200) FROM generate_series(1, 2000) n;
         CREATE TABLE d (id integer PRIMARY KEY DEFERRABLE, v text, n integer NOT NULL UNIQUE); INSERT INTO d SELECT n, 'x', n FROM generate_series(1, 2000) n",
    );
    let copy = server.name("copy");
    let (_, to) = migrate(&server, &from, &copy).await;
    // The last row moves to the first page, and numbers change places.
    server.sql(
        &from,
        "DELETE FROM g WHERE a < 40; UPDATE d SET id = 4000 - id WHERE n BETWEEN 1990 AND 2000 OR n = 2",
    );
    server.sql(&from, "UPDATE d SET id = 2 WHERE n = 2000");
    server.sql(&from, "VACUUM g");
    server.sql(&from, "UPDATE g SET v = 'moved' WHERE a = 2000");
    let view = source(&server, &from).snapshot().await.unwrap();
    pass(&*view, &to, 20_000).await;
    assert!(server.sorted_dump(&from) == server.sorted_dump(&copy));
}

#[tokio::test]
async fn what_belongs_to_an_extension_is_left_to_it() {
    let server = Server::shared();
    let from = server.create("extended", "");
    server.sql(&from, "CREATE EXTENSION citext; CREATE TABLE t (id integer PRIMARY KEY, v citext UNIQUE)");
    let copy = server.name("copy");
    let (view, to) = migrate(&server, &from, &copy).await;
    server.sql(
        &copy,
        "CREATE TABLE job (id integer PRIMARY KEY, name text UNIQUE, of integer REFERENCES job, CHECK (id > 0)); CREATE UNIQUE INDEX one ON job (of);
         CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watcher ON sql_drop EXECUTE FUNCTION watch();
         ALTER EXTENSION citext ADD TABLE job; ALTER EXTENSION citext ADD FUNCTION watch(); ALTER EXTENSION citext ADD EVENT TRIGGER watcher",
    );
    let kept = "SELECT (SELECT count(*) FROM pg_constraint WHERE conrelid = 'job'::regclass) || ' ' || (SELECT count(*) FROM pg_event_trigger)
                || ' ' || (SELECT count(*) FROM pg_indexes WHERE tablename = 'job')";
    let before = server.sql(&copy, kept);
    pass(&*view, &to, 1000).await;
    assert_eq!(server.sql(&copy, kept), before);
}

#[tokio::test]
async fn keys_in_collations_of_the_schemas_own() {
    let server = Server::shared();
    let from = server.create("collated", "");
    server.sql(
        &from,
        "CREATE SCHEMA app; CREATE COLLATION app.german (provider = icu, locale = 'de'); CREATE TABLE t (k text COLLATE app.german PRIMARY KEY);
         INSERT INTO t VALUES ('ä'), ('b'), ('Z'), ('a')",
    );
    let copy = server.name("copy");
    migrate(&server, &from, &copy).await;
    assert!(server.sorted_dump(&from) == server.sorted_dump(&copy));
}

#[tokio::test]
async fn labels_with_backslashes_where_strings_take_them_for_escapes() {
    let server = Server::shared();
    let from = server.create("escapes", "");
    server.sql("postgres", &format!("ALTER DATABASE {from} SET standard_conforming_strings = off"));
    server.sql(&from, r"CREATE TYPE e AS ENUM (E'a\\b'); CREATE TABLE t (id integer PRIMARY KEY, e e); INSERT INTO t VALUES (1, E'a\\b')");
    let copy = server.name("copy");
    let (view, to) = migrate(&server, &from, &copy).await;
    assert_eq!(to.reread_schema().await.unwrap().structure(), view.schema().structure());
    assert_eq!(server.sql(&copy, "SELECT e FROM t"), r"a\b");
}

#[tokio::test]
async fn tables_that_no_user_can_have_are_refused() {
    let server = Server::shared();
    let from = server.create("plain", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)");
    let view = source(&server, &from).snapshot().await.unwrap();
    let to = target(&server, &server.name("copy"));
    let mut schema = view.schema().clone();
    schema.tables[0].columns[0].declared = "integer); DROP TABLE t; SELECT (1".to_owned();
    let mut elsewhere = view.schema().clone();
    elsewhere.tables[0].name = TableName { schema: "pg_catalog".to_owned(), name: "pg_authid".to_owned() };
    for schema in [schema, elsewhere] {
        let failure = to.prepare(&schema).await.unwrap_err();
        assert!(failure.to_string().contains("no user can have"), "{failure}");
    }
}

#[tokio::test]
async fn names_that_are_no_utf8_are_told_and_not_fatal() {
    let server = Server::shared();
    let from = server.create("bytes", "ENCODING 'SQL_ASCII' LOCALE 'C'");
    server.sql(&from, "DO $$ BEGIN EXECUTE convert_from('\\x435245415445205441424c452022e9222028696420696e74656765722029', 'SQL_ASCII'); END $$");
    let failure = source(&server, &from).snapshot().await.err().unwrap();
    assert!(failure.to_string().contains("shop"), "{failure}");
}
