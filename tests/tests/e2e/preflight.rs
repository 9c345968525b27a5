//! `check` before a plan: what the agents lack is named, with what gives it.

use handover_tests::bed::{Bed, Dataset};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::server::{Engine, Server};
use serde_json::Value;

fn bed(root: &tempfile::TempDir, dataset: Dataset) -> Bed {
    Bed::at(root.path(), Binaries::find(Profile::Same).unwrap(), vec![dataset], "info").unwrap()
}

/// The findings that matter, and the exit code.
fn check(bed: &Bed) -> (Vec<(String, String)>, Option<i32>) {
    let output = bed.cli(&["--json", "check"]).unwrap();
    let document: Value = serde_json::from_str(&output.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let errors = findings.filter(|finding| finding["severity"] == "ERROR");
    (errors.map(|finding| (text(finding, "what"), text(finding, "hint"))).collect(), output.code)
}

#[test]
fn missing_privileges_come_with_the_statements_that_give_them() {
    for (engine, poor) in [
        (Engine::Mariadb, "CREATE USER poor@localhost; GRANT SELECT ON app.* TO poor@localhost"),
        (
            Engine::Postgres,
            "CREATE ROLE poor LOGIN; GRANT CONNECT ON DATABASE app TO poor; GRANT USAGE ON SCHEMA public TO poor",
        ),
    ] {
        let server =
            Server::start(engine, &["--local-infile=1"][..usize::from(engine == Engine::Mariadb)]).unwrap();
        server.create("app").unwrap();
        server.run("app", "CREATE TABLE t (a INT PRIMARY KEY); CREATE VIEW v AS SELECT a FROM t;").unwrap();
        server.run("app", poor).unwrap();
        let root = tempfile::tempdir().unwrap();
        let administrator = if engine == Engine::Mariadb { "root@" } else { "postgres@" };
        let url = |database| server.url(database).replace(administrator, "poor@");
        let bed =
            bed(&root, Dataset::Server { name: "app".to_owned(), source: url("app"), target: url("landed") });
        let (errors, code) = check(&bed);
        assert_eq!(code, Some(5), "{errors:?}");
        for side in ["at the source: ", "at the target: "] {
            assert!(errors.iter().any(|(what, _)| what.starts_with(side)), "{side}: {errors:?}");
        }
        // One says that it cannot be read, and what of that cannot.
        for (_, hint) in errors.iter().filter(|(what, _)| what.starts_with("at the ")) {
            server.run("app", hint).unwrap();
        }
        assert_eq!(check(&bed), (Vec::new(), Some(0)), "after what the hints say");
        bed.start().unwrap();
        bed.settle(super::SETTLES_WITHIN).unwrap();
        assert_eq!(server.run("landed", "SELECT COUNT(*) FROM t").unwrap().trim(), "0");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("files");
    std::fs::create_dir(&source).unwrap();
    let target = root.path().join("landed");
    let mut bed = bed(&root, Dataset::Files { name: "files".to_owned(), source, target: target.clone() });
    assert_eq!(check(&bed), (Vec::new(), Some(0)));
    let manifest = bed.root().join("target/appliance.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace(target.to_str().unwrap(), "/proc/sys/files")).unwrap();
    bed.target.restart().unwrap();
    let (errors, code) = check(&bed);
    assert_eq!((errors.len(), code), (1, Some(5)), "{errors:?}");
    assert!(errors[0].0.contains("/proc/sys cannot be written to"), "{errors:?}");
}
