//! Manifests that cannot be used, and reading what may be one.

use std::path::{Path, PathBuf};

/// A manifest (or another file of settings) that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("{path}: cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be; the text names the key and the line.
    #[error("{path}: {text}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and key.
        text: String,
    },
    /// A section that there is one of makes no sense.
    #[error("{path}: [{section}] `{key}`: {problem}")]
    Table {
        /// The file.
        path: PathBuf,
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// What to write instead.
        problem: String,
    },
    /// A section makes no sense.
    #[error("{path}: [[{section}]] `{name}`: {problem}")]
    Section {
        /// The file.
        path: PathBuf,
        /// The section's kind.
        section: &'static str,
        /// Its name.
        name: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

/// Reads a TOML file into `T`; errors name the file, the line and the key.
pub fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ManifestError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| ManifestError::Parse {
        path: path.to_owned(),
        text: error.to_string().trim().to_owned(),
    })
}
