use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// An issuer of licences.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn key(&self) -> IssuerKey {
        let der = [&signed_prefix()[..], self.0.public_key().as_ref()].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        IssuerKey::parse(&pem).unwrap()
    }

    fn sign(&self, text: &str) -> Document {
        let signature = STANDARD.encode(self.0.sign(text.as_bytes()));
        let (head, tail) = signature.split_at(64);
        let text = format!("{text}-----BEGIN SIGNATURE-----\n{head}\n{tail}\n-----END SIGNATURE-----\n");
        Document(text.into())
    }
}

fn signed_prefix() -> [u8; 12] {
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00]
}

struct Host {
    dir: tempfile::TempDir,
    licence: LocalLicence,
}

impl Host {
    fn new(issuer: &Issuer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let declared = Some((dir.path().join("etc/licence"), issuer.key()));
        let licence = LocalLicence::new(declared, &dir.path().join("state"));
        Self { dir, licence }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("etc/licence")
    }

    /// Names of what lies beside the licence, and of what is kept.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = ["etc", "state/licence"]
            .iter()
            .flat_map(|dir| fs::read_dir(self.dir.path().join(dir)).into_iter().flatten())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

const TEXT: &str =
    "guid = \"4f1c\"\nholder = \"Example\"\nmaintenance_until = \"2030-01-31T00:00:00Z\"\nseats = 7\n";

fn id(name: &str) -> MigrationId {
    name.parse().unwrap()
}

#[tokio::test]
async fn it_moves_and_comes_home() {
    let issuer = Issuer::new();
    let (source, target) = (Host::new(&issuer), Host::new(&issuer));
    let document = issuer.sign(TEXT);
    fs::write(source.place(), &document.0).unwrap();
    fs::set_permissions(source.place(), fs::Permissions::from_mode(0o604)).unwrap();
    let Standing::Valid(licence) = source.licence.standing().await.unwrap() else { panic!("it is valid") };
    assert_eq!((licence.guid.as_str(), licence.holder.as_str()), ("4f1c", "Example"));
    assert_eq!(licence.maintenance_until.unwrap().to_string(), "2030-01-31T00:00:00Z");
    assert_eq!(target.licence.standing().await.unwrap(), Standing::None);

    let migration = id("m-1");
    for _ in 0..2 {
        handover_engine::licence::carry(&source.licence, &target.licence, &migration).await.unwrap();
        assert_eq!(source.licence.standing().await.unwrap(), Standing::None);
        assert_eq!(fs::read(target.place()).unwrap(), document.0);
        assert_eq!(fs::metadata(target.place()).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(
            (source.names(), target.names()),
            (vec!["m-1".into()], vec!["licence".into(), "m-1".into()])
        );
    }
    for _ in 0..2 {
        handover_engine::licence::bring_back(&source.licence, &target.licence, &migration).await.unwrap();
        assert_eq!(fs::read(source.place()).unwrap(), document.0);
        assert_eq!(fs::metadata(source.place()).unwrap().mode() & 0o7777, 0o604);
        assert_eq!((source.names(), target.names()), (vec!["licence".into()], vec![]));
    }
}

#[tokio::test]
async fn what_is_no_licence_of_the_issuer_is_told() {
    let issuer = Issuer::new();
    let host = Host::new(&issuer);
    let good = String::from_utf8(issuer.sign(TEXT).0.to_vec()).unwrap();
    let foreign = String::from_utf8(Issuer::new().sign(TEXT).0.to_vec()).unwrap();
    let nameless = String::from_utf8(issuer.sign("holder = \"x\"\n").0.to_vec()).unwrap();
    let undated =
        String::from_utf8(issuer.sign("guid = \"x\"\nmaintenance_until = \"soon\"\n").0.to_vec()).unwrap();
    let table = [
        (good.replace("4f1c", "4f1d"), "signature is not its issuer's"),
        (foreign, "signature is not its issuer's"),
        (TEXT.to_owned(), "it has no signature"),
        (good.replace("-----END", "----END"), "it has no signature"),
        (format!("{good}seats = 9"), "it has no signature"),
        (nameless, "missing field `guid`"),
        (undated, "`maintenance_until`"),
        ("x".repeat((1 << 20) + 1), "larger than"),
    ];
    for (text, expected) in table {
        fs::write(host.place(), &text).unwrap();
        let standing = host.licence.standing().await.unwrap();
        let Standing::Invalid { problem, hint } = standing else { panic!("{expected}: {standing:?}") };
        assert!(problem.contains(expected) && !hint.is_empty(), "{expected}: {problem}");
        assert!(host.licence.keep(&id("m-1"), &Document(text.into())).await.is_err(), "{expected}");
    }
    fs::remove_file(host.place()).unwrap();
    symlink("/etc/hostname", host.place()).unwrap();
    assert!(matches!(host.licence.standing().await.unwrap(), Standing::Invalid { .. }));
    assert_eq!(host.names(), ["licence"]);
}

#[tokio::test]
async fn another_one_is_neither_withdrawn_nor_replaced() {
    let issuer = Issuer::new();
    let host = Host::new(&issuer);
    let (one, two) = (issuer.sign(TEXT), issuer.sign(&TEXT.replace("4f1c", "5a2d")));
    fs::write(host.place(), &two.0).unwrap();
    let renewed = host.licence.withdraw(&id("m-1"), one.digest()).await.unwrap_err();
    assert!(renewed.is_transient() && renewed.what.contains("renewed"), "{renewed}");
    let none = host.licence.instate(&id("m-1")).await.unwrap_err();
    assert!(none.what.contains("nothing is kept"), "{none}");
    host.licence.keep(&id("m-1"), &one).await.unwrap();
    let another = host.licence.instate(&id("m-1")).await.unwrap_err();
    assert!(another.what.contains("another one lies in its place") && !another.is_transient(), "{another}");
    assert_eq!(fs::read(host.place()).unwrap(), two.0);
    // What a crash has left half written is in nobody's way.
    fs::remove_file(host.place()).unwrap();
    fs::write(host.dir.path().join("etc/.licence.handover"), "torn").unwrap();
    host.licence.instate(&id("m-1")).await.unwrap();
    assert_eq!((fs::read(host.place()).unwrap(), host.names().len()), (one.0.to_vec(), 2));
}

#[tokio::test]
async fn a_host_without_one_says_so() {
    let licence = LocalLicence::default();
    assert_eq!(licence.standing().await.unwrap(), Standing::Undeclared);
    assert_eq!(licence.held(&id("m-1")).await.unwrap(), Held::default());
    licence.forget(&id("m-1")).await.unwrap();
    assert!(licence.instate(&id("m-1")).await.unwrap_err().hint.contains("[licence]"));
}

#[test]
fn keys_that_are_none_are_refused() {
    let issuer = Issuer::new();
    let der = [&signed_prefix()[..], issuer.0.public_key().as_ref()].concat();
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    assert!(IssuerKey::parse(&pem("PUBLIC KEY", &der)).is_ok());
    for bad in
        [pem("PUBLIC KEY", &der[..43]), pem("CERTIFICATE", &der), pem("PUBLIC KEY", &der[12..]), "x".into()]
    {
        assert_eq!(IssuerKey::parse(&bad), Err(BadKey), "{bad}");
    }
}
