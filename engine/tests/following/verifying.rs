//! Verification under load (`follow/verify.rs`), over the same two tables: a key is looked at while the source changes and changes
//! are carried out, in every order. What is right is never said to differ, and what was planted is found.

use std::collections::{HashSet, VecDeque};

use handover_engine::follow::verify::{Seen, Verdict};

use super::{Fault, Place, VALUES, World, all_places};

/// What is wrong with a variant that must be found out.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// The target is read although older changes may still wait.
    DoesNotWaitBefore,
    /// It is decided although changes that were made meanwhile may still wait.
    DoesNotWaitAfter,
    /// It is not noted which keys are carried out.
    DoesNotListen,
    /// Children that a cascade leads to are not noted.
    DoesNotListenForCascades,
}

/// How far looking at a key has got.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// Waits until so many events are carried out.
    Before(usize),
    Here,
    After,
    Until(usize),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Look {
    place: Place,
    stage: Stage,
    before: Option<u8>,
    here: Option<u8>,
    after: Option<u8>,
    is_told: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Both {
    world: World,
    look: Option<Look>,
    planted: Option<Place>,
}

impl Look {
    fn verdict(&self) -> Verdict {
        let (before, here, after) = (self.before.as_ref(), self.here.as_ref(), self.after.as_ref());
        Seen { before, here, after, is_told: self.is_told }.verdict()
    }

    /// What following does is seen by whoever looks.
    fn sees(&mut self, was: &World, is: &World, flaw: Flaw) {
        match (&was.window, &is.window) {
            (None, Some(window)) if flaw != Flaw::DoesNotListen => {
                let is_named = was.spool.iter().take(window.events).any(|event| match event {
                    super::Event::Parent(key) => self.place == Place::Parent(*key),
                    super::Event::Child(key) => self.place == Place::Child(*key),
                    super::Event::ChildrenOf(_) | super::Event::Cleared(_) => false,
                });
                self.is_told |= window.unread.contains(&self.place)
                    && (is_named || flaw != Flaw::DoesNotListenForCascades);
            }
            (Some(was), Some(is)) if flaw != Flaw::DoesNotListen => {
                let is_cleared = |window: &super::Window| !window.clears.contains(&self.place.table());
                self.is_told |= is_cleared(is) && !is_cleared(was);
            }
            (Some(window), None) if is.spool.len() < was.spool.len() => {
                if let Stage::Before(left) | Stage::Until(left) = &mut self.stage {
                    *left = left.saturating_sub(window.events);
                }
            }
            _ => {}
        }
    }
}

impl Both {
    /// Everything that was committed by now and is not carried out.
    fn waiting(&self) -> usize {
        self.world.log.len() + self.world.spool.len()
    }

    fn steps(&self, flaw: Flaw) -> Vec<Both> {
        let mut out: Vec<Both> = Vec::new();
        for world in self.world.steps(Fault::None) {
            let mut look = self.look.clone();
            if let Some(look) = &mut look {
                look.sees(&self.world, &world, flaw);
            }
            out.push(Both { world, look, planted: self.planted });
        }
        match &self.look {
            None => {
                for place in all_places() {
                    let stage =
                        Stage::Before(if flaw == Flaw::DoesNotWaitBefore { 0 } else { self.waiting() });
                    let before = self.world.source.get(place);
                    let look = Look { place, stage, before, here: None, after: None, is_told: false };
                    out.push(Both { look: Some(look), ..self.clone() });
                }
            }
            Some(look) => out.extend(self.further(look, flaw)),
        }
        out
    }

    fn further(&self, look: &Look, flaw: Flaw) -> Option<Both> {
        let (mut next, world) = (look.clone(), &self.world);
        match look.stage {
            Stage::Before(0) => next.stage = Stage::Here,
            Stage::Here => {
                (next.here, next.stage) = (world.target.get(look.place), Stage::After);
            }
            Stage::After => {
                next.after = world.source.get(look.place);
                next.stage = Stage::Until(if flaw == Flaw::DoesNotWaitAfter { 0 } else { self.waiting() });
            }
            Stage::Before(_) | Stage::Until(_) => return None,
        }
        Some(Both { look: Some(next), ..self.clone() })
    }

    /// The target as somebody else might have changed it.
    fn planted(&self) -> Vec<Both> {
        let mut out = Vec::new();
        for place in all_places() {
            for row in VALUES.into_iter().map(Some).chain([None]) {
                let is_child = matches!(place, Place::Child(_));
                let row = if is_child { row.map(|value| value - VALUES[0] + 1) } else { row };
                let is_taken =
                    !is_child && row.is_some() && self.world.target.parents.values().any(|v| Some(*v) == row);
                if is_taken || self.world.target.get(place) == row {
                    continue;
                }
                let mut next = self.clone();
                next.world.target.put(place, row);
                next.planted = Some(place);
                out.push(next);
            }
        }
        out
    }
}

/// How often what was found.
#[derive(Debug, Default)]
struct Counts {
    same: usize,
    moving: usize,
    differs: usize,
}

/// Looks at every state that can be reached; the first in which something is said that is not so.
fn explore(firsts: Vec<Both>, flaw: Flaw) -> Result<Counts, Box<Both>> {
    let mut seen: HashSet<Both> = firsts.iter().cloned().collect();
    let (mut open, mut counts) = (VecDeque::from(firsts), Counts::default());
    while let Some(both) = open.pop_front() {
        if let Some(look) = both.look.as_ref().filter(|look| look.stage == Stage::Until(0)) {
            match look.verdict() {
                Verdict::Same => counts.same += 1,
                Verdict::Moving => counts.moving += 1,
                Verdict::Differs(_) if both.planted == Some(look.place) => counts.differs += 1,
                Verdict::Differs(_) => return Err(Box::new(both)),
            }
            let is_quiet = both.world.is_quiet() && both.world.changes == super::CHANGES - 1;
            let is_wrong = both.world.target.get(look.place) != both.world.source.get(look.place);
            if is_quiet && is_wrong && !matches!(look.verdict(), Verdict::Differs(_)) {
                return Err(Box::new(both));
            }
            continue;
        }
        for next in both.steps(flaw) {
            if !seen.contains(&next) {
                seen.insert(next.clone());
                open.push_back(next);
            }
        }
    }
    eprintln!("{} states, {counts:?}", seen.len());
    Ok(counts)
}

/// A copy of one or two parents and a child that is complete and right; the source may make so many changes.
fn copied(changes: u8, parents: u8) -> Both {
    let mut world = World { copied: true, changes: super::CHANGES - changes, ..World::default() };
    world.source.parents.extend((1..=parents).map(|key| (key, VALUES[0] + key - 1)));
    world.source.children.insert(1, 1);
    world.target = world.source.clone();
    Both { world, look: None, planted: None }
}

#[test]
fn what_is_right_never_differs() {
    match explore(vec![copied(2, 1), copied(2, 2)], Flaw::None) {
        Ok(counts) => {
            assert!(counts.same > 1_000 && counts.moving > 100 && counts.differs == 0, "{counts:?}");
        }
        Err(both) => panic!("this is said to differ: {both:#?}"),
    }
}

#[test]
fn what_is_planted_is_found_and_nothing_else() {
    match explore(copied(1, 2).planted(), Flaw::None) {
        Ok(counts) => assert!(counts.differs > 10, "{counts:?}"),
        Err(both) => panic!("the wrong thing is said: {both:#?}"),
    }
}

#[test]
fn broken_ways_to_look_are_found_out() {
    for (flaw, parents, name) in [
        (Flaw::DoesNotWaitBefore, 2, "not waiting before the target is read"),
        (Flaw::DoesNotWaitAfter, 2, "not waiting before it is decided"),
        (Flaw::DoesNotListen, 2, "not noting what is carried out"),
        (Flaw::DoesNotListenForCascades, 1, "not noting what cascades lead to"),
    ] {
        assert!(explore(vec![copied(2, parents)], flaw).is_err(), "{name} is not found out");
    }
}
