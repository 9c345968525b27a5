//! The operator: frees the disk, resumes, pauses, asks for more passes, and in the end finalizes or aborts. Looks at every
//! status that is shown.

use handover_engine::driver::{Handle, Status};
use handover_engine::failure::Class;
use handover_engine::phase::{Condition, Operation, Phase};
use handover_engine::report::Terms;
use rand::Rng;

use super::checks;
use super::world::{Port, World};

/// What the operator means to do and has seen. Outlives the agent.
pub struct Operator {
    rounds: u32,
    end: Operation,
    abort_early: bool,
    pauses: u32,
    /// Since the last change of the source: the number of the pass that must bring everything.
    settled_after: Option<u32>,
    /// The task, by number, and the share that was shown of it last.
    shown: (usize, f64),
}

impl Operator {
    pub fn new(world: &mut World) -> Self {
        let end = if world.rng.random_bool(0.25) { Operation::Abort } else { Operation::Finalize };
        Self {
            rounds: world.rng.random_range(0..4),
            end,
            abort_early: world.rng.random_bool(0.1),
            pauses: world.rng.random_range(0..3),
            settled_after: None,
            shown: (0, 0.0),
        }
    }

    /// Works until dropped.
    pub async fn work(&mut self, port: &Port, handle: &Handle) {
        let mut status = handle.status();
        loop {
            let now = status.borrow_and_update().clone();
            let asked = port.with(|world| {
                self.look(world, &now);
                self.decide(world, &now)
            });
            let Some(operation) = asked else {
                if status.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            };
            port.with(|world| world.say(format!("the operator asks: {operation}")));
            if let Err(refused) = handle.ask(operation, Terms::default(), "operator").await {
                port.with(|world| world.say(format!("refused: {refused}")));
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }

    /// Progress never goes back, and is whole only when everything is done.
    fn look(&mut self, world: &mut World, now: &Status) {
        let task = world.books.begins.iter().filter(|seq| **seq <= now.last_event).count();
        let share = now.progress.share;
        if !(0.0..=1.0).contains(&share) || task == self.shown.0 && share < self.shown.1 {
            world.wrong(format!("the share goes from {} to {share}", self.shown.1));
        }
        let undone = now.progress.steps.iter().any(|step| step.share() < 1.0);
        if now.state.is_busy() && undone && share >= 1.0 {
            world.wrong("everything is shown as done while steps are not");
        }
        if task >= self.shown.0 {
            self.shown = (task, share);
        }
    }

    fn decide(&mut self, world: &mut World, now: &Status) -> Option<Operation> {
        if let Condition::Failed(failure) = &now.state.condition {
            if failure.class == Class::Permanent {
                world.wrong(format!("a permanent failure: {failure}"));
                return None;
            }
            world.disk_full = false;
            return Some(Operation::Resume);
        }
        if now.state.condition == Condition::Paused {
            return Some(Operation::Resume);
        }
        let is_early = now.state.phase == Phase::Copying && now.state.is_busy();
        if is_early && self.abort_early && world.rng.random_bool(0.1) {
            return Some(Operation::Abort);
        }
        let may_pause = matches!(now.state.phase, Phase::Copying | Phase::Following);
        if now.state.is_busy() && may_pause && self.pauses > 0 && world.rng.random_bool(0.05) {
            self.pauses -= 1;
            return Some(Operation::Pause);
        }
        let rests = now.state.phase == Phase::Following && !now.state.is_busy();
        if rests { Some(self.at_rest(world)) } else { None }
    }

    fn at_rest(&mut self, world: &mut World) -> Operation {
        checks::at_rest(world);
        if self.rounds > 0 {
            self.rounds -= 1;
            if world.rng.random_bool(0.3) {
                return Operation::Verify;
            }
            if world.changes_left > 0 {
                (0..world.rng.random_range(0..4)).for_each(|_| world.change_source());
            }
            return Operation::Sync;
        }
        let pass = world.books.migration.as_ref().map_or(0, |migration| migration.pass);
        match self.settled_after {
            None => {
                world.say("the source is quiet from now on");
                (world.quiet, world.disk_full) = (true, false);
                self.settled_after = Some(pass + 1);
                Operation::Sync
            }
            Some(settled) if pass < settled => Operation::Sync,
            Some(_) => {
                checks::is_the_source(world);
                self.end
            }
        }
    }
}
