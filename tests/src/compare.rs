//! Compares what arrived with what was to be moved, without a line of the product's code.

mod database;
mod server;
mod tree;

pub use database::databases;
pub use server::{
    Side, Sums, rows_by_checksum, same_sums, servers, servers_between_passes, servers_by_checksum, sums,
};
pub use tree::trees;

/// Differences that are named; further ones are only counted.
const NAMED: usize = 200;

/// What a comparison found, and how much it looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Number of differences.
    pub found: u64,
    /// The first of them, each naming its item.
    pub named: Vec<String>,
    /// Rows of the left side.
    pub rows: u64,
    /// Tables of the left side.
    pub tables: u64,
    /// Regular files of the left side (one per name).
    pub files: u64,
    /// Bytes: of the files, each inode once, and of the database files.
    pub bytes: u64,
}

impl Comparison {
    /// Notes a difference.
    pub fn differs(&mut self, what: impl Into<String>) {
        self.found += 1;
        if self.named.len() < NAMED {
            self.named.push(what.into());
        }
    }

    /// Adds another comparison's findings.
    pub fn join(&mut self, other: Comparison) {
        self.found += other.found;
        self.named.extend(other.named);
        self.named.truncate(NAMED);
        self.rows += other.rows;
        self.tables += other.tables;
        self.files += other.files;
        self.bytes += other.bytes;
    }

    /// The differences as lines, for a failed assertion.
    pub fn describe(&self) -> String {
        let more = self.found.saturating_sub(self.named.len() as u64);
        let tail = if more > 0 { format!("\n… and {more} more") } else { String::new() };
        format!("{} differences\n{}{tail}", self.found, self.named.join("\n"))
    }
}
