//! What must not be done, and is not: with a message that names the thing.

use std::fs;

use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Output};

/// The command failed, and said each of these.
#[track_caller]
fn refused(output: &Output, says: &[&str]) {
    let text = output.text();
    assert!(output.code.is_some_and(|code| code != 0), "{} was done: {text}", output.command);
    for word in says {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

#[test]
fn an_occupied_target_is_left_alone() {
    let bed = Bed::temporary(&Spec::small(30)).unwrap();
    let copy = bed.copy();
    fs::write(copy.files.join("precious"), "precious").unwrap();
    fs::write(&copy.database, "precious").unwrap();
    let planned = bed.cli(&["--json", "plan"]).unwrap();
    if planned.code == Some(0) {
        // The plan may still be shown; running it is what must not happen.
        let digest = planned.json().unwrap()["digest"].as_str().unwrap().to_owned();
        refused(&bed.cli(&["start", &digest]).unwrap(), &["overwrite"]);
    } else {
        refused(&planned, &["overwrite"]);
    }
    assert_eq!(fs::read(copy.files.join("precious")).unwrap(), b"precious");
    assert_eq!(fs::read(&copy.database).unwrap(), b"precious");
}

#[test]
fn an_occupied_target_is_overwritten_when_the_plan_says_so() {
    let bed = Bed::temporary(&Spec::small(31)).unwrap();
    fs::write(bed.copy().files.join("old"), "old").unwrap();
    let digest = bed.json(&["plan", "--overwrite"]).unwrap()["digest"].as_str().unwrap().to_owned();
    bed.json(&["start", &digest]).unwrap();
    super::settle_and_compare(&bed);
}

#[test]
fn an_unknown_digest_starts_nothing() {
    let bed = Bed::temporary(&Spec::small(32)).unwrap();
    refused(&bed.cli(&["start", "0123456789abcdef"]).unwrap(), &["0123456789abcdef"]);
    refused(&bed.cli(&["status", "m-none"]).unwrap(), &["m-none"]);
}

#[test]
fn two_operators_start_one_migration() {
    let bed = Bed::temporary(&Spec::small(33)).unwrap();
    let digest = bed.plan().unwrap();
    let [first, second] = std::thread::scope(|scope| {
        [(), ()]
            .map(|()| scope.spawn(|| bed.cli(&["start", &digest]).unwrap()))
            .map(|start| start.join().unwrap())
    });
    let started = [&first, &second].iter().filter(|output| output.code == Some(0)).count();
    assert_eq!(started, 1, "{}\n{}", first.text(), second.text());
    super::settle_and_compare(&bed);
}

#[test]
fn a_plan_whose_source_has_changed_is_refused() {
    let bed = Bed::temporary(&Spec::small(34)).unwrap();
    let digest = bed.plan().unwrap();
    fs::remove_file(bed.original().database).unwrap();
    refused(&bed.cli(&["start", &digest]).unwrap(), &["app"]);
}

#[test]
fn an_unknown_key_of_the_manifest_is_named() {
    let mut bed = Bed::temporary(&Spec::small(35)).unwrap();
    let manifest = bed.root().join("source/appliance.toml");
    let text = fs::read_to_string(&manifest).unwrap().replace("release =", "colour = \"blue\"\nrelease =");
    fs::write(&manifest, text).unwrap();
    let error = format!("{:#}", bed.source.restart().unwrap_err());
    assert!(error.contains("colour"), "{error}");
}

#[test]
fn an_unreachable_target_is_named() {
    let mut bed = Bed::temporary(&Spec::small(36)).unwrap();
    bed.target.kill().unwrap();
    refused(&bed.cli(&["list"]).unwrap(), &[bed.target.address()]);
}
