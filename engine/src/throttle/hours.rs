//! Hours of the day.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::BadSetting;
use crate::time::Timestamp;

const DAY: i64 = 24 * 60;

/// A part of the day, in minutes of a clock that is `offset` minutes ahead of UTC. It may reach over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from: i64,
    until: i64,
    offset: i64,
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let time = |text: &str| {
            let (hours, minutes) = text.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
            let plain =
                |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i64>().ok());
            Some((plain(hours)??, plain(minutes)??)).filter(|(_, minutes)| *minutes < 60)
        };
        let minutes = |text: &str| time(text).map(|(hours, minutes)| hours * 60 + minutes);
        let (span, offset) = (text.get(..11)?, text.get(11..)?);
        let (from, until) = (minutes(span.get(..5)?)?, minutes(span.get(6..)?)?);
        let offset = match offset.split_at_checked(1) {
            None => 0,
            Some(("+", ahead)) => minutes(ahead)?,
            Some(("-", behind)) => -minutes(behind)?,
            Some(_) => return None,
        };
        let is_one = span.get(5..6) == Some("-") && from < DAY && until <= DAY && from != until;
        (is_one && offset.abs() < DAY).then_some(Self { from, until, offset })
    }

    /// The minute of its own clock.
    fn minute(&self, at: Timestamp) -> i64 {
        (at.seconds.div_euclid(60) + self.offset).rem_euclid(DAY)
    }

    fn has(&self, at: Timestamp) -> bool {
        let now = self.minute(at);
        if self.from < self.until {
            self.from <= now && now < self.until
        } else {
            self.from <= now || now < self.until
        }
    }

    /// Minutes until it begins.
    fn wait(&self, at: Timestamp) -> i64 {
        (self.from - self.minute(at)).rem_euclid(DAY)
    }

    /// When it begins, as it is shown.
    fn begins(&self) -> String {
        format!("{:02}:{:02}{}", self.from / 60, self.from % 60, self.zone(" UTC"))
    }

    fn zone(&self, utc: &str) -> String {
        let sign = if self.offset < 0 { '-' } else { '+' };
        match self.offset.abs() {
            0 => utc.to_owned(),
            offset => format!("{sign}{:02}:{:02}", offset / 60, offset % 60),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, until, .. } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)?;
        f.write_str(&self.zone(""))
    }
}

/// The parts of the day at which something goes on; always, where none is named.
///
/// As text `22:00-06:00,12:00-13:00+01:00`: each in UTC, or of a clock that is so far ahead of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours(Vec<Span>);

impl Hours {
    /// Whether a moment is in them.
    pub fn has(&self, at: Timestamp) -> bool {
        self.0.is_empty() || self.0.iter().any(|span| span.has(at))
    }

    /// Whether every moment is.
    pub fn is_always(&self) -> bool {
        self.0.is_empty()
    }

    /// When the next of them begin, as it is shown.
    pub fn next(&self, at: Timestamp) -> String {
        let next = self.0.iter().min_by_key(|span| span.wait(at));
        next.map(Span::begins).unwrap_or_default()
    }
}

impl FromStr for Hours {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        if ["always", "off"].contains(&text) {
            return Ok(Self::default());
        }
        let spans = text.split(',').map(|span| Span::parse(span.trim()));
        let spans: Option<Vec<Span>> = spans.collect();
        spans.map(Self).ok_or_else(|| BadSetting::Hours(text.to_owned()))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("always");
        }
        let spans: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&spans.join(","))
    }
}

impl TryFrom<String> for Hours {
    type Error = BadSetting;

    fn try_from(text: String) -> Result<Self, BadSetting> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        format!("2026-01-31T{time}:30Z").parse().unwrap()
    }

    #[test]
    fn hours_read_as_they_are_written() {
        for text in ["always", "22:00-06:00", "00:00-24:00", "22:00-06:00+01:00,12:15-13:00-05:30"] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "22-06",
            "22:00",
            "22:00-25:00",
            "24:00-01:00",
            "06:00-06:00",
            "22:00-06:60",
            "22:00-06:00Z",
            "22:00 06:00",
            "ü2:00-06:00",
            "22:00-06:00+1",
        ] {
            assert_eq!(text.parse::<Hours>(), Err(BadSetting::Hours(text.to_owned())));
        }
    }

    #[test]
    fn a_moment_is_in_them_or_waits_for_the_next() {
        // hours, moment, whether it is in them, when the next begin
        for (hours, moment, is_in, next) in [
            ("always", "03:00", true, ""),
            ("22:00-06:00", "21:59", false, "22:00 UTC"),
            ("22:00-06:00", "22:00", true, "22:00 UTC"),
            ("22:00-06:00", "05:59", true, "22:00 UTC"),
            ("22:00-06:00", "06:00", false, "22:00 UTC"),
            ("01:00-02:00,12:00-13:00", "02:30", false, "12:00 UTC"),
            ("01:00-02:00,12:00-13:00", "13:00", false, "01:00 UTC"),
            ("22:00-06:00+02:00", "20:00", true, "22:00+02:00"),
            ("22:00-06:00+02:00", "04:00", false, "22:00+02:00"),
            ("22:00-06:00-05:00", "02:59", false, "22:00-05:00"),
            ("22:00-06:00-05:00", "03:00", true, "22:00-05:00"),
            ("00:00-24:00", "23:59", true, "00:00 UTC"),
        ] {
            let hours: Hours = hours.parse().unwrap();
            assert_eq!(
                (hours.has(at(moment)), hours.next(at(moment)).as_str()),
                (is_in, next),
                "{hours} {moment}"
            );
        }
    }
}
