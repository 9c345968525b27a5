//! Two hosts of a lab with MariaDB and the agents, as an operator would set them up: `a` is the source, `b` the target.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::host::address;
use super::{Host, Lab};
use crate::bed::Output;
use crate::locate::{Binaries, Profile};
use crate::poll;

const URL: &str = "mariadb://handover:secret@127.0.0.1:3306/shop";
const WITHIN: Duration = Duration::from_secs(60);
/// With a swap both hosts boot in between.
const RESTS_WITHIN: Duration = Duration::from_secs(180);

/// The two hosts. Their agents serve the database `shop`.
#[derive(Debug)]
pub struct Pair {
    /// The lab they are in.
    pub lab: Lab,
}

impl Pair {
    /// Boots both and sets them up, with these sections more in their manifests.
    pub fn up(name: &str, at_source: &str, at_target: &str) -> Result<Self> {
        Self::among(name, &["a", "b"], "", at_source, at_target)
    }

    /// The same, among further hosts with a database server each, all of them with these options.
    pub fn among(
        name: &str,
        hosts: &[&str],
        options: &str,
        at_source: &str,
        at_target: &str,
    ) -> Result<Self> {
        let pair = Self { lab: Lab::up(name, hosts)? };
        pair.servers(options)?;
        pair.lab.install_agents("a")?;
        pair.identities()?;
        pair.agents(at_source, at_target)?;
        Ok(pair)
    }

    /// The host that is the source.
    pub fn a(&self) -> &Host {
        &self.lab.hosts()[0]
    }

    /// The host that is the target.
    pub fn b(&self) -> &Host {
        &self.lab.hosts()[1]
    }

    /// Runs the command line at the target, as its operator.
    pub fn cli(&self, words: &[&str]) -> Result<Output> {
        Output::of(self.operator()?.args(words).stdin(Stdio::null()))
    }

    /// The command line at the target, ready to be given its words.
    pub fn operator(&self) -> Result<Command> {
        let mut command = self.b().beside(&Binaries::find(Profile::Same)?.cli);
        // By no address of the host's own: that may be swapped.
        command.args(["--target", "127.0.0.1:7432", "--identity"]).arg(self.b().root().join("root/operator"));
        Ok(command)
    }

    /// The same, for its document.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["--json"];
        all.extend(words);
        self.cli(&all)?.json()
    }

    /// Restarts the target's agent, and waits until it answers.
    pub fn restart_target(&self) -> Result<()> {
        self.b().sh("systemctl restart handover-target")?;
        poll::until("the target's agent", WITHIN, || Ok((self.cli(&["list"])?.code == Some(0)).then_some(())))
    }

    /// Waits until nothing waits any more that was told so far.
    pub fn followed(&self) -> Result<()> {
        let mut last = Value::Null;
        let caught_up = poll::until("the target to catch up", WITHIN, || {
            last = self.json(&["status"])?;
            ensure!(last["condition"] == "good", "{last}");
            Ok((last["following"]["shop"]["waiting"] == 0).then_some(()))
        });
        caught_up.with_context(|| format!("{last}\n{}", self.logs()))
    }

    /// Plans with these options, copies, and waits until the target follows. The plan.
    pub fn follow(&self, options: &[&str]) -> Result<Value> {
        let plan = self.plan(options)?;
        self.start(&plan)?;
        poll::until("the copy", WITHIN, || Ok((self.status()?["phase"] == "following").then_some(())))?;
        self.followed()?;
        Ok(plan)
    }

    /// A plan with these options.
    pub fn plan(&self, options: &[&str]) -> Result<Value> {
        self.json(&[&["plan", "--follow"], options].concat())
    }

    /// Starts what was planned.
    pub fn start(&self, plan: &Value) -> Result<()> {
        let digest = plan["digest"].as_str().with_context(|| format!("no plan: {plan}"))?;
        self.json(&["start", digest]).map(drop)
    }

    /// The migration now.
    pub fn status(&self) -> Result<Value> {
        self.json(&["status"])
    }

    /// Waits until the migration has come to rest in a phase. Its agent may be away meanwhile.
    pub fn rests_in(&self, phase: &str) -> Result<Value> {
        let mut last = Value::Null;
        let done = poll::until(&format!("the migration to be in {phase}"), RESTS_WITHIN, || {
            let Ok(status) = self.status() else { return Ok(None) };
            last = status;
            ensure!(last["condition"] == "good", "{last}");
            Ok((last["phase"] == phase).then_some(()))
        });
        done.with_context(|| format!("{last}\n{}", self.logs()))?;
        Ok(last)
    }

    /// The agents' last words, for a failure.
    pub fn logs(&self) -> String {
        let of = |host: &Host, side: &str| {
            host.sh(&format!("journalctl --no-pager -n 40 -u 'handover-{side}*'")).unwrap_or_default()
        };
        format!("{}\n{}", of(self.a(), "source"), of(self.b(), "target"))
    }

    /// Accounts and the binary log.
    fn servers(&self, options: &str) -> Result<()> {
        let server = "[mariadb]\nlog_bin=mysql-bin\nbinlog_format=ROW\nlocal_infile=1\nserver_id=";
        for (id, host) in self.lab.hosts().iter().enumerate() {
            let file = host.root().join("etc/mysql/mariadb.conf.d/90-handover.cnf");
            fs::write(file, format!("{server}{}\n{options}", id + 1))?;
            host.sh(
                "systemctl restart mariadb; mariadb -e \"CREATE USER handover@localhost IDENTIFIED BY 'secret'; \
                 GRANT ALL ON *.* TO handover@localhost WITH GRANT OPTION\"",
            )?;
        }
        Ok(())
    }

    fn agents(&self, at_source: &str, at_target: &str) -> Result<()> {
        let sides = [(self.a(), "source", at_source), (self.b(), "target", at_target)];
        for (at, (host, side, more)) in sides.into_iter().enumerate() {
            let etc = host.root().join("etc/handover");
            fs::write(etc.join("appliance.toml"), manifest(host.name(), at) + more)?;
            if side == "target" {
                let (now, swapped) = (address(0), address(1));
                let source = format!("address = \"{now}:7431\"\nothers = [\"{swapped}:7431\"]");
                let config = fs::read_to_string(etc.join("target.toml"))?;
                let config = config.replace("address = \"old:7431\"", &source);
                // Both hosts share one machine: its load is no sign of users.
                let off = ["cpu_percent", "disk_percent", "replica_lag_seconds", "threads", "latency_ms"];
                let off: String = off.iter().map(|signal| format!("{signal} = \"off\"\n")).collect();
                fs::write(etc.join("target.toml"), format!("{config}\n[throttle]\n{off}"))?;
            }
            // For settings and certificates.
            host.sh(&format!(
                "mkdir -p /etc/systemd/system/handover-{side}.service.d; \
                 printf '[Service]\\nReadWritePaths=/etc\\n' > /etc/systemd/system/handover-{side}.service.d/etc.conf; \
                 systemctl daemon-reload; \
                 systemctl restart handover-{side}; systemctl is-active handover-{side}"
            ))?;
        }
        poll::until("the agents", WITHIN, || Ok(self.json(&["inspect"]).is_ok().then_some(())))
            .with_context(|| self.logs())
    }

    fn identities(&self) -> Result<()> {
        let temp = tempfile::tempdir()?;
        let cli = Binaries::find(Profile::Same)?.cli;
        let certs = |args: &[&str]| {
            Output::of(Command::new(&cli).arg("certs").args(args).current_dir(temp.path()))?.success()
        };
        certs(&["init", "--ca", "ca", "--trust-domain", "demo.example"])?;
        let issue = |role, name, to: &Path| {
            let out = to.display().to_string();
            certs(&["issue", "--ca", "ca", "--role", role, "--name", name, "--out", &out])
        };
        issue("source", "a", &self.a().root().join("etc/handover/identity"))?;
        issue("target", "b", &self.b().root().join("etc/handover/identity"))?;
        issue("operator", "alice", &self.b().root().join("root/operator"))?;
        Ok(())
    }
}

fn manifest(host: &str, index: usize) -> String {
    let address = address(index);
    format!(
        "[appliance]\nname = \"demo\"\nrelease = \"1.0\"\nrole = \"standalone\"\nhost_name = \"{host}\"\n\
         domain = \"demo.example\"\naddresses = [\"{address}\"]\n\n[[database]]\nname = \"shop\"\nurl = \"{URL}\"\n"
    )
}
