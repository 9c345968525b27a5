//! Places in a tree where something may have changed: what is passed over when the whole tree need not be.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::RelPath;

/// More places than this are not told one by one: then the whole tree is passed over.
pub const MOST_SPOTS: usize = 8192;
/// Nor are paths of more bytes than this together.
pub const MOST_SPOT_BYTES: usize = 1 << 20;

/// Places in a tree, in tree order; each by itself, or with all it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spots {
    /// Whether a place is meant with all it holds. No place lies within one that is.
    places: BTreeMap<RelPath, bool>,
    bytes: usize,
}

/// Tells what was told before. Opaque: of one run of the source agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// Where in a tree something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// For the next question, once what is told here has been passed over.
    pub cursor: Cursor,
    /// The places; `None` when it may be anywhere.
    pub spots: Option<Spots>,
    /// Why changes of this tree cannot be told at all, so that it has to be scanned each time; empty when they can.
    pub untold: String,
}

impl Spots {
    /// Adds a place; `deep` means it with all it holds.
    pub fn add(&mut self, path: RelPath, deep: bool) {
        if self.lies_within_deep(&path) {
            return;
        }
        if deep {
            let inside = self.places.range((Bound::Excluded(path.clone()), Bound::Unbounded));
            let inside: Vec<RelPath> =
                inside.map(|(other, _)| other.clone()).take_while(|other| other.is_within(&path)).collect();
            for other in inside {
                self.bytes -= other.as_bytes().len();
                self.places.remove(&other);
            }
        }
        let bytes = path.as_bytes().len();
        match self.places.insert(path, deep) {
            Some(_) => {}
            None => self.bytes += bytes,
        }
    }

    /// Adds all of another's places.
    pub fn join(&mut self, other: &Spots) {
        other.iter().for_each(|(path, deep)| self.add(path.clone(), deep));
    }

    /// True when the place is, or lies within, one that is meant with all it holds.
    fn lies_within_deep(&self, path: &RelPath) -> bool {
        let mut above = Some(path.clone());
        while let Some(at) = above {
            if self.places.get(&at) == Some(&true) {
                return true;
            }
            above = at.split().map(|(parent, _)| parent);
        }
        false
    }

    /// True when the path is one of these places, or lies within one that is meant with all it holds.
    pub fn covers(&self, path: &RelPath) -> bool {
        self.places.contains_key(path) || self.lies_within_deep(path)
    }

    /// These places and every directory that leads to one of them.
    pub fn with_parents(&self) -> Self {
        let mut all = self.clone();
        for path in self.places.keys() {
            let mut above = path.split().map(|(parent, _)| parent);
            while let Some(parent) = above.filter(|parent| !all.places.contains_key(parent)) {
                above = parent.split().map(|(next, _)| next);
                all.add(parent, false);
            }
        }
        all
    }

    /// The places in tree order, each with whether it is meant with all it holds.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, bool)> {
        self.places.iter().map(|(path, deep)| (path, *deep))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// True when they are more than are told one by one.
    pub fn are_too_many(&self) -> bool {
        self.places.len() > MOST_SPOTS || self.bytes > MOST_SPOT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn spots(places: &[(&str, bool)]) -> Spots {
        let mut spots = Spots::default();
        places.iter().for_each(|(place, deep)| spots.add(path(place), *deep));
        spots
    }

    #[test]
    fn what_is_meant_with_all_it_holds_takes_the_rest_in() {
        let all = spots(&[("a/b/c", false), ("a-b", false), ("a/x", true), ("a", true), ("a/d", false)]);
        assert_eq!(all, spots(&[("a", true), ("a-b", false)]));
        assert_eq!(all.bytes, 4);
        for (place, covered) in [("a", true), ("a/q/r", true), ("a-b", true), ("a-b/c", false), ("", false)] {
            assert_eq!(all.covers(&path(place)), covered, "{place}");
        }
    }

    #[test]
    fn the_directories_that_lead_there_come_along() {
        let all = spots(&[("a/b/c", false), ("d", true)]).with_parents();
        let places: Vec<_> = all.iter().map(|(path, deep)| (path.to_string(), deep)).collect();
        let expected = [(".", false), ("a", false), ("a/b", false), ("a/b/c", false), ("d", true)];
        assert_eq!(places, expected.map(|(path, deep)| (path.to_owned(), deep)));
    }

    #[test]
    fn too_many_are_told_so() {
        let mut all = Spots::default();
        for n in 0..=MOST_SPOTS {
            assert!(!all.are_too_many());
            all.add(path(&format!("f{n}")), false);
        }
        assert!(all.are_too_many());
        let long = (0..300).map(|n| path(&format!("{n}{}", "/x".repeat(2000))));
        let mut all = Spots::default();
        long.for_each(|path| all.add(path, false));
        assert!(all.are_too_many());
    }
}
