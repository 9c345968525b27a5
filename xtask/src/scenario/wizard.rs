//! A whole appliance moved by the wizard's sequence, on two hosts of a lab: services, settings with a reboot, certificates, licence, logs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use handover_tests::lab::wizard::{Appliance, Blow, Ended, LIMIT, STEPS};
use serde_json::{Value, json};

use super::{Options, Outcome};
use crate::packages;
use crate::shell::{cargo, run_visibly, say};

/// What the wizard does, in its order, and by which steps of a plan.
const OPERATIONS: [(&str, &[&str]); 11] = [
    ("copy the system settings", &["stage"]),
    ("put the source into maintenance", &["maintain", "fence"]),
    ("deactivate the replica", &[]),
    ("copy the data", &["copy:shop", "copy:www", "catch-up:shop", "catch-up:www", "finish:shop", "publish"]),
    ("modify the source's configuration", &["configure"]),
    ("reboot both systems", &["reboot"]),
    ("activate the replica", &[]),
    ("update the certificates", &["certify"]),
    ("restart the services", &["label", "serve"]),
    ("copy the traffic files", &["copy:traffic", "catch-up:traffic"]),
    ("final operations", &["licence", "settle:shop"]),
];
/// Rolling back takes a reboot, and booting again, over the limit.
const REBOOTS: Duration = Duration::from_secs(30);
/// How long a cut-over may take whose confirmation is lost.
const UNHEARD: Duration = Duration::from_secs(60);
/// For so much longer the source stays in maintenance.
const GRACE: Duration = Duration::from_secs(30);

/// Two hosts with the appliance, and these sections more in their manifests; the packages are made of what is built now.
pub(super) fn appliance(name: &str, more: &str) -> Result<Appliance> {
    packages::install(packages::LAB)?;
    run_visibly(&mut cargo(&["build", "--quiet", "--workspace", "--bins"]))?;
    Appliance::up(name, more)
}

/// Moves it, and looks at both hosts.
pub fn run(_: &Options) -> Result<Outcome> {
    let shop = appliance("wizard", "")?;
    let plan = shop.follow(&["--licence", "--swap"])?;
    say("cutting over, with a swap of settings and a reboot");
    shop.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
    let status = shop.rests_in("trial")?;
    let flaws = shop.flaws_at_target(true)?;
    let took = Took::of(&shop)?;
    let operations = took.operations(&Expected::of(&plan));
    let differences = shop.differences()?;
    let every_one = operations.iter().all(|one| one["ms"].is_u64() || one["steps"] == json!([]));
    let cutover = &status["cutover"];
    // Users were without the appliance from the one to the other: the report must not say less.
    let seen = took.between("maintain", "serve");
    let reported = shop.pair.json(&["report"])?["downtime_ms"].as_i64();
    let is_told = reported.zip(seen).is_some_and(|(reported, seen)| reported >= seen);
    Ok(Outcome {
        ok: flaws.is_empty() && differences == 0 && every_one && is_told,
        figures: json!({
            "operations": operations,
            "flaws": flaws,
            "differences": differences,
            "predicted_ms": cutover["predicted_ms"],
            "downtime_ms": seen,
            "reported_downtime_ms": reported,
        }),
    })
}

/// Strikes after every step, in every way: each cut-over ends migrated or undone, as if it had not been struck.
pub fn crash(options: &Options) -> Result<Outcome> {
    let shop = appliance("wizard-crash", "")?;
    let (mut migrated, mut undone, mut flaws) = (0, 0, Vec::new());
    let strikes: Vec<_> = STEPS.iter().flat_map(|step| Blow::ALL.map(|blow| (*step, blow))).collect();
    // A share of them is spread over all steps.
    let every = (1.0 / options.scale.clamp(0.02, 1.0)).round() as usize;
    let strikes: Vec<_> = strikes.iter().step_by(every).collect();
    for (step, blow) in &strikes {
        shop.follow(&["--licence", "--swap"])?;
        let ended = shop.struck(step, *blow)?;
        say(format!("{blow:?} struck after {step}: {ended:?}"));
        let found = match ended {
            Ended::Migrated => {
                migrated += 1;
                shop.flaws_at_target(true)?
            }
            Ended::Undone => {
                undone += 1;
                shop.flaws_at_source()?
            }
        };
        flaws.extend(found.into_iter().map(|flaw| format!("{blow:?} after {step}: {flaw}")));
        let sold = shop.sales(if ended == Ended::Migrated { shop.pair.b() } else { shop.pair.a() })?;
        shop.pair.cli(&["abort"])?.success()?;
        shop.rests_in("aborted")?;
        let home = shop.flaws_at_source()?;
        flaws.extend(home.into_iter().map(|flaw| format!("{blow:?} after {step}, aborted: {flaw}")));
        if shop.sales(shop.pair.a())? < sold {
            flaws.push(format!("{blow:?} after {step}: sales are lost"));
        }
        // What the abort has kept would fill the disk, strike by strike.
        shop.pair.cli(&["terminate", "--yes"])?.success()?;
    }
    Ok(Outcome {
        ok: flaws.is_empty(),
        figures: json!({ "strikes": strikes.len(), "migrated": migrated, "undone": undone, "flaws": flaws }),
    })
}

/// Swaps that cut the hosts off from each other undo themselves on both: nobody has confirmed them, or one host has not heard of it.
pub fn dead_man(_: &Options) -> Result<Outcome> {
    let shop = appliance("dead-man", "")?;
    // What the source has confirmed it keeps until its maintenance has lasted too long.
    let lease = UNHEARD.saturating_add(GRACE);
    let mut ways = vec![way(&shop, "confirmation", lease, || shop.cut_off_unheard(UNHEARD))?];
    let by_hand = by_hand(&shop)?;
    shop.forget_swapped_address()?;
    ways.push(way(&shop, "address", LIMIT, || shop.cut_off(false))?);
    ways.push(way(&shop, "link", LIMIT, || shop.cut_off(true))?);
    let flaws: Vec<_> = ways.iter().flat_map(|way| way.flaws.clone()).chain(by_hand).collect();
    let in_time = ways.iter().all(|way| way.took <= way.within);
    let ms = |of: fn(&Way) -> Duration| -> BTreeMap<_, _> {
        ways.iter().map(|way| (way.name, of(way).as_millis() as u64)).collect()
    };
    Ok(Outcome {
        ok: flaws.is_empty() && in_time,
        figures: json!({
            "limit_ms": LIMIT.as_millis() as u64,
            "within_ms": ms(|way| way.within),
            "back_after_ms": ms(|way| way.took),
            "flaws": flaws,
        }),
    })
}

/// An abort of which the target has not heard in time: its operator takes the swap back by hand. What is not as it was before.
fn by_hand(shop: &Appliance) -> Result<Vec<String>> {
    shop.follow(&["--swap"])?;
    shop.abort_unheard()?;
    shop.rests_in("aborted")?;
    say("taken back by hand: the abort went on by itself");
    Ok(shop.flaws_at_source()?.into_iter().map(|flaw| format!("by hand: {flaw}")).collect())
}

/// A way of being cut off from each other, and the end of it.
struct Way {
    name: &'static str,
    /// Until both hosts were what they were before.
    took: Duration,
    /// How long that may take.
    within: Duration,
    flaws: Vec<String>,
}

/// Swaps, and is cut off; the timer that counts runs for so long.
fn way(
    shop: &Appliance,
    name: &'static str,
    timer: Duration,
    cut_off: impl FnOnce() -> Result<Duration>,
) -> Result<Way> {
    shop.follow(&["--swap"])?;
    let took = cut_off()?;
    say(format!("cut off ({name}): both hosts were as before after {:.1} s", took.as_secs_f64()));
    shop.rests_in("following")?;
    let flaws = shop.flaws_at_source()?.into_iter().map(|flaw| format!("{name}: {flaw}")).collect();
    shop.pair.cli(&["abort"])?.success()?;
    shop.rests_in("aborted")?;
    Ok(Way { name, took, within: timer + REBOOTS, flaws })
}

/// What a plan expects its steps to take, in milliseconds.
struct Expected(BTreeMap<String, u64>);

impl Expected {
    fn of(plan: &Value) -> Self {
        let steps = plan["plan"]["steps"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let expected = steps.iter().map(|step| {
            let kind = &step["step"];
            let name = kind["do"].as_str().unwrap_or_default().replace('_', "-");
            let id =
                kind["dataset"].as_str().map_or_else(|| name.clone(), |dataset| format!("{name}:{dataset}"));
            (id, step["expected_ms"].as_u64().unwrap_or(0))
        });
        Self(expected.collect())
    }

    fn sum(&self, steps: &[&str]) -> u64 {
        steps.iter().filter_map(|step| self.0.get(*step)).sum()
    }
}

/// When the steps of the last migration began, and when they were done, in milliseconds.
struct Took(BTreeMap<String, (i64, i64)>);

impl Took {
    fn of(shop: &Appliance) -> Result<Self> {
        let seen = shop.pair.cli(&["--json", "watch"])?.success()?;
        let events: Vec<Value> =
            seen.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let (mut since, mut took) = (BTreeMap::new(), BTreeMap::new());
        for event in events.iter().map(|line| &line["event"]) {
            let at = &event["at"];
            let ms =
                at["seconds"].as_i64().unwrap_or(0) * 1000 + at["nanos"].as_i64().unwrap_or(0) / 1_000_000;
            let step = event["step"].as_str().unwrap_or_default().to_owned();
            if event["event"] == "step_started" {
                since.entry(step).or_insert(ms);
            } else if let (true, Some(from)) = (event["event"] == "step_done", since.get(&step)) {
                took.insert(step, (*from, ms));
            }
        }
        Ok(Self(took))
    }

    /// From the beginning of one step to the end of another.
    fn between(&self, first: &str, last: &str) -> Option<i64> {
        Some(self.0.get(last)?.1 - self.0.get(first)?.0)
    }

    /// One entry for each operation of the wizard, with the time its steps took, and what the plan had expected.
    fn operations(&self, expected: &Expected) -> Vec<Value> {
        let operation = |(at, (title, steps)): (usize, &(&str, &[&str]))| {
            let ms = steps.iter().map(|step| self.between(step, step)).sum::<Option<i64>>();
            let (ms, expected_ms) =
                if steps.is_empty() { (None, None) } else { (ms, Some(expected.sum(steps))) };
            json!({ "operation": at + 1, "title": title, "steps": steps, "ms": ms, "expected_ms": expected_ms })
        };
        OPERATIONS.iter().enumerate().map(operation).collect()
    }
}
