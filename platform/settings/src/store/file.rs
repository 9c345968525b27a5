//! The file of a section: what is told of it, what travels of it, and what becomes of it.

use std::path::{Path, PathBuf};

use handover_engine::changeover::{Contents, Setting, SettingsFacts};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;

use super::{failed, item};
use crate::disk::{self, Held};
use crate::format::{self, FormatError};
use crate::section::{LARGEST, SettingsSection};

/// What is told of it.
pub(super) fn facts(section: &SettingsSection) -> SettingsFacts {
    SettingsFacts {
        name: section.name.clone(),
        group: section.group.clone(),
        file: section.file.display().to_string(),
        dataset: None,
        problem: problem(section),
    }
}

fn problem(section: &SettingsSection) -> Option<String> {
    let place = match disk::resolve(&section.file) {
        Ok(place) => place,
        Err(error) => return Some(format!("its link cannot be followed: {error} (mend it)")),
    };
    if let Err((what, hint)) = check_place(&place) {
        return Some(format!("{what} ({hint})"));
    }
    read(section).err().map(|failure| failure.to_string())
}

/// Where it is, with links followed.
pub(super) fn place(section: &SettingsSection) -> Result<PathBuf> {
    disk::resolve(&section.file)
        .map_err(failed(item(&section.name), "the link that their file is cannot be followed"))
}

/// What keeps a file from being written there, and what to do.
pub(super) fn check_place(place: &Path) -> Result<(), (String, String)> {
    let directory = disk::directory(place).display();
    disk::may_write(place).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => (
            format!("{directory} is not there"),
            "make it, or mend [[settings]] in appliance.toml".to_owned(),
        ),
        _ => (
            format!("{directory} cannot be written to: {error}"),
            format!("`systemctl edit` the agent's unit: ReadWritePaths={directory}"),
        ),
    })
}

/// What is at its place, if something is.
pub(super) fn held(section: &SettingsSection, place: &Path) -> Result<Option<Held>> {
    disk::read(place).map_err(failed(item(&section.name), "their file cannot be read"))
}

/// What travels of it, as it is.
pub(super) fn read(section: &SettingsSection) -> Result<Setting> {
    let held = held(section, &place(section)?)?;
    let contents = match held {
        None => Contents::Absent,
        Some(held) if section.keys.is_empty() => Contents::Whole { bytes: held.bytes, mode: held.mode },
        Some(held) => {
            let paths = section.paths().map_err(|bad| {
                Failure::operator(item(&section.name), "its manifest is not in order").because(bad)
            })?;
            Contents::Keys(
                format::get(section.format(), &section.file, &held.bytes, &paths)
                    .map_err(refused(section))?,
            )
        }
    };
    Ok(Setting { name: section.name.clone(), group: section.group.clone(), contents })
}

fn refused(section: &SettingsSection) -> impl Fn(FormatError) -> Failure + '_ {
    |error| {
        let hint = match &error {
            FormatError::Unreadable { .. } => "mend the file, or `format` in [[settings]]",
            FormatError::Key { .. } | FormatError::Unfaithful { .. } => {
                "mend `keys` in [[settings]] of both manifests, or leave them out: the whole file travels then"
            }
        };
        Failure::operator(item(&section.name), format!("{}: {error}", section.file.display())).hint(hint)
    }
}

/// What becomes of a file.
pub(super) fn changes(
    section: &SettingsSection,
    place: &Path,
    before: Option<Held>,
    contents: &Contents,
) -> Result<Option<Held>> {
    let no_keys =
        || section.paths().unwrap_or_default().iter().map(|path| (path.to_string(), None)).collect();
    let values: format::Values = match contents {
        Contents::Absent if section.keys.is_empty() => return Ok(None),
        Contents::Absent => no_keys(),
        Contents::Whole { bytes, mode } => {
            return match before {
                Some(before) => Ok(Some(Held { bytes: bytes.clone(), ..before })),
                None => new_file(section, place, bytes.clone(), *mode).map(Some),
            };
        }
        Contents::Keys(values) => values.clone(),
        // They are in no file.
        Contents::Rows { .. } => return Ok(before),
    };
    let Some(before) = before else {
        if values.values().all(Option::is_none) {
            return Ok(None);
        }
        return Err(Failure::operator(
            item(&section.name),
            format!("{} is not there", section.file.display()),
        )
        .hint("put the file in place, or leave `keys` out in both manifests: the whole file travels then"));
    };
    let bytes =
        format::set(section.format(), &section.file, &before.bytes, &values).map_err(refused(section))?;
    if bytes.len() > LARGEST {
        return Err(Failure::operator(item(&section.name), "their file would be larger than 256 KiB")
            .hint("move it as [[files]]"));
    }
    Ok(Some(Held { bytes, ..before }))
}

/// A file that this host does not have: it belongs to whom its directory belongs.
fn new_file(section: &SettingsSection, place: &Path, bytes: Vec<u8>, mode: u32) -> Result<Held> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(disk::directory(place))
        .map_err(failed(item(&section.name), "their directory cannot be looked at"))?;
    Ok(Held { bytes, owner: (meta.uid(), meta.gid()), mode, attributes: Vec::new() })
}
