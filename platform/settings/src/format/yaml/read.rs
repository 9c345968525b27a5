//! From events to places.

use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::Value;

use super::super::splice::{line_over, line_start};
use super::super::tree::{Entry, Kind, Node, number};

/// No file is nested deeper.
const DEEPEST: usize = 64;

/// All that aliases stand for may not hold more values.
const MOST: usize = 100_000;

/// Reads a file; an empty one holds nothing.
pub fn parse(text: &str) -> Result<Node, String> {
    let mut offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    offsets.push(text.len());
    let events = Parser::new_from_str(text).peekable();
    let mut reader = Reader { text, offsets, events, anchors: HashMap::new(), count: 0 };
    let mut root = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => break,
            (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
            (Event::DocumentStart(_), _) if root.is_some() => {
                return Err("it holds several documents".to_owned());
            }
            (Event::DocumentStart(_), _) => root = Some(reader.node(0)?),
            _ => return Err("it is no document".to_owned()),
        }
    }
    Ok(root.unwrap_or(Node { span: text.len()..text.len(), kind: Kind::Scalar(Value::Null), is_flow: false }))
}

struct Reader<'a> {
    text: &'a str,
    /// Where each character begins: the parser counts characters.
    offsets: Vec<usize>,
    events: Peekable<Parser<'a, StrInput<'a>>>,
    anchors: HashMap<usize, Value>,
    count: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Range<usize>), String> {
        let event = self.events.next().ok_or("it ends too early")?;
        let (event, span) =
            event.map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
        let span = self.range(span);
        Ok((event, span))
    }

    fn range(&self, span: Span) -> Range<usize> {
        let byte = |at: usize| self.offsets.get(at).copied().unwrap_or(self.text.len());
        let start = byte(span.start.index());
        start..byte(span.end.index()).max(start)
    }

    fn ends(&mut self, with: &Event<'_>) -> bool {
        matches!(self.events.peek(), Some(Ok((event, _))) if event == with)
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        if depth > DEEPEST {
            return Err("it is nested too deep".to_owned());
        }
        let (event, span) = self.next()?;
        let (anchor, node) = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let span = exact(self.text, span, style);
                let written = self.text[span.clone()].to_owned();
                let kind = scalar(&value, style, tag.as_deref(), written);
                (anchor, Node { span, kind, is_flow: false })
            }
            Event::Alias(id) => {
                let value = self.anchors.get(&id).cloned().ok_or("an alias stands for what it is in")?;
                self.counted(&value)?;
                (0, Node { span, kind: Kind::Scalar(value), is_flow: false })
            }
            Event::SequenceStart(anchor, tag) => (anchor, self.list(span, tag.as_deref(), depth)?),
            Event::MappingStart(anchor, tag) => (anchor, self.map(span, tag.as_deref(), depth)?),
            _ => return Err("something is not complete".to_owned()),
        };
        self.count += 1;
        if anchor > 0 {
            self.anchors.insert(anchor, node.value());
        }
        Ok(node)
    }

    /// Aliases of aliases must not fill the memory.
    fn counted(&mut self, value: &Value) -> Result<(), String> {
        fn size(value: &Value) -> usize {
            match value {
                Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
                Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
                _ => 1,
            }
        }
        self.count += size(value);
        if self.count > MOST { Err("its aliases stand for too much".to_owned()) } else { Ok(()) }
    }

    fn list(&mut self, start: Range<usize>, tag: Option<&Tag>, depth: usize) -> Result<Node, String> {
        let mut items = Vec::new();
        while !self.ends(&Event::SequenceEnd) {
            items.push(self.node(depth + 1)?);
        }
        self.collection(start, tag, '[', Kind::List(items))
    }

    fn map(&mut self, start: Range<usize>, tag: Option<&Tag>, depth: usize) -> Result<Node, String> {
        let mut entries: Vec<Entry> = Vec::new();
        while !self.ends(&Event::MappingEnd) {
            let name = self.node(depth + 1)?;
            let key = match (&name.kind, name.value()) {
                (_, Value::String(key)) => key,
                (Kind::Scalar(_), Value::Null | Value::Bool(_) | Value::Number(_)) => {
                    self.text[name.span.clone()].trim_end().to_owned()
                }
                _ => return Err("a name is no text".to_owned()),
            };
            if entries.iter().any(|entry| entry.key == key) {
                return Err("a name comes twice in one map".to_owned());
            }
            let value = self.node(depth + 1)?;
            entries.push(Entry { key, at: name.span, value });
        }
        self.collection(start, tag, '{', Kind::Map(entries))
    }

    fn collection(
        &mut self,
        start: Range<usize>,
        tag: Option<&Tag>,
        open: char,
        kind: Kind,
    ) -> Result<Node, String> {
        let (_, end) = self.next()?;
        let is_flow = self.text[start.start..].starts_with(open);
        // The parser takes along the blanks and comments behind a bracket.
        let end = if is_flow { end.start + 1 } else { end.end };
        let close = if open == '{' { '}' } else { ']' };
        if is_flow && !self.text.get(start.start..end).is_some_and(|text| text.ends_with(close)) {
            return Err("brackets are written in an unusual form; name the whole file".to_owned());
        }
        let span = start.start..end.max(start.start);
        let kind = match tag {
            Some(tag) if !tag.is_yaml_core_schema() => Kind::Odd(TAGGED, self.text[span.clone()].to_owned()),
            _ => kind,
        };
        Ok(Node { span, kind, is_flow })
    }
}

/// Where a scalar is. The parser takes along what comes behind quotes, and leaves out the first line of a text over several lines.
fn exact(text: &str, span: Range<usize>, style: ScalarStyle) -> Range<usize> {
    let written = &text[span.clone()];
    match style {
        ScalarStyle::Plain => span.start..span.start + written.trim_end().len(),
        ScalarStyle::SingleQuoted => {
            let inner = written.replace("''", "xx");
            let end = inner.get(1..).and_then(|inner| inner.find('\''));
            end.map_or(span.clone(), |end| span.start..span.start + end + 2)
        }
        ScalarStyle::DoubleQuoted => {
            let inner = written.replace("\\\\", "xx").replace("\\\"", "xx");
            let end = inner.get(1..).and_then(|inner| inner.find('"'));
            end.map_or(span.clone(), |end| span.start..span.start + end + 2)
        }
        ScalarStyle::Literal | ScalarStyle::Folded => {
            let before = text[..span.start].trim_end();
            let from = line_start(text, before.len());
            let is_header = |&(at, c): &(usize, char)| {
                if !matches!(c, '|' | '>') || !before[from..from + at].ends_with([' ', ':']) {
                    return false;
                }
                let behind = before[from + at + c.len_utf8()..]
                    .trim_start_matches(|c: char| c.is_ascii_digit() || c == '+' || c == '-');
                behind.is_empty() || behind.starts_with([' ', '\t'])
            };
            let start = before[from..].char_indices().find(is_header).map_or(span.start, |(at, _)| from + at);
            let end = span.start + written.trim_end().len();
            start..if written.trim_end().is_empty() { span.start } else { line_over(text, end).end }
        }
    }
}

const TAGGED: &str = "its value has a tag; name the whole file";

fn scalar(value: &str, style: ScalarStyle, tag: Option<&Tag>, written: String) -> Kind {
    if tag.is_some() {
        return Kind::Odd(TAGGED, written);
    }
    if style == ScalarStyle::Plain { plain(value) } else { Kind::Scalar(Value::from(value)) }
}

/// What a value without quotes is.
pub fn plain(text: &str) -> Kind {
    let digits = text.trim_start_matches(['-', '+']);
    let is_decimal = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+'))
        && text.parse::<f64>().is_ok();
    let leading_zero =
        digits.len() > 1 && digits.starts_with('0') && digits.chars().all(|c| c.is_ascii_digit() || c == '_');
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Scalar(Value::Null),
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            Kind::Scalar(Value::Bool(true))
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Kind::Scalar(Value::Bool(false))
        }
        _ if leading_zero || is_based(digits) || (digits.contains('_') && is_grouped(digits)) => Kind::Odd(
            "its number is read differently by different programs; quote it, or name the whole file",
            text.to_owned(),
        ),
        ".inf" | "-.inf" | "+.inf" | ".nan" | ".Inf" | "-.Inf" | ".NaN" | ".INF" | "-.INF" | ".NAN" => {
            Kind::Odd("its value is no number that can travel", text.to_owned())
        }
        _ if is_decimal => number(text.trim_start_matches('+')),
        _ => Kind::Scalar(Value::from(text)),
    }
}

fn is_based(digits: &str) -> bool {
    ["0x", "0o", "0b"].iter().any(|base| {
        digits
            .strip_prefix(base)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_hexdigit() || c == '_'))
    })
}

fn is_grouped(digits: &str) -> bool {
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '_' || c == '.')
}
