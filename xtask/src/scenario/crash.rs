//! Either agent is killed at random moments, again and again; what arrives is whole, and nothing is sent twice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handover_tests::appliance::{Appliance, Changed, Spec, TreeSpec, seeded};
use handover_tests::bed::{Bed, SERVED, appliance_datasets};
use handover_tests::compare::Comparison;
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use handover_tests::resent::{self, Applied, Round};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;

use super::{Options, Outcome};
use crate::shell::say;
use crate::workplace::{Workplace, remove};

/// How long a migration may take to settle once it is left alone.
const SETTLES_WITHIN: Duration = Duration::from_secs(600);

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    ensure!(options.engine == "sqlite", "engine `{}` cannot be moved yet; sqlite can", options.engine);
    let begun = Instant::now();
    let place = Workplace::fresh("scenario-crash")?;
    let binaries = Binaries::build(Profile::Release)?;
    let tree = TreeSpec {
        files: u32::try_from(options.scaled(6_000))?,
        bytes: options.scaled(1_200 << 20),
        large: options.scaled(300 << 20),
        oddities: true,
    };
    say(format!("making an appliance: {} rows, {} files", options.scaled(1_000_000), tree.files));
    let spec = Spec { seed: options.seed, rows: options.scaled(1_000_000), wal: true, tree };
    Appliance::make(&place.path().join("source/data"), &spec)?;
    let bed = Bed::at(place.path(), binaries, appliance_datasets(place.path()), SERVED)?;
    let mut run = Run::new(bed, options.seed);
    run.first_pass()?;
    for kill in 1..=options.kills {
        run.wait_for_a_moment()?;
        run.strike(kill, options.kills)?;
    }
    run.finish_round()?;
    run.outcome(options.kills, begun)
}

struct Run {
    bed: Bed,
    rng: StdRng,
    rounds: Vec<Round>,
    applied: Applied,
    found: Comparison,
}

impl Run {
    fn new(bed: Bed, seed: u64) -> Self {
        Self {
            bed,
            rng: seeded(seed, "crash"),
            rounds: Vec::new(),
            applied: Applied::default(),
            found: Comparison::default(),
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

    /// Kills one agent, or both, and starts again what was killed.
    fn strike(&mut self, kill: u32, kills: u32) -> Result<()> {
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
        poll::pause(Duration::from_millis(self.rng.random_range(0..150)));
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
        let found = self.bed.compare()?;
        say(format!("round {} is done: {}", self.rounds.len(), found.describe().trim_end()));
        self.found.join(found);
        Ok(())
    }

    /// By turns a pass over changed data, and a first pass of a new migration onto an empty target.
    fn next_round(&mut self) -> Result<()> {
        if self.rounds.len().is_multiple_of(2) {
            self.bed.target.kill()?;
            self.applied.absorb(self.bed.target.state())?;
            remove(&self.bed.root().join("target/data"))?;
            std::fs::create_dir_all(self.bed.copy().files)?;
            self.bed.target.restart_afresh()?;
            return self.first_pass();
        }
        let changed: Changed = self.bed.original().change(self.rng.random())?;
        say(format!("round {}: another pass, after changes", self.rounds.len() + 1));
        self.rounds.push(Round { begun_ms: poll::wall_ms(), changed: Some(changed) });
        self.bed.cli(&["sync"])?.success()?;
        Ok(())
    }

    fn outcome(mut self, kills: u32, begun: Instant) -> Result<Outcome> {
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
                "engine": "sqlite",
                "kills": kills,
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
