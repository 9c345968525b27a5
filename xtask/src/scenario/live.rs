//! A database is moved while it is written to, and its writers wait no longer than a moment.

pub mod crash;
pub mod load;
pub mod tenfold;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use handover_tests::bed::{Bed, Dataset};
use handover_tests::compare::{self, Comparison, Side, rows_by_checksum};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use handover_tests::server::Server;
use serde_json::{Value, json};

use self::load::{Load, Measured};
use super::{Options, Outcome};
use crate::packages;
use crate::shell::say;
use crate::workplace::Workplace;

/// How long the load runs to find out what the server can do, and what a third of that looks like without a migration.
const ALONE: Duration = Duration::from_secs(8);
/// The copy must be complete, and the target caught up, within this time.
const COPIED_WITHIN: Duration = Duration::from_secs(1800);
/// Writers may wait so long, and may lose so much of what they ask for.
const MAX_DOWNTIME_MS: u64 = 2_000;
const MAX_SLOWDOWN: f64 = 0.1;
/// How often it is looked at how far behind the copy is.
const LOOK: Duration = Duration::from_millis(200);

/// What is moved.
pub enum Data {
    Sqlite { source: std::path::PathBuf, target: std::path::PathBuf },
    Servers { from: Server, to: Server },
}

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    let place = Workplace::fresh("scenario-live")?;
    let binaries = Binaries::build(Profile::Release)?;
    let (data, load) = make(options, &place)?;
    let alone = load.measure(None, ALONE)?;
    let rate = alone.per_second / 3.0;
    say(format!(
        "alone it reaches {:.0} transactions per second; from now on {rate:.0} are asked for",
        alone.per_second
    ));
    let before = load.measure(Some(rate), ALONE)?;
    let mut running = load.start(rate)?;
    let bed = Bed::at(place.path(), binaries, vec![data.dataset()], "info")?;
    let begun = Instant::now();
    let digest = bed.json(&["plan", "--follow"])?["digest"].as_str().unwrap_or_default().to_owned();
    let mark = running.mark()?;
    let migration = bed.json(&["start", &digest])?["migration"].as_str().unwrap_or_default().to_owned();
    say(format!("moving it: {migration}"));
    let lags = follow(&bed, begun, Duration::from_secs(options.seconds))?;
    let during = running.since(mark)?;
    say("cutting over");
    bed.json(&["cutover"])?;
    let cutover = poll::until("the target to take over", Duration::from_secs(120), || {
        let status = bed.json(&["status"])?;
        ensure!(status["condition"] != "failed", "the cut-over failed: {status}");
        ensure!(status["activity"] != "following", "the cut-over was called off: {}", last_note(&bed)?);
        Ok((status["phase"] == "trial" && status["activity"] == "following_back")
            .then(|| status["cutover"].clone()))
    })?;
    running.ended_refused()?;
    println!("acts of the cut-over, in ms:{}", acts(&bed, "fence")?);
    let found = data.compare()?;
    println!("{}", found.describe());
    report(options, &cutover, &lags, &before, &during, rate, &found)
}

/// Makes what is moved, and a load of it.
pub fn make(options: &Options, place: &Workplace) -> Result<(Data, Load)> {
    let rows = options.scaled(options.rows());
    if options.engine == "sqlite" {
        let dir = place.path().join("source/data");
        std::fs::create_dir_all(&dir)?;
        let (source, target) = (dir.join("app.db"), place.path().join("target/data/app.db"));
        say(format!("making a database of {rows} rows"));
        let load = Load::sqlite(&source, rows)?;
        return Ok((Data::Sqlite { source, target }, load));
    }
    let engine = options.server()?;
    packages::install(load::tools(engine))?;
    say(format!("starting two servers, and making {rows} rows"));
    let (from, to) =
        (Server::start(engine, load::settings(engine))?, Server::start(engine, load::settings(engine))?);
    from.create("app")?;
    let load = Load::server(&from, rows, place.path())?;
    Ok((Data::Servers { from, to }, load))
}

impl Data {
    /// What a bed moves.
    pub fn dataset(&self) -> Dataset {
        let name = "app".to_owned();
        match self {
            Data::Sqlite { source, target } => {
                Dataset::Database { name, source: source.clone(), target: target.clone() }
            }
            Data::Servers { from, to } => {
                Dataset::Server { name, source: from.url("app"), target: to.url("app") }
            }
        }
    }

    fn has_servers(&self) -> bool {
        matches!(self, Data::Servers { .. })
    }

    /// Kills the server of one side and starts it again `pause` later; that side's name.
    fn strike(&mut self, source: bool, pause: Duration) -> Result<&'static str> {
        let Data::Servers { from, to } = self else { anyhow::bail!("there is no server") };
        let (server, name) = if source { (from, "the source") } else { (to, "the target") };
        server.kill()?;
        poll::pause(pause);
        server.restart()?;
        Ok(name)
    }

    /// Compares both sides.
    pub fn compare(&self) -> Result<Comparison> {
        match self {
            Data::Sqlite { source, target } => compare::databases(source, target),
            Data::Servers { from, to } => {
                rows_by_checksum(Side { server: from, database: "app" }, Side { server: to, database: "app" })
            }
        }
    }
}

/// Waits until the copy is complete and is followed, and at least `seconds` have passed since it began; how far it was behind, in
/// milliseconds, at many moments.
fn follow(bed: &Bed, begun: Instant, seconds: Duration) -> Result<Vec<u64>> {
    let mut lags = Vec::new();
    let mut caught_up = None;
    loop {
        let status = bed.json(&["status"])?;
        ensure!(status["condition"] == "good", "the migration stands still: {status}");
        let figures = &status["following"]["app"];
        if status["activity"] == "following" && !figures.is_null() {
            let lag = figures["lag_ms"].as_u64().unwrap_or(u64::MAX);
            if lag < 1000 && caught_up.is_none() {
                caught_up = Some(Instant::now());
                say(format!("it has caught up {:.1} s after it began", begun.elapsed().as_secs_f64()));
            }
            // What had gathered during the copy is worked off first: that is no lag of following.
            if caught_up.is_some() {
                lags.push(lag);
            }
        }
        let followed = caught_up.is_some_and(|at| at.elapsed() > Duration::from_secs(5));
        if followed && begun.elapsed() > seconds {
            return Ok(lags);
        }
        ensure!(begun.elapsed() < COPIED_WITHIN, "it does not catch up: {status}");
        poll::pause(LOOK);
    }
}

/// How long each step took, from the last time that one began.
pub fn acts(bed: &Bed, first: &str) -> Result<String> {
    let seen = bed.cli(&["--json", "watch"])?.success()?;
    let events: Vec<Value> = seen.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ms = |at: &Value| poll::ms(at).unwrap_or(0);
    let (mut began, mut out) = (std::collections::BTreeMap::new(), String::new());
    let since = events
        .iter()
        .rposition(|line| line["event"]["step"] == first && line["event"]["event"] == "step_started");
    for event in events[since.unwrap_or(0)..].iter().map(|line| &line["event"]) {
        let step = event["step"].as_str().unwrap_or_default().to_owned();
        if event["event"] == "step_started" {
            began.insert(step, ms(&event["at"]));
        } else if let (true, Some(from)) = (event["event"] == "step_done", began.get(&step)) {
            out += &format!(" {step} {}", ms(&event["at"]) - from);
        }
    }
    Ok(out)
}

fn last_note(bed: &Bed) -> Result<String> {
    let seen = bed.cli(&["watch"])?.text();
    let note = seen.lines().rev().find(|line| line.contains("called off")).unwrap_or("without a word");
    Ok(note.to_owned())
}

fn report(
    options: &Options,
    cutover: &Value,
    lags: &[u64],
    before: &Measured,
    during: &Measured,
    rate: f64,
    found: &Comparison,
) -> Result<Outcome> {
    let mut lags = lags.to_vec();
    lags.sort_unstable();
    let lag_p99 = lags.get((lags.len() * 99 / 100).min(lags.len().saturating_sub(1))).copied();
    let downtime = cutover["downtime_ms"].as_u64();
    let slowdown = 1.0 - (during.per_second / rate).min(1.0);
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    Ok(Outcome {
        ok: found.found == 0 && downtime.is_some_and(|ms| ms <= MAX_DOWNTIME_MS) && slowdown <= MAX_SLOWDOWN,
        figures: json!({
            "engine": options.engine,
            "rows": found.rows,
            "downtime_ms": downtime,
            "predicted_ms": cutover["predicted_ms"],
            "lag_p99_ms": lag_p99,
            "differences": found.found,
            "source_slowdown": round(slowdown),
            "writer_p99_ratio": round(during.p99_ms / before.p99_ms),
            "writer_per_second": round(rate),
            "writer_p99_ms": [round(before.p99_ms), round(during.p99_ms)],
        }),
    })
}
