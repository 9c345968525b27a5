//! `KEY=value`, as shells and systemd's `EnvironmentFile=` read it. What they read differently does not travel.

use std::ops::Range;

use serde_json::Value;

use super::lines::{self, Line, Text};
use super::splice::{Splice, line_after, line_end, line_over};
use super::tree::{Kind, Node};
use crate::key::KeyPath;

/// A file, read.
#[derive(Debug)]
pub struct Env<'a> {
    text: &'a str,
    lines: Vec<Line>,
}

const EXPANDS: &str = "its value is made of other variables or of commands; name the whole file";
const PIECES: &str = "its value is put together of several pieces; name the whole file";

impl<'a> Env<'a> {
    /// Reads a file. What is no variable is passed over.
    pub fn parse(text: &'a str) -> Self {
        let (mut lines, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let line = line(text, at);
            let from = line.as_ref().map_or(at, |line| line.value.end);
            lines.extend(line);
            at = line_over(text, from).end;
        }
        Self { text, lines }
    }

    /// As a map.
    pub fn node(&self) -> Node {
        Node { span: 0..self.text.len(), kind: Kind::Map(lines::map(self.text, &self.lines)), is_flow: false }
    }

    /// Sets a variable.
    pub fn set(&self, path: &KeyPath, value: Option<&Value>) -> Result<Vec<Splice>, &'static str> {
        let key = *path.names().unwrap_or_default().first().ok_or("write the variable's name")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !key.chars().all(is_name) || key.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("that is no name of a variable");
        }
        let new = lines::texts(value)?;
        if new.iter().any(Option::is_none) {
            return Err("a variable has a value");
        }
        let old: Vec<_> = self.lines.iter().filter(|line| line.key == key).collect();
        let exports = self.lines.last().is_some_and(|line| self.is_exported(line));
        let write = |line: &Line, new: &Text| {
            quoted(&self.text[line.value.clone()], new.as_deref().unwrap_or_default())
        };
        let line = |new: &Text| {
            let export = if exports { "export " } else { "" };
            format!("{export}{key}={}", quoted("", new.as_deref().unwrap_or_default()))
        };
        let last = |added: String| match self.lines.last() {
            Some(line) => line_after(self.text, line.value.end, &added),
            None if self.text.is_empty() => Splice::new(0..0, format!("{added}{}", line_end(self.text))),
            None => line_after(self.text, self.text.len() - usize::from(self.text.ends_with('\n')), &added),
        };
        lines::set(self.text, &old, &new, last, write, line)
    }

    fn is_exported(&self, line: &Line) -> bool {
        self.text[..line.at.start].trim_end_matches([' ', '\t']).ends_with("export")
    }
}

fn line(text: &str, start: usize) -> Option<Line> {
    let mut at = start + blanks(&text[start..]);
    if let Some(rest) = text[at..].strip_prefix("export") {
        let gap = blanks(rest);
        at += if gap > 0 { "export".len() + gap } else { 0 };
    }
    let name = text[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len() - at);
    let key = &text[at..at + name];
    if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !text[at + name..].starts_with('=')
    {
        return None;
    }
    let value = at + name + 1;
    let (length, found, odd) = read(&text[value..line_over(text, value).start], &text[value..]);
    Some(Line {
        key: key.to_owned(),
        at: at..at + name,
        value: value..value + length,
        text: Some(found),
        odd,
    })
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t']).len()
}

/// A value: its length, what it is, and what keeps it from travelling. `line` is the rest of its line, `all` that of the file.
fn read(line: &str, all: &str) -> (usize, String, Option<&'static str>) {
    let quote = all.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote {
        let Some(inner) = closing(&all[1..], quote) else {
            return (line.len(), line.to_owned(), Some("its quotes are not closed"));
        };
        let raw = &all[1..1 + inner.end];
        let length = inner.end + 2;
        let behind = &all[length..line_over(all, length).start];
        let is_over = behind.trim().is_empty()
            || (behind.starts_with([' ', '\t']) && behind.trim_start().starts_with('#'));
        let odd = if is_over { None } else { Some(PIECES) };
        return if quote == '\'' {
            (length, raw.to_owned(), odd)
        } else {
            let expands = inner_expands(raw).then_some(EXPANDS);
            (length, unescaped(raw), odd.or(expands))
        };
    }
    let end = line.char_indices().find(|&(at, c)| c == '#' && (at == 0 || line[..at].ends_with([' ', '\t'])));
    let raw = line[..end.map_or(line.len(), |(at, _)| at)].trim_end();
    let odd = if raw.contains(['$', '`']) {
        Some(EXPANDS)
    } else if raw.contains(['"', '\'', '\\']) {
        Some(PIECES)
    } else {
        None
    };
    (raw.len(), raw.to_owned(), odd)
}

/// Where the quoted text ends.
fn closing(text: &str, quote: char) -> Option<Range<usize>> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => drop(chars.next()),
            c if c == quote => return Some(0..at),
            _ => {}
        }
    }
    None
}

fn inner_expands(raw: &str) -> bool {
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '$' | '`' => return true,
            _ => {}
        }
    }
    false
}

fn unescaped(raw: &str) -> String {
    let mut out = String::new();
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(escaped @ ('"' | '\\' | '$' | '`'))) => {
                out.push(escaped);
                chars.next();
            }
            (c, _) => out.push(c),
        }
    }
    out
}

/// A value as it is written, in the quotes of what it replaces where these can hold it.
fn quoted(old: &str, new: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:@%+,=".contains(c);
    match old.chars().next() {
        Some('\'') if !new.contains('\'') => format!("'{new}'"),
        Some('"' | '\'') => double(new),
        _ if new.chars().all(is_plain) => new.to_owned(),
        _ => double(new),
    }
}

fn double(new: &str) -> String {
    let mut out = String::from("\"");
    for c in new.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}
