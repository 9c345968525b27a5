//! Backups of SQLite databases and file trees, and of what may happen to any backup.

mod support;

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use handover_backups::Tools;
use handover_engine::backup::Occasion;
use handover_engine::failure::Class;
use handover_engine::ports::Backups;
use handover_engine::ports::backups::Order;
use handover_tests::appliance::{Appliance, Spec};
use handover_tests::compare;
use rusqlite::Connection;

use support::tools::{hanging, instead, reached};
use support::{Host, make, restore, sqlite, tree};

/// An appliance with a copy of it as it was, and its host.
struct Stage {
    host: Host,
    appliance: Appliance,
    before: Appliance,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = Spec::small(seed);
        let [appliance, before] =
            ["own", "before"].map(|name| Appliance::make(&dir.path().join(name), &spec).unwrap());
        let datasets = vec![sqlite("app", &appliance.database), tree("files", &appliance.files, &[])];
        Self { host: Host::new(dir, datasets), appliance, before }
    }

    #[track_caller]
    fn is_as_before(&self) {
        let mut found = compare::databases(&self.before.database, &self.appliance.database).unwrap();
        found.join(compare::trees(&self.before.files, &self.appliance.files).unwrap());
        assert!(found.found == 0 && found.rows > 1000 && found.files > 50, "{}", found.describe());
    }

    #[track_caller]
    fn has_changed(&self) {
        assert!(compare::databases(&self.before.database, &self.appliance.database).unwrap().found > 0);
        assert!(compare::trees(&self.before.files, &self.appliance.files).unwrap().found > 0);
    }
}

#[tokio::test]
async fn what_is_restored_is_what_was_backed_up() {
    for seed in [201, 202] {
        let stage = Stage::new(seed);
        let backup = stage.host.make("b-1").await.unwrap();
        assert_eq!(backup.datasets.len(), 2, "{backup:?}");
        assert!(backup.datasets[0].tool.starts_with("SQLite 3.") && backup.datasets[1].tool.contains("tar"));
        assert!(backup.datasets[1].entries.unwrap() > 100);
        let place = stage.host.place();
        for (path, mode) in
            [(place.clone(), 0o700), (place.join("b-1"), 0o700), (place.join("b-1/app.db.zst"), 0o600)]
        {
            assert_eq!(path.metadata().unwrap().mode() & 0o777, mode, "{}", path.display());
        }
        assert_eq!(stage.host.list().await.backups, std::slice::from_ref(&backup));
        stage.host.verify("b-1").await.unwrap();
        // Made again it is the one that is whole.
        assert_eq!(stage.host.make("b-1").await.unwrap(), backup);

        stage.appliance.change(1).unwrap();
        fs::write(stage.appliance.files.join("younger"), "than the backup").unwrap();
        stage.has_changed();
        let changed = fs::read(&stage.appliance.database).unwrap();
        let restored = stage.host.restore("b-1", None).await.unwrap();
        stage.is_as_before();
        // What stood there is where it says.
        let kept: Vec<PathBuf> = restored.iter().map(|one| one.before.clone().unwrap().into()).collect();
        assert!(kept[1].join("younger").exists() && !stage.appliance.files.join("younger").exists());
        assert_eq!(
            Connection::open(&kept[0])
                .unwrap()
                .pragma_query_value(None, "integrity_check", |row| row.get::<_, String>(0))
                .unwrap(),
            "ok"
        );
        assert!(!changed.is_empty());
        // Once more: nothing that is kept is written over.
        let again = stage.host.restore("b-1", Some("files")).await.unwrap();
        assert_eq!(again.len(), 1);
        assert_ne!(again[0].before, restored[1].before);
        stage.is_as_before();
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_and_comes_back() {
    let stage = Stage::new(203);
    stage.host.make("whole").await.unwrap();
    fs::remove_file(&stage.appliance.database).unwrap();
    for suffix in ["-wal", "-shm"] {
        let mut name = stage.appliance.database.clone().into_os_string();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
    fs::remove_dir_all(&stage.appliance.files).unwrap();
    let refused = stage.host.make("nothing").await.unwrap_err();
    assert!(refused.what.contains("nothing on this host"), "{refused}");
    let restored = stage.host.restore("whole", None).await.unwrap();
    assert!(restored.iter().all(|one| one.before.is_none()), "{restored:?}");
    stage.is_as_before();
    fs::remove_dir_all(&stage.appliance.files).unwrap();
    let backup = stage.host.make("half").await.unwrap();
    assert_eq!(backup.absent, ["files".parse().unwrap()]);
    let refused = stage.host.restore("half", Some("files")).await.unwrap_err();
    assert!(refused.what.contains("no dataset files in it"), "{refused}");
    let unknown = stage.host.backups.begin(&restore("none", None)).await.unwrap_err();
    assert!(unknown.what.starts_with("there is none in"), "{unknown}");
}

#[tokio::test]
async fn what_was_tampered_with_is_found_and_not_restored() {
    let stage = Stage::new(204);
    stage.host.make("b-1").await.unwrap();
    let file = stage.host.place().join("b-1/files.tar.zst");
    let good = fs::read(&file).unwrap();
    let spoil: [(&str, &dyn Fn()); 3] = [
        ("one byte", &|| {
            let mut open = fs::OpenOptions::new().write(true).open(&file).unwrap();
            open.seek(std::io::SeekFrom::Start(good.len() as u64 / 2)).unwrap();
            open.write_all(&[!good[good.len() / 2]]).unwrap();
        }),
        ("the end is gone", &|| fs::write(&file, &good[..good.len() - 1]).unwrap()),
        ("all of it", &|| fs::remove_file(&file).unwrap()),
    ];
    for (how, spoil) in spoil {
        fs::write(&file, &good).unwrap();
        stage.host.verify("b-1").await.unwrap();
        spoil();
        let found = stage.host.verify("b-1").await.unwrap_err();
        assert_eq!(found.class, Class::NeedsOperator, "{how}");
        assert!(found.to_string().contains("files.tar.zst"), "{how}: {found}");
        stage.appliance.change(7).unwrap();
        // Neither of them: what is in a backup is looked at before anything is changed.
        stage.host.restore("b-1", None).await.unwrap_err();
        stage.has_changed();
    }
    let record = stage.host.place().join("b-1/backup.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"app.db.zst\"", "\"../app.db.zst\"")).unwrap();
    let shelf = stage.host.list().await;
    assert!(shelf.backups.is_empty() && shelf.unreadable[0].1.contains("../app.db.zst"), "{shelf:?}");
    assert!(stage.host.verify("b-1").await.unwrap_err().what.contains("../app.db.zst"));
}

#[tokio::test]
async fn a_tool_that_is_missing_or_fails_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("www");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), "hello").unwrap();
    let failing = instead(
        dir.path(),
        "tar",
        "[ \"$1\" = --version ] && exec /usr/bin/tar --version\necho first >&2; echo the disk is on fire >&2; exit 2",
    );
    let place = dir.path().join("backups");
    let none = Tools::within(vec![dir.path().join("nowhere")]);
    let host = Host::at(dir, place.clone(), vec![tree("www", &root, &[])], none, None);
    let missing = host.make("b-1").await.unwrap_err();
    assert!(
        missing.what.contains("need tar, which is not on this host") && missing.hint == "apt-get install tar",
        "{missing}"
    );
    let mut host = host;
    host.restart(failing).await;
    let failed = host.make("b-1").await.unwrap_err();
    assert!(failed.what.contains("tar ended with exit code 2: first; the disk is on fire"), "{failed}");
    // Nothing is left of either.
    assert_eq!(host.list().await.backups, []);
    assert!(!place.join("b-1").exists() && !place.join("b-1.partial").exists());
}

#[tokio::test]
async fn an_agent_that_ends_in_the_middle_leaves_whole_things() {
    let mut stage = Stage::new(205);
    fs::write(stage.host.dir.path().join("hang"), "").unwrap();
    // While a backup is made…
    stage.host.restart(hanging(stage.host.dir.path(), "--create")).await;
    stage.host.backups.begin(&make("b-1")).await.unwrap();
    reached(&stage.host.dir).await;
    assert!(stage.host.place().join("b-1.partial/app.db.zst").exists());
    stage.host.restart(Tools::default()).await;
    assert_eq!(stage.host.list().await.backups, []);
    assert!(!stage.host.place().join("b-1.partial").exists() && !stage.host.place().join(".work").exists());
    stage.host.make("b-1").await.unwrap();
    // …and while it is put back: the old tree stays, and then the new one comes.
    stage.appliance.change(3).unwrap();
    fs::remove_file(stage.host.dir.path().join("reached")).unwrap();
    stage.host.restart(hanging(stage.host.dir.path(), "--extract")).await;
    stage.host.backups.begin(&restore("b-1", Some("files"))).await.unwrap();
    reached(&stage.host.dir).await;
    stage.host.restart(Tools::default()).await;
    stage.has_changed();
    stage.host.restore("b-1", None).await.unwrap();
    stage.is_as_before();
}

#[tokio::test]
async fn what_the_manifest_leaves_out_of_a_tree_stays() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("spool");
    fs::create_dir_all(root.join("queue/cache")).unwrap();
    for (name, text) in
        [("mail", "one"), ("queue/1", "first"), ("queue/1.tmp", "half"), ("queue/cache/x", "cached")]
    {
        fs::write(root.join(name), text).unwrap();
    }
    let host = Host::new(dir, vec![tree("spool", &root, &["*.tmp", "cache"])]);
    let backup = host.make("b-1").await.unwrap();
    assert_eq!(backup.datasets[0].entries, Some(4));
    fs::write(root.join("mail"), "two").unwrap();
    fs::write(root.join("queue/2"), "second").unwrap();
    fs::write(root.join("queue/1.tmp"), "more").unwrap();
    host.restore("b-1", None).await.unwrap();
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    assert_eq!(read("mail").as_deref(), Some("one"));
    assert_eq!((read("queue/1").as_deref(), read("queue/2")), (Some("first"), None));
    assert_eq!(
        (read("queue/1.tmp").as_deref(), read("queue/cache/x").as_deref()),
        (Some("more"), Some("cached"))
    );
}

#[tokio::test]
async fn the_oldest_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("www");
    fs::create_dir(&root).unwrap();
    let place = dir.path().join("backups");
    let host = Host::at(dir, place, vec![tree("www", &root, &[])], Tools::default(), Some(2));
    let order = |occasion: Occasion| Order::Make {
        id: occasion.id_of(&"m-1".parse().unwrap()),
        occasion,
        migration: Some("m-1".parse().unwrap()),
        datasets: Vec::new(),
    };
    for id in ["b-1", "b-2"] {
        host.make(id).await.unwrap();
    }
    host.done(&order(Occasion::Start)).await.unwrap();
    let names =
        async || host.list().await.backups.iter().map(|backup| backup.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names().await, ["b-2", "m-1-start"]);
    host.done(&order(Occasion::Accept)).await.unwrap();
    assert_eq!(names().await, ["m-1-start", "m-1-accept"]);
    // What a migration that runs was backed up for stays, whoever asks for others meanwhile.
    let held = Order::Make {
        id: "m-runs-start".parse().unwrap(),
        occasion: Occasion::Start,
        migration: Some("m-runs".parse().unwrap()),
        datasets: Vec::new(),
    };
    host.done(&held).await.unwrap();
    for id in ["b-3", "b-4", "b-5"] {
        host.make(id).await.unwrap();
    }
    assert_eq!(names().await, ["m-runs-start", "b-5"]);
    let odd = make("odd.partial");
    assert!(host.backups.begin(&odd).await.unwrap_err().what.contains("ends with `.partial`"));
}

#[tokio::test]
async fn a_database_that_is_open_or_damaged_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let open = Connection::open(&path).unwrap();
    open.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1);
        CREATE TABLE __handover_changes_m (k); CREATE TRIGGER __handover_t AFTER INSERT ON t BEGIN INSERT INTO __handover_changes_m VALUES (new.a); END").unwrap();
    let host = Host::new(dir, vec![sqlite("a", &path)]);
    // Writers go on while it is backed up.
    open.execute_batch("BEGIN; INSERT INTO t VALUES (2)").unwrap();
    host.make("b-1").await.unwrap();
    open.execute_batch("COMMIT").unwrap();
    let is_open = format!("process {} has ", std::process::id());
    let refused = host.restore("b-1", None).await.unwrap_err();
    assert!(refused.what.starts_with(&is_open) && refused.hint.contains("stop its services"), "{refused}");
    // Nothing lies beside one that is open, and rests, in the older mode.
    open.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    let refused = host.restore("b-1", None).await.unwrap_err();
    assert!(refused.what.starts_with(&is_open), "{refused}");
    drop(open);
    host.restore("b-1", None).await.unwrap();
    let open = Connection::open(&path).unwrap();
    let count = |sql: &str| open.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM t"), 1);
    // What a migration had put there is gone.
    assert_eq!(count("SELECT count(*) FROM sqlite_master WHERE name LIKE '%handover%'"), 0);
    drop(open);
    let mut bytes = fs::read(&path).unwrap();
    // The root of the one table.
    bytes[4096..4160].fill(0xaa);
    fs::write(&path, bytes).unwrap();
    let damaged = host.make("b-2").await.unwrap_err();
    assert!(
        damaged.to_string().contains("damaged") || damaged.to_string().contains("malformed"),
        "{damaged}"
    );
}
