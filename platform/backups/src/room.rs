//! Whether there is room for what is about to be written.

use std::path::Path;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;

/// What is left free beside it.
const SPARE: u64 = 16 << 20;

/// Refuses what would not fit at a place, or what is nearest to it.
pub fn check(item: &str, place: &Path, needed: u64) -> Result<()> {
    let there = place.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    // One that cannot be looked at is told by who writes there.
    let Ok(space) = rustix::fs::statvfs(there) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free >= needed.saturating_add(SPARE) {
        return Ok(());
    }
    let what = format!(
        "about {} MB are needed in {}, where {} MB are free",
        (needed + SPARE).div_ceil(1_000_000),
        place.display(),
        free / 1_000_000
    );
    Err(Failure::operator(item, what)
        .hint("free space there, remove old backups, or name another `directory` in [backups]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let here = std::env::temp_dir();
        assert_eq!(check("x", &here.join("not/there"), 0), Ok(()));
        let refused = check("backup b", &here, u64::MAX / 2).unwrap_err().to_string();
        assert!(refused.contains("are needed in") && refused.contains("MB are free"), "{refused}");
    }
}
