//! From one state to the next: journaled first, then shown.

use super::status::Seen;
use super::{Driver, steps};
use crate::journal::{Event, Record};
use crate::phase::{Operation, Phase, Refused, State, Task, Trigger};
use crate::ports::Result;

impl Driver {
    /// Makes a transition: journaled first, then shown.
    pub(super) async fn transition(
        &mut self,
        trigger: Trigger,
        by: Option<String>,
    ) -> Result<Result<State, Refused>> {
        // What verification found to differ is copied again: that is another pass.
        let is_mending = trigger == Trigger::Asked(Operation::Resume)
            && self.migration.state.task == Some(Task::Pass)
            && self.migration.outcome.differences_found > 0;
        let state = match self.migration.state.next(trigger) {
            Ok(state) => state,
            Err(refused) => return Ok(Err(refused)),
        };
        if state.phase == Phase::Aborting {
            self.migration.outcome.planned = None;
        }
        if state.task != Some(Task::VerifyLive) {
            self.migration.outcome.end_verifying();
        }
        let mut records = vec![Record::State(state.clone())];
        let is_another = state.task.is_some() && (state.task != self.migration.state.task || is_mending);
        if is_another {
            records.extend(self.turn_to(&state));
        }
        records.push(Record::Outcome(Box::new(self.migration.outcome.clone())));
        records.push(Record::Event(Event::State { state: state.clone(), by }));
        self.migration.state = state.clone();
        // What the meter has seen is the task before: its share is not the next one's. At the end it is what will be shown once
        // nobody drives it any more.
        if is_another || state.phase.is_final() {
            self.meter = steps::meter(&self.migration);
        }
        self.commit(&records).await?;
        self.show().await?;
        Ok(Ok(state))
    }

    /// Another task begins: forgets what belongs to the last one alone. What is journaled for that.
    fn turn_to(&mut self, next: &State) -> Vec<Record> {
        // What is opened at the source is opened for a pass: behind the fence it must be opened anew.
        self.migration.pass += u32::from(matches!(next.task, Some(Task::Pass | Task::CutOver)));
        if !self.goes_on_as(next) {
            self.migration.steps_done.clear();
        }
        self.migration.shown = 0.0;
        self.seen = Seen::default();
        if matches!(next.task, Some(Task::Pass | Task::Verify)) {
            self.migration.outcome.forget_verification();
        }
        let done = self.migration.steps_done.iter().cloned().map(Record::StepDone);
        std::iter::once(Record::TaskBegun { pass: self.migration.pass }).chain(done).collect()
    }

    /// Makes records durable.
    pub(super) async fn commit(&mut self, records: &[Record]) -> Result<()> {
        self.last_event += records.iter().filter(|r| matches!(r, Record::Event(_))).count() as u64;
        self.ports.journal.commit(&self.migration.id, self.ports.clock.now(), records).await
    }
}
