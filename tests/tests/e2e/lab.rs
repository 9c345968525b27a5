//! On whole hosts: services, packages, a link, a crash of a host.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use handover_tests::bed::Output;
use handover_tests::lab::{Host, Lab, Shape};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use serde_json::Value;

const ROWS: u32 = 60_000;
const WITHIN: Duration = Duration::from_secs(60);
const URL: &str = "mariadb://handover:secret@127.0.0.1:3306/shop";
/// Every row, in an order: equal digests are equal tables.
const CONTENT: &str = "mariadb --batch -e 'SELECT * FROM customer ORDER BY id; SELECT * FROM note ORDER BY id' shop | sha256sum";

#[test]
fn two_hosts_see_each_other_until_the_link_is_cut() {
    let lab = Lab::up("ping", &["a", "b"]).unwrap();
    let ping = || lab.host("a").unwrap().exec(&["ping", "-c", "1", "-W", "1", "b"]).unwrap().code;
    assert_eq!(ping(), Some(0));
    lab.shape(&Shape { cut: true, ..Shape::default() }).unwrap();
    poll::until("the link to be cut", WITHIN, || Ok((ping() == Some(1)).then_some(()))).unwrap();
    lab.shape(&Shape::default()).unwrap();
    lab.host("b").unwrap().crash().unwrap();
    assert_eq!(ping(), Some(1));
    lab.host("b").unwrap().boot().unwrap();
    poll::until("the other host", WITHIN, || Ok((ping() == Some(0)).then_some(()))).unwrap();
}

#[test]
fn two_hosts_hand_a_database_over_though_one_crashes() {
    let lab = Lab::up("move", &["a", "b"]).unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    prepare(&lab, a, b).unwrap();
    a.sh(&fill()).unwrap();
    lab.shape(&Shape { delay_ms: 5, rate: 8_000_000, ..Shape::default() }).unwrap();

    let plan = json(b, &["plan", "--follow"]).unwrap();
    json(b, &["start", plan["digest"].as_str().unwrap()]).unwrap();
    poll::until("rows on their way", WITHIN, || {
        let done = json(b, &["status"])?["progress"]["bytes_done"].as_u64().unwrap_or(0);
        Ok((done > 0).then_some(()))
    })
    .unwrap();
    a.crash().unwrap();
    let during = json(b, &["status"]).unwrap();
    assert_eq!(during["phase"], "copying", "the crash came too late: {during}");
    a.boot().unwrap();
    lab.shape(&Shape::default()).unwrap();
    a.sh("mariadb shop -e \"UPDATE customer SET name = 'after the crash' WHERE id % 100 = 1\"").unwrap();
    followed(b);

    b.exec(&verb(&["cutover", "--watch"])).unwrap().success().unwrap();
    assert_eq!(json(b, &["status"]).unwrap()["phase"], "trial");
    assert_eq!(a.sh(CONTENT).unwrap(), b.sh(CONTENT).unwrap());
    let arrived = b.sh("mariadb -N shop -e \"SELECT count(*) FROM customer WHERE name = 'after the crash'\"");
    assert_eq!(arrived.unwrap().trim(), (ROWS / 100).to_string());
    assert_eq!(a.sh("systemctl is-active handover-source").unwrap().trim(), "active");
}

#[test]
fn packages_keep_what_is_the_operators() {
    let lab = Lab::up("package", &["a", "b"]).unwrap();
    lab.install_agents("a").unwrap();
    let b = lab.host("b").unwrap();
    let install = "dpkg --install /root/handover-target_*.deb";
    // Without a manifest there is nothing to serve yet.
    let state = b.exec(&["systemctl", "is-active", "handover-target"]).unwrap();
    assert_eq!(state.stdout.trim(), "inactive");
    b.sh(&format!("echo '# mine' >> /etc/handover/target.toml; touch /var/lib/handover/mine; {install}"))
        .unwrap();
    // An agent that says it is in the middle of something.
    let agent = "#!/bin/sh\n[ \"$1\" = --help ] && echo --check-upgrade && exit\necho busy; exit 1\n";
    fs::write(b.root().join("usr/bin/handover-target"), agent).unwrap();
    b.sh("touch /etc/handover/appliance.toml").unwrap();
    let refused = b.exec(&["sh", "-c", install]).unwrap();
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.text().contains("busy") && refused.text().contains("would disturb"),
        "{}",
        refused.text()
    );
    b.sh("dpkg --remove handover-agent-target; test -e /var/lib/handover/mine; grep -x '# mine' /etc/handover/target.toml")
        .unwrap();
    assert!(!b.root().join("usr/bin/handover-target").exists());
}

/// Waits until nothing waits any more that was told so far.
fn followed(b: &Host) {
    let mut last = Value::Null;
    let caught_up = poll::until("the target to catch up", WITHIN, || {
        last = json(b, &["status"])?;
        anyhow::ensure!(last["condition"] == "good", "{last}");
        Ok((last["following"]["shop"]["waiting"] == 0).then_some(()))
    });
    if let Err(error) = caught_up {
        let log = b.sh("journalctl --no-pager -n 30 -u handover-target").unwrap_or_default();
        panic!("{error:#}\n{last}\n{log}");
    }
}

fn verb<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["handover", "--target", "b:7432", "--identity", "/root/operator"];
    all.extend(words);
    all
}

fn json(b: &Host, words: &[&str]) -> Result<Value> {
    let mut all = verb(&["--json"]);
    all.extend(words);
    b.exec(&all)?.json()
}

/// Accounts and the binary log, packages, identities and manifests, as an operator would see to them.
fn prepare(lab: &Lab, a: &Host, b: &Host) -> Result<()> {
    let server = "[mariadb]\nlog_bin=mysql-bin\nbinlog_format=ROW\nlocal_infile=1\nserver_id=";
    for (host, id) in [(a, 1), (b, 2)] {
        fs::write(host.root().join("etc/mysql/mariadb.conf.d/90-handover.cnf"), format!("{server}{id}\n"))?;
        host.sh(
            "systemctl restart mariadb; mariadb -e \"CREATE USER handover@localhost IDENTIFIED BY 'secret'; \
             GRANT ALL ON *.* TO handover@localhost WITH GRANT OPTION\"",
        )?;
    }
    lab.install_agents("a")?;
    identities(a, b)?;
    for (host, side) in [(a, "source"), (b, "target")] {
        let etc = host.root().join("etc/handover");
        fs::write(etc.join("appliance.toml"), manifest(host.name()))?;
        if side == "target" {
            let config = fs::read_to_string(etc.join("target.toml"))?.replace("old:7431", "a:7431");
            // Both hosts share one machine: its load is no sign of users.
            let off = ["cpu_percent", "disk_percent", "replica_lag_seconds", "threads", "latency_ms"];
            let off: String = off.iter().map(|signal| format!("{signal} = \"off\"\n")).collect();
            fs::write(etc.join("target.toml"), format!("{config}\n[throttle]\n{off}"))?;
        }
        host.sh(&format!("systemctl restart handover-{side}; systemctl is-active handover-{side}"))?;
    }
    poll::until("the agents", WITHIN, || Ok(json(b, &["inspect"]).is_ok().then_some(())))
}

fn manifest(host: &str) -> String {
    format!(
        "[appliance]\nname = \"demo\"\nrelease = \"1.0\"\nrole = \"standalone\"\nhost_name = \"{host}\"\n\
         domain = \"demo.example\"\naddresses = []\n\n[[database]]\nname = \"shop\"\nurl = \"{URL}\"\n"
    )
}

fn identities(a: &Host, b: &Host) -> Result<()> {
    let temp = tempfile::tempdir()?;
    let cli = Binaries::find(Profile::Same)?.cli;
    let certs = |args: &[&str]| {
        Output::of(Command::new(&cli).arg("certs").args(args).current_dir(temp.path()))?.success()
    };
    certs(&["init", "--ca", "ca", "--trust-domain", "demo.example"])?;
    let issue = |role, name, to: &Path| {
        certs(&["issue", "--ca", "ca", "--role", role, "--name", name, "--out", &to.display().to_string()])
    };
    issue("source", "a", &a.root().join("etc/handover/identity"))?;
    issue("target", "b", &b.root().join("etc/handover/identity"))?;
    issue("operator", "alice", &b.root().join("root/operator"))?;
    Ok(())
}

fn fill() -> String {
    format!(
        "mariadb -e \"CREATE DATABASE shop; USE shop; \
         CREATE TABLE customer (id INT PRIMARY KEY, name VARCHAR(80), note VARCHAR(200), KEY (name)); \
         CREATE TABLE note (id INT AUTO_INCREMENT PRIMARY KEY, customer INT, body TEXT); \
         INSERT INTO customer SELECT seq, concat('name ', seq), concat(sha2(seq, 512), 'ü') FROM seq_1_to_{ROWS}; \
         INSERT INTO note (customer, body) SELECT seq, sha2(seq + 1, 256) FROM seq_1_to_5000\""
    )
}
