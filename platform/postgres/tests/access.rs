//! Ways in: certificates, the local socket's own knowledge of who asks, and roles that are no superusers.

mod support;

use handover_engine::failure::{Class, Failure};
use handover_engine::ports::{Database, DatabaseTarget};
use handover_postgres::{PostgresDatabase, PostgresTarget, Settings, Side, privileges};
use support::{Server, all_chunks, migration};

fn check(failure: &Failure, class: Class, parts: &[&str]) {
    let text = failure.to_string();
    assert_eq!(failure.class, class, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

fn database(settings: &Settings) -> PostgresDatabase {
    PostgresDatabase::new("shop".parse().unwrap(), settings, Vec::new())
}

#[tokio::test]
async fn who_asks_is_known_to_the_local_socket() {
    let server = Server::start("");
    server.sql(
        "postgres",
        "CREATE ROLE root LOGIN; GRANT pg_read_all_data TO root; CREATE ROLE somebody LOGIN",
    );
    let hba = "local all root,somebody peer\nlocal all all trust\n";
    std::fs::write(server.dir.join("data/pg_hba.conf"), hba).unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()");
    let settings = |role: &str| Settings::parse(&server.url(role, "postgres")).unwrap();
    // These tests run as root. What the server has not read yet lets everybody in.
    let refused = async {
        loop {
            match database(&settings("somebody")).facts().await {
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                Err(failure) => break failure,
            }
        }
    };
    let failure = tokio::time::timeout(std::time::Duration::from_secs(30), refused).await.unwrap();
    check(
        &failure,
        Class::NeedsOperator,
        &["shop, postgres at", "Peer authentication failed", "pg_hba.conf"],
    );
    database(&settings("root")).facts().await.unwrap();
    database(&settings("root")).snapshot().await.unwrap();
}

/// A server that speaks TLS alone, its certificate being for this name.
fn encrypted(name: &str) -> (Server, u16) {
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        (ca.self_signed(&key).unwrap().pem(), rcgen::Issuer::new(ca, key))
    };
    let ((ca, issuer), (other, _)) = (authority("ours"), authority("another"));
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf =
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let port = handover_tests::server::free_port().unwrap();
    let server = Server::start("");
    let files = [
        ("data/server.crt", leaf.pem()),
        ("data/server.key", key.serialize_pem()),
        ("ca.pem", ca),
        ("other.pem", other),
        ("data/pg_hba.conf", "local all all trust\nhostssl all all all scram-sha-256\n".to_owned()),
    ];
    for (file, text) in files {
        let path = server.dir.join(file);
        std::fs::write(&path, text).unwrap();
        let script = format!("chown postgres {0} && chmod 600 {0}", path.display());
        assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }
    server.sql("postgres", "CREATE ROLE remote LOGIN PASSWORD 'hunter2'; GRANT pg_read_all_data TO remote");
    server.stop();
    let mut conf =
        std::fs::OpenOptions::new().append(true).open(server.dir.join("data/postgresql.conf")).unwrap();
    let text = format!("ssl = on\nlisten_addresses = '127.0.0.1'\nport = {port}\n");
    std::io::Write::write_all(&mut conf, text.as_bytes()).unwrap();
    server.boot();
    (server, port)
}

#[tokio::test]
async fn the_servers_certificate_must_be_for_its_name_and_by_our_authority() {
    let (server, port) = encrypted("localhost");
    let dir = server.dir.display();
    let url = |host: &str, more: &str| {
        Settings::parse(&format!("postgres://remote:hunter2@{host}:{port}/postgres?{more}")).unwrap()
    };
    let settings = |host: &str, ca: &str| url(host, &format!("tls=required&ca={dir}/{ca}"));
    database(&settings("localhost", "ca.pem")).snapshot().await.unwrap();
    let refused = async |host: &str, ca: &str| database(&settings(host, ca)).facts().await.unwrap_err();
    check(
        &refused("localhost", "other.pem").await,
        Class::NeedsOperator,
        &["localhost", "certificate", "?ca="],
    );
    check(
        &refused("127.0.0.1", "ca.pem").await,
        Class::NeedsOperator,
        &["127.0.0.1", "certificate", "not valid for name"],
    );
    check(&refused("localhost", "absent.pem").await, Class::NeedsOperator, &["absent.pem", "correct `ca`"]);
    let plain = database(&url("localhost", "tls=off")).facts().await.unwrap_err();
    check(&plain, Class::NeedsOperator, &["pg_hba.conf"]);
}

#[tokio::test]
async fn no_superuser_at_either_side() {
    let (here, there) = (Server::start(""), Server::start(""));
    let from = here.create("shop", "");
    here.sql(
        &from,
        "CREATE ROLE shop; CREATE ROLE clerk; CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader;
         CREATE EXTENSION citext; CREATE SCHEMA stock AUTHORIZATION shop; SET ROLE shop;
         CREATE TABLE stock.item (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name public.citext UNIQUE);
         INSERT INTO stock.item (name) SELECT 'n' || n FROM generate_series(1, 500) n;
         CREATE TABLE stock.sold (item bigint REFERENCES stock.item, at timestamptz DEFAULT now());
         INSERT INTO stock.sold (item) SELECT n FROM generate_series(1, 100) n;
         CREATE VIEW stock.names AS SELECT name FROM stock.item; GRANT SELECT ON stock.names TO clerk;
         CREATE FUNCTION stock.mark() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER marks BEFORE INSERT ON stock.item FOR EACH ROW EXECUTE FUNCTION stock.mark();
         CREATE MATERIALIZED VIEW stock.sums AS SELECT count(*) FROM stock.sold",
    );
    here.sql(&from, "CREATE TABLE public.plain (id integer PRIMARY KEY); ALTER TABLE plain OWNER TO shop");
    here.sql("postgres", &format!("ALTER DATABASE {from} OWNER TO shop"));
    // Grants on the database itself, whose name is another one at the target, and another one again while it is made.
    let on_database = "REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC; GRANT CREATE ON DATABASE {} TO clerk";
    here.sql(&from, &format!("SET ROLE shop; {}", on_database.replace("{}", &from)));
    let name = there.name("copy");
    there.sql("postgres", "CREATE ROLE shop; CREATE ROLE clerk; CREATE ROLE mover LOGIN CREATEDB; GRANT shop TO mover; GRANT pg_signal_backend TO mover");
    there.sql("postgres", &format!("CREATE DATABASE {name} OWNER shop"));
    there.sql(
        &name,
        "CREATE TABLE before (a integer); INSERT INTO before VALUES (7); ALTER TABLE before OWNER TO shop",
    );
    let dataset = "shop".parse().unwrap();
    let reading = Settings::parse(&here.url("reader", &from)).unwrap();
    assert_eq!(privileges(&dataset, &reading, Side::Source).await.unwrap(), []);
    let view = database(&reading).snapshot().await.unwrap();
    let writing = Settings::parse(&there.url("mover", &name)).unwrap();
    assert_eq!(privileges(&dataset, &writing, Side::Target).await.unwrap(), []);
    let to = PostgresTarget::new(dataset, &writing, &migration());
    to.prepare(view.schema()).await.unwrap();
    for chunk in all_chunks(&*view, 10_000).await {
        to.apply(&[chunk]).await.unwrap();
    }
    to.finish(view.schema()).await.unwrap();
    to.publish().await.unwrap();
    assert_eq!(to.reread_schema().await.unwrap().structure(), view.schema().structure());
    // The owners and grants are the source's.
    let rights = "SELECT string_agg(relname || ' ' || pg_get_userbyid(relowner) || ' ' || coalesce(relacl::text, ''), ', ' ORDER BY relname)
                  FROM pg_class WHERE relnamespace IN ('stock'::regnamespace, 'public'::regnamespace) AND relkind IN ('r', 'v', 'm')";
    assert_eq!(here.sql(&from, rights), there.sql(&name, rights));
    assert!(there.sql(&name, rights).contains("clerk=r/shop"));
    let owner = format!("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{name}'");
    assert_eq!(there.sql("postgres", &owner), "shop");
    let given = "SELECT string_agg(one::text, ' ' ORDER BY one::text) FROM pg_database, unnest(datacl) one WHERE datname = current_database()";
    assert_eq!(there.sql(&name, given), here.sql(&from, given));
    assert!(there.sql(&name, given).contains("clerk=C/shop"), "{}", there.sql(&name, given));
    // Another pass begins with what is the owner's by now.
    to.prepare(view.schema()).await.unwrap();
    for chunk in all_chunks(&*view, 20_000).await {
        to.apply(&[chunk]).await.unwrap();
    }
    to.finish(view.schema()).await.unwrap();
    to.publish().await.unwrap();
    assert_eq!(here.sql(&from, rights), there.sql(&name, rights));
    to.undo().await.unwrap();
    assert_eq!(there.sql(&name, "SELECT a FROM before"), "7");
}
