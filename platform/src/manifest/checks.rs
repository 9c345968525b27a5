//! `[[check_script]]`: the vendor's scripts that look at what a rehearsal has loaded.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use handover_engine::name::DatasetName;
use serde::Deserialize;

use super::DatabaseSection;

/// No script may take longer.
const LONGEST_SECONDS: u64 = 24 * 3600;

/// `[[check_script]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckScriptSection {
    /// Its name. Scripts run in the order of their names.
    pub name: String,
    /// The executable, absolute.
    pub program: PathBuf,
    /// The database that it looks at; every one where nothing is said.
    #[serde(default)]
    pub database: Option<DatasetName>,
    /// How long it may take, in seconds.
    #[serde(default = "default_seconds")]
    pub seconds: u64,
    /// It may use the network. Otherwise it runs without one.
    #[serde(default)]
    pub network: bool,
}

fn default_seconds() -> u64 {
    600
}

impl CheckScriptSection {
    /// How long it may take.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What makes no sense, as [`super::Manifest`] tells it.
pub(super) fn check(
    scripts: &[CheckScriptSection],
    databases: &[DatabaseSection],
) -> Result<(), (&'static str, String, String)> {
    let mut names = HashSet::new();
    for script in scripts {
        let refuse = |problem: &str| Err(("check_script", script.name.clone(), problem.to_owned()));
        if script.name.is_empty() || !names.insert(&script.name) {
            return refuse("`name`: give each a name of its own");
        }
        if !script.program.is_absolute() || script.program.file_name().is_none() {
            return refuse("`program`: write an absolute path");
        }
        if !(1..=LONGEST_SECONDS).contains(&script.seconds) {
            return refuse("`seconds`: write 1 to 86400");
        }
        let is_known = |name: &DatasetName| databases.iter().any(|database| database.name == *name);
        if script.database.as_ref().is_some_and(|name| !is_known(name)) {
            return refuse("`database`: there is no [[database]] of that name");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;

    const SCRIPT: &str = "[appliance]\nname = 'a'\n[[database]]\nname = 'main'\nurl = 'sqlite:/m.db'\n\
        [[check_script]]\nname = 'books'\nprogram = '/opt/check'\n";

    fn read(text: &str) -> Result<Manifest, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("appliance.toml");
        std::fs::write(&path, text).unwrap();
        Manifest::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn good_ones_are_read_and_bad_ones_refused_by_name() {
        let script = read(SCRIPT).unwrap().check_script.remove(0);
        assert_eq!((script.seconds, script.network, script.database), (600, false, None));
        assert!(read(&format!("{SCRIPT}network = true\ndatabase = 'main'\nseconds = 5")).is_ok());
        for (text, part) in [
            (SCRIPT.replace("/opt", "opt"), "[[check_script]] `books`: `program`"),
            (format!("{SCRIPT}seconds = 0"), "`seconds`"),
            (format!("{SCRIPT}database = 'other'"), "no [[database]] of that name"),
            (format!("{SCRIPT}net = true"), "net"),
            (format!("{SCRIPT}[[check_script]]\nname = 'books'\nprogram = '/x'"), "a name of its own"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
