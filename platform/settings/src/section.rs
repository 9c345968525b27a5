//! `[[settings]]`: what of which file travels.

mod table;

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, PathBuf};

use handover_engine::changeover::{Group, SettingsRows};
use handover_engine::name::DatasetName;
use serde::Deserialize;

use crate::format::Format;
use crate::key::KeyPath;

/// No file of settings may be larger: it travels in one message, and is held in memory.
pub const LARGEST: usize = 256 * 1024;

/// `[[settings]]`: of a file, or of a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsSection {
    /// Its name; the same in both manifests.
    pub name: String,
    /// What the settings are for.
    pub group: Group,
    /// The file, absolute. At most 256 KiB. Empty for a table.
    #[serde(default)]
    pub file: PathBuf,
    /// How the file is written; by its extension when it is not told.
    #[serde(default)]
    pub format: Option<Format>,
    /// The keys that travel; the whole file, or all rows, when empty.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The database that the table is in; none for a file.
    #[serde(default)]
    pub database: Option<DatasetName>,
    /// The table.
    #[serde(default)]
    pub table: String,
    /// Its column of keys.
    #[serde(default)]
    pub key_column: String,
    /// Its column of values.
    #[serde(default)]
    pub value_column: String,
    /// What other columns hold in the rows that are meant.
    #[serde(default)]
    pub scope: BTreeMap<String, String>,
}

impl SettingsSection {
    /// One of a file.
    pub fn of_file(name: &str, group: Group, file: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            group,
            file,
            format: None,
            keys: Vec::new(),
            database: None,
            table: String::new(),
            key_column: String::new(),
            value_column: String::new(),
            scope: BTreeMap::new(),
        }
    }

    /// The rows that are meant, where it is a table.
    pub fn rows(&self) -> Option<SettingsRows> {
        Some(SettingsRows {
            dataset: self.database.clone()?,
            table: self.table.clone(),
            key_column: self.key_column.clone(),
            value_column: self.value_column.clone(),
            scope: self.scope.clone(),
        })
    }

    /// How the file is written.
    pub fn format(&self) -> Format {
        self.format.unwrap_or_else(|| Format::of(&self.file))
    }

    /// Its keys, as paths.
    pub fn paths(&self) -> Result<Vec<KeyPath>, crate::BadKey> {
        self.keys.iter().map(|key| key.parse()).collect()
    }

    fn problem(&self) -> Option<String> {
        if self.name.is_empty() || self.name.chars().any(char::is_control) {
            return Some("`name`: write one".to_owned());
        }
        if self.group.0.is_empty() {
            return Some("`group`: write what the settings are for".to_owned());
        }
        if self.database.is_some() || self.has_words_of_a_table() {
            return self.problem_of_table();
        }
        let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !self.file.is_absolute()
            || self.file.file_name().is_none()
            || !self.file.components().all(is_plain)
        {
            return Some("`file`: write an absolute path".to_owned());
        }
        if !self.keys.is_empty() && self.format() == Format::Plain {
            let text = "`keys`: a plain file has none; write its `format`, or leave `keys` out";
            return Some(text.to_owned());
        }
        for key in &self.keys {
            let path: KeyPath = match key.parse() {
                Ok(path) => path,
                Err(bad) => return Some(format!("`keys`: {bad}")),
            };
            if let Err(problem) = self.format().admits(&path) {
                return Some(format!("`keys`: `{key}`: {problem}"));
            }
        }
        None
    }
}

/// What makes no sense, as a manifest tells it: the kind of section, its name, the problem.
pub fn check(sections: &[SettingsSection]) -> Result<(), (&'static str, String, String)> {
    let mut names = HashSet::new();
    for (at, section) in sections.iter().enumerate() {
        let refuse = |problem: String| Err(("settings", section.name.clone(), problem));
        if let Some(problem) = section.problem() {
            return refuse(problem);
        }
        if !names.insert(&section.name) {
            return refuse("the name is used twice".to_owned());
        }
        if section.database.is_some() {
            table::check_against(section, &sections[..at])
                .map_err(|problem| ("settings", section.name.clone(), problem))?;
            continue;
        }
        let paths = section.paths().unwrap_or_default();
        for (at, path) in paths.iter().enumerate() {
            if paths[..at].iter().any(|other| other.overlaps(path)) {
                return refuse(format!(
                    "`keys`: `{path}` is named twice, by itself or with what it is part of"
                ));
            }
        }
        let of_files = sections[..at].iter().filter(|other| other.database.is_none());
        for other in of_files.filter(|other| other.file == section.file) {
            let name = &other.name;
            if other.format() != section.format() {
                return refuse(format!("`format`: `{name}` names the same file with another one"));
            }
            let others = other.paths().unwrap_or_default();
            if paths.is_empty() || others.is_empty() {
                return refuse(format!("`file`: all of it travels once already, with `{name}`"));
            }
            if let Some(twice) = paths.iter().find(|path| others.iter().any(|other| other.overlaps(path))) {
                return refuse(format!("`keys`: `{twice}` travels already, with `{name}`"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sections {
        settings: Vec<SettingsSection>,
    }

    const ONE: &str = "[[settings]]\nname = 'net'\ngroup = 'network'\nfile = '/etc/systemd/network/10.network'\nkeys = ['Network.Address']\n";

    fn read(text: &str) -> Result<Vec<SettingsSection>, String> {
        let read: Sections = toml::from_str(text).map_err(|e| e.to_string())?;
        check(&read.settings)
            .map_err(|(section, name, problem)| format!("[[{section}]] `{name}`: {problem}"))?;
        Ok(read.settings)
    }

    #[test]
    fn sections_are_read() {
        let one = &read(ONE).unwrap()[0];
        assert_eq!((one.format(), one.group.0.as_str(), one.keys.len()), (Format::Ini, "network", 1));
        let two = ONE.replace("net'", "net2'").replace("Address", "Gateway");
        assert_eq!(read(&format!("{ONE}{two}")).unwrap().len(), 2, "other keys of the same file");
        let whole = read("[[settings]]\nname = 'motd'\ngroup = 'basic'\nfile = '/etc/motd'\n").unwrap();
        assert_eq!(whole[0].format(), Format::Plain);
        let told =
            read(&ONE.replace("10.network", "x.conf").replace("keys", "format = 'ini'\nkeys")).unwrap();
        assert_eq!(told[0].format(), Format::Ini);
    }

    const TABLE: &str = "[[settings]]\nname = 'smtp'\ngroup = 'mail'\ndatabase = 'shop'\ntable = 'options'\nkey_column = 'name'\nvalue_column = 'value'\nscope = { tenant = 'main' }\nkeys = ['smtp.host']\n";

    #[test]
    fn rows_of_tables_are_read() {
        let rows = read(TABLE).unwrap()[0].rows().unwrap();
        assert_eq!(
            (rows.to_string().as_str(), rows.scope["tenant"].as_str()),
            ("table options of shop", "main")
        );
        let others = TABLE.replace("'smtp'", "'other'");
        assert_eq!(read(&format!("{TABLE}{}", others.replace("smtp.host", "smtp.port"))).unwrap().len(), 2);
        assert_eq!(read(&format!("{TABLE}{}", others.replace("'main'", "'second'"))).unwrap().len(), 2);
        for (text, part) in [
            (TABLE.replace("database = 'shop'\n", ""), "`database`"),
            (TABLE.replace("table = 'options'\n", ""), "`table`: write its name"),
            (TABLE.replace("'value'", "'name'"), "columns of their own"),
            (TABLE.replace("tenant", "value"), "`scope`: value"),
            (TABLE.replace("['smtp.host']", "['a', 'a']"), "named twice"),
            (TABLE.replace("'mail'", "'network'"), "cannot be `network`"),
            (format!("{TABLE}file = '/etc/motd'\n"), "not of both"),
            (format!("{TABLE}format = 'ini'\n"), "`format`"),
            (format!("{TABLE}{others}"), "travels already, with `smtp`"),
            (format!("{TABLE}{}", others.replace("['smtp.host']", "[]")), "all of these rows"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn bad_ones_are_refused_by_name() {
        for (text, part) in [
            (ONE.replace("'/etc", "'etc"), "`net`: `file`: write an absolute path"),
            (ONE.replace("/etc/", "/etc/../"), "`file`: write an absolute path"),
            (ONE.replace("'net'", "''"), "`name`"),
            (ONE.replace("'network'", "''"), "`group`"),
            (ONE.replace("10.network", "motd"), "a plain file has none"),
            (ONE.replace("Network.Address", "Network."), "no path of a key"),
            (ONE.replace("Network.Address", "a.b.c"), "`section.key`"),
            (ONE.replace("Network.Address", "a[0]"), "`section.key`"),
            (ONE.replace("keys = ['Network.Address']", "keys = ['a.b', 'a.b']"), "named twice"),
            (format!("{ONE}mode = 5"), "mode"),
            (format!("{ONE}format = 'xml'"), "xml"),
            (format!("{ONE}{ONE}"), "used twice"),
            (format!("{ONE}{}", ONE.replace("net'", "other'")), "travels already, with `net`"),
            (
                format!("{ONE}{}", ONE.replace("net'", "other'").replace("['Network.Address']", "[]")),
                "all of it travels once already",
            ),
            (
                format!("{ONE}{}", ONE.replace("net'", "other'").replace("keys", "format = 'toml'\nkeys")),
                "with another one",
            ),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
