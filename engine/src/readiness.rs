//! Whether a migration is ready for what comes next, computed from what is known of it: each condition that is not met, with what to do.

use serde::{Deserialize, Deserializer, Serialize};

use std::collections::BTreeMap;
use std::time::Duration;

use crate::calendar::Calendar;
use crate::check::Finding;
use crate::driver::Status;
use crate::expiry::{Expiry, Span};
use crate::failure::Failure;
use crate::follow::Figures;
use crate::name::DatasetName;
use crate::phase::{Condition, Operation, Phase, Task};
use crate::report::Terms;
use crate::reserve::Reserve;
use crate::time::Timestamp;

/// What comes next, and what is in its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The operation that comes next; none while the first copy is made, after which it is followed by itself or waits.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known")]
    pub next: Option<Operation>,
    /// Nothing is in its way.
    pub ready: bool,
    /// What is.
    pub unmet: Vec<Unmet>,
}

/// None, too, where it is one of a later release.
fn known<'de, D: Deserializer<'de>>(next: D) -> Result<Option<Operation>, D::Error> {
    Ok(Option::<String>::deserialize(next)?.and_then(|word| Operation::named(&word)))
}

/// A condition that is not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// What it is about.
    pub item: String,
    /// How it is.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl From<Finding> for Unmet {
    fn from(finding: Finding) -> Self {
        Self { item: finding.item, what: finding.what, hint: finding.hint }
    }
}

impl From<Failure> for Unmet {
    fn from(failure: Failure) -> Self {
        let what = failure.causes.iter().fold(failure.what, |text, cause| format!("{text}: {cause}"));
        Self { item: failure.item, what, hint: failure.hint }
    }
}

/// What is known beside the migration's own status.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Now.
    pub now: Timestamp,
    /// What is planned otherwise.
    pub calendar: Calendar,
    /// What is kept free of disks.
    pub reserve: Reserve,
    /// What ends one day and is needed until then: the agents' certificates, without which they do not find each other any more; those of
    /// services; the licence's contract.
    pub expiries: Vec<Expiry>,
}

/// Whether a migration is ready for what comes next; none when it is over, or being undone.
pub fn readiness(status: &Status, facts: &Facts) -> Option<Readiness> {
    let next = match (status.state.phase, status.state.task) {
        (Phase::Copying, _) => None,
        (Phase::Following, Some(Task::Follow | Task::VerifyLive)) => Some(Operation::Cutover),
        (Phase::Following | Phase::Accepted, _) => Some(Operation::Finalize),
        (Phase::Trial, _) => Some(Operation::Accept),
        _ => return None,
    };
    let mut unmet = Vec::new();
    condition(status, next, &mut unmet);
    copy(status, next, &mut unmet);
    if next == Some(Operation::Cutover) {
        late(status, &mut unmet);
    }
    let is_followed = next == Some(Operation::Cutover);
    let short = status.room.as_ref().and_then(|room| room.short(facts.reserve, is_followed));
    unmet.extend(short.map(Unmet::from));
    let span = span(status, facts);
    unmet.extend(facts.expiries.iter().filter_map(|expiry| expiry.finding(span)).map(Unmet::from));
    unmet.extend(calendar(next, facts).err().map(Unmet::from));
    Some(Readiness { next, ready: unmet.is_empty(), unmet })
}

/// It stands still, or is busy with something that has to end first.
fn condition(status: &Status, next: Option<Operation>, unmet: &mut Vec<Unmet>) {
    let item = format!("migration {}", status.migration);
    match &status.state.condition {
        Condition::Failed(failure) => unmet.push(Unmet {
            item,
            what: format!("it has failed: {}: {}", failure.item, failure.what),
            hint: "put that right, then `handover resume`".to_owned(),
        }),
        Condition::Paused => {
            let hint = "`handover resume`".to_owned();
            unmet.push(Unmet { item, what: "it is paused".to_owned(), hint });
        }
        Condition::Good if next.is_some_and(|next| !status.allowed.contains(&next)) => {
            let (what, hint) = (format!("it is {}", status.state), "wait until that is done".to_owned());
            unmet.push(Unmet { item, what, hint });
        }
        Condition::Good => {}
    }
}

/// All of the data has to be there, and the same.
fn copy(status: &Status, next: Option<Operation>, unmet: &mut Vec<Unmet>) {
    let item = "copy".to_owned();
    if next.is_none() {
        let left = status.progress.remaining_ms.map_or_else(
            || "how long it takes is not known yet".to_owned(),
            |ms| format!("about {} s are left", ms.div_ceil(1000)),
        );
        let share = (status.progress.share * 100.0).floor();
        let what = format!("{share} % of it are done; {left}");
        unmet.push(Unmet { item: item.clone(), what, hint: "wait until it is complete".to_owned() });
    }
    if status.differences > 0 {
        let what = format!("verification found {} differences", status.differences);
        let hint = "`handover report` names them, `handover verify --repair` puts them right".to_owned();
        unmet.push(Unmet { item, what, hint });
    }
}

/// Databases that are further behind than a cut-over takes, and by how many milliseconds.
pub(crate) fn behind<'a>(
    following: &'a BTreeMap<DatasetName, Figures>,
    terms: &Terms,
) -> impl Iterator<Item = (&'a DatasetName, u64)> {
    let max_lag_ms = terms.max_lag_ms;
    let waiting = following.iter().filter(|(_, figures)| figures.waiting > 0);
    waiting.map(|(name, figures)| (name, figures.lag_ms)).filter(move |(_, lag_ms)| *lag_ms > max_lag_ms)
}

/// A cut-over does not begin while a database is too far behind. It passes over all of the trees, and is called off when that takes too long.
fn late(status: &Status, unmet: &mut Vec<Unmet>) {
    let terms = status.cutover.map_or_else(Terms::default, |cutover| cutover.terms);
    let databases = behind(&status.following, &terms);
    let trees = status.following_trees.iter().filter(|(_, f)| f.pending > 0 || !f.told);
    let trees = trees.map(|(name, f)| (name, f.lag_ms)).filter(|(_, lag_ms)| *lag_ms > terms.max_lag_ms);
    for (name, _) in status.following.iter().filter(|(_, figures)| !figures.known) {
        unmet.push(Unmet {
            item: format!("dataset {name}"),
            what: "how far it is behind is not known yet".to_owned(),
            hint: "wait until the source's log is read to its end".to_owned(),
        });
    }
    for (name, lag_ms) in databases.chain(trees) {
        unmet.push(Unmet {
            item: format!("dataset {name}"),
            what: format!("it is {} s behind, and a cut-over takes {} ms", lag_ms / 1000, terms.max_lag_ms),
            hint: "wait until it has caught up, or `handover throttle` it less".to_owned(),
        });
    }
    if let Some(cutover) = status.cutover.filter(|cutover| cutover.predicted_ms > terms.max_downtime_ms) {
        let what = format!(
            "the last attempt foretold {} ms, and {} ms were allowed",
            cutover.predicted_ms, terms.max_downtime_ms
        );
        let hint = "`handover cutover --dry-run` foretells anew; `--max-downtime` allows more".to_owned();
        unmet.push(Unmet { item: "downtime".to_owned(), what, hint });
    }
}

/// Things have to last until what goes on is done, and for the safety time.
fn span(status: &Status, facts: &Facts) -> Span {
    let takes = Duration::from_millis(status.progress.remaining_ms.unwrap_or(0));
    let safety = Duration::from_secs(u64::from(facts.calendar.safety_hours) * 3600);
    Span { now: facts.now, takes, safety }
}

fn calendar(next: Option<Operation>, facts: &Facts) -> Result<(), Failure> {
    match next {
        Some(Operation::Cutover) => {
            let takes = Duration::from_millis(Terms::default().max_downtime_ms);
            facts.calendar.refuse_cutover(facts.now, takes)
        }
        Some(Operation::Accept) => facts.calendar.refuse_start(facts.now, Duration::ZERO),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::{Entry, Kind};
    use crate::phase::State;
    use crate::progress::Progress;
    use crate::report::Cutover;
    use crate::reserve::{Disk, Room};

    fn status(phase: Phase, task: Option<Task>) -> Status {
        let state = State { phase, task, condition: Condition::Good };
        Status {
            migration: "m-1".parse().unwrap(),
            allowed: state.allowed(),
            state,
            progress: Progress::default(),
            last_event: 0,
            following: [("app".parse().unwrap(), Figures { known: true, ..Figures::default() })].into(),
            following_trees: Default::default(),
            cutover: None,
            planned: None,
            throttle: None,
            room: None,
            differences: 0,
            kept: Default::default(),
            undone_because: None,
            readiness: None,
        }
    }

    fn facts() -> Facts {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let ends = |days: i64| Timestamp::from_millis(now.millis() + days * 86_400_000);
        let expiries = vec![Expiry::of_agent("target", ends(30)), Expiry::of_agent("source", ends(300))];
        Facts { now, calendar: Calendar::default(), reserve: Reserve { bytes: Some(10) }, expiries }
    }

    fn live() -> Status {
        status(Phase::Following, Some(Task::Follow))
    }

    #[test]
    fn operations_of_a_later_release_are_left_out() {
        for operation in Operation::ALL {
            assert_eq!(serde_json::to_value(operation).unwrap(), operation.as_str());
        }
        let mut expected = live();
        expected.readiness =
            Some(Readiness { next: Some(Operation::Cutover), ready: true, unmet: Vec::new() });
        let mut document = serde_json::to_value(&expected).unwrap();
        assert_eq!(serde_json::from_value::<Status>(document.clone()).unwrap(), expected);
        document["allowed"].as_array_mut().unwrap().insert(1, "hand_back".into());
        document["readiness"]["next"] = "hand_back".into();
        expected.readiness.as_mut().unwrap().next = None;
        assert_eq!(serde_json::from_value::<Status>(document).unwrap(), expected);
    }

    /// What makes one condition unmet.
    type Change = fn(&mut Status, &mut Facts);

    /// What is unmet, as `item: what`.
    fn unmet(status: &Status, facts: &Facts) -> Vec<String> {
        let found = readiness(status, facts).unwrap();
        assert_eq!(found.ready, found.unmet.is_empty());
        assert!(found.unmet.iter().all(|unmet| !unmet.hint.is_empty()), "{found:?}");
        found.unmet.iter().map(|unmet| format!("{}: {}", unmet.item, unmet.what)).collect()
    }

    #[test]
    fn what_comes_next() {
        let next =
            |phase, task| readiness(&status(phase, task), &facts()).map(|found| (found.next, found.ready));
        for (phase, task, expected) in [
            (Phase::Copying, Some(Task::Pass), Some((None, false))),
            (Phase::Following, Some(Task::Follow), Some((Some(Operation::Cutover), true))),
            (Phase::Following, Some(Task::VerifyLive), Some((Some(Operation::Cutover), true))),
            (Phase::Following, None, Some((Some(Operation::Finalize), true))),
            (Phase::Following, Some(Task::Pass), Some((Some(Operation::Finalize), false))),
            (Phase::Trial, Some(Task::FollowBack), Some((Some(Operation::Accept), true))),
            (Phase::Trial, None, Some((Some(Operation::Accept), true))),
            (Phase::Accepted, None, Some((Some(Operation::Finalize), true))),
            (Phase::CuttingOver, Some(Task::CutOver), None),
            (Phase::Aborting, Some(Task::Undo), None),
            (Phase::Finalized, None, None),
            (Phase::Aborted, None, None),
        ] {
            assert_eq!(next(phase, task), expected, "{phase} {task:?}");
        }
    }

    #[test]
    fn each_condition_is_named_by_itself() {
        let with = |change: Change| {
            let (mut status, mut facts) = (live(), facts());
            change(&mut status, &mut facts);
            unmet(&status, &facts)
        };
        let table: [(Change, &str); 10] = [
            (|s, _| s.state.condition = Condition::Paused, "migration m-1: it is paused"),
            (
                |s, _| s.state.condition = Condition::Failed(Failure::operator("disk", "full")),
                "migration m-1: it has failed: disk: full",
            ),
            (|s, _| s.differences = 3, "copy: verification found 3 differences"),
            (
                |s, _| {
                    let figures = Figures { waiting: 7, lag_ms: 12_300, known: true, ..Figures::default() };
                    s.following.insert("app".parse().unwrap(), figures);
                },
                "dataset app: it is 12 s behind, and a cut-over takes 5000 ms",
            ),
            (
                |s, _| *s.following.values_mut().next().unwrap() = Figures::default(),
                "dataset app: how far it is behind is not known yet",
            ),
            (
                |s, _| s.cutover = Some(Cutover { predicted_ms: 40_000, ..Cutover::default() }),
                "downtime: the last attempt foretold 40000 ms, and 30000 ms were allowed",
            ),
            (
                |s, _| {
                    let disk = Disk { place: "app".to_owned(), free: 9, total: 100 };
                    s.room = Some(Room { source: vec![disk], ..Room::default() });
                },
                "disk of app at the source: only 0 MiB are free, and 0 MiB are to be kept free",
            ),
            (
                |_, f| f.expiries[0].ends = Timestamp::from_millis(f.now.millis() + 86_400_000),
                "certificate: the target's ends at 2027-01-16T08:00:00Z",
            ),
            (
                |s, f| {
                    s.progress.remaining_ms = Some(31 * 86_400_000);
                    f.calendar.safety_hours = 0;
                },
                "certificate: the target's ends at 2027-02-14T08:00:00Z, before all is expected to be done",
            ),
            (
                |_, f| {
                    let begin = Timestamp::from_millis(f.now.millis() + 3_600_000);
                    let end = Timestamp::from_millis(f.now.millis() + 7_200_000);
                    f.calendar.entries.push(Entry { name: "x".to_owned(), kind: Kind::Downtime, begin, end });
                },
                "calendar: In less than 24 hours a maintenance window will start. Process cannot be started.",
            ),
        ];
        assert_eq!(with(|_, _| {}), Vec::<String>::new());
        for (change, expected) in table {
            assert_eq!(with(change), [expected]);
        }
    }

    #[test]
    fn several_are_named_together() {
        let (mut status, mut facts) = (live(), facts());
        status.state.condition = Condition::Paused;
        status.differences = 1;
        facts.expiries[1].ends = facts.now;
        assert_eq!(unmet(&status, &facts).len(), 3);
    }

    #[test]
    fn a_first_copy_says_how_far_it_is() {
        let mut status = status(Phase::Copying, Some(Task::Pass));
        status.progress.share = 0.437;
        status.progress.remaining_ms = Some(61_200);
        assert_eq!(unmet(&status, &facts()), ["copy: 43 % of it are done; about 62 s are left"]);
    }
}
