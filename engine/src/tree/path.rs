//! Paths inside a declared root. A path from the peer cannot be made that leads anywhere else.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A path relative to a tree's root: any bytes but NUL, no empty, `.` or `..` component; empty for the root itself.
///
/// Ordered component by component, as a depth-first walk with sorted directories meets them: a directory comes
/// before what it holds, and `a/b` before `a-b`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct RelPath(Vec<u8>);

/// The path could lead out of its root, or is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a path inside the tree", .0.escape_ascii())]
pub struct BadPath(pub Vec<u8>);

impl RelPath {
    /// The tree's root.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        let bytes = bytes.into();
        let good = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        if bytes.is_empty() || bytes.split(|&b| b == b'/').all(good) {
            Ok(Self(bytes))
        } else {
            Err(BadPath(bytes))
        }
    }

    /// The path of `name` inside this directory.
    pub fn join(&self, name: &[u8]) -> Result<Self, BadPath> {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        if name.is_empty() || name.contains(&b'/') { Err(BadPath(bytes)) } else { Self::new(bytes) }
    }

    /// The bytes, components separated by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it lies in and its name there; `None` for the root.
    pub fn split(&self) -> Option<(RelPath, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => (Self(self.0[..slash].to_vec()), &self.0[slash + 1..]),
            None => (Self::root(), &self.0[..]),
        })
    }

    /// True when it lies inside `directory` (at any depth), or is it.
    pub fn is_within(&self, directory: &RelPath) -> bool {
        directory.is_root()
            || self.0.strip_prefix(&directory.0[..]).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl TryFrom<Vec<u8>> for RelPath {
    type Error = BadPath;
    fn try_from(bytes: Vec<u8>) -> Result<Self, BadPath> {
        Self::new(bytes)
    }
}

impl From<RelPath> for Vec<u8> {
    fn from(path: RelPath) -> Vec<u8> {
        path.0
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts below every other byte; NUL, the only one it would tie with, cannot occur.
        let rank = |b: &u8| if *b == b'/' { 0 } else { *b };
        self.0.iter().map(rank).cmp(other.0.iter().map(rank))
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { write!(f, "{}", String::from_utf8_lossy(&self.0)) }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({})", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root() {
        for bad in ["/", "/etc", "..", "a/..", "../a", "a//b", "a/", ".", "a/./b", "a\0b"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
        for good in ["", "a", "a/b", "..a", "a b/ü", "-"] {
            assert!(RelPath::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "..", "a/b", "."] {
            assert!(RelPath::root().join(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sorts_like_a_walk() {
        let mut paths: Vec<_> =
            ["a-b", "a", "a/b/c", "a.d", "", "a/b", "b"].map(|p| RelPath::new(p).unwrap()).into();
        paths.sort();
        let sorted: Vec<_> = paths.iter().map(|p| p.as_bytes()).collect();
        assert_eq!(sorted, [&b""[..], b"a", b"a/b", b"a/b/c", b"a-b", b"a.d", b"b"]);
    }

    #[test]
    fn knows_what_lies_within() {
        let dir = RelPath::new("a/b").unwrap();
        for (path, expected) in [("a/b", true), ("a/b/c", true), ("a/bc", false), ("a", false)] {
            assert_eq!(RelPath::new(path).unwrap().is_within(&dir), expected, "{path}");
        }
    }
}
