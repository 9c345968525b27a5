//! Backups of both hosts: a migration's own, and those that an operator asks for.

use std::fs;
use std::path::Path;

use handover_tests::appliance::{Appliance, Spec};
use handover_tests::bed::{Bed, Output};
use handover_tests::{compare, poll};
use serde_json::Value;

use super::SETTLES_WITHIN;

/// A bed whose hosts are backed up before a migration starts and when it is accepted.
fn bed(seed: u64, keep: u32) -> Bed {
    let mut bed = Bed::temporary(&Spec::small(seed)).unwrap();
    for side in ["source", "target"] {
        let file = bed.root().join(side).join("appliance.toml");
        let text = fs::read_to_string(&file).unwrap()
            + &format!("\n[backups]\nbefore = ['start', 'accept']\nkeep = {keep}\n");
        fs::write(&file, text).unwrap();
    }
    bed.source.restart().unwrap();
    bed.target.restart().unwrap();
    bed
}

fn reach(bed: &Bed, phase: &str, activity: &str) {
    poll::until(&format!("{phase}, {activity}"), SETTLES_WITHIN, || {
        let status = bed.json(&["status"])?;
        assert_eq!(status["condition"], "good", "{status}");
        Ok((status["phase"] == phase && status["activity"] == activity).then_some(()))
    })
    .unwrap();
}

fn ids(shelf: &Value) -> Vec<&str> {
    shelf["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap()).collect()
}

#[track_caller]
fn refused(bed: &Bed, arguments: &[&str], why: &str) {
    let output = bed.cli(arguments).unwrap();
    assert!(output.code == Some(5) && output.text().contains(why), "{}", output.text());
}

#[track_caller]
fn same(left: &Appliance, right: &Appliance) {
    let mut found = compare::databases(&left.database, &right.database).unwrap();
    found.join(compare::trees(&left.files, &right.files).unwrap());
    assert!(found.found == 0 && found.rows > 1000, "{}", found.describe());
}

#[test]
fn a_migration_backs_both_hosts_up_and_each_can_be_restored() {
    let bed = bed(210, 9);
    let before = Appliance::make(&bed.root().join("before"), &Spec::small(210)).unwrap();
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    let steps: Vec<&str> = plan["plan"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|step| step["step"]["do"].as_str())
        .collect();
    assert_eq!(
        (&steps[..3], &steps[steps.len() - 2..]),
        (&["back_up", "back_up", "prepare"][..], &["back_up_again", "back_up_again"][..])
    );
    let started = bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    let id = started["migration"].as_str().unwrap().to_owned();
    reach(&bed, "following", "following");
    let (start, accept) = (format!("{id}-start"), format!("{id}-accept"));
    let listed = bed.json(&["backups"]).unwrap();
    assert_eq!(
        (ids(&listed["source"]), ids(&listed["target"])),
        (vec![start.as_str()], vec![start.as_str()])
    );
    // Nothing is put back beneath a migration.
    refused(&bed, &["restore", &start, "--host", "source"], "it reads and follows both hosts");
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    bed.cli(&["accept", "--watch"]).unwrap().success().unwrap();
    let report = bed.json(&["report"]).unwrap();
    let made: Vec<String> = report["outcome"]["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|made| format!("{} {}", made["host"].as_str().unwrap(), made["id"].as_str().unwrap()))
        .collect();
    assert_eq!(made.len(), 4, "{made:?}");
    assert!(
        made.contains(&format!("source {accept}")) && made.contains(&format!("target {accept}")),
        "{made:?}"
    );
    let text = bed.cli(&["report"]).unwrap().success().unwrap().text();
    assert!(text.contains(&format!("backup of the source: {accept} (app, files, ")), "{text}");
    bed.cli(&["finalize", "--watch"]).unwrap().success().unwrap();
    let verified = bed.json(&["backups", "--verify"]).unwrap();
    assert_eq!(verified["verified"].as_array().unwrap().len(), 4, "{verified}");

    // The source is what it was before all that, and the target what it had become.
    let copied = Appliance::make(&bed.root().join("copied"), &Spec::small(210)).unwrap();
    refused(&bed, &["restore", &start], "both hosts have one of this name");
    let restored = bed.json(&["restore", &start, "--host", "source"]).unwrap();
    assert!(
        restored["restored"][0]["before"].as_str().unwrap().contains(&format!("app.db.before-{start}")),
        "{restored}"
    );
    same(&before, &bed.original());
    bed.copy().change(5).unwrap();
    bed.cli(&["restore", &accept, "--host", "target"]).unwrap().success().unwrap();
    same(&copied, &bed.copy());
    refused(&bed, &["restore", "nothing"], "there is none of this name");
    // Who asked for them, and how they ended, is in the log.
    let ended = format!(
        "(restore backup {accept} at the target, asked for by spiffe://demo.example/handover/operator/"
    );
    let text = poll::until("the end of the restore", SETTLES_WITHIN, || {
        let text = bed.cli(&["audit"])?.success()?.text();
        Ok(text.contains(&ended).then_some(text))
    })
    .unwrap();
    assert!(
        text.contains("put back app, before now ") && text.contains(&format!("app.db.before-{accept}")),
        "{text}"
    );
    bed.cli(&["audit", "--verify"]).unwrap().success().unwrap();
}

#[test]
fn what_a_migration_that_runs_was_backed_up_for_stays() {
    let bed = bed(212, 1);
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    let started = bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    let start = format!("{}-start", started["migration"].as_str().unwrap());
    reach(&bed, "following", "following");
    let back_up = |name: &str| {
        for host in ["source", "target"] {
            bed.cli(&["backup", "--host", host, "--name", name, "--dataset", "files"])
                .unwrap()
                .success()
                .unwrap();
        }
        let listed = bed.json(&["backups"]).unwrap();
        assert_eq!(ids(&listed["source"]), ids(&listed["target"]));
        ids(&listed["source"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    back_up("b-1");
    assert_eq!(back_up("b-2"), [start.as_str(), "b-2"]);
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(back_up("b-3"), ["b-3"]);
}

#[test]
fn operators_back_up_and_watchers_look() {
    let bed = bed(211, 9);
    let made = bed.json(&["backup", "--name", "b-1", "--dataset", "files"]).unwrap();
    assert_eq!(made["backup"]["datasets"].as_array().unwrap().len(), 1);
    let whole = bed.json(&["backup"]).unwrap();
    assert_eq!(whole["backup"]["datasets"].as_array().unwrap().len(), 2);
    refused(&bed, &["backup", "--dataset", "nothing"], "manifest does not name it");
    refused(&bed, &["backups", "--verify", "nothing"], "there is none of this name");
    let as_watcher =
        |arguments: &[&str]| Output::of(bed.command_as(&bed.identity("watcher")).args(arguments)).unwrap();
    let listed = as_watcher(&["backups"]).success().unwrap().text();
    assert!(listed.contains("b-1") && listed.contains("target: no backups"), "{listed}");
    for forbidden in [&["backup"][..], &["restore", "b-1"], &["backups", "--verify"]] {
        assert_eq!(as_watcher(forbidden).code, Some(5), "{forbidden:?}");
    }
    let audit = bed.cli(&["audit"]).unwrap().success().unwrap().text();
    assert!(audit.contains("asks: back up files as b-1 at the source"), "{audit}");
    // What has been changed on disk is found.
    let file = bed.root().join("source/state/backups/b-1/files.tar.zst");
    assert!(Path::new(&file).exists(), "{}", file.display());
    fs::write(&file, "something else").unwrap();
    refused(&bed, &["backups", "--verify", "b-1"], "is not what was written");
    refused(&bed, &["restore", "b-1"], "is not what was written");
    poll::until("the end of the restore", SETTLES_WITHIN, || {
        let text = bed.cli(&["audit"])?.success()?.text();
        let not_done =
            |line: &str| line.contains("has not done what") && line.contains("is not what was written");
        Ok(text.lines().any(not_done).then_some(()))
    })
    .unwrap();
    let before = Appliance::make(&bed.root().join("before"), &Spec::small(211)).unwrap();
    same(&before, &bed.original());
}
