//! An order of keys in which neighbours mostly lie side by side in the engines' indexes, too.

use std::cmp::{Ordering, Reverse};

use super::Key;

impl Key {
    /// For keys whose rows are looked up together: column by column, whole numbers by their value, everything else by its bytes.
    /// Engines keep rows in about this order, so that neighbours share pages. Nothing depends on it but speed.
    pub fn nearby(&self, other: &Key) -> Ordering {
        fn columns(key: &Key) -> impl Iterator<Item = (Option<Whole<'_>>, &[u8])> {
            key.0.split(|byte| *byte == b'\t').map(|text| (Whole::of(text), text))
        }
        columns(self).cmp(columns(other))
    }
}

/// A whole number of any size, as it is printed.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Whole<'a> {
    Negative(Reverse<(usize, &'a [u8])>),
    Positive((usize, &'a [u8])),
}

impl<'a> Whole<'a> {
    fn of(text: &'a [u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let is_whole = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let size = (digits.len(), digits);
        let is_negative = digits.len() < text.len();
        let whole = if is_negative { Self::Negative(Reverse(size)) } else { Self::Positive(size) };
        is_whole.then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_value_and_the_rest_by_bytes() {
        let expected = ["", "1x", "a", "b\t9z", "b\t10", "-10", "-9", "0", "9", "9\t-2", "9\t10", "10"]
            .map(|k| Key(k.into()));
        let mut keys = expected.clone();
        keys.reverse();
        keys.sort_unstable_by(Key::nearby);
        assert_eq!(keys, expected);
    }
}
