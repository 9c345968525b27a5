//! Values half way between two others, to look for rows there. Guesses: the server's order decides what they are worth, and a
//! bad one costs a question more.

use super::Kind;

/// Where characters beyond ASCII begin.
const ASCII: u32 = 128;
/// Characters (or bytes) behind the common beginning that are told apart.
const PRECISION: usize = 4;

impl Kind {
    /// A value above `low` and not above `high`, about half way; none where nothing is between, or nothing can be told.
    /// Text is UTF-8, all else as it travels.
    pub(super) fn between(&self, low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Number | Self::Float | Self::Bits => numbers(low, high),
            Self::Plain => numbers(low, high).or_else(|| moments(low, high)),
            Self::Ascii => uuids(low, high),
            Self::Bytes => {
                let digits = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).collect::<Vec<u32>>();
                let mid = halfway(&digits(low), &digits(high), 256)?;
                Some(mid.into_iter().filter_map(|digit| u8::try_from(digit).ok()).collect())
            }
            Self::Text { .. } => texts(low, high),
        }
    }
}

/// Digits before and behind the point, as one number of `scale` digits behind it.
fn scaled(text: &str, scale: usize) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{part:0<scale$}").parse().ok()
}

fn numbers(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    let (low, high) = (std::str::from_utf8(low).ok()?, std::str::from_utf8(high).ok()?);
    let scale =
        [low, high].iter().map(|text| text.split_once('.').map_or(0, |(_, part)| part.len())).max()?;
    if let (Some(a), Some(b)) = (scaled(low, scale), scaled(high, scale)) {
        let mid = a.checked_add(b.checked_sub(a)? / 2)?;
        if mid <= a {
            return None;
        }
        let (sign, digits) = (if mid < 0 { "-" } else { "" }, mid.unsigned_abs().to_string());
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, part) = digits.split_at(digits.len() - scale);
        let point = if scale > 0 { "." } else { "" };
        return Some(format!("{sign}{whole}{point}{part}").into_bytes());
    }
    let (a, b): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
    let mid = a / 2.0 + b / 2.0;
    (mid > a && mid < b).then(|| format!("{mid:e}").into_bytes())
}

/// Microseconds since 0000-03-01 of a date, with or without a time. Days and months that are none count as the nearest.
fn micros(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??.max(1), date.next()??.max(1));
    let (time, part) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let seconds = time.next()?? * 3600 + time.next()?? * 60 + time.next()??;
    let years = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (years.div_euclid(400), years.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some((days * 86_400 + seconds) * 1_000_000 + format!("{part:0<6}").parse::<i64>().ok()?)
}

/// The text of such a number of microseconds.
fn moment(micros: i64) -> String {
    let (seconds, part) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let of_years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_years + of_years / 4 - of_years / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = of_years + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02}.{part:06}", second % 60)
}

fn moments(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    let (low, high) = (std::str::from_utf8(low).ok()?, std::str::from_utf8(high).ok()?);
    let (a, b) = (micros(low)?, micros(high)?);
    let mut mid = a + (b - a) / 2;
    if !low.contains(' ') {
        // A date begins a day.
        mid -= mid.rem_euclid(86_400_000_000);
    }
    (mid > a).then(|| if low.contains(' ') { moment(mid) } else { moment(mid)[..10].to_owned() }.into_bytes())
}

/// The server sorts most UUIDs by their last part first.
fn uuids(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    let parts = |text: &[u8]| {
        let text = std::str::from_utf8(text).ok()?;
        let parts: Vec<String> = text.split('-').map(str::to_owned).collect();
        let is_one = parts.iter().map(String::len).eq([8, 4, 4, 4, 12]);
        is_one.then_some(parts)
    };
    let (a, b) = (parts(low)?, parts(high)?);
    let is_swapped = |parts: &[String]| parts[2].as_bytes()[0] < b'6';
    if is_swapped(&a) != is_swapped(&b) {
        return None;
    }
    let number = |mut parts: Vec<String>| {
        if is_swapped(&parts) {
            parts.reverse();
        }
        u128::from_str_radix(&parts.concat(), 16).ok()
    };
    let (swapped, kept) = (is_swapped(&a), (a[2].clone(), a[3].clone()));
    let (a, b) = (number(a)?, number(b)?);
    let mid = a.checked_add(b.checked_sub(a)? / 2).filter(|mid| *mid > a)?;
    let digits = format!("{mid:032x}");
    let mut lengths = [8, 4, 4, 4, 12];
    if swapped {
        lengths.reverse();
    }
    let mut from = 0;
    let mut parts: Vec<String> = lengths
        .iter()
        .map(|length| {
            from += length;
            digits[from - length..from].to_owned()
        })
        .collect();
    if swapped {
        parts.reverse();
    }
    // Version and variant decide how it is sorted.
    parts[2].replace_range(..1, &kept.0[..1]);
    parts[3].replace_range(..1, &kept.1[..1]);
    Some(parts.join("-").into_bytes())
}

/// ASCII as most collations sort it, small and capital letters as one: signs, then digits, then letters. From 1 on.
fn rank(c: char) -> u32 {
    match c {
        'a'..='z' => SIGNS + 10 + u32::from(c) - u32::from('a') + 1,
        '0'..='9' => SIGNS + u32::from(c) - u32::from('0') + 1,
        c if c.is_ascii() => sign_codes().position(|sign| sign == c).map_or(1, |at| at as u32 + 1),
        c => u32::from(c) + 1,
    }
}

/// The character of a rank, or one near it.
fn ranked(rank: u32) -> char {
    let of = |first: char, at: u32| char::from_u32(u32::from(first) + at).unwrap_or(first);
    match rank.saturating_sub(1) {
        at if at < SIGNS => sign_codes().nth(at as usize).unwrap_or(' '),
        at if at < SIGNS + 10 => of('0', at - SIGNS),
        at if at < SIGNS + 36 => of('a', at - SIGNS - 10),
        at => char::from_u32(at.max(ASCII)).unwrap_or('\u{e000}'),
    }
}

/// How many characters of ASCII are neither digits nor letters.
const SIGNS: u32 = 66;

fn sign_codes() -> impl Iterator<Item = char> {
    (0..=0x7f_u8).map(char::from).filter(|c| !c.is_ascii_alphanumeric())
}

fn texts(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    // Most collations take small and capital letters for the same.
    let digits = |text: &[u8]| {
        let text = std::str::from_utf8(text).ok()?.to_lowercase();
        Some(text.chars().map(rank).collect::<Vec<u32>>())
    };
    let (low, high) = (digits(low)?, digits(high)?);
    let letters = SIGNS + 38;
    let base = low.iter().chain(&high).max().map_or(letters, |most| letters.max(most + 2));
    let mid = halfway(&low, &high, u64::from(base))?;
    Some(mid.into_iter().map(ranked).collect::<String>().into_bytes())
}

/// The number half way between two fractions of these digits, a few digits behind their common beginning.
fn halfway(low: &[u32], high: &[u32], base: u64) -> Option<Vec<u32>> {
    let common = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let digit = |of: &[u32], at: usize| u64::from(of.get(at).copied().unwrap_or(0));
    let number = |of: &[u32]| {
        (common..common + PRECISION).try_fold(0_u128, |sum, at| {
            sum.checked_mul(u128::from(base))?.checked_add(u128::from(digit(of, at)))
        })
    };
    let (a, b) = (number(low)?, number(high)?);
    let mut mid = a + b.checked_sub(a)? / 2;
    if mid <= a {
        return None;
    }
    let mut tail = Vec::new();
    for _ in 0..PRECISION {
        tail.push(u32::try_from(mid % u128::from(base)).ok()?);
        mid /= u128::from(base);
    }
    while tail.first() == Some(&0) {
        tail.remove(0);
    }
    tail.reverse();
    Some(low[..common].iter().copied().chain(tail).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_lie_between() {
        let text = || Kind::Text { charset: "utf8mb4".to_owned(), collation: "utf8mb4_bin".to_owned() };
        let table: [(Kind, &str, &str, &str); 13] = [
            (Kind::Number, "1", "9", "5"),
            (Kind::Number, "-10", "-5", "-8"),
            (Kind::Number, "4", "5", ""),
            (Kind::Number, "-9223372036854775808", "18446744073709551615", "4611686018427387903"),
            (Kind::Number, "-1.50", "0.25", "-0.63"),
            (Kind::Float, "1e300", "3e300", "2e300"),
            (Kind::Plain, "2024-02-28", "2024-03-02", "2024-02-29"),
            (Kind::Plain, "1999-12-31 23:59:59", "2000-01-01 00:00:03", "2000-01-01 00:00:01.000000"),
            (Kind::Plain, "1999", "2003", "2001"),
            (Kind::Plain, "10:00:00", "12:00:00", ""),
            (
                Kind::Ascii,
                "00000000-0000-1000-8000-000000000000",
                "00000000-0000-1000-8000-000000000010",
                "00000000-0000-1000-8000-000000000008",
            ),
            (
                Kind::Ascii,
                "00000000-0000-7000-8000-000000000000",
                "20000000-0000-7000-8000-000000000000",
                "10000000-0000-7000-8000-000000000000",
            ),
            (text(), "Bb", "bd", "bc"),
        ];
        for (kind, low, high, expected) in table {
            let mid = kind.between(low.as_bytes(), high.as_bytes()).unwrap_or_default();
            assert_eq!(String::from_utf8(mid).unwrap(), expected, "{low} {high}");
        }
        assert_eq!(Kind::Bytes.between(b"\x00a", b"\x02a"), Some(b"\x01a".to_vec()));
        assert_eq!(Kind::Bytes.between(b"a", b"a"), None);
        assert!(text().between(b"k0", b"kf").unwrap().starts_with(b"k7"));
        for c in (0..=0x7f_u8).map(char::from).filter(|c| !c.is_ascii_uppercase()).chain(['ä', '😀']) {
            assert_eq!(ranked(rank(c)), c);
        }
        assert_eq!(text().between("z".as_bytes(), "Z".as_bytes()), None);
    }
}
