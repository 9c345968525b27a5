//! Bad days: lost links, full disks, sources that are gone or change while they are read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Status};
use handover_tests::poll;

use super::crashes::{busy_spec, wait_for_some_progress};
use super::settle_and_compare;

const SOON: Duration = Duration::from_secs(60);

#[track_caller]
fn wait_until_stuck(bed: &Bed) -> Status {
    poll::until("the migration to stop", SOON, || Ok(bed.status().ok().filter(Status::is_stuck))).unwrap()
}

#[test]
fn a_cut_link_loses_nothing() {
    let mut bed = Bed::temporary(&busy_spec(40)).unwrap();
    let link = bed.through_link().unwrap();
    bed.start().unwrap();
    for _ in 0..3 {
        wait_for_some_progress(&bed);
        link.cut();
        assert!(bed.status().is_ok(), "the target answers without its source");
        link.mend();
    }
    settle_and_compare(&bed);
    assert_eq!(bed.json(&["report"]).unwrap()["totals"]["chunks_resent"], 0);
}

#[test]
fn a_source_that_stays_away_is_named_and_waited_for() {
    let mut bed = Bed::temporary(&busy_spec(41)).unwrap();
    bed.configure_target(|text| text + "\n[limits]\npatience_seconds = 1\n").unwrap();
    let source = bed.source.address().to_owned();
    bed.start().unwrap();
    wait_for_some_progress(&bed);
    bed.source.kill().unwrap();
    let stuck = wait_until_stuck(&bed);
    assert!(stuck.failure.to_string().contains(&source), "{stuck:?}");
    bed.source.restart().unwrap();
    bed.json(&["resume"]).unwrap();
    settle_and_compare(&bed);
}

/// A file system in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(place: &Path, mib: u64) -> Self {
        fs::create_dir_all(place).unwrap();
        let disk = Self(place.to_owned());
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]);
        disk
    }

    fn grow(&self, mib: u64) {
        self.mount(&["-o", &format!("remount,size={mib}m")]);
    }

    fn mount(&self, args: &[&str]) {
        let mount = Command::new("mount").args(args).arg(&self.0).output().unwrap();
        assert!(mount.status.success(), "this test needs root, to mount a small disk: {mount:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_target_disk_stops_and_then_goes_on() {
    let mut bed = Bed::temporary(&busy_spec(42)).unwrap();
    // Nothing is kept free: the disk really becomes full.
    bed.configure_target(|text| format!("{text}\n[limits]\nreserve_bytes = 0\n")).unwrap();
    // Large enough for what is there at the start, not for all that comes.
    let place = bed.root().join("target/data");
    fs::remove_dir_all(&place).unwrap();
    let disk = SmallDisk::at(&place, 200);
    fs::create_dir_all(bed.copy().files).unwrap();
    let digest = bed.plan().unwrap();
    let filler = place.join("filler");
    fs::write(&filler, vec![1; 150 << 20]).unwrap();
    bed.json(&["start", &digest]).unwrap();
    let stuck = wait_until_stuck(&bed);
    let told = stuck.failure.to_string();
    // Files and the database are written side by side: either may be the one that is stopped.
    assert!(told.contains("free space"), "{told}");
    assert!(told.contains("No space left") || told.contains("disk is full"), "{told}");
    assert!(!bed.copy().database.exists(), "an unfinished database shows");
    fs::remove_file(&filler).unwrap();
    disk.grow(600);
    bed.json(&["resume"]).unwrap();
    settle_and_compare(&bed);
    bed.target.kill().unwrap();
}

#[test]
fn a_missing_database_is_named_before_anything_begins() {
    let bed = Bed::temporary(&Spec::small(43)).unwrap();
    let database = bed.original().database;
    fs::remove_file(&database).unwrap();
    for verb in ["check", "plan"] {
        let output = bed.cli(&[verb]).unwrap();
        assert_ne!(output.code, Some(0), "{}", output.text());
        assert!(output.text().contains(database.to_str().unwrap()), "{}", output.text());
    }
}

#[test]
fn files_may_change_and_vanish_while_they_are_read() {
    let bed = Bed::temporary(&busy_spec(44)).unwrap();
    let files = bed.original().files;
    let digest = bed.plan().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let name = |n: u64| files.join(format!("busy-{}", n % 50));
                fs::write(name(round), round.to_le_bytes().repeat(1 + (round % 7) as usize * 9_000)).unwrap();
                // It may not be there any more.
                let _ = fs::remove_file(name(round * 7 + 3));
            }
        });
        bed.json(&["start", &digest]).unwrap();
        let settled = bed.settle(super::SETTLES_WITHIN);
        over.store(true, Ordering::Relaxed);
        settled.unwrap();
    });
    bed.json(&["sync"]).unwrap();
    settle_and_compare(&bed);
}
