//! Which crate may depend on which: arrows point inward, and the engine knows no adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use handover_tests::locate::workspace_root;
use serde_json::Value;

/// Every crate of the workspace with the ones it may depend on.
const ARROWS: [(&str, &[&str]); 18] = [
    ("handover-proto", &[]),
    ("handover-certs", &[]),
    ("handover-engine", &[]),
    ("handover-backups", &["handover-engine"]),
    ("handover-certificates", &["handover-engine"]),
    ("handover-dns", &["handover-engine"]),
    ("handover-mariadb", &["handover-engine"]),
    ("handover-notices", &["handover-engine"]),
    ("handover-postgres", &["handover-engine"]),
    ("handover-services", &["handover-engine"]),
    ("handover-settings", &["handover-engine", "handover-services"]),
    (
        "handover-platform",
        &[
            "handover-engine",
            "handover-backups",
            "handover-certificates",
            "handover-dns",
            "handover-mariadb",
            "handover-notices",
            "handover-postgres",
            "handover-services",
            "handover-settings",
        ],
    ),
    ("handover-transport", &["handover-engine", "handover-proto", "handover-certs"]),
    ("handover-agent-source", AGENT),
    ("handover-agent-target", AGENT),
    ("handover-cli", &["handover-transport", "handover-engine", "handover-certs"]),
    ("handover-tests", &[]),
    ("xtask", &["handover-tests"]),
];
const AGENT: &[&str] = &["handover-engine", "handover-platform", "handover-transport", "handover-certs"];

/// What would bring sockets, databases, processes or files into the engine.
const NOT_IN_THE_ENGINE: [&str; 20] = [
    "fastcdc",
    "globset",
    "hickory-proto",
    "http",
    "hyper",
    "hyper-util",
    "nix",
    "prost",
    "rusqlite",
    "rustix",
    "rustls",
    "sqlx",
    "sysinfo",
    "tempfile",
    "tokio-rustls",
    "toml",
    "tonic",
    "tower",
    "walkdir",
    "zstd",
];

/// Direct dependencies of every crate of the workspace, those of tests left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace_root()).args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let normal =
                package["dependencies"].as_array().unwrap().iter().filter(|dep| dep["kind"] != "dev");
            (text(&package["name"]), normal.map(|dep| text(&dep["name"])).collect())
        })
        .collect()
}

#[test]
fn arrows_point_inward() {
    let found = dependencies();
    let named: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), named, "every crate has its line in ARROWS");
    for (name, allowed) in ARROWS {
        let own = found[name].iter().filter(|dep| named.contains(*dep));
        let wrong: Vec<_> = own.filter(|dep| !allowed.contains(&dep.as_str())).collect();
        assert!(wrong.is_empty(), "{name} may not depend on {wrong:?}");
    }
}

#[test]
fn the_engine_knows_no_adapter() {
    let found = &dependencies()["handover-engine"];
    let wrong: Vec<_> = NOT_IN_THE_ENGINE.iter().filter(|name| found.contains(**name)).collect();
    assert!(wrong.is_empty(), "the engine may not depend on {wrong:?}");
}

#[test]
fn sources_are_where_the_arrows_say() {
    for folder in ["agent-source", "agent-target", "proto", "certs", "tests"] {
        assert!(workspace_root().join(folder).is_dir(), "{folder}");
    }
}
