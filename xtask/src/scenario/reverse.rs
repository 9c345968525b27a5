//! After the cut-over the source follows the target; an abort brings everything home.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use handover_tests::bed::Bed;
use handover_tests::compare::{Comparison, Side, Sums, databases, same_sums, sums};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use handover_tests::server::Server;
use serde_json::json;

use super::live::{Data, make};
use super::{Options, Outcome};
use crate::shell::say;
use crate::workplace::Workplace;

/// How long the target is written to.
const WRITTEN: Duration = Duration::from_secs(10);
/// Everything must be home again within this time.
const HOME_WITHIN: Duration = Duration::from_secs(120);
/// A table of our own that is written to until the target refuses it: what was acknowledged must be at the source.
const LEDGER: &str = "CREATE TABLE ledger (id INTEGER PRIMARY KEY, v INTEGER)";

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    let place = Workplace::fresh("scenario-reverse")?;
    let binaries = Binaries::build(Profile::Release)?;
    let (data, load) = make(options, &place)?;
    source(&data).run(LEDGER)?;
    let alone = load.measure(None, Duration::from_secs(5))?;
    let rate = alone.per_second / 3.0;
    let bed = Bed::at(place.path(), binaries, vec![data.dataset()], "info")?;
    let digest = bed.json(&["plan", "--follow"])?["digest"].as_str().unwrap_or_default().to_owned();
    bed.json(&["start", &digest])?;
    wait(&bed, "the copy to be followed", |status| status["activity"] == "following")?;
    bed.json(&["cutover"])?;
    wait(&bed, "the target to take over", |status| {
        status["phase"] == "trial" && status["activity"] == "following_back"
    })?;
    say(format!(
        "cut over; {rate:.0} transactions per second are asked of the target for {} s",
        WRITTEN.as_secs()
    ));
    let running = load.moved(&data).start(rate)?;
    let ledger = Ledger::begin(&data)?;
    let began = Instant::now();
    poll::until(
        "the target to be written to",
        WRITTEN * 2,
        || Ok((began.elapsed() > WRITTEN).then_some(())),
    )?;
    let figures = bed.json(&["status"])?["following"]["app"].clone();
    drop(running);
    let there = State::of(&data, &place.path().join("kept.db"))?;
    say("aborting, while the ledger is still written to");
    let began = Instant::now();
    bed.cli(&["abort", "--watch"])?.success()?;
    let took = began.elapsed();
    let acknowledged = ledger.end()?;
    let mut found = there.compare(&data)?;
    let home: BTreeSet<i64> = source(&data).ids()?;
    for id in acknowledged.difference(&home) {
        found.differs(format!("ledger, row {id}: acknowledged at the target, missing at the source"));
    }
    source(&data).run("INSERT INTO ledger VALUES (0, 0)").context("the source takes no writes")?;
    println!("{}", found.describe());
    Ok(Outcome {
        ok: found.found == 0 && acknowledged.len() > 10,
        figures: json!({
            "engine": options.engine,
            "rows": found.rows,
            "carried_back": figures["applied"],
            "acknowledged": acknowledged.len(),
            "abort_ms": took.as_millis() as u64,
            "differences": found.found,
        }),
    })
}

fn wait(bed: &Bed, what: &str, is_it: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
    poll::until(what, HOME_WITHIN, || {
        let status = bed.json(&["status"])?;
        ensure!(status["condition"] == "good", "the migration stands still: {status}");
        Ok(is_it(&status).then_some(()))
    })
}

/// One side's database.
#[derive(Clone, Copy)]
enum Base<'a> {
    File(&'a Path),
    Server(&'a Server),
}

fn source(data: &Data) -> Base<'_> {
    match data {
        Data::Sqlite { source, .. } => Base::File(source),
        Data::Servers { from, .. } => Base::Server(from),
    }
}

impl Base<'_> {
    fn run(self, sql: &str) -> Result<()> {
        match self {
            Base::Server(server) => server.run("app", sql).map(drop),
            Base::File(path) => {
                let db = rusqlite::Connection::open(path)?;
                db.busy_timeout(Duration::from_secs(10))?;
                Ok(db.execute_batch(sql)?)
            }
        }
    }

    fn ids(self) -> Result<BTreeSet<i64>> {
        match self {
            Base::Server(server) => {
                let told = server.run("app", "SELECT id FROM ledger")?;
                told.lines().map(|line| Ok(line.parse()?)).collect()
            }
            Base::File(path) => {
                let db = rusqlite::Connection::open(path)?;
                let mut statement = db.prepare("SELECT id FROM ledger")?;
                let ids = statement.query_map([], |row| row.get(0))?;
                Ok(ids.collect::<rusqlite::Result<_>>()?)
            }
        }
    }
}

/// What a target holds, but for the ledger, which is still written to.
enum State {
    Sums(Sums),
    Copy(std::path::PathBuf),
}

impl State {
    fn of(data: &Data, copy: &Path) -> Result<Self> {
        match data {
            Data::Servers { to, .. } => {
                let mut sums = sums(Side { server: to, database: "app" })?;
                sums.retain(|table, _| !table.contains("ledger"));
                Ok(State::Sums(sums))
            }
            Data::Sqlite { target, .. } => {
                without_ledger(target, copy)?;
                Ok(State::Copy(copy.to_owned()))
            }
        }
    }

    fn compare(&self, data: &Data) -> Result<Comparison> {
        match (self, data) {
            (State::Sums(there), Data::Servers { from, .. }) => {
                let mut here = sums(Side { server: from, database: "app" })?;
                here.retain(|table, _| !table.contains("ledger"));
                Ok(same_sums(&here, there))
            }
            (State::Copy(there), Data::Sqlite { source, .. }) => {
                let here = there.with_extension("home.db");
                without_ledger(source, &here)?;
                databases(&here, there)
            }
            _ => Err(anyhow!("the state of other data")),
        }
    }
}

/// Copies a database without the ledger's rows, which are looked at by themselves.
fn without_ledger(from: &Path, to: &Path) -> Result<()> {
    let db = rusqlite::Connection::open(from)?;
    db.busy_timeout(Duration::from_secs(10))?;
    db.execute("VACUUM INTO ?", [to.to_string_lossy()])?;
    Base::File(to).run("DELETE FROM ledger")
}

/// Writes to the target, row by row, until it is refused.
struct Ledger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<i64>>,
}

impl Ledger {
    fn begin(data: &Data) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let mut client = match data {
            Data::Sqlite { target, .. } => {
                let db = rusqlite::Connection::open(target)?;
                db.busy_timeout(Duration::from_secs(10))?;
                Client::File(db)
            }
            Data::Servers { to, .. } => Client::Server(to.client("app")),
        };
        let thread = std::thread::spawn(move || {
            let mut acknowledged = BTreeSet::new();
            for id in 1.. {
                if is_over.load(Ordering::Relaxed) || client.insert(id).is_err() {
                    break;
                }
                acknowledged.insert(id);
                poll::pause(Duration::from_millis(5));
            }
            acknowledged
        });
        Ok(Self { stop, thread })
    }

    /// The rows that were acknowledged.
    fn end(self) -> Result<BTreeSet<i64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the ledger's writer panicked"))
    }
}

enum Client {
    File(rusqlite::Connection),
    Server(std::process::Command),
}

impl Client {
    fn insert(&mut self, id: i64) -> Result<()> {
        let sql = format!("INSERT INTO ledger VALUES ({id}, {id})");
        match self {
            Client::File(db) => Ok(db.execute_batch(&sql)?),
            Client::Server(command) => handover_tests::server::run(command, &sql).map(drop),
        }
    }
}
