//! TOML, parsed by `toml_edit` for the places of its values, and cut there: what it prints itself would end its lines otherwise.

use std::ops::Range;

use serde_json::{Map, Value};
use toml_edit::{Document, Item, Key, Table};

use super::json::{nested, take, things};
use super::splice::{Comments, Splice, insert, line_after, line_end, line_start, lines};
use super::tree::{Entry, Kind, Node};
use crate::key::{KeyPath, Segment};

/// As what dates travel: an object with this name alone.
const DATE: &str = "$date";

/// Reads a file.
pub fn parse(text: &str) -> Result<Node, String> {
    let document = Document::parse(text).map_err(|error| {
        let line = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {}: {}", line.matches('\n').count() + 1, error.message())
    })?;
    Ok(Node { span: 0..0, kind: table(text, document.as_table()), is_flow: false })
}

fn entry(text: &str, key: &Key, item: &Item) -> Entry {
    Entry { key: key.get().to_owned(), at: key.span().unwrap_or_default(), value: node(text, item) }
}

fn table(text: &str, table: &Table) -> Kind {
    let pair = |(name, _): (&str, &Item)| table.get_key_value(name);
    Kind::Map(table.iter().filter_map(pair).map(|(key, item)| entry(text, key, item)).collect())
}

fn node(text: &str, item: &Item) -> Node {
    match item {
        Item::None => Node { span: 0..0, kind: Kind::Scalar(Value::Null), is_flow: false },
        Item::Value(inner) => value(text, inner),
        Item::Table(inner) => {
            Node { span: inner.span().unwrap_or_default(), kind: table(text, inner), is_flow: false }
        }
        Item::ArrayOfTables(tables) => {
            let one = |inner: &Table| Node {
                span: inner.span().unwrap_or_default(),
                kind: table(text, inner),
                is_flow: false,
            };
            let items = tables.iter().map(one).collect();
            Node { span: tables.span().unwrap_or_default(), kind: Kind::List(items), is_flow: false }
        }
    }
}

fn value(text: &str, value: &toml_edit::Value) -> Node {
    use toml_edit::Value as Toml;
    let span = value.span().unwrap_or_default();
    let written = || text.get(span.clone()).unwrap_or_default().to_owned();
    let mut is_flow = true;
    let kind = match value {
        Toml::String(text) => Kind::Scalar(Value::from(text.value().as_str())),
        Toml::Integer(number) => Kind::Scalar(Value::from(*number.value())),
        Toml::Boolean(is) => Kind::Scalar(Value::from(*is.value())),
        Toml::Float(number) if number.value().is_finite() => Kind::Scalar(Value::from(*number.value())),
        Toml::Float(_) => Kind::Odd("its value is no number that can travel", written()),
        Toml::Datetime(date) => Kind::Scalar(Value::Object(Map::from_iter([(
            DATE.to_owned(),
            Value::from(date.value().to_string()),
        )]))),
        Toml::Array(list) => Kind::List(list.iter().map(|item| self::value(text, item)).collect()),
        Toml::InlineTable(inner) => {
            is_flow = !inner.is_dotted();
            let pair = |(name, _): (&str, &toml_edit::Value)| inner.get_key_value(name);
            Kind::Map(inner.iter().filter_map(pair).map(|(key, item)| entry(text, key, item)).collect())
        }
    };
    Node { span, kind, is_flow }
}

/// Sets a key.
pub fn set(text: &str, path: &KeyPath, value: Option<&Value>) -> Result<Vec<Splice>, &'static str> {
    let root = parse(text).map_err(|_| "the file cannot be read")?;
    let (steps, node) = root.walk(path.segments());
    let rest = &path.segments()[steps..];
    match (value, rest) {
        (Some(value), []) if is_value(node) => Ok(vec![Splice::new(
            node.span.clone(),
            written(text.get(node.span.clone()).unwrap_or_default(), value)?,
        )]),
        (_, []) if !is_value(node) => Err("it is a whole table at this host; name its keys"),
        (Some(value), rest) => add(text, &root, path, steps, rest, value),
        (None, []) => {
            let (last, before) = path.segments().split_last().ok_or("it is the whole file")?;
            let (_, parent) = root.walk(before);
            match (&parent.kind, last) {
                (Kind::Map(entries), Segment::Key(key)) if !parent.is_flow => {
                    let entry = entries.iter().find(|entry| entry.key == *key).ok_or("it is not there")?;
                    Ok(vec![Splice::new(lines(text, entry.at.start, entry.value.span.end), "")])
                }
                _ => take(text, &root, path, Comments::Hash),
            }
        }
        (None, _) => Ok(Vec::new()),
    }
}

/// Whether it is written behind `=`, or in brackets.
fn is_value(node: &Node) -> bool {
    node.is_flow || matches!(node.kind, Kind::Scalar(_))
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
    if node.is_flow {
        let value = written("", &nested(deeper, value)?)?;
        let new = match (&node.kind, first) {
            (Kind::Map(_), Segment::Key(key)) => format!("{} = {value}", name(key)),
            (Kind::List(_), Segment::Index(_)) => value,
            _ => return Err("what it is part of is something else in this file"),
        };
        let new = if matches!(&node.kind, Kind::Map(entries) if entries.is_empty()) {
            format!(" {new} ")
        } else {
            new
        };
        return Ok(insert(text, &node.span, &things(node), &new, Comments::Hash));
    }
    let Kind::Map(entries) = &node.kind else {
        return Err("tables are not added to a list; name the whole file");
    };
    let names: Vec<_> = names(rest)?;
    if let Some(end) = entries.iter().filter_map(end_of_values).max() {
        // What a dotted name began goes on as one.
        let at =
            entries.iter().find(|entry| end_of_values(entry).is_some()).map_or(0, |entry| entry.at.start);
        let start = line_start(text, at);
        return Ok(vec![line_after(
            text,
            end,
            &format!("{}{} = {}", &text[start..at], names.join("."), written("", value)?),
        )]);
    }
    let here =
        |names: &[String]| Ok::<_, &'static str>(format!("{} = {}", names.join("."), written("", value)?));
    let end = line_end(text);
    let (table, key) = names.split_at(names.len() - 1);
    let above: Vec<_> = self::names(&path.segments()[..steps])?;
    if steps > 0 && text.get(node.span.clone()).is_some_and(|header| header.starts_with('[')) {
        return Ok(vec![line_after(text, node.span.end.max(1) - 1, &here(&names)?)]);
    }
    if steps == 0 && table.is_empty() {
        let gap = if text.is_empty() { "" } else { end };
        return Ok(vec![Splice::new(0..0, format!("{}{end}{gap}", here(key)?))]);
    }
    let header = [above, table.to_vec()].concat().join(".");
    let before = if text.is_empty() || text.ends_with('\n') { "" } else { end };
    let gap = if text.trim().is_empty() { "" } else { end };
    Ok(vec![Splice::new(text.len()..text.len(), format!("{before}{gap}[{header}]{end}{}{end}", here(key)?))])
}

/// Where the values of an entry end that are written behind `=`.
fn end_of_values(entry: &Entry) -> Option<usize> {
    let Range { start, end } = entry.value.span;
    match &entry.value.kind {
        _ if is_value(&entry.value) => Some(end.max(start)),
        _ => None,
    }
}

fn names(path: &[Segment]) -> Result<Vec<String>, &'static str> {
    let written = |segment: &Segment| match segment {
        Segment::Key(key) => Ok(name(key)),
        Segment::Index(_) => Err("the list is shorter at this host"),
    };
    path.iter().map(written).collect()
}

fn name(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(is_bare) { key.to_owned() } else { basic(key) }
}

fn basic(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// A value as it is written, in the quotes of what it replaces where these can hold it.
fn written(old: &str, value: &Value) -> Result<String, &'static str> {
    Ok(match value {
        Value::Null => return Err("TOML has no null"),
        Value::String(text)
            if old.starts_with("'''") && text.contains('\n') && is_literal(text) && !text.contains("''") =>
        {
            format!("'''{}{text}'''", opening(old))
        }
        Value::String(text) if old.starts_with("\"\"\"") && text.contains('\n') => {
            let inner = basic(text).replace("\\n", line_end(old));
            format!("\"\"\"{}{}\"\"\"", opening(old), &inner[1..inner.len() - 1])
        }
        Value::String(text) if old.starts_with('\'') && is_literal(text) && !text.contains(['\'', '\n']) => {
            format!("'{text}'")
        }
        Value::String(text) => basic(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => {
            let items = list.iter().map(|item| written("", item)).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => match map.get(DATE) {
            Some(Value::String(date)) if map.len() == 1 && date.parse::<toml_edit::Datetime>().is_ok() => {
                date.clone()
            }
            _ => {
                let pair =
                    |(key, item): (&String, &Value)| Ok(format!("{} = {}", name(key), written("", item)?));
                let items = map.iter().map(pair).collect::<Result<Vec<String>, &'static str>>()?;
                if items.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", items.join(", ")) }
            }
        },
    })
}

fn is_literal(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t' && c != '\n')
}

/// The end of the line right behind the opening quotes, which is not part of the text.
fn opening(old: &str) -> &str {
    let behind = &old[3..];
    match behind {
        _ if behind.starts_with("\r\n") => "\r\n",
        _ if behind.starts_with('\n') => "\n",
        _ => "",
    }
}
