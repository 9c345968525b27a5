//! Servers that end, fill up, or turn read only in the middle: a clear failure, and the same call again goes on.

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use handover_engine::failure::{Class, Failure};
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::{KeyRange, TableName};
use handover_postgres::{PostgresDatabase, PostgresTarget, Settings};
use support::{PORT, Server, all_chunks, migration, source, target};

fn check(failure: &Failure, class: Class, parts: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, class, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Waits until a query answers `t`.
async fn until(server: &Server, database: &str, sql: &str) {
    let wait = async {
        while server.sql(database, sql) != "t" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never: {sql}"));
}

fn partial(server: &Server, name: &str) -> String {
    let sql = format!("SELECT datname FROM pg_database WHERE datname LIKE '{name}\\_\\_handover%'");
    server.sql("postgres", &sql)
}

const SHOP: &str = "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE INDEX t_v ON t (v);
    INSERT INTO t SELECT n, repeat(md5(n::text), 15) FROM generate_series(1, 40000) n;
    CREATE TABLE u (id integer PRIMARY KEY, t integer REFERENCES t); INSERT INTO u SELECT n, n FROM generate_series(1, 100) n";

/// Loads everything.
async fn load(
    view: &dyn handover_engine::ports::DatabaseSnapshot,
    to: &PostgresTarget,
) -> Result<(), Failure> {
    to.prepare(view.schema()).await?;
    for chunk in all_chunks(view, 1 << 20).await {
        to.apply(&[chunk]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_killed_at_every_step() {
    let (here, there) = (Server::start(""), Server::start(""));
    let from = here.create("shop", "");
    here.sql(&from, SHOP);
    let view = source(&here, &from).snapshot().await.unwrap();
    let name = there.name("copy");
    there.sql("postgres", &format!("CREATE DATABASE {name}"));
    there.sql(&name, "CREATE TABLE before (a integer)");
    let to = target(&there, &name);
    load(&*view, &to).await.unwrap();

    // Indexes: one is made, or being made, when the server ends.
    let holder = partial(&there, &name);
    let finishing = tokio::spawn({
        let (to, schema) = (target(&there, &name), view.schema().clone());
        async move { to.finish(&schema).await }
    });
    let busy = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname LIKE '%handover%' AND state <> 'idle' AND query ~ '^(CREATE|ALTER)'";
    // It may be done by then: that is no failure either.
    let _ = tokio::time::timeout(Duration::from_secs(5), until(&there, "postgres", busy)).await;
    there.stop();
    if let Err(failure) = finishing.await.unwrap() {
        check(&failure, Class::Transient, &["shop"]);
    }
    check(&to.finish(view.schema()).await.unwrap_err(), Class::Transient, &["shop"]);
    there.boot();
    to.finish(view.schema()).await.unwrap();
    assert_eq!(partial(&there, &name), holder);

    there.stop();
    check(&to.publish().await.unwrap_err(), Class::Transient, &["shop", "is the server running"]);
    there.boot();
    to.publish().await.unwrap();
    to.publish().await.unwrap();
    assert!(here.sorted_dump(&from) == there.sorted_dump(&name));
    there.stop();
    check(&to.undo().await.unwrap_err(), Class::Transient, &["shop", "is the server running"]);
    there.boot();
    to.undo().await.unwrap();
    to.undo().await.unwrap();
    assert_eq!(there.sql(&name, "SELECT count(*) FROM before"), "0");
}

/// The databases' files on a file system of a few MiB.
struct Small<'s>(&'s Server);

impl<'s> Small<'s> {
    fn new(server: &'s Server, mib: u32) -> Self {
        server.stop();
        let base = server.dir.join("data/base");
        let aside = server.dir.join("data/base.aside");
        std::fs::rename(&base, &aside).unwrap();
        std::fs::create_dir(&base).unwrap();
        let small = Self(server);
        small.mount(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]);
        let script = format!(
            "cp -a {}/. {base}/ && rm -r {} && chown postgres: {base} && chmod 700 {base}",
            aside.display(),
            aside.display(),
            base = base.display()
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        server.boot();
        small
    }

    fn mount(&self, arguments: &[&str]) {
        let base = self.0.dir.join("data/base");
        assert!(Command::new("mount").args(arguments).arg(base).status().unwrap().success());
    }

    fn grow(&self, mib: u32) {
        self.mount(&["-o", &format!("remount,size={mib}m")]);
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        self.0.stop();
        let _ = Command::new("umount").arg("-l").arg(self.0.dir.join("data/base")).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_at_the_target() {
    let (here, there) = (Server::start(""), Server::start("max_wal_size = 1GB"));
    let from = here.create("shop", "");
    here.sql(&from, SHOP);
    let small = Small::new(&there, 40);
    let view = source(&here, &from).snapshot().await.unwrap();
    let name = there.name("copy");
    let to = target(&there, &name);
    let free = ["free space on the file system", "No space left"];
    let failure = load(&*view, &to).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["shop, table public.", free[0], free[1]]);
    // Resumed too early it is the same, and no harm.
    check(&load(&*view, &to).await.unwrap_err(), Class::NeedsOperator, &["shop", free[0]]);
    small.grow(400);
    load(&*view, &to).await.unwrap();
    // As little as there is now leaves no room for indexes.
    let used = there.sql("postgres", "SELECT ceil(sum(pg_database_size(oid)) / 1048576.0) FROM pg_database");
    small.grow(used.parse::<u32>().unwrap() + 1);
    let failure = to.finish(view.schema()).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["shop", "t", free[0], free[1]]);
    small.grow(400);
    to.finish(view.schema()).await.unwrap();
    to.publish().await.unwrap();
    assert!(here.sorted_dump(&from) == there.sorted_dump(&name));
}

#[tokio::test]
async fn a_target_that_is_read_only() {
    let (here, there) = (Server::shared(), Server::start(""));
    let from = here.create("shop", "");
    here.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)");
    // A database that is read only by a setting of its own arrives so, and is loaded nevertheless.
    here.sql("postgres", &format!("ALTER DATABASE {from} SET default_transaction_read_only = on"));
    let view = source(&here, &from).snapshot().await.unwrap();
    let name = there.name("copy");
    let to = target(&there, &name);
    let protect = |value: &str| {
        there.sql("postgres", &format!("ALTER SYSTEM SET default_transaction_read_only = {value}"));
        there.sql("postgres", "SELECT pg_reload_conf()");
    };
    protect("on");
    until(
        &there,
        "postgres",
        "SELECT setting = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'",
    )
    .await;
    let words = ["shop", name.as_str(), "read only", "default_transaction_read_only"];
    check(&to.prepare(view.schema()).await.unwrap_err(), Class::NeedsOperator, &words);
    check(&to.undo().await.unwrap_err(), Class::NeedsOperator, &words);
    protect("off");
    until(
        &there,
        "postgres",
        "SELECT setting = 'off' FROM pg_settings WHERE name = 'default_transaction_read_only'",
    )
    .await;
    load(&*view, &to).await.unwrap();
    to.finish(view.schema()).await.unwrap();
    to.publish().await.unwrap();
    assert_eq!(there.sql(&name, "SHOW default_transaction_read_only"), "on");
    assert_eq!(there.sql(&name, "SELECT * FROM t"), "1");
}

/// A standby of a server; it ends with this.
struct Standby(std::path::PathBuf);

impl Standby {
    fn of(primary: &Server) -> Self {
        let dir = primary.dir.join("standby");
        let bin = "/usr/lib/postgresql/15/bin";
        let run = |arguments: &[&str]| {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).args(arguments);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            assert!(command.status().unwrap().success(), "{arguments:?}");
        };
        let (path, host) = (dir.display().to_string(), primary.dir.display().to_string());
        let port = PORT.to_string();
        run(&[
            &format!("{bin}/pg_basebackup"),
            "-D",
            &path,
            "-R",
            "-c",
            "fast",
            "-h",
            &host,
            "-p",
            &port,
            "-U",
            "postgres",
        ]);
        let (options, log) = (format!("-k {path}"), format!("{path}/log"));
        run(&[&format!("{bin}/pg_ctl"), "-D", &path, "-w", "-o", &options, "-l", &log, "start"]);
        Self(dir)
    }

    fn settings(&self, database: &str) -> Settings {
        let socket = self.0.join(format!(".s.PGSQL.{PORT}"));
        Settings::parse(&format!("postgres://postgres@/{database}?socket={}", socket.display())).unwrap()
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let mut command = Command::new("runuser");
        command.args([
            "-u",
            "postgres",
            "--",
            "/usr/lib/postgresql/15/bin/pg_ctl",
            "-m",
            "immediate",
            "-w",
            "stop",
            "-D",
        ]);
        let _ = command.arg(&self.0).stdout(Stdio::null()).status();
    }
}

#[tokio::test]
async fn a_standby_can_be_read_and_not_written() {
    let server = Server::start("");
    let from = server.create("shop", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9)");
    let standby = Standby::of(&server);
    let settings = standby.settings(&from);
    let view =
        PostgresDatabase::new("shop".parse().unwrap(), &settings, Vec::new()).snapshot().await.unwrap();
    assert_eq!(all_chunks(&*view, 1000).await.iter().map(|chunk| chunk.header.rows).sum::<u64>(), 9);
    let to = PostgresTarget::new("shop".parse().unwrap(), &standby.settings("copy"), &migration());
    let failure = to.prepare(view.schema()).await.unwrap_err();
    check(&failure, Class::NeedsOperator, &["shop", "copy", "standby", "name the primary"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlocks_and_locked_tables_are_tried_again() {
    let (here, there) = (Server::shared(), Server::start("deadlock_timeout = 3s"));
    let from = here.create("shop", "");
    here.sql(&from, "CREATE TABLE a (id integer PRIMARY KEY); INSERT INTO a VALUES (1); CREATE TABLE b (id integer PRIMARY KEY); INSERT INTO b VALUES (1)");
    let view = source(&here, &from).snapshot().await.unwrap();
    let name = there.name("copy");
    let to = target(&there, &name);
    load(&*view, &to).await.unwrap();
    let mut chunks = Vec::new();
    for table in ["a", "b"] {
        let table = TableName { schema: "public".to_owned(), name: table.to_owned() };
        chunks.push(view.read(&table, &KeyRange::default(), 1000).await.unwrap());
    }
    let holder = partial(&there, &name);
    // Somebody takes b, and then a, once we have a and wait for b. Their own search for deadlocks never comes.
    let waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted";
    let other = format!(
        "SET deadlock_timeout = '1h'; BEGIN; LOCK TABLE b; SELECT pg_advisory_lock(1);
         DO $$ BEGIN WHILE NOT ({waiting}) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$; LOCK TABLE a; COMMIT"
    );
    let applied = std::thread::scope(|scope| {
        scope.spawn(|| there.sql(&holder, &other));
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                let held = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory'";
                until(&there, &holder, held).await;
                to.apply(&chunks).await
            })
        })
    });
    check(&applied.unwrap_err(), Class::Transient, &["shop, table public.", "deadlock", "tried again"]);
    to.apply(&chunks).await.unwrap();
    to.finish(view.schema()).await.unwrap();

    drop(view);
    // A table that stays locked, at either side: the wait ends by itself after half a minute.
    let hold = "SELECT pg_advisory_lock(2); BEGIN; LOCK TABLE a; SELECT pg_sleep(300)";
    let released = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)%' AND pid <> pg_backend_pid()";
    let session = |server: &Server, database: &str| {
        let mut psql = tokio::process::Command::new("/usr/lib/postgresql/15/bin/psql");
        psql.args(["-X", "-q", "-U", "postgres", "-h"]).arg(&server.dir).args(["-p", &PORT.to_string()]);
        psql.args(["-c", hold, database]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        psql.kill_on_drop(true).spawn().unwrap()
    };
    let _sessions = [session(&here, &from), session(&there, &holder)];
    let locked = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_class c ON c.oid = relation WHERE relname = 'a' AND mode = 'AccessExclusiveLock' AND granted";
    until(&here, &from, locked).await;
    until(&there, &holder, locked).await;
    let read = source(&here, &from);
    let (read, applied) = tokio::join!(read.snapshot(), to.apply(&chunks));
    here.sql(&from, released);
    there.sql(&holder, released);
    check(&read.err().unwrap(), Class::Transient, &["shop", "lock"]);
    check(&applied.unwrap_err(), Class::Transient, &["shop, table public.", "lock"]);
    source(&here, &from).snapshot().await.unwrap();
    to.apply(&chunks).await.unwrap();
}

#[tokio::test]
async fn too_few_connections_and_no_database_at_the_target() {
    let server = Server::shared();
    let from = server.create("shop", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY)");
    server.sql("postgres", "CREATE ROLE limited LOGIN CREATEDB CONNECTION LIMIT 1");
    let view = source(&server, &from).snapshot().await.unwrap();
    let url = server.url("limited", &server.name("copy"));
    let to = PostgresTarget::new("shop".parse().unwrap(), &Settings::parse(&url).unwrap(), &migration());
    let held = tokio::process::Command::new("/usr/lib/postgresql/15/bin/psql")
        .args(["-X", "-U", "limited", "-p", &PORT.to_string(), "-c", "SELECT pg_sleep(300)", "-h"])
        .arg(&server.dir)
        .arg("postgres")
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until(&server, "postgres", "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'limited'").await;
    check(&to.prepare(view.schema()).await.unwrap_err(), Class::Transient, &["shop", "too many connections"]);
    drop(held);
    server.sql("postgres", "ALTER ROLE limited CONNECTION LIMIT 20");
    to.prepare(view.schema()).await.unwrap();
    to.undo().await.unwrap();
    let settings = Settings::parse(&format!("{url}&maintenance=nowhere")).unwrap();
    let to = PostgresTarget::new("shop".parse().unwrap(), &settings, &migration());
    check(
        &to.prepare(view.schema()).await.unwrap_err(),
        Class::NeedsOperator,
        &["shop", "nowhere", "does not exist"],
    );
}
