//! Values as YAML writes them.

use serde_json::Value;

use super::super::tree::{Kind, Node};
use super::read::plain;

/// A value as it is written in the place of `old`, in its quotes where these can hold it. In brackets when `is_flow`.
pub fn written(text: &str, old: &Node, value: &Value, is_flow: bool) -> String {
    let old = text.get(old.span.clone()).unwrap_or_default();
    match value {
        Value::String(new) if old.starts_with('\'') && is_printable(new) => {
            format!("'{}'", new.replace('\'', "''"))
        }
        Value::String(new) if old.starts_with('|') => literal(old, new).unwrap_or_else(|| double(new)),
        Value::String(new) if !old.starts_with(['"', '\'']) && is_plain(new, is_flow) => new.clone(),
        Value::String(new) => double(new),
        Value::Array(_) | Value::Object(_) => flow(value),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A name as it is written.
pub fn key(name: &str) -> String {
    if is_plain(name, true) { name.to_owned() } else { double(name) }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(name, value): (&String, &Value)| format!("{}: {}", key(name), flow(value));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) if is_plain(text, true) => text.clone(),
        Value::String(text) => double(text),
        other => other.to_string(),
    }
}

fn double(text: &str) -> String {
    let mut out = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'))
}

/// Whether every reader takes the text without quotes for just this text.
fn is_plain(text: &str, is_flow: bool) -> bool {
    let begins = text.starts_with(|c: char| c.is_alphanumeric() || c == '/' || c == '_');
    let is_text = matches!(plain(text), Kind::Scalar(Value::String(_)));
    let is_numeric = text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_hexdigit() || ":._-+xoTZ ".contains(c));
    let is_dotted = text.split('.').filter(|part| part.parse::<u8>().is_ok()).count() == 4;
    let is_short = matches!(text, "y" | "Y" | "n" | "N");
    begins
        && is_text
        && !is_short
        && (!is_numeric || is_dotted)
        && is_printable(text)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !(is_flow && text.contains(['[', ']', '{', '}', ',', ':', '?']))
}

/// A text over several lines, as the one it replaces.
fn literal(old: &str, new: &str) -> Option<String> {
    let (header, body) = old.split_once('\n')?;
    let first = body.lines().find(|line| !line.trim().is_empty())?;
    let indent = &first[..first.len() - first.trim_start_matches(' ').len()];
    let end = if header.ends_with('\r') { "\r\n" } else { "\n" };
    let is_kept = header.trim_end() == "|" && new.ends_with('\n') && !new.ends_with("\n\n") && new.len() > 1;
    let is_simple = new.lines().all(is_printable) && !new.starts_with([' ', '\n']) && !new.contains('\r');
    if !is_kept || !is_simple {
        return None;
    }
    let lines: Vec<_> = new
        .lines()
        .map(|line| if line.is_empty() { String::new() } else { format!("{indent}{line}") })
        .collect();
    let last = if old.ends_with('\n') { end } else { "" };
    Some(format!("{header}\n{}{last}", lines.join(end)))
}
