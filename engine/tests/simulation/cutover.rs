//! A cut-over, and its ways back, with something that happens at every single call: the target's agent ends, a host is started again, an
//! answer is lost or late. Whatever happens, at most one side takes writes, exactly one when nothing is being changed over, and
//! nothing is lost that users were told is written.

mod base;
mod checks;
mod hosts;
mod journal;
mod planted;
mod run;
mod spool;
mod target;
mod users;
mod world;

use handover_engine::phase::Phase;

use self::planted::Planted;
use self::run::{After, Course, Ended, Goal, run};
use self::world::{Fault, Obstacle, Strike};

/// What can happen to a call, and what follows it.
const FATES: [(Strike, After); 8] = [
    (Strike::CrashBefore, After::GoesOn),
    (Strike::CrashAfter, After::GoesOn),
    (Strike::CrashAfter, After::ComesLate),
    (Strike::CrashAfter, After::IsAborted),
    (Strike::Unheard, After::GoesOn),
    (Strike::Unanswered, After::GoesOn),
    (Strike::Slow, After::GoesOn),
    (Strike::Late, After::GoesOn),
];

/// Calls behind the fence, and what happens to one of them: the cut-over is called off. Of the last there is time left, so that it could go on.
const OBSTACLES: [Obstacle; 4] = [
    ("Source, db: fence", Strike::Slow),
    ("finish", Strike::Slow),
    ("Source, mail: make ready", Strike::Slow),
    ("keep changes of", Strike::Refused),
];
/// After so many calls more, the agent ends again.
const SOON: [u64; 5] = [1, 2, 4, 9, 17];
/// Of every course there are more variants than this.
const LEAST: usize = 350;

/// Each call of a course, or one of so many, meets with each fate, once.
fn with_every_fate(smooth: &Course, one_of: usize) -> Vec<Course> {
    let calls = run(smooth).calls;
    let fated = |at| {
        FATES.into_iter().map(move |(strike, after)| Course {
            faults: vec![Fault { at, strike }],
            after,
            ..smooth.clone()
        })
    };
    (1..=calls).step_by(one_of).flat_map(fated).collect()
}

fn told(course: &Course, ended: &Ended) -> Option<String> {
    let wrong = ended.wrong.as_ref()?;
    let last = ended.trace.len().saturating_sub(60);
    Some(format!("{course:?}:\n{}\n{wrong}", ended.trace[last..].join("\n")))
}

/// Runs all of them; the first that goes wrong, as it is told.
fn first_wrong(courses: impl IntoIterator<Item = Course>) -> Option<String> {
    courses.into_iter().find_map(|course| told(&course, &run(&course)))
}

fn all_end_well(smooth: &Course, one_of: usize) {
    let courses = with_every_fate(smooth, one_of);
    assert!(courses.len() > LEAST, "only {} courses", courses.len());
    if let Some(wrong) = first_wrong(courses) {
        panic!("{wrong}");
    }
}

/// A cut-over that is called off, since this call takes longer than it may, or is refused; the next one succeeds.
fn called_off(obstacle: Obstacle) -> Course {
    Course { obstacle: Some(obstacle), ..Course::smooth(Goal::Accept) }
}

#[test]
fn undisturbed_it_takes_over_or_comes_back() {
    for (goal, phase) in [(Goal::Accept, Phase::Finalized), (Goal::Abort, Phase::Aborted)] {
        let course = Course::smooth(goal);
        let ended = run(&course);
        assert_eq!(told(&course, &ended), None);
        assert_eq!(ended.phase, phase);
    }
    for obstacle in OBSTACLES {
        let course = called_off(obstacle);
        let ended = run(&course);
        assert_eq!(told(&course, &ended), None);
        assert_eq!(ended.phase, Phase::Finalized);
        let is_told = ended.trace.iter().any(|text| text.contains("the cut-over was called off"));
        assert!(is_told, "{obstacle:?}: it was not called off:\n{}", ended.trace.join("\n"));
    }
}

#[test]
fn it_takes_over_whatever_happens() {
    all_end_well(&Course::smooth(Goal::Accept), 1);
}

#[test]
fn it_comes_back_whatever_happens() {
    all_end_well(&Course::smooth(Goal::Abort), 1);
}

#[test]
fn it_is_called_off_whatever_happens() {
    for obstacle in OBSTACLES {
        // The second half of each is what the others have gone through already: thinned out, for time.
        all_end_well(&called_off(obstacle), 3);
    }
}

#[test]
fn the_agent_may_end_again_while_it_makes_good() {
    for smooth in [Course::smooth(Goal::Accept), Course::smooth(Goal::Abort), called_off(OBSTACLES[1])] {
        let calls = run(&smooth).calls;
        let crash = |at| Fault { at, strike: Strike::CrashAfter };
        let twice = |at| SOON.map(|later| vec![crash(at), crash(at + later)]);
        let courses = (1..=calls).step_by(2).flat_map(twice).enumerate().map(|(number, faults)| {
            let after = [After::GoesOn, After::ComesLate][number % 2];
            Course { faults, after, ..smooth.clone() }
        });
        assert_eq!(first_wrong(courses), None);
    }
}

#[test]
fn the_same_course_is_the_same_run() {
    let fault = Fault { at: 70, strike: Strike::CrashAfter };
    let course = Course { faults: vec![fault], ..Course::smooth(Goal::Abort) };
    assert!(run(&course).trace == run(&course).trace);
}

#[test]
fn planted_faults_are_found() {
    for planted in Planted::ALL {
        let smooth = [Course::smooth(Goal::Accept), called_off(OBSTACLES[3]), Course::smooth(Goal::Abort)];
        let mut courses = smooth.into_iter().flat_map(|smooth| {
            let fated = with_every_fate(&smooth, 1);
            std::iter::once(smooth).chain(fated).map(|course| Course { planted: Some(planted), ..course })
        });
        let wrong = courses.find_map(|course| run(&course).wrong);
        eprintln!("{planted:?}: {wrong:?}");
        assert!(wrong.is_some(), "{planted:?} is not found");
    }
}
