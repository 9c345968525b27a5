//! On whole hosts: services, packages, a link, a crash of a host. All tests that need such hosts are in here: where none can be booted they are
//! left out by this module's name.

#[path = "lab/changeover.rs"]
mod changeover;
#[path = "lab/lease.rs"]
mod lease;
#[path = "lab/trial.rs"]
mod trial;

use std::fs;
use std::time::Duration;

use handover_tests::lab::{Lab, Pair, Shape};
use handover_tests::poll;

const ROWS: u32 = 60_000;
const WITHIN: Duration = Duration::from_secs(60);
/// How exposed systemd may find the units, in tenths: each of them is just below.
const EXPOSURE: [(&str, u32); 2] = [("source", 30), ("target", 31)];
const EXPOSURE_OF_WATCH: u32 = 32;
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
    let pair = Pair::up("move", "", "").unwrap();
    let (lab, a, b) = (&pair.lab, pair.a(), pair.b());
    a.sh(&fill()).unwrap();
    lab.shape(&Shape { delay_ms: 5, rate: 8_000_000, ..Shape::default() }).unwrap();

    let plan = pair.json(&["plan", "--follow"]).unwrap();
    pair.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    poll::until("rows on their way", WITHIN, || {
        let done = pair.json(&["status"])?["progress"]["bytes_done"].as_u64().unwrap_or(0);
        Ok((done > 0).then_some(()))
    })
    .unwrap();
    a.crash().unwrap();
    let during = pair.json(&["status"]).unwrap();
    assert_eq!(during["phase"], "copying", "the crash came too late: {during}");
    a.boot().unwrap();
    lab.shape(&Shape::default()).unwrap();
    a.sh("mariadb shop -e \"UPDATE customer SET name = 'after the crash' WHERE id % 100 = 1\"").unwrap();
    pair.followed().unwrap();

    pair.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(pair.json(&["status"]).unwrap()["phase"], "trial");
    assert_eq!(a.sh(CONTENT).unwrap(), b.sh(CONTENT).unwrap());
    let arrived = b.sh("mariadb -N shop -e \"SELECT count(*) FROM customer WHERE name = 'after the crash'\"");
    assert_eq!(arrived.unwrap().trim(), (ROWS / 100).to_string());
    assert_eq!(a.sh("systemctl is-active handover-source").unwrap().trim(), "active");
}

#[test]
fn packages_keep_what_is_the_operators() {
    let lab = Lab::up("package", &["a", "b"]).unwrap();
    lab.install_agents("a").unwrap();
    units_are_whole_and_hardened(&lab);
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

/// Nothing in the units is unknown to systemd, and they let the agents do no more than they need.
fn units_are_whole_and_hardened(lab: &Lab) {
    for (host, (side, exposure)) in lab.hosts().iter().zip(EXPOSURE) {
        let (agent, watch) = (format!("handover-{side}.service"), format!("handover-{side}-deadman.service"));
        let path = format!("handover-{side}-deadman.path");
        let verified = host.exec(&["systemd-analyze", "verify", "--man=no", &agent, &watch, &path]).unwrap();
        assert!(verified.code == Some(0) && !verified.text().contains("handover"), "{}", verified.text());
        for (unit, exposure) in [(agent, exposure), (watch, EXPOSURE_OF_WATCH)] {
            let threshold = format!("--threshold={exposure}");
            let judged =
                host.exec(&["systemd-analyze", "security", "--no-pager", &threshold, &unit]).unwrap();
            assert_eq!(judged.code, Some(0), "{}", judged.text());
        }
    }
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
