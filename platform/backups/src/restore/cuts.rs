//! Restores of files that are cut short at every step, settled (which is cut short at every step), and given again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use handover_engine::backup::Occasion;
use handover_engine::time::Timestamp;
use handover_platform::tree::{FileTree, Filter};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::contents::Tree;
use crate::make::Wanted;
use crate::shelf::entries;
use crate::tool::Tools;
use crate::work::Steps;

/// A dataset with a backup of it, in which it is "new".
struct World {
    dir: TempDir,
    dataset: Dataset,
    backup: Backup,
}

impl World {
    async fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("srv").join(name);
        std::fs::create_dir(dir.path().join("srv")).unwrap();
        let name: DatasetName = name.parse().unwrap();
        let contents = if name.as_str() == "app.db" {
            Contents::Sqlite(place.clone())
        } else {
            let filter = Filter::new(&[], &["*.lock".to_owned()]).unwrap();
            let reader = Arc::new(FileTree::reader(name.clone(), place.clone(), filter));
            Contents::Tree(Tree { root: place.clone(), reader })
        };
        let dataset = Dataset { name, contents };
        lay(&dataset, &place, "new");
        let world = |backup| Self { dir, dataset, backup };
        let id = "b-1".parse().unwrap();
        let made = Backup {
            format: 1,
            id,
            made_at: Timestamp::from_millis(0),
            occasion: Occasion::Manual,
            migration: None,
            host: String::new(),
            datasets: Vec::new(),
            absent: Vec::new(),
        };
        let mut world = world(made);
        let wanted = Wanted {
            id: &world.backup.id,
            occasion: Occasion::Manual,
            migration: None,
            now: Timestamp::from_millis(0),
            host: String::new(),
        };
        world.backup =
            make::make(&world.directory(), &[&world.dataset], wanted, &world.work(None)).await.unwrap();
        world
    }

    fn directory(&self) -> Directory {
        Directory::new(self.dir.path().join("backups"))
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("srv").join(self.dataset.name.as_str())
    }

    /// Work that ends before its step number `at`, as a killed process would.
    fn work(&self, at: Option<usize>) -> Work {
        let steps = AtomicUsize::new(0);
        let asked = move |step| {
            let is_cut = Some(steps.fetch_add(1, Ordering::SeqCst)) == at;
            if is_cut { Err(std::io::Error::other(step)) } else { Ok(()) }
        };
        Work {
            tools: Tools::default(),
            scratch: self.directory().scratch().unwrap(),
            bytes: Arc::default(),
            stop: CancellationToken::new(),
            steps: Steps::asked(Arc::new(asked)),
        }
    }

    /// A restore whose process ends with it, well or not.
    async fn begin(&self, at: Option<usize>) -> Result<Before> {
        let (directory, kept) = (self.directory(), &self.backup.datasets[0]);
        let (notes, file) = (directory.notes(), directory.place(&self.backup.id).join(&kept.file));
        let pen = Pen { notes: &notes, dataset: &kept.dataset, backup: &self.backup.id };
        let aside = directory.kept()?;
        let at_it = Restoring { id: &self.backup.id, kept, file, aside, pen };
        begin(&self.dataset, &at_it, &self.work(at)).await
    }

    async fn settle(&self, at: Option<usize>) -> Result<()> {
        settle_all(&[&self.dataset], &self.directory().notes(), &self.work(at)).await
    }

    /// What lies beside each other, with what is in it.
    fn seen(&self) -> Vec<(String, String)> {
        let srv = self.dir.path().join("srv");
        let names: BTreeSet<String> = entries(&srv).unwrap();
        names.into_iter().map(|name| (name.clone(), read(&self.dataset, &srv.join(name)))).collect()
    }

    fn clear(&self) {
        std::fs::remove_dir_all(self.dir.path().join("srv")).unwrap();
        std::fs::create_dir(self.dir.path().join("srv")).unwrap();
    }
}

fn lay(dataset: &Dataset, place: &Path, what: &str) {
    if let Contents::Sqlite(_) = dataset.contents {
        let db = Connection::open(place).unwrap();
        db.execute_batch(&format!("CREATE TABLE t (v TEXT); INSERT INTO t VALUES ('{what}')")).unwrap();
        return;
    }
    std::fs::create_dir_all(place.join("deep")).unwrap();
    std::fs::write(place.join("deep/file"), what).unwrap();
    std::fs::write(place.join("deep/x.lock"), "stays").unwrap();
}

fn read(dataset: &Dataset, place: &Path) -> String {
    match dataset.contents {
        Contents::Sqlite(_) => {
            let db = Connection::open(place).unwrap();
            db.query_row("SELECT v FROM t", [], |row| row.get(0)).unwrap()
        }
        _ => std::fs::read_to_string(place.join("deep/file")).unwrap(),
    }
}

async fn cut_everywhere(world: &World, is_there: bool) -> usize {
    let name = world.dataset.name.to_string();
    let line = |suffix: &str, what: &str| (format!("{name}{suffix}"), what.to_owned());
    let (old, new): (Vec<_>, Vec<_>) = if is_there {
        (vec![line("", "old")], vec![line("", "new"), line(".before-b-1", "old")])
    } else {
        (Vec::new(), vec![line("", "new")])
    };
    let (mut taken_back, mut ended) = (0, 0);
    for at in 0.. {
        let mut is_through = false;
        for again in 0.. {
            world.clear();
            if is_there {
                lay(&world.dataset, &world.place(), "old");
            }
            is_through = world.begin(Some(at)).await.is_ok();
            let is_settled = world.settle(Some(again)).await.is_ok();
            world.settle(None).await.unwrap();
            assert_eq!(world.directory().notes().all().unwrap(), []);
            let seen = world.seen();
            assert!(seen == old || seen == new, "{name}: cut at {at}, and {again}: {seen:?}");
            assert!(seen == new || !is_through, "{name}: {seen:?}");
            *if seen == old { &mut taken_back } else { &mut ended } += 1;
            if seen == old {
                // Given again, what stood there is kept once.
                world.begin(None).await.unwrap();
                world.settle(None).await.unwrap();
                assert_eq!(world.seen(), new, "{name}: given again after a cut at {at}");
            }
            if is_settled {
                break;
            }
        }
        if is_through {
            assert!(ended > 1 && taken_back > at, "{name}: {taken_back} {ended}");
            return at;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_restore_that_is_cut_short_is_ended_or_taken_back() {
    for (name, cuts) in [("app.db", [8, 7]), ("www", [7, 5])] {
        let world = World::new(name).await;
        assert_eq!([cut_everywhere(&world, true).await, cut_everywhere(&world, false).await], cuts, "{name}");
    }
}

#[tokio::test]
async fn one_that_fails_leaves_nothing() {
    for name in ["app.db", "www"] {
        let world = World::new(name).await;
        world.clear();
        lay(&world.dataset, &world.place(), "old");
        for at in 0..4 {
            let (notes, datasets) = (world.directory().notes(), [world.dataset.clone()]);
            let failed =
                restore(&world.directory(), &datasets, &world.backup, None, &world.work(Some(at))).await;
            assert!(failed.is_err(), "{name} at {at}");
            assert_eq!(
                (world.seen(), notes.all().unwrap()),
                (vec![(name.to_owned(), "old".to_owned())], Vec::new())
            );
        }
    }
}
