//! Hooks on both hosts, and the calendar that a start has to keep.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use handover_engine::time::Timestamp;
use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::poll;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{SETTLES_WITHIN, settle_and_compare};

const MOMENTS: &str = "'before-start', 'after-copy', 'before-fence', 'after-fence', 'before-publish', 'after-publish', \
                       'called-off', 'after-accept', 'after-abort', 'after-finalize', 'notice'";

/// A bed whose hosts note every moment in one record, and refuse those that the test wants refused.
struct Hooked {
    bed: Bed,
    /// Where only root and who runs the tests can write.
    dir: TempDir,
}

impl Hooked {
    fn new(seed: u64) -> Self {
        let mut bed = Bed::temporary(&Spec::small(seed)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for side in ["source", "target"] {
            let hooks = dir.path().join(side);
            fs::create_dir(&hooks).unwrap();
            let script = format!(
                "#!/bin/sh\ncd '{}' || exit 1\necho \"$HANDOVER_ROLE $HANDOVER_MOMENT\" >> record\n\
                 while [ -e \"hang-$HANDOVER_ROLE-$HANDOVER_MOMENT\" ]; do sleep 0.05; done\n\
                 [ ! -e \"refuse-$HANDOVER_ROLE-$HANDOVER_MOMENT\" ] || {{ echo users are at work; exit 7; }}\n",
                dir.path().display()
            );
            fs::write(hooks.join("10-record"), script).unwrap();
            fs::set_permissions(hooks.join("10-record"), fs::Permissions::from_mode(0o755)).unwrap();
            let text = format!(
                "\n[hooks]\ndirectory = '{}'\n[[hook]]\nname = '10-record'\nmoments = [{MOMENTS}]\n",
                hooks.display()
            );
            extend_manifest(&bed, side, &text);
        }
        bed.source.restart().unwrap();
        bed.target.restart().unwrap();
        Self { bed, dir }
    }

    fn refuse(&self, what: &str) -> PathBuf {
        self.have(&format!("refuse-{what}"))
    }

    fn have(&self, file: &str) -> PathBuf {
        let file = self.dir.path().join(file);
        fs::write(&file, "").unwrap();
        file
    }

    /// What was noted since the last look.
    fn moments(&self) -> Vec<String> {
        let file = self.dir.path().join("record");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(&file);
        text.lines().map(str::to_owned).collect()
    }

    fn reach(&self, phase: &str, activity: &str) {
        poll::until(&format!("{phase}, {activity}"), SETTLES_WITHIN, || {
            let status = self.bed.json(&["status"])?;
            assert_eq!(status["condition"], "good", "{status}");
            Ok((status["phase"] == phase && status["activity"] == activity).then_some(()))
        })
        .unwrap();
    }
}

fn extend_manifest(bed: &Bed, side: &str, text: &str) {
    let file = bed.root().join(side).join("appliance.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap() + text).unwrap();
}

/// Moments as both hosts note them.
fn both(moments: &[&str]) -> Vec<String> {
    moments.iter().flat_map(|moment| ["source", "target"].map(|side| format!("{side} {moment}"))).collect()
}

#[test]
fn both_hosts_hooks_run_at_every_moment_and_can_call_a_cutover_off() {
    let hooked = Hooked::new(61);
    let bed = &hooked.bed;
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    hooked.reach("following", "following");
    assert_eq!(hooked.moments(), both(&["before-start", "after-copy"]));

    // Before the fence…
    let refusal = hooked.refuse("source-before-fence");
    let off = bed.cli(&["cutover", "--watch"]).unwrap();
    assert_eq!(off.code, Some(3), "{}", off.text());
    assert!(
        off.text().contains("hook 10-record at the source") && off.text().contains("users are at work"),
        "{}",
        off.text()
    );
    assert_eq!(hooked.moments(), [vec!["source before-fence".to_owned()], both(&["called-off"])].concat());
    fs::remove_file(refusal).unwrap();

    // …and behind it: writers are let in again.
    let refusal = hooked.refuse("target-before-publish");
    let off = bed.cli(&["cutover", "--watch"]).unwrap();
    assert_eq!(off.code, Some(3), "{}", off.text());
    assert_eq!(hooked.moments(), both(&["before-fence", "after-fence", "before-publish", "called-off"]));
    fs::remove_file(refusal).unwrap();
    hooked.reach("following", "following");
    bed.original().change(1).unwrap();

    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(bed).phase, "trial");
    assert_eq!(hooked.moments(), both(&["before-fence", "after-fence", "before-publish", "after-publish"]));
    // Where nothing can be stopped any more, a failing hook is noted.
    hooked.refuse("target-after-accept");
    bed.json(&["accept"]).unwrap();
    hooked.reach("accepted", "idle");
    bed.cli(&["finalize", "--watch"]).unwrap().success().unwrap();
    assert_eq!(hooked.moments(), both(&["after-accept", "after-finalize"]));
}

#[test]
fn a_cutover_that_is_being_called_off_is_not_taken_up_again() {
    let mut hooked = Hooked::new(64);
    let plan = hooked.bed.json(&["plan", "--follow"]).unwrap();
    hooked.bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    hooked.reach("following", "following");
    let (refusal, hang) = (hooked.refuse("target-before-publish"), hooked.have("hang-target-called-off"));
    hooked.bed.json(&["cutover"]).unwrap();
    poll::until("the target's hook to hang", SETTLES_WITHIN, || {
        let told = fs::read_to_string(hooked.dir.path().join("record"))?;
        Ok(told.contains("target called-off").then_some(()))
    })
    .unwrap();
    // Writers are let in again: nothing of that may be lost, though all would go well now.
    hooked.bed.original().change(1).unwrap();
    hooked.bed.target.kill().unwrap();
    fs::remove_file(refusal).unwrap();
    fs::remove_file(hang).unwrap();
    hooked.bed.target.restart().unwrap();
    hooked.reach("following", "following");
    hooked.bed.original().change(2).unwrap();
    hooked.bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&hooked.bed).phase, "trial");
}

#[test]
fn a_start_that_a_hook_stops_is_resumed_or_undone() {
    let hooked = Hooked::new(62);
    let bed = &hooked.bed;
    let refusal = hooked.refuse("target-before-start");
    bed.start().unwrap();
    let failed = poll::until("the migration to stop", SETTLES_WITHIN, || {
        let status = bed.json(&["status"])?;
        Ok((status["condition"] == "failed").then_some(status))
    })
    .unwrap();
    assert_eq!(failed["failure"]["item"], "hook 10-record at the target", "{failed}");
    assert!(!bed.copy().database.exists(), "something was copied nevertheless");
    fs::remove_file(refusal).unwrap();
    bed.json(&["resume"]).unwrap();
    assert_eq!(settle_and_compare(bed).phase, "following");
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    // The first time it stopped at the target: the source was told again.
    let expected =
        ["before-start", "before-start", "after-copy", "before-publish", "after-publish", "after-abort"];
    assert_eq!(hooked.moments(), both(&expected));
}

#[test]
fn nothing_starts_within_the_safety_time() {
    const REFUSAL: &str = "In less than 24 hours a maintenance window will start. Process cannot be started.";
    let mut bed = Bed::temporary(&Spec::small(63)).unwrap();
    let begin = Timestamp::from_millis(poll::wall_ms() + 2 * 3_600_000);
    let window = format!("[[calendar.downtime]]\nname = 'kernel'\nbegin = '{begin}'\nminutes = 30\n");
    let plain = fs::read_to_string(bed.root().join("target/appliance.toml")).unwrap();
    extend_manifest(&bed, "target", &window);
    bed.target.restart().unwrap();
    let digest = bed.json(&["plan", "--follow"]).unwrap()["digest"].as_str().unwrap().to_owned();
    let refused = bed.cli(&["start", &digest]).unwrap();
    assert!(refused.code != Some(0) && refused.text().contains(REFUSAL), "{}", refused.text());
    assert!(refused.text().contains("`kernel`"), "{}", refused.text());
    assert_eq!(
        bed.json(&["list"]).unwrap()["migrations"].as_array().map(Vec::len),
        Some(0),
        "something was begun"
    );

    // A window that is planned while a migration goes on keeps it from cutting over, and from being accepted.
    let set = |bed: &mut Bed, text: String| {
        fs::write(bed.root().join("target/appliance.toml"), text).unwrap();
        bed.target.restart().unwrap();
    };
    set(&mut bed, format!("{plain}[calendar]\nsafety_hours = 1\n{window}"));
    bed.json(&["start", &digest]).unwrap();
    let following = |bed: &Bed| {
        poll::until("the target to follow", SETTLES_WITHIN, || {
            Ok((bed.json(&["status"])?["activity"] == "following").then_some(()))
        })
        .unwrap();
    };
    following(&bed);
    set(&mut bed, format!("{plain}{window}"));
    for verb in [
        &["cutover"][..],
        &["cutover", "--at", &Timestamp::from_millis(poll::wall_ms() + 3_600_000).to_string()],
    ] {
        let refused = bed.cli(verb).unwrap();
        assert!(refused.code != Some(0) && refused.text().contains(REFUSAL), "{}", refused.text());
    }
    following(&bed);
    set(&mut bed, plain.clone());
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    set(&mut bed, format!("{plain}{window}"));
    let refused = bed.cli(&["accept"]).unwrap();
    assert!(refused.code != Some(0) && refused.text().contains(REFUSAL), "{}", refused.text());
    let written = Connection::open(&bed.copy().database).unwrap();
    written.execute_batch("UPDATE customer SET name = name WHERE id = 1").unwrap();
    assert_eq!(bed.json(&["status"]).unwrap()["phase"], "trial");
}
