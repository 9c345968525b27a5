//! Bad days: each is a failure that names its item, has the right class and says what to do.

mod support;

use handover_engine::failure::{Class, Failure};
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::{KeyRange, TableName};
use handover_postgres::{PostgresDatabase, PostgresTarget, Settings, Side, offers, privileges};
use support::{Server, all_chunks, migration, source, target};

fn check(failure: &Failure, class: Class, parts: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, class, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

async fn refused(url: &str) -> Failure {
    let settings = Settings::parse(url).unwrap();
    PostgresDatabase::new("shop".parse().unwrap(), &settings, Vec::new()).snapshot().await.err().unwrap()
}

fn table(name: &str) -> TableName {
    TableName { schema: "public".to_owned(), name: name.to_owned() }
}

#[tokio::test]
async fn cannot_connect() {
    let server = Server::start("");
    server.sql("postgres", "CREATE ROLE locked LOGIN PASSWORD 'other'");
    let hba = server.dir.join("data/pg_hba.conf");
    std::fs::write(&hba, "local all locked scram-sha-256\nlocal all all trust\n").unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()");
    let url = |login: &str, more: &str| server.url("locked", "postgres").replace("locked@", login) + more;
    check(
        &refused(&url("locked:hunter2@", "")).await,
        Class::NeedsOperator,
        &["shop, postgres at", "password", "`url`"],
    );
    check(&refused(&url("locked@", "")).await, Class::NeedsOperator, &["password"]);
    check(
        &refused(&url("locked@", "&password_file=/nowhere")).await,
        Class::NeedsOperator,
        &["password file"],
    );
    check(
        &refused(&server.url("postgres", "absent")).await,
        Class::NeedsOperator,
        &["absent", "does not exist", "make it"],
    );
    check(&refused(&server.url("nobody", "postgres")).await, Class::NeedsOperator, &["nobody"]);
    check(&refused("postgres://u@/d?socket=/nowhere").await, Class::Transient, &["is the server running"]);
    check(
        &refused("postgres://u@127.0.0.1:1/d").await,
        Class::Transient,
        &["127.0.0.1:1", "is the server running"],
    );
    let file = server.dir.join("password");
    std::fs::write(&file, "other\n").unwrap();
    let settings = Settings::parse(&url("locked@", &format!("&password_file={}", file.display()))).unwrap();
    PostgresDatabase::new("shop".parse().unwrap(), &settings, Vec::new()).facts().await.unwrap();
}

#[tokio::test]
async fn missing_privileges_come_with_their_grants() {
    let server = Server::shared();
    let from = server.create("grants", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY); CREATE SCHEMA s; CREATE TABLE s.\"U t\" (id serial); CREATE ROLE plain LOGIN;
        CREATE TABLE secured (id integer); ALTER TABLE secured ENABLE ROW LEVEL SECURITY");
    let settings = Settings::parse(&server.url("plain", &from)).unwrap();
    let dataset = "shop".parse().unwrap();
    let database = PostgresDatabase::new("shop".parse().unwrap(), &settings, Vec::new());
    let failure = database.snapshot().await.err().unwrap();
    check(&failure, Class::NeedsOperator, &["permission denied", "the preflight shows"]);
    for finding in privileges(&dataset, &settings, Side::Source).await.unwrap() {
        let hint = finding.hint.clone();
        assert!(hint.starts_with("GRANT ") || hint.starts_with("ALTER ROLE "), "{finding:?}");
        server.sql(&from, &hint);
    }
    assert_eq!(privileges(&dataset, &settings, Side::Source).await.unwrap(), []);
    let view = database.snapshot().await.unwrap();
    all_chunks(&*view, 1000).await;

    let to = server.name("copy");
    let settings = Settings::parse(&server.url("plain", &to)).unwrap();
    let target = PostgresTarget::new("shop".parse().unwrap(), &settings, &migration());
    let failure = target.prepare(view.schema()).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["permission denied", "ALTER ROLE \"plain\" CREATEDB"]);
    for finding in privileges(&dataset, &settings, Side::Target).await.unwrap() {
        if finding.hint.starts_with("ALTER ROLE ") {
            server.sql("postgres", &finding.hint);
        }
    }
    target.prepare(view.schema()).await.unwrap();
    for chunk in all_chunks(&*view, 1000).await {
        target.apply(&[chunk]).await.unwrap();
    }
    target.finish(view.schema()).await.unwrap();
    target.publish().await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    target.undo().await.unwrap();
    assert!(!server.exists(&to));
}

#[tokio::test]
async fn a_restarted_server_is_tried_again() {
    let server = Server::start("");
    let from = server.create("killed", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n");
    let view = source(&server, &from).snapshot().await.unwrap();
    let to = target(&server, &server.name("copy"));
    to.prepare(view.schema()).await.unwrap();
    let chunk = view.read(&table("t"), &KeyRange::default(), 100_000).await.unwrap();
    to.apply(std::slice::from_ref(&chunk)).await.unwrap();
    server.stop();
    check(&to.apply(std::slice::from_ref(&chunk)).await.unwrap_err(), Class::Transient, &["table public.t"]);
    let range = KeyRange { after: chunk.header.range.until.clone(), until: None };
    let mut failure = None;
    for _ in 0..100 {
        let Err(error) = view.read(&table("t"), &range, 1_000_000).await else { continue };
        failure = Some(error);
        break;
    }
    check(&failure.unwrap(), Class::Transient, &["table public.t", "snapshot is gone"]);
    server.boot();
    check(&view.read(&table("t"), &range, 1000).await.unwrap_err(), Class::Transient, &["snapshot is gone"]);
    let again = source(&server, &from).snapshot().await.unwrap();
    assert_ne!(again.id(), view.id());
    to.prepare(again.schema()).await.unwrap();
    let kept = to.reread(&table("t"), &chunk.header.range).await.unwrap();
    assert_eq!(kept.header, chunk.header);
    for chunk in all_chunks(&*again, 1_000_000).await {
        to.apply(&[chunk]).await.unwrap();
    }
    to.finish(again.schema()).await.unwrap();
}

#[tokio::test]
async fn tables_in_use_cannot_be_dropped() {
    let server = Server::shared();
    let from = server.create("held", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)");
    let view = source(&server, &from).snapshot().await.unwrap();
    let sql = "DO $$ BEGIN SET LOCAL lock_timeout = '100ms'; TRUNCATE t; EXCEPTION WHEN lock_not_available THEN NULL; END $$; INSERT INTO t VALUES (2)";
    server.sql(&from, sql);
    let chunk = view.read(&table("t"), &KeyRange::default(), 1000).await.unwrap();
    assert_eq!(chunk.header.rows, 1);
    let failure = view.read(&table("absent"), &KeyRange::default(), 1000).await.unwrap_err();
    check(&failure, Class::Permanent, &["table public.absent", "no such table"]);
}

#[tokio::test]
async fn what_the_target_lacks_is_told_before_planning() {
    let (here, there) = (Server::shared(), Server::start(""));
    let from = here.create("needs", "");
    here.sql(
        &from,
        "CREATE ROLE needed_owner; CREATE EXTENSION citext; CREATE EXTENSION file_fdw;
         CREATE TABLE secret (id integer PRIMARY KEY); ALTER TABLE secret OWNER TO needed_owner;
         ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY;
         CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER noting ON ddl_command_end EXECUTE FUNCTION noted()",
    );
    let facts = source(&here, &from).facts().await.unwrap();
    there.sql("postgres", "CREATE ROLE mover LOGIN CREATEDB");
    let lacking = async |role: &str| {
        let settings = Settings::parse(&there.url(role, "copy")).unwrap();
        let offers = offers(&"shop".parse().unwrap(), &settings).await.unwrap();
        let missing = facts.needs.iter().filter(|need| !offers.contains(&need.thing));
        missing.map(|need| need.finding.what.clone()).collect::<Vec<_>>()
    };
    let found = lacking("mover").await;
    for told in ["file_fdw", "event triggers (noting)", "row security is forced on", "the role needed_owner"]
    {
        assert!(found.iter().any(|what| what.contains(told)), "{told}: {found:?}");
    }
    assert!(!found.iter().any(|what| what.contains("citext") || what.contains("older")), "{found:?}");
    let administrator = lacking("postgres").await;
    assert!(administrator.len() == 1 && administrator[0].contains("needed_owner"), "{administrator:?}");
    there
        .sql("postgres", "CREATE ROLE needed_owner; GRANT needed_owner TO mover; ALTER ROLE mover BYPASSRLS");
    assert_eq!(lacking("postgres").await, [""; 0]);
    let left = lacking("mover").await;
    assert!(left.len() == 3 && left[2].contains("the role postgres"), "{left:?}");
}

#[tokio::test]
async fn what_the_target_lacks_is_told_before_loading() {
    let server = Server::shared();
    let from = server.create("lacks", "");
    server.sql(&from, "CREATE EXTENSION citext; CREATE TABLE t (id citext PRIMARY KEY)");
    let view = source(&server, &from).snapshot().await.unwrap();
    let mut schema = view.schema().clone();
    for ddl in &mut schema.before_load {
        if ddl.kind == "extension" {
            ddl.sql = ddl.sql.replace("citext", "nowhere");
            ddl.name = "nowhere".to_owned();
        }
    }
    let to = target(&server, &server.name("copy"));
    check(
        &to.prepare(&schema).await.unwrap_err(),
        Class::NeedsOperator,
        &["extension nowhere", "install the package"],
    );
    to.undo().await.unwrap();
    let mut schema = view.schema().clone();
    schema.settings.insert("collate".to_owned(), "xx_YY.UTF-8".to_owned());
    check(
        &to.prepare(&schema).await.unwrap_err(),
        Class::NeedsOperator,
        &["xx_YY.UTF-8", "dpkg-reconfigure locales"],
    );
    let mut schema = view.schema().clone();
    schema.state.insert("key_collation/en_US.UTF-8".to_owned(), "2.31".to_owned());
    check(
        &to.prepare(&schema).await.unwrap_err(),
        Class::NeedsOperator,
        &["en_US.UTF-8", "2.31", "key_order=bytes"],
    );
    to.undo().await.unwrap();
}

#[tokio::test]
async fn statements_that_are_no_schema_are_refused() {
    let server = Server::shared();
    let from = server.create("hostile", "");
    let view = source(&server, &from).snapshot().await.unwrap();
    for sql in [
        "COPY t FROM PROGRAM 'touch /tmp/x'",
        "CREATE TABLE t (a integer); DO $$ BEGIN END $$",
        "SET ROLE postgres",
        "CREATE ROLE r",
        "COMMIT",
    ] {
        let mut schema = view.schema().clone();
        let ddl = handover_engine::rows::Ddl {
            kind: "table".to_owned(),
            name: "t".to_owned(),
            sql: sql.to_owned(),
        };
        schema.after_load.push(ddl);
        let to = target(&server, &server.name("copy"));
        check(
            &to.prepare(&schema).await.unwrap_err(),
            Class::NeedsOperator,
            &["table t", "a schema may not"],
        );
    }
}

#[tokio::test]
async fn waiting_for_locks_ends_and_is_tried_again() {
    let server = Server::shared();
    let from = server.create("locked", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)");
    let view = source(&server, &from).snapshot().await.unwrap();
    let name = server.name("copy");
    let to = target(&server, &name);
    to.prepare(view.schema()).await.unwrap();
    let chunk = view.read(&table("t"), &KeyRange::default(), 1000).await.unwrap();
    to.apply(std::slice::from_ref(&chunk)).await.unwrap();
    let partial = server.sql(
        "postgres",
        &format!("SELECT datname FROM pg_database WHERE datname LIKE '{name}_\\_handover%'"),
    );
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    server.sql(&partial, kill);
    // The session that was ended is noticed, by a failure that is tried again or by a new connection.
    if let Err(failure) = to.apply(std::slice::from_ref(&chunk)).await {
        check(&failure, Class::Transient, &["table public.t"]);
    }
    to.apply(std::slice::from_ref(&chunk)).await.unwrap();
    assert_eq!(to.reread(&table("t"), &KeyRange::default()).await.unwrap().header.rows, 10);
}

#[tokio::test]
async fn values_do_not_show_in_failures() {
    let server = Server::shared();
    let from = server.create("secret", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY, v integer); INSERT INTO t VALUES (1, 42)");
    let view = source(&server, &from).snapshot().await.unwrap();
    let to = target(&server, &server.name("copy"));
    to.prepare(view.schema()).await.unwrap();
    let mut chunk = view.read(&table("t"), &KeyRange::default(), 1000).await.unwrap();
    chunk.block = bytes::Bytes::from_static(b"1\thunter2\n");
    let failure = to.apply(&[chunk.clone()]).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["table public.t", "invalid input syntax for type integer"]);
    chunk.block = bytes::Bytes::from_static(b"7\t1\n7\t2\n");
    to.apply(&[chunk]).await.unwrap();
    let failure = to.finish(view.schema()).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["constraint public.t t_pkey", "unique index"]);
}

#[tokio::test]
async fn a_read_only_server_and_too_many_connections() {
    let server =
        Server::start("max_connections = 12\nsuperuser_reserved_connections = 0\nmax_wal_senders = 0");
    let from = server.create("full", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY)");
    let mut views = Vec::new();
    let failure = loop {
        match source(&server, &from).snapshot().await {
            Ok(view) => views.push(view),
            Err(failure) => break failure,
        }
    };
    check(&failure, Class::Transient, &["too many"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_finish_goes_on() {
    let server = Server::shared();
    let from = server.create("interrupted", "");
    let mut sql = String::from(
        "CREATE TABLE t (id integer PRIMARY KEY, v integer); INSERT INTO t SELECT n, n FROM generate_series(1, 20000) n;",
    );
    for n in 0..12 {
        sql +=
            &format!("CREATE UNIQUE INDEX i{n} ON t (v, id); CREATE TABLE r{n} (id integer REFERENCES t);");
    }
    server.sql(&from, &sql);
    let view = source(&server, &from).snapshot().await.unwrap();
    let name = server.name("copy");
    let to = target(&server, &name);
    to.prepare(view.schema()).await.unwrap();
    for chunk in all_chunks(&*view, 100_000).await {
        to.apply(&[chunk]).await.unwrap();
    }
    let mut interrupted = 0;
    loop {
        let to = target(&server, &name);
        let limit = std::time::Duration::from_millis(60 + 20 * interrupted);
        match tokio::time::timeout(limit, to.finish(view.schema())).await {
            Ok(done) => break done.unwrap(),
            Err(_) => interrupted += 1,
        }
    }
    assert!(interrupted > 0, "nothing was interrupted");
    let to = target(&server, &name);
    assert_eq!(to.reread_schema().await.unwrap().structure(), view.schema().structure());
    to.publish().await.unwrap();
    assert!(server.sorted_dump(&from) == server.sorted_dump(&name));
}
