//! On whole hosts: services of a target on trial that are sealed off or do not run yet, and its label.

use std::fs;
use std::time::Duration;

use handover_tests::lab::Pair;
use handover_tests::poll;
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(60);
const AT_SOURCE: &str = "\n[[service]]\nunit = \"web\"\n";
const AT_TARGET: &str = r#"
[[service]]
unit = "web"
order = 1

[[service]]
unit = "caller"
order = 2
trial = "sealed"

[[service]]
unit = "mailer"
order = 3
trial = "stopped"

[label]
file = "/etc/label.conf"
template = "label = {label}"
reload = ["web.service"]
"#;
/// Says all the time whether it reaches the other host.
const CALLS: &str = "while :; do if timeout 1 bash -c \": </dev/tcp/a/7431\" 2>/dev/null; then echo yes; else echo no; fi > /run/reached; sleep 0.1; done";
const WEB: &str = "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'cat /etc/label.conf > /run/label 2>/dev/null || rm -f /run/label'\n\
                   ExecStartPre=/bin/sh -c 'cat /etc/label.conf > /run/label 2>/dev/null || rm -f /run/label'\n[Install]\nWantedBy=multi-user.target\n";

/// An appliance on two hosts whose target seals one service off, and leaves one out.
struct OnTrial {
    pair: Pair,
}

impl OnTrial {
    fn up(name: &str, at_target: &str) -> Self {
        let pair = Pair::up(name, AT_SOURCE, at_target).unwrap();
        for host in pair.lab.hosts() {
            let units = host.root().join("etc/systemd/system");
            let unit = |run: &str| {
                format!("[Service]\nExecStart=/bin/bash -c '{run}'\n[Install]\nWantedBy=multi-user.target\n")
            };
            fs::write(units.join("web.service"), WEB).unwrap();
            fs::write(units.join("caller.service"), unit(CALLS)).unwrap();
            fs::write(units.join("mailer.service"), unit("sleep infinity")).unwrap();
            host.sh("systemctl daemon-reload").unwrap();
        }
        pair.a().sh("mariadb -e 'CREATE DATABASE shop; CREATE TABLE shop.sale (id INT PRIMARY KEY)'; systemctl enable --now web").unwrap();
        Self { pair }
    }

    /// Whether the host's kernel keeps services from the network; one that does not is told by its name.
    fn can_seal(&self) -> bool {
        let findings = self.pair.cli(&["check", "--follow"]).unwrap().text();
        let found = findings.contains("service caller.service: at the target: it cannot be sealed off");
        assert_eq!(found, findings.contains("sealed off"), "{findings}");
        !found
    }

    fn seal_nothing(&self) {
        let b = self.pair.b();
        b.sh(
            "sed -i 's/\"sealed\"/\"open\"/' /etc/handover/appliance.toml; systemctl restart handover-target",
        )
        .unwrap();
        poll::until("the agent", WITHIN, || Ok(self.pair.json(&["inspect"]).is_ok().then_some(()))).unwrap();
    }

    fn plan(&self) -> Value {
        self.pair.json(&["plan", "--follow"]).unwrap()
    }

    fn take_over(&self) {
        self.pair.json(&["start", self.plan()["digest"].as_str().unwrap()]).unwrap();
        self.reach("following");
        self.pair.followed().unwrap();
        self.pair.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
        self.reach("trial");
    }

    fn reach(&self, phase: &str) {
        let reached = poll::until(phase, WITHIN, || {
            let Ok(status) = self.pair.json(&["status"]) else { return Ok(None) };
            anyhow::ensure!(status["condition"] == "good", "{status}\n{}", self.pair.logs());
            Ok((status["phase"] == phase).then_some(()))
        });
        reached.unwrap();
    }

    /// Waits until the service that calls says so.
    fn calls(&self, expected: &str) {
        let b = self.pair.b();
        b.sh("rm -f /run/reached").unwrap();
        let said = poll::until("the caller's word", WITHIN, || {
            let said = b.sh("cat /run/reached 2>/dev/null || true")?;
            Ok(Some(said.trim().to_owned()).filter(|said| !said.is_empty()))
        });
        assert_eq!(said.unwrap(), expected, "{}", self.pair.logs());
    }

    fn states(&self) -> Vec<String> {
        let shown = self.pair.b().sh("for unit in web caller mailer; do echo $(systemctl is-active $unit) $(systemctl is-enabled $unit); done");
        shown.unwrap().lines().map(str::to_owned).collect()
    }

    fn seals(&self) -> String {
        self.pair
            .b()
            .sh("ls /etc/systemd/system/*.d/zz-handover-trial.conf 2>/dev/null || true")
            .unwrap()
            .trim()
            .to_owned()
    }

    fn label(&self) -> String {
        self.pair.b().sh("cat /run/label 2>/dev/null || true").unwrap().trim().to_owned()
    }
}

#[test]
fn services_on_trial_are_sealed_off_or_do_not_run() {
    let trial = OnTrial::up("trial", AT_TARGET);
    let (pair, b) = (&trial.pair, trial.pair.b());
    // Where the kernel seals nothing off, that is said before, and the rest goes on without.
    let (told, reaches) = match trial.can_seal() {
        true => ("no", "/etc/systemd/system/caller.service.d/zz-handover-trial.conf"),
        false => ("yes", ""),
    };
    if told == "yes" {
        let refused = pair.cli(&["plan", "--follow"]).unwrap();
        assert_eq!(refused.code, Some(5), "{}", refused.text());
        trial.seal_nothing();
    }
    trial.take_over();
    assert_eq!(trial.seals(), reaches);
    assert_eq!(trial.states(), ["active enabled", "active enabled", "inactive disabled"]);
    assert_eq!(trial.label(), "label = Warning: Migration Environment.");
    trial.calls(told);
    // It is sealed off after a boot, too.
    b.crash().unwrap();
    b.boot().unwrap();
    trial.reach("trial");
    trial.calls(told);
    assert_eq!(trial.states(), ["active enabled", "active enabled", "inactive disabled"]);

    pair.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(trial.states(), ["inactive disabled", "inactive disabled", "inactive disabled"]);
    assert_eq!(trial.seals(), "");
    assert_eq!(pair.a().sh("systemctl is-active web").unwrap().trim(), "active");

    trial.take_over();
    trial.calls(told);
    pair.json(&["accept"]).unwrap();
    poll::until("the end of the trial", WITHIN, || {
        let status = pair.json(&["status"])?;
        anyhow::ensure!(status["condition"] == "good", "{status}\n{}", pair.logs());
        Ok((status["activity"] == "idle").then_some(()))
    })
    .unwrap();
    assert_eq!(trial.states(), ["active enabled", "active enabled", "active enabled"]);
    assert_eq!((trial.seals(), trial.label()), (String::new(), String::new()));
    trial.calls("yes");
}
