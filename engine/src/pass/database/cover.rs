//! Which part of a table chunks cover. Only the engine that printed a key can order it, so this goes from chunk to chunk:
//! each begins where another ends.

use std::collections::{HashMap, VecDeque};

use crate::rows::{HeldChunk, Key, KeyRange, RowsWanted};

/// A part of a table between two cuts, and what is held of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment<T> {
    /// The chunks, in key order.
    pub held: Vec<T>,
    /// What no chunk covers: the rest of a chunk that had to be cut anew when a recheck was interrupted, or what lies beyond
    /// the last chunk.
    pub missing: Option<KeyRange>,
}

/// The segments of a table that was cut at these keys, with the chunks that are held of them. `None` when the chunks of a
/// segment leave several gaps between them: the order of what lies between those cannot be told.
pub fn segments<T>(
    held: impl IntoIterator<Item = T>,
    chunk: impl Fn(&T) -> &HeldChunk,
    cuts: &[Key],
) -> Option<Vec<Segment<T>>> {
    let mut slots: Vec<Option<T>> = held.into_iter().map(Some).collect();
    let ranges: Vec<KeyRange> = slots.iter().flatten().map(|t| chunk(t).range.clone()).collect();
    let by = |end: fn(&KeyRange) -> &Option<Key>| -> HashMap<&Option<Key>, usize> {
        ranges.iter().enumerate().map(|(at, range)| (end(range), at)).collect()
    };
    let (by_start, by_end) = (by(|range| &range.after), by(|range| &range.until));
    let mut ends: Vec<Option<Key>> = cuts.iter().cloned().map(Some).collect();
    ends.push(None);
    let (mut out, mut start) = (Vec::new(), None);
    for end in ends {
        let (mut at, mut front) = (start, Vec::new());
        // From the start on, as far as one chunk continues another. (The table's end is also written `None`.)
        while (front.is_empty() || at != end)
            && let Some(next) = by_start.get(&at).copied().filter(|next| slots[*next].is_some())
        {
            front.extend(slots[next].take());
            at = ranges[next].until.clone();
        }
        let is_whole = !front.is_empty() && at == end;
        // Back from the end.
        let (mut head, mut back) = (end.clone(), Vec::new());
        while !is_whole
            && (back.is_empty() || head != at)
            && let Some(before) = by_end.get(&head).copied().filter(|before| slots[*before].is_some())
        {
            back.extend(slots[before].take());
            head = ranges[before].after.clone();
        }
        front.extend(back.into_iter().rev());
        let missing = (!is_whole).then(|| KeyRange { after: at, until: head });
        out.push(Segment { held: front, missing });
        start = end;
    }
    slots.iter().all(Option::is_none).then_some(out)
}

/// What of a table no held chunk covers, in key order; `None` as for [`segments`].
pub fn missing<'a>(held: impl IntoIterator<Item = &'a HeldChunk>, cuts: &[Key]) -> Option<Vec<KeyRange>> {
    let segments = segments(held, |chunk| *chunk, cuts)?;
    Some(segments.into_iter().filter_map(|segment| segment.missing).collect())
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
    type Missing<'a> = Option<&'a [Ends]>;

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
        let table: [(&[Ends], &[&str], Missing<'_>); 16] = [
            (&[], &[], Some(&[(None, None)])),
            (&[(None, a)], &[], Some(&[(a, None)])),
            (&[(a, b), (None, a)], &[], Some(&[(b, None)])),
            (&[(None, a), (a, None)], &[], Some(&[])),
            (&[(None, None)], &[], Some(&[])),
            (&[(None, a), (b, None)], &[], Some(&[(a, b)])),
            (&[(a, None)], &[], Some(&[(None, a)])),
            (&[(None, a), (b, c), (d, None)], &[], None),
            (&[(None, None), (a, b)], &[], None),
            (&[], &["5"], Some(&[(None, a), (a, None)])),
            (&[(None, a)], &["5"], Some(&[(a, None)])),
            (&[(a, b)], &["5"], Some(&[(None, a), (b, None)])),
            (&[(a, b), (b, None), (None, a)], &["5"], Some(&[])),
            // One that no chain from either end of its segment reaches.
            (&[(None, a), (a, b), (c, d)], &["9"], None),
            (&[(None, a), (b, c), (c, d)], &["10"], Some(&[(a, b), (d, None)])),
            (&[(b, c)], &["5", "10"], Some(&[(None, a), (a, b), (c, None)])),
        ];
        for (held, cuts, expected) in table {
            let chunks: Vec<HeldChunk> = held.iter().copied().map(chunk).collect();
            let cuts: Vec<Key> =
                cuts.iter().map(|cut| Key(bytes::Bytes::copy_from_slice(cut.as_bytes()))).collect();
            let expected = expected.map(|ranges| ranges.iter().copied().map(range).collect());
            let found = missing(&chunks, &cuts);
            assert_eq!(found, expected, "{held:?} cut at {cuts:?}");
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
