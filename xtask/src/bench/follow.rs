//! A backlog of changes, worked off: ours beside the engine's own replication.
//!
//! Both follow the same source. Both are stopped, the source is written to, and each is timed from the command that lets it go on
//! until its copy holds the last of the changes; then the rows of all three are compared.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use handover_tests::bed::{Bed, Dataset};
use handover_tests::compare::{Side, rows_by_checksum};
use handover_tests::locate::Binaries;
use handover_tests::poll;
use handover_tests::server::{Engine, Server};

use super::{Case, Options};
use crate::packages;
use crate::shell::{run_quietly, say, seconds};
use crate::workplace::Workplace;

/// Rows of the table that is written to, and changes of a backlog.
const ROWS: u64 = 1_000_000;
const CHANGES: u64 = 300_000;
/// Changes of one transaction.
const TOGETHER: u64 = 100;
/// How old a status's figures may be.
const FIGURES: Duration = Duration::from_millis(120);
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(600);

const MARIADB: &[&str] = &[
    "--innodb-buffer-pool-size=1G",
    "--innodb-log-file-size=512M",
    "--local-infile=1",
    "--max-binlog-size=1G",
];
const POSTGRES: &[&str] = &["--shared_buffers=512MB", "--max_wal_size=4GB"];

/// Which rows change.
struct Backlog {
    name: &'static str,
    /// A row's number, from `r`: a random number from 0 to 1.
    row: &'static str,
}

const BACKLOGS: &[Backlog] = &[
    Backlog { name: "uniform", row: "1 + FLOOR(r * :rows)" },
    // Half of the changes hit the first thousandth of the rows.
    Backlog { name: "skewed", row: "1 + FLOOR(POWER(r, 10) * :rows)" },
];

/// Runs the cases of both engines.
pub fn run(binaries: &Binaries, options: &Options) -> Result<Vec<Case>> {
    packages::install(packages::SERVERS)?;
    let mut cases = Vec::new();
    for engine in [Engine::Mariadb, Engine::Postgres] {
        let backlogs: Vec<&Backlog> = BACKLOGS
            .iter()
            .filter(|backlog| options.case.as_ref().is_none_or(|case| case == backlog.name))
            .collect();
        ensure!(!backlogs.is_empty(), "--case: follow has uniform and skewed");
        cases.extend(Three::make(engine, binaries, options)?.measure(&backlogs, options)?);
    }
    Ok(cases)
}

/// A source, what ours keeps up to date, and what the engine does.
struct Three {
    from: Server,
    ours: Server,
    peer: Server,
    bed: Bed,
    rows: u64,
    changes: u64,
    marks: u64,
    _place: Workplace,
}

impl Three {
    fn make(engine: Engine, binaries: &Binaries, options: &Options) -> Result<Self> {
        let settings = if engine == Engine::Mariadb { MARIADB } else { POSTGRES };
        let place = Workplace::fresh(&format!("bench/follow-{}", engine.name()))?;
        let start = |number: &'static str| {
            let mut settings = settings.to_vec();
            if engine == Engine::Mariadb {
                settings.push(number);
            }
            Server::start(engine, &settings)
        };
        let (from, ours, peer) = (start("--server-id=1")?, start("--server-id=2")?, start("--server-id=3")?);
        let scaled = |amount: u64| ((amount as f64 * options.scale) as u64).max(1000);
        let (rows, changes) = (scaled(ROWS), scaled(CHANGES));
        say(format!("{}: making {rows} rows, and two that follow", engine.name()));
        from.create("app")?;
        from.run("app", &table(engine, rows))?;
        let unlogged = if engine == Engine::Mariadb { "&binlog=off" } else { "" };
        let (source, target) = (from.url("app"), ours.url("app") + unlogged);
        let dataset = Dataset::Server { name: "app".to_owned(), source, target };
        let bed = Bed::at(place.path(), binaries.clone(), vec![dataset], "info")?;
        let digest = bed.json(&["plan", "--follow"])?["digest"].as_str().unwrap_or_default().to_owned();
        run_quietly(bed.command().args(["start", &digest, "--watch"]))?;
        let three = Self { from, ours, peer, bed, rows, changes, marks: 0, _place: place };
        match engine {
            Engine::Mariadb => three.replica()?,
            Engine::Postgres => three.subscription()?,
        }
        Ok(three)
    }

    fn engine(&self) -> Engine {
        self.from.engine()
    }

    /// A replica with one SQL thread, as a server has by default.
    fn replica(&self) -> Result<()> {
        let dump = self
            .from
            .tool("mariadb-dump")
            .args(["--single-transaction", "--gtid", "--master-data=1", "app"])
            .output()?;
        ensure!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        self.peer.create("app")?;
        self.peer.run("app", &format!("SET sql_log_bin = 0; {}", String::from_utf8_lossy(&dump.stdout)))?;
        self.from.run(
            "",
            "CREATE USER replica@'%' IDENTIFIED BY 'replica'; GRANT REPLICATION SLAVE ON *.* TO replica@'%'",
        )?;
        let source = format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'replica', \
             MASTER_PASSWORD = 'replica', MASTER_USE_GTID = slave_pos",
            self.from.port()
        );
        self.peer.run("", &source).map(drop)
    }

    /// A subscription to all tables.
    fn subscription(&self) -> Result<()> {
        self.peer.create("app")?;
        self.peer.run("app", "CREATE TABLE t (id bigint PRIMARY KEY, k bigint, c text, pad text); CREATE INDEX by_k ON t (k); CREATE TABLE mark (id int PRIMARY KEY, n bigint)")?;
        self.from.run("app", "CREATE PUBLICATION everything FOR ALL TABLES")?;
        let source = format!(
            "CREATE SUBSCRIPTION follows CONNECTION 'host=127.0.0.1 port={} user=postgres dbname=app' PUBLICATION everything",
            self.from.port()
        );
        self.peer.run("app", &source)?;
        let ready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
        poll::until("the subscription to be filled", CAUGHT_UP_WITHIN, || {
            Ok((self.peer.run("app", ready)?.trim() == "0").then_some(()))
        })?;
        self.peer.run("app", "ALTER SUBSCRIPTION follows DISABLE").map(drop)
    }

    fn measure(mut self, backlogs: &[&Backlog], options: &Options) -> Result<Vec<Case>> {
        let peer = if self.engine() == Engine::Mariadb { "replica" } else { "subscription" };
        run_quietly(self.bed.command().arg("pause"))?;
        let mut cases = Vec::new();
        for backlog in backlogs {
            say(format!(
                "{} `{}` beside a {peer}: {} pairs",
                self.engine().name(),
                backlog.name,
                options.pairs
            ));
            let mut measured = Vec::new();
            for n in 0..options.pairs {
                self.write(backlog)?;
                rustix::fs::sync();
                let three = &self;
                let ours_first = n % 2 == 0;
                let one = if ours_first { three.ours()? } else { three.peer()? };
                let other = if ours_first { three.peer()? } else { three.ours()? };
                let (ours, theirs) = if ours_first { (one, other) } else { (other, one) };
                println!("pair {}: ours {ours:.3} s, peer {theirs:.3} s", n + 1);
                measured.push((ours, theirs));
                self.compare()?;
            }
            cases.push(Case::of(backlog.name, &format!("{}: {peer}", self.engine().name()), &measured));
        }
        Ok(cases)
    }

    /// Writes a backlog, and a mark behind it.
    fn write(&mut self, backlog: &Backlog) -> Result<()> {
        self.marks += 1;
        let row = backlog.row.replace(":rows", &self.rows.to_string());
        let (rounds, together, mark) = (self.changes / TOGETHER, TOGETHER, self.marks);
        let sql = match self.engine() {
            Engine::Mariadb => format!(
                "DELIMITER //
                 CREATE OR REPLACE PROCEDURE work() BEGIN
                   DECLARE n, m INT DEFAULT 0; DECLARE r DOUBLE;
                   WHILE n < {rounds} DO
                     START TRANSACTION; SET m = 0;
                     WHILE m < {together} DO
                       SET r = RAND(); UPDATE t SET k = k + 1, c = MD5(r) WHERE id = {row}; SET m = m + 1;
                     END WHILE;
                     COMMIT; SET n = n + 1;
                   END WHILE;
                 END//
                 DELIMITER ;
                 CALL work(); REPLACE INTO mark VALUES (1, {mark});"
            ),
            Engine::Postgres => format!(
                "DO $$ DECLARE r float8; BEGIN
                   FOR n IN 1..{rounds} LOOP
                     FOR m IN 1..{together} LOOP
                       r := random(); UPDATE t SET k = k + 1, c = md5(r::text) WHERE id = ({row})::bigint;
                     END LOOP;
                     COMMIT;
                   END LOOP;
                 END $$;
                 INSERT INTO mark VALUES (1, {mark}) ON CONFLICT (id) DO UPDATE SET n = {mark};"
            ),
        };
        self.from.run("app", &sql).map(drop)
    }

    /// Waits until the mark is in a database.
    fn until_marked(&self, server: &Server, database: &str) -> Result<()> {
        poll::until("the mark", CAUGHT_UP_WITHIN, || {
            let there = server.run(database, "SELECT n FROM mark WHERE id = 1")?;
            Ok((there.trim() == self.marks.to_string()).then_some(()))
        })
    }

    /// The database that ours keeps up to date: it is not published yet.
    fn copy(&self) -> Result<String> {
        let list = match self.engine() {
            Engine::Mariadb => "SELECT schema_name FROM information_schema.schemata",
            Engine::Postgres => "SELECT datname FROM pg_database",
        };
        let all = self.ours.run("", list)?;
        all.lines().find(|name| name.starts_with("app")).map(str::to_owned).context("there is no copy")
    }

    fn ours(&self) -> Result<f64> {
        let copy = self.copy()?;
        let time = seconds(|| {
            run_quietly(self.bed.command().arg("resume"))?;
            self.until_marked(&self.ours, &copy)?;
            // Rows go in side by side, and what is told of those that wait is this old at most.
            poll::pause(FIGURES);
            poll::until("nothing to wait", CAUGHT_UP_WITHIN, || {
                let status = self.bed.json(&["status"])?;
                ensure!(status["condition"] == "good", "following stands still: {status}");
                Ok((status["following"]["app"]["waiting"] == 0).then_some(()))
            })
        })?;
        run_quietly(self.bed.command().arg("pause"))?;
        Ok(time)
    }

    fn peer(&self) -> Result<f64> {
        let (start, stop) = match self.engine() {
            Engine::Mariadb => ("START SLAVE", "STOP SLAVE"),
            Engine::Postgres => ("ALTER SUBSCRIPTION follows ENABLE", "ALTER SUBSCRIPTION follows DISABLE"),
        };
        let time = seconds(|| {
            self.peer.run("app", start)?;
            self.until_marked(&self.peer, "app")
        })?;
        self.peer.run("app", stop)?;
        Ok(time)
    }

    /// All three have the same rows.
    fn compare(&self) -> Result<()> {
        let copy = self.copy()?;
        for (who, server, database) in [("ours", &self.ours, copy.as_str()), ("the peer", &self.peer, "app")]
        {
            let found =
                rows_by_checksum(Side { server: &self.from, database: "app" }, Side { server, database })?;
            ensure!(found.found == 0, "{who} has other rows: {}", found.describe());
        }
        Ok(())
    }
}

fn table(engine: Engine, rows: u64) -> String {
    match engine {
        Engine::Mariadb => format!(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, c CHAR(120), pad CHAR(60), KEY by_k (k));
             INSERT INTO t SELECT seq, seq * 7919 % 1000003, MD5(seq), REPEAT('x', 60) FROM seq_1_to_{rows};
             CREATE TABLE mark (id INT PRIMARY KEY, n BIGINT);"
        ),
        Engine::Postgres => format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, k bigint, c text, pad text);
             INSERT INTO t SELECT n, n * 7919 % 1000003, md5(n::text), repeat('x', 60) FROM generate_series(1, {rows}::bigint) n;
             CREATE INDEX by_k ON t (k); CREATE TABLE mark (id int PRIMARY KEY, n bigint); VACUUM ANALYZE t;"
        ),
    }
}
