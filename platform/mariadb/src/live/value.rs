//! Values of row events, printed as the server prints them.

use std::fmt::Write as _;

use super::event::Bytes;

/// A column as its declared type tells of it, beyond what an event does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// Its place in the table, from 0.
    pub at: usize,
    unsigned: bool,
    /// Digits of a number that is filled up with zeros.
    zeros: usize,
    /// Bytes of a value that is filled up with zeros.
    bytes: usize,
    address: Address,
    /// YEAR(2).
    short_year: bool,
}

/// Types that are bytes in an event, and text elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Address {
    #[default]
    None,
    Uuid,
    Inet6,
    Inet4,
}

impl Column {
    /// The column at a place, of this declared type.
    pub fn new(at: usize, declared: &str) -> Self {
        let declared = declared.to_ascii_lowercase();
        let word: String = declared.chars().take_while(char::is_ascii_alphanumeric).collect();
        let argument = declared[word.len()..].strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let argument = argument.and_then(|(number, _)| number.split(',').next()?.parse().ok());
        let zerofill = declared.contains(" zerofill");
        let address = match word.as_str() {
            "uuid" => Address::Uuid,
            "inet6" => Address::Inet6,
            "inet4" => Address::Inet4,
            _ => Address::None,
        };
        Self {
            at,
            unsigned: zerofill || declared.contains(" unsigned"),
            zeros: argument.filter(|_| zerofill).unwrap_or(0),
            bytes: match address {
                Address::Uuid | Address::Inet6 => 16,
                Address::Inet4 => 4,
                Address::None if word == "binary" => argument.unwrap_or(1),
                Address::None => 0,
            },
            address,
            short_year: word == "year" && argument == Some(2),
        }
    }

    /// Prints a value, without escapes. `None` where it is none of its type.
    pub fn print(&self, (kind, meta): (u8, [u8; 2]), raw: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Bytes(raw);
        Some(match kind {
            1 | 2 | 3 | 8 | 9 => self.integer(raw)?,
            // With an exponent, so that the server reads the same number, and no decimal.
            4 => format!("{:e}", f64::from(f32::from_le_bytes(raw.try_into().ok()?))).into(),
            5 => format!("{:e}", f64::from_le_bytes(raw.try_into().ok()?)).into(),
            246 => self.filled(decimal(raw, usize::from(meta[0]), usize::from(meta[1]))?),
            10 | 14 => {
                let packed = bytes.number(3)?;
                format!("{:04}-{:02}-{:02}", packed >> 9, packed >> 5 & 15, packed & 31).into()
            }
            13 => self.year(bytes.byte()?),
            7 => timestamp(bytes.number(4)?, None),
            17 => timestamp(big(bytes.take(4)?), fraction(bytes.0, meta[0])?),
            12 => {
                let n = bytes.number(8)?;
                let (date, time) = (n / 1_000_000, n % 1_000_000);
                let (y, m, d) = (date / 10_000, date / 100 % 100, date % 100);
                format!("{y:04}-{m:02}-{d:02} {:02}:{:02}:{:02}", time / 10_000, time / 100 % 100, time % 100)
                    .into()
            }
            18 => datetime(big(bytes.take(5)?), fraction(bytes.0, meta[0])?)?,
            11 => {
                let raw = bytes.number(3)?;
                let signed = if raw >= 1 << 23 { raw.cast_signed() - (1 << 24) } else { raw.cast_signed() };
                let (sign, n) = (if signed < 0 { "-" } else { "" }, signed.unsigned_abs());
                format!("{sign}{:02}:{:02}:{:02}", n / 10_000, n / 100 % 100, n % 100).into()
            }
            19 => time(raw, meta[0])?,
            16 => big(raw).to_string().into(),
            247 | 248 => bytes.number(raw.len())?.to_string().into(),
            254 if matches!(meta[0], 247 | 248) => bytes.number(raw.len())?.to_string().into(),
            15 | 253 | 254 => self.text(raw)?,
            _ => return None,
        })
    }

    fn integer(&self, raw: &[u8]) -> Option<Vec<u8>> {
        let value = Bytes(raw).number(raw.len())?;
        let shift = 64 - 8 * raw.len();
        let text = if self.unsigned {
            value.to_string()
        } else {
            ((value << shift).cast_signed() >> shift).to_string()
        };
        Some(self.filled(text))
    }

    fn filled(&self, text: String) -> Vec<u8> {
        // The width of a DECIMAL counts its digits, not the point.
        let width = if self.zeros > 0 && text.contains('.') { self.zeros + 1 } else { self.zeros };
        format!("{text:0>width$}").into()
    }

    fn year(&self, since: u8) -> Vec<u8> {
        let year = if since == 0 { 0 } else { 1900 + u16::from(since) };
        if self.short_year { format!("{:02}", year % 100).into() } else { format!("{year:04}").into() }
    }

    /// Zeros at the end of what is filled up with them are not in an event.
    fn text(&self, raw: &[u8]) -> Option<Vec<u8>> {
        let mut out = raw.to_vec();
        out.resize(raw.len().max(self.bytes), 0);
        Some(match self.address {
            Address::None => out,
            Address::Uuid => uuid(out.as_slice().try_into().ok()?),
            Address::Inet6 => inet6(out.as_slice().try_into().ok()?),
            Address::Inet4 => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(out).ok()?).to_string().into(),
        })
    }
}

/// The bytes of a value at the beginning of `data`: where it begins, and where it ends.
pub fn extent((kind, meta): (u8, [u8; 2]), data: &[u8]) -> Option<(usize, usize)> {
    let prefixed = |prefix: usize| {
        let length = Bytes(data).number(prefix)?;
        Some((prefix, prefix.checked_add(usize::try_from(length).ok()?)?))
    };
    let fixed = |length: usize| Some((0, length));
    let long = u16::from_le_bytes(meta) > 255;
    let (from, to) = match kind {
        1 | 13 => fixed(1),
        2 => fixed(2),
        9 | 10 | 11 | 14 => fixed(3),
        3 | 4 | 7 => fixed(4),
        5 | 8 | 12 => fixed(8),
        6 => fixed(0),
        17 => fixed(4 + fraction_bytes(meta[0])),
        18 => fixed(5 + fraction_bytes(meta[0])),
        19 => fixed(3 + fraction_bytes(meta[0])),
        16 => fixed(usize::from(meta[1]) + usize::from(meta[0] > 0)),
        246 => fixed(decimal_bytes(usize::from(meta[0]), usize::from(meta[1]))),
        15 | 140 | 253 => prefixed(if long { 2 } else { 1 }),
        247 | 248 => fixed(usize::from(meta[1])),
        254 if matches!(meta[0], 247 | 248) => fixed(usize::from(meta[1])),
        254 => {
            // Two bits of a length above 255 hide in the type.
            let length = usize::from(meta[1]) | usize::from((meta[0] & 0x30) ^ 0x30) << 4;
            prefixed(if length > 255 { 2 } else { 1 })
        }
        141 | 245 | 249..=252 | 255 => prefixed(usize::from(meta[0])),
        _ => None,
    }?;
    (to <= data.len()).then_some((from, to))
}

/// A number of these bytes, the highest first.
fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn fraction_bytes(digits: u8) -> usize {
    usize::from(digits.div_ceil(2))
}

/// Digits behind the point, where the type has any.
fn fraction(raw: &[u8], digits: u8) -> Option<Option<(u64, u8)>> {
    if digits == 0 {
        return Some(None);
    }
    // The server keeps an even number of digits.
    let kept = big(raw.get(..fraction_bytes(digits))?);
    Some(Some((if digits % 2 == 1 { kept / 10 } else { kept }, digits)))
}

fn with_fraction(mut text: String, fraction: Option<(u64, u8)>) -> Vec<u8> {
    if let Some((value, digits)) = fraction {
        let _ = write!(text, ".{value:0width$}", width = usize::from(digits));
    }
    text.into()
}

/// In UTC, as our sessions see it. Zero is no moment.
fn timestamp(seconds: u64, fraction: Option<(u64, u8)>) -> Vec<u8> {
    if seconds == 0 && fraction.is_none_or(|(value, _)| value == 0) {
        return with_fraction("0000-00-00 00:00:00".to_owned(), fraction);
    }
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    // Howard Hinnant: "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let (era, of_era) = (days / 146_097, days % 146_097);
    let of_years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_years + of_years / 4 - of_years / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = of_years + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    with_fraction(format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}"), fraction)
}

fn datetime(packed: u64, fraction: Option<(u64, u8)>) -> Option<Vec<u8>> {
    let packed = packed.checked_sub(0x80_0000_0000)?;
    let (date, time) = (packed >> 17, packed & 0x1_ffff);
    let (year, month, day) = ((date >> 5) / 13, (date >> 5) % 13, date & 31);
    let (h, m, s) = (time >> 12, time >> 6 & 63, time & 63);
    Some(with_fraction(format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}"), fraction))
}

fn time(raw: &[u8], digits: u8) -> Option<Vec<u8>> {
    // Whole and part are one number, and below its middle the time is negative.
    let bits = 8 * fraction_bytes(digits);
    let middle = 1_i64 << (23 + bits);
    let packed = big(raw).cast_signed() - middle;
    let (sign, packed) = (if packed < 0 { "-" } else { "" }, packed.unsigned_abs());
    let (whole, part) = (packed >> bits, packed & ((1 << bits) - 1));
    let part = if digits % 2 == 1 { part / 10 } else { part };
    let (h, m, s) = (whole >> 12 & 0x3ff, whole >> 6 & 63, whole & 63);
    let part = (digits > 0).then_some((part, digits));
    Some(with_fraction(format!("{sign}{h:02}:{m:02}:{s:02}"), part))
}

/// Bytes of a group of up to nine digits.
const GROUP: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

fn decimal_bytes(precision: usize, scale: usize) -> usize {
    let whole = precision.saturating_sub(scale);
    whole / 9 * 4 + GROUP[whole % 9] + scale / 9 * 4 + GROUP[scale % 9]
}

fn decimal(raw: &[u8], precision: usize, scale: usize) -> Option<String> {
    let mut raw = raw.to_vec();
    let is_negative = raw.first()? & 0x80 == 0;
    *raw.first_mut()? ^= 0x80;
    if is_negative {
        raw.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut bytes = Bytes(&raw);
    let mut digits = String::new();
    let whole = precision.checked_sub(scale)?;
    let groups =
        [whole % 9].into_iter().chain(std::iter::repeat_n(9, whole / 9 + scale / 9)).chain([scale % 9]);
    for length in groups.filter(|length| *length > 0) {
        let group = big(bytes.take(GROUP[length])?);
        let _ = write!(digits, "{group:0length$}");
    }
    let (whole, part) = digits.split_at_checked(whole)?;
    let whole = whole.trim_start_matches('0');
    let mut out = if is_negative { "-".to_owned() } else { String::new() };
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        let _ = write!(out, ".{part}");
    }
    Some(out)
}

/// As the server prints it: the longest run of zeros is left out, even of a single one.
fn inet6(bytes: [u8; 16]) -> Vec<u8> {
    let address = std::net::Ipv6Addr::from(bytes);
    let words = address.segments();
    let run = |from: usize| words[from..].iter().take_while(|word| **word == 0).count();
    // The first of those that are equally long.
    let (start, length) =
        (0..8).map(|at| (at, run(at))).rev().max_by_key(|(_, length)| *length).unwrap_or((8, 0));
    let is_old = start == 0 && (length == 6 || length == 5 && words[5] == 0xffff);
    let mut out = String::new();
    for (at, word) in words.iter().enumerate() {
        if (start..start + length).contains(&at) {
            out.push_str(if at == start { ":" } else { "" });
            continue;
        }
        out.push_str(if at > 0 { ":" } else { "" });
        if is_old && at == 6 {
            let [.., a, b, c, d] = bytes;
            let _ = write!(out, "{a}.{b}.{c}.{d}");
            return out.into();
        }
        let _ = write!(out, "{word:x}");
    }
    if start + length == 8 && length > 0 {
        out.push(':');
    }
    out.into()
}

/// The server keeps a UUID of the versions 1 to 5 with its last part first, so that those of one node sort by time.
fn uuid(stored: [u8; 16]) -> Vec<u8> {
    let mut turned = [0; 16];
    turned[10..].copy_from_slice(&stored[..6]);
    turned[8..10].copy_from_slice(&stored[6..8]);
    turned[6..8].copy_from_slice(&stored[8..10]);
    turned[4..6].copy_from_slice(&stored[10..12]);
    turned[..4].copy_from_slice(&stored[12..]);
    let is_turned = turned[6] > 0 && turned[6] < 0x60 && turned[8] & 0x80 != 0;
    let bytes = if is_turned { turned } else { stored };
    let mut out = String::new();
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_the_server_does() {
        let check = |declared: &str, kind: u8, meta: [u8; 2], raw: &[u8], expected: &str| {
            let printed = Column::new(0, declared).print((kind, meta), raw).unwrap();
            assert_eq!(String::from_utf8(printed).unwrap(), expected, "{declared}");
        };
        check("tinyint(4)", 1, [0, 0], &[0x80], "-128");
        check("tinyint(3) unsigned", 1, [0, 0], &[0x80], "128");
        check("mediumint(9)", 9, [0, 0], &[0xff, 0xff, 0xff], "-1");
        check("int(5) unsigned zerofill", 3, [0, 0], &[42, 0, 0, 0], "00042");
        check("bigint(20) unsigned", 8, [0, 0], &[0xff; 8], "18446744073709551615");
        check("decimal(10,2)", 246, [10, 2], &[0x80, 0, 0, 12, 34], "12.34");
        check("decimal(10,2)", 246, [10, 2], &[0x7f, 0xff, 0xff, 0xff, 0xdd], "-0.34");
        check("date", 10, [0, 0], &[0x5c, 0xd0, 0x0f], "2024-02-28");
        check("year(4)", 13, [0, 0], &[0], "0000");
        check("year(4)", 13, [0, 0], &[124], "2024");
        check("timestamp", 17, [0, 0], &[0x65, 0xde, 0x80, 0x00], "2024-02-28 00:36:16");
        check("timestamp", 17, [0, 0], &[0; 4], "0000-00-00 00:00:00");
        check("time(1)", 19, [1, 0], &[0x7f, 0xff, 0xfe, 0xce], "-00:00:01.5");
        check("time", 19, [0, 0], &[0x80, 0x10, 0x83], "01:02:03");
        check("bit(9)", 16, [1, 1], &[1, 2], "258");
        check("enum('a')", 254, [247, 1], &[1], "1");
        check("binary(4)", 254, [254, 4], b"a", "a\0\0\0");
        check("inet6", 254, [254, 16], &[], "::");
        check("char(3)", 254, [254, 12], b"ab", "ab");
    }

    #[test]
    fn values_end_where_they_should() {
        assert_eq!(extent((15, [44, 1]), &[3, 0, 1, 2, 3, 4]), Some((2, 5)));
        assert_eq!(extent((254, [254, 12]), &[2, 1, 2, 3]), Some((1, 3)));
        assert_eq!(extent((252, [3, 0]), &[1, 0, 0, 9]), Some((3, 4)));
        assert_eq!(extent((252, [3, 0]), &[2, 0, 0, 9]), None);
        assert_eq!(extent((246, [10, 2]), &[0; 5]), Some((0, 5)));
    }
}
