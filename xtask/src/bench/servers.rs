//! Databases on servers: ours beside the tools that people use for the same move.
//!
//! Ours is timed from the operator's command to the moment when all rows, indexes and constraints are in; verification, which
//! reads the target again, is a case of its own beside the engine's checksums of both sides.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use handover_tests::bed::{Bed, Dataset};
use handover_tests::compare::{Side, rows_by_checksum};
use handover_tests::locate::Binaries;
use handover_tests::poll;
use handover_tests::server::{Engine, Server};
use serde_json::Value;

use super::{Case, Options, pairs, pass};
use crate::packages::{self, Needed};
use crate::shell::{run_quietly, say, seconds};
use crate::workplace::{Workplace, remove};

const MARIADB_PEERS: &[Needed] =
    &[packages::SERVERS[0], ("sysbench", "sysbench"), ("mydumper", "mydumper"), ("myloader", "mydumper")];
const POSTGRES_PEERS: &[Needed] = &[packages::SERVERS[1], ("pgcopydb", "pgcopydb")];
/// What a server is given for either side: enough memory that a disk of its own is not what is measured.
const MARIADB: &[&str] = &["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M", "--local-infile=1"];
const POSTGRES: &[&str] = &["--shared_buffers=512MB", "--max_wal_size=4GB", "--maintenance_work_mem=256MB"];

/// Data to move.
struct Load {
    name: &'static str,
    make: fn(&Server, f64) -> Result<()>,
}

/// A tool that moves it.
struct Peer {
    name: &'static str,
    run: fn(&Server, &Server, &Path) -> Result<()>,
}

/// Runs the cases of one engine.
pub fn run(engine: Engine, binaries: &Binaries, options: &Options) -> Result<Vec<Case>> {
    let (needed, server_options, loads, peers) = match engine {
        Engine::Mariadb => (MARIADB_PEERS, MARIADB, MARIADB_LOADS, MARIADB_TOOLS),
        Engine::Postgres => (POSTGRES_PEERS, POSTGRES, POSTGRES_LOADS, POSTGRES_TOOLS),
    };
    packages::install(needed)?;
    let mut cases = Vec::new();
    let wanted = |load: &&Load| options.case.as_ref().is_none_or(|case| case == load.name);
    ensure!(loads.iter().any(|load| wanted(&load)), "--case: {} has no such case", engine.name());
    for load in loads.iter().filter(wanted) {
        let (from, to) = (Server::start(engine, server_options)?, Server::start(engine, server_options)?);
        say(format!("making `{}`", load.name));
        from.create("app")?;
        (load.make)(&from, options.scale)?;
        let place = Workplace::fresh(&format!("bench/{}", engine.name()))?;
        let run = Run { from, to, place, binaries };
        for (n, peer) in peers.iter().enumerate() {
            cases.extend(run.case(load, peer, n == 0, options.pairs)?);
        }
    }
    Ok(cases)
}

struct Run<'a> {
    from: Server,
    to: Server,
    place: Workplace,
    binaries: &'a Binaries,
}

impl Run<'_> {
    fn case(&self, load: &Load, peer: &Peer, with_verify: bool, count: u32) -> Result<Vec<Case>> {
        let bed = self.place.path().join("bed");
        remove(&bed)?;
        std::fs::create_dir_all(&bed)?;
        // As myloader does by itself, and the client of the other peer is told to: nothing of the load is in a binary log.
        let unlogged = if self.to.engine() == Engine::Mariadb { "&binlog=off" } else { "" };
        let (source, target) = (self.from.url("app"), self.to.url("app") + unlogged);
        let dataset = Dataset::Server { name: "app".to_owned(), source, target };
        let mut bed = Bed::at(&bed, self.binaries.clone(), vec![dataset], "info")?;
        say(format!("`{}` beside {}: {count} pairs", load.name, peer.name));
        let measured = pairs(count, |_| self.ours(&mut bed), |_| self.peer(peer))?;
        let column = |n: usize| measured.iter().map(|(o, p)| (o[n], p[n])).collect::<Vec<_>>();
        let mut cases = vec![Case::of(load.name, peer.name, &column(0))];
        if with_verify {
            cases.push(Case::of("verify", &format!("{}: checksums of both sides", load.name), &column(1)));
        }
        Ok(cases)
    }

    /// Seconds until all is in, and of the verification.
    fn ours(&self, bed: &mut Bed) -> Result<Vec<f64>> {
        bed.target.kill()?;
        self.to.drop_databases("app")?;
        bed.target.restart_afresh()?;
        let digest = bed.plan()?;
        rustix::fs::sync();
        let begun = poll::wall_ms() as f64 / 1000.0;
        pass(bed, &["start", &digest])?;
        self.checksums("ours")?;
        let steps = Steps::of(bed)?;
        let parts = ["copy:app", "finish:app"].map(|step| Ok(steps.done(step)? - steps.started(step)?));
        let [copy, finish]: [Result<f64>; 2] = parts;
        println!("  ours: rows in {:.2} s, indexes and constraints in {:.2} s", copy?, finish?);
        Ok(vec![steps.done("finish:app")? - begun, steps.done("verify:app")? - steps.started("verify:app")?])
    }

    /// The engine's own checksums of both sides are the same.
    fn checksums(&self, who: &str) -> Result<()> {
        let side = |server| Side { server, database: "app" };
        let found = rows_by_checksum(side(&self.from), side(&self.to))?;
        ensure!(found.found == 0, "{who} did not move the same: {}", found.describe());
        Ok(())
    }

    /// Seconds of the peer, and of the engine's own checksums.
    fn peer(&self, peer: &Peer) -> Result<Vec<f64>> {
        self.to.drop_databases("app")?;
        let scratch = self.place.path().join("peer");
        remove(&scratch)?;
        std::fs::create_dir_all(&scratch)?;
        rustix::fs::sync();
        let moved = seconds(|| (peer.run)(&self.from, &self.to, &scratch))?;
        let checked = seconds(|| self.checksums(peer.name))?;
        Ok(vec![moved, checked])
    }
}

/// When the steps of a migration began and ended, by the wall clock, from its events.
struct Steps(Vec<Value>);

impl Steps {
    fn of(bed: &Bed) -> Result<Self> {
        let output = bed.cli(&["--json", "watch"])?.success()?;
        Ok(Self(output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()))
    }

    fn at(&self, kind: &str, step: &str) -> Result<f64> {
        let mut events = self.0.iter().rev().map(|line| &line["event"]);
        let event = events.find(|event| event["event"] == kind && event["step"] == step);
        let event = event.with_context(|| format!("no event `{kind}` of {step}"))?;
        let part = |name| event["at"][name].as_f64().with_context(|| format!("no time in {event}"));
        Ok(part("seconds")? + part("nanos")? / 1e9)
    }

    fn started(&self, step: &str) -> Result<f64> {
        self.at("step_started", step)
    }

    fn done(&self, step: &str) -> Result<f64> {
        self.at("step_done", step)
    }
}

fn tables(server: &Server) -> Result<Vec<String>> {
    let list = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
    Ok(server.run("app", list)?.lines().map(str::to_owned).collect())
}

/// `from | to`; both must succeed.
fn pipe(from: &mut Command, to: &mut Command) -> Result<()> {
    let mut from = from.stdout(Stdio::piped()).spawn()?;
    let out = from.stdout.take().context("no output")?;
    let ended = to.stdin(out).stdout(Stdio::null()).status()?;
    ensure!(from.wait()?.success() && ended.success(), "a pipe of the peer failed");
    Ok(())
}

fn scaled(amount: u64, scale: f64) -> u64 {
    ((amount as f64 * scale) as u64).max(1)
}

const MARIADB_LOADS: &[Load] = &[
    Load {
        name: "sysbench",
        make: |server, scale| {
            let mut sysbench = Command::new("sysbench");
            sysbench.args([
                "oltp_read_write",
                "--db-driver=mysql",
                "--mysql-user=root",
                "--mysql-db=app",
                "--tables=4",
                "--threads=2",
            ]);
            sysbench.arg(format!("--mysql-socket={}", server.socket().display()));
            run_quietly(sysbench.arg(format!("--table-size={}", scaled(500_000, scale))).arg("prepare"))
        },
    },
    Load {
        name: "one-table",
        make: |server, scale| {
            let rows = scaled(5_000_000, scale);
            let sql = format!(
                "CREATE TABLE one (id BIGINT PRIMARY KEY AUTO_INCREMENT, k INT, c VARCHAR(60), t DATETIME, KEY by_k (k));
                 INSERT INTO one (k, c, t) SELECT seq * 7919 % 1000003, MD5(seq), '2024-01-01' + INTERVAL seq SECOND FROM seq_1_to_{rows};"
            );
            server.run("app", &sql).map(drop)
        },
    },
    Load {
        name: "blobs",
        make: |server, scale| {
            let rows = scaled(2_000, scale);
            let sql = format!(
                "CREATE TABLE blobs (id INT PRIMARY KEY, b LONGBLOB);
                 INSERT INTO blobs SELECT seq, RANDOM_BYTES(1024) FROM seq_1_to_{rows};
                 UPDATE blobs SET b = REPEAT(b, 100);"
            );
            server.run("app", &sql).map(drop)
        },
    },
];

const MARIADB_TOOLS: &[Peer] = &[
    Peer {
        name: "mydumper -t 2, myloader -t 2",
        run: |from, to, scratch| {
            let dir = scratch.join("dump");
            let tool = |name: &str, server: &Server| {
                let mut tool = Command::new(name);
                tool.args(["-t", "2", "-u", "root", "-B", "app", "-S"]).arg(server.socket());
                tool
            };
            run_quietly(tool("mydumper", from).arg("-o").arg(&dir))?;
            to.create("app")?;
            run_quietly(tool("myloader", to).arg("-d").arg(&dir).arg("-o"))
        },
    },
    Peer {
        name: "mariadb-dump | mariadb",
        run: |from, to, _| {
            to.create("app")?;
            pipe(
                from.tool("mariadb-dump").args(["--single-transaction", "app"]),
                to.tool("mariadb").args(["--init-command=SET sql_log_bin = 0", "app"]),
            )
        },
    },
];

const POSTGRES_LOADS: &[Load] = &[
    Load {
        name: "pgbench",
        make: |server, scale| {
            let rows = scaled(20, scale).to_string();
            run_quietly(server.tool("pgbench").args(["-i", "-q", "-s", &rows, "app"]))?;
            server.run("app", "CREATE INDEX by_balance ON pgbench_accounts (abalance)").map(drop)
        },
    },
    Load {
        name: "one-table",
        make: |server, scale| {
            let rows = scaled(5_000_000, scale);
            let sql = format!(
                "CREATE TABLE one (id bigint PRIMARY KEY, k int, c text, t timestamptz);
                 INSERT INTO one SELECT n, n * 7919 % 1000003, md5(n::text), timestamptz '2024-01-01' + n * interval '1 second'
                 FROM generate_series(1, {rows}::bigint) n;
                 CREATE INDEX by_k ON one (k); VACUUM ANALYZE one;"
            );
            server.run("app", &sql).map(drop)
        },
    },
    Load {
        name: "blobs",
        make: |server, scale| {
            let rows = scaled(2_000, scale);
            let sql = format!(
                "CREATE TABLE blobs (id int PRIMARY KEY, b bytea);
                 ALTER TABLE blobs ALTER b SET STORAGE EXTERNAL;
                 INSERT INTO blobs SELECT n, decode(repeat(md5(n::text), 6400), 'hex') FROM generate_series(1, {rows}) n;"
            );
            server.run("app", &sql).map(drop)
        },
    },
];

const POSTGRES_TOOLS: &[Peer] = &[
    Peer {
        name: "pgcopydb clone, 2 jobs",
        run: |from, to, scratch| {
            to.create("app")?;
            let uri = |server: &Server| format!("postgresql://postgres@127.0.0.1:{}/app", server.port());
            let mut clone = Command::new("pgcopydb");
            clone.args([
                "clone",
                "--table-jobs",
                "2",
                "--index-jobs",
                "2",
                "--source",
                &uri(from),
                "--target",
                &uri(to),
            ]);
            run_quietly(clone.arg("--dir").arg(scratch.join("pgcopydb")))
        },
    },
    Peer {
        name: "schema, COPY | COPY, indexes",
        run: |from, to, _| {
            to.create("app")?;
            let section = |name: &str| {
                pipe(
                    from.tool("pg_dump").arg(format!("--section={name}")).arg("app"),
                    to.client("app").arg("-f").arg("-"),
                )
            };
            section("pre-data")?;
            for table in tables(from)? {
                pipe(
                    from.client("app").arg("-c").arg(format!("COPY {table} TO STDOUT")),
                    to.client("app").arg("-c").arg(format!("COPY {table} FROM STDIN")),
                )?;
            }
            section("post-data")
        },
    },
];
