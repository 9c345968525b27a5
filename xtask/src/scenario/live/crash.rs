//! The same while agents and database servers are killed and the link between the agents is cut, before the cut-over and in it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use handover_tests::appliance::seeded;
use handover_tests::bed::Bed;
use handover_tests::compare::Comparison;
use handover_tests::link::Link;
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::{Options, Outcome};
use super::load::{Load, Running};
use super::{Data, make};
use crate::shell::say;
use crate::workplace::Workplace;

/// Strikes, unless the command line says otherwise; so many more cut the link.
const KILLS: u32 = 30;
const CUTS: u32 = 5;
/// One of so many strikes is at a database server, where there is one.
const SERVER_EVERY: u32 = 4;
/// How long the load runs to find out what the server can do.
const ALONE: Duration = Duration::from_secs(4);
/// The cut-over must be through so long after the last strike.
const ENDS_WITHIN: Duration = Duration::from_secs(600);

/// What can be struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    Agents,
    Server,
    Link,
}

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    let begun = Instant::now();
    let place = Workplace::fresh("scenario-live-crash")?;
    let binaries = Binaries::build(Profile::Release)?;
    let (data, load) = make(options, &place)?;
    let rate = load.measure(None, ALONE)?.per_second / 3.0;
    let mut bed = Bed::at(place.path(), binaries, vec![data.dataset()], "info")?;
    let link = bed.through_link()?;
    let running = load.start(rate)?;
    let rng = seeded(options.seed, "live-crash");
    let mut run =
        Run { bed, data, load, rate, running, link, rng, rounds: 0, cutovers: 0, during_cutover: 0 };
    run.begin()?;
    let strikes = strikes(options.kills.unwrap_or(KILLS), run.data.has_servers(), &mut run.rng);
    for (at, strike) in strikes.iter().enumerate() {
        // The second half meets cut-overs.
        run.pause(at * 2 > strikes.len())?;
        print!("{}/{}: ", at + 1, strikes.len());
        run.strike(*strike)?;
    }
    let found = run.end()?;
    let count = |wanted| strikes.iter().filter(|strike| **strike == wanted).count();
    Ok(Outcome {
        ok: found.found == 0,
        figures: json!({
            "engine": options.engine,
            "kills": count(Strike::Agents) + count(Strike::Server),
            "server_kills": count(Strike::Server),
            "link_cuts": count(Strike::Link),
            "rounds": run.rounds,
            "strikes_during_cutover": run.during_cutover,
            "cutovers_begun": run.cutovers,
            "differences": found.found,
            "rows": found.rows,
            "seconds": begun.elapsed().as_secs(),
        }),
    })
}

/// All strikes, in their order.
fn strikes(kills: u32, servers: bool, rng: &mut StdRng) -> Vec<Strike> {
    let kill = |at: u32| match servers && at.is_multiple_of(SERVER_EVERY) {
        true => Strike::Server,
        false => Strike::Agents,
    };
    let mut out: Vec<Strike> = (1..=kills).map(kill).collect();
    for _ in 0..CUTS {
        out.insert(rng.random_range(0..=out.len()), Strike::Link);
    }
    out
}

struct Run {
    bed: Bed,
    data: Data,
    load: Load,
    rate: f64,
    running: Running,
    link: Link,
    rng: StdRng,
    /// Migrations: one that was cut over is aborted, and all begins again.
    rounds: u32,
    cutovers: u32,
    during_cutover: u32,
}

impl Run {
    fn begin(&mut self) -> Result<()> {
        let digest = text(&self.bed.json(&["plan", "--follow"])?, "digest");
        let migration = text(&self.bed.json(&["start", &digest])?, "migration");
        self.rounds += 1;
        say(format!("moving it: {migration}"));
        Ok(())
    }

    /// Lets a random time pass, in which users go on writing; in a cut-over, where that is wanted.
    fn pause(&mut self, cut_over: bool) -> Result<()> {
        if cut_over {
            poll::until("a cut-over to begin", ENDS_WITHIN, || {
                self.keep_writing()?;
                if self.is_over() {
                    let found = self.data.compare()?;
                    ensure!(found.found == 0, "after a cut-over: {}", found.describe());
                    self.bed.cli(&["abort", "--watch"])?.success()?;
                    self.bed.cli(&["terminate", "--yes"])?.success()?;
                    self.begin()?;
                }
                Ok(self.cut_over()?.then_some(()))
            })?;
            // It takes a moment only: most of it is a wait for what runs at the source.
            poll::pause(Duration::from_millis(self.rng.random_range(0..400)));
            return Ok(());
        }
        let until = Instant::now() + Duration::from_millis(self.rng.random_range(100..2500));
        while Instant::now() < until {
            self.keep_writing()?;
            poll::pause(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Whether the target has taken over.
    fn is_over(&self) -> bool {
        self.status()
            .is_some_and(|status| status["phase"] == "trial" && status["activity"] == "following_back")
    }

    /// Users come back when their server does.
    fn keep_writing(&mut self) -> Result<()> {
        if self.running.has_ended()? {
            self.running = self.load.start(self.rate)?;
        }
        Ok(())
    }

    fn status(&self) -> Option<Value> {
        // An agent that is down cannot be asked.
        self.bed.json(&["status"]).ok()
    }

    /// Asks for the cut-over, if the copy is being followed; whether it was asked for.
    fn cut_over(&mut self) -> Result<bool> {
        let Some(status) = self.status() else { return Ok(false) };
        ensure!(status["condition"] != "failed", "the migration failed: {status}");
        let is_followed = status["activity"] == "following" && !status["following"]["app"].is_null();
        if !is_followed || self.bed.cli(&["cutover", "--max-downtime", "60"])?.success().is_err() {
            return Ok(false);
        }
        self.cutovers += 1;
        Ok(true)
    }

    fn strike(&mut self, strike: Strike) -> Result<()> {
        let in_cutover = self.status().is_some_and(|status| status["phase"] == "cutting_over");
        self.during_cutover += u32::from(in_cutover);
        let pause = Duration::from_millis(self.rng.random_range(0..300));
        match strike {
            Strike::Link => {
                println!("the link");
                self.link.cut();
                poll::pause(pause * 4);
                self.link.mend();
            }
            Strike::Server => {
                let name = self.data.strike(self.rng.random_bool(0.5), pause)?;
                println!("{name}'s database server");
            }
            Strike::Agents => {
                let victim = self.rng.random_range(0..10);
                let (source, target) = (victim < 5 || victim == 9, victim >= 5);
                let names = ["", "the target", "the source", "both agents"];
                println!("{}", names[usize::from(source) * 2 + usize::from(target)]);
                for (agent, struck) in [(&mut self.bed.target, target), (&mut self.bed.source, source)] {
                    if struck {
                        agent.kill()?;
                    }
                }
                poll::pause(pause);
                for (agent, struck) in [(&mut self.bed.source, source), (&mut self.bed.target, target)] {
                    if struck {
                        agent.restart()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Cuts over, and sees that nobody writes at the source any more and nothing differs.
    fn end(&mut self) -> Result<Comparison> {
        say("no more strikes");
        poll::until("the target to take over", ENDS_WITHIN, || {
            self.keep_writing()?;
            Ok((self.is_over() || (self.cut_over()? && self.is_over())).then_some(()))
        })?;
        self.keep_writing()?;
        self.running.ended_refused()?;
        let found = self.data.compare()?;
        println!("{}", found.describe());
        Ok(found)
    }
}

fn text(document: &Value, key: &str) -> String {
    document[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fourth_kill_is_a_server_s_where_there_is_one() {
        let count = |strikes: &[Strike], wanted| strikes.iter().filter(|strike| **strike == wanted).count();
        let all = strikes(30, true, &mut seeded(1, "x"));
        assert_eq!((all.len(), count(&all, Strike::Server), count(&all, Strike::Link)), (35, 7, 5));
        assert_eq!(count(&strikes(30, false, &mut seeded(1, "x")), Strike::Server), 0);
    }
}
