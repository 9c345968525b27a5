//! What a report tells of a migration: its steps with their times, what it has changed beside the data, what it has not moved.

use std::fs;
use std::path::PathBuf;

use handover_tests::bed::{Bed, Dataset};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll::ms;
use rusqlite::Connection;
use serde_json::Value;

/// A database, logs, a settings file and a label, on two hosts.
struct Shop {
    bed: Bed,
    root: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |side: &str, name: &str| root.path().join(side).join(name);
        let database = Dataset::Database {
            name: "app".into(),
            source: at("source", "app.db"),
            target: at("target", "app.db"),
        };
        let logs = Dataset::Logs {
            name: "traffic".into(),
            source: at("source", "logs"),
            target: at("target", "logs"),
        };
        let binaries = Binaries::find(Profile::Same).unwrap();
        let mut bed = Bed::at(root.path(), binaries, vec![database, logs], "info").unwrap();
        let sale = "CREATE TABLE sale (id INTEGER PRIMARY KEY, item TEXT); INSERT INTO sale (item) VALUES ('a'), ('b')";
        Connection::open(at("source", "app.db")).unwrap().execute_batch(sale).unwrap();
        fs::write(at("source", "logs/traffic.log"), "sold\n").unwrap();
        for side in ["source", "target"] {
            fs::write(at(side, "shop.conf"), format!("title = {side}\n")).unwrap();
            let sections = format!(
                "\n[[settings]]\nname = 'shop'\ngroup = 'shop'\nfile = '{}'\n\n[label]\nfile = '{}'\n",
                at(side, "shop.conf").display(),
                at(side, "label").display()
            );
            let manifest = at(side, "appliance.toml");
            fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + &sections).unwrap();
        }
        bed.source.restart().unwrap();
        bed.target.restart().unwrap();
        Self { bed, root }
    }

    fn at_target(&self, name: &str) -> PathBuf {
        self.root.path().join("target").join(name)
    }

    fn report(&self) -> (Value, String) {
        let text = self.bed.cli(&["report"]).unwrap().success().unwrap().stdout;
        (self.bed.json(&["report"]).unwrap(), text)
    }
}

fn named<'a>(report: &'a Value, item: &str) -> &'a Value {
    let changed = report["changed"].as_array().unwrap();
    changed.iter().find(|one| one["item"] == item).unwrap_or_else(|| panic!("no {item} in {changed:?}"))
}

#[test]
fn every_step_and_every_change_is_told() {
    let shop = Shop::new();
    let found = shop.bed.json(&["check", "--follow"]).unwrap();
    let backups = found["findings"].as_array().unwrap().iter().find(|one| one["item"] == "backups");
    assert_eq!(backups.unwrap()["severity"], "WARNING");
    let inspected = shop.bed.cli(&["inspect"]).unwrap().success().unwrap().stdout;
    assert!(inspected.contains("source-host in demo.example"), "{inspected}");
    let plan = shop.bed.json(&["plan", "--follow", "--without-logs"]).unwrap();
    shop.bed.cli(&["start", plan["digest"].as_str().unwrap(), "--watch"]).unwrap().success().unwrap();
    shop.bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();

    let (report, text) = shop.report();
    let steps = plan["plan"]["steps"].as_array().unwrap();
    let operations = report["operations"].as_array().unwrap();
    assert_eq!(operations.len(), steps.len(), "{report}");
    for (operation, step) in operations.iter().zip(steps) {
        assert_eq!(operation["expected_ms"], step["expected_ms"]);
        let (from, to) = (ms(&operation["from"]).unwrap(), ms(&operation["to"]).unwrap());
        assert!(from <= to, "{operation}");
        assert!(operation["attempts"].as_u64() >= Some(1), "{operation}");
        assert!(text.contains(operation["title"].as_str().unwrap()), "{operation}\n{text}");
    }
    let settings = named(&report, "settings shop");
    assert_eq!((&settings["host"], &settings["step"]), (&"target".into(), &"configure".into()));
    assert_eq!(settings["facts"]["file"], shop.at_target("shop.conf").display().to_string());
    assert_eq!(named(&report, "label")["facts"]["text"], "Warning: Migration Environment.");
    assert!(text.contains("changed at the target: settings shop: taken from the source"), "{text}");
    assert!(!text.contains("title = source"), "values are told:\n{text}");
    assert_eq!(report["left_behind"][0]["item"], "dataset traffic");
    assert!(text.contains("not moved: dataset traffic: logs stay"), "{text}");
    assert!(!shop.at_target("logs/traffic.log").exists());

    shop.bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    let (report, text) = shop.report();
    for item in ["settings shop", "label"] {
        assert!(named(&report, item)["undone_at"].is_object(), "{report}");
    }
    assert!(text.contains("; taken back at "), "{text}");
}
