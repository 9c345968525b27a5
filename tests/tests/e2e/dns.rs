//! The names of an appliance follow it: by updates of a real name server, or by its operator.

use std::fs;

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::name_server::{KEY, NameServer};
use handover_tests::poll;
use serde_json::Value;

use super::{SETTLES_WITHIN, settle_and_compare};

const ZONE: &[&str] = &["www 3600 A 192.0.2.10", "pool 300 A 192.0.2.10", "pool 300 A 192.0.2.11"];

/// A bed whose hosts have addresses, and a server that knows them by names.
struct Named {
    bed: Bed,
    server: NameServer,
}

impl Named {
    fn new(seed: u64, is_automatic: bool) -> Self {
        let mut bed = Bed::temporary(&Spec::small(seed)).unwrap();
        let server = NameServer::start(ZONE).unwrap();
        for (side, address) in [("source", "192.0.2.10"), ("target", "192.0.2.20")] {
            let file = bed.root().join(side).join("appliance.toml");
            let mut text = fs::read_to_string(&file).unwrap();
            text = text.replace("addresses = []", &format!("addresses = ['{address}']"));
            if side == "target" {
                text += &section(&server, is_automatic);
            }
            fs::write(&file, text).unwrap();
        }
        bed.source.restart().unwrap();
        bed.target.restart().unwrap();
        Self { bed, server }
    }

    fn follow(&self) -> Value {
        let plan = self.bed.json(&["plan", "--follow"]).unwrap();
        self.bed.cli(&["start", plan["digest"].as_str().unwrap(), "--watch"]).unwrap().success().unwrap();
        plan
    }

    /// Addresses of `www` and of `pool`.
    fn records(&self) -> [Vec<String>; 2] {
        ["www", "pool"].map(|name| self.server.values(name, "A").unwrap().into_iter().collect())
    }

    /// What the operator is waited for with.
    fn waits(&self) -> String {
        let failed = poll::until("the operator to be waited for", SETTLES_WITHIN, || {
            let status = self.bed.json(&["status"])?;
            Ok((status["condition"] == "failed").then_some(status))
        })
        .unwrap();
        assert_eq!(failed["failure"]["item"], "dns", "{failed}");
        failed["failure"]["what"].as_str().unwrap().to_owned()
    }

    fn told(&self, commands: &[&str]) {
        self.server.update(commands).unwrap();
        self.bed.json(&["resume"]).unwrap();
    }
}

fn section(server: &NameServer, is_automatic: bool) -> String {
    let mut text = format!(
        "\n[dns]\nserver = '{}'\nservice_names = ['www.example.net']\nround_robin = ['pool.example.net']\nttl = 60\n",
        server.address()
    );
    if is_automatic {
        let secret = server.secret_file(KEY);
        text += &format!("[dns.update]\nkey_name = '{KEY}'\nsecret_file = '{}'\n", secret.display());
    }
    text
}

#[test]
fn names_follow_by_updates_and_come_back() {
    let named = Named::new(81, true);
    let bed = &named.bed;
    let before = named.records();
    let shown = bed.cli(&["inspect"]).unwrap().success().unwrap().text();
    assert!(shown.contains("  pool.example.net. 300 IN A 192.0.2.11"), "{shown}");
    let planned = bed.cli(&["plan", "--follow"]).unwrap().success().unwrap().text();
    for part in [
        "before the cut-over, to keep users away from the source:\n  - pool.example.net. 300 IN A 192.0.2.10\n",
        "  - www.example.net. 3600 IN A 192.0.2.10\n  + www.example.net. 60 IN A 192.0.2.20\n",
        "  + pool.example.net. 60 IN A 192.0.2.20\n",
        "leave the round-robin hosts",
    ] {
        assert!(shown.contains(part) || planned.contains(part), "{part}: {planned}");
    }
    let plan = named.follow();
    assert_eq!(plan["plan"]["dns"]["automatic"], true, "{plan}");
    assert_eq!(named.records(), before);

    // Called off once the source had been taken out: it is there again.
    let off = bed.cli(&["cutover", "--max-downtime", "0", "--watch"]).unwrap();
    assert!(off.text().contains("called off"), "{}", off.text());
    assert_eq!(named.records(), before);

    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(bed).phase, "trial");
    let after = [vec!["192.0.2.20"], vec!["192.0.2.11", "192.0.2.20"]];
    assert_eq!(named.records(), after);
    let report = bed.cli(&["report"]).unwrap().success().unwrap().text();
    assert!(report.contains("  + pool.example.net. 60 IN A 192.0.2.20\n"), "{report}");
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(named.records(), before);
    assert_eq!(named.server.lines("www", "A").unwrap(), ["www.example.net. 3600 IN A 192.0.2.10"]);
    assert_eq!(fs::read_dir(bed.root().join("target/state/dns")).unwrap().count(), 0);

    named.follow();
    for verb in ["cutover", "accept", "finalize"] {
        bed.cli(&[verb, "--watch"]).unwrap().success().unwrap();
    }
    assert_eq!(named.records(), after);
    assert_eq!(fs::read_dir(bed.root().join("target/state/dns")).unwrap().count(), 0);
}

#[test]
fn the_operator_is_waited_for() {
    let named = Named::new(82, false);
    let bed = &named.bed;
    named.follow();
    bed.json(&["cutover"]).unwrap();
    assert!(named.waits().ends_with(":\n    - pool.example.net. 300 IN A 192.0.2.10"), "{}", named.waits());
    // Nothing has begun: the source is in use.
    bed.original().change(1).unwrap();
    bed.json(&["resume"]).unwrap();
    assert!(named.waits().contains("- pool"), "resumed too early, it waits again");

    named.told(&["update delete pool.example.net A 192.0.2.10"]);
    assert!(named.waits().contains("+ www.example.net. 60 IN A 192.0.2.20"), "{}", named.waits());
    assert_eq!(bed.compare().unwrap().found, 0, "the target has taken over");
    named.told(&["update delete www.example.net A", "update add www.example.net 60 A 192.0.2.20"]);
    assert!(named.waits().contains("+ pool.example.net. 60 IN A 192.0.2.20"), "{}", named.waits());
    named.told(&["update add pool.example.net 60 A 192.0.2.20"]);
    assert_eq!(settle_and_compare(bed).phase, "trial");

    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    let report = bed.cli(&["report"]).unwrap().success().unwrap().text();
    for part in
        ["set back at", "- www.example.net. 60 IN A 192.0.2.20", "+ pool.example.net. 300 IN A 192.0.2.10"]
    {
        assert!(report.contains(part), "{part}: {report}");
    }
}

#[test]
fn a_server_that_is_away_keeps_names_and_nothing_else_from_moving() {
    let mut named = Named::new(83, true);
    named.bed.configure_target(|text| text + "\n[limits]\npatience_seconds = 1\n").unwrap();
    named.follow();
    let before = named.records();
    named.server.kill().unwrap();
    let off = named.bed.cli(&["cutover", "--watch"]).unwrap();
    assert!(off.text().contains("it is not reached"), "{}", off.text());
    named.server.restart().unwrap();
    poll::until("following to go on", SETTLES_WITHIN, || {
        Ok((named.bed.json(&["status"])?["activity"] == "following").then_some(()))
    })
    .unwrap();
    assert_eq!(named.records(), before);
    named.bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(named.records()[0], ["192.0.2.20"]);
}
