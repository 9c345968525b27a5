//! `[[database]]`, `[[files]]` and `[[log]]`: the datasets.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use handover_engine::name::DatasetName;
use serde::Deserialize;

use crate::database::Place;

/// `[[database]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// The dataset's name.
    pub name: DatasetName,
    /// Where it is: `sqlite:/absolute/path`, `mariadb://…` or `postgres://…`.
    pub url: String,
    /// Its replica: `mariadb://…`, the same database on another server.
    #[serde(default)]
    pub replica: Option<String>,
    /// At the target: how the replica signs in at its primary, and where it finds it: `mariadb://…`.
    #[serde(default)]
    pub replication: Option<String>,
    /// Tables that are left out, with their indexes and triggers.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// `[[files]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesSection {
    /// The dataset's name.
    pub name: DatasetName,
    /// The tree's root, absolute.
    pub root: PathBuf,
    /// Only what one of these globs matches; everything when empty.
    #[serde(default)]
    pub include: Vec<String>,
    /// Not what one of these globs matches.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Its files are logs.
    #[serde(skip)]
    pub is_log: bool,
}

/// `[[log]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// The dataset's name.
    pub name: DatasetName,
    /// The directory that the logs lie in, absolute.
    pub root: PathBuf,
    /// The files that one of these globs matches: those being written, and what they are rotated to.
    pub pattern: Vec<String>,
}

impl DatabaseSection {
    /// Where it is.
    pub fn place(&self) -> Result<Place, String> {
        Place::parse(&self.url)
    }

    /// Where its replica is; a manifest that was read has been checked for it.
    pub fn replica(&self) -> Option<handover_mariadb::Settings> {
        Place::parse(self.replica.as_deref()?).ok()?.into_mariadb()
    }

    /// The url without credentials, for messages.
    fn shown_url(&self) -> String {
        match self.url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, rest)) => format!("{scheme}://…@{rest}"),
            None => self.url.clone(),
        }
    }

    /// What is wrong with it.
    fn check(&self) -> Result<(), String> {
        self.place().map_err(|problem| format!("`url = \"{}\"`: {problem}", self.shown_url()))?;
        self.check_replica()
    }

    /// What is wrong with the replica that it names.
    fn check_replica(&self) -> Result<(), String> {
        let parsed = |key: &str, url: &str| match Place::parse(url) {
            Ok(Place::Mariadb(settings)) => Ok(settings),
            Ok(_) => Err(format!("`{key}`: write mariadb://…")),
            Err(problem) => Err(format!("`{key}`: {problem}")),
        };
        let Some(replica) = &self.replica else {
            return match self.replication {
                Some(_) => Err("`replication` means nothing without `replica`".to_owned()),
                None => Ok(()),
            };
        };
        let Ok(Place::Mariadb(own)) = self.place() else {
            return Err("`replica`: only a mariadb:// database can have one".to_owned());
        };
        let replica = parsed("replica", replica)?;
        if replica.database != own.database {
            return Err(format!(
                "`replica`: it holds the database under the same name: write {}",
                own.database
            ));
        }
        if replica.server() == own.server() {
            return Err("`replica`: it is the server of `url`".to_owned());
        }
        if let Some(replication) = &self.replication
            && parsed("replication", replication)?.socket.is_some()
        {
            return Err(
                "`replication`: write the primary's host and port as the replica sees them".to_owned()
            );
        }
        Ok(())
    }
}

impl FilesSection {
    /// Where a file lies below the root, unless it is left out.
    pub(super) fn holds(&self, file: &Path) -> Option<String> {
        let below = file.strip_prefix(&self.root).ok()?.display().to_string();
        (!self.exclude.contains(&below)).then_some(below)
    }

    /// What is wrong with it.
    fn check(&self) -> Result<(), String> {
        if !self.root.is_absolute() {
            return Err("`root`: write an absolute path".to_owned());
        }
        if self.is_log && self.include.is_empty() {
            return Err("`pattern`: write at least one glob, such as \"*.log*\"".to_owned());
        }
        Ok(())
    }
}

impl From<LogSection> for FilesSection {
    /// The tree of the files that the log's patterns match.
    fn from(LogSection { name, root, pattern }: LogSection) -> Self {
        Self { name, root, include: pattern, exclude: Vec::new(), is_log: true }
    }
}

/// What makes no sense, as [`super::Manifest`] tells it; `trees` are files and logs.
pub(super) fn check(
    databases: &[DatabaseSection],
    trees: &[FilesSection],
) -> Result<(), (&'static str, String, String)> {
    let mut names = HashSet::new();
    for database in databases {
        let refuse = |problem| ("database", database.name.to_string(), problem);
        once(&mut names, &database.name).and_then(|()| database.check()).map_err(refuse)?;
    }
    for tree in trees {
        let section = if tree.is_log { "log" } else { "files" };
        let refuse = |problem| (section, tree.name.to_string(), problem);
        once(&mut names, &tree.name).and_then(|()| tree.check()).map_err(refuse)?;
    }
    Ok(())
}

fn once<'a>(names: &mut HashSet<&'a DatasetName>, name: &'a DatasetName) -> Result<(), String> {
    if names.insert(name) { Ok(()) } else { Err("the name is used twice".to_owned()) }
}
