//! What the source may do next.

use super::{CHILD, Event, KEYS, Rows, Table, VALUES, World};

impl World {
    /// Every change that the source can make now, as one transaction each, with what the log tells of it.
    pub fn source_changes(&self) -> Vec<(Rows, Vec<Event>)> {
        let mut out = Vec::new();
        let is_free = |value: u8| !self.source.parents.values().any(|v| *v == value);
        for key in KEYS {
            match self.source.parents.get(&key) {
                None => {
                    for value in VALUES.into_iter().filter(|value| is_free(*value)).take(1) {
                        let mut rows = self.source.clone();
                        rows.parents.insert(key, value);
                        out.push((rows, vec![Event::Parent(key)]));
                    }
                }
                Some(value) => {
                    for other in VALUES.into_iter().filter(|other| is_free(*other)) {
                        let mut rows = self.source.clone();
                        rows.parents.insert(key, other);
                        out.push((rows, vec![Event::Parent(key)]));
                    }
                    let mut rows = self.source.clone();
                    rows.parents.remove(&key);
                    rows.children.retain(|_, parent| *parent != key);
                    out.push((rows, vec![Event::ChildrenOf(key), Event::Parent(key)]));
                    for new in KEYS.into_iter().filter(|new| !self.source.parents.contains_key(new)) {
                        let mut rows = self.source.clone();
                        rows.parents.remove(&key);
                        rows.parents.insert(new, *value);
                        rows.children.values_mut().filter(|parent| **parent == key).for_each(|p| *p = new);
                        out.push((
                            rows,
                            vec![Event::ChildrenOf(key), Event::Parent(key), Event::Parent(new)],
                        ));
                    }
                    if self.source.children.get(&CHILD) != Some(&key) {
                        let mut rows = self.source.clone();
                        rows.children.insert(CHILD, key);
                        out.push((rows, vec![Event::Child(CHILD)]));
                    }
                }
            }
        }
        if self.source.children.contains_key(&CHILD) {
            let mut rows = self.source.clone();
            rows.children.remove(&CHILD);
            out.push((rows, vec![Event::Child(CHILD)]));
            let mut rows = self.source.clone();
            rows.clear(Table::Children);
            out.push((rows, vec![Event::Cleared(Table::Children)]));
        }
        // A table that is referenced is emptied with those that reference it.
        if !self.source.parents.is_empty() {
            let tables = [Table::Parents, Table::Children];
            let mut rows = self.source.clone();
            tables.iter().for_each(|table| rows.clear(*table));
            out.push((rows, tables.map(Event::Cleared).to_vec()));
        }
        if let [a, b] = self.source.parents.values().copied().collect::<Vec<_>>()[..] {
            let mut rows = self.source.clone();
            rows.parents = KEYS.into_iter().zip([b, a]).collect();
            out.push((rows, vec![Event::Parent(1), Event::Parent(2)]));
        }
        out
    }
}
