//! A swap of which rows of a database are a part, which may be down when it is taken back.

use std::collections::BTreeMap;

use handover_engine::changeover::{RowValue, SettingsRows};
use handover_engine::ports::settings_table::{At, Ending, HeldRow, RowChange, SettingsTable, SettingsTables};

use super::*;

/// A database with a table of one key.
struct Database {
    value: Mutex<String>,
    is_down: AtomicBool,
}

struct Opener(Arc<Database>);

impl Database {
    fn ask(&self) -> Result<()> {
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(Failure::transient("database shop", "the server does not answer")),
            false => Ok(()),
        }
    }

    fn value(&self) -> String {
        self.value.lock().unwrap().clone()
    }
}

#[async_trait]
impl SettingsTable for Database {
    async fn read(&self, _: &[String]) -> Result<Option<BTreeMap<String, HeldRow>>> {
        self.ask()?;
        let whole = BTreeMap::from([("value".to_owned(), Some(self.value().into_bytes()))]);
        let held = HeldRow { value: RowValue::Text(self.value()), whole };
        Ok(Some(BTreeMap::from([("peer".to_owned(), held)])))
    }

    async fn write(&self, changes: &BTreeMap<String, RowChange>, ending: Ending) -> Result<()> {
        self.ask()?;
        let text = match &changes["peer"] {
            RowChange::Value(RowValue::Text(text)) => text.clone(),
            RowChange::Whole(whole) => String::from_utf8(whole["value"].clone().unwrap()).unwrap(),
            RowChange::Value(other) => panic!("{other:?}"),
        };
        if ending == Ending::Commit {
            *self.value.lock().unwrap() = text;
        }
        Ok(())
    }
}

impl SettingsTables for Opener {
    fn open(&self, _: &SettingsRows, _: At<'_>) -> Result<Arc<dyn SettingsTable>> {
        Ok(self.0.clone())
    }
}

/// A host that has confirmed a swap of its address and of the row.
async fn confirmed() -> (Host, Arc<Database>) {
    let database = Arc::new(Database { value: Mutex::new("own".into()), is_down: false.into() });
    let mut host = Host::new();
    let row = SettingsSection {
        database: Some("shop".parse().unwrap()),
        table: "peers".to_owned(),
        key_column: "name".to_owned(),
        value_column: "value".to_owned(),
        keys: vec!["peer".to_owned()],
        ..SettingsSection::of_file("peers", Group("remote-data".into()), PathBuf::new())
    };
    let file = SettingsSection::of_file("address", Group("network".into()), host.dir.path().join("address"));
    let tables = Arc::new(Opener(database.clone()));
    host.settings = LocalSettings::with_tables(vec![file, row], tables, &host.state());
    let rows = Contents::Rows {
        dataset: "shop".parse().unwrap(),
        named: true,
        values: BTreeMap::from([("peer".to_owned(), RowValue::Text("new".into()))]),
    };
    let whole = Contents::Whole { bytes: b"new".to_vec(), mode: 0o644 };
    let setting = |name: &str, group: &str, contents| Setting {
        name: name.into(),
        group: Group(group.into()),
        contents,
    };
    let settings = vec![setting("address", "network", whole), setting("peers", "remote-data", rows)];
    host.settings.stage(&migration(), &Bundle { settings }).await.unwrap();
    let guard = held(&host);
    host.swap().arm(&migration(), LIMIT).await.unwrap();
    drop(guard);
    host.swap().reboot(&migration()).await.unwrap();
    host.swap().confirm(&migration()).await.unwrap();
    assert_eq!((host.address().as_str(), database.value().as_str()), ("new", "new"));
    (host, database)
}

#[tokio::test]
async fn a_database_that_is_down_keeps_no_host_under_the_other_s_address() {
    let (host, database) = confirmed().await;
    let (id, swap) = (migration(), host.swap());
    database.is_down.store(true, Ordering::SeqCst);
    swap.roll_back(&id).await.unwrap();
    assert_eq!((host.standing().await, host.address()), (SwapStanding::RolledBack, "own".into()));
    assert!(swap.reboot(&id).await.unwrap());
    let down = host.settings.restore(&id).await.unwrap_err();
    assert!(down.is_transient() && database.value() == "new", "{down}");
    // Whoever comes back later still knows of it.
    database.is_down.store(false, Ordering::SeqCst);
    host.settings.restore(&id).await.unwrap();
    host.settings.restore(&id).await.unwrap();
    assert_eq!((host.address().as_str(), database.value().as_str()), ("own", "own"));
    assert!(!swap.reboot(&id).await.unwrap());
    host.settings.forget(&id).await.unwrap();
    assert_eq!(host.standing().await, SwapStanding::Own);
}

#[tokio::test]
async fn without_a_swap_files_are_put_back_first_too() {
    let (host, database) = confirmed().await;
    database.is_down.store(true, Ordering::SeqCst);
    host.settings.restore(&migration()).await.unwrap_err();
    assert_eq!((host.address().as_str(), database.value().as_str()), ("own", "new"));
    database.is_down.store(false, Ordering::SeqCst);
    host.settings.restore(&migration()).await.unwrap();
    assert_eq!(database.value(), "own");
}
