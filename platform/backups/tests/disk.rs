//! Disks that get full: nothing half made is left, and what stands stays.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use handover_engine::ports::Backups;
use handover_tests::server::{Engine, Server};

use support::servers::{dump, postgres};
use support::tools::{hanging, reached};
use support::{Host, make, restore, tree};

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    /// In a file; none where nothing may be mounted.
    fn mount(dir: &Path, mib: u64) -> Option<Self> {
        let (image, at) = (dir.join("image"), dir.join("small"));
        fs::create_dir(&at).unwrap();
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        if !made {
            println!("skipped: a small file system takes root, mkfs.ext4 and a loop device");
            return None;
        }
        Some(Self(at))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Leaves so much free, about.
    fn fill(&self, free: u64) {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        let taken = (space.f_bavail * space.f_frsize).saturating_sub(free);
        // The file system says when it is full.
        let _ = fs::write(self.path("filler"), noise(taken + u64::from(free == 0) * (1 << 20)));
    }

    fn free(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Bytes that do not get smaller.
fn noise(bytes: u64) -> Vec<u8> {
    let mut noise = vec![0; usize::try_from(bytes).unwrap()];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    noise
}

#[tokio::test]
async fn a_full_disk_leaves_no_half_backup() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Disk::mount(dir.path(), 40) else { return };
    let root = dir.path().join("www");
    fs::create_dir(&root).unwrap();
    let noise = noise(4 << 20);
    fs::write(root.join("noise"), &noise).unwrap();
    let tools = hanging(dir.path(), "--create");
    let host = Host::at(dir, small.path("backups"), vec![tree("www", &root, &[])], tools, None);
    host.make("fits").await.unwrap();
    // Too much, as can be told before…
    for n in 0..6 {
        fs::write(root.join(format!("noise-{n}")), &noise).unwrap();
    }
    let refused = host.make("more").await.unwrap_err();
    assert!(refused.what.contains("are needed in") && refused.hint.contains("free space"), "{refused}");
    // …and as is found out only in the middle: somebody else takes the room meanwhile.
    for n in 0..6 {
        fs::remove_file(root.join(format!("noise-{n}"))).unwrap();
    }
    fs::remove_file(host.dir.path().join("reached")).unwrap();
    fs::write(host.dir.path().join("hang"), "").unwrap();
    host.backups.begin(&make("late")).await.unwrap();
    reached(&host.dir).await;
    small.fill(0);
    fs::remove_file(host.dir.path().join("hang")).unwrap();
    let full = host.make("late").await.unwrap_err();
    assert!(
        full.to_string().contains("No space left on device") && full.hint.contains("free space"),
        "{full}"
    );
    let names = host.list().await.backups.iter().map(|backup| backup.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names, ["fits"]);
    assert!(!small.path("backups/late.partial").exists());
    small.free();
    host.make("late").await.unwrap();
}

#[tokio::test]
async fn a_full_disk_leaves_no_half_tree() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Disk::mount(dir.path(), 48) else { return };
    let root = small.path("www");
    fs::create_dir(&root).unwrap();
    let noise = noise(6 << 20);
    fs::write(root.join("noise"), &noise).unwrap();
    let tools = hanging(dir.path(), "--extract");
    let place = dir.path().join("backups");
    let host = Host::at(dir, place, vec![tree("www", &root, &[])], tools, None);
    host.make("b-1").await.unwrap();
    fs::write(root.join("noise"), "later").unwrap();
    let names = || {
        let entries = fs::read_dir(root.parent().unwrap()).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "lost+found" && name != "filler");
        names.sort();
        names
    };
    // Too little room, as can be told before…
    small.fill(8 << 20);
    let refused = host.restore("b-1", None).await.unwrap_err();
    assert!(refused.what.contains("are needed in"), "{refused}");
    small.free();
    // …and as is found out only in the middle.
    fs::write(host.dir.path().join("hang"), "").unwrap();
    host.backups.begin(&restore("b-1", None)).await.unwrap();
    reached(&host.dir).await;
    small.fill(1 << 20);
    fs::remove_file(host.dir.path().join("hang")).unwrap();
    let full = host.restore("b-1", None).await.unwrap_err();
    let text = full.to_string();
    let told = ["No space left on device", "Wrote only", "are needed in"];
    assert!(told.iter().any(|part| text.contains(part)), "{full}");
    assert!(full.hint.contains("free space"), "{full}");
    assert_eq!(
        (names(), fs::read_to_string(root.join("noise")).unwrap()),
        (vec!["www".to_owned()], "later".to_owned())
    );
    assert_eq!(host.backups.unsettled().unwrap(), None);
    small.free();
    host.restore("b-1", None).await.unwrap();
    assert!(fs::read(root.join("noise")).unwrap() == noise);
    assert_eq!(names(), ["www", "www.before-b-1"]);
}

#[tokio::test]
async fn a_full_disk_leaves_no_half_database() {
    let dir =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir_in("/tmp").unwrap();
    let Some(small) = Disk::mount(dir.path(), 96) else { return };
    let server = Server::start(Engine::Postgres, &[]).unwrap();
    let space = small.path("space");
    fs::create_dir(&space).unwrap();
    assert!(Command::new("chown").arg("postgres").arg(&space).status().unwrap().success());
    let run = |database: &str, sql: &str| server.run(database, sql).unwrap();
    run("", &format!("CREATE TABLESPACE small LOCATION '{}'", space.display()));
    run("", "CREATE DATABASE shop TABLESPACE small");
    run("shop", "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 30) AS v FROM generate_series(1, 16000) n");
    let host = Host::new(dir, vec![postgres(&server, "shop", None)]);
    host.make("b-1").await.unwrap();
    run("shop", "DELETE FROM t WHERE n > 5");
    let before = dump(&server, "shop");
    small.fill(16 << 20);
    let full = host.restore("b-1", None).await.unwrap_err();
    assert!(
        full.to_string().contains("No space left on device") && full.hint.contains("free space"),
        "{full}"
    );
    assert_eq!(run("", "SELECT datname FROM pg_database WHERE datname LIKE 'shop%'"), "shop\n");
    assert_eq!((dump(&server, "shop"), host.backups.unsettled().unwrap()), (before, None));
    small.free();
    host.restore("b-1", None).await.unwrap();
    assert_eq!(run("shop", "SELECT count(*) FROM t").trim(), "16000");
}
