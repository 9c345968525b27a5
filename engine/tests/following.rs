//! The argument of docs/following.md, checked: every interleaving of a source that changes, a copy that is made of it, changes
//! that are told by key, tables that are emptied, parts of the log that are told twice, windows that are carried out in any order, and crashes
//! between any two steps, over two small tables. Whenever nothing waits, the target holds what the source holds.
//!
//! What is modelled is what the code promises (`follow.rs`, `follow/carry.rs`, the ports); broken variants of it must be found out.

#[path = "following/source.rs"]
mod source;
#[path = "following/verifying.rs"]
mod verifying;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

/// A row of the parent table: its value is unique.
type Parents = BTreeMap<u8, u8>;
/// A row of the child table: the parent that it references, ON DELETE CASCADE and ON UPDATE CASCADE.
type Children = BTreeMap<u8, u8>;

const KEYS: [u8; 2] = [1, 2];
/// The one child.
const CHILD: u8 = 1;
const VALUES: [u8; 3] = [7, 8, 9];
/// Changes that the source makes in all.
const CHANGES: u8 = 3;
/// So many of them are left where parts of the log may be told twice, too.
const RETOLD_CHANGES: u8 = 2;

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, PartialOrd, Ord)]
struct Rows {
    parents: Parents,
    children: Children,
}

/// What the log tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
enum Event {
    Parent(u8),
    Child(u8),
    /// Children of this parent were changed by a cascade, which the log does not tell of otherwise.
    ChildrenOf(u8),
    /// All rows that were there are gone (TRUNCATE).
    Cleared(Table),
}

/// One of the two tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
enum Table {
    Parents,
    Children,
}

/// One key of a window.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
enum Place {
    Parent(u8),
    Child(u8),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Window {
    /// Events of the spool that it carries out.
    events: usize,
    /// Tables that are still to be emptied, before anything else is done.
    clears: BTreeSet<Table>,
    unread: BTreeSet<Place>,
    /// Rows that were read and are on their way.
    read: BTreeMap<Place, Option<u8>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct World {
    changes: u8,
    source: Rows,
    /// What was not yet taken from the log.
    log: VecDeque<Event>,
    /// What was taken, where it may be told again: the source has let go of any part of it, from its beginning on.
    taken: Option<VecDeque<Event>>,
    /// So many events of the log were told before.
    retold: usize,
    spool: VecDeque<Event>,
    /// The snapshot that is copied, and the parts of it that are still to come.
    snapshot: Option<(Rows, BTreeSet<Place>)>,
    copied: bool,
    target: Rows,
    window: Option<Window>,
}

/// What is wrong with a variant that must be found out.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The window is forgotten when its rows are read, not when they are applied.
    ForgetsEarly,
    /// Nothing is told of cascades.
    ForgetsCascades,
    /// Changes are kept only from the moment when the copy is complete.
    CapturesLate,
    /// Children are looked up after the parents were carried out.
    LooksUpLate,
    /// A row of a key that is gone stays.
    KeepsDeleted,
    /// Nothing is done about a table that was emptied.
    ForgetsTruncate,
    /// A table is emptied after the window's rows were put in place.
    ClearsLate,
    /// A part of the log of which something was told before is left out, with what is new in it.
    LeavesOutRetold,
}

impl Place {
    fn table(self) -> Table {
        match self {
            Place::Parent(_) => Table::Parents,
            Place::Child(_) => Table::Children,
        }
    }
}

fn all_places() -> impl Iterator<Item = Place> {
    KEYS.into_iter().map(Place::Parent).chain([Place::Child(CHILD)])
}

impl Rows {
    fn get(&self, place: Place) -> Option<u8> {
        match place {
            Place::Parent(key) => self.parents.get(&key).copied(),
            Place::Child(key) => self.children.get(&key).copied(),
        }
    }

    /// Puts a row in place; another parent with the same value is stale and goes.
    fn put(&mut self, place: Place, row: Option<u8>) {
        match (place, row) {
            (Place::Parent(key), Some(value)) => {
                self.parents.retain(|other, theirs| *other == key || *theirs != value);
                self.parents.insert(key, value);
            }
            (Place::Child(key), Some(parent)) => drop(self.children.insert(key, parent)),
            (Place::Parent(key), None) => drop(self.parents.remove(&key)),
            (Place::Child(key), None) => drop(self.children.remove(&key)),
        }
    }

    fn clear(&mut self, table: Table) {
        match table {
            Table::Parents => self.parents.clear(),
            Table::Children => self.children.clear(),
        }
    }
}

impl World {
    /// The window over the first `events` of the spool.
    fn window(&self, events: usize, fault: Fault) -> Window {
        let some = || self.spool.iter().take(events);
        let cleared = |event: &Event| if let Event::Cleared(table) = event { Some(*table) } else { None };
        let clears: BTreeSet<Table> = some().filter_map(cleared).collect();
        let mut unread = BTreeSet::new();
        for event in some() {
            match event {
                Event::Parent(key) => drop(unread.insert(Place::Parent(*key))),
                Event::Child(key) => drop(unread.insert(Place::Child(*key))),
                // Looked up once tables are emptied: of those that are, none is left.
                Event::ChildrenOf(parent)
                    if fault != Fault::LooksUpLate && !clears.contains(&Table::Children) =>
                {
                    let theirs = self.target.children.iter().filter(|(_, theirs)| *theirs == parent);
                    unread.extend(theirs.map(|(key, _)| Place::Child(*key)));
                }
                Event::ChildrenOf(_) | Event::Cleared(_) => {}
            }
        }
        Window { events, clears, unread, read: BTreeMap::new() }
    }

    fn steps(&self, fault: Fault) -> Vec<World> {
        let mut out = Vec::new();
        if self.changes < CHANGES {
            for (rows, events) in self.source_changes() {
                let mut next = self.clone();
                next.changes += 1;
                next.source = rows;
                let told = events.into_iter().filter(|event| match event {
                    Event::ChildrenOf(_) => fault != Fault::ForgetsCascades,
                    Event::Cleared(_) => fault != Fault::ForgetsTruncate,
                    Event::Parent(_) | Event::Child(_) => true,
                });
                if fault != Fault::CapturesLate || self.copied {
                    next.log.extend(told);
                }
                out.push(next);
            }
        }
        self.gather(fault, &mut out);
        self.copy(&mut out);
        if self.copied {
            self.carry(fault, &mut out);
        }
        out
    }

    /// A part of the log goes into the spool: one event, or all there are. Or what was not confirmed is told again.
    fn gather(&self, fault: Fault, out: &mut Vec<World>) {
        for count in
            BTreeSet::from([1, self.log.len()]).into_iter().filter(|n| *n > 0 && *n <= self.log.len())
        {
            let mut next = self.clone();
            let part: Vec<Event> = next.log.drain(..count).collect();
            next.retold = self.retold.saturating_sub(count);
            next.taken.iter_mut().for_each(|taken| taken.extend(part.iter().copied()));
            if fault != Fault::LeavesOutRetold || self.retold == 0 {
                next.spool.extend(part);
            }
            out.push(next);
        }
        for kept in 0..self.taken.as_ref().map_or(0, VecDeque::len) {
            let mut next = self.clone();
            let mut again = next.taken.take().unwrap_or_default().split_off(kept);
            next.retold = again.len();
            again.append(&mut next.log);
            next.log = again;
            out.push(next);
        }
    }

    /// The next row of the snapshot is copied, or the snapshot is lost.
    fn copy(&self, out: &mut Vec<World>) {
        match &self.snapshot {
            None if !self.copied => {
                let mut next = self.clone();
                next.snapshot = Some((self.source.clone(), all_places().collect()));
                out.push(next);
            }
            None => {}
            Some((rows, left)) => {
                let mut next = self.clone();
                let mut left = left.clone();
                if let Some(place) = left.pop_first() {
                    next.target.put(place, rows.get(place));
                }
                next.copied = left.is_empty();
                next.snapshot = (!next.copied).then(|| (rows.clone(), left));
                out.push(next);
                // The snapshot is lost: it is copied anew.
                let mut next = self.clone();
                next.snapshot = None;
                out.push(next);
            }
        }
    }

    /// The steps of whoever carries changes out, and its crashes.
    fn carry(&self, fault: Fault, out: &mut Vec<World>) {
        let Some(window) = &self.window else {
            for events in
                BTreeSet::from([1, self.spool.len()]).into_iter().filter(|n| *n > 0 && *n <= self.spool.len())
            {
                let mut next = self.clone();
                next.window = Some(self.window(events, fault));
                out.push(next);
            }
            return;
        };
        let mut crashed = self.clone();
        crashed.window = None;
        out.push(crashed);
        let is_read = window.unread.is_empty() && window.read.is_empty();
        if !window.clears.is_empty() && (is_read || fault != Fault::ClearsLate) {
            for table in &window.clears {
                let mut next = self.clone();
                next.target.clear(*table);
                if let Some(window) = &mut next.window {
                    window.clears.remove(table);
                }
                out.push(next);
            }
            return;
        }
        for place in &window.unread {
            let mut next = self.clone();
            if let Some(window) = &mut next.window {
                window.unread.remove(place);
                window.read.insert(*place, self.source.get(*place));
                if fault == Fault::ForgetsEarly && window.unread.is_empty() {
                    next.spool.drain(..std::mem::take(&mut window.events));
                }
            }
            out.push(next);
        }
        for (place, row) in &window.read {
            let mut next = self.clone();
            if !(fault == Fault::KeepsDeleted && row.is_none()) {
                next.target.put(*place, *row);
            }
            if let Some(window) = &mut next.window {
                window.read.remove(place);
            }
            out.push(next);
        }
        if is_read {
            let mut next = self.clone();
            next.spool.drain(..window.events);
            next.window = None;
            out.push(next);
        }
    }

    fn is_quiet(&self) -> bool {
        self.copied && self.log.is_empty() && self.spool.is_empty() && self.window.is_none()
    }
}

/// Looks at every state that can be reached; how many, or the first in which nothing waits and the two sides differ.
fn explore(fault: Fault) -> Result<usize, Box<World>> {
    let mut first = World::default();
    first.source.parents.insert(1, 7);
    first.source.children.insert(1, 1);
    let retold = World { changes: CHANGES - RETOLD_CHANGES, taken: Some(VecDeque::new()), ..first.clone() };
    let mut open = VecDeque::from([first, retold]);
    let mut seen: HashSet<World> = open.iter().cloned().collect();
    while let Some(world) = open.pop_front() {
        if world.is_quiet() && world.target != world.source {
            return Err(Box::new(world));
        }
        for next in world.steps(fault) {
            if !seen.contains(&next) {
                seen.insert(next.clone());
                open.push_back(next);
            }
        }
    }
    eprintln!("{} states", seen.len());
    Ok(seen.len())
}

#[test]
fn whenever_nothing_waits_both_sides_hold_the_same() {
    match explore(Fault::None) {
        Ok(states) => assert!(states > 50_000, "only {states} states were looked at"),
        Err(world) => panic!("the target is wrong: {world:#?}"),
    }
}

#[test]
fn broken_variants_are_found_out() {
    for (fault, name) in [
        (Fault::ForgetsEarly, "forgetting a window before it is applied"),
        (Fault::ForgetsCascades, "not telling of cascades"),
        (Fault::CapturesLate, "keeping changes from after the copy only"),
        (Fault::LooksUpLate, "looking children up too late"),
        (Fault::KeepsDeleted, "keeping deleted rows"),
        (Fault::ForgetsTruncate, "passing TRUNCATE over"),
        (Fault::ClearsLate, "emptying a table too late"),
        (Fault::LeavesOutRetold, "leaving out what is told with something that was told before"),
    ] {
        assert!(explore(fault).is_err(), "{name} is not found out");
    }
}
