//! Notices against a real server of mail (Debian's python3-aiosmtpd).

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use handover_engine::ports::hooks::{Hooks, Moment, NoHooks, Occasion};
use handover_engine::time::{Clock, Timestamp};
use handover_notices::{Names, NoticeSection, NoticesSection, Noticing, section};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A server of mail, its certificates, and what it has taken.
struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        fs::write(path("cert.pem"), params.signed_by(&key, &ca).unwrap().pem()).unwrap();
        fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(path("ca.pem"), ca.pem()).unwrap();
        fs::write(path("password"), "secret\n").unwrap();
        fs::set_permissions(path("password"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(path("mail")).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smtp.py");
        let mut child = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(path("mail"))
            .arg(mode)
            .args([path("cert.pem"), path("key.pem")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port = port.trim().parse().expect("python3-aiosmtpd is not there");
        Self { child, port, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// What it has taken so far, in its order.
    fn mail(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("mail")).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| fs::read_to_string(file).unwrap().replace("\r\n", "\n")).collect()
    }

    /// A host that sends there.
    fn host(&self, scheme: &str, more: &str) -> Noticing {
        let text = format!(
            "[notices]\nsmtp = '{scheme}://localhost:{}'\nfrom = 'Shop <shop@example.org>'\n{}",
            self.port,
            more.replace("DIR", &self.dir.path().display().to_string())
        );
        let manifest: Manifest = toml::from_str(&text).unwrap();
        manifest.notices.check().unwrap();
        section::check(Some(&manifest.notices), &manifest.notice).unwrap();
        let names = Names { appliance: "shop".into(), host: "shop.example.org".into() };
        let clock = Arc::new(At(1_800_000_000_000));
        Noticing::new(Arc::new(NoHooks), Some(&manifest.notices), &manifest.notice, names, clock)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[derive(serde::Deserialize)]
struct Manifest {
    notices: NoticesSection,
    #[serde(default)]
    notice: Vec<NoticeSection>,
}

struct At(i64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
}

fn occasion(moment: Moment) -> Occasion {
    let at = (moment == Moment::Notice).then(|| Timestamp::from_millis(1_800_003_600_000));
    Occasion { migration: "m-1".parse().unwrap(), moment, at }
}

const ACCOUNT: &str = "user = 'shop'\npassword_file = 'DIR/password'\nca = 'DIR/ca.pem'\n";

#[tokio::test]
async fn clients_are_told_each_by_a_mail_of_his_own() {
    let server = Server::start("plain");
    let host = server.host("smtp", "to = ['a@example.org', 'Bée <b@example.org>']\n");
    for moment in Moment::ALL {
        assert_eq!(host.run(&occasion(moment)).await, Ok(vec![]), "{moment}");
    }
    let mail = server.mail();
    assert_eq!(mail.len(), 2 * 6, "{mail:?}");
    assert!(mail[0].starts_with("- shop@example.org a@example.org\n"), "{}", mail[0]);
    assert!(mail[1].starts_with("- shop@example.org b@example.org\n"), "{}", mail[1]);
    for part in [
        "Subject: shop: maintenance planned for 2027-01-15 09:00:00 UTC\n",
        "From: \"Shop\" <shop@example.org>\n",
        "To: a@example.org\n",
        "Date: Fri, 15 Jan 2027 08:00:00 +0000\n",
        "Message-ID: <handover.m-1.cutover-planned.1800003600@example.org>\n",
        "Auto-Submitted: auto-generated\n",
        "\n\nshop moves to a new system on 2027-01-15 09:00:00 UTC.",
    ] {
        assert!(
            mail[0].contains(part) || mail[0].replace("From: Shop", "From: \"Shop\"").contains(part),
            "{part}: {}",
            mail[0]
        );
    }
    assert!(mail[2].contains("Subject: shop: maintenance begins\n"), "{}", mail[2]);
}

#[tokio::test]
async fn only_what_is_named_is_told_in_its_own_words() {
    let server = Server::start("plain");
    let host = server.host(
        "smtp",
        "[[notice]]\nmoments = ['aborted']\nto = ['desk@example.org']\nsubject = 'Zurück: {host}'\nbody = 'Läuft. {what} {migration}'\n",
    );
    for moment in [Moment::BeforeFence, Moment::AfterAbort] {
        assert_eq!(host.run(&occasion(moment)).await, Ok(vec![]));
    }
    let mail = server.mail();
    assert_eq!(mail.len(), 1);
    assert!(mail[0].contains("=?utf-8?") && mail[0].contains("quoted-printable"), "{}", mail[0]);
    assert!(mail[0].contains("aborted m-1"), "{}", mail[0]);
}

#[tokio::test]
async fn over_tls_a_password_is_sent_to_who_is_certified() {
    for (mode, scheme) in [("starttls", "starttls"), ("smtps", "smtps")] {
        let server = Server::start(mode);
        let to = "to = ['a@example.org']\n";
        let host = server.host(scheme, &format!("{to}{ACCOUNT}"));
        assert_eq!(host.run(&occasion(Moment::AfterPublish)).await, Ok(vec![]), "{mode}");
        let mail = server.mail();
        assert!(mail.len() == 1 && mail[0].starts_with("shop shop@example.org a@example.org\n"), "{mail:?}");

        let stranger = Server::start("plain");
        fs::copy(stranger.path("ca.pem"), server.path("other.pem")).unwrap();
        let host = server.host(scheme, &format!("{to}{}", ACCOUNT.replace("ca.pem", "other.pem")));
        let warnings = host.run(&occasion(Moment::AfterPublish)).await.unwrap();
        assert!(warnings[0].contains("notice cut-over: it was sent to 0 of 1"), "{warnings:?}");
        fs::set_permissions(server.path("password"), fs::Permissions::from_mode(0o644)).unwrap();
        let host = server.host(scheme, &format!("{to}{ACCOUNT}"));
        let warnings = host.run(&occasion(Moment::AfterPublish)).await.unwrap();
        assert!(warnings[0].contains("everybody may read it (chmod 0600)"), "{warnings:?}");
        assert_eq!(server.mail().len(), 1);
    }
}

#[tokio::test]
async fn a_notice_that_cannot_be_sent_is_a_warning_unless_it_is_required() {
    let server = Server::start("refuse");
    let to = "to = ['nobody@example.org', 'a@example.org']\n";
    let required = "[[notice]]\nmoments = ['maintenance-begins', 'aborted']\nrequired = true\n";
    for (more, stops) in [(to.to_owned(), false), (format!("{to}{required}"), true)] {
        let host = server.host("smtp", &more);
        let told = host.run(&occasion(Moment::BeforeFence)).await;
        let text = match told {
            Ok(warnings) if !stops => warnings.join(""),
            Err(failure) if stops => failure.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(text.contains("notice maintenance-begins: it was sent to 1 of 2"), "{text}");
        assert!(text.contains("there is no such user"), "{text}");
        // Nothing can be stopped any more.
        assert_eq!(host.run(&occasion(Moment::AfterAbort)).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_hangs_is_in_nobody_s_way() {
    let server = Server::start("hang");
    let host = server.host("smtp", "to = ['a@example.org']\nseconds = 1\n");
    let began = tokio::time::Instant::now();
    let warnings = host.run(&occasion(Moment::AfterPublish)).await.unwrap();
    assert!(warnings[0].contains("notice cut-over"), "{warnings:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(server);
    let warnings = host.run(&occasion(Moment::AfterPublish)).await.unwrap();
    assert!(warnings[0].contains("is the server at localhost:"), "{warnings:?}");
}
