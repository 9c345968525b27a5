use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn stored(contents: &str, mode: u32) -> Stored {
    Stored { contents: contents.into(), owner: (geteuid().as_raw(), getegid().as_raw()), mode, list: None }
}

#[test]
fn owner_and_mode_stay_but_a_key_is_not_for_all() {
    let own = (geteuid().as_raw(), getegid().as_raw());
    for (before, is_key, mode, owner) in [
        (None, true, 0o600, own),
        (None, false, 0o644, own),
        (Some(0o644), true, 0o640, (7, 8)),
        (Some(0o640), true, 0o640, (7, 8)),
        (Some(0o400), false, 0o400, (7, 8)),
    ] {
        let before = before.map(|mode| Stored { owner: (7, 8), ..stored("old", mode) });
        let new = Stored::in_place_of(before.as_ref(), b"new".to_vec(), is_key);
        assert_eq!((new.mode, new.owner), (mode, owner), "{:?}", before.map(|before| before.mode));
    }
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("key.pem");
    assert!(read(&place).unwrap().is_none());
    stage(&place, &stored("one", 0o640)).unwrap();
    assert!(read(&place).unwrap().is_none());
    land(&place).unwrap();
    settle(&place).unwrap();
    let found = read(&place).unwrap().unwrap();
    assert!(found == stored("one", 0o640));
    // What an interrupted one has left is written anew, whatever it was.
    std::fs::write(partial(&place), "left").unwrap();
    std::fs::set_permissions(partial(&place), Permissions::from_mode(0o666)).unwrap();
    stage(&place, &stored("two", 0o600)).unwrap();
    let beside = std::fs::metadata(partial(&place)).unwrap();
    assert_eq!(beside.permissions().mode() & 0o7777, 0o600);
    unstage(&place).unwrap();
    unstage(&place).unwrap();
    // What cannot be written to its end leaves the place as it is, and nothing beside it.
    stage(&place, &Stored { list: Some(vec![1, 2, 3]), ..stored("three", 0o600) }).unwrap_err();
    assert!(!partial(&place).exists());
    assert!(read(&place).unwrap().unwrap() == stored("one", 0o640));
    remove(&place).unwrap();
    remove(&place).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn links_are_followed_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let (live, archive) = (dir.path().join("live"), dir.path().join("archive"));
    std::fs::create_dir(&live).unwrap();
    std::fs::create_dir(&archive).unwrap();
    std::fs::write(archive.join("key1.pem"), "key").unwrap();
    symlink("../archive/key1.pem", live.join("key.pem")).unwrap();
    symlink("key.pem", live.join("again.pem")).unwrap();
    symlink("nowhere", live.join("lost.pem")).unwrap();
    symlink("loop.pem", live.join("loop.pem")).unwrap();
    let found = resolve(&live.join("again.pem")).unwrap();
    assert_eq!(found.canonicalize().unwrap(), archive.canonicalize().unwrap().join("key1.pem"));
    assert_eq!(resolve(&live.join("none.pem")).unwrap(), live.join("none.pem"));
    for (name, part) in [("lost.pem", "leads nowhere"), ("loop.pem", "too many links")] {
        assert!(resolve(&live.join(name)).unwrap_err().to_string().contains(part), "{name}");
    }
    assert!(read(&live).is_err_and(|error| error.to_string().contains("no regular file")));
    assert!(read(&live.join("key.pem")).is_err(), "links must have been followed");
}

#[test]
fn links_of_somebody_else_are_not_followed() {
    if !geteuid().is_root() {
        // Nobody else can give a link to somebody.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    std::fs::write(&file, "theirs").unwrap();
    symlink(&file, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
    assert!(resolve(&link).unwrap_err().to_string().contains("somebody else's"));
    std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
    assert_eq!(resolve(&link).unwrap(), file);
}

#[test]
fn access_lists_stay_but_everybody_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("key.pem");
    // user::rw- user:33:r-- group::--- mask::r-- other::OTHER
    let list = |other: u16| {
        let entries: [(u16, u16, u32); 5] =
            [(1, 6, u32::MAX), (2, 4, 33), (4, 0, u32::MAX), (0x10, 4, u32::MAX), (0x20, other, u32::MAX)];
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, allowed, who) in entries {
            bytes.extend(tag.to_le_bytes().into_iter().chain(allowed.to_le_bytes()).chain(who.to_le_bytes()));
        }
        bytes
    };
    stage(&place, &Stored { list: Some(list(4)), ..stored("old", 0o644) }).unwrap();
    land(&place).unwrap();
    let before = read(&place).unwrap().unwrap();
    assert_eq!((before.list.clone(), before.mode), (Some(list(4)), 0o644));
    for (is_key, other, mode) in [(true, 0, 0o640), (false, 4, 0o644)] {
        stage(&place, &Stored::in_place_of(Some(&before), b"new".to_vec(), is_key)).unwrap();
        land(&place).unwrap();
        let after = read(&place).unwrap().unwrap();
        assert_eq!((after.list, after.mode), (Some(list(other)), mode), "{is_key}");
    }
    // One that the directory hands on is not taken.
    let directory = File::open(dir.path()).unwrap();
    rustix::fs::fsetxattr(&directory, "system.posix_acl_default", &list(0), rustix::fs::XattrFlags::empty())
        .unwrap();
    stage(&place, &stored("new", 0o640)).unwrap();
    land(&place).unwrap();
    assert!(read(&place).unwrap().unwrap() == stored("new", 0o640));
    // A list that is no list is taken as it is; the kernel refuses it.
    assert_eq!(list::not_for_all(vec![1, 2, 3]), [1, 2, 3]);
}
