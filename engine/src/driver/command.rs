//! What operators ask of a migration: refused, or journaled and begun.

use tokio::sync::oneshot;

use super::Driver;
use super::busy::Busy;
use crate::failure::Failure;
use crate::phase::{Operation, Refused, State, Trigger};
use crate::ports::Result;
use crate::report::{Back, Terms, When};

/// An operator's request.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub operation: Operation,
    /// What is asked of a cut-over.
    pub terms: Terms,
    /// What a verification finds to differ is put right.
    pub repair: bool,
    /// Who asks: the SPIFFE id.
    pub by: String,
    /// Answered when the new state is journaled, or refused.
    pub answer: oneshot::Sender<Result<State>>,
}

impl Driver {
    /// Does what is asked, and answers once it is journaled. What was going on ends for it.
    pub(super) async fn command(&mut self, command: Command, mut busy: Option<Busy>) -> Result<Option<Busy>> {
        let Command { operation, terms, repair, by, answer } = command;
        if operation == Operation::Cutover && matches!(terms.when, When::Now | When::DryRun) {
            self.learn_lag(&mut busy).await?;
        }
        if let Err(refused) = self.refuse(operation, &terms, repair) {
            let _ = answer.send(Err(refused));
            return Ok(busy);
        }
        if operation == Operation::Cutover && matches!(terms.when, When::At(_) | When::Never) {
            self.set_time(terms, &by, answer).await?;
            return Ok(busy);
        }
        if operation == Operation::Verify {
            self.begin_verifying(repair);
        }
        if let Some(busy) = busy {
            self.wind_down(busy).await?;
        }
        if matches!(operation, Operation::Pause | Operation::Abort) {
            self.end_backups().await?;
        }
        // What was going on may have decided otherwise meanwhile: then it goes on.
        let is_fit = self.refuse_unfit(operation, &terms);
        if let Err(refused) = self.refuse_loss(operation, &terms).and(is_fit) {
            let _ = answer.send(Err(refused));
            return self.begin_task().await;
        }
        match operation {
            Operation::Cutover => self.set_terms(terms),
            Operation::Abort => self.set_terms_of_abort(&terms),
            // Nothing comes home any more: an abort must not begin as if it did, however soon it is asked for.
            Operation::Accept if self.blocked().is_some() => self.end_way_back(),
            _ => {}
        }
        let result = self.transition(Trigger::Asked(operation), Some(by)).await?;
        // Whoever asked may have left; the state is journaled all the same.
        let _ = answer.send(result.map_err(|refused| self.explain(&refused)));
        self.begin_task().await
    }

    /// Refuses what cannot be done now. Nothing is changed by it.
    fn refuse(&self, operation: Operation, terms: &Terms, repair: bool) -> Result<()> {
        let next = self.migration.state.next(Trigger::Asked(operation));
        next.map_err(|refused| self.explain(&refused))?;
        self.look_at_calendar(operation, terms)?;
        self.refuse_unfit(operation, terms)?;
        if operation == Operation::Verify {
            self.refuse_repair(repair)?;
        }
        self.refuse_loss(operation, terms)
    }

    fn set_terms_of_abort(&mut self, terms: &Terms) {
        self.migration.outcome.alone |= terms.alone;
        if terms.discard {
            self.end_way_back();
        }
    }

    /// What is written at the target stays there: the source follows it no more.
    fn end_way_back(&mut self) {
        if let Some(cutover) = &mut self.migration.outcome.cutover {
            cutover.back = Back::Ended;
        }
    }

    fn explain(&self, refused: &Refused) -> Failure {
        let allowed: Vec<&str> = self.migration.state.allowed().iter().map(|o| o.as_str()).collect();
        let hint = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        Failure::operator(format!("migration {}", self.migration.id), refused.to_string())
            .hint(format!("possible now: {hint}"))
    }
}
