//! Agents and database servers are killed at random moments, again and again; what arrives is whole, and nothing is sent twice.

mod appliance;
mod servers;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handover_tests::appliance::{Changed, seeded};
use handover_tests::bed::Bed;
use handover_tests::compare::Comparison;
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use handover_tests::resent::{self, Applied, Round};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;

use super::{Options, Outcome};
use crate::shell::say;
use crate::workplace::Workplace;

/// Kills, unless the command line says otherwise.
const KILLS: u32 = 50;
/// How long a migration may take to settle once it is left alone.
const SETTLES_WITHIN: Duration = Duration::from_secs(600);
/// Where servers can be killed, every so many kills is one of theirs.
const SERVER_EVERY: u32 = 4;

/// What is moved.
trait Data {
    /// Compares both sides between two passes, independently of the product.
    fn compare(&self, bed: &Bed) -> Result<Comparison>;
    /// Changes something at the source.
    fn change(&mut self, bed: &Bed, seed: u64) -> Result<Changed>;
    /// Takes everything away at the target, whose agent does not run.
    fn empty_target(&mut self, bed: &Bed) -> Result<()>;
    /// Kills a server of its own and starts it again `pause` later; its name. `None` when there is none.
    fn strike(&mut self, rng: &mut StdRng, pause: Duration) -> Result<Option<&'static str>>;
}

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    let begun = Instant::now();
    let place = Workplace::fresh("scenario-crash")?;
    let binaries = Binaries::build(Profile::Release)?;
    let (bed, data) = match options.engine.as_str() {
        "sqlite" => appliance::make(options, place.path(), binaries)?,
        _ => servers::make(options, place.path(), binaries)?,
    };
    let mut run = Run::new(bed, data, options.seed);
    run.first_pass()?;
    let kills = options.kills.unwrap_or(KILLS);
    for kill in 1..=kills {
        run.wait_for_a_moment()?;
        run.strike(kill, kills)?;
    }
    run.finish_round()?;
    run.outcome(options, kills, begun)
}

struct Run {
    bed: Bed,
    data: Box<dyn Data>,
    rng: StdRng,
    rounds: Vec<Round>,
    applied: Applied,
    found: Comparison,
    server_kills: u32,
}

impl Run {
    fn new(bed: Bed, data: Box<dyn Data>, seed: u64) -> Self {
        Self {
            bed,
            data,
            rng: seeded(seed, "crash"),
            rounds: Vec::new(),
            applied: Applied::default(),
            found: Comparison::default(),
            server_kills: 0,
        }
    }

    fn first_pass(&mut self) -> Result<()> {
        self.rounds.push(Round { begun_ms: poll::wall_ms(), changed: None });
        let migration = self.bed.start()?;
        say(format!("round {}: a first pass, {migration}", self.rounds.len()));
        Ok(())
    }

    /// Lets a random time pass; a migration that settled meanwhile gets new work first.
    fn wait_for_a_moment(&mut self) -> Result<()> {
        let wait = Duration::from_millis(self.rng.random_range(20..600));
        let until = Instant::now() + wait;
        loop {
            let settled = self.bed.status().map(|status| status.is_settled()).unwrap_or(false);
            if settled {
                self.finish_round()?;
                self.next_round()?;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() && !settled {
                return Ok(());
            }
            // A short pass is struck soon after it began.
            poll::pause(left.min(Duration::from_millis(if settled {
                self.rng.random_range(0..80)
            } else {
                50
            })));
            if settled {
                return Ok(());
            }
        }
    }

    /// Kills one agent, or both, or a database server, and starts again what was killed.
    fn strike(&mut self, kill: u32, kills: u32) -> Result<()> {
        let pause = Duration::from_millis(self.rng.random_range(0..150));
        if kill.is_multiple_of(SERVER_EVERY)
            && let Some(name) = self.data.strike(&mut self.rng, pause)?
        {
            println!("kill {kill}/{kills}: {name}");
            self.server_kills += 1;
            return Ok(());
        }
        let victim = self.rng.random_range(0..10);
        let (source, target) = (victim < 5 || victim == 9, victim >= 5);
        let names = ["", "target", "source", "both agents"][usize::from(source) * 2 + usize::from(target)];
        println!("kill {kill}/{kills}: {names}");
        if target {
            self.bed.target.kill()?;
        }
        if source {
            self.bed.source.kill()?;
        }
        if target {
            self.applied.absorb(self.bed.target.state())?;
        }
        poll::pause(pause);
        if source {
            self.bed.source.restart()?;
        }
        if target {
            self.bed.target.restart()?;
        }
        Ok(())
    }

    /// Lets the pass end and compares what arrived.
    fn finish_round(&mut self) -> Result<()> {
        self.bed.settle(SETTLES_WITHIN)?;
        let found = self.data.compare(&self.bed)?;
        say(format!("round {} is done: {}", self.rounds.len(), found.describe().trim_end()));
        self.found.join(found);
        Ok(())
    }

    /// By turns a pass over changed data, and a first pass of a new migration onto an empty target.
    fn next_round(&mut self) -> Result<()> {
        if self.rounds.len().is_multiple_of(2) {
            self.bed.target.kill()?;
            self.applied.absorb(self.bed.target.state())?;
            self.data.empty_target(&self.bed)?;
            self.bed.target.restart_afresh()?;
            return self.first_pass();
        }
        let changed = self.data.change(&self.bed, self.rng.random())?;
        say(format!("round {}: another pass, after changes", self.rounds.len() + 1));
        self.rounds.push(Round { begun_ms: poll::wall_ms(), changed: Some(changed) });
        self.bed.cli(&["sync"])?.success()?;
        Ok(())
    }

    fn outcome(mut self, options: &Options, kills: u32, begun: Instant) -> Result<Outcome> {
        let own = self.bed.json(&["report"])?["totals"]["chunks_resent"].as_u64();
        self.bed.target.kill()?;
        self.applied.absorb(self.bed.target.state())?;
        let served = resent::served(self.bed.source.log())?;
        ensure!(
            !served.is_empty(),
            "the source's log names no served chunk: nothing can be said about resent ones"
        );
        ensure!(!self.applied.is_empty(), "the target's journal holds no applied chunk");
        let again = resent::resent(&self.rounds, &served, &self.applied);
        for chunk in again.iter().take(20) {
            println!("sent again: {chunk}");
        }
        let own = own.context("the report does not say how many chunks were sent again")?;
        Ok(Outcome {
            ok: self.found.found == 0 && again.is_empty() && own == 0,
            figures: json!({
                "engine": options.engine,
                "kills": kills,
                "server_kills": self.server_kills,
                "rounds": self.rounds.len(),
                "differences": self.found.found,
                "resent_chunks": again.len(),
                "resent_chunks_reported": own,
                "served_chunks": served.len(),
                "applied_chunks": self.applied.len(),
                "rows_compared": self.found.rows,
                "files_compared": self.found.files,
                "seconds": begun.elapsed().as_secs(),
            }),
        })
    }
}
