//! Names beside a place: what is built before it is put there, and what stood there before.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use handover_engine::digest::Digest;
use handover_engine::name::BackupId;

/// What the name of something ends with that is built beside a path.
pub const BUILT: &str = ".handover-restore";
/// The same for a database, after two underscores.
pub const BUILT_DATABASE: &str = "handover_restore";

/// A path beside another: `app.db.before-b-1`.
pub fn path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The directory that a path lies in.
pub fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The number of what is at a path, whatever it is called; none where nothing is.
pub fn number(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().map(|meta| meta.ino())
}

/// As it is told where what stood there is now.
pub fn told(before: Option<&PathBuf>) -> Option<String> {
    before.map(|before| before.display().to_string())
}

/// Where what stands at a path goes: `app.db.before-b-1`, or the next name like it that nothing has.
pub fn free_before(place: &Path, id: &BackupId) -> PathBuf {
    free_path(&path(place, &format!(".before-{id}")))
}

/// This path, or the next one like it that nothing stands at.
pub fn free_path(path: &Path) -> PathBuf {
    let numbered = |n: u32| self::path(path, &format!("-{n}"));
    let all = std::iter::once(path.to_owned()).chain((2..).map(numbered));
    all.into_iter().find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| path.to_owned())
}

/// The name of a database beside another, within so many bytes: `shop__before_1a2b3c4d`.
pub fn database(database: &str, what: &str, longest: usize) -> String {
    let end = format!("__{what}");
    if database.len() + end.len() <= longest {
        return format!("{database}{end}");
    }
    let mark = Digest::of(database.as_bytes()).short();
    let mut cut = longest - end.len() - mark.len() - 1;
    while !database.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}_{mark}{end}", &database[..cut])
}

/// The first of `shop__before_…`, `shop__before_…_2` and so on that is not among those that there are.
pub fn free_database(place: &str, id: &BackupId, longest: usize, taken: &[String]) -> String {
    let mark = Digest::of(id.as_str().as_bytes()).short()[..8].to_owned();
    let numbered = |n: u32| match n {
        1 => database(place, &format!("before_{mark}"), longest),
        n => database(place, &format!("before_{mark}_{n}"), longest),
    };
    (1..=u32::MAX).map(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_names_of_their_own_that_fit() {
        let id: BackupId = "b-1".parse().unwrap();
        let first = free_database("shop", &id, 63, &[]);
        assert!(first.starts_with("shop__before_"), "{first}");
        let second = free_database("shop", &id, 63, std::slice::from_ref(&first));
        assert_eq!(second, format!("{first}_2"));
        let (one, other) = ("é".repeat(31), format!("{}e", "é".repeat(30)));
        let long = [&one, &other].map(|name| database(name, BUILT_DATABASE, 63));
        assert!(long.iter().all(|name| name.len() <= 63) && long[0] != long[1], "{long:?}");
    }
}
