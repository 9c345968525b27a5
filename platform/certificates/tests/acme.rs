//! Orders at a real authority (Pebble), shown by a real name server (BIND) that the names are ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use handover_certificates::{CertificateSection, LocalCertificates, Reloader};
use handover_dns::{DnsSection, LocalNames};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::ports::changeover::Certificates;
use handover_engine::time::{Clock, Timestamp};
use handover_tests::acme::{Authority, BLOCKED};
use handover_tests::name_server::{KEY, NameServer, READER};
use handover_tests::poll;
use tempfile::TempDir;

/// How long an order may take on a busy machine.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// In Pebble's log, once for each certificate.
const ISSUED: &str = "Issued certificate serial";

struct Wall;

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(poll::wall_ms())
    }
}

struct Quiet;

#[async_trait]
impl Reloader for Quiet {
    async fn reload(&self, _unit: &str) -> Result<()> {
        Ok(())
    }
}

/// A host, the server of its names, and an authority that asks that.
struct Bed {
    dir: TempDir,
    server: NameServer,
    authority: Authority,
}

impl Bed {
    fn new() -> Self {
        let server = NameServer::start(&["www A 192.0.2.10"]).unwrap();
        let authority = Authority::start(server.address()).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), server, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn section(&self, names: &[&str]) -> CertificateSection {
        let text = format!(
            "name = 'www'\ncertificate = '{}'\nkey = '{}'\naction = 'reissue'\nnames = {names:?}\nacme = '{}'\nacme_root = '{}'\n",
            self.path("www.pem").display(),
            self.path("www.key").display(),
            self.authority.directory(),
            self.authority.root().display(),
        );
        toml::from_str(&text).unwrap()
    }

    /// An agent whose updates are signed by this key; by none where it is empty.
    fn host_by(&self, key: &str, section: CertificateSection) -> LocalCertificates {
        let sections = vec![section];
        handover_certificates::check(&sections).unwrap();
        let mut text = format!("server = '{}'\nservice_names = ['www.example.net']\n", self.server.address());
        if !key.is_empty() {
            let secret = self.server.secret_file(key);
            text += &format!("[update]\nkey_name = '{key}'\nsecret_file = '{}'\n", secret.display());
        }
        let dns: DnsSection = toml::from_str(&text).unwrap();
        let state = self.path("state");
        let names = LocalNames::new(Some(dns), &state, Arc::new(Wall));
        LocalCertificates::new(sections, &state, Arc::new(Quiet), Arc::new(Wall))
            .at_target()
            .proved_by(Arc::new(names))
    }

    fn host(&self, names: &[&str]) -> LocalCertificates {
        self.host_by(KEY, self.section(names))
    }

    /// What stands in DNS for an authority that asks for `name`.
    fn texts(&self, name: &str) -> Vec<String> {
        self.server.values(name, "TXT").unwrap().into_iter().collect()
    }

    async fn refused(&self, host: &LocalCertificates) -> Failure {
        let failure = host.install(&migration(), &[]).await.unwrap_err();
        assert!(!self.path("www.pem").exists() && !self.path("www.key").exists());
        assert!(self.texts("_acme-challenge.www").is_empty());
        assert!(!self.path("state/challenges/m-1.json").exists());
        failure
    }
}

fn migration() -> MigrationId {
    "m-1".parse().unwrap()
}

#[tokio::test]
async fn an_authority_issues_once() {
    let bed = Bed::new();
    // Somebody else's, for another authority.
    bed.server.update(&["update add _acme-challenge.www.example.net 60 TXT other"]).unwrap();
    let mut section = bed.section(&["example.net", "*.example.net", "www.example.net"]);
    section.acme_contact = vec!["mailto:admin@example.net".to_owned()];
    for _ in 0..2 {
        let host = bed.host_by(KEY, section.clone());
        assert_eq!(host.facts().await.unwrap()[0].problem, None);
        host.check(&[]).await.unwrap();
        host.install(&migration(), &[]).await.unwrap();
        let names = bed.authority.verify(&bed.path("www.pem")).unwrap();
        for name in ["DNS:example.net", "DNS:*.example.net", "DNS:www.example.net"] {
            assert!(names.contains(name), "{names}");
        }
        assert_eq!(bed.authority.logged(ISSUED).unwrap(), 1);
    }
    assert_eq!(bed.texts("_acme-challenge.www"), ["\"other\""]);
    assert!(bed.texts("_acme-challenge").is_empty());
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(bed.path("www.key")), 0o600);
    let accounts: Vec<_> =
        fs::read_dir(bed.path("state/acme")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(accounts.len(), 1);
    assert_eq!(mode(accounts[0].path()), 0o600);
    let account = fs::read_to_string(accounts[0].path()).unwrap();
    assert!(account.contains("mailto:admin@example.net"), "{account}");

    // The next migration orders another one, by the same account.
    let host = bed.host_by(KEY, section);
    let first = fs::read(bed.path("www.pem")).unwrap();
    host.restore(&migration()).await.unwrap();
    assert!(!bed.path("www.pem").exists());
    host.forget(&migration()).await.unwrap();
    host.install(&"m-2".parse().unwrap(), &[]).await.unwrap();
    assert_ne!(fs::read(bed.path("www.pem")).unwrap(), first);
    assert_eq!(bed.authority.logged(ISSUED).unwrap(), 2);
    assert_eq!(fs::read_to_string(accounts[0].path()).unwrap(), account);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_short_is_taken_away() {
    let bed = Bed::new();
    // Once it is ordered again, once undone, once forgotten.
    for end in ["again", "undone", "forgotten"] {
        let slow = CertificateSection { acme_wait_seconds: 300, ..bed.section(&["www.example.net"]) };
        let host = bed.host_by(KEY, slow);
        let order = tokio::spawn(async move { host.install(&migration(), &[]).await });
        poll::until("the text", SETTLES_WITHIN, || {
            Ok((!bed.texts("_acme-challenge.www").is_empty()).then_some(()))
        })
        .unwrap();
        // As a kill does: nothing is cleared up behind it.
        order.abort();
        assert!(order.await.unwrap_err().is_cancelled());
        assert_eq!(bed.texts("_acme-challenge.www").len(), 1);
        let host = bed.host(&["www.example.net"]);
        match end {
            "again" => host.install(&migration(), &[]).await.unwrap(),
            "undone" => host.restore(&migration()).await.unwrap(),
            _ => host.forget(&migration()).await.unwrap(),
        }
        assert!(bed.texts("_acme-challenge.www").is_empty(), "{end}");
        assert!(!bed.path("state/challenges/m-1.json").exists(), "{end}");
        assert_eq!(bed.path("www.pem").exists(), end == "again");
        host.restore(&migration()).await.unwrap();
        host.forget(&migration()).await.unwrap();
    }
    assert_eq!(bed.authority.logged(ISSUED).unwrap(), 1);
}

#[tokio::test]
async fn what_an_authority_refuses_is_told_as_it_says_it() {
    let bed = Bed::new();
    let failure = bed.refused(&bed.host(&["www.example.net", BLOCKED])).await;
    assert!(!failure.is_transient() && failure.what.contains("(rejectedIdentifier)"), "{failure}");
    assert!(failure.what.contains(BLOCKED) && failure.hint.contains("look at `names`"), "{failure}");

    // It finds nothing: it asks another server than the one that was told.
    let elsewhere = NameServer::start(&[]).unwrap();
    let other = Authority::start(elsewhere.address()).unwrap();
    let section = CertificateSection {
        acme: Some(other.directory()),
        acme_root: Some(other.root()),
        ..bed.section(&["www.example.net"])
    };
    let failure = bed.refused(&bed.host_by(KEY, section)).await;
    assert!(
        failure.what.contains("www.example.net: ") && failure.hint.contains("`server` of [dns]"),
        "{failure}"
    );
    assert_eq!(other.logged(ISSUED).unwrap() + bed.authority.logged(ISSUED).unwrap(), 0);
}

#[tokio::test]
async fn accounts_that_are_not_taken_are_told() {
    let mut bed = Bed::new();
    let section =
        CertificateSection { acme_account: Some(bed.path("acme.json")), ..bed.section(&["www.example.net"]) };
    let host = bed.host_by(KEY, section.clone());
    host.install(&"m-0".parse().unwrap(), &[]).await.unwrap();
    host.restore(&"m-0".parse().unwrap()).await.unwrap();
    bed.authority.restart().unwrap();
    let failure = bed.refused(&host).await;
    assert!(failure.what.contains("(accountDoesNotExist)"), "{failure}");
    assert!(
        failure.hint.contains(&format!("the account in {}", bed.path("acme.json").display())),
        "{failure}"
    );
    fs::remove_file(bed.path("acme.json")).unwrap();
    host.install(&migration(), &[]).await.unwrap();
    bed.authority.verify(&bed.path("www.pem")).unwrap();
    host.restore(&migration()).await.unwrap();
    host.forget(&migration()).await.unwrap();

    let strict = Authority::start_for_known_accounts(bed.server.address()).unwrap();
    let section = CertificateSection {
        acme: Some(strict.directory()),
        acme_root: Some(strict.root()),
        acme_account: None,
        ..section
    };
    let failure = bed.refused(&bed.host_by(KEY, section)).await;
    assert!(failure.what.contains("(externalAccountRequired)"), "{failure}");
    assert!(failure.hint.contains("`acme_command`"), "{failure}");
}

#[tokio::test]
async fn keys_that_may_not_show_it_are_told() {
    let bed = Bed::new();
    let section = bed.section(&["www.example.net"]);
    let host = bed.host_by(READER, section.clone());
    let failure = host.install(&migration(), &[]).await.unwrap_err();
    assert!(!failure.is_transient() && failure.hint.contains("let the key change these names"), "{failure}");
    assert!(!bed.path("www.pem").exists());
    // What may have been put in is not forgotten before it is known to be gone.
    assert!(bed.path("state/challenges/m-1.json").exists());
    bed.host_by(KEY, section.clone()).install(&migration(), &[]).await.unwrap();
    assert!(!bed.path("state/challenges/m-1.json").exists());

    let host = bed.host_by("", section);
    let problem = host.facts().await.unwrap()[0].problem.clone().unwrap();
    assert!(problem.contains("no [dns.update]") && problem.contains("`acme_command`"), "{problem}");
    assert_eq!(host.check(&[]).await.unwrap_err().item, "certificate www");
}

#[tokio::test]
async fn who_cannot_be_asked_is_told() {
    let mut bed = Bed::new();
    let section = bed.section(&["www.example.net"]);
    // Trusted by another authority's certificate.
    let other = Authority::start(bed.server.address()).unwrap();
    let untrusted = CertificateSection { acme_root: Some(other.root()), ..section.clone() };
    let failure = bed.refused(&bed.host_by(KEY, untrusted)).await;
    assert!(!failure.is_transient() && failure.hint.contains("`acme_root`"), "{failure}");
    let nowhere = CertificateSection { acme: Some(bed.authority.directory() + "/none"), ..section.clone() };
    let failure = bed.refused(&bed.host_by(KEY, nowhere)).await;
    assert!(failure.to_string().contains("404"), "{failure}");
    bed.authority.kill().unwrap();
    let host = bed.host_by(KEY, section.clone());
    let failure = bed.refused(&host).await;
    assert!(failure.is_transient() && failure.to_string().contains("is not reached"), "{failure}");
    // Before that, nobody is asked.
    assert_eq!(host.facts().await.unwrap()[0].problem, None);
    host.check(&[]).await.unwrap();
    let rootless = CertificateSection { acme_root: Some(bed.path("none.pem")), ..section };
    let problem = bed.host_by(KEY, rootless).facts().await.unwrap()[0].problem.clone().unwrap();
    assert!(problem.contains("none.pem: it cannot be read"), "{problem}");
}
