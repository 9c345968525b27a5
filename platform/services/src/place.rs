//! Small files of ours in directories that others use, too: there as a whole, or not at all.

use std::fs::{File, Permissions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags};

/// None of ours is larger.
const LARGEST: u64 = 64 * 1024;

/// What lies there; none when there is nothing. A link is not followed: what it leads to is not ours.
pub fn read(place: &Path) -> Result<Option<Vec<u8>>> {
    // A pipe must not be waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match File::options().read(true).custom_flags(flags.cast_signed()).open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(Some(bytes))
}

/// Puts it there, in place of what may be there. Durable when it returns.
pub fn write(place: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let partial = partial(place);
    remove(&partial)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(contents)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    std::fs::rename(&partial, place)?;
    sync(directory(place))
}

/// Takes it away, and what was begun of it. Durable when it returns. Idempotent.
pub fn remove(place: &Path) -> Result<()> {
    for place in [partial(place), place.to_owned()] {
        match std::fs::remove_file(&place) {
            Ok(()) => sync(directory(&place))?,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether files can be put there and taken away.
pub fn may_write(place: &Path) -> Result<()> {
    Ok(rustix::fs::access(directory(place), Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Makes what is named in a directory durable.
pub fn sync(directory: &Path) -> Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that something lies in.
pub fn directory(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"))
}

fn partial(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    directory(place).join(format!(".{name}.handover"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_there_and_taken_away_whatever_was_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("x.conf");
        std::fs::write(partial(&place), "begun").unwrap();
        for text in ["one", "two"] {
            write(&place, text.as_bytes(), 0o640).unwrap();
            assert_eq!(read(&place).unwrap(), Some(text.into()));
        }
        assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o640);
        std::fs::write(partial(&place), "begun").unwrap();
        for _ in 0..2 {
            remove(&place).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        remove(&dir.path().join("none/x.conf")).unwrap();
    }

    #[test]
    fn what_is_no_file_of_ours_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("x");
        assert_eq!(read(&place).unwrap(), None);
        std::os::unix::fs::symlink("/etc/hostname", &place).unwrap();
        assert!(read(&place).is_err());
        assert!(read(dir.path()).is_err());
        assert!(may_write(&place).is_ok() && may_write(&dir.path().join("none/x")).is_err());
    }
}
