//! Settings in tables of a database that moves: those that make a host the one it is stay what they are at the target.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::poll;
use rusqlite::Connection;

use super::SETTLES_WITHIN;

fn settings(database: &Path) -> Vec<(String, String)> {
    let db = Connection::open(database).unwrap();
    let mut query =
        db.prepare("SELECT key, value FROM setting WHERE key LIKE 'test.%' ORDER BY key").unwrap();
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn put(database: &Path, statements: &str) {
    Connection::open(database).unwrap().execute_batch(statements).unwrap();
}

#[test]
fn a_target_keeps_the_rows_that_make_it_the_host_it_is() {
    let mut bed = Bed::temporary(&Spec::small(75)).unwrap();
    let (from, to) = (bed.root().join("source/data/app.db"), bed.root().join("target/data/app.db"));
    put(
        &from,
        "INSERT INTO setting VALUES ('test.host', 'source'), ('test.more', 'source'), ('test.basic', 'source')",
    );
    put(
        &to,
        "CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT);
         INSERT INTO setting VALUES ('test.host', 'target'), ('test.own', 'target'), ('test.basic', 'target')",
    );
    let hooks = tempfile::tempdir().unwrap();
    let refusal = hooks.path().join("refuse");
    fs::write(hooks.path().join("10-refuse"), format!("#!/bin/sh\n[ ! -e '{}' ]\n", refusal.display()))
        .unwrap();
    fs::set_permissions(hooks.path().join("10-refuse"), fs::Permissions::from_mode(0o755)).unwrap();
    for side in ["source", "target"] {
        let section = |name: &str, group: &str, keys: &str| {
            format!(
                "\n[[settings]]\nname = '{name}'\ngroup = '{group}'\ndatabase = 'app'\ntable = 'setting'\nkey_column = 'key'\n\
                 value_column = 'value'\nkeys = [{keys}]\n"
            )
        };
        let hook = format!(
            "\n[hooks]\ndirectory = '{}'\n[[hook]]\nname = '10-refuse'\nmoments = ['before-publish']\n",
            hooks.path().display()
        );
        let hook = if side == "target" { hook.as_str() } else { "" };
        let manifest = bed.root().join(side).join("appliance.toml");
        let text = fs::read_to_string(&manifest).unwrap()
            + &section("names", "dns", "'test.host', 'test.more', 'test.own'")
            + &section("limits", "limits", "'test.basic'")
            + hook;
        fs::write(&manifest, text).unwrap();
    }
    bed.source.restart().unwrap();
    bed.target.restart().unwrap();

    let plan = bed.json(&["plan", "--follow", "--overwrite"]).unwrap();
    assert!(plan["plan"].to_string().contains("retain"), "{plan}");
    bed.cli(&["start", plan["digest"].as_str().unwrap(), "--watch"]).unwrap().success().unwrap();

    // Called off with its own rows in the copy: the copy is the source's again.
    fs::write(&refusal, "").unwrap();
    let off = bed.cli(&["cutover", "--watch"]).unwrap();
    assert!(off.text().contains("called off"), "{}", off.text());
    fs::remove_file(&refusal).unwrap();
    let is_following = || Ok((bed.json(&["status"])?["activity"] == "following").then_some(()));
    poll::until("following goes on", SETTLES_WITHIN, is_following).unwrap();
    let verified = bed.cli(&["verify", "--watch"]).unwrap();
    assert!(verified.code == Some(0), "{}", verified.text());

    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    let own = pairs(&[("test.basic", "source"), ("test.host", "target"), ("test.own", "target")]);
    assert_eq!(settings(&to), own);
    put(&to, "UPDATE setting SET value = 'trial' WHERE key = 'test.basic'");
    let came_home = || Ok((settings(&from)[0].1 == "trial").then_some(()));
    poll::until("the change is carried home", SETTLES_WITHIN, came_home).unwrap();
    let sources = [("test.basic", "trial"), ("test.host", "source"), ("test.more", "source")];
    assert_eq!(settings(&from), pairs(&sources), "the source keeps its own");
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settings(&from), pairs(&sources));
    assert_eq!(
        settings(&to),
        pairs(&[("test.basic", "target"), ("test.host", "target"), ("test.own", "target")])
    );
    assert!(!bed.root().join("target/state/retained").read_dir().is_ok_and(|mut left| left.next().is_some()));
}
