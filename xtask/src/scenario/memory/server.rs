//! Much data of a database on a server: a long table, and rows of 64 MiB.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use handover_tests::bed::{Bed, Dataset};
use handover_tests::compare::{Side, servers_by_checksum};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::server::{Engine, Server};

use super::{Options, Outcome, ROWS, outcome};
use crate::packages;
use crate::shell::say;
use crate::workplace::Workplace;

/// Rows of 64 MiB, of each of three types; the numbers are their keys.
const HUGE: u32 = 3;
/// A whole row must fit into a message of the server.
const MARIADB: &[&str] = &["--max-allowed-packet=1G", "--innodb-log-file-size=1G", "--local-infile=1"];
const POSTGRES: &[&str] = &["--max_wal_size=4GB", "--maintenance_work_mem=256MB"];

/// Runs the scenario on servers of an engine.
pub fn run(engine: Engine, options: &Options) -> Result<Outcome> {
    packages::install(packages::SERVERS)?;
    let place = Workplace::fresh("scenario-memory")?;
    let binaries = Binaries::build(Profile::Release)?;
    let rows = options.scaled(ROWS);
    say(format!("starting two servers, and making a table of {rows} rows and {} rows of 64 MiB", 3 * HUGE));
    let further = if engine == Engine::Mariadb { MARIADB } else { POSTGRES };
    let (from, to) = (Server::start(engine, further)?, Server::start(engine, further)?);
    from.create("app")?;
    make(&from, rows).context("making the tables")?;
    let dataset = Dataset::Server { name: "app".to_owned(), source: from.url("app"), target: to.url("app") };
    let bed = Bed::at(place.path(), binaries, vec![dataset], "info")?;
    let begun = Instant::now();
    say(format!("moving it: {}", bed.start()?));
    bed.settle(Duration::from_secs(3600))?;
    let seconds = begun.elapsed().as_secs_f64();
    // What the migration keeps for an undo goes.
    bed.cli(&["finalize"])?.success()?;
    bed.settle(Duration::from_secs(600))?;
    outcome(&bed, engine.name(), seconds, || {
        servers_by_checksum(Side { server: &from, database: "app" }, Side { server: &to, database: "app" })
    })
}

fn make(server: &Server, rows: u64) -> Result<()> {
    let mut sql = match server.engine() {
        Engine::Postgres => format!(
            "CREATE TABLE many (id bigint PRIMARY KEY, a integer, v text);
             INSERT INTO many SELECT n, n % 97, 'row ' || n FROM generate_series(1, {rows}) n;
             CREATE TABLE huge (id integer PRIMARY KEY, b bytea, v text, j jsonb);
             ALTER TABLE huge ALTER b SET STORAGE EXTERNAL, ALTER v SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL;"
        ),
        Engine::Mariadb => format!(
            "CREATE TABLE many (id BIGINT PRIMARY KEY, a INT, v TEXT);
             INSERT INTO many SELECT seq, seq % 97, CONCAT('row ', seq) FROM seq_1_to_{rows};
             CREATE TABLE huge (id INT PRIMARY KEY, b LONGBLOB, v LONGTEXT, j JSON);
             SET group_concat_max_len = 1 << 30;"
        ),
    };
    // Digests, since what can be compressed is easily held.
    for n in (1..=HUGE).map(|n| n * 3) {
        sql += &match server.engine() {
            Engine::Postgres => {
                let noise = |count: u64| {
                    format!(
                        "(SELECT string_agg(sha512(textsend(n::text || '-{n}')), '') FROM generate_series(1, {count}) n)"
                    )
                };
                let text = format!("translate(encode({}, 'base64'), E'\\n', '')", noise(3 << 18));
                format!(
                    "INSERT INTO huge (id, b) VALUES ({n}, {}); INSERT INTO huge (id, v) VALUES ({n} + 1, {text});
                     INSERT INTO huge (id, j) VALUES ({n} + 2, jsonb_build_object('v', {text}));",
                    noise(1 << 20)
                )
            }
            Engine::Mariadb => {
                let noise = |count: u64| {
                    format!(
                        "(SELECT GROUP_CONCAT(SHA2(CONCAT(seq, '-{n}'), 512) SEPARATOR '') FROM seq_1_to_{count})"
                    )
                };
                format!(
                    "INSERT INTO huge (id, b) VALUES ({n}, UNHEX({})); INSERT INTO huge (id, v) VALUES ({n} + 1, {});
                     INSERT INTO huge (id, j) VALUES ({n} + 2, JSON_OBJECT('v', {}));",
                    noise(1 << 20),
                    noise(1 << 19),
                    noise(1 << 19)
                )
            }
        };
    }
    server.run("app", &sql).map(drop)
}
