//! Places in a server's binary log: by global transaction ids, which outlive rotation and restarts, and by file and offset.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use handover_engine::change::LogPosition;

/// The last transaction of every replication domain (MariaDB's "GTID position").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gtids(BTreeMap<u32, (u32, u64)>);

/// One transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gtid {
    pub domain: u32,
    pub server: u32,
    pub sequence: u64,
}

impl Gtids {
    /// What follows `gtid` comes next.
    pub fn advance(&mut self, gtid: Gtid) {
        self.0.insert(gtid.domain, (gtid.server, gtid.sequence));
    }

    /// Those transactions of `self` that `reached` does not end at.
    pub fn beyond(&self, reached: &Self) -> Self {
        let is_new = |(domain, last): &(&u32, &(u32, u64))| reached.0.get(*domain) != Some(*last);
        Self(self.0.iter().filter(is_new).map(|(domain, last)| (*domain, *last)).collect())
    }

    /// Whether all of `other` is in it.
    pub fn reaches(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .all(|(domain, (_, sequence))| self.0.get(domain).is_some_and(|(_, own)| own >= sequence))
    }

    /// The first domain in which `other` is beyond this.
    pub fn overtaken_by(&self, other: &Self) -> Option<u32> {
        let is_beyond = |(domain, (_, sequence)): &(&u32, &(u32, u64))| {
            self.0.get(*domain).is_some_and(|(_, own)| own < sequence)
        };
        other.0.iter().find(is_beyond).map(|(domain, _)| *domain)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (domain, (server, sequence))) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            write!(f, "{comma}{domain}-{server}-{sequence}")?;
        }
        Ok(())
    }
}

impl FromStr for Gtids {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut out = BTreeMap::new();
        for gtid in text.split(',').map(str::trim).filter(|gtid| !gtid.is_empty()) {
            let mut parts = gtid.splitn(3, '-');
            let mut part = || parts.next().ok_or(());
            let (domain, server, sequence) = (part()?, part()?, part()?);
            let number = |text: &str| text.parse::<u32>().map_err(|_| ());
            out.insert(number(domain)?, (number(server)?, sequence.parse().map_err(|_| ())?));
        }
        Ok(Self(out))
    }
}

/// Where to read on.
///
/// As text: `0-1-100`; `0-1-100+7` inside the transaction that follows, behind its first seven row events; `0-1-100~3` while XA
/// transactions wait for their end: reading starts before the first of them, and the number tells one answer from
/// the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// All that is before.
    pub state: Gtids,
    /// Row events of the transaction behind it that were told.
    pub skip: u64,
    /// Set while `state` does not move.
    pub turn: Option<u64>,
}

impl Place {
    /// As text.
    pub fn position(&self) -> LogPosition {
        let mut text = self.state.to_string();
        if self.skip > 0 {
            text.push_str(&format!("+{}", self.skip));
        }
        if let Some(turn) = self.turn {
            text.push_str(&format!("~{turn}"));
        }
        LogPosition(text)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| ());
        let (text, turn) = match text.split_once('~') {
            Some((text, turn)) => (text, Some(number(turn)?)),
            None => (text, None),
        };
        let (state, skip) = match text.split_once('+') {
            Some((state, skip)) => (state, number(skip)?),
            None => (text, 0),
        };
        Ok(Self { state: state.parse()?, skip, turn })
    }
}

/// A file of the binary log and an offset in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spot {
    pub file: String,
    pub offset: u64,
}

impl Spot {
    /// Files are numbered; the number grows in length only behind the sixth digit.
    fn number(&self) -> u64 {
        self.file.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl PartialOrd for Spot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Spot {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.number(), self.offset).cmp(&(other.number(), other.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_as_they_are_written() {
        for text in ["", "0-1-100", "0-1-100,7-2-18446744073709551615", "0-1-5+7", "0-1-5~3", "+2"] {
            assert_eq!(text.parse::<Place>().unwrap().position().0, text);
        }
        for text in ["0-1", "a-1-2", "0-1-2+", "0-1-2~x", "0-1-2-3"] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_position_reaches_what_is_before() {
        let at = |text: &str| text.parse::<Gtids>().unwrap();
        let here = at("0-1-9,1-2-3");
        for (other, reaches) in
            [("", true), ("0-1-9", true), ("0-7-8,1-2-3", true), ("0-1-10", false), ("2-1-1", false)]
        {
            assert_eq!(here.reaches(&at(other)), reaches, "{other}");
        }
    }

    #[test]
    fn one_that_is_overtaken_is_known_by_its_domain() {
        let at = |text: &str| text.parse::<Gtids>().unwrap();
        for (other, domain) in
            [("", None), ("0-7-9", None), ("0-7-10", Some(0)), ("1-2-4", Some(1)), ("5-1-99", None)]
        {
            assert_eq!(at("0-1-9,1-2-3").overtaken_by(&at(other)), domain, "{other}");
        }
    }

    #[test]
    fn what_is_awaited_ends_with_its_transactions() {
        let mut reached: Gtids = "0-1-9,1-1-3".parse().unwrap();
        let mut awaited = "0-1-9,1-1-4,2-1-1".parse::<Gtids>().unwrap().beyond(&reached);
        assert_eq!(awaited.to_string(), "1-1-4,2-1-1");
        for (domain, sequence) in [(1, 4), (2, 1)] {
            assert!(!awaited.is_empty());
            reached.advance(Gtid { domain, server: 1, sequence });
            awaited = awaited.beyond(&reached);
        }
        assert!(awaited.is_empty());
    }

    #[test]
    fn spots_are_in_the_order_of_the_log() {
        let spot = |file: &str, offset| Spot { file: file.to_owned(), offset };
        assert!(spot("b.000009", 900) < spot("b.000010", 4));
        assert!(spot("b.999999", 900) < spot("b.1000000", 4));
        assert!(spot("b.000009", 4) < spot("b.000009", 5));
    }
}
