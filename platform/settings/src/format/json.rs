//! JSON. Comments and trailing commas are kept where there are some; nothing else beyond JSON is taken.

use std::ops::Range;

use jsonc_parser::ast::{self, ObjectPropName};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::Value;

use super::splice::{Comments, Splice, insert, remove};
use super::tree::{Entry, Kind, Node};
use crate::key::{KeyPath, Segment};

/// Reads a file; an empty one holds nothing.
pub fn parse(text: &str) -> Result<Node, String> {
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options);
    let parsed = parsed.map_err(|error| {
        let line = text.get(..error.range().start).unwrap_or(text).matches('\n').count() + 1;
        format!("line {line}: {}", error.kind())
    })?;
    match parsed.value {
        Some(value) => node(&value),
        None => Ok(Node { span: text.len()..text.len(), kind: Kind::Scalar(Value::Null), is_flow: true }),
    }
}

fn node(value: &ast::Value<'_>) -> Result<Node, String> {
    let range = value.range();
    let span = range.start..range.end;
    let kind = match value {
        ast::Value::StringLit(text) => Kind::Scalar(Value::from(text.value.as_ref())),
        ast::Value::BooleanLit(is) => Kind::Scalar(Value::from(is.value)),
        ast::Value::NullKeyword(_) => Kind::Scalar(Value::Null),
        ast::Value::NumberLit(number) => super::tree::number(number.value),
        ast::Value::Array(list) => {
            Kind::List(list.elements.iter().map(|item| node(item)).collect::<Result<_, _>>()?)
        }
        ast::Value::Object(object) => {
            let mut entries: Vec<Entry> = Vec::new();
            for property in &object.properties {
                let at = property.name.range();
                let ObjectPropName::String(key) = &property.name else {
                    return Err("a name is not quoted".to_owned());
                };
                let key = key.value.clone().into_owned();
                if entries.iter().any(|entry| entry.key == key) {
                    return Err("a name comes twice in one object".to_owned());
                }
                entries.push(Entry { key, at: at.start..at.end, value: node(&property.value)? });
            }
            Kind::Map(entries)
        }
    };
    Ok(Node { span, kind, is_flow: true })
}

/// Sets a key.
pub fn set(text: &str, path: &KeyPath, value: Option<&Value>) -> Result<Vec<Splice>, &'static str> {
    let root = parse(text).map_err(|_| "the file cannot be read")?;
    let (steps, node) = root.walk(path.segments());
    let rest = &path.segments()[steps..];
    let written = |rest: &[Segment], value: &Value| nested(rest, value).map(|value| value.to_string());
    match (value, rest) {
        (Some(value), []) => Ok(vec![Splice::new(node.span.clone(), value.to_string())]),
        (Some(value), [first, deeper @ ..]) => {
            let new = match (&node.kind, first) {
                (Kind::Map(_), Segment::Key(key)) => {
                    format!("{}: {}", Value::from(key.as_str()), written(deeper, value)?)
                }
                (Kind::List(_), Segment::Index(_)) => written(deeper, value)?,
                (Kind::Scalar(Value::Null), Segment::Key(_)) => {
                    return Ok(vec![Splice::new(node.span.clone(), written(rest, value)?)]);
                }
                _ => return Err("what it is part of is something else in this file"),
            };
            Ok(insert(text, &node.span, &things(node), &new, Comments::Slashes))
        }
        (None, []) => take(text, &root, path, Comments::Slashes),
        (None, _) => Ok(Vec::new()),
    }
}

/// Where the things between a node's brackets are.
pub fn things(node: &Node) -> Vec<Range<usize>> {
    match &node.kind {
        Kind::Map(entries) => entries.iter().map(|entry| entry.at.start..entry.value.span.end).collect(),
        Kind::List(items) => items.iter().map(|item| item.span.clone()).collect(),
        Kind::Scalar(_) | Kind::Odd(..) => Vec::new(),
    }
}

/// Takes away what is there, out of the brackets that it is in.
pub fn take(
    text: &str,
    root: &Node,
    path: &KeyPath,
    comments: Comments,
) -> Result<Vec<Splice>, &'static str> {
    let (last, before) = path.segments().split_last().ok_or("it is the whole file")?;
    let (_, parent) = root.walk(before);
    let which = match (&parent.kind, last) {
        (Kind::Map(entries), Segment::Key(key)) => entries.iter().position(|entry| entry.key == *key),
        (Kind::List(_), Segment::Index(at)) => Some(*at),
        _ => None,
    };
    let which = which.ok_or("it is not there")?;
    Ok(remove(text, &things(parent), which, comments))
}

/// A value inside of maps that are not there yet.
pub fn nested(path: &[Segment], value: &Value) -> Result<Value, &'static str> {
    let wrap = |inner: Value, segment: &Segment| match segment {
        Segment::Key(key) => Ok(Value::Object([(key.clone(), inner)].into_iter().collect())),
        Segment::Index(0) => Ok(Value::Array(vec![inner])),
        Segment::Index(_) => Err("the list is shorter at this host"),
    };
    path.iter().rev().try_fold(value.clone(), wrap)
}
