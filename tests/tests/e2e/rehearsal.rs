//! Rehearsals: what production's data breaks is found beside the target's own database, and nothing else is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Output};
use handover_tests::poll;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// How long a rehearsal may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);
const MEMBERS: &str = "CREATE TABLE member (id INTEGER PRIMARY KEY, email TEXT);
    INSERT INTO member VALUES (1, 'a@example.org'), (2, 'b@example.org'), (3, 'a@example.org'), (4, NULL)";
const NEW: &str =
    "CREATE TABLE member (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, since TEXT DEFAULT 'now');
    CREATE TABLE shelf (id INTEGER PRIMARY KEY)";

/// A bed whose target runs a newer version of the product, with a check script that hangs while a file is there.
struct Stage {
    bed: Bed,
    dir: TempDir,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let mut bed = Bed::temporary(&Spec::small(seed)).unwrap();
        Connection::open(bed.original().database).unwrap().execute_batch(MEMBERS).unwrap();
        Connection::open(bed.copy().database).unwrap().execute_batch(NEW).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("check");
        let text = format!(
            "#!/bin/sh\ncd '{}' || exit 1\ntouch reached\nwhile [ -e hang ]; do sleep 0.05; done\n\
             [ -s \"$HANDOVER_DATABASE\" ] || exit 9\n[ ! -e refuse ] || {{ echo the books do not balance; exit 7; }}\n",
            dir.path().display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let manifest = bed.root().join("target/appliance.toml");
        // Whatever this machine lets the agent seal: that is tried where scripts are run.
        let section =
            format!("\n[[check_script]]\nname = 'books'\nprogram = '{}'\nnetwork = true\n", script.display());
        fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + &section).unwrap();
        bed.target.restart().unwrap();
        Self { bed, dir }
    }

    fn scratch(&self) -> PathBuf {
        let mut name = self.bed.copy().database.into_os_string();
        name.push(".handover-rehearsal");
        name.into()
    }

    /// Runs `rehearse` with this exit code; its report.
    #[track_caller]
    fn rehearse(&self, arguments: &[&str], code: i32) -> Value {
        let output = self.bed.cli(&[&["--json", "rehearse"], arguments].concat()).unwrap();
        assert_eq!(output.code, Some(code), "{}", output.text());
        serde_json::from_str::<Value>(&output.stdout).unwrap()["rehearsal"].take()
    }

    fn have(&self, file: &str) -> PathBuf {
        let file = self.dir.path().join(file);
        fs::write(&file, "").unwrap();
        file
    }

    fn decisions(&self, text: &str) -> String {
        let file = self.dir.path().join("decisions.toml");
        fs::write(&file, format!("format = 1\n{text}")).unwrap();
        file.display().to_string()
    }
}

fn member(report: &Value) -> Value {
    let tables = report["databases"][0]["tables"].as_array().unwrap();
    tables.iter().find(|table| table["table"]["name"] == "member").unwrap().clone()
}

#[test]
fn what_the_new_version_refuses_is_found_and_decided() {
    let stage = Stage::new(90);
    let before = fs::read(stage.bed.copy().database).unwrap();
    let report = stage.rehearse(&[], 9);
    let table = member(&report);
    assert_eq!((&table["rows"], &table["loaded"]), (&4.into(), &2.into()));
    assert_eq!(table["conflicts"], serde_json::json!({ "unique": 1, "not-null": 1 }));
    assert_eq!((&table["listed"][0]["key"], &table["listed"][0]["other"]), (&"id 3".into(), &"id 1".into()));
    assert_eq!((&report["checks"][0]["name"], &report["checks"][0]["well"]), (&"books".into(), &true.into()));
    assert!(!stage.scratch().exists(), "the scratch database is still there");
    assert_eq!(stage.rehearse(&["--show"], 9), report);
    let watcher =
        Output::of(stage.bed.command_as(&stage.bed.identity("watcher")).args(["rehearse", "--show"]))
            .unwrap();
    assert!(
        watcher.code == Some(9) && watcher.text().contains("unique member.email: member, id 3"),
        "{}",
        watcher.text()
    );
    let refused = Output::of(stage.bed.command_as(&stage.bed.identity("watcher")).arg("rehearse")).unwrap();
    assert_eq!(refused.code, Some(5), "{}", refused.text());

    let file = stage.decisions(
        "[[decision]]\ntable = 'member'\nkey = 'id 3'\naction = 'rename'\ncolumn = 'email'\nsuffix = '.old'\n\
         [[decision]]\ntable = 'member'\nkey = 'id 4'\naction = 'drop'\n\
         [[decision]]\ntable = 'member'\nkey = 'id 2'\naction = 'drop'\n",
    );
    let report = stage.rehearse(&["--decisions", &file, "--keep"], 0);
    assert_eq!(report["used"].as_array().unwrap().len(), 2);
    assert_eq!(report["unused"], serde_json::json!(["drop: member, id 2"]));
    let loaded: i64 = Connection::open(stage.scratch())
        .unwrap()
        .query_row("SELECT count(*) FROM member WHERE since = 'now' AND email <> 'x'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(loaded, 3);
    stage.have("refuse");
    let again = stage.rehearse(&["--decisions", &file], 9);
    assert_eq!(again["databases"][0]["chunks_loaded"], 0);
    assert!(again["checks"][0]["said"].to_string().contains("the books do not balance"), "{again}");
    assert!(!stage.scratch().exists());
    assert_eq!(fs::read(stage.bed.copy().database).unwrap(), before, "the target's own database has changed");

    let file = stage.decisions("[[decision]]\ntable = 'member'\nkey = 'id 3'\naction = 'rename'\n");
    let refused = stage.bed.cli(&["rehearse", "--decisions", &file]).unwrap();
    assert!(refused.code == Some(5) && refused.text().contains("`column`"), "{}", refused.text());
}

#[test]
fn a_rehearsal_that_is_cut_short_leaves_nothing_half() {
    for (seed, arguments, stays) in [(91, &["rehearse"][..], false), (92, &["rehearse", "--keep"][..], true)]
    {
        let mut stage = Stage::new(seed);
        let hang = stage.have("hang");
        let mut command = stage.bed.command();
        let mut running =
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let reached = stage.dir.path().join("reached");
        poll::until("the check script", WITHIN, || Ok(reached.exists().then_some(()))).unwrap();
        let second = stage.bed.cli(&["rehearse"]).unwrap();
        assert!(second.code == Some(5) && second.text().contains("one is going on"), "{}", second.text());
        assert!(stage.scratch().exists());
        stage.bed.target.kill().unwrap();
        assert_ne!(running.wait().unwrap().code(), Some(0));
        fs::remove_file(hang).unwrap();
        stage.bed.target.restart().unwrap();
        if !stays {
            let gone = || Ok((!stage.scratch().exists()).then_some(()));
            poll::until("the scratch database to go", WITHIN, gone).unwrap();
        }
        let report = stage.rehearse(&[], 9);
        assert_eq!(report["databases"][0]["continued"], stays);
        assert_eq!(report["databases"][0]["chunks_loaded"] == 0, stays, "{report}");
        assert!(!stage.scratch().exists());
    }
}
