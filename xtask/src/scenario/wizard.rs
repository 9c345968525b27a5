//! A whole appliance moved by the wizard's sequence, on two hosts of a lab: services, settings with a reboot, certificates, licence, logs.

mod dead_man;
mod strikes;

use std::collections::BTreeMap;

use anyhow::Result;
use handover_tests::lab::Pair;
use handover_tests::lab::wizard::{Appliance, TABLE, step_id};
use handover_tests::poll::ms;
use serde_json::{Value, json};

use super::{Options, Outcome};
use crate::packages;
use crate::shell::{cargo, run_visibly, say};

pub use dead_man::dead_man;
pub use strikes::crash;

/// One of the wizard's operations: its number, its title, the steps of a plan that it is.
pub(super) type Operation = (u8, &'static str, &'static [&'static str]);
/// What the wizard does, in its order, and by which steps of a plan.
const OPERATIONS: [Operation; 11] = [
    (1, "copy the system settings", &["stage"]),
    (2, "put the source into maintenance", &["maintain", "fence"]),
    (3, "deactivate the replica", &[]),
    (
        4,
        "copy the data",
        &["copy:shop", "copy:www", "catch-up:shop", "catch-up:www", "finish:shop", "publish"],
    ),
    (5, "modify the source's configuration", &["configure"]),
    (6, "reboot both systems", &["reboot"]),
    (7, "activate the replica", &[]),
    (8, "update the certificates", &["certify"]),
    (9, "restart the services", &["label", "serve"]),
    (10, "copy the traffic files", &["copy:traffic", "catch-up:traffic"]),
    (11, "final operations", &["licence", "settle:shop"]),
];
/// All that is moved: the database with a table of settings stays.
const EVERYTHING: [&str; 8] =
    ["--licence", "--swap", "--dataset", "shop", "--dataset", "www", "--dataset", "traffic"];
/// What it changes beside the data, at which host, and what has to be known of it.
const CHANGES: [(&str, &str, &str); 9] = [
    ("settings address", "source", "file"),
    ("settings address", "target", "file"),
    ("settings shop", "source", "file"),
    ("settings shop", "target", "file"),
    ("service shop-web.service", "source", ""),
    ("service shop-web.service", "target", ""),
    ("certificate www", "target", "fingerprint"),
    ("licence", "source", "guid"),
    ("licence", "target", "guid"),
];

/// Two hosts with the appliance, and these sections more in their manifests; the packages are made of what is built now.
pub(super) fn appliance(name: &str, more: &str) -> Result<Appliance> {
    packages::install(packages::LAB)?;
    run_visibly(&mut cargo(&["build", "--quiet", "--workspace", "--bins"]))?;
    Appliance::up(name, more)
}

/// Moves it, and looks at both hosts.
pub fn run(_: &Options) -> Result<Outcome> {
    let shop = appliance("wizard", TABLE)?;
    let plan = shop.follow(&EVERYTHING)?;
    shop.rotate_logs()?;
    say("cutting over, with a swap of settings and a reboot");
    shop.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
    let status = shop.rests_in("trial")?;
    let flaws = [shop.flaws_at_target(true)?, shop.table_flaws(true)?].concat();
    let took = Took::of(&shop.pair)?;
    let operations = took.operations(&Expected::of(&plan), &OPERATIONS);
    let differences = shop.differences()?;
    let every_one = operations.iter().all(|one| one["ms"].is_u64() || one["steps"] == json!([]));
    let cutover = &status["cutover"];
    // Users were without the appliance from the one to the other: the report must not say less.
    let seen = took.between("maintain", "serve");
    let report = shop.pair.json(&["report"])?;
    let reported = report["downtime_ms"].as_i64();
    let untold = untold(&report, &plan);
    let is_told = reported.zip(seen).is_some_and(|(reported, seen)| reported >= seen);
    Ok(Outcome {
        ok: flaws.is_empty() && differences.is_empty() && every_one && is_told && untold.is_empty(),
        figures: json!({
            "operations": operations,
            "flaws": flaws,
            "differences": differences.len(),
            "differing": differences,
            "predicted_ms": cutover["predicted_ms"],
            "downtime_ms": seen,
            "reported_downtime_ms": reported,
            "untold": untold,
        }),
    })
}

/// What a plan expects its steps to take, in milliseconds.
pub(super) struct Expected(BTreeMap<String, u64>);

impl Expected {
    pub(super) fn of(plan: &Value) -> Self {
        let steps = plan["plan"]["steps"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let expected =
            steps.iter().map(|step| (step_id(&step["step"]), step["expected_ms"].as_u64().unwrap_or(0)));
        Self(expected.collect())
    }

    fn sum(&self, steps: &[&str]) -> u64 {
        steps.iter().filter_map(|step| self.0.get(*step)).sum()
    }
}

/// What the report has to tell and does not: when each step of the plan was worked on, and what was changed by it.
fn untold(report: &Value, plan: &Value) -> Vec<String> {
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let (operations, changed) = (list("operations"), list("changed"));
    let has_times = |step: &str| {
        let told = operations.iter().find(|one| one["step"] == step);
        let times = told.map(|one| (ms(&one["from"]), ms(&one["to"])));
        matches!(times, Some((Some(from), Some(to))) if from <= to)
    };
    let steps = Expected::of(plan).0.into_keys().filter(|step| !has_times(step));
    let is_named = |(item, host, fact): &(&str, &str, &str)| {
        let is_it = |one: &Value| one["item"] == *item && one["host"] == *host;
        let known = changed.iter().find(|one| is_it(one) && one["undone_at"].is_null());
        known.is_some_and(|one| {
            fact.is_empty() || one["facts"][fact].as_str().is_some_and(|fact| !fact.is_empty())
        })
    };
    let changes = CHANGES.iter().filter(|change| !is_named(change));
    steps.chain(changes.map(|(item, host, _)| format!("{item} at the {host}"))).collect()
}

/// When the steps of the last migration began, and when they were done, in milliseconds.
pub(super) struct Took(BTreeMap<String, (i64, i64)>);

impl Took {
    pub(super) fn of(pair: &Pair) -> Result<Self> {
        let seen = pair.cli(&["--json", "watch"])?.success()?;
        let events: Vec<Value> =
            seen.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let (mut since, mut took) = (BTreeMap::new(), BTreeMap::new());
        for event in events.iter().map(|line| &line["event"]) {
            let ms = ms(&event["at"]).unwrap_or(0);
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
    pub(super) fn operations(&self, expected: &Expected, operations: &[Operation]) -> Vec<Value> {
        let operation = |(number, title, steps): &Operation| {
            let ms = steps.iter().map(|step| self.between(step, step)).sum::<Option<i64>>();
            let (ms, expected_ms) =
                if steps.is_empty() { (None, None) } else { (ms, Some(expected.sum(steps))) };
            json!({ "operation": number, "title": title, "steps": steps, "ms": ms, "expected_ms": expected_ms })
        };
        operations.iter().map(operation).collect()
    }
}
