//! A target that has taken over, and whose service does not serve its new certificate: left to the operator, or undone, as the plan says.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Output};
use handover_tests::certificate::SELF_SIGNED;
use handover_tests::poll;
use handover_tests::server::free_port;
use rusqlite::Connection;
use serde_json::Value;

use super::{SETTLES_WITHIN, settle_and_compare};

/// Long enough to do something meanwhile.
const PROBE_SECONDS: u32 = 8;
const BACK: &str = "; what was in place before is so again";

/// Key and chain.
type Pair = (String, String);

/// A bed with a certificate on both sides, and a server that reads the target's when it is started, and never again.
struct Served {
    bed: Bed,
    port: u16,
    server: Option<Child>,
    /// What the target has, and what it gets.
    old: Pair,
    new: Pair,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

impl Served {
    fn new(seed: u64) -> Self {
        let mut bed = Bed::temporary(&Spec::small(seed)).unwrap();
        let port = free_port().unwrap();
        for side in ["source", "target"] {
            let (key, chain) = files(&bed, side);
            make(&key, &chain, side);
            let section = format!(
                "\n[[certificate]]\nname = 'www'\ncertificate = '{}'\nkey = '{}'\nnames = ['www.example.net']\n\
                 probe = ['127.0.0.1:{port}']\nprobe_seconds = {PROBE_SECONDS}\n",
                chain.display(),
                key.display(),
            );
            let manifest = bed.root().join(side).join("appliance.toml");
            fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + &section).unwrap();
        }
        bed.source.restart().unwrap();
        bed.target.restart().unwrap();
        let (old, new) = (read(&bed, "target"), read(&bed, "source"));
        let mut served = Self { bed, port, server: None, old, new };
        served.begin();
        served
    }

    /// The server reads what is in place.
    fn begin(&mut self) {
        self.end();
        let (key, chain) = files(&self.bed, "target");
        let place = format!("127.0.0.1:{}", self.port);
        let mut command = Command::new("openssl");
        command
            .args(["s_server", "-quiet", "-www", "-accept", &place, "-key"])
            .arg(key)
            .arg("-cert")
            .arg(chain);
        let (nothing, out, err) = (Stdio::null(), Stdio::null(), Stdio::null());
        self.server = Some(command.stdin(nothing).stdout(out).stderr(err).spawn().unwrap());
        poll::until("the server", SETTLES_WITHIN, || Ok(TcpStream::connect(&place).is_ok().then_some(())))
            .unwrap();
    }

    fn end(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    fn in_place(&self) -> Pair {
        read(&self.bed, "target")
    }

    fn follow(&self, options: &[&str]) -> Value {
        let words: Vec<&str> = ["plan", "--follow"].iter().chain(options).copied().collect();
        let plan = self.bed.json(&words).unwrap();
        self.bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
        self.reach("the copy", |status| status["phase"] == "following");
        plan
    }

    /// Waits until its status is so.
    fn reach(&self, what: &str, there: impl Fn(&Value) -> bool) -> Value {
        let reached = poll::until(what, SETTLES_WITHIN, || {
            let Ok(status) = self.bed.json(&["status"]) else { return Ok(None) };
            Ok(there(&status).then_some(status))
        });
        reached.unwrap()
    }
}

fn files(bed: &Bed, side: &str) -> (PathBuf, PathBuf) {
    let at = |name: &str| bed.root().join(side).join(name);
    (at("www.key"), at("www.pem"))
}

fn read(bed: &Bed, side: &str) -> Pair {
    let (key, chain) = files(bed, side);
    (fs::read_to_string(key).unwrap(), fs::read_to_string(chain).unwrap())
}

fn make(key: &Path, chain: &Path, whose: &str) {
    let mut command = Command::new("openssl");
    command
        .args(SELF_SIGNED)
        .args(["-subj", &format!("/CN={whose}"), "-addext", "subjectAltName=DNS:www.example.net"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(chain);
    Output::of(&mut command).unwrap().success().unwrap();
}

#[test]
fn a_service_that_keeps_the_old_certificate_has_it_in_place_again() {
    let mut served = Served::new(87);
    let plan = served.follow(&[]);
    assert_eq!(plan["plan"]["options"]["on_failure"], Value::Null);
    served.bed.json(&["cutover"]).unwrap();
    let failed = served.reach("the cut-over to stop", |status| status["condition"] == "failed");
    assert_eq!(
        (&failed["phase"], &failed["failure"]["item"]),
        (&"cutting_over".into(), &"certificate www".into())
    );
    let what = failed["failure"]["what"].as_str().unwrap();
    assert!(what.contains("it serves CN=target") && what.ends_with(BACK), "{what}");
    assert!(served.in_place() == served.old);
    served.bed.target.kill().unwrap();
    served.bed.target.restart().unwrap();
    assert_eq!(served.bed.json(&["status"]).unwrap()["condition"], "failed");
    assert!(served.in_place() == served.old);

    // Tried again, it is put in place again; this time somebody has the server read it.
    served.bed.json(&["resume"]).unwrap();
    let new = || Ok((served.in_place() == served.new).then_some(()));
    poll::until("the new certificate", SETTLES_WITHIN, new).unwrap();
    served.begin();
    assert_eq!(settle_and_compare(&served.bed).phase, "trial");
    assert!(served.in_place() == served.new);
    served.bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert!(served.in_place() == served.old);
}

#[test]
fn where_the_plan_says_so_everything_goes_back_by_itself() {
    let served = Served::new(88);
    let bed = &served.bed;
    let refused = bed.cli(&["plan", "--follow", "--one-way", "--on-failure", "undo"]).unwrap();
    assert_eq!(refused.code, Some(5), "{}", refused.text());
    assert!(refused.text().contains("nothing would bring home"), "{}", refused.text());
    let undo = ["--on-failure", "undo"];
    let shown = bed.cli(&["plan", "--follow", "--on-failure", "undo"]).unwrap().text();
    assert!(shown.contains("on failure: undo"), "{shown}");
    let plan = served.follow(&undo);
    assert_eq!(plan["plan"]["options"]["on_failure"], "undo");

    bed.json(&["cutover"]).unwrap();
    served.reach("the target to take over", |status| status["cutover"]["live_at"].is_string());
    let at_target = Connection::open(&bed.copy().database).unwrap();
    at_target.busy_timeout(SETTLES_WITHIN).unwrap();
    at_target
        .execute("UPDATE customer SET name = 'of the target' WHERE id = (SELECT min(id) FROM customer)", [])
        .unwrap();
    drop(at_target);
    let watched = bed.cli(&["watch"]).unwrap();
    assert_eq!(watched.code, Some(3), "{}", watched.text());
    let status = bed.json(&["status"]).unwrap();
    assert_eq!((&status["phase"], &status["condition"]), (&"aborted".into(), &"good".into()));
    let why = &status["undone_because"];
    assert_eq!(why["item"], "certificate www", "{status}");
    assert!(why["what"].as_str().unwrap().contains("it serves CN=target"), "{status}");
    assert!(served.in_place() == served.old);
    let told = bed.cli(&["report"]).unwrap().text();
    assert!(told.contains("undone because of certificate www: "), "{told}");
    assert!(told.contains("everything is undone, as the plan says: certificate www: "), "{told}");
    // The source is in use again, and lacks nothing.
    let home = Connection::open(&bed.original().database).unwrap();
    home.busy_timeout(SETTLES_WITHIN).unwrap();
    let named = "SELECT count(*) FROM customer WHERE name = 'of the target'";
    assert_eq!(home.query_row(named, [], |row| row.get(0)), Ok(1));
    home.execute("UPDATE customer SET name = 'of the source' WHERE name = 'of the target'", []).unwrap();
    assert!(!bed.copy().database.exists());
}
