//! How a living source changes.

use handover_engine::tree::{EntryKind, RelPath};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use super::{SourceSide, part};
use crate::model::{Node, Part, Rows, Tree, put, remove, size};

/// A hole that is long enough for the part before it to be made durable and journaled while a file still comes.
const HOLE: u64 = 40 << 20;

/// What a row is at first.
pub fn first(key: i64) -> String {
    format!("the first of {key}")
}

/// A value that no row has had before.
pub fn text(rng: &mut StdRng, moment: &mut u64) -> String {
    *moment += 1;
    format!("{moment}\t{}\\", "x".repeat(rng.random_range(0..30)))
}

/// Changes something and tells what.
pub fn some(source: &mut SourceSide, rng: &mut StdRng, moment: &mut u64) -> String {
    match rng.random_range(0..20) {
        0 => {
            source.schema_version += 1;
            "the source's schema changes".to_owned()
        }
        1..4 => {
            // Then what is held of them may be true again.
            let database = source.rows.values_mut().choose(rng).expect("a database");
            for (key, value) in database.values_mut().flatten() {
                *value = first(*key);
            }
            "rows are again what they were first".to_owned()
        }
        4..12 => {
            let many = rng.random_range(1..15);
            let database = source.rows.values_mut().choose(rng).expect("a database");
            (0..many).for_each(|_| row(database, rng, moment));
            format!("{many} rows change at the source")
        }
        _ => {
            let many = rng.random_range(1..4);
            let said: Vec<String> = (0..many).map(|_| files(&mut source.tree, rng, moment)).collect();
            format!("the source's tree changes: {}", said.join(", "))
        }
    }
}

fn row(database: &mut Rows, rng: &mut StdRng, moment: &mut u64) {
    let table = database.values_mut().choose(rng).expect("a table");
    let existing = table.keys().copied().choose(rng);
    match (rng.random_range(0..3), existing) {
        (0, Some(key)) => drop(table.remove(&key)),
        (1, Some(key)) => drop(table.insert(key, text(rng, moment))),
        // Close together, so that chunks outgrow what they held.
        _ => {
            let near = existing.unwrap_or(0) + rng.random_range(-3..4);
            table.insert(near, text(rng, moment));
        }
    }
}

/// Changes one thing in a tree and tells what.
pub fn files(tree: &mut Tree, rng: &mut StdRng, moment: &mut u64) -> String {
    *moment += 1;
    let now = *moment;
    let directories = tree.iter().filter(|(_, node)| node.kind == EntryKind::Directory);
    let directory = directories.map(|(path, _)| path.clone()).choose(rng).expect("a root");
    let name = [&b"a"[..], b"b", b"c", b"d-e", b"f"][rng.random_range(0..5)];
    let path = directory.join(name).expect("a path");
    let others = tree.keys().filter(|path| !path.is_root()).cloned();
    let existing = others.choose(rng).unwrap_or_else(|| path.clone());
    match rng.random_range(0..10) {
        0 => {
            put(tree, &path, Node::new(EntryKind::Directory, Vec::new(), 0o750, now), now);
            format!("directory {path}")
        }
        1 => {
            let target = EntryKind::Symlink { target: now.to_string().into_bytes() };
            put(tree, &path, Node::new(target, Vec::new(), 0o777, now), now);
            format!("link {path}")
        }
        2 => {
            remove(tree, &existing, now);
            format!("no {existing}")
        }
        3 => {
            if let Some(node) = tree.get_mut(&existing) {
                node.meta.mode ^= 0o011;
                node.settle(&node.meta.clone(), now);
            }
            format!("mode of {existing}")
        }
        4 => {
            let parts = vec![part(50, rng), Part::hole(HOLE), part(60, rng), Part::hole(HOLE), part(9, rng)];
            put(tree, &path, Node::file(parts, 0o600, now), now);
            format!("large file {path}")
        }
        5 | 6 => edit(tree, &existing, rng, now),
        _ => {
            let len = rng.random_range(0..80);
            let parts = if len == 0 { Vec::new() } else { vec![part(len, rng)] };
            put(tree, &path, Node::file(parts, 0o644, now), now);
            format!("file {path}")
        }
    }
}

/// Changes a file in place: its contents, not its name.
fn edit(tree: &mut Tree, path: &RelPath, rng: &mut StdRng, now: u64) -> String {
    let Some(node) = tree.get_mut(path).filter(|node| matches!(node.kind, EntryKind::File { .. })) else {
        return format!("nothing of {path}");
    };
    let at = rng.random_range(0..node.parts.len() + 1);
    let fresh = part(rng.random_range(1..50), rng);
    // A small file has one part; a large one may grow by another.
    let grows = node.parts.is_empty() || node.parts.len() > 1 && at == node.parts.len();
    if grows {
        node.parts.push(fresh);
    } else {
        let holds = node.parts.get(at).is_some_and(|part| part.data.is_some());
        node.parts[if holds { at } else { 0 }] = fresh;
    }
    let sparse = node.parts.iter().any(|part| part.data.is_none());
    node.kind = EntryKind::File { size: size(&node.parts), sparse, linked: false };
    node.touch(now);
    format!("contents of {path}")
}
