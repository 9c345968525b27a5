//! How much room file systems have.

use std::path::{Path, PathBuf};

use handover_engine::reserve::Disk;

/// The file systems that these places are on, or will be, each once; what cannot be looked at is left out. Blocks for a moment.
pub fn disks(places: impl IntoIterator<Item = PathBuf>) -> Vec<Disk> {
    let mut devices = Vec::new();
    let mut out = Vec::new();
    for place in places {
        let Some((device, disk)) = disk(&place) else { continue };
        if !devices.contains(&device) {
            devices.push(device);
            out.push(disk);
        }
    }
    out
}

fn disk(place: &Path) -> Option<(u64, Disk)> {
    let there = place.ancestors().find(|place| place.exists())?;
    let (stat, space) = (rustix::fs::stat(there).ok()?, rustix::fs::statvfs(there).ok()?);
    let (free, total) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
    Some((stat.st_dev, Disk { place: place.display().to_string(), free, total }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let places = ["", "later/still", "."].map(|name| dir.path().join(name));
        let told = disks(places);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].total > 0 && told[0].free <= told[0].total, "{told:?}");
    }
}
