use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use handover_engine::changeover::{Bundle, Group, Scope};
use handover_engine::ports::changeover::HostSettings;
use handover_engine::ports::settings_table::{RowChange, WholeRow};

use super::*;
use crate::disk::{self, Disk};

type Content = BTreeMap<String, WholeRow>;

/// Tables by where they are, in memory, and how many writes there are before the world ends.
#[derive(Default)]
struct Tables {
    content: Mutex<BTreeMap<String, Content>>,
    writes_left: AtomicUsize,
    /// Whether the write at which it ends is done nevertheless.
    is_done_first: bool,
}

struct Table(Arc<Tables>, String);

struct Opener(Arc<Tables>);

fn row(value: &str, note: &str) -> WholeRow {
    BTreeMap::from([
        ("value".to_owned(), Some(value.as_bytes().to_vec())),
        ("note".to_owned(), Some(note.as_bytes().to_vec())),
    ])
}

fn value_of(row: &WholeRow) -> RowValue {
    let value = row["value"].as_deref();
    value.map_or(RowValue::Null, |value| RowValue::Text(String::from_utf8_lossy(value).into_owned()))
}

#[async_trait]
impl SettingsTable for Table {
    async fn read(&self, keys: &[String]) -> Result<Option<BTreeMap<String, HeldRow>>> {
        let all = self.0.content.lock().unwrap();
        let held = |(key, row): (&String, &WholeRow)| {
            (key.clone(), HeldRow { value: value_of(row), whole: row.clone() })
        };
        let wanted = |(key, _): &(&String, &WholeRow)| keys.is_empty() || keys.contains(key);
        Ok(all.get(&self.1).map(|rows| rows.iter().filter(wanted).map(held).collect()))
    }

    async fn write(&self, changes: &BTreeMap<String, RowChange>, ending: Ending) -> Result<()> {
        if changes.values().any(|change| *change == RowChange::Value(RowValue::Text("refused".into()))) {
            return Err(Failure::operator(&self.1, "a constraint refuses it"));
        }
        if ending == Ending::TakeBack {
            return Ok(());
        }
        let left = self.0.writes_left.load(Ordering::SeqCst);
        self.0.writes_left.store(left.saturating_sub(1), Ordering::SeqCst);
        let end = || Failure::transient(&self.1, "the world has ended");
        if left == 0 && !self.0.is_done_first {
            return Err(end());
        }
        let mut all = self.0.content.lock().unwrap();
        let rows = all.get_mut(&self.1).unwrap();
        for (key, change) in changes {
            match change {
                RowChange::Value(RowValue::Absent) => drop(rows.remove(key)),
                RowChange::Whole(whole) => drop(rows.insert(key.clone(), whole.clone())),
                RowChange::Value(value) => {
                    let held = rows.entry(key.clone()).or_insert_with(|| row("", "default"));
                    let text =
                        if let RowValue::Text(text) = value { Some(text.as_bytes().to_vec()) } else { None };
                    held.insert("value".to_owned(), text);
                }
            }
        }
        if left == 0 { Err(end()) } else { Ok(()) }
    }
}

impl SettingsTables for Opener {
    fn open(&self, rows: &SettingsRows, at: At<'_>) -> Result<Arc<dyn SettingsTable>> {
        let at = if let At::Built(id) = at { format!("built by {id}: ") } else { String::new() };
        Ok(Arc::new(Table(self.0.clone(), format!("{at}{rows}"))))
    }
}

impl Tables {
    fn with(content: &[(&str, &[(&str, &str)])]) -> Arc<Self> {
        let rows = |rows: &[(&str, &str)]| {
            rows.iter()
                .map(|(key, value)| ((*key).to_owned(), row(value, &format!("note of {value}"))))
                .collect()
        };
        let all = content.iter().map(|(name, content)| ((*name).to_owned(), rows(content))).collect();
        let writes_left = AtomicUsize::new(1000);
        Arc::new(Self { content: Mutex::new(all), writes_left, is_done_first: false })
    }

    fn of(&self, name: &str) -> Content {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)[name].clone()
    }
}

const OPTIONS: &str = "table options of shop";
const PEERS: &str = "table peers of shop";

fn migration() -> MigrationId {
    "m1".parse().unwrap()
}

fn section(name: &str, group: &str, table: &str, keys: &[&str]) -> SettingsSection {
    SettingsSection {
        database: Some("shop".parse().unwrap()),
        table: table.to_owned(),
        key_column: "name".to_owned(),
        value_column: "value".to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..SettingsSection::of_file(name, Group(group.to_owned()), "".into())
    }
}

fn sections() -> Vec<SettingsSection> {
    let sections = vec![
        section("mail", "mail", "options", &["host", "port", "gone"]),
        section("peers", "remote-data", "peers", &[]),
    ];
    crate::section::check(&sections).unwrap();
    sections
}

fn settings(tables: &Arc<Tables>, state: &std::path::Path) -> LocalSettings {
    LocalSettings::with_tables(sections(), Arc::new(Opener(tables.clone())), state)
}

fn source() -> Arc<Tables> {
    Tables::with(&[
        (OPTIONS, &[("host", "a"), ("port", "25"), ("other", "1")]),
        (PEERS, &[("x", "ax"), ("y", "ay")]),
    ])
}

fn target() -> Arc<Tables> {
    Tables::with(&[
        (OPTIONS, &[("host", "b"), ("gone", "7"), ("other", "2")]),
        (PEERS, &[("y", "by"), ("z", "bz")]),
    ])
}

fn values_in(content: &Content) -> Vec<String> {
    content
        .iter()
        .map(|(key, row)| format!("{key}={:?}", value_of(row)).replace("Text", &text(row)))
        .collect()
}

fn text(row: &WholeRow) -> String {
    row["value"].as_deref().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

#[tokio::test]
async fn rows_are_exchanged_and_put_back_as_they_were() {
    let dir = disk::scratch();
    let (a, b) = (source(), target());
    let (ours, theirs) = (settings(&a, &dir.path().join("a")), settings(&b, &dir.path().join("b")));
    let facts = ours.facts().await.unwrap();
    assert_eq!((facts[0].file.as_str(), facts[0].problem.as_deref()), (OPTIONS, None));
    let (of_a, of_b) = (ours.read(Scope::All).await.unwrap(), theirs.read(Scope::All).await.unwrap());
    assert_eq!(ours.read(Scope::Basic).await.unwrap().settings.len(), 1);
    let before = (a.of(OPTIONS), a.of(PEERS), b.of(OPTIONS), b.of(PEERS));
    let of_a: Bundle = serde_json::from_str(&serde_json::to_string(&of_a).unwrap()).unwrap();
    for (settings, bundle) in [(&ours, &of_b), (&theirs, &of_a)] {
        settings.stage(&migration(), bundle).await.unwrap();
        settings.apply(&migration()).await.unwrap();
        settings.apply(&migration()).await.unwrap();
        settings.stage(&migration(), bundle).await.unwrap();
    }
    assert_eq!(values_in(&a.of(OPTIONS)), ["gone=7", "host=b", "other=1"]);
    assert_eq!(values_in(&b.of(OPTIONS)), ["host=a", "other=2", "port=25"]);
    assert_eq!(values_in(&b.of(PEERS)), ["x=ax", "y=ay"], "all rows: those that are too many go");
    assert_eq!(b.of(PEERS)["y"]["note"], before.3["y"]["note"], "other columns stay");
    let told = ours.stage(&migration(), &Bundle::default()).await.unwrap_err();
    assert!(told.what.contains("in place already"), "{told}");
    for settings in [&ours, &theirs] {
        settings.restore(&migration()).await.unwrap();
        settings.restore(&migration()).await.unwrap();
        settings.forget(&migration()).await.unwrap();
    }
    assert!((a.of(OPTIONS), a.of(PEERS), b.of(OPTIONS), b.of(PEERS)) == before);
    assert!(!dir.path().join("a/changeover/m1").exists());
}

#[tokio::test]
async fn what_cannot_be_put_in_place_is_refused_before() {
    let dir = disk::scratch();
    let tables = target();
    let settings = settings(&tables, dir.path());
    let rows = |dataset: &str, named, value: &str| Contents::Rows {
        dataset: dataset.parse().unwrap(),
        named,
        values: BTreeMap::from([("host".to_owned(), RowValue::Text(value.to_owned()))]),
    };
    for (name, group, contents, part) in [
        ("mail", "mail", rows("shop", true, "refused"), "a constraint refuses it"),
        ("mail", "mail", rows("shop", false, "x"), "the other one all rows"),
        ("mail", "mail", rows("wiki", true, "x"), "another database"),
        ("mail", "mail", rows("shop", true, &"x".repeat(LARGEST)), "larger than 256 KiB"),
        ("mail", "mail", Contents::Absent, "of a file at the other host"),
        ("peers", "mail", rows("shop", false, "x"), "make a host the one it is here"),
    ] {
        let setting = Setting { name: name.into(), group: Group(group.into()), contents };
        let told = settings.stage(&migration(), &Bundle { settings: vec![setting] }).await.unwrap_err();
        assert!(told.to_string().contains(part), "{part}: {told}");
    }
    tables.content.lock().unwrap().remove(PEERS);
    let told = settings.read(Scope::All).await.unwrap_err();
    assert!(told.what.contains("is not there") && told.item.contains("peers"), "{told}");
    assert!(!dir.path().join("changeover/m1/staged.json").exists());
}

#[tokio::test]
async fn what_somebody_else_made_of_a_row_is_kept_beside() {
    let dir = disk::scratch();
    let (a, b) = (source(), target());
    let (there, here) = (settings(&a, &dir.path().join("a")), settings(&b, &dir.path().join("b")));
    here.stage(&migration(), &there.read(Scope::Basic).await.unwrap()).await.unwrap();
    here.apply(&migration()).await.unwrap();
    b.content.lock().unwrap().get_mut(OPTIONS).unwrap().insert("host".into(), row("edited", ""));
    here.restore(&migration()).await.unwrap();
    assert_eq!(b.of(OPTIONS), target().of(OPTIONS));
    let kept: Vec<_> = std::fs::read_dir(dir.path().join("b/edited-settings/m1")).unwrap().collect();
    let kept = std::fs::read_to_string(kept[0].as_ref().unwrap().path()).unwrap();
    assert_eq!(kept, r#"{"host":{"text":"edited"}}"#);
}

/// The world ends at every change of the disk and at every write to a table, which may have been done or not; what is done
/// again ends the same.
#[tokio::test]
async fn an_end_at_any_point_is_made_good() {
    for is_done_first in [false, true] {
        for writes in 0..5 {
            let dir = disk::scratch();
            let (a, mut tables) = (source(), Arc::try_unwrap(target()).ok().unwrap());
            (tables.is_done_first, tables.writes_left) = (is_done_first, AtomicUsize::new(writes));
            let b = Arc::new(tables);
            let theirs = settings(&a, &dir.path().join("a")).read(Scope::All).await.unwrap();
            let here = settings(&b, &dir.path().join("b"));
            here.stage(&migration(), &theirs).await.unwrap();
            let first = async {
                here.apply(&migration()).await?;
                here.restore(&migration()).await
            };
            assert_eq!(first.await.is_ok(), writes == 4, "{writes} writes");
            b.writes_left.store(1000, Ordering::SeqCst);
            if writes < 2 {
                here.apply(&migration()).await.unwrap();
                assert_eq!(values_in(&b.of(PEERS)), ["x=ax", "y=ay"], "{writes} writes");
            }
            here.restore(&migration()).await.unwrap();
            assert_eq!((b.of(OPTIONS), b.of(PEERS)), (target().of(OPTIONS), target().of(PEERS)));
        }
    }
}

#[tokio::test]
async fn an_end_of_the_disk_is_made_good() {
    for step in 0..60 {
        let dir = disk::scratch();
        let (a, b) = (source(), target());
        let theirs = settings(&a, &dir.path().join("a")).read(Scope::All).await.unwrap();
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = steps.clone();
        let disk = Disk::stepping(Arc::new(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            now if now >= step => Err(std::io::Error::from_raw_os_error(28)),
            _ => Ok(()),
        }));
        let state = dir.path().join("b");
        let cut = LocalSettings::with_tables_on(disk, sections(), Arc::new(Opener(b.clone())), &state);
        let first = async {
            cut.stage(&migration(), &theirs).await?;
            cut.apply(&migration()).await?;
            cut.restore(&migration()).await
        };
        let is_done = first.await.is_ok();
        settings(&b, &state).restore(&migration()).await.unwrap();
        assert_eq!((b.of(OPTIONS), b.of(PEERS)), (target().of(OPTIONS), target().of(PEERS)), "step {step}");
        if is_done {
            assert!(step > 10);
            return;
        }
    }
    panic!("it has more steps than that");
}

#[tokio::test]
async fn a_host_keeps_its_own_rows_in_what_is_built() {
    let dir = disk::scratch();
    let built = format!("built by m1: {PEERS}");
    let came: &[(&str, &str)] = &[("x", "ax"), ("y", "ay")];
    let tables =
        Tables::with(&[(PEERS, &[("y", "by"), ("z", "bz")]), (OPTIONS, &[("host", "b")]), (&built, came)]);
    let before = tables.of(&built);
    let settings = settings(&tables, dir.path());
    let moved: [DatasetName; 1] = ["shop".parse().unwrap()];
    for _ in 0..2 {
        settings.retain(&migration(), &["other".parse().unwrap()]).await.unwrap();
        settings.release(&migration()).await.unwrap();
        settings.retain(&migration(), &moved).await.unwrap();
        settings.retain(&migration(), &moved).await.unwrap();
        assert_eq!(values_in(&tables.of(&built)), ["y=by", "z=bz"]);
        // A cut-over that is called off forgets what was staged.
        settings.forget(&migration()).await.unwrap();
        settings.release(&migration()).await.unwrap();
        settings.release(&migration()).await.unwrap();
        assert_eq!(tables.of(&built), before);
    }
    settings.retain(&migration(), &moved).await.unwrap();
    tables.content.lock().unwrap().remove(&built);
    settings.release(&migration()).await.unwrap();
    assert!(
        !dir.path().join("retained/m1.json").exists(),
        "once it is published there is nothing to put back"
    );
    let told = settings.retain(&migration(), &moved).await.unwrap_err();
    assert!(told.what.contains("does not come from the source"), "{told}");
    tables.content.lock().unwrap().remove(PEERS);
    settings.retain(&migration(), &moved).await.unwrap();
}
