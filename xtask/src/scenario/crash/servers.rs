//! A database on a server, on either side.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use handover_tests::appliance::{Changed, seeded};
use handover_tests::bed::{Bed, Dataset, SERVED};
use handover_tests::compare::{Comparison, Side, servers_between_passes};
use handover_tests::locate::Binaries;
use handover_tests::poll;
use handover_tests::server::{Engine, Server};
use rand::Rng;
use rand::rngs::StdRng;

use super::Data;
use crate::packages;
use crate::scenario::Options;
use crate::shell::say;

const NAME: &str = "app";
/// Tables that a change touches, whatever schema they are shown with.
const CHANGED: &[&str] = &["orders", "order_lines", "words", "events"];

struct Servers {
    from: Server,
    to: Server,
}

/// Makes two servers, a database, and their bed.
pub fn make(options: &Options, place: &Path, binaries: Binaries) -> Result<(Bed, Box<dyn Data>)> {
    let engine = options.server()?;
    packages::install(packages::SERVERS)?;
    let rows = options.scaled(600_000);
    say(format!("starting two servers, and making a database of about {} rows", rows * 2));
    let (from, to) = (Server::start(engine, &[])?, Server::start(engine, &[])?);
    from.create(NAME)?;
    from.run(NAME, &script(engine, rows))?;
    let dataset = Dataset::Server { name: NAME.to_owned(), source: from.url(NAME), target: to.url(NAME) };
    Ok((Bed::at(place, binaries, vec![dataset], SERVED)?, Box::new(Servers { from, to })))
}

/// Keys of every kind, one table without any, a large one, one that nothing changes, blobs, what is made after the load.
fn script(engine: Engine, rows: u64) -> String {
    let (lines, words, few) = (rows / 2, rows / 6, (rows / 3000).max(1));
    let series = |n: u64| match engine {
        Engine::Mariadb => format!("(SELECT seq AS n FROM seq_1_to_{n}) s"),
        Engine::Postgres => format!("generate_series(1, {n}::bigint) n"),
    };
    let (text, blob, blobs) = match engine {
        Engine::Mariadb => ("CHAR", "LONGBLOB", "REPEAT(MD5(n), 3000)"),
        Engine::Postgres => ("VARCHAR", "BYTEA", "decode(repeat(md5(n::text), 3000), 'hex')"),
    };
    format!(
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INT NOT NULL, cents BIGINT, note VARCHAR(80));
         INSERT INTO orders SELECT n, n * 7919 % 10007, n * 31, CONCAT('note ', MD5(CAST(n AS {text}(20)))) FROM {orders};
         CREATE INDEX orders_by_customer ON orders (customer);
         CREATE TABLE order_lines (order_id BIGINT NOT NULL REFERENCES orders (id), position INT NOT NULL, article VARCHAR(20), amount DECIMAL(12,3),
           PRIMARY KEY (order_id, position));
         INSERT INTO order_lines SELECT (n + 1) / 2, n % 2, CONCAT('article ', n % 1009), n / 8.0 FROM {lines} WHERE n % 2 = 1;
         INSERT INTO order_lines SELECT n / 2, n % 2, CONCAT('article ', n % 1013), n / 8.0 FROM {lines} WHERE n % 2 = 0;
         CREATE TABLE words (word VARCHAR(40) PRIMARY KEY, seen INT);
         INSERT INTO words SELECT CONCAT('w', MD5(CAST(n AS {text}(20)))), n FROM {words};
         CREATE TABLE events (at INT, what VARCHAR(60));
         INSERT INTO events SELECT n % 5003, CONCAT('event ', n) FROM {words};
         CREATE TABLE settled (id INT PRIMARY KEY, what VARCHAR(60));
         INSERT INTO settled SELECT n, CONCAT('settled ', n) FROM {words};
         CREATE TABLE blobs (id INT PRIMARY KEY, body {blob});
         INSERT INTO blobs SELECT n, {blobs} FROM {few};
         CREATE TABLE nothing (id INT PRIMARY KEY);
         CREATE VIEW dear AS SELECT id, cents FROM orders WHERE cents > 1000000;",
        orders = series(rows),
        lines = series(lines),
        words = series(words),
        few = series(few),
    )
}

impl Data for Servers {
    fn compare(&self, _: &Bed) -> Result<Comparison> {
        let side = |server| Side { server, database: NAME };
        servers_between_passes(side(&self.from), side(&self.to))
    }

    fn change(&mut self, _: &Bed, seed: u64) -> Result<Changed> {
        let n = seeded(seed, "change").random_range(3..50);
        let late = 2_000_000_000 - (seed % 1_000_000_000);
        self.from.run(
            NAME,
            &format!(
                "BEGIN;
                 UPDATE orders SET cents = cents + {n} WHERE id % 9973 = {n};
                 DELETE FROM order_lines WHERE order_id % 4999 = {n};
                 INSERT INTO orders VALUES ({late}, {n}, {n}, 'late');
                 UPDATE words SET word = CONCAT(word, '{n}') WHERE seen % 9901 = {n};
                 DELETE FROM events WHERE at % 101 = {n};
                 INSERT INTO events VALUES ({n}, 'late');
                 COMMIT;"
            ),
        )?;
        let tables = CHANGED.iter().flat_map(|name| [(*name).to_owned(), format!("public.{name}")]).collect();
        Ok(Changed { tables, ..Changed::default() })
    }

    fn empty_target(&mut self, _: &Bed) -> Result<()> {
        self.to.drop_databases(NAME)
    }

    fn strike(&mut self, rng: &mut StdRng, pause: Duration) -> Result<Option<&'static str>> {
        let (server, name) = if rng.random_bool(0.5) {
            (&mut self.from, "the source's database server")
        } else {
            (&mut self.to, "the target's database server")
        };
        server.kill()?;
        poll::pause(pause);
        server.restart()?;
        Ok(Some(name))
    }
}
