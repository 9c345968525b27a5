//! Files with a key and its value on each line, where a key may come more than once.

use std::ops::Range;

use serde_json::Value;

use super::splice::{Splice, line_after, lines};
use super::tree::{Entry, Kind, Node};

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Line {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub at: Range<usize>,
    /// Where its value is, as it is written; empty, behind the key, where there is none.
    pub value: Range<usize>,
    /// What the value is; none for a key without one.
    pub text: Option<String>,
    /// What keeps it from travelling.
    pub odd: Option<&'static str>,
}

/// What a key may have: text, or nothing at all.
pub type Text = Option<String>;

impl Line {
    fn node(&self, text: &str) -> Node {
        let kind = match (&self.odd, &self.text) {
            (Some(odd), _) => Kind::Odd(odd, text[self.value.clone()].to_owned()),
            (None, Some(text)) => Kind::Scalar(Value::from(text.as_str())),
            (None, None) => Kind::Scalar(Value::Null),
        };
        Node { span: self.value.clone(), kind, is_flow: false }
    }
}

/// Lines as a map: a key that comes once has a value, others a list of them.
pub fn map<'a>(text: &str, all: impl IntoIterator<Item = &'a Line>) -> Vec<Entry> {
    let mut out: Vec<Entry> = Vec::new();
    for line in all {
        let node = line.node(text);
        match out.iter_mut().find(|entry| entry.key == line.key) {
            None => out.push(Entry { key: line.key.clone(), at: line.at.clone(), value: node }),
            Some(Entry { value: Node { kind: Kind::List(items), .. }, .. }) => items.push(node),
            Some(entry) => {
                let span = entry.value.span.clone();
                let first = std::mem::replace(
                    &mut entry.value,
                    Node { span, kind: Kind::List(Vec::new()), is_flow: false },
                );
                entry.value.kind = Kind::List(vec![first, node]);
            }
        }
    }
    out
}

/// A value as the texts that it stands for.
pub fn texts(value: Option<&Value>) -> Result<Vec<Text>, &'static str> {
    let one = |value: &Value| match value {
        Value::Null => Ok(None),
        Value::String(text) if text.contains('\0') => Err("a value holds NUL"),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err("its values are texts in this file"),
    };
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(value) => one(value).map(|one| vec![one]),
    }
}

/// Gives the lines of a key these values: each in its place, those that are too many taken away, further ones behind the last of them, or
/// behind `last` where there is none. `write` makes a line's value of what is written there and of its new one, `line` a new line.
pub fn set(
    text: &str,
    old: &[&Line],
    new: &[Text],
    last: impl Fn(String) -> Splice,
    write: impl Fn(&Line, &Text) -> String,
    line: impl Fn(&Text) -> String,
) -> Result<Vec<Splice>, &'static str> {
    if let Some(odd) = old.iter().find_map(|line| line.odd) {
        return Err(odd);
    }
    let mut out = Vec::new();
    for (old, new) in old.iter().zip(new).filter(|(old, new)| old.text != **new) {
        out.push(Splice::new(old.value.clone(), write(old, new)));
    }
    for old in old.iter().skip(new.len()) {
        out.push(Splice::new(lines(text, old.at.start, old.value.end), ""));
    }
    let added: Vec<_> = new.iter().skip(old.len()).map(line).collect();
    if !added.is_empty() {
        let added = added.join(super::splice::line_end(text));
        out.push(match old.last() {
            Some(old) => line_after(text, old.value.end, &added),
            None => last(added),
        });
    }
    Ok(out)
}
