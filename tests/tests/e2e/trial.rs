//! The target on trial: the label that its users are shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::poll;

use super::{SETTLES_WITHIN, settle_and_compare};

const SHOWN: &str = "add_header X-Migration-Environment \"Warning: Migration Environment.\" always;\n";

/// A bed whose target has a label, and a hook that notes it.
struct Labelled {
    bed: Bed,
    /// Where only root and who runs the tests can write.
    dir: tempfile::TempDir,
}

impl Labelled {
    fn new(seed: u64) -> Self {
        let mut bed = Bed::temporary(&Spec::small(seed)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let hook = dir.path().join("label");
        let record = dir.path().join("record");
        let script =
            format!("#!/bin/sh\necho \"$HANDOVER_MOMENT $HANDOVER_LABEL\" >> '{}'\n", record.display());
        fs::write(&hook, script).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let manifest = bed.root().join("target/appliance.toml");
        let sections = format!(
            "\n[label]\nfile = '{}'\ntemplate = 'add_header X-Migration-Environment \"{{label}}\" always;'\n\
             [hooks]\ndirectory = '{}'\n[[hook]]\nname = 'label'\n\
             moments = ['label-on', 'label-off', 'before-publish', 'after-publish', 'after-accept', 'after-abort', 'after-finalize']\n",
            bed.root().join("target/label.conf").display(),
            dir.path().display()
        );
        fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + &sections).unwrap();
        bed.target.restart().unwrap();
        Self { bed, dir }
    }

    fn file(&self) -> PathBuf {
        self.bed.root().join("target/label.conf")
    }

    fn shown(&self) -> Option<String> {
        fs::read_to_string(self.file()).ok()
    }

    /// What the hook noted since the last look.
    fn moments(&self) -> Vec<String> {
        let file = self.dir.path().join("record");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(&file);
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn reach(&self, phase: &str) {
        poll::until(phase, SETTLES_WITHIN, || {
            let Ok(status) = self.bed.json(&["status"]) else { return Ok(None) };
            assert_eq!(status["condition"], "good", "{status}");
            Ok((status["phase"] == phase).then_some(()))
        })
        .unwrap();
    }

    /// Plans, copies, and takes over.
    fn to_trial(&self) {
        let plan = self.bed.json(&["plan", "--follow"]).unwrap();
        self.bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
        self.reach("following");
        assert_eq!(self.shown(), None, "it is shown before the trial");
        self.bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
        assert_eq!(settle_and_compare(&self.bed).phase, "trial");
        assert_eq!(self.shown().as_deref(), Some(SHOWN));
        let on = "label-on Warning: Migration Environment.";
        assert_eq!(self.moments(), ["before-publish", on, "after-publish"]);
    }
}

#[test]
fn the_label_is_there_while_the_target_is_on_trial() {
    let mut labelled = Labelled::new(71);
    let off = "label-off Warning: Migration Environment.";
    labelled.to_trial();
    labelled.bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(labelled.shown(), None);
    assert_eq!(labelled.moments(), [off, "after-abort"]);

    labelled.to_trial();
    // It outlives its agent; what is taken away while that is down is not put back.
    labelled.bed.target.kill().unwrap();
    labelled.bed.target.restart().unwrap();
    assert_eq!(labelled.shown().as_deref(), Some(SHOWN));
    labelled.bed.json(&["accept"]).unwrap();
    poll::until("the end of the trial", SETTLES_WITHIN, || {
        Ok((labelled.bed.json(&["status"])?["activity"] == "idle").then_some(()))
    })
    .unwrap();
    assert_eq!(labelled.shown(), None);
    assert_eq!(labelled.moments(), [off, "after-accept"]);
    labelled.bed.cli(&["finalize", "--watch"]).unwrap().success().unwrap();
    assert_eq!(labelled.moments(), ["after-finalize"], "it was taken away twice");
}

#[test]
fn a_file_of_somebody_else_s_is_told_before_and_stays() {
    let labelled = Labelled::new(72);
    let bed = &labelled.bed;
    fs::write(labelled.file(), "mine\n").unwrap();
    let findings = bed.cli(&["check", "--follow"]).unwrap();
    assert_eq!(findings.code, Some(5), "{}", findings.text());
    assert!(findings.text().contains("another file stands there already"), "{}", findings.text());
    assert!(bed.cli(&["plan", "--follow"]).unwrap().text().contains("label: at the target"));
    fs::remove_file(labelled.file()).unwrap();
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    labelled.reach("following");

    // Put there meanwhile, it stops the cut-over where it is seen, and not the abort.
    fs::write(labelled.file(), "mine\n").unwrap();
    bed.json(&["cutover"]).unwrap();
    let failed = poll::until("the cut-over to stop", SETTLES_WITHIN, || {
        let status = bed.json(&["status"])?;
        Ok((status["condition"] == "failed").then_some(status))
    })
    .unwrap();
    assert!(failed["failure"]["item"].as_str().unwrap().starts_with("label "), "{failed}");
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(labelled.shown().as_deref(), Some("mine\n"));
}
