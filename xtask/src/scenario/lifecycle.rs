//! A migration's whole life on two real hosts: tried, refused, started, on trial, given up, started again, accepted, finalized, proven.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use handover_tests::bed::Output;
use handover_tests::lab::Host;
use handover_tests::lab::wizard::Appliance;
use handover_tests::locate::{Binaries, Profile};
use handover_tests::poll;
use serde_json::{Value, json};

use super::wizard::appliance;
use super::{Options, Outcome};
use crate::shell::say;
use crate::workplace::Workplace;

const REFUSAL: &str = "In less than 24 hours a maintenance window will start. Process cannot be started.";
/// Both hosts back up what they have, before and after.
const BACKUPS: &str = "\n[backups]\nbefore = [\"start\", \"accept\"]\n";
const ENDS_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// The old version's table, with a row for each kind of conflict among rows that fit.
const OLD: &str = "CREATE TABLE customer (id INT PRIMARY KEY, email VARCHAR(80), region INT, code VARCHAR(80), age VARCHAR(20), credit INT);
    INSERT INTO customer SELECT seq, CONCAT('c', seq, '@example.org'), 1, 'short', '33', 10 FROM seq_1_to_5000;
    UPDATE customer SET email = 'c10@example.org' WHERE id = 1000;
    UPDATE customer SET region = 7 WHERE id = 1500;
    UPDATE customer SET email = NULL WHERE id = 2000;
    UPDATE customer SET age = 'old' WHERE id = 2500;
    UPDATE customer SET code = 'much too long' WHERE id = 3000;
    UPDATE customer SET credit = -5 WHERE id = 3500;";
/// The new version's.
const NEW: &str = "CREATE DATABASE shop; USE shop;
    CREATE TABLE region (id INT PRIMARY KEY); INSERT INTO region VALUES (1), (2);
    CREATE TABLE sale (id INT AUTO_INCREMENT PRIMARY KEY, item VARCHAR(80));
    CREATE TABLE customer (id INT PRIMARY KEY, email VARCHAR(80) NOT NULL UNIQUE, region INT, code VARCHAR(8), age INT,
        credit INT, CONSTRAINT no_debts CHECK (credit >= 0), FOREIGN KEY (region) REFERENCES region (id));";
/// What was planted, by kind and key.
const PLANTED: [(&str, &str); 6] = [
    ("unique", "id 1000"),
    ("foreign-key", "id 1500"),
    ("not-null", "id 2000"),
    ("type", "id 2500"),
    ("length", "id 3000"),
    ("check", "id 3500"),
];
/// The target's own database, as it was before anything.
const OWN: &str = "mariadb --batch shop -e 'SELECT * FROM region ORDER BY id; SELECT * FROM customer; SHOW CREATE TABLE customer'";

/// Runs the scenario.
pub fn run(_: &Options) -> Result<Outcome> {
    let shop = appliance("lifecycle", BACKUPS)?;
    let place = Workplace::fresh("scenario-lifecycle")?;
    let mut life = Life { shop: &shop, flaws: Vec::new() };
    sql(shop.pair.a(), &format!("USE shop; {OLD}"))?;
    sql(shop.pair.b(), NEW)?;
    let own = shop.pair.b().sh(OWN)?;
    life.expect_mode("Operational", "Unknown")?;
    let conflicts = life.rehearse(&place)?;
    life.expect("the target's own database after rehearsing", &own, &shop.pair.b().sh(OWN)?);
    let refused = life.refused()?;
    let lost = life.given_up(&own)?;
    let proof = life.kept(place.path())?;
    let restored = life.restored()?;
    Ok(Outcome {
        ok: life.flaws.is_empty() && refused && lost == 0 && proof.holds(),
        figures: json!({
            "conflicts": conflicts,
            "refused_by_safety_time": refused,
            "sales_lost_by_abort": lost,
            "backups_of_both_hosts": proof.backups,
            "sales_restored": restored,
            "report_verifies": proof.report,
            "tampered_report_verifies": proof.tampered_report,
            "audit_verifies": proof.audit,
            "tampered_audit_verifies": proof.tampered_audit,
            "flaws": life.flaws,
        }),
    })
}

/// One appliance through it all, and what was not as it should be.
struct Life<'a> {
    shop: &'a Appliance,
    flaws: Vec<String>,
}

/// What can be proven afterwards.
struct Proof {
    backups: usize,
    report: bool,
    tampered_report: bool,
    audit: bool,
    tampered_audit: bool,
}

impl Proof {
    fn holds(&self) -> bool {
        self.backups == 4 && self.report && self.audit && !self.tampered_report && !self.tampered_audit
    }
}

impl Life<'_> {
    fn cli(&self, words: &[&str]) -> Result<Output> {
        self.shop.pair.cli(words)
    }

    fn expect(&mut self, what: &str, expected: &str, found: &str) {
        if expected != found {
            self.flaws.push(format!("{what}: {found:?} instead of {expected:?}"));
        }
    }

    /// The mode and the instance, as `status` tells them.
    fn expect_mode(&mut self, mode: &str, instance: &str) -> Result<()> {
        let status = self.cli(&["--json", "status"])?;
        // Before the first migration there is nothing to ask about.
        let (now, how) = match serde_json::from_str::<Value>(&status.stdout) {
            Ok(status) if status["mode"].is_string() => (status["mode"].clone(), status["instance"].clone()),
            _ => (json!("Operational"), json!("Unknown")),
        };
        self.expect(
            "mode and instance",
            &format!("{mode} {instance}"),
            &format!("{now} {how}").replace('"', ""),
        );
        Ok(())
    }

    /// What was planted is found, and nothing else; with decisions nothing is.
    fn rehearse(&mut self, place: &Workplace) -> Result<Value> {
        let report = self.rehearsed(&[], 9)?;
        let tables = report["databases"][0]["tables"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<(String, String)> = Vec::new();
        for table in &tables {
            let told = table["conflicts"].as_object().into_iter().flatten();
            let count: u64 = told.filter_map(|(_, count)| count.as_u64()).sum();
            let listed = table["listed"].as_array().cloned().unwrap_or_default();
            ensure!(listed.len() as u64 == count, "not every conflict is listed: {table}");
            let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
            found.extend(listed.iter().map(|one| (text(one, "kind"), text(one, "key"))));
        }
        let mut planted = PLANTED.map(|(kind, key)| (kind.to_owned(), key.to_owned()));
        planted.sort();
        found.sort();
        self.expect("conflicts", &format!("{planted:?}"), &format!("{found:?}"));
        let decisions = PLANTED.map(|(_, key)| {
            format!("[[decision]]\ntable = \"customer\"\nkey = \"{key}\"\naction = \"drop\"\n")
        });
        let file = place.path().join("decisions.toml");
        fs::write(&file, format!("format = 1\n{}", decisions.concat()))?;
        self.rehearsed(&["--decisions", &file.display().to_string()], 0)?;
        say(format!("rehearsed: {} conflicts, all of them decided", found.len()));
        Ok(json!(found.into_iter().map(|(kind, key)| format!("{kind}: {key}")).collect::<Vec<_>>()))
    }

    fn rehearsed(&self, words: &[&str], code: i32) -> Result<Value> {
        let output = self.cli(&[&["--json", "rehearse"], words].concat())?;
        ensure!(output.code == Some(code), "{} instead of {code}: {}", output.command, output.text());
        Ok(serde_json::from_str::<Value>(&output.stdout)?["rehearsal"].take())
    }

    /// Whether a downtime that is near keeps a migration from starting.
    fn refused(&mut self) -> Result<bool> {
        let b = self.shop.pair.b();
        let manifest = b.root().join("etc/handover/appliance.toml");
        let plain = fs::read_to_string(&manifest)?;
        let begin = b.sh("date -u -d '+2 hours' +%Y-%m-%dT%H:%M:%SZ")?;
        let window = format!(
            "\n[[calendar.downtime]]\nname = \"kernel\"\nbegin = \"{}\"\nminutes = 30\n",
            begin.trim()
        );
        fs::write(&manifest, plain.clone() + &window)?;
        self.shop.pair.restart_target()?;
        let digest = self.planned()?;
        let output = self.cli(&["start", &digest])?;
        fs::write(&manifest, plain)?;
        self.shop.pair.restart_target()?;
        say("a start within the safety time was asked for");
        Ok(output.code != Some(0) && output.text().contains(REFUSAL))
    }

    fn planned(&self) -> Result<String> {
        let plan = self.shop.pair.json(&["plan", "--follow", "--licence", "--overwrite"])?;
        Ok(plan["digest"].as_str().with_context(|| format!("no plan: {plan}"))?.to_owned())
    }

    /// On trial, with sales at the target.
    fn trial(&mut self) -> Result<()> {
        self.shop.follow(&["--licence", "--overwrite", "--without-logs"])?;
        self.expect_mode("Migration", "Inservice")?;
        self.cli(&["cutover", "--max-downtime", "300"])?.success()?;
        self.shop.rests_in("trial")?;
        self.expect_mode("Migration", "Inservice")?;
        let flaws = self.shop.flaws_at_target(false)?;
        self.flaws.extend(flaws.into_iter().map(|flaw| format!("on trial: {flaw}")));
        let sold = self.shop.sales(self.shop.pair.b())?;
        poll::until("sales at the target", ENDS_WITHIN, || {
            Ok((self.shop.sales(self.shop.pair.b())? > sold + 10).then_some(()))
        })
    }

    /// A trial that is given up: how many sales that were made at the target are not at the source.
    fn given_up(&mut self, own: &str) -> Result<u64> {
        self.trial()?;
        let ledger = "mariadb -N shop -e 'SELECT id, item FROM sale ORDER BY id'";
        let there = self.shop.pair.b().sh(ledger)?;
        self.cli(&["abort"])?.success()?;
        self.shop.rests_in("aborted")?;
        let here = self.shop.pair.a().sh(ledger)?;
        let here: std::collections::HashSet<&str> = here.lines().collect();
        let lost = there.lines().filter(|sale| !here.contains(sale)).count();
        let flaws = self.shop.flaws_at_source()?;
        self.flaws.extend(flaws.into_iter().map(|flaw| format!("given up: {flaw}")));
        let now = self.shop.pair.b().sh(OWN)?;
        self.expect("the target's own database after the abort", own, &now);
        self.terminated(there.lines().count())?;
        self.expect("the target's own database after the terminate", own, &self.shop.pair.b().sh(OWN)?);
        self.expect_mode("Operational", "Terminated")?;
        say(format!("given up on trial: {lost} of {} sales lost", there.lines().count()));
        Ok(lost as u64)
    }

    /// What the abort has kept has at least so many sales and the files, and goes when it is asked to.
    fn terminated(&mut self, sales: usize) -> Result<()> {
        self.expect_mode("Operational", "Miscellaneous")?;
        let kept = self.shop.pair.json(&["status"])?["kept"].take();
        let shop = self.shop;
        let b = shop.pair.b();
        let place = |dataset: &str| -> Result<String> {
            let place = kept[dataset]["place"].as_str();
            Ok(place.with_context(|| format!("nothing of {dataset} is kept: {kept}"))?.to_owned())
        };
        let (database, pages) = (place("shop")?, place("www")?);
        let database = database.split(' ').next().unwrap_or_default();
        let sold = b.sh(&format!("mariadb -N -e 'SELECT count(*) FROM `{database}`.sale'"))?;
        if sold.trim().parse::<usize>().unwrap_or(0) < sales {
            self.flaws.push(format!("{sold} sales are kept, of {sales}"));
        }
        let count = b.sh(&format!("ls {pages} | wc -l"))?;
        self.expect("the pages that are kept", "200", count.trim());
        self.cli(&["terminate", "--yes"])?.success()?;
        let left = b.sh(&format!(
            "mariadb -N -e 'SHOW DATABASES' | grep -c _kept || true; ls -d {pages} 2>/dev/null || true"
        ))?;
        self.expect("what is left of it", "0", left.trim());
        Ok(())
    }

    /// Once more, and for good.
    fn kept(&mut self, place: &Path) -> Result<Proof> {
        self.trial()?;
        self.cli(&["accept"])?.success()?;
        self.shop.rests_in("accepted")?;
        self.cli(&["finalize"])?.success()?;
        let last = self.shop.rests_in("finalized")?;
        let migration = last["migration"].as_str().unwrap_or_default().to_owned();
        self.expect_mode("Operational", "Terminated")?;
        let flaws = self.shop.flaws_for_good()?;
        self.flaws.extend(flaws.into_iter().map(|flaw| format!("finalized: {flaw}")));
        say("accepted and finalized");
        self.old_system_is_readable()?;
        let backups =
            self.shop.pair.json(&["backups", "--verify"])?["verified"].as_array().map_or(0, |all| {
                let id = |one: &Value| one["backup"].as_str().is_some_and(|id| id.starts_with(&migration));
                all.iter().filter(|one| id(one)).count()
            });
        let (report, audit) = (place.join("report.json"), place.join("audit.log"));
        self.cli(&["report", "--out", &report.display().to_string()])?.success()?;
        self.cli(&["audit", "--out", &audit.display().to_string()])?.success()?;
        let ca = self.shop.pair.b().root().join("root/operator/ca.pem");
        let verifies = |verb: &str, file: &Path, more: &[&str]| -> Result<bool> {
            let mut command = Command::new(Binaries::find(Profile::Same)?.cli);
            command.arg(verb).arg("--verify").arg(file).arg("--ca").arg(&ca).args(more);
            let output = Output::of(&mut command)?;
            ensure!(matches!(output.code, Some(0 | 5)), "{}: {}", output.command, output.text());
            Ok(output.code == Some(0))
        };
        let by = report.display().to_string();
        Ok(Proof {
            backups,
            report: verifies("report", &report, &[])?,
            tampered_report: verifies("report", &tampered(&report, "finalized", "finalised")?, &[])?,
            audit: verifies("audit", &audit, &["--report", &by])?,
            tampered_audit: verifies(
                "audit",
                &tampered(&audit, "operator/alice", "operator/mallory")?,
                &["--report", &by],
            )?,
        })
    }

    /// The source is there for records: it can be read and not written to, and what is there alone is named.
    fn old_system_is_readable(&mut self) -> Result<()> {
        let report = self.shop.pair.json(&["report"])?;
        let behind = report["left_behind"].as_array().cloned().unwrap_or_default();
        if !behind.iter().any(|one| one["item"] == "dataset traffic") {
            self.flaws.push(format!("the traffic logs are not named as not moved: {behind:?}"));
        }
        let a = self.shop.pair.a();
        let sold = self.shop.sales(a)?;
        if sold < 20_000 {
            self.flaws.push(format!("{sold} sales can be read at the source, of more than 20000"));
        }
        let written = a.exec(&["mariadb", "shop", "-e", "INSERT INTO sale (item) VALUES ('late')"])?;
        if written.code == Some(0) || !written.text().contains("read-only here") {
            self.flaws.push(format!("the source after finalize takes writes: {}", written.text()));
        }
        let logs = a.sh("cat /var/log/shop/traffic.log | wc -l")?;
        if logs.trim() == "0" {
            self.flaws.push("the source's traffic logs cannot be read".to_owned());
        }
        Ok(())
    }

    /// What was backed up when the target was accepted is put back: how many sales that are.
    fn restored(&mut self) -> Result<u64> {
        let b = self.shop.pair.b();
        let shelf = self.shop.pair.json(&["backups", "--host", "target"])?;
        let last =
            shelf["target"]["backups"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
        let id = last["id"].as_str().with_context(|| format!("no backup: {shelf}"))?;
        ensure!(last["occasion"] == "accept", "the last backup is of another occasion: {last}");
        b.sh("systemctl stop shop-sales; mariadb shop -e 'DELETE FROM sale'")?;
        self.cli(&["restore", id, "--host", "target", "--dataset", "shop"])?.success()?;
        let sold = self.shop.sales(b)?;
        if sold < 20_000 {
            self.flaws.push(format!("{sold} sales are restored, of more than 20000"));
        }
        Ok(sold)
    }
}

/// A copy of a file in which one thing was changed.
fn tampered(file: &Path, from: &str, to: &str) -> Result<PathBuf> {
    let text = fs::read_to_string(file)?;
    ensure!(text.contains(from), "{from} is not in {}", file.display());
    let copy = file.with_extension("tampered");
    fs::write(&copy, text.replacen(from, to, 1))?;
    Ok(copy)
}

/// Runs statements as the server's administrator.
fn sql(host: &Host, statements: &str) -> Result<()> {
    let mut command = host.command()?;
    command.args(["mariadb", "-e", statements]);
    Output::of(&mut command)?.success()?;
    Ok(())
}
