//! Which paths of a tree belong to the dataset.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::tree::RelPath;
use serde::{Deserialize, Serialize};

use super::STAGING;

/// Include and exclude globs of a manifest. `*` does not cross a slash, `**` does.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    include: Option<GlobSet>,
    exclude: GlobSet,
    globs: Globs,
}

/// A filter as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Globs {
    include: Vec<String>,
    exclude: Vec<String>,
}

fn set(patterns: &[String]) -> Result<GlobSet> {
    let bad = |pattern: &str, error: globset::Error| {
        Failure::operator(format!("pattern `{pattern}`"), "it is no glob")
            .because(error)
            .hint("see docs/manifest.md")
    };
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        // A pattern without a slash means the name, wherever it is.
        let anywhere = if pattern.contains('/') { String::new() } else { "**/".to_owned() };
        let glob = GlobBuilder::new(&format!("{anywhere}{pattern}")).literal_separator(true).build();
        builder.add(glob.map_err(|e| bad(pattern, e))?);
    }
    builder.build().map_err(|e| bad("", e))
}

impl Filter {
    /// A filter of these globs; everything is included when `include` is empty.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self> {
        let globs = Globs { include: include.to_vec(), exclude: exclude.to_vec() };
        let include = if include.is_empty() { None } else { Some(set(include)?) };
        Ok(Self { include, exclude: set(exclude)?, globs })
    }

    /// The filter that was written so.
    pub fn of(globs: &Globs) -> Result<Self> {
        Self::new(&globs.include, &globs.exclude)
    }

    /// As it is written.
    pub fn globs(&self) -> &Globs {
        &self.globs
    }

    /// True when the path is hidden, and with it all it holds.
    pub fn hides(&self, path: &RelPath) -> bool {
        path.as_bytes() == STAGING.as_bytes() || self.exclude.is_match(as_path(path))
    }

    /// True when a thing of this dataset may stand at the path.
    pub fn lets_through(&self, path: &RelPath, is_directory: bool) -> bool {
        !self.hides(path) && (is_directory || self.takes(path))
    }

    /// True when a thing of this dataset may stand at the path, and nothing on the way to it is hidden: for paths that a
    /// peer names.
    pub fn admits(&self, path: &RelPath, is_directory: bool) -> bool {
        let mut above = path.split().map(|(parent, _)| parent);
        while let Some(parent) = above {
            if !parent.is_root() && self.hides(&parent) {
                return false;
            }
            above = parent.split().map(|(parent, _)| parent);
        }
        self.lets_through(path, is_directory)
    }

    /// True when a thing that is no directory belongs to the dataset. (Directories belong when they are not hidden.)
    pub fn takes(&self, path: &RelPath) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(as_path(path)))
    }
}

fn as_path(path: &RelPath) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn globs_hide_and_take() {
        let filter =
            Filter::new(&["*.log".into(), "conf/**".into()], &["*.tmp".into(), "cache".into()]).unwrap();
        for (text, hidden, taken) in [
            ("a.log", false, true),
            ("x/y.log", false, true),
            ("conf/a", false, true),
            ("a.txt", false, false),
            ("x/y.tmp", true, false),
            ("x/cache", true, false),
            (".handover", true, false),
        ] {
            assert_eq!((filter.hides(&path(text)), filter.takes(&path(text))), (hidden, taken), "{text}");
        }
    }

    #[test]
    fn a_bad_pattern_names_itself() {
        let failure = Filter::new(&["a[".into()], &[]).unwrap_err();
        assert!(failure.item.contains("a["), "{failure}");
    }
}
