//! A migration into another schema: decisions about rows that do not fit are carried out by the real run, up to the cut-over.

#[path = "fitting/stage.rs"]
mod stage;
#[path = "fitting/versions.rs"]
mod versions;

use std::fs;
use std::time::Duration;

use handover_tests::poll;
use handover_tests::server::Engine;

use self::stage::{Side, Stage};

/// A run that stops at rows about which nothing is decided, one that is cut over, and one that is undone.
fn production_is_brought_into_the_new_schema(engine: Option<Engine>) {
    let mut stage = Stage::new(engine);
    // Undecided: it goes no further than that.
    let none = stage.decisions("none.toml", &[]);
    stage.start(&stage.plan(&none));
    let stopped = stage.reach("the fit to stop", |status| status["condition"] == "failed").to_string();
    assert!(stopped.contains("5 rows do not fit") && stopped.contains("id 3"), "{stopped}");
    stage.ends(&["abort", "--watch"]);
    stage.has_no_scratch();
    stage.target_is_as_it_was();

    let file = stage.all_decided();
    let shown =
        stage.bed.cli(&["plan", "--follow", "--overwrite", "--decisions", &file]).unwrap().success().unwrap();
    for part in [
        "at the target alone, aside",
        "decided: rename email",
        "fit app into the new schema",
        "retired: the target's schema has no such table",
    ] {
        assert!(shown.text().contains(part), "{part}: {}", shown.text());
    }
    let plan = stage.plan(&file);
    assert!(!plan["plan"]["steps"].to_string().contains("keep"), "{plan}");
    stage.start(&plan);
    stage.bed.target.kill().unwrap();
    stage.bed.target.restart().unwrap();
    stage.is_following();
    let refused = stage.bed.cli(&["rehearse"]).unwrap();
    assert!(refused.code == Some(5) && refused.text().contains("fits rows"), "{}", refused.text());

    // What happens meanwhile comes along; what does not fit calls the cut-over off.
    stage.from.run("UPDATE note SET body = 'changed' WHERE id = 100");
    stage
        .from
        .run("INSERT INTO member VALUES (2001, 'member2001@example.org'), (2002, 'member1@example.org')");
    stage.from.run("INSERT INTO note (id, member_id, body) VALUES (2001, 2001, 'new')");
    stage.to.run("INSERT INTO currency VALUES ('GBP')");
    let off = stage.bed.cli(&["cutover", "--watch", "--max-downtime", "300"]).unwrap();
    assert!(off.text().contains("called off") && off.text().contains("id 2002"), "{}", off.text());
    stage.is_following();
    stage.from.run("DELETE FROM member WHERE id = 2002");

    // With a crash in the middle.
    stage.bed.cli(&["cutover", "--max-downtime", "300"]).unwrap().success().unwrap();
    poll::pause(Duration::from_millis(300));
    stage.bed.target.kill().unwrap();
    stage.bed.target.restart().unwrap();
    stage.reach("the target to take over", |status| {
        assert_eq!(status["condition"], "good", "{status}");
        status["phase"] == "trial" && status["activity"] == "idle"
    });
    stage.target_has_it_all();
    assert!(stage.root.path().join("target/manuals/one").exists());
    let report = stage.bed.json(&["report"]).unwrap();
    let fitted = report["outcome"]["fitted"]["app"].clone();
    assert_eq!((&fitted["left_out"], &fitted["changed"]), (&3.into(), &3.into()), "{report}");
    assert_eq!(fitted["used"].as_array().map(Vec::len), Some(5), "{fitted}");
    assert_eq!(fitted["unused"].as_array().map(Vec::len), Some(1), "{fitted}");
    let verified = &report["outcome"]["verified"]["app"];
    assert!(verified["read"]["rows"].as_u64() > Some(3990) && verified["differences"] == 0, "{verified}");

    // Numbers go on, and triggers act.
    stage.to.run("INSERT INTO note (member_id, body) VALUES (1, 'first')");
    stage.to.run("INSERT INTO member (email) VALUES ('new@example.org')");
    assert_eq!(stage.to.run("SELECT max(id) FROM note"), "5001\n");
    assert_eq!(
        stage.to.run("SELECT count(*) FROM member WHERE email = 'new@example.org' AND id > 2001"),
        "1\n"
    );
    assert_eq!(stage.to.run("SELECT n FROM tally"), "1\n");
    stage.to.refuses("INSERT INTO note (member_id, body) VALUES (9999, 'x')", "foreign key");
    stage.from.refuses("UPDATE member SET email = 'x' WHERE id = 1", "moved");

    stage.ends(&["abort", "--discard", "--watch"]);
    stage.target_is_as_it_was();
    stage.from.run("UPDATE member SET email = 'x' WHERE id = 1");
    // What was written there is kept until somebody removes it.
    stage.bed.json(&["terminate", "--yes"]).unwrap();
    stage.has_no_scratch();
}

#[test]
fn sqlite_is_brought_into_the_new_schema() {
    production_is_brought_into_the_new_schema(None);
}

#[test]
fn mariadb_is_brought_into_the_new_schema() {
    production_is_brought_into_the_new_schema(Some(Engine::Mariadb));
}

#[test]
fn postgresql_is_brought_into_the_new_schema() {
    production_is_brought_into_the_new_schema(Some(Engine::Postgres));
}

#[test]
fn what_was_brought_into_the_new_schema_stays() {
    let stage = Stage::new(None);
    let file = stage.all_decided();
    stage.start(&stage.plan(&file));
    stage.is_following();
    stage.ends(&["cutover", "--watch"]);
    stage.ends(&["accept", "--watch"]);
    stage.ends(&["finalize", "--watch"]);
    assert_eq!(stage.to.run("SELECT count(*) FROM member"), "1998\n");
    stage.has_no_scratch();
    stage.from.refuses("UPDATE member SET email = 'x' WHERE id = 1", "moved");
}

#[test]
fn a_plan_that_cannot_fit_anything_is_refused() {
    let stage = Stage::new(None);
    let file = stage.all_decided();
    let refused = |args: &[&str], part: &str| {
        let told = stage.bed.cli(args).unwrap();
        assert!(told.code != Some(0) && told.text().contains(part), "{args:?}: {}", told.text());
    };
    refused(&["plan", "--overwrite", "--decisions", &file], "--follow");
    refused(&["plan", "--follow", "--overwrite", "--swap", "--decisions", &file], "--swap");
    refused(
        &["plan", "--follow", "--overwrite", "--dataset", "manuals", "--decisions", &file],
        "no database",
    );
    refused(&["check", "--follow", "--decisions", &file], "--overwrite");
    let Side::File(path) = &stage.to else { return };
    fs::remove_file(path).unwrap();
    for verb in ["plan", "check"] {
        refused(&[verb, "--follow", "--decisions", &file], "install the new version there");
    }
}
