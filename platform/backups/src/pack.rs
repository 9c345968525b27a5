//! How a dataset's file is packed.

use std::path::Path;

/// How a dataset's file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// By us, with zstd: its tool does not.
    Zstd,
    /// Its tool has done so.
    AsItIs,
}

impl Packing {
    /// By the file's name.
    pub fn of(file: &Path) -> Self {
        if file.extension().is_some_and(|end| end == "zst") { Packing::Zstd } else { Packing::AsItIs }
    }
}
