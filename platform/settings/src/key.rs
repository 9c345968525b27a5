//! Where in a file a setting is: `section.key`, `servers[0].name`, `"a.b".c`.

use std::fmt;
use std::str::FromStr;

/// The text is no path of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no path of a key: {problem}")]
pub struct BadKey {
    text: String,
    problem: &'static str,
}

/// One step into a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Into what has names.
    Key(String),
    /// Into what has numbers, from 0.
    Index(usize),
}

/// The way to a key. Written with dots between names; a name that holds anything but letters, digits, `_`, `-`, `/`, `@`, `:` and spaces is
/// quoted, with `\"` and `\\` in it; places in lists are numbers in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPath(Vec<Segment>);

impl KeyPath {
    /// Its steps; at least one, the first one a name.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The path one step further.
    #[must_use]
    pub fn join(&self, segment: Segment) -> Self {
        let mut steps = self.0.clone();
        steps.push(segment);
        Self(steps)
    }

    /// Its first steps.
    #[must_use]
    pub fn head(&self, steps: usize) -> Self {
        Self(self.0[..steps].to_vec())
    }

    /// Its names, where it leads through names alone.
    pub fn names(&self) -> Option<Vec<&str>> {
        self.0
            .iter()
            .map(|segment| match segment {
                Segment::Key(name) => Some(name.as_str()),
                Segment::Index(_) => None,
            })
            .collect()
    }

    /// Whether what one of them leads to is part of what the other one leads to.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || "_-/@: ".contains(c)
}

impl FromStr for KeyPath {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bad = |problem| BadKey { text: text.to_owned(), problem };
        let mut rest = text;
        let mut steps = Vec::new();
        loop {
            let (name, after) = if let Some(quoted) = rest.strip_prefix('"') {
                unquote(quoted).ok_or(bad("a quote is not closed"))?
            } else {
                let end = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            };
            if name.is_empty() {
                return Err(bad("a name is empty, or holds what must be quoted"));
            }
            steps.push(Segment::Key(name));
            rest = after;
            while let Some(inner) = rest.strip_prefix('[') {
                let (number, after) = inner.split_once(']').ok_or(bad("a bracket is not closed"))?;
                steps.push(Segment::Index(number.parse().map_err(|_| bad("write a number in brackets"))?));
                rest = after;
            }
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(Self(steps)),
                None => return Err(bad("write a dot between names, and quotes around unusual ones")),
            }
        }
    }
}

/// What is in quotes, and what comes after the closing one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, &text[at + 1..])),
            '\\' => name.push(chars.next()?.1),
            c => name.push(c),
        }
    }
    None
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(number) => write!(f, "[{number}]")?,
                Segment::Key(name) => {
                    let dot = if at > 0 { "." } else { "" };
                    if name.chars().all(is_bare) {
                        write!(f, "{dot}{name}")?;
                    } else {
                        let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                        write!(f, "{dot}\"{name}\"")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_shown() {
        let key = |name: &str| Segment::Key(name.to_owned());
        for (text, steps) in [
            ("a", vec![key("a")]),
            ("Network.Address", vec![key("Network"), key("Address")]),
            ("a[0][12].b", vec![key("a"), Segment::Index(0), Segment::Index(12), key("b")]),
            (r#""a.b".c"#, vec![key("a.b"), key("c")]),
            (r#"x."q\"\\""#, vec![key("x"), key("q\"\\")]),
            ("größe.ü", vec![key("größe"), key("ü")]),
        ] {
            let path: KeyPath = text.parse().unwrap();
            assert_eq!(path.segments(), steps, "{text}");
            assert_eq!(path.to_string(), text);
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[0]b", "\"a", "a\"b\"", "[0]", "a=b", "a\nb", "\"\"",
        ] {
            assert!(bad.parse::<KeyPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_overlaps_the_whole() {
        let path = |text: &str| text.parse::<KeyPath>().unwrap();
        for (a, b, overlaps) in
            [("a", "a", true), ("a", "a.b", true), ("a.b", "a.c", false), ("a[0]", "a[1]", false)]
        {
            assert_eq!(path(a).overlaps(&path(b)), overlaps, "{a} {b}");
            assert_eq!(path(b).overlaps(&path(a)), overlaps, "{a} {b}");
        }
    }
}
