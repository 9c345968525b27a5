//! YAML, one document. Read as it is written: a plain `yes` is true, as most that read settings have it. Texts that some readers take for
//! something else are written in quotes.

mod read;
mod write;

use serde_json::Value;

pub use self::read::parse;
use self::write::{key as written_key, written};
use super::json::{nested, take, things};
use super::splice::{Comments, Splice, begins_line, insert, line_after, line_end, line_start, lines};
use super::tree::{Entry, Kind, Node};
use crate::key::{KeyPath, Segment};

/// Sets a key.
pub fn set(text: &str, path: &KeyPath, value: Option<&Value>) -> Result<Vec<Splice>, &'static str> {
    let root = parse(text).map_err(|_| "the file cannot be read")?;
    let (steps, node) = root.walk(path.segments());
    let rest = &path.segments()[steps..];
    match (value, rest) {
        (Some(value), []) => replace(text, &root, path, node, value),
        (Some(value), rest) => add(text, &root, path, steps, rest, value),
        (None, []) => remove(text, &root, path),
        (None, _) => Ok(Vec::new()),
    }
}

fn parent<'a>(root: &'a Node, path: &[Segment]) -> Option<(&'a Node, Option<&'a Entry>)> {
    let (last, before) = path.split_last()?;
    let (_, parent) = root.walk(before);
    let entry = match (&parent.kind, last) {
        (Kind::Map(entries), Segment::Key(key)) => entries.iter().find(|entry| entry.key == *key),
        _ => None,
    };
    Some((parent, entry))
}

fn replace(
    text: &str,
    root: &Node,
    path: &KeyPath,
    node: &Node,
    value: &Value,
) -> Result<Vec<Splice>, &'static str> {
    let (above, entry) = parent(root, path.segments()).ok_or("it is the whole file")?;
    let new = written(text, node, value, above.is_flow);
    let is_block = !node.is_flow && matches!(node.kind, Kind::Map(_) | Kind::List(_));
    if !is_block && !node.span.is_empty() {
        return Ok(vec![Splice::new(node.span.clone(), new)]);
    }
    let entry = entry
        .ok_or("an item of a list cannot be replaced by something of another form; name the whole file")?;
    let colon = colon(text, entry)?;
    let end = if is_block { last_end(text, node).max(colon) } else { colon };
    Ok(vec![Splice::new(colon..end, format!(" {new}"))])
}

/// Behind the colon of an entry.
fn colon(text: &str, entry: &Entry) -> Result<usize, &'static str> {
    let rest = &text[entry.at.end..];
    let at = rest.find(':').filter(|at| rest[..*at].trim().is_empty());
    at.map(|at| entry.at.end + at + 1).ok_or("its name is written in a form that cannot be changed")
}

fn add(
    text: &str,
    root: &Node,
    path: &KeyPath,
    steps: usize,
    rest: &[Segment],
    value: &Value,
) -> Result<Vec<Splice>, &'static str> {
    let (_, node) = root.walk(&path.segments()[..steps]);
    let (first, deeper) = rest.split_first().ok_or("it is there")?;
    let block = |indent: usize| block(text, indent, rest, value);
    match (&node.kind, first) {
        (Kind::Map(_), Segment::Key(key)) if node.is_flow => {
            let new =
                format!("{}: {}", written_key(key), written("", &blank(), &nested(deeper, value)?, true));
            Ok(insert(text, &node.span, &things(node), &new, Comments::Hash))
        }
        (Kind::List(_), Segment::Index(_)) if node.is_flow => {
            let new = written("", &blank(), &nested(deeper, value)?, true);
            Ok(insert(text, &node.span, &things(node), &new, Comments::Hash))
        }
        (Kind::Map(entries), Segment::Key(_)) => {
            let first = entries.first().ok_or("what it is part of is empty")?;
            let indent = text[line_start(text, first.at.start)..first.at.start].chars().count();
            Ok(vec![line_after(text, last_end(text, node), &block(indent)?)])
        }
        (Kind::List(items), Segment::Index(_)) => {
            let dash = items
                .first()
                .and_then(|item| dash(text, item))
                .ok_or("its list is written in an unusual form")?;
            let indent = " ".repeat(dash - line_start(text, dash));
            let new = written("", &blank(), &nested(deeper, value)?, false);
            Ok(vec![line_after(text, last_end(text, node), &format!("{indent}- {new}"))])
        }
        (Kind::Scalar(Value::Null), Segment::Key(_)) if steps == 0 => Ok(vec![if node.span.is_empty() {
            line_after(text, text.len() - usize::from(text.ends_with('\n')), &block(0)?)
        } else {
            Splice::new(node.span.clone(), block(0)?)
        }]),
        (Kind::Scalar(Value::Null), Segment::Key(_)) => {
            let new = nested(rest, value)?;
            replace(text, root, &path.head(steps), node, &new)
        }
        _ => Err("what it is part of is something else in this file"),
    }
}

/// Where the dash of an item is, that begins its line.
fn dash(text: &str, item: &Node) -> Option<usize> {
    let start = line_start(text, item.span.start);
    let line = &text[start..];
    let at = start + (line.len() - line.trim_start_matches(' ').len());
    text[at..].starts_with("- ").then_some(at)
}

fn blank() -> Node {
    Node { span: 0..0, kind: Kind::Scalar(Value::Null), is_flow: false }
}

/// An entry of a map on lines of its own, its names below each other.
fn block(text: &str, indent: usize, names: &[Segment], value: &Value) -> Result<String, &'static str> {
    let mut out = String::new();
    for (depth, segment) in names.iter().enumerate() {
        let Segment::Key(key) = segment else { return Err("the list is shorter at this host") };
        if depth > 0 {
            out.push_str(line_end(text));
        }
        out.push_str(&" ".repeat(indent + 2 * depth));
        out.push_str(&written_key(key));
        out.push(':');
    }
    out.push(' ');
    out.push_str(&written("", &blank(), value, false));
    Ok(out)
}

/// Where the last thing of a node ends.
fn last_end(text: &str, node: &Node) -> usize {
    match &node.kind {
        Kind::Map(entries) if !node.is_flow => entries.last().map_or(node.span.end, |last| {
            last_end(text, &last.value).max(colon(text, last).unwrap_or(last.at.end))
        }),
        Kind::List(items) if !node.is_flow => items.last().map_or(node.span.end, |last| last_end(text, last)),
        // Nothing is written there; its place is that of what comes next.
        _ if node.span.is_empty() => 0,
        _ => node.span.start + text[node.span.clone()].trim_end().len(),
    }
}

fn remove(text: &str, root: &Node, path: &KeyPath) -> Result<Vec<Splice>, &'static str> {
    let (above, entry) = parent(root, path.segments()).ok_or("it is the whole file")?;
    if above.is_flow {
        return take(text, root, path, Comments::Hash);
    }
    let (start, end, is_alone) = match (&above.kind, entry, path.segments().last()) {
        (Kind::Map(entries), Some(entry), _) => {
            let end = last_end(text, &entry.value).max(colon(text, entry)?);
            (entry.at.start, end, entries.len() == 1)
        }
        (Kind::List(items), _, Some(Segment::Index(at))) => {
            let item = items.get(*at).ok_or("it is not there")?;
            (
                dash(text, item).ok_or("its list is written in an unusual form")?,
                last_end(text, item),
                items.len() == 1,
            )
        }
        _ => return Err("it is not there"),
    };
    if is_alone {
        let empty = if matches!(above.kind, Kind::Map(_)) { "{}" } else { "[]" };
        return Ok(vec![Splice::new(start..end, empty)]);
    }
    if !begins_line(text, start) {
        return Err("something else is written before it on its line; name the whole file");
    }
    Ok(vec![Splice::new(lines(text, start, end), "")])
}
