//! On whole hosts: services of a target on trial that are sealed off or do not run yet, and its label.

use std::fs;
use std::time::Duration;

use handover_tests::lab::{Host, Kernel, Pair};
use handover_tests::poll;

const WITHIN: Duration = Duration::from_secs(60);
/// Another address of the source's: what is sealed off may reach that one.
const ALLOWED: &str = "10.77.0.11";
const AT_SOURCE: &str = "\n[[service]]\nunit = \"web\"\n";
const AT_TARGET: &str = r#"
[[service]]
unit = "web"
order = 1

[[service]]
unit = "caller"
order = 2
trial = "sealed"
trial_allow = ["10.77.0.11"]

[[service]]
unit = "mailer"
order = 3
trial = "stopped"

[label]
file = "/etc/label.conf"
template = "label = {label}"
reload = ["web.service"]
"#;
/// Says all the time whom it reaches: by a datagram, and by what it writes down.
const CALLS: &str = r#"#!/bin/bash
opens() { timeout 1 bash -c ": </dev/tcp/$1" 2>/dev/null && echo yes || echo no; }
asks() { timeout 1 mariadb --socket=/run/mysqld/mysqld.sock -e 'SELECT 1' >/dev/null 2>&1 && echo yes || echo no; }
while :; do
    (echo "$1" > /dev/udp/a/7777) 2>/dev/null
    said="source $(opens a/7431), allowed $(opens 10.77.0.11/7431), itself $(opens 127.0.0.1/3306), socket $(asks)"
    echo "$said" > "/run/$1.new" && mv "/run/$1.new" "/run/$1.says"
    sleep 0.1
done
"#;
const LABEL: &str = "/bin/sh -c 'cat /etc/label.conf > /run/label 2>/dev/null || rm -f /run/label'";
/// Takes datagrams, and notes what they say.
const HEARS: [(&str, &str); 2] = [
    ("hears.socket", "[Socket]\nListenDatagram=7777\n"),
    (
        "hears.service",
        "[Service]\nExecStart=/bin/cat\nStandardInput=socket\nStandardOutput=append:/run/heard\n",
    ),
];
const ALL: &str = "source yes, allowed yes, itself yes, socket yes";
const SEALED: &str = "source no, allowed yes, itself yes, socket yes";

/// What services of the target reach.
#[derive(Debug, PartialEq, Eq)]
struct Reached {
    /// The service that is always open.
    web: String,
    /// The one that is sealed off on trial.
    caller: String,
    /// Whose datagrams arrive at the source.
    heard: String,
}

impl Reached {
    fn of(caller: &str, heard: &str) -> Self {
        Self { web: ALL.to_owned(), caller: caller.to_owned(), heard: heard.to_owned() }
    }
}

/// An appliance on two hosts whose target seals one service off, and leaves one out.
struct OnTrial {
    pair: Pair,
}

impl OnTrial {
    fn up(name: &str, at_target: &str) -> Self {
        let pair = Pair::up(name, AT_SOURCE, at_target).unwrap();
        for host in pair.lab.hosts() {
            let label = format!("ExecStartPre={LABEL}\nExecReload={LABEL}\n");
            unit(host, "web", "/bin/bash /usr/local/bin/calls web", &label);
            unit(host, "caller", "/bin/bash /usr/local/bin/calls caller", "");
            unit(host, "mailer", "/bin/sleep infinity", "");
            fs::write(host.root().join("usr/local/bin/calls"), CALLS).unwrap();
            host.sh("systemctl daemon-reload").unwrap();
        }
        let a = pair.a();
        for (name, text) in HEARS {
            fs::write(a.root().join("etc/systemd/system").join(name), text).unwrap();
        }
        a.sh(&format!(
            "systemctl daemon-reload; systemctl start hears.socket; ip address add {ALLOWED}/24 dev lan0; \
             mariadb -e 'CREATE DATABASE shop; CREATE TABLE shop.sale (id INT PRIMARY KEY)'; systemctl enable --now web"
        ))
        .unwrap();
        Self { pair }
    }

    /// Whether the target can seal services off; one that cannot is told by its name, and nothing is planned.
    fn can_seal(&self) -> bool {
        let findings = self.pair.cli(&["check", "--follow"]).unwrap().text();
        let found = findings.contains("service caller.service: at the target: it cannot be sealed off");
        assert_eq!(found, findings.contains("sealed off"), "{findings}");
        if found {
            let refused = self.pair.cli(&["plan", "--follow"]).unwrap();
            assert_eq!(refused.code, Some(5), "{}", refused.text());
        }
        !found
    }

    /// The target crashes and boots, on such a kernel.
    fn boot(&self, kernel: Kernel) {
        self.pair.b().crash().unwrap();
        self.pair.b().boot_on(kernel).unwrap();
        poll::until("the agent", WITHIN, || Ok(self.pair.json(&["inspect"]).is_ok().then_some(()))).unwrap();
    }

    fn take_over(&self) {
        self.pair.follow(&[]).unwrap();
        self.pair.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
        self.pair.rests_in("trial").unwrap();
    }

    /// What both services have found out since this was asked.
    fn reached(&self) -> Reached {
        let (a, b) = (self.pair.a(), self.pair.b());
        let says = |unit: &str| {
            let said = poll::until(unit, WITHIN, || {
                let said = b.sh(&format!("cat /run/{unit}.says 2>/dev/null || true"))?;
                Ok(Some(said.trim().to_owned()).filter(|said| !said.is_empty()))
            });
            said.unwrap()
        };
        a.sh("touch /run/heard; truncate -s 0 /run/heard").unwrap();
        let mut said = (String::new(), String::new());
        // The second round has begun after this was asked.
        for _ in 0..2 {
            b.sh("rm -f /run/*.says").unwrap();
            said = (says("web"), says("caller"));
        }
        let heard = a.sh("sort -u /run/heard | xargs").unwrap().trim().to_owned();
        Reached { web: said.0, caller: said.1, heard }
    }

    fn states(&self) -> Vec<String> {
        let shown = self.pair.b().sh("for unit in web caller mailer; do echo $(systemctl is-active $unit) $(systemctl is-enabled $unit); done");
        shown.unwrap().lines().map(str::to_owned).collect()
    }

    fn seals(&self) -> String {
        let seals = "ls /etc/systemd/system/*.d/zz-handover-trial.conf 2>/dev/null || true";
        self.pair.b().sh(seals).unwrap().trim().to_owned()
    }

    fn label(&self) -> String {
        self.pair.b().sh("cat /run/label 2>/dev/null || true").unwrap().trim().to_owned()
    }
}

/// A unit of a host that runs something all the time.
fn unit(host: &Host, name: &str, runs: &str, more: &str) {
    let text = format!("[Service]\nExecStart={runs}\n{more}\n[Install]\nWantedBy=multi-user.target\n");
    fs::write(host.root().join(format!("etc/systemd/system/{name}.service")), text).unwrap();
}

#[test]
fn services_on_trial_are_sealed_off_or_do_not_run() {
    let trial = OnTrial::up("trial", AT_TARGET);
    let pair = &trial.pair;
    // Where the kernel seals nothing off, that is said before.
    trial.boot(Kernel::WithoutBpf);
    assert!(!trial.can_seal());
    trial.boot(Kernel::Whole);
    assert!(trial.can_seal(), "the lab's hosts seal nothing off: has this kernel BPF for control groups?");

    trial.take_over();
    assert_eq!(trial.seals(), "/etc/systemd/system/caller.service.d/zz-handover-trial.conf");
    assert_eq!(trial.states(), ["active enabled", "active enabled", "inactive disabled"]);
    assert_eq!(trial.label(), "label = Warning: Migration Environment.");
    assert_eq!(trial.reached(), Reached::of(SEALED, "web"));
    // It is sealed off after a boot, too.
    trial.boot(Kernel::Whole);
    pair.rests_in("trial").unwrap();
    assert_eq!(trial.reached(), Reached::of(SEALED, "web"));
    assert_eq!(trial.states(), ["active enabled", "active enabled", "inactive disabled"]);

    pair.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(trial.states(), ["inactive disabled", "inactive disabled", "inactive disabled"]);
    assert_eq!(trial.seals(), "");
    assert_eq!(pair.a().sh("systemctl is-active web").unwrap().trim(), "active");

    trial.take_over();
    assert_eq!(trial.reached(), Reached::of(SEALED, "web"));
    pair.json(&["accept"]).unwrap();
    poll::until("the end of the trial", WITHIN, || {
        let status = pair.json(&["status"])?;
        anyhow::ensure!(status["condition"] == "good", "{status}\n{}", pair.logs());
        Ok((status["activity"] == "idle").then_some(()))
    })
    .unwrap();
    assert_eq!(trial.states(), ["active enabled", "active enabled", "active enabled"]);
    assert_eq!((trial.seals(), trial.label()), (String::new(), String::new()));
    assert_eq!(trial.reached(), Reached::of(ALL, "caller web"));
}
