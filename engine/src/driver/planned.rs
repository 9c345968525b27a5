//! Cut-overs that are planned for a time.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Busy, Driver};
use crate::failure::Failure;
use crate::journal::{Event, Record};
use crate::phase::{Operation, State, Task, Trigger};
use crate::ports::Result;
use crate::report::{Cutover, Planned, Terms, When};
use crate::time::Timestamp;

/// A cut-over that could not begin so long after its time is not begun any more: users may be at work again.
const GRACE: Duration = Duration::from_secs(300);

impl Driver {
    /// Plans a cut-over for a time, or plans it no more.
    pub(super) async fn set_time(
        &mut self,
        terms: Terms,
        by: &str,
        answer: oneshot::Sender<Result<State>>,
    ) -> Result<()> {
        let (planned, text) = match self.time_of(terms) {
            Ok(Some(at)) => {
                (Some(Planned { at, terms, is_told: false }), format!("it is planned for {at}, says {by}"))
            }
            Ok(None) => (None, format!("it is planned no more, says {by}")),
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return Ok(());
            }
        };
        self.migration.outcome.planned = planned;
        self.note(text).await?;
        self.give_notice(planned.map(|planned| planned.at));
        let _ = answer.send(Ok(self.migration.state.clone()));
        Ok(())
    }

    fn time_of(&self, terms: Terms) -> Result<Option<Timestamp>> {
        let refused = |what: String| Failure::operator(format!("migration {}", self.migration.id), what);
        match terms.when {
            When::At(at) if at <= self.ports.clock.now() => {
                Err(refused(format!("{at} has passed")).hint("give a time to come, with its offset from UTC"))
            }
            When::At(at) => Ok(Some(at)),
            _ if self.migration.outcome.planned.is_none() => {
                Err(refused("no cut-over is planned".to_owned()).hint("`handover cutover --at` plans one"))
            }
            _ => Ok(None),
        }
    }

    /// Refuses what the calendar does not allow. A cut-over is looked at for the time at which it is to begin.
    pub(super) fn look_at_calendar(&self, operation: Operation, terms: &Terms) -> Result<()> {
        let (now, calendar) = (self.ports.clock.now(), &self.settings.calendar);
        let takes = Duration::from_millis(terms.max_downtime_ms);
        match (operation, terms.when) {
            (Operation::Cutover, When::Now) => calendar.refuse_cutover(now, takes),
            (Operation::Cutover, When::At(at)) => calendar.refuse_cutover(at, takes),
            (Operation::Accept, _) => calendar.refuse_start(now, Duration::ZERO),
            _ => Ok(()),
        }
    }

    async fn note(&mut self, text: String) -> Result<()> {
        let event = Event::Note { item: "cutover".to_owned(), text };
        self.commit(&[Record::Outcome(Box::new(self.migration.outcome.clone())), Record::Event(event)])
            .await?;
        self.show().await
    }

    /// How long it is until the planned cut-over can begin; none while there is none, or something else goes on.
    pub(super) fn until_due(&self) -> Option<Duration> {
        let is_following = matches!(self.migration.state.task, Some(Task::Follow | Task::VerifyLive))
            && self.migration.state.is_busy();
        let planned = self.migration.outcome.planned.filter(|_| is_following)?;
        let left = planned.at.millis() - self.ports.clock.now().millis();
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Begins the planned cut-over, unless its time has long passed.
    pub(super) async fn begin_planned(&mut self, busy: Option<Busy>) -> Result<Option<Busy>> {
        let Some(planned) = self.migration.outcome.planned.take() else { return Ok(busy) };
        let late = self.ports.clock.now().millis() - planned.at.millis();
        if late > GRACE.as_millis() as i64 {
            let text = format!("it was planned for {}, and could not begin then: plan it again", planned.at);
            self.note(text).await?;
            return Ok(busy);
        }
        if let Err(refused) =
            self.look_at_calendar(Operation::Cutover, &Terms { when: When::Now, ..planned.terms })
        {
            self.note(format!("it was planned for {}, and does not begin: {refused}", planned.at)).await?;
            return Ok(busy);
        }
        if let Some(busy) = busy {
            self.wind_down(busy).await?;
        }
        self.set_terms(planned.terms);
        self.transition(Trigger::Asked(Operation::Cutover), None)
            .await?
            .map_err(|refused| Failure::permanent("migration", refused.to_string()))?;
        self.begin_task().await
    }

    /// A cut-over begins. What the last one has left in unpublished databases is still there.
    pub(super) fn set_terms(&mut self, terms: Terms) {
        let finishing = self.migration.outcome.cutover.is_some_and(|last| last.finishing);
        self.migration.outcome.cutover = Some(Cutover { terms, finishing, ..Cutover::default() });
        if terms.when != When::DryRun {
            self.migration.outcome.planned = None;
        }
    }
}
