//! Events of a MariaDB binary log (mariadb.com/kb: "Replication Protocol"), read from their bytes. MariaDB's own are unknown to
//! the driver, and of row events only a few columns are wanted.

use std::borrow::Cow;
use std::io::Read;

/// Numbers of event types.
pub mod kind {
    pub const QUERY: u8 = 2;
    pub const ROTATE: u8 = 4;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD: u8 = 17;
    pub const EXECUTE_LOAD: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const INCIDENT: u8 = 26;
    pub const XA_PREPARE: u8 = 38;
    pub const GTID: u8 = 162;
    pub const QUERY_COMPRESSED: u8 = 165;
}

/// Bytes, read from the front. `None` where there are too few.
#[derive(Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// An unsigned number of this many bytes, the lowest first.
    pub fn number(&mut self, length: usize) -> Option<u64> {
        Some(self.take(length)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn length(&mut self) -> Option<usize> {
        let length = match self.byte()? {
            0xfc => self.number(2)?,
            0xfd => self.number(3)?,
            0xfe => self.number(8)?,
            small => u64::from(small),
        };
        usize::try_from(length).ok()
    }

    /// A name with its length before it and a zero behind it.
    fn name(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let name = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(name)
    }
}

/// The beginning of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub struct Begin {
    pub domain: u32,
    pub sequence: u64,
    flags: u8,
    /// The XA transaction that it prepares or ends.
    pub xid: Option<Vec<u8>>,
}

impl Begin {
    /// It is a single statement, with no commit behind it.
    pub fn is_alone(&self) -> bool {
        self.flags & 1 != 0
    }

    /// It ends with XA PREPARE.
    pub fn is_prepared(&self) -> bool {
        self.flags & 64 != 0
    }

    /// It commits or rolls back what was prepared.
    pub fn completes(&self) -> bool {
        self.flags & 128 != 0
    }

    pub fn read(data: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(data);
        let (sequence, domain) = (bytes.number(8)?, bytes.number(4)?);
        let flags = bytes.byte()?;
        if flags & 2 != 0 {
            bytes.take(8)?;
        }
        let mut xid = None;
        if flags & (64 | 128) != 0 {
            let head = bytes.take(6)?;
            let data = bytes.take(usize::from(head[4]) + usize::from(head[5]))?;
            xid = Some([head, data].concat());
        }
        Some(Self { domain: u32::try_from(domain).ok()?, sequence, flags, xid })
    }
}

/// The same bytes as an event's, from what XA RECOVER tells.
pub fn xid(format: u64, gtrid: u64, bqual: u64, data: &[u8]) -> Vec<u8> {
    let mut out = format.to_le_bytes()[..4].to_vec();
    out.extend([gtrid.to_le_bytes()[0], bqual.to_le_bytes()[0]]);
    out.extend_from_slice(data);
    out
}

/// A statement.
pub struct Query<'a> {
    /// The session's database.
    pub database: String,
    pub statement: Cow<'a, [u8]>,
}

impl<'a> Query<'a> {
    pub fn read(event: u8, data: &'a [u8]) -> Option<Self> {
        let mut bytes = Bytes(data);
        bytes.take(8)?;
        let database = usize::from(bytes.byte()?);
        bytes.take(2)?;
        let variables = usize::try_from(bytes.number(2)?).ok()?;
        if event == kind::EXECUTE_LOAD {
            bytes.take(13)?;
        }
        bytes.take(variables)?;
        let database = String::from_utf8_lossy(bytes.take(database)?).into_owned();
        bytes.take(1)?;
        let statement =
            if event == kind::QUERY_COMPRESSED { inflate(bytes.0)?.into() } else { Cow::from(bytes.0) };
        Some(Self { database, statement })
    }
}

/// A table that row events are about, as they number it.
#[derive(Debug, PartialEq, Eq)]
pub struct TableMap {
    pub id: u64,
    pub database: String,
    pub table: String,
    /// Type and metadata of each column.
    pub columns: Vec<(u8, [u8; 2])>,
}

impl TableMap {
    pub fn read(data: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(data);
        let id = bytes.number(6)?;
        bytes.take(2)?;
        let (database, table) = (bytes.name()?, bytes.name()?);
        let width = bytes.length()?;
        let types = bytes.take(width)?;
        let length = bytes.length()?;
        let mut metadata = Bytes(bytes.take(length)?);
        let mut columns = Vec::with_capacity(width);
        for kind in types {
            let meta = match kind {
                4 | 5 | 17..=19 | 141 | 245 | 249..=252 | 255 => [metadata.byte()?, 0],
                15 | 16 | 140 | 246..=248 | 253 | 254 => [metadata.byte()?, metadata.byte()?],
                _ => [0, 0],
            };
            columns.push((*kind, meta));
        }
        Some(Self { id, database, table, columns })
    }
}

/// What a row event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Insert,
    Update,
    Delete,
}

/// Changed rows of a table.
pub struct Rows<'a> {
    pub action: Action,
    pub table: u64,
    /// Foreign keys were not looked at, so nothing was done on their account.
    pub unchecked: bool,
    /// Which columns the rows have, before and (of updates) after.
    pub present: [&'a [u8]; 2],
    pub data: Cow<'a, [u8]>,
}

/// What the type of an event says, when it is a row event: the action, and whether it is of the second version, and compressed.
fn row_event(event: u8) -> Option<(Action, bool, bool)> {
    let (first, second, compressed) = match event {
        23..=25 => (23, false, false),
        30..=32 => (30, true, false),
        166..=168 => (166, false, true),
        169..=171 => (169, true, true),
        _ => return None,
    };
    let action = [Action::Insert, Action::Update, Action::Delete][usize::from(event - first)];
    Some((action, second, compressed))
}

/// The event is about rows.
pub fn has_rows(event: u8) -> bool {
    row_event(event).is_some()
}

impl<'a> Rows<'a> {
    pub fn read(event: u8, data: &'a [u8]) -> Option<Self> {
        let (action, second, compressed) = row_event(event)?;
        let mut bytes = Bytes(data);
        let (table, flags) = (bytes.number(6)?, bytes.number(2)?);
        if second {
            let extra = usize::try_from(bytes.number(2)?).ok()?;
            bytes.take(extra.checked_sub(2)?)?;
        }
        let length = bytes.length()?.div_ceil(8);
        let before = bytes.take(length)?;
        let after = if action == Action::Update { bytes.take(length)? } else { before };
        let data = if compressed { inflate(bytes.0)?.into() } else { Cow::from(bytes.0) };
        Some(Self { action, table, unchecked: flags & 2 != 0, present: [before, after], data })
    }
}

/// Largest event that is taken apart: no packet is larger.
const LARGEST: usize = 1 << 30;
/// Bytes of a checksum behind an event.
const CHECKSUM: usize = 4;

/// What a server with log_bin_compress writes: a head with the length, then zlib's format.
fn inflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Bytes(data);
    let head = bytes.byte()?;
    if head & 0xe0 != 0x80 {
        return None;
    }
    let length = bytes.take(usize::from(head & 7))?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if length > LARGEST {
        return None;
    }
    let mut out = Vec::new();
    flate2::read::ZlibDecoder::new(bytes.0).take(length as u64 + 1).read_to_end(&mut out).ok()?;
    (out.len() == length).then_some(out)
}

/// The file that a ROTATE event leads to, and where in it. A stream's first comes before it is known that events end with
/// checksums: there `checksum` tells.
pub fn rotated(data: &[u8], checksum: bool) -> Option<(u64, String)> {
    let mut bytes = Bytes(data);
    let offset = bytes.number(8)?;
    let name = bytes.0.get(..bytes.0.len().checked_sub(if checksum { CHECKSUM } else { 0 })?)?;
    let name = std::str::from_utf8(name).ok()?;
    // The server pads its files' numbers to six digits.
    let (_, number) = name.rsplit_once('.')?;
    let is_number = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| (offset, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_are_read() {
        let mut data = 7_u64.to_le_bytes().to_vec();
        data.extend(3_u32.to_le_bytes());
        let plain = [data.clone(), vec![12, 0, 0, 0, 0, 0, 0]].concat();
        let begin = Begin::read(&plain).unwrap();
        assert_eq!((begin.sequence, begin.domain, begin.is_alone(), begin.xid), (7, 3, false, None));
        let prepared = [data, vec![64 | 2], vec![9; 8], vec![1, 0, 0, 0, 2, 1], b"abc".to_vec()].concat();
        let begin = Begin::read(&prepared).unwrap();
        assert!(begin.is_prepared() && !begin.completes());
        assert_eq!(begin.xid, Some(xid(1, 2, 1, b"abc")));
        assert_eq!(Begin::read(&prepared[..20]), None);
    }

    #[test]
    fn files_are_named_without_checksums() {
        let event = |name: &[u8]| [&4_u64.to_le_bytes(), name].concat();
        let file = Some((4, "bin.log.000012".to_owned()));
        assert_eq!(rotated(&event(b"bin.log.000012"), false), file);
        // A checksum may look like more of the name.
        for checksum in [b"7.1\xff", b".123", b"\0\xff\xfe9"] {
            assert_eq!(rotated(&event(&[b"bin.log.000012", &checksum[..]].concat()), true), file);
        }
        for not_a_name in [&b"bin.log.000012\xff1.2"[..], b"bin.log.00", b"000012", b""] {
            assert_eq!(rotated(&event(not_a_name), false), None);
        }
        assert_eq!(rotated(b"123", true), None);
    }
}
