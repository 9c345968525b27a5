//! Files that are whole or not there: written beside, synced, renamed.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What was tried, and what to do.
    pub what: String,
    /// Why it failed.
    pub source: std::io::Error,
}

impl FileError {
    fn of(path: &Path, what: &str) -> impl FnOnce(std::io::Error) -> FileError {
        let (path, what) = (path.to_owned(), what.to_owned());
        move |source| FileError { path, what, source }
    }
}

/// Mode of a file that only its owner may read.
pub const SECRET: u32 = 0o600;
/// Mode of a file that anybody may read.
pub const PUBLIC: u32 = 0o644;

/// Replaces `path` by `contents`, durably and in one step.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let write = || {
        // A left-over of a crash may have another mode.
        let _ = std::fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().map_err(FileError::of(path, "cannot be written"))
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(FileError::of(path, "cannot be read"))
}

/// Makes a directory that only its owner may enter.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(FileError::of(path, "the directory cannot be made"))
}
