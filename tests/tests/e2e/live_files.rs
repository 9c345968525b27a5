//! Trees and logs that are in use: followed, and cut over.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use handover_tests::bed::{Bed, Dataset, SERVED};
use handover_tests::locate::{Binaries, Profile, target_dir};
use handover_tests::{poll, resent};

use super::{SETTLES_WITHIN, settle_and_compare};

/// A tree and a directory of logs, followed.
struct Followed {
    bed: Bed,
    _temp: tempfile::TempDir,
}

impl Followed {
    fn new() -> Self {
        let dir = target_dir().unwrap().join("tmp");
        fs::create_dir_all(&dir).unwrap();
        let temp = tempfile::Builder::new().prefix("bed-").tempdir_in(&dir).unwrap();
        let at = |side: &str, name: &str| temp.path().join(side).join("data").join(name);
        let (www, logs) = (at("source", "www"), at("source", "logs"));
        for n in 0..200 {
            let place = www.join(format!("{}", n % 10));
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(format!("{n}")), format!("file {n}")).unwrap();
        }
        fs::create_dir_all(&logs).unwrap();
        fs::write(logs.join("app.log"), lines("app", 0, 40_000)).unwrap();
        fs::write(logs.join("small.log"), lines("small", 0, 1_000)).unwrap();
        fs::write(logs.join("busy.log"), "").unwrap();
        let datasets = vec![
            Dataset::Files { name: "www".to_owned(), source: www, target: at("target", "www") },
            Dataset::Logs { name: "logs".to_owned(), source: logs, target: at("target", "logs") },
        ];
        let bed = Bed::at(temp.path(), Binaries::find(Profile::Same).unwrap(), datasets, SERVED).unwrap();
        let plan = bed.json(&["plan", "--follow"]).unwrap();
        bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
        let followed = Self { bed, _temp: temp };
        poll::until("both to be followed", SETTLES_WITHIN, || {
            let status = followed.bed.json(&["status"])?;
            let is_followed = |name: &str| {
                let figures = &status["following_trees"][name];
                figures["told"] == true && figures["complete_ms"].is_u64() && figures["pending"] == 0
            };
            Ok((is_followed("www") && is_followed("logs")).then_some(()))
        })
        .unwrap();
        followed
    }

    fn source(&self, path: &str) -> PathBuf {
        self.bed.root().join("source/data").join(path)
    }

    fn target(&self, path: &str) -> PathBuf {
        self.bed.root().join("target/data").join(path)
    }

    /// Waits until these files are the same on both sides; whatever is seen there meanwhile must satisfy `check`.
    fn arrive(&self, paths: &[&str], check: impl Fn(&[u8])) {
        for path in paths {
            let what = format!("{path} to arrive");
            poll::until(&what, SETTLES_WITHIN, || {
                let (there, here) = (fs::read(self.source(path)).ok(), fs::read(self.target(path)).ok());
                here.as_deref().map(&check);
                Ok((there == here).then_some(()))
            })
            .unwrap();
        }
    }

    fn served(&self, path: &str) -> u64 {
        resent::bytes_served(self.bed.source.log(), "logs", path).unwrap()
    }
}

fn lines(what: &str, from: u32, to: u32) -> String {
    (from..to).map(|n| format!("2026-01-31T00:00:00Z {what}: line {n} of a log that only grows\n")).collect()
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn what_happens_in_a_tree_arrives_soon() {
    let mut followed = Followed::new();
    let at = |path: &str| followed.source(path);
    fs::create_dir_all(at("www/new/er")).unwrap();
    for n in 0..50 {
        fs::write(at(&format!("www/new/er/{n}")), format!("new {n}")).unwrap();
    }
    fs::write(at("www/0/0"), "changed").unwrap();
    fs::remove_file(at("www/1/1")).unwrap();
    fs::rename(at("www/2"), at("www/moved")).unwrap();
    fs::hard_link(at("www/3/3"), at("www/3/linked")).unwrap();
    followed
        .arrive(&["www/new/er/49", "www/0/0", "www/1/1", "www/2/2", "www/moved/2", "www/3/linked"], |_| ());
    // The source forgets what it has told, and misses what happens meanwhile.
    followed.bed.source.kill().unwrap();
    fs::write(followed.source("www/4/4"), "while it was down").unwrap();
    fs::remove_dir_all(followed.source("www/5")).unwrap();
    followed.bed.source.restart().unwrap();
    fs::write(followed.source("www/6/6"), "afterwards").unwrap();
    followed.arrive(&["www/4/4", "www/5/5", "www/6/6"], |_| ());
    let cutover = followed.bed.json(&["cutover", "--dry-run"]).unwrap();
    assert!(cutover["predicted_ms"].as_u64().is_some_and(|ms| ms > 250), "{cutover}");
    fs::write(followed.source("www/7/7"), "at the last moment").unwrap();
    followed.bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&followed.bed).phase, "trial");
}

#[test]
fn logs_are_followed_across_their_rotation() {
    let followed = Followed::new();
    let at = |path: &str| followed.source(path);
    // One that is never quiet.
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, mut busy) =
        (stop.clone(), OpenOptions::new().append(true).open(at("logs/busy.log")).unwrap());
    let writer = std::thread::spawn(move || {
        let mut n = 0;
        while !stopped.load(Ordering::Relaxed) {
            busy.write_all(lines("busy", n, n + 20).as_bytes()).unwrap();
            n += 20;
            poll::pause(Duration::from_millis(1));
        }
    });
    // Only what is appended is sent.
    let more = lines("more", 0, 300);
    let before = (followed.served("app.log"), followed.served("small.log"));
    append(&at("logs/app.log"), &more);
    append(&at("logs/small.log"), &more);
    followed.arrive(&["logs/app.log", "logs/small.log"], |_| ());
    let sent = (followed.served("app.log") - before.0, followed.served("small.log") - before.1);
    let about = more.len() as u64..more.len() as u64 * 2;
    assert!(about.contains(&sent.0) && about.contains(&sent.1), "{sent:?} for {} bytes", more.len());
    // Renamed, and begun anew.
    let old = fs::read(at("logs/app.log")).unwrap();
    fs::rename(at("logs/app.log"), at("logs/app.log.1")).unwrap();
    fs::write(at("logs/app.log"), lines("after", 0, 100)).unwrap();
    fs::rename(at("logs/small.log"), at("logs/small.log.1")).unwrap();
    fs::write(at("logs/small.log"), lines("after", 0, 1_000)).unwrap();
    let rotated = ["logs/app.log", "logs/app.log.1", "logs/small.log", "logs/small.log.1"];
    followed.arrive(&rotated, |_| ());
    let sent = followed.served("app.log.1") + followed.served("small.log.1");
    assert_eq!(sent, 0, "of {} bytes that were there", old.len());
    // Copied, truncated, and grown beyond its former size.
    let (former, grown) = (fs::read(at("logs/small.log")).unwrap(), lines("grown", 0, 2_000));
    fs::copy(at("logs/small.log"), at("logs/small.log.2")).unwrap();
    File::create(at("logs/small.log")).unwrap().write_all(grown.as_bytes()).unwrap();
    followed.arrive(&["logs/small.log", "logs/small.log.2"], |here| {
        let is_one = former.starts_with(here) || grown.as_bytes().starts_with(here);
        assert!(is_one, "{} bytes of neither", here.len());
    });
    // Compressed.
    let gzip = Command::new("gzip").arg(at("logs/app.log.1")).status().unwrap();
    assert!(gzip.success());
    followed.arrive(&["logs/app.log.1", "logs/app.log.1.gz"], |_| ());
    // What is never quiet has got on all the while, and is the beginning of what it is.
    let here = fs::read(followed.target("logs/busy.log")).unwrap();
    let there = fs::read(at("logs/busy.log")).unwrap();
    assert!(!here.is_empty() && there.starts_with(&here), "{} of {} bytes", here.len(), there.len());
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    followed.bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&followed.bed).phase, "trial");
    // What is written to them at the target comes home.
    let mut log = File::options().append(true).open(followed.target("logs/small.log")).unwrap();
    log.write_all(b"on trial\n").unwrap();
    followed.bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert!(!followed.target("logs/app.log").exists());
    assert!(fs::read_to_string(at("logs/small.log")).unwrap().ends_with("on trial\n"));
}
