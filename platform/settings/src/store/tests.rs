use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use handover_engine::changeover::{Contents, Group, Setting};
use serde_json::{Value, json};

use super::*;
use crate::disk;
use crate::section::LARGEST;

fn migration() -> MigrationId {
    "m1".parse().unwrap()
}

fn section(dir: &Path, name: &str, group: &str, file: &str, keys: &[&str]) -> SettingsSection {
    SettingsSection {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..SettingsSection::of_file(name, Group(group.into()), dir.join(file))
    }
}

/// A host with an address, limits in the same kind of file as many have, and a whole file.
fn host(address: &str) -> (tempfile::TempDir, LocalSettings) {
    let dir = disk::scratch();
    let at = dir.path();
    std::fs::write(
        at.join("10.network"),
        format!("# {address}\n[Network]\nAddress={address}\nDNS=9.9.9.9\n"),
    )
    .unwrap();
    std::fs::write(at.join("mail.yaml"), format!("limits: {{size: 5}} # {address}\n")).unwrap();
    std::fs::write(at.join("motd"), format!("I am {address}\n")).unwrap();
    let sections = vec![
        section(at, "address", "network", "10.network", &["Network.Address"]),
        section(at, "resolvers", "dns", "10.network", &["Network.DNS"]),
        section(at, "mail", "mail", "mail.yaml", &["limits.size"]),
        section(at, "motd", "branding", "motd", &[]),
    ];
    crate::section::check(&sections).unwrap();
    let settings = LocalSettings::new(sections, &at.join("state"));
    (dir, settings)
}

fn text(dir: &tempfile::TempDir, name: &str) -> String {
    std::fs::read_to_string(dir.path().join(name)).unwrap()
}

#[tokio::test]
async fn two_hosts_exchange_their_settings() {
    let (a, ours) = host("10.0.0.1/24");
    let (b, theirs) = host("10.0.0.2/24");
    let (of_a, of_b) = (ours.read(Scope::All).await.unwrap(), theirs.read(Scope::All).await.unwrap());
    let bundle: Bundle = serde_json::from_str(&serde_json::to_string(&of_a).unwrap()).unwrap();
    for (settings, bundle) in [(&ours, &of_b), (&theirs, &bundle)] {
        settings.stage(&migration(), bundle).await.unwrap();
        settings.stage(&migration(), bundle).await.unwrap();
        settings.apply(&migration()).await.unwrap();
        settings.apply(&migration()).await.unwrap();
        settings.stage(&migration(), bundle).await.unwrap();
    }
    assert_eq!(text(&a, "10.network"), "# 10.0.0.1/24\n[Network]\nAddress=10.0.0.2/24\nDNS=9.9.9.9\n");
    assert_eq!(text(&b, "10.network"), "# 10.0.0.2/24\n[Network]\nAddress=10.0.0.1/24\nDNS=9.9.9.9\n");
    assert_eq!(text(&a, "motd"), "I am 10.0.0.2/24\n");
    let told = ours.stage(&migration(), &Bundle::default()).await.unwrap_err();
    assert!(told.what.contains("in place already"), "{told}");
    for settings in [&ours, &theirs] {
        settings.restore(&migration()).await.unwrap();
        settings.restore(&migration()).await.unwrap();
        settings.forget(&migration()).await.unwrap();
        settings.forget(&migration()).await.unwrap();
    }
    assert_eq!((ours.read(Scope::All).await.unwrap(), theirs.read(Scope::All).await.unwrap()), (of_a, of_b));
    assert!(!a.path().join("state/changeover/m1").exists());
}

#[tokio::test]
async fn basic_ones_are_those_that_are_not_of_the_host() {
    let (_dir, settings) = host("10.0.0.1/24");
    let names = |bundle: Bundle| bundle.settings.into_iter().map(|setting| setting.name).collect::<Vec<_>>();
    assert_eq!(names(settings.read(Scope::Basic).await.unwrap()), ["mail", "motd"]);
    assert_eq!(names(settings.read(Scope::All).await.unwrap()), ["address", "resolvers", "mail", "motd"]);
}

#[tokio::test]
async fn what_is_not_named_here_is_left_alone() {
    let (dir, settings) = host("10.0.0.1/24");
    let keys = BTreeMap::from([
        ("Network.Address".to_owned(), Some(Value::from("10.0.0.9/24"))),
        ("Network.DNS".to_owned(), Some(Value::from("6.6.6.6"))),
    ]);
    let setting =
        |name: &str, contents| Setting { name: name.into(), group: Group("network".into()), contents };
    let bundle = Bundle {
        settings: vec![
            setting("address", Contents::Keys(keys)),
            setting("shadow", Contents::Whole { bytes: b"root::".to_vec(), mode: 0o644 }),
        ],
    };
    settings.stage(&migration(), &bundle).await.unwrap();
    settings.apply(&migration()).await.unwrap();
    assert_eq!(text(&dir, "10.network"), "# 10.0.0.1/24\n[Network]\nAddress=10.0.0.9/24\nDNS=9.9.9.9\n");
    let meta = std::fs::metadata(dir.path().join("state/changeover/m1/staged.json")).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_cannot_be_put_in_place_is_refused_before() {
    let (dir, settings) = host("10.0.0.1/24");
    let size = |value: Value| Contents::Keys(BTreeMap::from([("limits.size".to_owned(), Some(value))]));
    let whole = |bytes: Vec<u8>| Contents::Whole { bytes, mode: 0o644 };
    for (name, group, contents, part) in [
        ("address", "mail", Contents::Absent, "make a host the one it is here"),
        ("motd", "branding", size(json!(1)), "keys of them, the other one the whole file"),
        ("mail", "mail", whole(Vec::new()), "keys of them, the other one the whole file"),
        ("motd", "branding", whole(vec![0; LARGEST + 1]), "larger than 256 KiB"),
        ("mail", "mail", size(json!("x".repeat(LARGEST))), "larger than 256 KiB"),
    ] {
        let setting = Setting { name: name.into(), group: Group(group.into()), contents };
        let told = settings.stage(&migration(), &Bundle { settings: vec![setting] }).await.unwrap_err();
        assert!(told.to_string().contains(part), "{part}: {told}");
        assert!(told.item.contains(name) && !told.hint.is_empty(), "{told}");
    }
    let mail = Setting { name: "mail".into(), group: Group("mail".into()), contents: size(json!(9)) };
    let bundle = Bundle { settings: vec![mail] };
    std::fs::remove_file(dir.path().join("mail.yaml")).unwrap();
    let told = settings.stage(&migration(), &bundle).await.unwrap_err();
    assert!(told.to_string().contains("is not there"), "{told}");
    std::fs::write(dir.path().join("mail.yaml"), "limits: [\n").unwrap();
    let told = settings.stage(&migration(), &bundle).await.unwrap_err();
    assert!(told.to_string().contains("cannot be read as YAML"), "{told}");
    assert!(settings.apply(&migration()).await.unwrap_err().what.contains("nothing is staged"));
    let facts = settings.facts().await.unwrap();
    let problems: Vec<_> = facts.iter().map(|fact| fact.problem.is_some()).collect();
    assert_eq!(problems, [false, false, true, false]);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_a_problem() {
    let dir = disk::scratch();
    let sections = vec![
        section(dir.path(), "missing", "mail", "nothing/file", &[]),
        // Nobody writes there, not even root.
        SettingsSection {
            file: "/proc/sys/kernel/ostype".into(),
            ..section(dir.path(), "proc", "mail", "x", &[])
        },
    ];
    let settings = LocalSettings::new(sections, &dir.path().join("state"));
    let facts = settings.facts().await.unwrap();
    let missing = facts[0].problem.as_deref().unwrap();
    assert!(missing.contains("is not there") && missing.contains("make it"), "{missing}");
    let read_only = facts[1].problem.as_deref().unwrap();
    assert!(read_only.contains("ReadWritePaths=/proc/sys/kernel"), "{read_only}");
    for name in ["missing", "proc"] {
        let contents = Contents::Whole { bytes: b"x".to_vec(), mode: 0o644 };
        let setting = Setting { name: name.into(), group: Group("mail".into()), contents };
        settings.stage(&migration(), &Bundle { settings: vec![setting] }).await.unwrap_err();
    }
}

#[tokio::test]
async fn files_come_and_go_and_links_stay() {
    let dir = disk::scratch();
    let at = dir.path();
    std::fs::create_dir(at.join("real")).unwrap();
    std::fs::write(at.join("real/linked"), "old").unwrap();
    std::fs::set_permissions(at.join("real/linked"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("real/linked", at.join("linked")).unwrap();
    std::fs::write(at.join("gone"), "x").unwrap();
    let all = ["linked", "gone", "added"];
    let sections = all.map(|name| section(at, name, "mail", name, &[])).to_vec();
    let settings = LocalSettings::new(sections, &at.join("state"));
    let whole = |text: &str| Contents::Whole { bytes: text.as_bytes().to_vec(), mode: 0o4640 };
    let contents = [whole("new"), Contents::Absent, whole("added")];
    let setting = |(name, contents): (&str, Contents)| Setting {
        name: name.into(),
        group: Group("mail".into()),
        contents,
    };
    let bundle = Bundle { settings: all.into_iter().zip(contents).map(setting).collect() };
    settings.stage(&migration(), &bundle).await.unwrap();
    settings.apply(&migration()).await.unwrap();
    assert!(at.join("linked").is_symlink() && !at.join("gone").exists());
    assert_eq!((text(&dir, "real/linked"), text(&dir, "added")), ("new".into(), "added".into()));
    let mode = |name: &str| std::fs::metadata(at.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("real/linked"), mode("added")), (0o600, 0o640));
    settings.restore(&migration()).await.unwrap();
    assert!(at.join("linked").is_symlink() && !at.join("added").exists());
    assert_eq!((text(&dir, "real/linked"), text(&dir, "gone")), ("old".into(), "x".into()));
}
