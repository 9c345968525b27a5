//! What must be so, at any time and at the end.

use handover_engine::name::DatasetName;
use handover_engine::phase::Phase;

use super::base::Base;
use super::world::{Host, Side, World};
use crate::world::databases;

/// Of a host's databases: how many users may write to.
fn writable(host: &Host) -> usize {
    host.bases.values().filter(|base| base.is_writable()).count()
}

/// The side that users find when nothing is being changed over; none while it is.
fn serving(phase: Phase) -> Option<Side> {
    match phase {
        Phase::Copying | Phase::Following | Phase::Aborted => Some(Side::Source),
        Phase::Trial | Phase::Accepted | Phase::Finalized => Some(Side::Target),
        _ => None,
    }
}

/// At most one side takes writes, exactly one where nothing is being changed over, and it holds all that users have written.
pub fn at_any_time(world: &mut World) {
    let (there, here) = (writable(&world.source), writable(&world.target));
    if there > 0 && here > 0 {
        world.wrong(format!("both sides take writes: {there} databases of the source, {here} of the target"));
    }
    let phase = world.phase();
    let all = databases().len();
    let is_served = match serving(phase) {
        Some(Side::Source) => there == all && here == 0,
        Some(Side::Target) => here == all && there == 0,
        None => true,
    };
    if !is_served {
        let text = format!("{phase:?}: the source takes writes to {there} databases, the target to {here}");
        world.wrong(text);
    }
    for database in databases() {
        for side in [Side::Source, Side::Target] {
            let base = world.base(side, &database).filter(|base| base.is_writable());
            if let Some(what) = base.and_then(|base| flaw(world, &database, base)) {
                world.wrong(format!("{database} at the {side:?} takes writes, and {what}"));
            }
        }
    }
}

/// What is wrong with a database that users are let in to.
fn flaw(world: &World, database: &DatasetName, base: &Base) -> Option<String> {
    let written = &world.users.written[database];
    if base.rows != *written {
        return Some(format!("holds {:?} where {written:?} was written", base.rows));
    }
    let last = world.users.last.get(database).copied().unwrap_or(0);
    if base.next <= last {
        return Some(format!("would give number {} after {last}", base.next));
    }
    base.disarmed.then(|| "its triggers are put away".to_owned())
}

/// Nothing is left but what the end promises.
pub fn at_the_end(world: &mut World) {
    let phase = world.phase();
    if !phase.is_final() {
        world.wrong(format!("it ends as {phase:?}"));
        return;
    }
    // A source that does not hear that the target stays may be gone for good: it is told of, and its triggers come with the end of its fence.
    let is_untold =
        world.trace.iter().any(|text| text.contains("the source was not told that the target stays"));
    for database in databases() {
        let (there, here) =
            (world.source.bases[&database].clone(), world.target.bases.get(&database).cloned());
        let place = &world.places[&database];
        let left = [
            (!there.captures.is_empty(), "the source keeps changes"),
            (here.is_some_and(|here| !here.captures.is_empty()), "the target keeps changes"),
            (place.building.is_some(), "something is half built"),
            (place.before.is_some(), "what stood there before is not forgotten"),
            (there.disarmed && !is_untold, "the source's triggers are put away"),
            (phase == Phase::Finalized && there.is_writable(), "the source has lost its fence"),
            (
                phase == Phase::Aborted && world.target.bases.contains_key(&database),
                "the target has it still",
            ),
        ];
        for (_, what) in left.into_iter().filter(|(is_so, _)| *is_so) {
            world.wrong(format!("{database}: {what} at the end ({phase:?})"));
        }
    }
}
