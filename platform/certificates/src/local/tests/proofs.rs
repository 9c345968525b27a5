//! Real servers, asked over TLS.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use handover_engine::ports::changeover::Certificates;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::world::{World, migration, section};
use crate::CertificateSection;
use crate::material::Pair;
use crate::minted::Ca;

type Versions = &'static [&'static SupportedProtocolVersion];

/// What a server serves with, and which names it was asked for.
#[derive(Clone)]
struct Server {
    place: String,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    asked: Arc<Mutex<Vec<Option<String>>>>,
    versions: Versions,
}

fn config(pair: &Pair, versions: Versions) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pair.chain.clone(), pair.key.clone_key())
        .unwrap();
    Arc::new(config)
}

const BOTH: Versions = &[&rustls::version::TLS13, &rustls::version::TLS12];

impl Server {
    /// Serves `pair` for as long as the test's runtime lasts.
    async fn start(pair: &Pair, versions: Versions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let config = Arc::new(Mutex::new(config(pair, versions)));
        let server = Self { place, config, asked: Arc::default(), versions };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = serving.config.lock().unwrap().clone();
                if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                    let name = stream.get_ref().1.server_name().map(str::to_owned);
                    serving.asked.lock().unwrap().push(name);
                }
            }
        });
        server
    }

    /// Waits until it was asked so often.
    async fn asked_times(&self, times: usize) {
        let asked = async {
            while self.asked.lock().unwrap().len() < times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asked).await.expect("the server is asked");
    }

    /// Reads its files.
    fn read(&self, certificate: &PathBuf, key: &PathBuf) {
        let read = |path: &PathBuf| std::fs::read(path).unwrap();
        let pair = Pair::read(&read(certificate), &read(key)).unwrap();
        *self.config.lock().unwrap() = config(&pair, self.versions);
    }
}

fn probed(world: &World, place: &str) -> CertificateSection {
    CertificateSection { probe: vec![place.to_owned()], ..section(world, "www") }
}

#[tokio::test]
async fn a_service_that_reloads_is_believed() {
    const OLD: Versions = &[&rustls::version::TLS12];
    const NEW: Versions = &[&rustls::version::TLS13];
    let root = Ca::root("Root");
    for (versions, algorithm) in [
        (OLD, &rcgen::PKCS_RSA_SHA256),
        (OLD, &rcgen::PKCS_ECDSA_P256_SHA256),
        (NEW, &rcgen::PKCS_ED25519),
        (NEW, &rcgen::PKCS_ECDSA_P384_SHA384),
        (BOTH, &rcgen::PKCS_RSA_SHA256),
    ] {
        let world = World::new();
        let names = ["*.example.org", "shop.example.org"];
        let (old, new) = (root.leaf(&names), root.leaf_of(algorithm, &names, -9, 900_000));
        world.lay("www", &old);
        let server = Server::start(&old.pair(), versions).await;
        let (serving, certificate, key) = (server.clone(), world.path("www.pem"), world.path("www.key"));
        let reload = move |_: &str| serving.read(&certificate, &key);
        *world.units.on_reload.lock().unwrap() = Some(Box::new(reload));
        let host = world.host(vec![probed(&world, &server.place)]);
        host.install(&migration(), &world.offer("www", &new)).await.unwrap();
        host.prove(&migration()).await.unwrap();
        server.asked_times(1).await;
        assert_eq!(*server.asked.lock().unwrap(), [Some("shop.example.org".to_owned())]);
        host.prove(&migration()).await.unwrap();
        host.restore(&migration()).await.unwrap();
        host.prove(&migration()).await.unwrap();
        assert_eq!(world.reloaded().len(), 4);
    }
}

#[tokio::test]
async fn a_service_that_takes_its_time_is_waited_for() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (old, new) = (root.leaf(&["www.example.org"]), root.leaf(&["www.example.org"]));
    world.lay("www", &old);
    let server = Server::start(&old.pair(), BOTH).await;
    let host = world.host(vec![probed(&world, &server.place)]);
    host.install(&migration(), &world.offer("www", &new)).await.unwrap();
    let id = migration();
    let (proved, ()) = tokio::join!(host.prove(&id), async {
        server.asked_times(2).await;
        server.read(&world.path("www.pem"), &world.path("www.key"));
    });
    proved.unwrap();
}

#[tokio::test]
async fn a_service_that_serves_something_else_is_told_of() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (old, new) = (root.leaf(&["www.example.org"]), root.leaf(&["www.example.org"]));
    world.lay("www", &old);
    let server = Server::start(&old.pair(), BOTH).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let no_tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_tls_place = no_tls.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = no_tls.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 mail ESMTP\r\n").await;
        }
    });
    let fingerprint = |pair: &Pair| crate::record::digest(&pair.chain[0]);
    let (was, is) = (fingerprint(&old.pair()), fingerprint(&new.pair()));
    let served = format!("it serves CN=www.example.org, good until 2027-04-15T08:00:00.0Z, SHA-256 {was}");
    let served = served.replace(".0Z", "Z");
    for (place, part) in [
        (server.place.clone(), served.as_str()),
        (silent.local_addr().unwrap().to_string(), "it is silent"),
        (closed.to_string(), "it cannot be reached"),
        (no_tls_place, "TLS fails there"),
    ] {
        let host = world.host(vec![CertificateSection { probe_seconds: 1, ..probed(&world, &place) }]);
        host.install(&migration(), &world.offer("www", &new)).await.unwrap();
        let failure = host.prove(&migration()).await.unwrap_err();
        let told = failure.to_string();
        assert_eq!(failure.item, "certificate www");
        assert!(told.contains(&place) && told.contains(part) && told.contains(&is), "{part}: {told}");
        assert!(failure.hint.contains("www.pem"), "{told}");
    }
    assert_eq!(world.reloaded().len(), 4);
}

#[tokio::test]
async fn a_server_without_the_key_is_not_believed() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (new, another) = (root.leaf(&["www.example.org"]), root.leaf(&["www.example.org"]));
    // Shows the right chain, and signs with another key.
    #[derive(Debug)]
    struct Impostor(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Impostor {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&another.pair().key).unwrap();
    let impostor = rustls::sign::CertifiedKey::new(new.pair().chain, key);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(BOTH)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Impostor(Arc::new(impostor))));
    let server = Server::start(&another.pair(), BOTH).await;
    *server.config.lock().unwrap() = Arc::new(config);
    let host = world.host(vec![CertificateSection { probe_seconds: 1, ..probed(&world, &server.place) }]);
    host.install(&migration(), &world.offer("www", &new)).await.unwrap();
    let failure = host.prove(&migration()).await.unwrap_err();
    assert!(failure.what.contains("TLS fails there"), "{failure}");
}

#[tokio::test]
async fn a_unit_that_does_not_reload_is_told_of() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let mut broken = section(&world, "www");
    broken.services =
        ["first.service", "broken.service", "first.service", "last.service"].map(str::to_owned).into();
    let host = world.host(vec![broken]);
    host.install(&migration(), &world.offer("www", &root.leaf(&["www"]))).await.unwrap();
    let failure = host.prove(&migration()).await.unwrap_err();
    assert_eq!(failure.item, "broken.service");
    assert_eq!(world.reloaded(), ["first.service", "broken.service", "last.service"]);
    // Its files are back all the same.
    host.restore(&migration()).await.unwrap_err();
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn openssl_takes_and_serves_what_is_issued_here() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::process::Command;
    let (world, root) = (World::new(), Ca::root("Root"));
    world.lay("root", &root.minted);
    let mut www = world.reissued("www", &root.intermediate("Middle"));
    www.names = vec!["www.example.org".to_owned()];
    world.host(vec![www.clone()]).install(&migration(), &[]).await.unwrap();
    let verified = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "www.example.org"])
        .args(["-attime", &crate::minted::NOW.seconds.to_string(), "-CAfile"])
        .arg(world.path("root.pem"))
        .arg("-untrusted")
        .args([world.path("www.pem"), world.path("www.pem")])
        .output()
        .await
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert_chain"])
        .args([world.path("www.pem"), "-cert".into(), world.path("www.pem")])
        .args(["-key".into(), world.path("www.key")])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let place = loop {
        let line = lines.next_line().await.unwrap().expect("openssl tells where it listens");
        if let Some(place) = line.strip_prefix("ACCEPT ") {
            break place.to_owned();
        }
    };
    www.probe = vec![place];
    world.host(vec![www]).prove(&migration()).await.unwrap();
    server.kill().await.unwrap();
}
