//! The move, explored with every call failing before or after it has acted, and an abort at every point.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;

use super::*;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// It did not arrive.
    Lost,
    /// It was done, and its answer was lost; or who called has crashed.
    Unanswered,
}

const FATES: [Fate; 3] = [Fate::Done, Fate::Lost, Fate::Unanswered];

#[derive(Default)]
struct World {
    /// Of the source, and of the target.
    hosts: [Held; 2],
    /// Whose manifest declares none.
    undeclared: Option<usize>,
    /// What becomes of the next calls; those after them are done.
    fates: VecDeque<Fate>,
    wrong: Vec<&'static str>,
}

impl World {
    fn look(&mut self) {
        let [source, target] = &self.hosts;
        if source.valid.is_some() && target.valid.is_some() {
            self.wrong.push("it is valid on both");
        }
        let holds = |host: &Held| host.valid.is_some() || host.kept.is_some();
        if source.valid.is_none() && !(holds(source) && holds(target)) && target.valid.is_none() {
            self.wrong.push("it is valid on none, and not held by both");
        }
    }
}

/// Nothing here waits.
fn block_on<T>(act: impl Future<Output = T>) -> T {
    act.now_or_never().expect("an answer")
}

#[derive(Clone)]
struct Host(Arc<Mutex<World>>, usize);

impl Host {
    fn call<T>(&self, act: impl FnOnce(&mut Held) -> Result<T>) -> Result<T> {
        let mut world = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = || Failure::transient("licence", "the answer was lost");
        let fate = world.fates.pop_front().unwrap_or(Fate::Done);
        if fate == Fate::Lost {
            return Err(lost());
        }
        let answer = act(&mut world.hosts[self.1])?;
        world.look();
        if fate == Fate::Unanswered { Err(lost()) } else { Ok(answer) }
    }
}

#[async_trait]
impl Licences for Host {
    async fn standing(&self) -> Result<Standing> {
        let world = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(if world.undeclared == Some(self.1) { Standing::Undeclared } else { Standing::None })
    }

    async fn held(&self, _: &MigrationId) -> Result<Held> {
        self.call(|held| {
            let is_of_kept = match (&held.valid, &held.kept) {
                (Some(valid), Some(kept)) => valid.0[..3] == kept.0[..3],
                _ => false,
            };
            Ok(Held { is_of_kept, ..held.clone() })
        })
    }

    async fn keep(&self, _: &MigrationId, document: &Document) -> Result<()> {
        self.call(|held| {
            held.kept = Some(document.clone());
            Ok(())
        })
    }

    async fn withdraw(&self, _: &MigrationId, digest: Digest) -> Result<()> {
        self.call(|held| match held.valid.take() {
            Some(valid) if valid.digest() != digest => {
                held.valid = Some(valid);
                Err(Failure::transient("licence", "it was renewed meanwhile"))
            }
            Some(valid) => {
                held.kept = Some(valid);
                Ok(())
            }
            None if held.kept.as_ref().is_some_and(|kept| kept.digest() == digest) => Ok(()),
            None => Err(Failure::transient("licence", "somebody else moves it")),
        })
    }

    async fn instate(&self, _: &MigrationId) -> Result<()> {
        self.call(|held| match (&held.valid, &held.kept) {
            (Some(valid), Some(kept)) if valid != kept => {
                Err(Failure::operator("licence", "another is valid"))
            }
            (_, None) => Err(Failure::operator("licence", "none is kept")),
            (_, Some(kept)) => {
                held.valid = Some(kept.clone());
                Ok(())
            }
        })
    }

    async fn forget(&self, _: &MigrationId) -> Result<()> {
        self.call(|held| {
            held.kept = None;
            Ok(())
        })
    }
}

fn only(text: &'static str) -> Held {
    Held { valid: Some(document(text)), ..Held::default() }
}

fn document(text: &'static str) -> Document {
    Document(Bytes::from_static(text.as_bytes()))
}

fn world(fates: &[Fate]) -> (Arc<Mutex<World>>, Host, Host) {
    let held = Held { valid: Some(document("one")), ..Held::default() };
    let world =
        World { hosts: [held, Held::default()], fates: fates.iter().copied().collect(), ..World::default() };
    let world = Arc::new(Mutex::new(world));
    (world.clone(), Host(world.clone(), 0), Host(world, 1))
}

/// All sequences of fates of a length.
fn sequences(length: u32) -> impl Iterator<Item = Vec<Fate>> {
    (0..3_usize.pow(length)).map(move |n| (0..length).map(|at| FATES[n / 3_usize.pow(at) % 3]).collect())
}

/// Tries until it is done.
fn persist(mut act: impl FnMut() -> Result<()>) {
    for _ in 0..100 {
        match act() {
            Ok(()) => return,
            Err(failure) => assert!(failure.is_transient(), "{failure}"),
        }
    }
    panic!("it never ends");
}

/// Whatever calls are lost: at the end it is valid at the target alone.
#[test]
fn it_moves_whatever_is_lost() {
    let id = MigrationId::nobody();
    for fates in sequences(7) {
        let (world, source, target) = world(&fates);
        persist(|| block_on(carry(&source, &target, &id)));
        persist(|| block_on(forget(&source, &target, &id)));
        let world = world.lock().unwrap();
        assert_eq!(world.wrong, [""; 0], "{fates:?}");
        assert_eq!(world.hosts, [Held::default(), only("one")]);
    }
}

/// An abort after any number of tries, each lost anywhere: at the end it is valid at the source alone.
#[test]
fn it_comes_home_from_wherever_it_is() {
    let id = MigrationId::nobody();
    for (fates, tries) in sequences(8).flat_map(|fates| (0..4).map(move |tries| (fates.clone(), tries))) {
        let (world, source, target) = world(&fates);
        for _ in 0..tries {
            let _ = block_on(carry(&source, &target, &id));
        }
        persist(|| block_on(bring_back(&source, &target, &id)));
        persist(|| block_on(bring_back(&source, &target, &id)));
        let world = world.lock().unwrap();
        assert_eq!(world.wrong, [""; 0], "{fates:?}, {tries} tries");
        assert_eq!(world.hosts, [only("one"), Held::default()]);
    }
}

#[test]
fn one_that_is_renewed_moves_as_it_is() {
    let id = MigrationId::nobody();
    let (world, source, target) = world(&[]);
    block_on(target.keep(&id, &document("one"))).unwrap();
    world.lock().unwrap().hosts[0].valid = Some(document("one, renewed"));
    block_on(carry(&source, &target, &id)).unwrap();
    assert_eq!(world.lock().unwrap().hosts[1].valid, Some(document("one, renewed")));
    world.lock().unwrap().hosts[1].valid = Some(document("one, again"));
    // A try whose answer was lost.
    block_on(carry(&source, &target, &id)).unwrap();
    assert_eq!(world.lock().unwrap().hosts[1].valid, Some(document("one, again")));
    block_on(bring_back(&source, &target, &id)).unwrap();
    assert_eq!(world.lock().unwrap().hosts, [only("one, again"), Held::default()]);
}

#[test]
fn what_the_target_has_of_its_own_is_left_alone() {
    let id = MigrationId::nobody();
    let (world, source, target) = world(&[]);
    // Put there before the move: nothing is withdrawn.
    world.lock().unwrap().hosts[1].valid = Some(document("own"));
    let refused = block_on(carry(&source, &target, &id)).unwrap_err();
    assert!(refused.what.contains("of its own") && !refused.is_transient(), "{refused}");
    block_on(bring_back(&source, &target, &id)).unwrap();
    assert_eq!(world.lock().unwrap().hosts, [only("one"), only("own")]);
    // Put there in place of ours.
    world.lock().unwrap().hosts[1] = Held::default();
    block_on(carry(&source, &target, &id)).unwrap();
    world.lock().unwrap().hosts[1].valid = Some(document("own"));
    block_on(bring_back(&source, &target, &id)).unwrap();
    assert_eq!(world.lock().unwrap().hosts, [only("one"), only("own")]);
}

#[test]
fn one_that_was_put_back_by_hand_is_not_valid_twice() {
    let id = MigrationId::nobody();
    let (world, source, target) = world(&[]);
    block_on(carry(&source, &target, &id)).unwrap();
    world.lock().unwrap().hosts[0].valid = Some(document("one"));
    block_on(bring_back(&source, &target, &id)).unwrap();
    assert_eq!(world.lock().unwrap().hosts, [only("one"), Held::default()]);
}

#[test]
fn a_source_that_has_lost_everything_gets_it_back() {
    let id = MigrationId::nobody();
    let (world, source, target) = world(&[]);
    block_on(carry(&source, &target, &id)).unwrap();
    world.lock().unwrap().hosts[0] = Held::default();
    block_on(bring_back(&source, &target, &id)).unwrap();
    assert_eq!(world.lock().unwrap().hosts, [only("one"), Held::default()]);
}

#[test]
fn a_host_that_declares_none_any_more_stops_the_way_back() {
    let id = MigrationId::nobody();
    for host in [0, 1] {
        let (world, source, target) = world(&[]);
        block_on(carry(&source, &target, &id)).unwrap();
        world.lock().unwrap().undeclared = Some(host);
        let refused = block_on(bring_back(&source, &target, &id)).unwrap_err();
        assert!(refused.what.contains("declares none any more") && !refused.is_transient(), "{refused}");
        assert_eq!(world.lock().unwrap().hosts[1].valid, Some(document("one")));
    }
}

fn valid(until: Option<i64>) -> Standing {
    Standing::Valid(Licence {
        guid: "g-1".into(),
        holder: String::new(),
        maintenance_until: until.map(Timestamp::from_millis),
    })
}

/// What each unmet condition says.
#[test]
fn refusals() {
    let now = Timestamp::from_millis(1000);
    let invalid = || Standing::Invalid { problem: "torn".into(), hint: "mend it".into() };
    let table = [
        (valid(None), Standing::None, vec![]),
        (valid(Some(1001)), Standing::None, vec![]),
        (
            valid(Some(1000)),
            Standing::None,
            vec!["the maintenance contract of g-1 ended on 1970-01-01T00:00:01Z"],
        ),
        (Standing::None, Standing::None, vec!["the source has none"]),
        (Standing::Undeclared, Standing::None, vec!["the source's manifest declares none"]),
        (invalid(), Standing::None, vec!["the source's is not valid: torn"]),
        (valid(None), Standing::Undeclared, vec!["the target's manifest declares none"]),
        (valid(None), valid(None), vec!["the target has one already: g-1"]),
        (valid(None), invalid(), vec!["something lies at the target in its place that is none: torn"]),
        (Standing::None, valid(None), vec!["the source has none", "the target has one already: g-1"]),
    ];
    for (source, target, expected) in table {
        let found = unmet(&source, &target, now);
        assert!(found.iter().all(|finding| !finding.hint.is_empty()), "{found:?}");
        assert_eq!(found.into_iter().map(|finding| finding.what).collect::<Vec<_>>(), expected);
        assert_eq!(refuse_unmet(&source, &target, now).is_ok(), expected.is_empty());
    }
}
