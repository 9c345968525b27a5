//! Files of settings, changed key by key. Everything but the values that are set stays as it is, byte for byte: values are
//! found by their place in the text, and the text is cut there.
//!
//! After a change the file is read again: each key must have its new value and every other one its old; otherwise the change is refused.

mod env;
mod ini;
mod json;
mod lines;
mod splice;
mod toml;
mod tree;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use self::splice::{Splice, cut};
use self::tree::{Kind, Node};
use crate::key::{KeyPath, Segment};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `[section]` and `key = value`.
    Ini,
    /// `KEY=value`, as shells and systemd read it.
    Env,
    /// TOML.
    Toml,
    /// JSON, with comments where there are some.
    Json,
    /// YAML, one document.
    Yaml,
    /// Anything else: it has no keys.
    Plain,
}

/// Why a file cannot be read or changed by keys. Shows no values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is not what it is said to be.
    #[error("it cannot be read as {format}: {problem}")]
    Unreadable {
        /// As what it was read.
        format: &'static str,
        /// What is wrong, without the text of the file.
        problem: String,
    },
    /// A key's value cannot travel.
    #[error("`{key}`: {problem}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The changed file would not hold what it should.
    #[error("`{key}` cannot be set without changing something else of the file")]
    Unfaithful {
        /// The key.
        key: String,
    },
}

/// Keys with their values; none where there is no such key.
pub type Values = BTreeMap<String, Option<Value>>;

impl Format {
    /// By the file's extension.
    pub fn of(file: &Path) -> Self {
        match file.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
            "ini" | "cnf" => Format::Ini,
            "network" | "netdev" | "link" | "service" | "socket" | "timer" | "mount" | "path" | "target" => {
                Format::Ini
            }
            "env" => Format::Env,
            "toml" => Format::Toml,
            "json" | "jsonc" => Format::Json,
            "yaml" | "yml" => Format::Yaml,
            _ => Format::Plain,
        }
    }

    /// Whether a file of the format can have such a key.
    pub fn admits(self, path: &KeyPath) -> Result<(), &'static str> {
        let names = path.names().map(|names| names.len());
        match self {
            Format::Ini if !matches!(names, Some(1 | 2)) => {
                Err("write `section.key`, or `key` for one before every section; quote names with dots")
            }
            Format::Env if names != Some(1) => Err("write the variable's name"),
            Format::Plain => Err("a plain file has no keys"),
            Format::Ini | Format::Env | Format::Toml | Format::Json | Format::Yaml => Ok(()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Ini => "INI",
            Format::Env => "lines of KEY=value",
            Format::Toml => "TOML",
            Format::Json => "JSON",
            Format::Yaml => "YAML",
            Format::Plain => "a file with keys",
        }
    }

    fn parse(self, file: &Path, text: &str) -> Result<Node, FormatError> {
        let parsed = match self {
            Format::Ini => Ok(ini::Ini::parse(text, ini::Dialect::of(file)).node()),
            Format::Env => Ok(env::Env::parse(text).node()),
            Format::Toml => toml::parse(text),
            Format::Json => json::parse(text),
            Format::Yaml => yaml::parse(text),
            Format::Plain => Err("it is plain".to_owned()),
        };
        parsed.map_err(|problem| FormatError::Unreadable { format: self.name(), problem })
    }

    fn splices(
        self,
        file: &Path,
        text: &str,
        path: &KeyPath,
        value: Option<&Value>,
    ) -> Result<Vec<Splice>, &'static str> {
        match self {
            Format::Ini => ini::Ini::parse(text, ini::Dialect::of(file)).set(path, value),
            Format::Env => env::Env::parse(text).set(path, value),
            Format::Toml => toml::set(text, path, value),
            Format::Json => json::set(text, path, value),
            Format::Yaml => yaml::set(text, path, value),
            Format::Plain => Err("a plain file has no keys"),
        }
    }

    /// INI files and variables know no lists of one.
    fn canonical(self, value: Option<Value>) -> Option<Value> {
        match (self, value) {
            (Format::Ini | Format::Env, Some(Value::Array(mut list))) if list.len() < 2 => list.pop(),
            (_, value) => value,
        }
    }
}

/// The text of a file, and the byte order mark before it.
fn text(format: Format, bytes: &[u8]) -> Result<(&str, &str), FormatError> {
    let text = std::str::from_utf8(bytes).map_err(|_| FormatError::Unreadable {
        format: format.name(),
        problem: "it is not UTF-8".to_owned(),
    })?;
    let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    Ok(text.split_at(mark))
}

/// The values of some keys.
pub fn get(format: Format, file: &Path, bytes: &[u8], keys: &[KeyPath]) -> Result<Values, FormatError> {
    let node = format.parse(file, text(format, bytes)?.1)?;
    let value = |path: &KeyPath| {
        let found = node.find(path.segments()).and_then(|found| found.map(Node::readable).transpose());
        let value = found.map_err(|problem| FormatError::Key { key: path.to_string(), problem })?;
        Ok((path.to_string(), value))
    };
    keys.iter().map(value).collect()
}

/// The file with some keys set, or taken away where there is no value. Equal values change nothing.
pub fn set(format: Format, file: &Path, bytes: &[u8], values: &Values) -> Result<Vec<u8>, FormatError> {
    let (mark, before) = text(format, bytes)?;
    let mut now = before.to_owned();
    for (key, value) in values {
        let refuse = |problem| FormatError::Key { key: key.clone(), problem };
        let path: KeyPath = key.parse().map_err(|_| refuse("it is no path of a key"))?;
        format.admits(&path).map_err(refuse)?;
        let value = format.canonical(value.clone());
        let node = format.parse(file, &now)?;
        let mut expected = node.value();
        let found = node.find(path.segments()).map_err(refuse)?;
        if found.map(Node::value) == value {
            continue;
        }
        tree::put(&mut expected, path.segments(), value.clone()).map_err(refuse)?;
        let is_listed = matches!(format, Format::Ini | Format::Env);
        let mut steps = Vec::new();
        if is_listed {
            steps.push((path.clone(), value));
        } else {
            leaves(found, path.clone(), value, &mut steps);
        }
        for (path, value) in &steps {
            now = cut(&now, format.splices(file, &now, path, value.as_ref()).map_err(refuse)?)
                .ok_or_else(|| FormatError::Unfaithful { key: key.clone() })?;
        }
        let unfaithful = || FormatError::Unfaithful { key: key.clone() };
        if format.parse(file, &now).map_err(|_| unfaithful())?.value() != expected {
            return Err(unfaithful());
        }
    }
    Ok(format!("{mark}{now}").into_bytes())
}

/// What has to be set so that what is there becomes what is wanted: as little as can be, so that what is inside of lists and maps keeps its form.
fn leaves(old: Option<&Node>, path: KeyPath, new: Option<Value>, out: &mut Vec<(KeyPath, Option<Value>)>) {
    match (old.map(|node| &node.kind), new) {
        (Some(_), Some(new)) if old.is_some_and(|old| old.value() == new) => {}
        (Some(Kind::Map(entries)), Some(Value::Object(mut wanted)))
            if !entries.is_empty() && !wanted.is_empty() =>
        {
            let mut gone = Vec::new();
            for entry in entries {
                let path = path.join(Segment::Key(entry.key.clone()));
                match wanted.remove(&entry.key) {
                    Some(value) => leaves(Some(&entry.value), path, Some(value), out),
                    None => gone.push((path, None)),
                }
            }
            let added = wanted.into_iter();
            out.extend(added.map(|(key, value)| (path.join(Segment::Key(key)), Some(value))));
            out.extend(gone);
        }
        (Some(Kind::List(items)), Some(Value::Array(wanted))) if !items.is_empty() && !wanted.is_empty() => {
            let length = wanted.len();
            for (at, value) in wanted.into_iter().enumerate() {
                leaves(items.get(at), path.join(Segment::Index(at)), Some(value), out);
            }
            out.extend((length..items.len()).rev().map(|at| (path.join(Segment::Index(at)), None)));
        }
        (_, new) => out.push((path, new)),
    }
}

#[cfg(test)]
mod tests;
