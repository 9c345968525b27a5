//! Two directories, and a copy from one to the other as a pass does it: small files in one pack, large ones by segments.

use std::path::PathBuf;

use futures::TryStreamExt;
use handover_engine::ports::{TreeOp, TreeReader, TreeTarget};
use handover_engine::tree::{Entry, EntryKind, FileRequest, PackItem, PackedFile, SegmentEnd};
use handover_platform::tree::{FileTree, Filter, Reader, Target};

/// A source and a target directory, removed at the end.
pub struct Trees {
    dir: tempfile::TempDir,
}

impl Trees {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("source")).unwrap();
        Self { dir }
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn target_path(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    pub fn reader(&self) -> Reader {
        FileTree::reader("d".parse().unwrap(), self.source(), Filter::default())
    }

    pub fn target(&self) -> Target {
        FileTree::target("d".parse().unwrap(), self.target_path(), Filter::default(), &"m-1".parse().unwrap())
    }

    /// Everything that must arrive is the same on both sides.
    pub async fn assert_equal(&self) {
        let there = scan(&self.reader()).await;
        let here: Vec<Entry> = self.target().scan().try_concat().await.unwrap();
        let show = |entries: &[Entry]| {
            entries
                .iter()
                .map(|e| format!("{:?} {:?} {:?}", e.path, e.kind, e.meta))
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(show(&here), show(&there));
        for entry in there.iter().filter(|entry| entry.size().is_some()) {
            let name = std::str::from_utf8(entry.path.as_bytes()).unwrap();
            let (a, b) =
                (std::fs::read(self.source().join(name)), std::fs::read(self.target_path().join(name)));
            assert!(a.unwrap() == b.unwrap(), "{name}");
        }
    }
}

pub async fn scan(reader: &Reader) -> Vec<Entry> {
    reader.scan().try_concat().await.unwrap()
}

/// Copies everything.
pub async fn copy(trees: &Trees) {
    let (reader, target) = (trees.reader(), trees.target());
    target.prepare().await.unwrap();
    let entries = scan(&reader).await;
    let mut last = Vec::new();
    let mut landing = Vec::new();
    for entry in &entries {
        match &entry.kind {
            EntryKind::File { .. } if entry.is_large() => landing.push(large(&reader, &target, entry).await),
            EntryKind::File { .. } => {
                let pack =
                    reader.pack(vec![PackItem { path: entry.path.clone(), held: None }]).await.unwrap();
                assert!(pack.is_whole());
                if let PackedFile::Contents { entry, .. } = &pack.files[0] {
                    landing.push(entry.clone());
                }
                target.stage(pack).await.unwrap();
            }
            EntryKind::HardLink { to } => {
                last.push(TreeOp::Link { path: entry.path.clone(), to: to.clone() })
            }
            _ => target.change(&[TreeOp::Make(entry.clone())]).await.unwrap(),
        }
    }
    target.land(&landing).await.unwrap();
    last.extend(entries.iter().rev().filter(|e| e.kind == EntryKind::Directory).cloned().map(TreeOp::Settle));
    target.change(&last).await.unwrap();
}

async fn large(reader: &Reader, target: &Target, entry: &Entry) -> Entry {
    let request = FileRequest {
        dataset: "d".parse().unwrap(),
        path: entry.path.clone(),
        offset: 0,
        begun_as: None,
        basis: vec![],
    };
    let mut segments = reader.file(request);
    while let Some(segment) = segments.try_next().await.unwrap() {
        assert!(segment.is_whole());
        let end = segment.end.clone();
        target.write(segment, &[]).await.unwrap();
        if let Some(SegmentEnd::Whole(entry)) = end {
            return entry;
        }
    }
    panic!("the stream ended before the file did");
}
