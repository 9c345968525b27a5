//! Cutting texts, and what lies between things in brackets.

use std::ops::Range;

/// Some bytes of a text, and what they become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// Which.
    pub range: Range<usize>,
    /// What they become.
    pub with: String,
}

impl Splice {
    /// One cut.
    pub fn new(range: Range<usize>, with: impl Into<String>) -> Self {
        Self { range, with: with.into() }
    }
}

/// The text after all of the cuts; none when two of them touch the same bytes.
pub fn cut(text: &str, mut splices: Vec<Splice>) -> Option<String> {
    splices.sort_by_key(|splice| (splice.range.start, splice.range.end));
    let (mut out, mut at) = (String::with_capacity(text.len() + 64), 0);
    for Splice { range, with } in splices {
        out.push_str(text.get(at..range.start)?);
        out.push_str(&with);
        at = range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// How lines end in a text.
pub fn line_end(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// Where the line begins that `at` is in.
pub fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Where the line is over that `at` is in, before and after what ends it.
pub fn line_over(text: &str, at: usize) -> Range<usize> {
    match text[at..].find('\n') {
        Some(newline) => {
            let end = at + newline;
            let content = if text[at..end].ends_with('\r') { end - 1 } else { end };
            content..end + 1
        }
        None => text.len()..text.len(),
    }
}

/// Whether a line that begins like this holds nothing before `at`.
pub fn begins_line(text: &str, at: usize) -> bool {
    text[line_start(text, at)..at].trim().is_empty()
}

/// The whole lines from the one of `from` to the one of `to`. The last line of a text that does not end it takes the end of the line
/// before along.
pub fn lines(text: &str, from: usize, to: usize) -> Range<usize> {
    let (mut start, end) = (line_start(text, from), line_over(text, to).end);
    if end == text.len() && !text.ends_with('\n') {
        start = text[..start]
            .strip_suffix('\n')
            .map_or(start, |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    }
    start..end
}

/// A line put after the line of `at`.
pub fn line_after(text: &str, at: usize, line: &str) -> Splice {
    let over = line_over(text, at);
    let end = line_end(text);
    let is_ended = over.end > over.start || text[..over.end].ends_with('\n') || text.is_empty();
    if is_ended {
        Splice::new(over.end..over.end, format!("{line}{end}"))
    } else {
        Splice::new(over.end..over.end, format!("{end}{line}"))
    }
}

/// What begins comments between things in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comments {
    /// `//` and `/* */`
    Slashes,
    /// `#`
    Hash,
}

impl Comments {
    /// How long the comment is that begins here, without the end of its line.
    fn length(self, text: &str) -> Option<usize> {
        let line =
            || text.find('\n').map_or(text.len(), |at| if text[..at].ends_with('\r') { at - 1 } else { at });
        match self {
            Comments::Hash if text.starts_with('#') => Some(line()),
            Comments::Slashes if text.starts_with("//") => Some(line()),
            Comments::Slashes if text.starts_with("/*") => text.find("*/").map(|end| end + 2),
            Comments::Hash | Comments::Slashes => None,
        }
    }

    /// Where the next comma is, when nothing but comments come before it.
    fn comma(self, text: &str, mut at: usize) -> Option<usize> {
        loop {
            let rest = &text[at..];
            at += rest.len() - rest.trim_start().len();
            if text[at..].starts_with(',') {
                return Some(at);
            }
            at += self.length(&text[at..])?;
        }
    }

    /// Where the line ends, when nothing but a comment comes before that.
    fn end_of_line(self, text: &str, at: usize) -> Option<usize> {
        let over = line_over(text, at);
        let rest = text[at..over.start].trim_start();
        let is_over = rest.is_empty()
            || self
                .length(rest)
                .is_some_and(|length| length == rest.trim_end().len() || length == rest.len());
        is_over.then_some(over.start)
    }
}

/// Puts something behind the last thing in brackets, as the last thing is put there.
pub fn insert(
    text: &str,
    brackets: &Range<usize>,
    things: &[Range<usize>],
    new: &str,
    comments: Comments,
) -> Vec<Splice> {
    let Some(last) = things.last() else {
        let at = brackets.start + 1;
        return vec![Splice::new(at..at, new)];
    };
    let gap = &text[..last.start];
    let gap = &gap[gap.trim_end().len()..];
    // A blank line before the last one is not repeated.
    let gap =
        gap.rfind('\n').map_or(gap, |newline| &gap[newline - usize::from(gap[..newline].ends_with('\r'))..]);
    let gap = if gap.is_empty() && things.len() > 1 {
        ""
    } else if gap.is_empty() {
        " "
    } else {
        gap
    };
    let comma = comments.comma(text, last.end).filter(|comma| *comma < brackets.end);
    let behind = comma.map_or(last.end, |comma| comma + 1);
    let place =
        if gap.contains('\n') { comments.end_of_line(text, behind).unwrap_or(behind) } else { behind };
    match comma {
        Some(_) => vec![Splice::new(place..place, format!("{gap}{new},"))],
        None if place == last.end => vec![Splice::new(place..place, format!(",{gap}{new}"))],
        None => vec![Splice::new(last.end..last.end, ","), Splice::new(place..place, format!("{gap}{new}"))],
    }
}

/// Takes a thing out of brackets, with its line and the comment behind it where it has one of its own.
pub fn remove(text: &str, things: &[Range<usize>], which: usize, comments: Comments) -> Vec<Splice> {
    let thing = &things[which];
    let comma = comments.comma(text, thing.end);
    let behind = comma.map_or(thing.end, |comma| comma + 1);
    let before = which.checked_sub(1).map(|before| things[before].end);
    let mut out = Vec::new();
    if comma.is_none()
        && let Some(before) = before
        && let Some(comma) = comments.comma(text, before)
    {
        let has_line = begins_line(text, thing.start) && comments.end_of_line(text, behind).is_some();
        if !has_line && text[comma + 1..thing.start].trim().is_empty() {
            return vec![Splice::new(comma..thing.end, "")];
        }
        out.push(Splice::new(comma..comma + 1, ""));
    }
    if begins_line(text, thing.start) && comments.end_of_line(text, behind).is_some() {
        out.push(Splice::new(line_start(text, thing.start)..line_over(text, behind).end, ""));
    } else {
        let rest = &text[behind..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let end = if comma.is_some() { behind + blanks } else { behind };
        out.push(Splice::new(thing.start..end, ""));
    }
    out
}
