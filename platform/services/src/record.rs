//! What services were before a migration touched them, and whether they are to stay away: one durable file for each migration.
//!
//! A change is there as a whole, or not at all. Changes come one after another, and what was given up on comes to its end before the
//! next: two that decide whether a lease has ended cannot both win.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};

use crate::boot::Moment;

/// The version of the files.
const VERSION: u32 = 1;

/// What is recorded for a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// Each unit as it was when it was first touched.
    pub units: Vec<Before>,
    /// Whose the services are.
    pub standing: Standing,
    /// Units that are sealed off, or about to be, until they are released or put back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed: Vec<String>,
    /// Units that are left out of a trial, until they are released or put back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// What every version tells.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// A unit before it was touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// Its name.
    pub unit: String,
    /// It ran, or was about to.
    pub was_active: bool,
    /// Whether it started with the host, as systemd named it.
    pub file: String,
    /// Once it is started for this migration, it is to start with the host.
    pub is_to_be_enabled: bool,
}

/// Whose the services are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Standing {
    /// The migration's; with a lease, for so long. Set by `stop`, and without a lease by `hold` and `start`.
    Taken {
        /// None: for good.
        lease: Option<Lease>,
    },
    /// The lease is over: the host puts them back. Set by who watches the leases. They can neither be held nor stopped any more, until
    /// `put_back` was asked for: then whoever stops them knows.
    Ended {
        /// All is done that belongs to it.
        is_back: bool,
    },
    /// They are what they were. Set by `put_back`.
    Back,
}

/// For how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Counted in this boot; after another one it begins anew.
    boot: String,
    /// When it is over, after that boot.
    until_ms: u64,
    /// How long it is as a whole.
    length_ms: u64,
}

impl Lease {
    /// One that begins now.
    pub fn new(now: &Moment, length: Duration) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (boot, until_ms) = (now.boot.clone(), ms(now.since.saturating_add(length)));
        Self { boot, until_ms, length_ms: ms(length) }
    }

    /// The same, begun anew if the host was booted since.
    pub fn renewed(&self, now: &Moment) -> Self {
        if self.boot == now.boot {
            self.clone()
        } else {
            Self::new(now, Duration::from_millis(self.length_ms))
        }
    }

    /// What is left of it; none when it is over. One of another boot is whole.
    pub fn left(&self, now: &Moment) -> Option<Duration> {
        let until = Duration::from_millis(self.renewed(now).until_ms);
        until.checked_sub(now.since).filter(|left| !left.is_zero())
    }
}

impl Record {
    /// With nothing in it yet.
    pub fn new() -> Self {
        let standing = Standing::Taken { lease: None };
        Self { version: VERSION, units: Vec::new(), standing, sealed: Vec::new(), left_out: Vec::new() }
    }

    /// Nothing of a trial is left.
    pub fn end_trial(&mut self) {
        self.sealed.clear();
        self.left_out.clear();
    }

    /// Adds those that are not in it yet: what was recorded first stays.
    pub fn add(&mut self, units: Vec<Before>) {
        for unit in units {
            if !self.units.iter().any(|known| known.unit == unit.unit) {
                self.units.push(unit);
            }
        }
    }
}

/// The records of a host.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
    turn: Arc<Mutex<()>>,
}

impl Records {
    /// Those in `directory`; it is made when the first is written.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, turn: Arc::default() }
    }

    /// Looks at a record and may change it; the change is durable when this returns. What fails changes nothing.
    pub async fn with<T: Send + 'static>(
        &self,
        migration: &MigrationId,
        act: impl FnOnce(&mut Option<Record>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (turn, file) = (self.turn.clone(), self.file(migration));
        let locked = move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let known = read(&file)?;
            let mut record = known.clone();
            let done = act(&mut record)?;
            if record != known {
                let failed = |error| {
                    let what = format!("{} cannot be written", file.display());
                    Failure::operator("services", what)
                        .because(error)
                        .hint("is the disk full? Make room, then resume")
                };
                match record {
                    Some(record) => write(&file, &record).map_err(failed)?,
                    None => remove(&file).map_err(failed)?,
                }
            }
            Ok(done)
        };
        let done = tokio::task::spawn_blocking(locked).await;
        done.map_err(|error| Failure::transient("services", "their record was not looked at").because(error))?
    }

    /// The migrations that something is recorded for.
    pub async fn migrations(&self) -> Result<Vec<MigrationId>> {
        let directory = self.directory.clone();
        let listed = tokio::task::spawn_blocking(move || list(&directory)).await;
        listed.map_err(io::Error::other).flatten().map_err(|error| {
            let what = format!("{} cannot be read", self.directory.display());
            Failure::operator("services", what)
                .because(error)
                .hint("let the agent read its own state directory")
        })
    }

    fn file(&self, migration: &MigrationId) -> PathBuf {
        self.directory.join(format!("{migration}.json"))
    }
}

fn list(directory: &Path) -> io::Result<Vec<MigrationId>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut out = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".json"));
        out.extend(stem.and_then(|stem| stem.parse().ok()));
    }
    out.sort();
    Ok(out)
}

fn read(file: &Path) -> Result<Option<Record>> {
    let refuse = |what: &str| Failure::operator("services", format!("{} {what}", file.display()));
    let hint = "put it back as it was, or bring the services up by hand and remove it";
    let bytes = match std::fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| refuse("cannot be read").because(error).hint(hint))?,
    };
    let bad = |error: serde_json::Error| refuse("is no record of services").because(error).hint(hint);
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(bad)?;
    if version != VERSION {
        let what = format!("has version {version}, and this agent knows {VERSION}");
        return Err(refuse(&what).hint("run the version of the agent that wrote it"));
    }
    serde_json::from_slice(&bytes).map_err(bad)
}

fn write(file: &Path, record: &Record) -> io::Result<()> {
    let directory = file.parent().ok_or(ErrorKind::InvalidInput)?;
    if !directory.is_dir() {
        std::fs::create_dir_all(directory)?;
        sync(directory.parent().ok_or(ErrorKind::InvalidInput)?)?;
    }
    // Its name is no migration's: a leading dot is not allowed there.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let partial = directory.join(format!(".{name}.new"));
    let mut new = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    new.write_all(&serde_json::to_vec_pretty(record)?)?;
    new.sync_all()?;
    std::fs::rename(&partial, file)?;
    sync(directory)
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Ok(()) => sync(file.parent().ok_or(ErrorKind::InvalidInput)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: &str, seconds: u64) -> Moment {
        Moment { boot: boot.to_owned(), since: Duration::from_secs(seconds) }
    }

    async fn put(records: &Records, migration: &MigrationId, record: Option<Record>) -> Result<()> {
        let put = move |known: &mut Option<Record>| {
            *known = record;
            Ok(())
        };
        records.with(migration, put).await
    }

    fn before(unit: &str, file: &str) -> Before {
        Before { unit: unit.into(), was_active: true, file: file.into(), is_to_be_enabled: true }
    }

    #[test]
    fn a_lease_is_counted_within_a_boot() {
        let lease = Lease::new(&at("one", 100), Duration::from_secs(60));
        let left = |moment| lease.left(&moment).map(|left| left.as_secs());
        assert_eq!(left(at("one", 100)), Some(60));
        assert_eq!(left(at("one", 159)), Some(1));
        assert_eq!(left(at("one", 160)), None);
        assert_eq!(left(at("one", 9999)), None);
        assert_eq!(left(at("two", 9999)), Some(60));
        let renewed = lease.renewed(&at("two", 5));
        assert_eq!(renewed.left(&at("two", 64)), Some(Duration::from_secs(1)));
        assert_eq!(renewed.left(&at("two", 65)), None);
        assert_eq!(lease.renewed(&at("one", 150)), lease);
        assert!(Lease::new(&at("one", 1), Duration::MAX).left(&at("one", 1 << 40)).is_some());
    }

    #[test]
    fn what_was_recorded_first_stays() {
        let mut record = Record::new();
        record.add(vec![before("a.service", "enabled")]);
        record.add(vec![before("a.service", "disabled"), before("b.service", "static")]);
        assert_eq!(record.units, [before("a.service", "enabled"), before("b.service", "static")]);
    }

    #[tokio::test]
    async fn a_change_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("services"));
        let migration: MigrationId = "m-1".parse().unwrap();
        assert!(records.migrations().await.unwrap().is_empty());
        let mut record = Record::new();
        record.add(vec![before("a.service", "enabled")]);
        record.standing = Standing::Taken { lease: Some(Lease::new(&at("one", 1), Duration::from_secs(1))) };
        let written = record.clone();
        put(&records, &migration, Some(written)).await.unwrap();
        // What a crash leaves behind is neither read nor in the way.
        let partial = dir.path().join("services/.m-1.json.new");
        std::fs::write(&partial, "{").unwrap();
        assert_eq!(records.migrations().await.unwrap(), std::slice::from_ref(&migration));
        let failing = records.with(&migration, |known| {
            *known = None;
            Err::<(), _>(Failure::operator("x", "y"))
        });
        failing.await.unwrap_err();
        let read = || records.with(&migration, |known| Ok(known.clone()));
        assert_eq!(read().await.unwrap(), Some(record.clone()));
        put(&records, &migration, Some(Record { standing: Standing::Back, ..record.clone() })).await.unwrap();
        assert_eq!(read().await.unwrap(), Some(Record { standing: Standing::Back, ..record }));
        for _ in 0..2 {
            put(&records, &migration, None).await.unwrap();
            assert_eq!(read().await.unwrap(), None);
        }
        assert!(records.migrations().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_written_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("services"));
        let migration: MigrationId = "m-1".parse().unwrap();
        put(&records, &migration, Some(Record::new())).await.unwrap();
        // A directory in its way fails as a full disk does: before anything is put in place.
        std::fs::create_dir(dir.path().join("services/.m-1.json.new")).unwrap();
        let changing =
            put(&records, &migration, Some(Record { standing: Standing::Back, ..Record::new() })).await;
        let told = changing.unwrap_err().to_string();
        assert!(told.contains("m-1.json cannot be written"), "{told}");
        assert_eq!(records.with(&migration, |known| Ok(known.clone())).await.unwrap(), Some(Record::new()));
    }

    #[tokio::test]
    async fn records_that_are_not_understood_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().to_owned());
        let migration: MigrationId = "m-1".parse().unwrap();
        for (text, part) in [
            ("", "m-1.json is no record of services"),
            ("{\"version\":1}", "m-1.json is no record of services"),
            ("{\"version\":2,\"services\":[]}", "has version 2, and this agent knows 1"),
        ] {
            std::fs::write(dir.path().join("m-1.json"), text).unwrap();
            let told = records.with(&migration, |_| Ok(())).await.unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
    }

    /// The form of version 1, as it lies on disks.
    #[tokio::test]
    async fn version_1_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"version": 1,
            "units": [{"unit": "a.service", "was_active": true, "file": "enabled", "is_to_be_enabled": true}],
            "standing": {"taken": {"lease": {"boot": "b", "until_ms": 70000, "length_ms": 60000}}}}"#;
        std::fs::write(dir.path().join("m-1.json"), text).unwrap();
        let records = Records::new(dir.path().to_owned());
        let record = records.with(&"m-1".parse().unwrap(), |known| Ok(known.clone())).await.unwrap().unwrap();
        assert_eq!(record.units, [before("a.service", "enabled")]);
        let lease = Lease::new(&at("b", 10), Duration::from_secs(60));
        assert_eq!(record.standing, Standing::Taken { lease: Some(lease) });
    }
}
