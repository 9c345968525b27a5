//! Users, who write wherever they are let, and remember all that they were told is written.

use handover_engine::rows::TableName;

use super::base::{Base, notes, orders};
use super::world::{Side, World};
use crate::model::Rows;
use crate::world::{PerDataset, databases};

/// Of so many looks at the world, of which each call has two, one is followed by a write to each database: more seldom than a follower
/// carries, or it would never catch up.
pub const EVERY: u64 = 12;

/// What users know.
pub struct Users {
    /// What they were told is written, by database.
    pub written: PerDataset<Rows>,
    /// The last number that they were given.
    pub last: PerDataset<i64>,
    /// Writes that were asked for, and those that the target has taken.
    asked: u64,
    pub at_target: u64,
}

impl Users {
    pub fn new() -> Self {
        let rows = databases().map(|database| (database, Base::empty().rows));
        Self { written: rows.into(), last: PerDataset::new(), asked: 0, at_target: 0 }
    }

    /// Whether it is time for a write.
    fn is_due(&mut self) -> bool {
        self.asked += 1;
        self.asked.is_multiple_of(EVERY)
    }
}

/// What users do.
enum Write {
    Insert(TableName),
    Change(i64),
    Delete(i64),
    Empty,
}

/// The next write to a database that looks like this.
fn next(turn: u64, rows: &Rows) -> Write {
    let some = rows[&orders()].keys().nth(turn as usize % 3).copied();
    match (turn % 7, some) {
        (2, _) => Write::Insert(notes()),
        (1 | 4, Some(key)) => Write::Change(key),
        (5, Some(key)) => Write::Delete(key),
        (6, _) if turn.is_multiple_of(4) => Write::Empty,
        _ => Write::Insert(orders()),
    }
}

/// Users write to each database, at whichever side takes it.
pub fn write(world: &mut World) {
    if !world.users.is_due() {
        return;
    }
    let turn = world.users.asked / EVERY;
    for database in databases() {
        for side in [Side::Source, Side::Target] {
            let Some(base) = world.host(side).bases.get_mut(&database) else { continue };
            if !base.is_writable() {
                continue;
            }
            let (table, key, value) = match next(turn, &base.rows) {
                Write::Insert(table) => {
                    base.next += 1;
                    (table, Some(base.next - 1), Some(format!("new in {turn}")))
                }
                Write::Change(key) => (orders(), Some(key), Some(format!("changed in {turn}"))),
                Write::Delete(key) => (orders(), Some(key), None),
                Write::Empty => (orders(), None, None),
            };
            base.write(&table, key, value.clone());
            let (is_new, given) = (value.as_ref().is_some_and(|text| text.starts_with("new")), key);
            remember(world, &database, (table, key, value));
            world.users.at_target += u64::from(side == Side::Target);
            if let (true, Some(given)) = (is_new, given) {
                let last = world.users.last.insert(database.clone(), given).unwrap_or(0);
                if given <= last {
                    world.wrong(format!("{database}: number {given} is given again after {last}"));
                }
            }
        }
    }
}

fn remember(
    world: &mut World,
    database: &handover_engine::name::DatasetName,
    (table, key, value): (TableName, Option<i64>, Option<String>),
) {
    let rows = world.users.written.get_mut(database).and_then(|rows| rows.get_mut(&table)).expect("a table");
    match (key, value) {
        (Some(key), Some(value)) => drop(rows.insert(key, value)),
        (Some(key), None) => drop(rows.remove(&key)),
        (None, _) => rows.clear(),
    }
}
