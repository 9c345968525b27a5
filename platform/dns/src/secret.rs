//! The secret that updates are signed with.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A secret file is no longer.
const LONGEST: u64 = 4096;

/// The secret in a file, or what is wrong with that, with what to do. Refused is one that others than its owner may read; a group may read what is
/// root's, as with the agent's own key.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let tell = |what: String| format!("{}: {what}", path.display());
    let meta = std::fs::metadata(path).map_err(|error| tell(format!("cannot be looked at: {error}")))?;
    let allowed = if meta.uid() == 0 { 0o740 } else { 0o700 };
    let mode = meta.mode() & 0o777;
    if mode & !allowed != 0 {
        return Err(tell(format!(
            "others may read this secret (mode {mode:03o}): chmod 600 it, and make a new one if anybody did"
        )));
    }
    if meta.len() > LONGEST {
        return Err(tell("is too long for a secret".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| tell(format!("cannot be read: {error}")))?;
    match STANDARD.decode(text.trim()) {
        Ok(secret) if !secret.is_empty() => Ok(secret),
        _ => {
            Err(tell("write the key's secret alone into it, in base64 as `tsig-keygen` prints it".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_secret_that_is_one_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (text, mode, expected) in [
            ("c2VjcmV0\n", 0o600, Ok(b"secret".to_vec())),
            ("c2VjcmV0\n", 0o400, Ok(b"secret".to_vec())),
            ("c2VjcmV0\n", 0o644, Err("others may read this secret (mode 644)")),
            ("key \"handover\" {", 0o600, Err("in base64")),
            ("", 0o600, Err("in base64")),
        ] {
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match (read(&path), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(told), Err(part)) => assert!(told.contains(part) && !told.contains("c2V"), "{told}"),
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        }
        assert!(read(&dir.path().join("none")).unwrap_err().contains("none: cannot be looked at"));
    }
}
