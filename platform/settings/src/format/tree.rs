//! What a file holds, with the places of everything in its text.

use std::ops::Range;

use serde_json::{Map, Value};

use crate::key::Segment;

/// A value, and where it is.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its bytes in the text. For what is written over several lines without brackets: where it begins, at least.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
    /// Whether it is written in brackets, on one or more lines.
    pub is_flow: bool,
}

/// What a value is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// One value; what is told about it by its place only is not in it.
    Scalar(Value),
    /// Something that cannot travel: why, and its text, so that it can be seen to stay as it is.
    Odd(&'static str, String),
    /// Things with numbers.
    List(Vec<Node>),
    /// Things with names.
    Map(Vec<Entry>),
}

/// A name with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name.
    pub key: String,
    /// The bytes of the name as it is written.
    pub at: Range<usize>,
    /// The value.
    pub value: Node,
}

/// The name by which YAML takes the names of another map along.
const MERGE: &str = "<<";

impl Node {
    /// What it holds, for comparing.
    pub fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::Odd(why, text) => {
                Value::Object(Map::from_iter([((*why).to_owned(), Value::from(text.as_str()))]))
            }
            Kind::List(items) => items.iter().map(Node::value).collect(),
            Kind::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.value())).collect())
            }
        }
    }

    /// What it holds, for another host.
    pub fn readable(&self) -> Result<Value, &'static str> {
        self.odd().map_or_else(|| Ok(self.value()), Err)
    }

    fn odd(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Scalar(_) => None,
            Kind::Odd(why, _) => Some(why),
            Kind::List(items) => items.iter().find_map(Node::odd),
            Kind::Map(entries) if entries.iter().any(|entry| entry.key == MERGE) => {
                Some("it takes the names of another map along; name the whole file")
            }
            Kind::Map(entries) => entries.iter().find_map(|entry| entry.value.odd()),
        }
    }

    /// What is there. An error when that cannot be said.
    pub fn find(&self, path: &[Segment]) -> Result<Option<&Node>, &'static str> {
        let Some((first, rest)) = path.split_first() else { return Ok(Some(self)) };
        match (&self.kind, first) {
            (Kind::Odd(why, _), _) => Err(why),
            (Kind::Map(entries), Segment::Key(key)) => match entries.iter().find(|entry| entry.key == *key) {
                Some(entry) => entry.value.find(rest),
                None if entries.iter().any(|entry| entry.key == MERGE) => {
                    Err("what it is part of takes the names of another map along; name the whole file")
                }
                None => Ok(None),
            },
            (Kind::List(items), Segment::Index(at)) => match items.get(*at) {
                Some(item) => item.find(rest),
                None => Ok(None),
            },
            (Kind::Scalar(Value::Null), Segment::Key(_)) => Ok(None),
            _ => Err("what it is part of is something else in this file"),
        }
    }

    /// How many steps of the path lead somewhere, and where the last one of them leads.
    pub fn walk<'a>(&'a self, path: &[Segment]) -> (usize, &'a Node) {
        match path.first().and_then(|first| self.child(first)) {
            Some(child) => {
                let (steps, node) = child.walk(&path[1..]);
                (steps + 1, node)
            }
            None => (0, self),
        }
    }

    fn child(&self, segment: &Segment) -> Option<&Node> {
        match (&self.kind, segment) {
            (Kind::Map(entries), Segment::Key(key)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.value)
            }
            (Kind::List(items), Segment::Index(at)) => items.get(*at),
            _ => None,
        }
    }
}

/// Sets something in a value, or takes it away.
pub fn put(value: &mut Value, path: &[Segment], new: Option<Value>) -> Result<(), &'static str> {
    let Some((first, rest)) = path.split_first() else {
        *value = new.unwrap_or_default();
        return Ok(());
    };
    if value.is_null() && new.is_some() {
        *value = Value::Object(Map::new());
    }
    match (value, first) {
        (Value::Object(map), Segment::Key(key)) => match (new, rest) {
            (None, []) => drop(map.remove(key)),
            (None, rest) => return map.get_mut(key).map_or(Ok(()), |value| put(value, rest, None)),
            (new, rest) => return put(map.entry(key).or_insert(Value::Null), rest, new),
        },
        (Value::Array(list), Segment::Index(at)) => match new {
            None if rest.is_empty() && *at < list.len() => drop(list.remove(*at)),
            None => return list.get_mut(*at).map_or(Ok(()), |value| put(value, rest, None)),
            Some(_) if *at > list.len() => return Err("the list is shorter at this host"),
            new => {
                if *at == list.len() {
                    list.push(Value::Null);
                }
                return put(&mut list[*at], rest, new);
            }
        },
        _ => return Err("what it is part of is something else in this file"),
    }
    Ok(())
}

/// A number as it is written, in decimal.
pub fn number(text: &str) -> Kind {
    let is_whole = !text.contains(['.', 'e', 'E']);
    let whole = || text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from));
    match whole() {
        Ok(whole) if is_whole && text != "-0" => Kind::Scalar(whole),
        _ if is_whole => Kind::Odd("its number is larger than 64 bits hold", text.to_owned()),
        _ => match text.parse::<f64>() {
            Ok(real) if real.is_finite() && digits(text) <= 15 => Kind::Scalar(Value::from(real)),
            _ => Kind::Odd("its number has more digits than 64 bits hold", text.to_owned()),
        },
    }
}

/// How many digits count.
fn digits(text: &str) -> usize {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    mantissa.trim_start_matches(['-', '+', '0', '.']).chars().filter(char::is_ascii_digit).count()
}
