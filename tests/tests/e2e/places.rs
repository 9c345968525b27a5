//! What stands in a target tree before a migration, and what becomes of it when the tree, or the manifest, is not what it was.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use handover_tests::bed::{Bed, Dataset};
use handover_tests::locate::{Binaries, Profile};

use super::SETTLES_WITHIN;

struct Trees {
    bed: Bed,
    source: PathBuf,
    target: PathBuf,
    _root: tempfile::TempDir,
}

/// A tree `www` to be moved, with what `make` puts into the two sides of it.
fn trees(make: impl FnOnce(&Path, &Path)) -> Trees {
    let root = tempfile::tempdir().unwrap();
    let [source, target] = ["from", "to"].map(|dir| root.path().join(dir));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    make(&source, &target);
    let dataset = Dataset::Files { name: "www".into(), source: source.clone(), target: target.clone() };
    let bed = Bed::at(root.path(), Binaries::find(Profile::Same).unwrap(), vec![dataset], "info").unwrap();
    Trees { bed, source, target, _root: root }
}

impl Trees {
    /// Runs a verb to the end of what it begins; its exit code and what it said.
    fn run(&self, verb: &[&str]) -> (Option<i32>, String) {
        let output = self.bed.cli(&[verb, &["--watch"]].concat()).unwrap();
        (output.code, output.text())
    }

    fn start(&self, options: &[&str]) -> (Option<i32>, String) {
        let plan = self.bed.json(&[&["plan"], options].concat()).unwrap();
        self.run(&["start", plan["digest"].as_str().unwrap()])
    }

    fn here(&self, name: &str) -> String {
        fs::read_to_string(self.target.join(name)).unwrap_or_else(|error| error.kind().to_string())
    }
}

#[test]
fn what_the_target_hid_at_first_survives() {
    let mut trees = trees(|source, target| {
        fs::write(source.join("page"), "new").unwrap();
        fs::create_dir(target.join("cache")).unwrap();
        fs::write(target.join("cache/own"), "own").unwrap();
    });
    let manifest = trees.bed.root().join("target/appliance.toml");
    let open = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, open.replace("exclude = []", "exclude = [\"cache\"]")).unwrap();
    trees.bed.target.restart().unwrap();
    assert_eq!(trees.start(&[]).0, Some(0));
    fs::write(&manifest, open).unwrap();
    trees.bed.target.restart().unwrap();
    let (code, said) = trees.run(&["sync"]);
    assert!(code == Some(3) && said.contains("`exclude`"), "{code:?}: {said}");
    assert_eq!(trees.here("cache/own"), "own");
    assert_eq!(trees.run(&["abort"]).0, Some(0));
    assert_eq!((trees.here("cache/own").as_str(), trees.target.join("page").exists()), ("own", false));
}

#[test]
fn a_place_that_is_not_there_stops_an_abort_once() {
    let trees = trees(|source, _| fs::write(source.join("page"), "new").unwrap());
    assert_eq!(trees.start(&[]).0, Some(0));
    let away = trees.target.with_extension("away");
    fs::rename(&trees.target, &away).unwrap();
    fs::create_dir(&trees.target).unwrap();
    let (code, said) = trees.run(&["abort"]);
    assert!(code == Some(3) && said.contains("nothing of this migration is found"), "{code:?}: {said}");
    fs::remove_dir(&trees.target).unwrap();
    fs::rename(&away, &trees.target).unwrap();
    assert_eq!(trees.run(&["resume"]).0, Some(0));
    assert_eq!(fs::read_dir(&trees.target).unwrap().count(), 0);
}

#[test]
fn a_file_that_never_rests_is_left_out_with_its_links() {
    let trees = trees(|source, target| {
        fs::write(source.join("busy.log"), vec![7; 32 << 20]).unwrap();
        fs::hard_link(source.join("busy.log"), source.join("second.log")).unwrap();
        fs::write(source.join("page"), "new").unwrap();
        fs::write(target.join("busy.log"), "old").unwrap();
    });
    let is_quiet = Arc::new(AtomicBool::new(false));
    let mut log = OpenOptions::new().append(true).open(trees.source.join("busy.log")).unwrap();
    let writer = std::thread::spawn({
        let is_quiet = is_quiet.clone();
        move || {
            while !is_quiet.load(Ordering::Relaxed) {
                log.write_all(b"x").unwrap();
            }
        }
    });
    let (code, said) = trees.start(&["--overwrite"]);
    is_quiet.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(code, Some(8), "{said}");
    assert_eq!(trees.here("page"), "new");
    assert!(!trees.target.join("busy.log").exists() && !trees.target.join("second.log").exists());
    let report = trees.bed.json(&["report"]).unwrap();
    assert!(report["totals"]["differences"] == 0 && report["totals"]["left_out"] == 2, "{report}");
    let (code, said) = trees.run(&["sync"]);
    assert_eq!(code, Some(0), "{said}");
    let compared = trees.bed.compare().unwrap();
    assert_eq!(compared.found, 0, "{}", compared.describe());
    trees.bed.settle(SETTLES_WITHIN).unwrap();
    assert_eq!(trees.run(&["abort"]).0, Some(0));
    assert_eq!((trees.here("busy.log").as_str(), trees.target.join("page").exists()), ("old", false));
}
