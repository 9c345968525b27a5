use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::minted::Ca;

/// The sticky /tmp is no way for anybody else to put another program there.
fn program(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("obtain");
    let new = dir.join("obtain.new");
    std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}

async fn run_it(dir: &Path, script: &str) -> Result<Pair, String> {
    let command = [program(dir, script).display().to_string(), dir.display().to_string()];
    let names = ["a.example".to_owned(), "b.example".to_owned()];
    obtain(&command, &names, &dir.join("obtained")).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_a_program_writes_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = Ca::root("Root").leaf(&["a.example"]);
    std::fs::write(dir.path().join("chain"), &leaf.chain).unwrap();
    std::fs::write(dir.path().join("key"), &leaf.key).unwrap();
    // What a former one has left is gone before it runs.
    std::fs::create_dir(dir.path().join("obtained")).unwrap();
    std::fs::write(dir.path().join("obtained/chain.pem"), "left").unwrap();
    let copy = "set -e; test \"$HANDOVER_NAMES\" = a.example,b.example; test ! -e \"$HANDOVER_CERTIFICATE\"\n\
                test \"$(stat -c %a \"$HOME\")\" = 700; cp $1/chain $HANDOVER_CERTIFICATE; cp $1/key $HANDOVER_KEY";
    let pair = run_it(dir.path(), copy).await.unwrap();
    assert!(pair == leaf.pair());
    assert!(!dir.path().join("obtained").exists());
}

#[tokio::test]
async fn what_fails_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for (script, part) in [
        ("echo no such domain >&2; exit 3", "failed (exit status: 3), saying: no such domain"),
        ("true", "has not written"),
        ("echo x > $HANDOVER_CERTIFICATE; echo x > $HANDOVER_KEY", "the certificate is not PEM"),
        ("kill -9 $$", "signal: 9"),
    ] {
        let told = run_it(dir.path(), script).await.unwrap_err();
        assert!(told.contains(part), "{script}: {told}");
    }
}

#[test]
fn programs_of_others_are_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = program(dir.path(), "true");
    assert!(trusted(&path).is_ok());
    for (mode, part) in
        [(0o775, "written to by others"), (0o757, "written to by others"), (0o644, "no program")]
    {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let told = trusted(&path).unwrap_err().to_string();
        assert!(told.contains(part), "{mode:o}: {told}");
    }
    let told = trusted(&dir.path().join("none")).unwrap_err().to_string();
    assert!(told.contains("is it installed?"), "{told}");
    let told = trusted(dir.path()).unwrap_err().to_string();
    assert!(told.contains("no program"), "{told}");
}
