//! Places in a change log.

use std::fmt;
use std::str::FromStr;

use handover_engine::change::LogPosition;

/// A place in the server's log: bytes since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

/// Up to where changes were told. As text `LSN`, or `LSN+LSN+COUNT` inside a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Transactions whose commit's record begins before this were told whole.
    pub base: Lsn,
    /// The one that was told in part.
    pub inside: Option<Inside>,
}

/// A transaction that was told in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// Where its commit's record begins.
    pub commit: Lsn,
    /// How many of its messages about rows were told.
    pub told: u64,
}

/// The text is no place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no position in a PostgreSQL server's log")]
pub struct BadPosition;

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let (high, low) = text.split_once('/').ok_or(BadPosition)?;
        let part = |text: &str| u32::from_str_radix(text, 16).map_err(|_| BadPosition);
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

impl Position {
    /// Everything before a place was told.
    pub fn at(base: Lsn) -> Self {
        Self { base, inside: None }
    }

    /// Reads what [`Position::log`] wrote.
    pub fn of(position: &LogPosition) -> Result<Self, BadPosition> {
        let mut parts = position.0.split('+');
        let base = parts.next().ok_or(BadPosition)?.parse()?;
        let inside = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(commit), Some(told), None) => {
                Some(Inside { commit: commit.parse()?, told: told.parse().map_err(|_| BadPosition)? })
            }
            _ => return Err(BadPosition),
        };
        Ok(Self { base, inside })
    }

    /// As the engine keeps it.
    pub fn log(&self) -> LogPosition {
        LogPosition(match &self.inside {
            None => self.base.to_string(),
            Some(Inside { commit, told }) => format!("{}+{commit}+{told}", self.base),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_were_written() {
        let base = Lsn(0x1_0000_00ab);
        let inside = Some(Inside { commit: Lsn(0x2_0000_0000), told: 50_000 });
        for (position, text) in [
            (Position::at(Lsn(0)), "0/0"),
            (Position::at(base), "1/AB"),
            (Position { base, inside }, "1/AB+2/0+50000"),
        ] {
            assert_eq!(position.log().0, text);
            assert_eq!(Position::of(&position.log()), Ok(position));
        }
        for bad in ["", "1", "1/G", "1/2+3/4", "1/2+3/4+x", "1/2+3/4+5+6", "1/100000000"] {
            assert_eq!(Position::of(&LogPosition(bad.to_owned())), Err(BadPosition), "{bad}");
        }
    }
}
