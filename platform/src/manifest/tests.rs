use handover_engine::backup::Occasion;

use super::*;

const GOOD: &str = r#"
        [appliance]
        name = "mail"
        release = "4.2"
        role = "ha-master"
        [[database]]
        name = "main"
        url = "sqlite:/var/lib/mail/main.db"
        [[files]]
        name = "spool"
        root = "/var/spool/mail"
        exclude = ["*.tmp"]
    "#;

const LOG: &str = r#"
        [[log]]
        name = "logs"
        root = "/var/log/mail"
        pattern = ["*.log*"]
    "#;

const LICENCE: &str = r#"
        [licence]
        file = "/etc/mail/licence"
        public_key = """
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
    "#;

const BACKUPS: &str = r#"
        [backups]
        directory = "/srv/backups"
        before = ["start", "accept"]
        keep = 5
    "#;

fn read(text: &str) -> Result<Manifest, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("appliance.toml");
    std::fs::write(&path, text).unwrap();
    Manifest::read(&path).map_err(|error| error.to_string())
}

#[test]
fn a_good_one_is_read() {
    let manifest = read(GOOD).unwrap();
    assert_eq!(manifest.database[0].place().unwrap().location(), "/var/lib/mail/main.db");
    assert_eq!(manifest.facts().role, "ha-master");
    assert!(read(&format!("{GOOD}{LICENCE}")).unwrap().licence.is_some());
    assert_eq!(manifest.facts().backups, []);
    let facts = read(&format!("{GOOD}{BACKUPS}")).unwrap().facts();
    assert_eq!(facts.backups, [Occasion::Start, Occasion::Accept]);
}

#[test]
fn a_replica_makes_sense_or_is_refused() {
    let with = |url: &str, more: &str| {
        read(&GOOD.replace("sqlite:/var/lib/mail/main.db\"", &format!("{url}\"\n{more}")))
    };
    let (url, replica) = ("mariadb://u@db1/mail", "replica = \"mariadb://u:secret@db2/mail\"");
    assert!(with(url, replica).is_ok());
    assert!(with(url, &format!("{replica}\nreplication = \"mariadb://r@db1/mail\"")).is_ok());
    for (url, more, expected) in [
        ("sqlite:/x.db", replica, "only a mariadb:// database can have one"),
        (url, "replica = \"postgres://u:secret@db2/mail\"", "`replica`: write mariadb://…"),
        (url, "replica = \"mariadb://u:secret@db2/other\"", "write mail"),
        (url, "replica = \"mariadb://u:secret@db1/mail\"", "it is the server of `url`"),
        (url, "replication = \"mariadb://u:secret@db1/mail\"", "means nothing without `replica`"),
        (
            url,
            &format!("{replica}\nreplication = \"mariadb://u@h/mail?socket=/s\""),
            "write the primary's host and port",
        ),
    ] {
        let error = with(url, more).unwrap_err();
        assert!(error.contains(expected) && !error.contains("secret"), "{expected}: {error}");
    }
}

#[test]
fn a_bad_one_is_refused_by_name() {
    let table = [
        (GOOD.replace("release", "relaese"), "relaese"),
        (GOOD.replace("release", "relaese"), "line 4"),
        (GOOD.replace("sqlite:/var", "sqlite:var"), "write the path absolutely"),
        (GOOD.replace("sqlite:/var", "oracle://joe:secret@db/var"), "oracle://…@db/var"),
        (GOOD.replace("\"/var/spool", "\"var/spool"), "`spool`: `root`"),
        (GOOD.replace("\"spool\"", "\"main\""), "the name is used twice"),
        (GOOD.replace("\"spool\"", "\"a b\""), "is not a valid name"),
        (GOOD.replace("ha-master", "king"), "king"),
        (GOOD.replace("[appliance]", "[appliances]"), "appliances"),
        (GOOD.replace("exclude =", "is_log ="), "is_log"),
        (format!("{GOOD}{LOG}").replace("pattern", "patern"), "patern"),
        (format!("{GOOD}{LOG}").replace("pattern", "patern"), "line 17"),
        (format!("{GOOD}{LOG}").replace("\"*.log*\"", ""), "[[log]] `logs`: `pattern`"),
        (format!("{GOOD}{LOG}").replace("\"/var/log", "\"log"), "[[log]] `logs`: `root`"),
        (
            format!("{GOOD}{LICENCE}").replace("/etc/mail", "/var/spool/mail"),
            "[licence] `file`: it would be copied with `spool`: write \"licence\"",
        ),
        (format!("{GOOD}{LOG}").replace("\"logs\"", "\"spool\""), "the name is used twice"),
        (format!("{GOOD}{LICENCE}").replace("\"/etc", "\"etc"), "[licence] `file`: write an absolute path"),
        (
            format!("{GOOD}{LICENCE}").replace("MCow", "MCoa"),
            "[licence] `public_key`: write the issuer's Ed25519 key",
        ),
        (format!("{GOOD}{LICENCE}").replace("public_key", "private_key"), "private_key"),
        (
            format!("{GOOD}{BACKUPS}").replace("\"/srv", "\"srv"),
            "[backups] `directory`: write an absolute path",
        ),
        (format!("{GOOD}{BACKUPS}").replace("/srv", "/var/spool/mail"), "a tree that is backed up itself"),
        (format!("{GOOD}{BACKUPS}").replace("accept", "manual"), "[backups] `before`: write \"start\""),
        (format!("{GOOD}{BACKUPS}").replace("accept", "start"), "name each once"),
        (format!("{GOOD}{BACKUPS}").replace("accept", "lunch"), "lunch"),
        (format!("{GOOD}{BACKUPS}").replace("= 5", "= 0"), "[backups] `keep`: write 1 or more"),
        (
            format!("{GOOD}[[service]]\nunit = 'mariadb'")
                .replace("sqlite:/var/lib/mail/main.db", "mariadb://u@h/d"),
            "[[service]] `mariadb",
        ),
    ];
    for (text, expected) in table {
        let error = read(&text).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
