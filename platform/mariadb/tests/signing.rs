//! Signing in over TLS and over the local socket.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use handover_engine::failure::Class;
use handover_engine::ports::Database;
use handover_mariadb::{MariaDatabase, Settings};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::Server;

/// Certificates that a server and its clients need.
struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    /// An authority, a server's certificate of it for this host name, and another authority.
    fn make(host: &str) -> Self {
        let dir = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .unwrap();
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
        for name in ["ca.pem", "other.pem"] {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            write(name, params.self_signed(&key).unwrap().pem());
            if name == "ca.pem" {
                let issuer = Issuer::new(params, key);
                let key = KeyPair::generate().unwrap();
                let own = CertificateParams::new(vec![host.to_owned()]).unwrap();
                write("server.pem", own.signed_by(&key, &issuer).unwrap().pem());
                write("server.key", key.serialize_pem());
            }
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn server(&self) -> Server {
        let option = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        let options = [option("ssl-cert", "server.pem"), option("ssl-key", "server.key")];
        Server::start(&options.each_ref().map(String::as_str))
    }
}

fn source(url: &str) -> MariaDatabase {
    MariaDatabase::new("wiki".parse().unwrap(), Settings::parse(url).unwrap(), Vec::new())
}

fn url(server: &Server, database: &str, options: &str) -> String {
    format!("mariadb://app:s3cret@localhost:{}/{database}?{options}", server.port())
}

fn with_ca(ca: &Path) -> String {
    format!("ca={}", ca.display())
}

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY);";

#[tokio::test]
async fn tls_takes_the_right_authority_only() {
    let certificates = Certificates::make("localhost");
    let server = certificates.server();
    let db = server.database("tls", TABLE);
    // The account is refused without TLS.
    server.sql(
        "",
        &format!("CREATE USER app@'%' IDENTIFIED BY 's3cret' REQUIRE SSL; GRANT ALL ON `{db}`.* TO app@'%'"),
    );
    let facts = source(&url(&server, &db, &with_ca(&certificates.path("ca.pem")))).facts().await.unwrap();
    assert_eq!(facts.tables.len(), 1);
    let plain = source(&url(&server, &db, "")).facts().await.unwrap_err();
    assert!(plain.class == Class::NeedsOperator && plain.to_string().contains("Access denied"), "{plain}");
    let wrong =
        source(&url(&server, &db, &with_ca(&certificates.path("other.pem")))).facts().await.unwrap_err();
    let text = wrong.to_string();
    assert!(wrong.class == Class::NeedsOperator && wrong.hint.contains("`ca`"), "{text} {}", wrong.hint);
    assert!(text.contains("TLS") && !text.contains("s3cret"), "{text}");
    // The public authorities do not know it either.
    let public = source(&url(&server, &db, "tls=required")).facts().await.unwrap_err();
    assert!(public.class == Class::NeedsOperator && public.to_string().contains("TLS"), "{public}");
    let missing = source(&url(&server, &db, "ca=/nonexistent/ca.pem")).facts().await.unwrap_err();
    assert!(missing.class != Class::Permanent && missing.item.contains("wiki"), "{missing}");
}

#[tokio::test]
async fn tls_takes_the_right_host_only() {
    let certificates = Certificates::make("another.example");
    let server = certificates.server();
    let db = server.database("host", TABLE);
    server.sql("", &format!("CREATE USER app@'%' IDENTIFIED BY 's3cret'; GRANT ALL ON `{db}`.* TO app@'%'"));
    let failure =
        source(&url(&server, &db, &with_ca(&certificates.path("ca.pem")))).facts().await.unwrap_err();
    assert!(failure.class == Class::NeedsOperator && failure.hint.contains("names this host"), "{failure}");
}

#[tokio::test]
async fn tls_that_a_server_lacks_is_told() {
    let server = Server::shared();
    let db = server.database("notls", TABLE);
    server.sql(
        "",
        &format!("CREATE OR REPLACE USER app@'%' IDENTIFIED BY 's3cret'; GRANT ALL ON `{db}`.* TO app@'%'"),
    );
    let failure = source(&url(&server, &db, "tls=required")).facts().await.unwrap_err();
    assert!(failure.class == Class::NeedsOperator && failure.to_string().contains("no TLS"), "{failure}");
    source(&url(&server, &db, "")).facts().await.unwrap();
}

#[tokio::test]
async fn the_local_socket_knows_who_asks() {
    let server = Server::shared();
    let db = server.database("peer", TABLE);
    server.sql("", &format!("CREATE USER stranger@localhost IDENTIFIED VIA unix_socket; GRANT ALL ON `{db}`.* TO stranger@localhost"));
    // The tests run as root, who needs no password.
    source(&server.url(&db)).facts().await.unwrap();
    let failure = source(&server.url(&db).replace("root@", "stranger@")).facts().await.unwrap_err();
    assert!(
        failure.class == Class::NeedsOperator && failure.to_string().contains("Access denied"),
        "{failure}"
    );
}
