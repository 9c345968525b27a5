//! The wizard's appliance under crashes of its hosts and cuts of their link, after every step of its plan.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use handover_tests::lab::wizard::{Appliance, Blow, Ended, Steps, TABLE};
use serde_json::json;

use super::{EVERYTHING, appliance};
use crate::scenario::{Options, Outcome};
use crate::shell::say;

/// Both hosts back up what they have, before and after.
const BACKUPS: &str = "\n[backups]\nbefore = [\"start\", \"accept\"]\nkeep = 2\n";

/// Strikes after every step, in every way: each migration ends migrated or undone, as if it had not been struck. So do those that are taken back.
pub fn crash(options: &Options) -> Result<Outcome> {
    let shop = appliance("wizard-crash", &format!("{TABLE}{BACKUPS}"))?;
    let steps = Steps::of(&shop.pair.plan(&EVERYTHING)?);
    let strikes = Strike::of(&steps, options.scale);
    let mut struck = Struck { shop: &shop, migrated: 0, undone: 0, flaws: Vec::new(), aborts: Vec::new() };
    // Any of the strikes may end before there is something to take back.
    let mut aborts = Blow::SHORT.to_vec();
    for migration in strikes.chunk_by(|one, other| one.is_early && other.is_early && one.round == other.round)
    {
        struck.migrated_or_undone(migration, &mut aborts)?;
    }
    let long = Strike { step: "configure", blow: Blow::LongCut, is_early: false, round: 0 };
    struck.migrated_or_undone(&[long], &mut aborts)?;
    struck.accepted(&steps.accepting)?;
    let seen: BTreeSet<&str> = strikes.iter().map(|strike| strike.step).collect();
    let all = steps.copying.iter().chain(&steps.cutover).map(String::as_str);
    let unstruck: Vec<&str> = all.filter(|step| !seen.contains(step)).collect();
    Ok(Outcome {
        ok: struck.flaws.is_empty() && !struck.aborts.is_empty(),
        figures: json!({
            "strikes": strikes.len() + 1 + struck.aborts.len() + steps.accepting.len(),
            "steps_struck": seen.len() + steps.accepting.len(),
            "steps_not_struck": unstruck,
            "aborts_struck": struck.aborts,
            "migrated": struck.migrated,
            "undone": struck.undone,
            "flaws": struck.flaws,
        }),
    })
}

/// A blow once a step is done.
#[derive(Debug, Clone, Copy)]
struct Strike<'a> {
    step: &'a str,
    blow: Blow,
    /// Before the cut-over: one migration takes all of a round.
    is_early: bool,
    round: usize,
}

impl<'a> Strike<'a> {
    /// A share of all of them. Each round strikes every step once: from a third on all steps are struck, less is spread over them.
    fn of(steps: &'a Steps, scale: f64) -> Vec<Self> {
        let each = || {
            let early = steps.copying.iter().map(|step| (step, true));
            early.chain(steps.cutover.iter().map(|step| (step, false))).enumerate()
        };
        let blows = Blow::SHORT;
        let round = |round: usize| {
            each().map(move |(at, (step, is_early))| Strike {
                step,
                blow: blows[(at + round) % blows.len()],
                is_early,
                round,
            })
        };
        let mut all: Vec<Self> = (0..blows.len()).flat_map(round).collect();
        let one = all.len() / blows.len();
        let wanted = ((all.len() as f64 * scale).round() as usize).max(1);
        if wanted < one {
            all.truncate(one);
            return all.into_iter().step_by(one.div_ceil(wanted)).collect();
        }
        all.truncate(wanted);
        all
    }
}

/// One appliance that is struck again and again, and what came of it.
struct Struck<'a> {
    shop: &'a Appliance,
    migrated: u32,
    undone: u32,
    flaws: Vec<String>,
    /// What struck while a migration was taken back.
    aborts: Vec<String>,
}

impl Struck<'_> {
    /// Moves it, is struck while it is copied or in the cut-over, and takes it back.
    fn migrated_or_undone(&mut self, strikes: &[Strike<'_>], aborts: &mut Vec<Blow>) -> Result<()> {
        let (shop, told) = (self.shop, told(strikes));
        let early: Vec<_> =
            strikes.iter().filter(|one| one.is_early).map(|one| (one.step, one.blow)).collect();
        shop.copied(&EVERYTHING, &early)?;
        let ended = match strikes.iter().find(|one| !one.is_early) {
            Some(strike) => shop.struck(strike.step, strike.blow)?,
            None => shop.cut_over()?,
        };
        say(format!("{told}: {ended:?}"));
        let home = match ended {
            Ended::Migrated => {
                self.migrated += 1;
                self.found(&told, [shop.flaws_at_target(true)?, shop.log_flaws()?, shop.table_flaws(true)?]);
                shop.pair.b()
            }
            Ended::Undone => {
                self.undone += 1;
                self.found(&told, [shop.flaws_at_source()?, shop.table_flaws(false)?]);
                shop.pair.a()
            }
        };
        let sold = shop.sales(home)?;
        match (ended == Ended::Migrated).then(|| aborts.pop()).flatten() {
            Some(blow) => {
                shop.abort_struck(blow)?;
                say(format!("{blow:?} while that was taken back: it is"));
                self.aborts.push(format!("{blow:?}"));
            }
            None => {
                shop.pair.cli(&["abort"])?.success()?;
                shop.rests_in("aborted")?;
            }
        }
        self.found(&format!("{told}, aborted"), [shop.flaws_at_source()?, shop.table_flaws(false)?]);
        if shop.sales(shop.pair.a())? < sold {
            self.flaws.push(format!("{told}: sales are lost"));
        }
        // What the abort has kept would fill the disk, strike by strike.
        shop.pair.cli(&["terminate", "--yes"])?.success().map(drop)
    }

    /// Moves it for good, and is struck when it is accepted.
    fn accepted(&mut self, steps: &[String]) -> Result<()> {
        let shop = self.shop;
        shop.copied(&EVERYTHING, &[])?;
        ensure!(shop.cut_over()? == Ended::Migrated, "nothing has struck the last cut-over");
        let blows = [Blow::Target, Blow::Source].into_iter().cycle();
        let strikes: Vec<_> = steps.iter().map(String::as_str).zip(blows).collect();
        shop.accepted(&strikes)?;
        shop.pair.cli(&["finalize"])?.success()?;
        shop.rests_in("finalized")?;
        say(format!("{strikes:?}: accepted"));
        self.found("accepted", [shop.flaws_swapped_for_good()?, shop.log_flaws()?, shop.table_flaws(true)?]);
        Ok(())
    }

    fn found<const KINDS: usize>(&mut self, told: &str, flaws: [Vec<String>; KINDS]) {
        self.flaws.extend(flaws.concat().into_iter().map(|flaw| format!("{told}: {flaw}")));
    }
}

fn told(strikes: &[Strike<'_>]) -> String {
    let each = strikes.iter().map(|strike| format!("{:?} after {}", strike.blow, strike.step));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_strikes_every_step_and_less_is_spread() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let steps = Steps {
            copying: names(&["prepare", "copy:shop"]),
            cutover: names(&["fence", "publish"]),
            accepting: Vec::new(),
        };
        let of = |scale| Strike::of(&steps, scale).iter().map(|strike| strike.step).collect::<Vec<_>>();
        assert_eq!(of(0.34), ["prepare", "copy:shop", "fence", "publish"]);
        assert_eq!(of(0.17), ["prepare", "fence"]);
        let all = Strike::of(&steps, 1.0);
        let ways: BTreeSet<_> =
            all.iter().map(|strike| (strike.step, format!("{:?}", strike.blow))).collect();
        assert_eq!((all.len(), ways.len()), (12, 12));
    }
}
