//! In which order units start and stop: as their sections say, and what triggers another one, a socket, a timer or a path, before that
//! one in either direction. systemd refuses a socket whose service runs; and what is stopped before its trigger starts again.

use crate::section::ServiceSection;
use crate::units::UnitState;

/// A unit that is named, and how it stands.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    pub section: &'a ServiceSection,
    pub state: UnitState,
}

impl Found<'_> {
    /// The orders of those of `all` that trigger it.
    fn triggers(&self, all: &[Found<'_>]) -> impl Iterator<Item = i32> {
        let is_one = |other: &&Found<'_>| other.state.triggers.contains(&self.section.unit);
        all.iter().filter(is_one).map(|other| other.section.order).collect::<Vec<_>>().into_iter()
    }

    /// Whether one of `all` starts it when it is called for.
    pub fn is_triggered(&self, all: &[Found<'_>]) -> bool {
        self.triggers(all).next().is_some()
    }
}

/// The first to start first; those of one group side by side.
pub fn to_start<'a, 's>(all: &'a [Found<'s>]) -> Vec<Vec<&'a Found<'s>>> {
    grouped(all, |found| {
        let order = found.section.order;
        found.triggers(all).max().map_or((order.into(), 0), |trigger| (order.max(trigger).into(), 1))
    })
}

/// The first to stop first; those of one group side by side.
pub fn to_stop<'a, 's>(all: &'a [Found<'s>]) -> Vec<Vec<&'a Found<'s>>> {
    grouped(all, |found| {
        let order = found.section.order;
        let back = |order: i32| -i64::from(order);
        found.triggers(all).min().map_or((back(order), 0), |trigger| (back(order.min(trigger)), 1))
    })
}

fn grouped<'a, 's>(all: &'a [Found<'s>], key: impl Fn(&Found<'s>) -> (i64, u8)) -> Vec<Vec<&'a Found<'s>>> {
    let mut keyed: Vec<_> = all.iter().map(|found| (key(found), found)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    let groups = keyed.chunk_by(|(one, _), (other, _)| one == other);
    groups.map(|group| group.iter().map(|(_, found)| *found).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_come_before_what_they_trigger() {
        for (units, start, stop) in [
            (&[("a", 2, ""), ("b", 1, ""), ("c", 2, ""), ("d", i32::MIN, "")][..], "d b ac", "ac b d"),
            (&[("s", 0, ""), ("t", 0, "s")], "t s", "t s"),
            (&[("s", 30, ""), ("t", 40, "s"), ("x", 35, "")], "x t s", "t x s"),
            (&[("s", 40, ""), ("t", 30, "s"), ("x", 35, "")], "t x s", "x t s"),
            (&[("s", 5, ""), ("a", 5, "t")], "sa", "sa"),
        ] {
            let sections: Vec<_> = units
                .iter()
                .map(|(unit, order, _)| ServiceSection { order: *order, ..ServiceSection::of(unit) })
                .collect();
            let state = |what: &str| UnitState { triggers: vec![what.to_owned()], ..UnitState::default() };
            let found =
                sections.iter().zip(units).map(|(section, (.., what))| Found { section, state: state(what) });
            let found: Vec<_> = found.collect();
            let told = |groups: Vec<Vec<&Found<'_>>>| {
                let group = |group: &Vec<&Found<'_>>| {
                    group.iter().map(|found| found.section.unit.as_str()).collect::<String>()
                };
                groups.iter().map(group).collect::<Vec<_>>().join(" ")
            };
            assert_eq!((told(to_start(&found)).as_str(), told(to_stop(&found)).as_str()), (start, stop));
        }
    }
}
