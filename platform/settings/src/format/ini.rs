//! `[section]` and `key = value`. Sections and keys may come more than once.

use std::ops::Range;
use std::path::{Component, Path};

use serde_json::Value;

use super::lines::{self, Line, Text};
use super::splice::{Splice, line_after, line_end, line_start};
use super::tree::{Entry, Kind, Node};
use crate::key::KeyPath;

/// Who reads the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// systemd: comments have lines of their own, and a backslash carries a value on to the next line.
    Systemd,
    /// Others: `;` and `#` behind a blank begin a comment.
    Common,
}

impl Dialect {
    /// By the file's path.
    pub fn of(file: &Path) -> Self {
        let is_below = file.components().any(|part| part == Component::Normal("systemd".as_ref()));
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_unit = ["network", "netdev", "link", "service", "socket", "timer", "mount", "path", "target"]
            .contains(&extension);
        if is_below || is_unit { Dialect::Systemd } else { Dialect::Common }
    }
}

/// A file, read.
#[derive(Debug)]
pub struct Ini<'a> {
    text: &'a str,
    dialect: Dialect,
    /// The first one is what comes before every header, without a name.
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    name: String,
    header: Range<usize>,
    lines: Vec<Line>,
}

const SEVERAL: &str = "its section comes more than once, and the number of its values is another one there: which belongs to which cannot be told; name the whole file";

impl<'a> Ini<'a> {
    /// Reads a file. What is no key and no header is passed over.
    pub fn parse(text: &'a str, dialect: Dialect) -> Self {
        let mut sections = vec![Section { name: String::new(), header: 0..0, lines: Vec::new() }];
        let mut at = 0;
        while at < text.len() {
            let end = logical_end(text, at, dialect);
            let content = content(text, at..end);
            let trimmed = text[content.clone()].trim();
            let section = sections.len() - 1;
            if let Some(name) = header(trimmed) {
                sections.push(Section { name: name.to_owned(), header: content, lines: Vec::new() });
            } else if !trimmed.is_empty() && !trimmed.starts_with(['#', ';', '!', '[']) {
                let line = line(text, content, dialect);
                let is_indented = text[at..].starts_with([' ', '\t']);
                match sections[section].lines.last_mut() {
                    Some(before) if is_indented && line.text.is_none() && dialect == Dialect::Common => {
                        before.odd = Some("its value goes on in the next line; name the whole file");
                    }
                    _ => sections[section].lines.push(line),
                }
            }
            at = end;
        }
        Self { text, dialect, sections }
    }

    /// As a map of maps; sections of one name as one.
    pub fn node(&self) -> Node {
        let mut entries: Vec<Entry> = Vec::new();
        for section in &self.sections {
            if entries.iter().any(|entry| entry.key == section.name) {
                continue;
            }
            let all = self.named(&section.name).flat_map(|section| &section.lines);
            let mut keys = lines::map(self.text, all);
            if section.name.is_empty() {
                entries.append(&mut keys);
                continue;
            }
            let value = Node { span: section.header.clone(), kind: Kind::Map(keys), is_flow: false };
            entries.push(Entry { key: section.name.clone(), at: section.header.clone(), value });
        }
        Node { span: 0..self.text.len(), kind: Kind::Map(entries), is_flow: false }
    }

    fn named<'b>(&'b self, name: &'b str) -> impl DoubleEndedIterator<Item = &'b Section> {
        self.sections.iter().filter(move |section| section.name == name)
    }

    /// Sets a key.
    pub fn set(&self, path: &KeyPath, value: Option<&Value>) -> Result<Vec<Splice>, &'static str> {
        let names = path.names().unwrap_or_default();
        let (section, key) = match names[..] {
            [key] => ("", key),
            [section, key] => (section, key),
            _ => return Err("write `section.key`"),
        };
        let new = lines::texts(value)?;
        if new.iter().flatten().any(|text| text.contains(['\n', '\r'])) {
            return Err("a value goes over several lines");
        }
        if self.dialect == Dialect::Systemd && new.iter().flatten().any(|text| text.ends_with('\\')) {
            return Err("a value would go on in the next line");
        }
        let old: Vec<_> =
            self.named(section).flat_map(|section| &section.lines).filter(|line| line.key == key).collect();
        if self.named(section).count() > 1 && old.len() != new.len() {
            return Err(SEVERAL);
        }
        let style = self.style(section, &old);
        let indent = style.map_or("", |line| &self.text[line_start(self.text, line.at.start)..line.at.start]);
        let equals = style.map_or("=", |line| &self.text[line.at.end..line.value.start]);
        let write = |old: &Line, new: &Text| match (new, &old.text) {
            (Some(new), None) => format!("{equals}{new}"),
            (new, _) => new.clone().unwrap_or_default(),
        };
        let line = |new: &Text| match new {
            Some(new) => format!("{indent}{key}{equals}{new}"),
            None => format!("{indent}{key}"),
        };
        if new.iter().any(Option::is_none) && old.iter().any(|line| line.text.is_some()) {
            return Err("it has a value at this host, and none at the other");
        }
        lines::set(self.text, &old, &new, |added| self.behind(section, &added), write, line)
    }

    /// The line whose form new ones take.
    fn style<'b>(&'b self, section: &'b str, old: &[&'b Line]) -> Option<&'b Line> {
        let has_value = |line: &&Line| line.text.is_some();
        let here = || self.named(section).flat_map(|section| &section.lines).rfind(has_value);
        let anywhere = || self.sections.iter().flat_map(|section| &section.lines).find(has_value);
        old.iter().copied().rfind(has_value).or_else(here).or_else(anywhere)
    }

    /// Lines at the end of a section, or in a new one at the end of the file.
    fn behind(&self, name: &str, added: &str) -> Splice {
        let text = self.text;
        if let Some(section) = self.named(name).next_back() {
            return match section.lines.last() {
                Some(line) => line_after(text, line.value.end, added),
                None if name.is_empty() => {
                    let gap = if text.is_empty() { "" } else { line_end(text) };
                    Splice::new(0..0, format!("{added}{}{gap}", line_end(text)))
                }
                None => line_after(text, section.header.end, added),
            };
        }
        let (end, gap) = (line_end(text), if text.trim().is_empty() { "" } else { line_end(text) });
        let before = if text.is_empty() || text.ends_with('\n') { "" } else { end };
        Splice::new(text.len()..text.len(), format!("{before}{gap}[{name}]{end}{added}{end}"))
    }
}

/// Where the line is over, with those that carry it on.
fn logical_end(text: &str, start: usize, dialect: Dialect) -> usize {
    let mut at = start;
    loop {
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1);
        let line = text[at..end].trim_end_matches(['\n', '\r']);
        let is_comment = text[start..].trim_start_matches([' ', '\t']).starts_with(['#', ';']);
        if dialect == Dialect::Common || is_comment || !line.ends_with('\\') || end == text.len() {
            return end;
        }
        at = end;
    }
}

fn content(text: &str, range: Range<usize>) -> Range<usize> {
    let kept = text[range.clone()].trim_end_matches(['\n', '\r']).len();
    range.start..range.start + kept
}

fn header(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix('[')?.split_once(']')?;
    let rest = rest.trim();
    (!name.is_empty() && (rest.is_empty() || rest.starts_with(['#', ';']))).then_some(name)
}

fn line(text: &str, content: Range<usize>, dialect: Dialect) -> Line {
    let all = &text[content.clone()];
    let equals = all.find('=');
    let name = &all[..equals.unwrap_or(all.len())];
    let name_start = content.start + (name.len() - name.trim_start().len());
    let mut name = name.trim();
    if equals.is_none() && dialect == Dialect::Common {
        name = name[..comment(name)].trim_end();
    }
    let at = name_start..name_start + name.len();
    let Some(equals) = equals else {
        return Line { key: name.to_owned(), value: at.end..at.end, at, text: None, odd: None };
    };
    let raw = &all[equals + 1..];
    let start = content.start + equals + 1 + (raw.len() - raw.trim_start().len());
    let raw = raw.trim();
    let raw = if dialect == Dialect::Common { raw[..comment(raw)].trim_end() } else { raw };
    let has_comment = raw.lines().skip(1).any(|line| line.trim_start().starts_with(['#', ';']));
    let odd = has_comment.then_some("comments lie between the lines of its value; name the whole file");
    let joined = raw.replace("\\\r\n", " ").replace("\\\n", " ");
    Line { key: name.to_owned(), at, value: start..start + raw.len(), text: Some(joined), odd }
}

/// Where the comment behind a value begins.
fn comment(value: &str) -> usize {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in value.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') if at == 0 => quote = Some(c),
            (None, '#' | ';') if before.is_whitespace() => return at,
            _ => {}
        }
        before = c;
    }
    value.len()
}
