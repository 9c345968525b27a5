//! Units sealed off from the network: a file of settings beside their own, which systemd and the kernel keep to.
//!
//! It lies where it outlives a reboot. What a unit allows itself is taken from it; what it forbids itself stays forbidden.

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use handover_engine::name::MigrationId;

use crate::place;

/// The last one of a unit's: nothing overrules it.
const NAME: &str = "zz-handover-trial.conf";
/// What tells ours from what others may put there.
const HEAD: &str = "# Handover: sealed off for the trial of ";
const MODE: u32 = 0o644;

/// The directory of this host's own units.
#[derive(Debug, Clone)]
pub struct Seals(PathBuf);

impl Default for Seals {
    fn default() -> Self {
        Self(PathBuf::from("/etc/systemd/system"))
    }
}

impl Seals {
    /// Another one than systemd's.
    #[cfg(test)]
    pub fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where a unit's seal lies.
    pub fn place(&self, unit: &str) -> PathBuf {
        self.0.join(format!("{unit}.d")).join(NAME)
    }

    /// What keeps seals from being put there.
    pub fn problem(&self) -> Option<String> {
        let error = place::may_write(&self.0.join("unit.d")).err()?;
        let directory = self.0.display();
        Some(format!(
            "{directory} cannot be written to: {error}: let the agent's unit write there (ReadWritePaths=)"
        ))
    }

    /// Whether it lies there as it should.
    pub fn is_there(&self, unit: &str, allowed: &[String], migration: &MigrationId) -> Result<bool> {
        Ok(place::read(&self.place(unit))? == Some(contents(unit, allowed, migration).into_bytes()))
    }

    /// Puts it there. Durable when it returns. systemd knows of it once it has read its files anew.
    pub fn put(&self, unit: &str, allowed: &[String], migration: &MigrationId) -> Result<()> {
        let place = self.place(unit);
        refuse_others(&place)?;
        let directory = place::directory(&place);
        match std::fs::create_dir(directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.and_then(|()| place::sync(&self.0))?,
        }
        place::write(&place, contents(unit, allowed, migration).as_bytes(), MODE)
    }

    /// Takes it away, and its directory where nothing else is in it. Durable when it returns. Idempotent.
    pub fn remove(&self, unit: &str) -> Result<()> {
        let place = self.place(unit);
        refuse_others(&place)?;
        place::remove(&place)?;
        match std::fs::remove_dir(place::directory(&place)) {
            Ok(()) => place::sync(&self.0),
            // Somebody else has a file there, or it is gone already.
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn refuse_others(place: &Path) -> Result<()> {
    match place::read(place)? {
        Some(found) if !found.starts_with(HEAD.as_bytes()) => {
            Err(Error::other(format!("{} is not ours", place.display())))
        }
        _ => Ok(()),
    }
}

fn contents(unit: &str, allowed: &[String], migration: &MigrationId) -> String {
    let section = if unit.ends_with(".socket") { "Socket" } else { "Service" };
    let mut all = vec!["localhost"];
    all.extend(allowed.iter().map(String::as_str));
    let all = all.join(" ");
    format!(
        "{HEAD}{migration}; gone once that is accepted or aborted.\n[{section}]\nIPAddressAllow=\n\
         IPAddressAllow={all}\nIPAddressDeny=any\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_put_there_and_taken_away_with_what_was_made_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let seals = Seals::at(dir.path().to_owned());
        let (migration, allowed) = ("m-1".parse().unwrap(), vec!["10.0.0.0/8".to_owned()]);
        for _ in 0..2 {
            seals.put("a.service", &allowed, &migration).unwrap();
            assert!(seals.is_there("a.service", &allowed, &migration).unwrap());
        }
        assert!(!seals.is_there("a.service", &[], &migration).unwrap());
        let text = std::fs::read_to_string(seals.place("a.service")).unwrap();
        assert!(text.ends_with(
            "[Service]\nIPAddressAllow=\nIPAddressAllow=localhost 10.0.0.0/8\nIPAddressDeny=any\n"
        ));
        for _ in 0..2 {
            seals.remove("a.service").unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        // What is somebody else's stays.
        seals.put("a.socket", &[], &migration).unwrap();
        assert!(std::fs::read_to_string(seals.place("a.socket")).unwrap().contains("[Socket]"));
        std::fs::write(dir.path().join("a.socket.d/mine.conf"), "").unwrap();
        seals.remove("a.socket").unwrap();
        assert!(dir.path().join("a.socket.d/mine.conf").exists());
        std::fs::write(seals.place("a.socket"), "[Socket]\n").unwrap();
        assert!(seals.put("a.socket", &[], &migration).is_err() && seals.remove("a.socket").is_err());
        assert_eq!(seals.problem(), None);
        let told = Seals::at(dir.path().join("none")).problem().unwrap();
        assert!(told.contains("ReadWritePaths="), "{told}");
    }
}
