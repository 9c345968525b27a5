//! Rows and trees in memory, and the chunks that are cut of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use handover_engine::digest::Digest;
use handover_engine::rows::{
    ColumnSpec, Ddl, Key, KeyRange, RowsChunk, RowsHeader, Schema, TableKey, TableName, TableSpec, text,
};
use handover_engine::time::Timestamp;
use handover_engine::tree::{Block, Entry, EntryKind, LARGE_FILE, Meta, RelPath, Stamp};

/// The rows of a table by their key.
pub type Table = BTreeMap<i64, String>;
/// The rows of a database.
pub type Rows = BTreeMap<TableName, Table>;
/// A tree by path; its root has the empty path.
pub type Tree = BTreeMap<RelPath, Node>;

/// The schema of a database with these tables; another `version` is another structure.
pub fn schema(tables: &Rows, version: u32) -> Schema {
    let column = |name: &str| ColumnSpec { name: name.to_owned(), declared: "any".to_owned() };
    let spec = |(name, rows): (&TableName, &Table)| TableSpec {
        name: name.clone(),
        columns: vec![column("id"), column("text")],
        key: TableKey::Columns(vec![0]),
        estimated_rows: rows.len() as u64,
        estimated_bytes: rows.len() as u64 * 20,
        // Another version is cut elsewhere, as another look at the source would be.
        cuts: rows
            .keys()
            .skip(2 + version as usize)
            .step_by(9)
            .map(|key| Key(key.to_string().into()))
            .collect(),
        followed: false,
    };
    let index = Ddl { kind: "index".into(), name: format!("i{version}"), sql: format!("create i{version}") };
    Schema {
        engine: "memory".into(),
        version: "1".into(),
        settings: BTreeMap::new(),
        before_load: Vec::new(),
        after_load: vec![index],
        state: BTreeMap::new(),
        tables: tables.iter().map(spec).collect(),
    }
}

fn number(key: &Option<Key>) -> Option<i64> {
    let text = |key: &Key| String::from_utf8(key.0.to_vec()).expect("keys are decimal digits");
    key.as_ref().map(|key| text(key).parse().expect("keys are decimal digits"))
}

/// True when the key lies in the range.
pub fn is_in(range: &KeyRange, key: i64) -> bool {
    number(&range.after).is_none_or(|after| key > after)
        && number(&range.until).is_none_or(|until| key <= until)
}

/// True when all of `inner` lies in `outer`.
pub fn covers(outer: &KeyRange, inner: &KeyRange) -> bool {
    let low = |range: &KeyRange| number(&range.after).unwrap_or(i64::MIN);
    let high = |range: &KeyRange| number(&range.until).unwrap_or(i64::MAX);
    low(outer) <= low(inner) && high(inner) <= high(outer)
}

/// The next chunk of a range.
pub fn read(name: &TableName, table: &Table, range: &KeyRange, budget: u64) -> RowsChunk {
    let (mut block, mut rows, mut until) = (Vec::new(), 0, range.until.clone());
    for (key, value) in table.iter().filter(|(key, _)| is_in(range, **key)) {
        if rows > 0 && block.len() as u64 >= budget {
            break;
        }
        block.extend_from_slice(format!("{key}\t").as_bytes());
        text::escape_into(&mut block, value.as_bytes());
        block.push(b'\n');
        rows += 1;
        until = Some(Key(key.to_string().into()));
    }
    let last = table.iter().rfind(|(key, _)| is_in(range, **key)).map(|(key, _)| *key);
    if last.is_none() || number(&until) == last {
        until = range.until.clone();
    }
    let header = RowsHeader {
        table: name.clone(),
        range: KeyRange { after: range.after.clone(), until },
        rows,
        bytes: block.len() as u64,
        digest: Digest::of(&block),
        unchanged: false,
    };
    RowsChunk { header, block: block.into() }
}

/// The rows of a block.
pub fn parse(block: &[u8]) -> Vec<(i64, String)> {
    let row = |row: &[u8]| {
        let values: Vec<String> = text::values(row)
            .map(|value| text::unescape(value).expect("a row's text").into_owned())
            .map(|value| String::from_utf8_lossy(&value).into_owned())
            .collect();
        (values[0].parse().unwrap_or(i64::MIN), values[1..].join("\t"))
    };
    text::rows(block).expect("a block").map(row).collect()
}

/// Bytes of a file, or a hole of so many.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub len: u64,
    pub data: Option<Bytes>,
}

impl Part {
    pub fn of(data: Bytes) -> Self {
        Self { len: data.len() as u64, data: Some(data) }
    }

    pub fn hole(len: u64) -> Self {
        Self { len, data: None }
    }

    pub fn block(&self) -> Block {
        let len = u32::try_from(self.len).expect("parts are small");
        Block { len, digest: self.data.as_ref().map(|data| Digest::of(data)) }
    }
}

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub kind: EntryKind,
    pub meta: Meta,
    pub stamp: Stamp,
    pub parts: Vec<Part>,
}

impl Node {
    /// A thing made at `now`; moments are counted, so that no two are the same.
    pub fn new(kind: EntryKind, parts: Vec<Part>, mode: u32, now: u64) -> Self {
        let meta = Meta { mode, uid: 0, gid: 0, mtime: moment(now), xattrs: BTreeMap::new() };
        let stamp = Stamp { inode: now, size: size(&parts), mtime: moment(now), ctime: moment(now) };
        Self { kind, meta, stamp, parts }
    }

    /// A regular file.
    pub fn file(parts: Vec<Part>, mode: u32, now: u64) -> Self {
        let sparse = parts.iter().any(|part| part.data.is_none());
        let kind = EntryKind::File { size: size(&parts), sparse, linked: false };
        Self::new(kind, parts, mode, now)
    }

    /// Its modification time becomes `now`.
    pub fn touch(&mut self, now: u64) {
        self.meta.mtime = moment(now);
        self.restamp(now);
    }

    /// Its properties were set at `now`.
    pub fn settle(&mut self, meta: &Meta, now: u64) {
        self.meta = meta.clone();
        self.restamp(now);
    }

    fn restamp(&mut self, now: u64) {
        let inode = self.stamp.inode;
        self.stamp = Stamp { inode, size: size(&self.parts), mtime: self.meta.mtime, ctime: moment(now) };
    }

    pub fn entry(&self, path: &RelPath) -> Entry {
        Entry { path: path.clone(), kind: self.kind.clone(), meta: self.meta.clone(), stamp: self.stamp }
    }

    pub fn is_large(&self) -> bool {
        self.parts.iter().any(|part| part.data.is_none()) || size(&self.parts) >= LARGE_FILE
    }

    /// The bytes of a small file.
    pub fn bytes(&self) -> Vec<u8> {
        self.parts.iter().filter_map(|part| part.data.as_deref()).collect::<Vec<_>>().concat()
    }

    /// What must be the same at source and target.
    pub fn looks_like(&self, other: &Node) -> bool {
        let same_kind = match (&self.kind, &other.kind) {
            (EntryKind::File { size: a, .. }, EntryKind::File { size: b, .. }) => a == b,
            (a, b) => a == b,
        };
        same_kind && self.meta == other.meta && self.parts == other.parts
    }
}

pub fn size(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.len).sum()
}

fn moment(now: u64) -> Timestamp {
    Timestamp { seconds: i64::try_from(now).expect("few moments"), nanos: 0 }
}

/// Takes whatever stands at the path away, with all it holds.
pub fn remove(tree: &mut Tree, path: &RelPath, now: u64) {
    let count = tree.len();
    tree.retain(|other, _| !other.is_within(path));
    if tree.len() < count {
        touch_parent(tree, path, now);
    }
}

/// Puts something at a path in place of whatever stands there.
pub fn put(tree: &mut Tree, path: &RelPath, node: Node, now: u64) {
    tree.retain(|other, _| other == path || !other.is_within(path));
    tree.insert(path.clone(), node);
    touch_parent(tree, path, now);
}

/// The directory that a name is made in or removed from changes, too.
fn touch_parent(tree: &mut Tree, path: &RelPath, now: u64) {
    if let Some((parent, _)) = path.split()
        && let Some(parent) = tree.get_mut(&parent)
    {
        parent.touch(now);
    }
}
