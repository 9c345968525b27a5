//! The order in which the tables are locked.
//!
//! A writer that holds one table and asks for another that we hold waits for us while we wait for it. Such a table is asked for first
//! the next time: whoever asks for it then waits behind us before it holds anything else.

use std::collections::HashMap;

/// Tables that are asked for one by one: which of them is in use is known then.
const ALONE: usize = 64;

/// Tables that were found in use.
#[derive(Default)]
pub struct Order {
    /// When each was found last.
    met: HashMap<String, u32>,
    rounds: u32,
}

impl Order {
    /// These could not be had.
    pub fn met<'a>(&mut self, tables: impl IntoIterator<Item = &'a str>) {
        self.rounds += 1;
        self.met.extend(tables.into_iter().map(|table| (table.to_owned(), self.rounds)));
    }

    /// Those to be asked for one by one, in this order, and those that may be asked for together.
    pub fn arrange(&self, mut tables: Vec<String>) -> (Vec<String>, Vec<String>) {
        tables.sort_by_key(|table| std::cmp::Reverse(self.met.get(table).copied().unwrap_or(0)));
        let rest = tables.split_off(tables.len().min(ALONE));
        (tables, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_met_last_comes_first() {
        let tables = || (0..ALONE + 2).map(|n| format!("t{n}")).collect::<Vec<_>>();
        let mut order = Order::default();
        let (alone, rest) = order.arrange(tables());
        assert_eq!((alone[0].as_str(), alone.len(), rest.len()), ("t0", ALONE, 2));
        order.met(["t3"]);
        order.met(["t65", "t9"]);
        order.met(["gone"]);
        let (alone, rest) = order.arrange(tables());
        assert_eq!(alone[..5], ["t9", "t65", "t3", "t0", "t1"].map(str::to_owned));
        assert_eq!(rest, ["t63", "t64"].map(str::to_owned));
    }
}
