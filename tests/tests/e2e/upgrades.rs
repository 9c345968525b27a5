//! Upgrades of the agents are refused while a migration goes on.

use std::process::Command;

use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Output};
use handover_tests::locate::{Binaries, Profile};

use super::settle_and_compare;

/// What the agents say to a package that is about to replace them: the source's answer, the target's.
fn ask(bed: &Bed) -> [Output; 2] {
    let binaries = Binaries::find(Profile::Same).unwrap();
    [("source", &binaries.source), ("target", &binaries.target)].map(|(side, binary)| {
        let config = bed.root().join(side).join(format!("{side}.toml"));
        Output::of(Command::new(binary).arg("--config").arg(config).arg("--check-upgrade")).unwrap()
    })
}

#[test]
fn agents_are_not_upgraded_while_a_migration_goes_on() {
    let mut bed = Bed::temporary(&Spec::small(64)).unwrap();
    let allowed = |bed: &Bed| {
        for answer in ask(bed) {
            assert_eq!(answer.code, Some(0), "{}", answer.text());
            assert_eq!(answer.stdout, "upgrade allowed: mode Operational\n");
        }
    };
    let refused = |bed: &Bed, id: &str| {
        for answer in ask(bed) {
            assert_eq!(answer.code, Some(1), "{}", answer.text());
            assert!(answer.stderr.contains(&format!("upgrade refused: migration {id}")), "{}", answer.text());
            assert!(answer.stderr.contains("mode Migration"), "{}", answer.text());
        }
    };
    allowed(&bed);
    let id = bed.start().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "following");
    let status = bed.json(&["status"]).unwrap();
    assert_eq!(
        (&status["mode"], &status["instance"]),
        (&"Migration".into(), &"Inservice".into()),
        "{status}"
    );
    refused(&bed, &id);
    // A package stops the agents first, or does not: the answer is the same.
    bed.source.kill().unwrap();
    bed.target.kill().unwrap();
    refused(&bed, &id);
    bed.source.restart().unwrap();
    bed.target.restart().unwrap();
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    let status = bed.json(&["status"]).unwrap();
    assert_eq!(
        (&status["mode"], &status["instance"]),
        (&"Operational".into(), &"Terminated".into()),
        "{status}"
    );
    allowed(&bed);
}
