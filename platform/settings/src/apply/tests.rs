use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn migration() -> MigrationId {
    "m1".parse().unwrap()
}

fn held(text: &str, mode: u32) -> Held {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Held { bytes: text.as_bytes().to_vec(), owner, mode, attributes: Vec::new() }
}

/// A disk on which the world ends at the step with this number, and nothing is done from then on.
fn ending_at(step: usize) -> (Disk, Arc<AtomicUsize>) {
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = steps.clone();
    let disk = Disk::stepping(Arc::new(move |_| {
        let now = counted.fetch_add(1, Ordering::SeqCst);
        if now >= step { Err(Error::from_raw_os_error(28)) } else { Ok(()) }
    }));
    (disk, steps)
}

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = disk::scratch();
        for name in ["etc", "state"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let host = Self { dir };
        let disk = Disk::default();
        disk.write(&host.file("changed"), &held("old\n", 0o640)).unwrap();
        disk.write(&host.file("removed"), &held("gone\n", 0o604)).unwrap();
        host
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("etc").join(name)
    }

    fn kept(&self, disk: Disk) -> Kept {
        Kept::new(&self.dir.path().join("state"), disk)
    }

    fn plan(&self) -> Vec<Changed> {
        let change = |name: &str, after: Option<Held>| {
            let place = self.file(name);
            Changed { before: disk::read(&place).unwrap(), place, after }
        };
        vec![
            change("changed", Some(held("new\n", 0o640))),
            change("removed", None),
            change("added", Some(held("added\n", 0o600))),
        ]
    }

    fn apply(&self, disk: Disk) -> Result<()> {
        self.kept(disk).apply(&migration(), || Ok(self.plan()))
    }

    fn look(&self) -> Vec<Option<(String, u32)>> {
        let one = |name: &str| {
            let read = disk::read(&self.file(name)).unwrap()?;
            Some((String::from_utf8(read.bytes).unwrap(), read.mode))
        };
        ["changed", "removed", "added"].map(one).to_vec()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("etc")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn own() -> Vec<Option<(String, u32)>> {
    vec![Some(("old\n".into(), 0o640)), Some(("gone\n".into(), 0o604)), None]
}

fn new() -> Vec<Option<(String, u32)>> {
    vec![Some(("new\n".into(), 0o640)), None, Some(("added\n".into(), 0o600))]
}

#[test]
fn files_are_changed_and_put_back() {
    let host = Host::new();
    let kept = host.kept(Disk::default());
    host.apply(Disk::default()).unwrap();
    assert_eq!(host.look(), new());
    let undo = std::fs::metadata(kept.of(&migration()).join("undo.json")).unwrap();
    assert_eq!(undo.mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(kept.all()).unwrap().mode() & 0o777, 0o700);
    std::fs::write(host.file("changed"), "by hand\n").unwrap();
    host.apply(Disk::default()).unwrap();
    assert_eq!(host.look()[0], Some(("by hand\n".into(), 0o640)), "what is done is not done again");
    let edited = kept.restore(&migration()).unwrap();
    assert_eq!(host.look(), own());
    assert_eq!(edited.len(), 1);
    assert_eq!(std::fs::read_to_string(&edited[0]).unwrap(), "by hand\n");
    assert_eq!(std::fs::metadata(&edited[0]).unwrap().mode() & 0o777, 0o600);
    assert!(kept.restore(&migration()).unwrap().is_empty(), "done already");
    kept.forget(&migration()).unwrap();
    kept.forget(&migration()).unwrap();
    assert!(!kept.of(&migration()).exists());
    assert!(edited[0].exists(), "what somebody made is theirs");
    assert_eq!(host.names(), ["changed", "removed"]);
}

#[test]
fn cut_at_every_step_of_applying_and_done_again() {
    let mut step = 0;
    loop {
        let host = Host::new();
        let (disk, steps) = ending_at(step);
        let cut = host.apply(disk);
        let kept = host.kept(Disk::default());
        if cut.is_ok() {
            assert_eq!(steps.load(Ordering::SeqCst), step, "as many steps as cuts");
            break;
        }
        if !kept.is_changed(&migration()).unwrap() {
            assert_eq!(
                host.look(),
                own(),
                "nothing is changed before what was there is durable (step {step})"
            );
        }
        // Undone from there, and done from there.
        host.apply(Disk::default()).unwrap();
        assert_eq!(host.look(), new(), "step {step}");
        assert_eq!(host.names(), ["added", "changed"], "step {step}");
        kept.restore(&migration()).unwrap();
        assert_eq!(host.look(), own(), "step {step}");
        let (disk, _) = ending_at(step);
        host.apply(disk).unwrap_err();
        kept.restore(&migration()).unwrap();
        assert_eq!(host.look(), own(), "step {step}");
        assert_eq!(host.names(), ["changed", "removed"], "step {step}");
        step += 1;
    }
    assert!(step > 20, "{step}");
}

#[test]
fn cut_at_every_step_of_restoring_and_done_again() {
    let mut step = 0;
    loop {
        let host = Host::new();
        host.apply(Disk::default()).unwrap();
        std::fs::write(host.file("added"), "by hand\n").unwrap();
        let (disk, steps) = ending_at(step);
        let cut = host.kept(disk).restore(&migration());
        if cut.is_err() {
            host.kept(Disk::default()).restore(&migration()).unwrap();
        }
        assert_eq!(host.look(), own(), "step {step}");
        assert_eq!(host.names(), ["changed", "removed"], "step {step}");
        let edited = host.dir.path().join("state/edited-settings/m1");
        let edited: Vec<_> = std::fs::read_dir(edited).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(edited.iter().any(|place| std::fs::read(place).unwrap() == b"by hand\n"), "step {step}");
        if cut.is_ok() {
            assert_eq!(steps.load(Ordering::SeqCst), step);
            break;
        }
        step += 1;
    }
    assert!(step > 10, "{step}");
}

#[test]
fn a_file_keeps_what_belongs_to_it() {
    let host = Host::new();
    let place = host.file("changed");
    let name = "user.handover";
    let file = std::fs::File::open(&place).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let attributes = match rustix::fs::fsetxattr(&file, name, b"kept", flags) {
        Ok(()) => vec![(name.to_owned(), b"kept".to_vec())],
        Err(_) => Vec::new(), // A file system without them.
    };
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o4751)).unwrap();
    let before = disk::read(&place).unwrap().unwrap();
    let of_us: Vec<_> =
        before.attributes.iter().filter(|(name, _)| name.starts_with("user.")).cloned().collect();
    assert_eq!((before.mode, of_us), (0o4751, attributes));
    let after = Held { bytes: b"new".to_vec(), ..before.clone() };
    let changed = Changed { place: place.clone(), before: Some(before.clone()), after: Some(after.clone()) };
    let kept = host.kept(Disk::default());
    kept.apply::<Error>(&migration(), || Ok(vec![changed])).unwrap();
    assert_eq!(disk::read(&place).unwrap(), Some(after));
    kept.restore(&migration()).unwrap();
    assert_eq!(disk::read(&place).unwrap(), Some(before));
}

#[test]
fn a_link_stays_one() {
    let host = Host::new();
    let link = host.file("link");
    std::os::unix::fs::symlink("changed", &link).unwrap();
    assert_eq!(disk::resolve(&link).unwrap(), host.file("changed"));
    let dangling = host.file("dangling");
    std::os::unix::fs::symlink("../etc/nothing", &dangling).unwrap();
    assert_eq!(disk::read(&disk::resolve(&dangling).unwrap()).unwrap(), None);
    let circle = host.file("circle");
    std::os::unix::fs::symlink("circle", &circle).unwrap();
    assert!(disk::resolve(&circle).is_err());
}

#[test]
fn odd_files_are_refused() {
    let host = Host::new();
    assert!(disk::read(&host.dir.path().join("etc")).unwrap_err().to_string().contains("no regular file"));
    std::fs::write(host.file("large"), vec![b'x'; crate::section::LARGEST + 1]).unwrap();
    assert!(disk::read(&host.file("large")).unwrap_err().to_string().contains("larger"));
    let kept = host.kept(Disk::default());
    std::fs::create_dir_all(kept.of(&migration())).unwrap();
    let later = r#"{"version":2,"is_applied":true,"files":[]}"#;
    std::fs::write(kept.of(&migration()).join("undo.json"), later).unwrap();
    assert!(kept.restore(&migration()).unwrap_err().to_string().contains("version 2"));
}
