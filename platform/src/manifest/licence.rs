//! `[licence]`: where the appliance's licence lies, and who issues it.

use std::path::PathBuf;

use serde::Deserialize;

use super::FilesSection;
use crate::licence::IssuerKey;

/// `[licence]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenceSection {
    /// The file that it is valid in, absolute.
    pub file: PathBuf,
    /// The Ed25519 key that its issuer's signatures are checked with, in PEM.
    pub public_key: String,
}

impl LicenceSection {
    /// What makes no sense, by key: the file must not travel with a tree.
    pub(super) fn check(&self, trees: &[FilesSection]) -> Result<(), (&'static str, String)> {
        if !self.file.is_absolute() || self.file.file_name().is_none() {
            return Err(("file", "write an absolute path".to_owned()));
        }
        for tree in trees {
            if let Some(below) = tree.holds(&self.file) {
                let problem = format!(
                    "it would be copied with `{}`: write {below:?} into that section's `exclude`",
                    tree.name
                );
                return Err(("file", problem));
            }
        }
        IssuerKey::parse(&self.public_key).map(drop).map_err(|bad| ("public_key", bad.to_string()))
    }
}
