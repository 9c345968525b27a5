//! What comes from the other host, as it is of this host.

use handover_engine::changeover::{Bundle, Contents, Setting};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;

use super::{Here, item};
use crate::rows;
use crate::section::{LARGEST, SettingsSection};

impl Here {
    /// What comes, as settings of this host.
    pub(super) fn own(&self, bundle: &Bundle) -> Result<Bundle> {
        let mut own = Vec::new();
        for section in &self.sections {
            let Some(setting) = bundle.settings.iter().find(|setting| setting.name == section.name) else {
                continue;
            };
            own.push(ours(section, setting)?);
        }
        Ok(Bundle { settings: own })
    }
}

/// A setting of the other host as it is one of this host: its group, and no keys that are not named here.
fn ours(section: &SettingsSection, theirs: &Setting) -> Result<Setting> {
    let refuse = |what: &str, hint: &str| Err(Failure::operator(item(&section.name), what).hint(hint));
    if section.group.is_of_the_host() && !theirs.group.is_of_the_host() {
        return refuse(
            "they make a host the one it is here, and do not at the other host",
            "write the same `group` in both manifests",
        );
    }
    let contents = match &theirs.contents {
        contents if section.database.is_some() => rows::ours(section, contents)?,
        Contents::Absent => Contents::Absent,
        Contents::Whole { bytes, .. } if bytes.len() > LARGEST => {
            return refuse("they are larger than 256 KiB", "name single keys, or move the file as [[files]]");
        }
        Contents::Whole { bytes, mode } if section.keys.is_empty() => {
            Contents::Whole { bytes: bytes.clone(), mode: mode & 0o777 }
        }
        Contents::Keys(values) if !section.keys.is_empty() => {
            let own: Vec<_> = section.paths().unwrap_or_default().iter().map(ToString::to_string).collect();
            let named = values.iter().filter(|(key, _)| own.contains(key));
            Contents::Keys(named.map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        Contents::Rows { .. } => {
            return refuse("they are of a file here, and of a table at the other host", "write both alike");
        }
        Contents::Whole { .. } | Contents::Keys(_) => {
            return refuse(
                "one manifest names keys of them, the other one the whole file",
                "write the same `keys` in both manifests",
            );
        }
    };
    Ok(Setting { name: section.name.clone(), group: section.group.clone(), contents })
}
