//! Files that are whole or not there: written beside, synced, renamed.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
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

/// A file to be written: path, contents, mode.
pub type Draft<'a> = (PathBuf, &'a [u8], u32);

/// Replaces `path` by `contents`, durably and in one step.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    replace_all(&[(path.to_owned(), contents, mode)])
}

/// Replaces several files of one directory, in order. All are written and synced beside before the first is renamed, so
/// that nothing but a crash within those few renames can leave a mixture; calling again mends it.
pub fn replace_all(drafts: &[Draft<'_>]) -> Result<(), FileError> {
    const WRITE: &str = "cannot be written: check its directory's owner, mode and free space";
    for (path, contents, mode) in drafts {
        stage(&beside(path), contents, *mode).map_err(FileError::of(path, WRITE))?;
    }
    for (path, ..) in drafts {
        std::fs::rename(beside(path), path).map_err(FileError::of(path, WRITE))?;
    }
    match drafts.first() {
        Some((path, ..)) => sync_parent(path).map_err(FileError::of(path, WRITE)),
        None => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn stage(beside: &Path, contents: &[u8], mode: u32) -> std::io::Result<()> {
    // A left-over of a crash may have another mode.
    let _ = std::fs::remove_file(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    // Exactly this mode, whatever the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| {
        let what = match source.kind() {
            std::io::ErrorKind::NotFound => {
                "there is no such file: check the path, or make it with `handover certs init` or `handover certs issue`"
            }
            std::io::ErrorKind::PermissionDenied => "may not be read: run as the user who owns it, or chown it",
            _ => "cannot be read",
        };
        FileError::of(path, what)(source)
    })
}

/// Refuses a file that others than its owner may read or write. A group may read what is root's: so do systemd's credentials,
/// Kubernetes' secrets and Debian's `ssl-cert` hand keys to a service.
pub fn check_secret(path: &Path) -> Result<(), FileError> {
    let meta = std::fs::metadata(path).map_err(FileError::of(path, "cannot be looked at"))?;
    let mode = meta.permissions().mode() & 0o777;
    let allowed = if meta.uid() == 0 { 0o740 } else { 0o700 };
    if mode & !allowed == 0 {
        return Ok(());
    }
    let what = format!(
        "others may use this key (mode {mode:03o}): chmod 600 it, and issue a new one if anybody did"
    );
    Err(FileError::of(path, &what)(std::io::ErrorKind::PermissionDenied.into()))
}

/// Makes a directory that only its owner may enter. One that is there already stays as it is.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(FileError::of(path, "the directory cannot be made"))
}

/// Waits for, and takes, the lock on a file; held until the value is dropped.
pub fn lock(path: &Path) -> Result<File, FileError> {
    let locked = File::open(path).and_then(|file| file.lock().map(|()| file));
    locked.map_err(FileError::of(path, "cannot be locked"))
}
