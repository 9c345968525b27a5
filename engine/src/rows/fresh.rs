//! What a loader knows of tables that were empty when it began.

use std::collections::{BTreeMap, BTreeSet};

use super::{Key, KeyRange, TableName};
use crate::digest::Digest;

/// An end of a range: whether the upper one, and the digest of its key, since there may be many.
type End = (bool, Option<Digest>);

/// What is known of tables' rows since they were looked at: ranges that nobody has touched need not be emptied.
#[derive(Debug, Default)]
pub struct Fresh {
    tables: BTreeMap<TableName, BTreeSet<End>>,
}

impl Fresh {
    /// A table that is empty now.
    pub fn empty(&mut self, table: &TableName) {
        self.tables.insert(table.clone(), BTreeSet::new());
    }

    /// Nothing is known any more.
    pub fn clear(&mut self) {
        self.tables.clear();
    }

    /// Whether a range is certainly empty; it is not from now on. Ranges of one load follow each other, so that two
    /// that overlap begin or end at the same key; a load from another view begins by looking at the tables again.
    pub fn take(&mut self, table: &TableName, range: &KeyRange) -> bool {
        let Some(ends) = self.tables.get_mut(table) else { return false };
        let digest = |key: &Option<Key>| key.as_ref().map(|key| Digest::of(&key.0));
        let after = ends.insert((false, digest(&range.after)));
        let until = ends.insert((true, digest(&range.until)));
        after && until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_fresh_once() {
        let (table, other) = (TableName::plain("t"), TableName::plain("u"));
        let key = |text: &'static str| Some(Key(text.into()));
        let first = KeyRange { after: None, until: key("5") };
        let rest = KeyRange { after: key("5"), until: None };
        let cut_anew = KeyRange { after: key("5"), until: key("7") };
        let mut fresh = Fresh::default();
        assert!(!fresh.take(&table, &first), "nothing is known of it");
        fresh.empty(&table);
        assert!(fresh.take(&table, &first) && fresh.take(&table, &rest));
        assert!(!fresh.take(&table, &first) && !fresh.take(&table, &cut_anew) && !fresh.take(&other, &first));
        fresh.empty(&table);
        fresh.clear();
        assert!(!fresh.take(&table, &first));
    }
}
