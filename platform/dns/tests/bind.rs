//! The port at a real name server (BIND): look-ups, updates, and all that a server may say to them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use handover_dns::{DnsSection, LocalNames, check};
use handover_engine::dns::{RecordChange, RecordKind, Stage, TextRecord};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Challenges as _, NameServer as _};
use handover_engine::time::{Clock, Timestamp};
use handover_tests::name_server::{KEY, NameServer, READER};
use handover_tests::poll;
use tempfile::TempDir;

const ZONE: &[&str] = &[
    "www 3600 A 192.0.2.10",
    "www 3600 AAAA 2001:db8::10",
    "api 3600 CNAME old.example.net.",
    "pool 300 A 192.0.2.10",
    "pool 300 A 192.0.2.11",
    "note 60 TXT text",
    "sub NS ns.sub",
    "ns.sub A 127.0.0.1",
];

/// A clock that is right, or set wrong by some seconds.
struct Wall(i64);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(poll::wall_ms() + self.0 * 1000)
    }
}

/// A server, and the port to it.
struct Bed {
    server: NameServer,
    names: LocalNames,
    state: TempDir,
    migration: MigrationId,
}

impl Bed {
    fn new() -> Self {
        let server = NameServer::start(ZONE).unwrap();
        let state = tempfile::tempdir().unwrap();
        let names = names(&server, state.path(), "", 0);
        Self { server, names, state, migration: "m-1".parse().unwrap() }
    }

    async fn change(&self, changes: &[RecordChange]) -> Result<(), String> {
        self.names.change(&self.migration, changes).await.map_err(|failure| failure.to_string())
    }

    fn values(&self, name: &str, kind: &str) -> Vec<String> {
        self.server.values(name, kind).unwrap().into_iter().collect()
    }
}

/// With `update` in place of the key that may change records.
fn names(server: &NameServer, state: &Path, update: &str, clock_off: i64) -> LocalNames {
    let key = format!("key_name = '{KEY}'\nsecret_file = '{}'\n", server.secret_file(KEY).display());
    let update = if update.is_empty() { &key } else { update };
    let text = format!(
        "server = '{}'\nservice_names = ['www.example.net', 'api.example.net']\nround_robin = ['pool.example.net']\nttl = 60\n\
         [update]\n{update}",
        server.address()
    );
    let section: DnsSection = toml::from_str(&text).unwrap();
    check(&section).unwrap();
    LocalNames::new(Some(section), state, Arc::new(Wall(clock_off)))
}

fn change(at: Stage, name: &str, kind: RecordKind, from: &str, to: &str) -> RecordChange {
    let values = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let name = format!("{name}.example.net.");
    RecordChange { at, name, kind, from: values(from), to: values(to), was_ttl: 3600, ttl: 60 }
}

fn to_the_target() -> Vec<RecordChange> {
    use RecordKind::{A, Aaaa, Cname};
    vec![
        change(Stage::Cutover, "www", A, "192.0.2.10", "192.0.2.20"),
        change(Stage::Cutover, "www", Aaaa, "2001:db8::10", ""),
        change(Stage::Cutover, "api", Cname, "old.example.net.", "new.example.net."),
    ]
}

#[tokio::test]
async fn names_are_looked_up() {
    let bed = Bed::new();
    let facts = bed.names.facts().await.unwrap().unwrap();
    assert_eq!((facts.problem.as_deref(), facts.automatic), (None, true));
    let found: Vec<_> = facts
        .records
        .iter()
        .map(|set| {
            format!(
                "{} {} {} {}",
                set.name,
                set.ttl,
                set.kind,
                set.values.iter().cloned().collect::<Vec<_>>().join(" ")
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "www.example.net. 3600 A 192.0.2.10",
            "www.example.net. 3600 AAAA 2001:db8::10",
            "api.example.net. 3600 CNAME old.example.net.",
            "pool.example.net. 300 A 192.0.2.10 192.0.2.11",
        ]
    );
    let nothing = LocalNames::new(None, bed.state.path(), Arc::new(Wall(0)));
    assert_eq!(nothing.facts().await.unwrap(), None);
}

#[tokio::test]
async fn records_are_changed_and_taken_back() {
    let bed = Bed::new();
    let out = change(Stage::Before, "pool", RecordKind::A, "192.0.2.10", "");
    // Each twice: answers get lost.
    for _ in 0..2 {
        bed.change(std::slice::from_ref(&out)).await.unwrap();
        assert_eq!(bed.server.lines("pool", "A").unwrap(), ["pool.example.net. 300 IN A 192.0.2.11"]);
    }
    assert_eq!(bed.names.lacking(&to_the_target()).await.unwrap(), to_the_target());
    for _ in 0..2 {
        bed.change(&to_the_target()).await.unwrap();
        assert_eq!(bed.server.lines("www", "A").unwrap(), ["www.example.net. 60 IN A 192.0.2.20"]);
        assert_eq!(bed.server.lines("www", "AAAA").unwrap(), [""; 0]);
        assert_eq!(
            bed.server.lines("api", "CNAME").unwrap(),
            ["api.example.net. 60 IN CNAME new.example.net."]
        );
    }
    assert_eq!(bed.names.lacking(&to_the_target()).await.unwrap(), []);
    let back = change(Stage::End, "pool", RecordKind::A, "", "192.0.2.20");
    for _ in 0..2 {
        bed.change(std::slice::from_ref(&back)).await.unwrap();
        assert_eq!(bed.values("pool", "A"), ["192.0.2.11", "192.0.2.20"]);
    }
    // A host that came meanwhile stays.
    bed.server.update(&["update add pool.example.net 60 A 192.0.2.12"]).unwrap();
    for _ in 0..2 {
        bed.names.restore(&bed.migration).await.unwrap();
        assert_eq!(bed.values("pool", "A"), ["192.0.2.10", "192.0.2.11", "192.0.2.12"]);
        assert_eq!(bed.server.lines("www", "A").unwrap(), ["www.example.net. 3600 IN A 192.0.2.10"]);
        assert_eq!(bed.values("www", "AAAA"), ["2001:db8::10"]);
        assert_eq!(
            bed.server.lines("api", "CNAME").unwrap(),
            ["api.example.net. 3600 IN CNAME old.example.net."]
        );
    }
    bed.names.forget(&bed.migration).await.unwrap();
    bed.server.update(&["update delete www.example.net A 192.0.2.10"]).unwrap();
    bed.names.restore(&bed.migration).await.unwrap();
    assert_eq!(bed.values("www", "A"), [""; 0], "what was forgotten is not taken back");
}

#[tokio::test]
async fn what_somebody_else_has_changed_is_left_alone() {
    let bed = Bed::new();
    let www = to_the_target().remove(0);
    bed.server
        .update(&["update delete www.example.net A", "update add www.example.net 60 A 203.0.113.9"])
        .unwrap();
    let told = bed.change(std::slice::from_ref(&www)).await.unwrap_err();
    assert!(
        told.starts_with("dns www.example.net: somebody else has changed its A record: it holds 203.0.113.9"),
        "{told}"
    );
    assert_eq!(bed.values("www", "A"), ["203.0.113.9"]);

    // Changed by us, and then by somebody else: that one's stays, everything else comes back.
    bed.server
        .update(&["update delete www.example.net A", "update add www.example.net 3600 A 192.0.2.10"])
        .unwrap();
    bed.change(&to_the_target()).await.unwrap();
    bed.server
        .update(&["update delete www.example.net A", "update add www.example.net 60 A 203.0.113.9"])
        .unwrap();
    let told = bed.names.restore(&bed.migration).await.unwrap_err().to_string();
    assert!(told.contains("somebody else has changed its A record"), "{told}");
    assert_eq!(bed.values("www", "A"), ["203.0.113.9"]);
    assert_eq!(bed.values("www", "AAAA"), ["2001:db8::10"]);
    assert_eq!(bed.values("api", "CNAME"), ["old.example.net."]);
}

#[tokio::test]
async fn a_name_keeps_an_address() {
    let bed = Bed::new();
    bed.server.update(&["update delete pool.example.net A 192.0.2.11"]).unwrap();
    let out = change(Stage::Before, "pool", RecordKind::A, "192.0.2.10", "");
    let told = bed.change(std::slice::from_ref(&out)).await.unwrap_err();
    assert!(told.starts_with("dns pool.example.net: it would have no address left"), "{told}");
    assert_eq!(bed.values("pool", "A"), ["192.0.2.10"]);
}

#[tokio::test]
async fn a_server_that_leaves_a_record_out_is_found_out() {
    let bed = Bed::new();
    let beside = change(Stage::End, "api", RecordKind::A, "", "192.0.2.20");
    let told = bed.change(std::slice::from_ref(&beside)).await.unwrap_err();
    assert!(told.contains("the server took the change and did not make it"), "{told}");
}

#[tokio::test]
async fn keys_that_may_not_are_told_apart() {
    let bed = Bed::new();
    let other = bed.state.path().join("other.secret");
    fs::write(&other, "b3RoZXI=\n").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let file = |key| bed.server.secret_file(key).display().to_string();
    let table = [
        (format!("key_name = 'nobody'\nsecret_file = '{}'", file(KEY)), 0, "BADKEY"),
        (
            format!("key_name = '{KEY}'\nalgorithm = 'hmac-sha512'\nsecret_file = '{}'", file(KEY)),
            0,
            "BADKEY",
        ),
        (format!("key_name = '{KEY}'\nsecret_file = '{}'", other.display()), 0, "BADSIG"),
        (format!("key_name = '{KEY}'\nsecret_file = '{}'", file(KEY)), 3600, "BADTIME"),
        (
            format!("key_name = '{READER}'\nsecret_file = '{}'", file(READER)),
            0,
            "let the key change these names",
        ),
    ];
    for (update, clock_off, part) in table {
        let names = names(&bed.server, bed.state.path(), &update, clock_off);
        let failure = names.change(&bed.migration, &to_the_target()[..1]).await.unwrap_err();
        assert!(!failure.is_transient() && failure.to_string().contains(part), "{part}: {failure}");
        assert_eq!(bed.values("www", "A"), ["192.0.2.10"]);
    }
    // A secret that others may read is told before anything is planned.
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let update = format!("key_name = '{KEY}'\nsecret_file = '{}'", other.display());
    let facts = names(&bed.server, bed.state.path(), &update, 0).facts().await.unwrap().unwrap();
    assert!(facts.problem.unwrap().contains("others may read this secret"));
}

#[tokio::test]
async fn a_server_that_is_away_or_not_the_names_own_is_told() {
    let mut bed = Bed::new();
    for name in ["www.example.org.", "www.sub.example.net."] {
        let elsewhere = RecordChange { name: name.to_owned(), ..to_the_target().remove(0) };
        let failure = bed.names.lacking(&[elsewhere]).await.unwrap_err();
        assert!(failure.to_string().contains(&format!("it does not answer for {name} itself")), "{failure}");
        assert!(!failure.is_transient());
    }
    bed.server.kill().unwrap();
    let failure = bed.names.change(&bed.migration, &to_the_target()).await.unwrap_err();
    assert!(failure.is_transient() && failure.to_string().contains("it is not reached"), "{failure}");
    let problem = bed.names.facts().await.unwrap().unwrap().problem.unwrap();
    assert!(problem.contains("it is not reached") && problem.contains("over TCP"), "{problem}");
    bed.server.restart().unwrap();
    bed.change(&to_the_target()).await.unwrap();
    assert_eq!(bed.values("www", "A"), ["192.0.2.20"]);
}

#[tokio::test]
async fn texts_for_an_authority_come_and_go() {
    let bed = Bed::new();
    bed.server.update(&["update add _acme-challenge.www.example.net 60 TXT other"]).unwrap();
    let text = |name: &str, value: &str| TextRecord::challenge(name, value.to_owned());
    // A name and its wildcard are asked for at one place.
    let texts =
        [text("www.example.net", "one"), text("www.example.net", "two"), text("example.net", "three")];
    for _ in 0..2 {
        bed.names.put_in(&bed.migration, &texts).await.unwrap();
        assert_eq!(bed.values("_acme-challenge.www", "TXT"), ["\"one\"", "\"other\"", "\"two\""]);
        assert_eq!(bed.values("_acme-challenge", "TXT"), ["\"three\""]);
    }
    assert!(bed.state.path().join("challenges/m-1.json").exists());
    for _ in 0..2 {
        bed.names.take_away(&bed.migration).await.unwrap();
        assert_eq!(bed.values("_acme-challenge.www", "TXT"), ["\"other\""]);
        assert_eq!(bed.values("_acme-challenge", "TXT"), [""; 0]);
    }
    assert!(!bed.state.path().join("challenges/m-1.json").exists());

    // Beside an alias there is no place for it.
    bed.server.update(&["update add _acme-challenge.pool.example.net 60 CNAME www.example.net."]).unwrap();
    let pool = text("pool.example.net", "four");
    let failure = bed.names.put_in(&bed.migration, std::slice::from_ref(&pool)).await.unwrap_err();
    assert!(failure.to_string().contains("it is an alias for www.example.net."), "{failure}");
    bed.names.take_away(&bed.migration).await.unwrap();
}
