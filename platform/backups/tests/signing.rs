//! Backups and restores by accounts with passwords, over TCP and over TLS, as a manifest's `url` names them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use handover_backups::Dataset;
use handover_platform::backups;
use handover_platform::manifest::Manifest;
use handover_tests::server::{Engine, Server};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use support::Host;
use support::servers::dump;

/// With what options files and connection strings make of their own.
const PASSWORD: &str = "p\"w\\n'd: #1;%é";

/// With a binary log, those who are no administrators may make triggers.
const TRUST: &str = "--log-bin-trust-function-creators=1";

/// A server that speaks TLS alone, and what its clients need.
struct Sealed {
    dir: TempDir,
    server: Server,
}

impl Sealed {
    fn new(engine: Engine) -> Self {
        let dir = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in("/tmp")
            .unwrap();
        let path = |name: &str| dir.path().join(name);
        let authority = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
        };
        let ((ca, issuer), (other, _)) = (authority("ours"), authority("another"));
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
        let hba = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        for (name, text) in [
            ("ca.pem", ca.as_str()),
            ("other.pem", other.as_str()),
            ("server.pem", leaf.as_str()),
            ("server.key", key.serialize_pem().as_str()),
            ("hba", hba),
            ("password", &format!("{PASSWORD}\n")),
            ("wrong", "something else\n"),
        ] {
            fs::write(path(name), text).unwrap();
        }
        let user = if engine == Engine::Mariadb { "mysql" } else { "postgres" };
        let owned =
            format!("chown {user} {0}/server.key {0}/hba && chmod 600 {0}/server.key", dir.path().display());
        assert!(std::process::Command::new("sh").args(["-c", &owned]).status().unwrap().success());
        let option = |name: &str, file: &str| format!("--{name}={}", path(file).display());
        let options = match engine {
            Engine::Mariadb => vec![
                option("ssl-cert", "server.pem"),
                option("ssl-key", "server.key"),
                "--require-secure-transport=ON".to_owned(),
                TRUST.to_owned(),
            ],
            Engine::Postgres => vec![
                "--ssl=on".to_owned(),
                option("ssl_cert_file", "server.pem"),
                option("ssl_key_file", "server.key"),
                option("hba_file", "hba"),
            ],
        };
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let server = Server::start(engine, &options).unwrap();
        Self { dir, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its database, by this authority and password.
    fn datasets(&self, user: &str, options: &str, password: &str) -> Vec<Dataset> {
        datasets(
            self.dir.path(),
            &self.server,
            user,
            &format!("{options}&password_file={}", self.path(password).display()),
        )
    }

    fn with_ca(&self, name: &str) -> String {
        format!("tls=required&ca={}", self.path(name).display())
    }
}

/// What a manifest names.
fn datasets(dir: &Path, server: &Server, user: &str, options: &str) -> Vec<Dataset> {
    let (scheme, port) = (server.engine().name(), server.port());
    let file = dir.join("appliance.toml");
    let text = format!(
        "[appliance]\nname = 'shop'\n[[database]]\nname = 'shop'\nurl = '{scheme}://{user}@localhost:{port}/shop?{options}'\n"
    );
    fs::write(&file, text).unwrap();
    backups::datasets(&Manifest::read(&file).unwrap()).unwrap()
}

fn quoted(password: &str) -> String {
    password.replace('\\', "\\\\").replace('\'', "''")
}

fn lay(server: &Server) {
    server.create("shop").unwrap();
    server.run("shop", "CREATE TABLE t (id INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'é'); CREATE VIEW w AS SELECT v FROM t").unwrap();
    if server.engine() == Engine::Mariadb {
        // What docs/mariadb.md and docs/backups.md ask for, and no more.
        let password = quoted(PASSWORD);
        server
            .run(
                "",
                &format!(
                    "SET sql_mode = ''; CREATE USER reader@'%' IDENTIFIED BY '{password}'; CREATE USER keeper@'%' IDENTIFIED BY '{password}';
                    GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON shop.* TO reader@'%'; GRANT SELECT ON mysql.proc TO reader@'%';
                    GRANT ALL ON shop.* TO keeper@'%'; GRANT ALL ON `shop\\_\\_handover\\_%`.* TO keeper@'%';
                    GRANT ALL ON `shop\\_\\_before\\_%`.* TO keeper@'%'; GRANT SET USER ON *.* TO keeper@'%'; GRANT SELECT ON mysql.proc TO keeper@'%';
                    CREATE TRIGGER shop.r BEFORE INSERT ON shop.t FOR EACH ROW SET new.v = 'r';
                    CREATE PROCEDURE shop.p() DELETE FROM shop.t; CREATE EVENT shop.e ON SCHEDULE EVERY 1 YEAR DO DELETE FROM t;"
                ),
            )
            .unwrap();
    } else {
        let password = PASSWORD.replace('\'', "''");
        server
            .run(
                "",
                &format!(
                    "CREATE ROLE reader LOGIN PASSWORD '{password}'; GRANT pg_read_all_data TO reader;
                     CREATE ROLE keeper LOGIN CREATEDB PASSWORD '{password}'; ALTER DATABASE shop OWNER TO keeper;"
                ),
            )
            .unwrap();
        server
            .run(
                "shop",
                "ALTER TABLE t OWNER TO keeper; ALTER VIEW w OWNER TO keeper; GRANT SELECT ON t, w TO reader",
            )
            .unwrap();
    }
}

/// Made by one who may only read, and put back by one who may change it.
async fn made_and_restored(server: &Server, reader: Vec<Dataset>, keeper: Vec<Dataset>) {
    let before = dump(server, "shop");
    let mut host = Host::new(tempfile::tempdir().unwrap(), reader);
    host.make("b-1").await.unwrap();
    host.verify("b-1").await.unwrap();
    server.run("shop", "DELETE FROM t; CREATE TABLE younger (a INT)").unwrap();
    host.datasets = keeper;
    host.restart(handover_backups::Tools::default()).await;
    let restored = host.restore("b-1", None).await.unwrap();
    assert_eq!(dump(server, "shop"), before);
    assert!(restored[0].before.as_ref().unwrap().contains("shop__before_"), "{restored:?}");
    host.make("b-2").await.unwrap();
}

#[tokio::test]
async fn passwords_over_tcp() {
    for engine in [Engine::Mariadb, Engine::Postgres] {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("password", PASSWORD), ("wrong", "something else")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let hba = tempfile::Builder::new().tempfile_in("/tmp").unwrap();
        fs::write(hba.path(), "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        fs::set_permissions(hba.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let option = format!("--hba_file={}", hba.path().display());
        let options: &[&str] = if engine == Engine::Postgres { &[&option] } else { &[TRUST] };
        let server = Server::start(engine, options).unwrap();
        lay(&server);
        let by = |user: &str, file: &str| {
            datasets(dir.path(), &server, user, &format!("password_file={}", dir.path().join(file).display()))
        };
        made_and_restored(&server, by("reader", "password"), by("keeper", "password")).await;
        let host = Host::new(tempfile::tempdir().unwrap(), by("reader", "wrong"));
        let refused = host.make("b-1").await.unwrap_err().to_string();
        assert!(
            refused.contains("Access denied") || refused.contains("password authentication failed"),
            "{refused}"
        );
        assert!(!refused.contains("something else"), "{refused}");
    }
}

#[tokio::test]
async fn tls_where_the_url_asks_for_it() {
    for engine in [Engine::Mariadb, Engine::Postgres] {
        let sealed = Sealed::new(engine);
        lay(&sealed.server);
        let with = |user: &str| sealed.datasets(user, &sealed.with_ca("ca.pem"), "password");
        made_and_restored(&sealed.server, with("reader"), with("keeper")).await;
        for options in [sealed.with_ca("other.pem"), "tls=required".to_owned(), "tls=off".to_owned()] {
            let host =
                Host::new(tempfile::tempdir().unwrap(), sealed.datasets("reader", &options, "password"));
            let refused = host.make("b-1").await.unwrap_err();
            let text = refused.to_string();
            let told = ["certificate", "Access denied", "no encryption"];
            assert!(told.iter().any(|part| text.contains(part)), "{options}: {text}");
            assert!(!text.contains("#1") && !refused.hint.is_empty(), "{text}");
        }
    }
}
