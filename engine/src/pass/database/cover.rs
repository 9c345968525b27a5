//! Which part of a table chunks cover. Only the engine that printed a key can order it, so this goes from chunk to chunk:
//! each begins where another ends.

use std::collections::{HashMap, VecDeque};

use crate::rows::{HeldChunk, Key, KeyRange, RowsWanted};

/// What of a table no held chunk covers, in key order: the rest of a chunk that had to be cut anew when a recheck was
/// interrupted, and what lies beyond the last chunk. `None` when the chunks leave several gaps between them, whose order
/// cannot be told.
pub fn missing<'a>(held: impl IntoIterator<Item = &'a HeldChunk>) -> Option<Vec<KeyRange>> {
    let mut by_start: HashMap<Option<Key>, Option<Key>> =
        held.into_iter().map(|chunk| (chunk.range.after.clone(), chunk.range.until.clone())).collect();
    let mut out = Vec::new();
    let mut start = None;
    loop {
        // To the end of this chain.
        while let Some(until) = by_start.remove(&start) {
            if until.is_none() {
                return by_start.is_empty().then_some(out);
            }
            start = until;
        }
        if by_start.is_empty() {
            out.push(KeyRange { after: start, until: None });
            return Some(out);
        }
        let ends: Vec<&Key> = by_start.values().flatten().collect();
        let mut heads = by_start.keys().flatten().filter(|key| !ends.contains(key)).cloned();
        let (head, None) = (heads.next()?, heads.next()) else { return None };
        out.push(KeyRange { after: start, until: Some(head.clone()) });
        start = Some(head);
    }
}

/// What is still to come of an answer with rows. An answer that ends before it is over, or leaves something out, must not
/// pass for a whole one: nothing would ever ask for those rows again.
pub struct Course {
    left: VecDeque<KeyRange>,
}

impl Course {
    /// The course of an answer that brings what is wanted.
    pub fn new(wanted: &RowsWanted) -> Self {
        let left = match wanted {
            RowsWanted::Range(range) => VecDeque::from([range.clone()]),
            RowsWanted::Recheck(held) => held.iter().map(|chunk| chunk.range.clone()).collect(),
        };
        Self { left }
    }

    /// Takes the range of the next chunk; false when it is not the one that comes next.
    pub fn take(&mut self, range: &KeyRange) -> bool {
        let Some(next) = self.left.front_mut() else { return false };
        if next.after != range.after || (next.until.is_some() && range.until.is_none()) {
            return false;
        }
        if next.until == range.until {
            self.left.pop_front();
        } else {
            next.after = range.until.clone();
        }
        true
    }

    /// All of it has come.
    pub fn is_over(&self) -> bool {
        self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    type Ends = (Option<&'static str>, Option<&'static str>);

    fn range((after, until): Ends) -> KeyRange {
        let key = |k: &'static str| Key(bytes::Bytes::from_static(k.as_bytes()));
        KeyRange { after: after.map(key), until: until.map(key) }
    }

    fn chunk(ends: Ends) -> HeldChunk {
        HeldChunk { range: range(ends), rows: 1, bytes: 1, digest: Digest::of(b"") }
    }

    #[test]
    fn what_is_missing_lies_between_the_chains_and_beyond_the_last() {
        let (a, b, c, d) = (Some("5"), Some("9"), Some("10"), Some("12"));
        let table: [(&[Ends], Option<&[Ends]>); 10] = [
            (&[], Some(&[(None, None)])),
            (&[(None, a)], Some(&[(a, None)])),
            (&[(a, b), (None, a)], Some(&[(b, None)])),
            (&[(None, a), (a, None)], Some(&[])),
            (&[(None, None)], Some(&[])),
            (&[(None, a), (b, None)], Some(&[(a, b)])),
            (&[(b, c), (None, a)], Some(&[(a, b), (c, None)])),
            (&[(a, None)], Some(&[(None, a)])),
            (&[(None, a), (b, c), (d, None)], None),
            (&[(None, None), (a, b)], None),
        ];
        for (held, expected) in table {
            let chunks: Vec<HeldChunk> = held.iter().copied().map(chunk).collect();
            let expected = expected.map(|ranges| ranges.iter().copied().map(range).collect());
            assert_eq!(missing(&chunks), expected, "{held:?}");
        }
    }

    #[test]
    fn an_answer_is_over_when_all_has_come_in_order() {
        let (a, b) = (Some("5"), Some("9"));
        let table: [(&[Ends], bool, bool); 6] = [
            (&[(None, a), (a, b), (b, None)], true, true),
            (&[(None, a), (a, b)], true, false),
            (&[(None, a), (b, None)], false, false),
            (&[(None, a), (None, a)], false, false),
            (&[(None, None), (None, None)], false, true),
            (&[], true, false),
        ];
        for (chunks, in_order, over) in table {
            let mut course = Course::new(&RowsWanted::Range(KeyRange::default()));
            assert_eq!(chunks.iter().all(|ends| course.take(&range(*ends))), in_order, "{chunks:?}");
            assert_eq!(course.is_over(), over, "{chunks:?}");
        }
        let mut course = Course::new(&RowsWanted::Recheck(vec![chunk((None, a)), chunk((a, b))]));
        assert!(!course.take(&range((None, None))), "it reaches beyond what is asked for");
        assert!(course.take(&range((None, a))) && course.take(&range((a, b))) && course.is_over());
    }
}
