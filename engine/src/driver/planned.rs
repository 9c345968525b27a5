//! Cut-overs that are planned for a time.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::busy::Busy;
use super::{Driver, Ports};
use crate::changeover::Facts;
use crate::expiry::{self, Span};
use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::journal::{Event, Record};
use crate::phase::{Operation, State, Task, Trigger};
use crate::plan::{Plan, StepKind};
use crate::ports::Result;
use crate::report::{Cutover, Planned, Terms, When};
use crate::time::Timestamp;

/// A cut-over that could not begin so long after its time is not begun any more: users may be at work again.
const GRACE: Duration = Duration::from_secs(300);
/// A host that cannot be asked when the time has come is asked again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

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
        self.looks.abort_all();
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

    /// How long it is until the planned cut-over can begin; none while there is none, or something else goes on, or it is being looked at what it
    /// needs, or the copy has to catch up first, or it is not known how far it is behind.
    pub(super) fn until_due(&self) -> Option<Duration> {
        let is_following = matches!(self.migration.state.task, Some(Task::Follow | Task::VerifyLive))
            && self.migration.state.is_busy();
        let planned = self.migration.outcome.planned.filter(|_| is_following && self.looks.is_empty())?;
        let left = planned.at.millis() - self.ports.clock.now().millis();
        if left <= 0 && self.late(&planned) <= GRACE && self.refuse_behind(&planned.terms).is_err() {
            return None;
        }
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// How long its time has passed.
    fn late(&self, planned: &Planned) -> Duration {
        let late = self.ports.clock.now().millis() - planned.at.millis();
        Duration::from_millis(u64::try_from(late).unwrap_or(0))
    }

    /// Its time has come: looks whether what it needs lasts until it is done, as things are now. Following goes on meanwhile.
    pub(super) fn look_ahead(&mut self) {
        let Some(planned) = self.migration.outcome.planned else { return };
        let (ports, plan) = (self.ports.clone(), self.migration.plan.clone());
        let takes = Duration::from_millis(planned.terms.max_downtime_ms);
        let late = self.late(&planned);
        self.looks.spawn(async move {
            let began = Instant::now();
            loop {
                if late > GRACE {
                    return Ok(());
                }
                match look(&ports, &plan, takes).await {
                    Err(failure) if failure.is_transient() && late + began.elapsed() < GRACE => {
                        sleep(AGAIN_AFTER).await;
                    }
                    looked => return looked,
                }
            }
        });
    }

    /// Begins the planned cut-over, unless its time has long passed or something is in its way. `looked` is what the look at what it needs has
    /// brought; none where that was given up.
    pub(super) async fn begin_planned(
        &mut self,
        looked: Option<Result<()>>,
        busy: Option<Busy>,
    ) -> Result<Option<Busy>> {
        // Planned anew meanwhile, paused, or begun by somebody.
        let (Some(looked), Some(Duration::ZERO)) = (looked, self.until_due()) else { return Ok(busy) };
        let Some(planned) = self.migration.outcome.planned.take() else { return Ok(busy) };
        if self.late(&planned) > GRACE {
            let text = format!("it was planned for {}, and could not begin then: plan it again", planned.at);
            self.note(text).await?;
            self.give_notice(None);
            return Ok(busy);
        }
        let now = Terms { when: When::Now, ..planned.terms };
        let is_fit = self.refuse_different();
        if let Err(refused) = self.look_at_calendar(Operation::Cutover, &now).and(looked).and(is_fit) {
            self.give_up(&planned, &refused).await?;
            return Ok(busy);
        }
        if let Some(busy) = busy {
            self.wind_down(busy).await?;
        }
        // A verification may have found something meanwhile.
        if let Err(refused) = self.refuse_different() {
            self.give_up(&planned, &refused).await?;
            return self.begin_task().await;
        }
        self.set_terms(planned.terms);
        self.transition(Trigger::Asked(Operation::Cutover), None)
            .await?
            .map_err(|refused| Failure::permanent("migration", refused.to_string()))?;
        self.begin_task().await
    }

    /// It does not begin, and those who were given notice of it hear that.
    async fn give_up(&mut self, planned: &Planned, why: &Failure) -> Result<()> {
        self.note(format!("it was planned for {}, and does not begin: {why}", planned.at)).await?;
        self.give_notice(None);
        Ok(())
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

/// Refuses a cut-over that takes so long, where something that it needs has ended or will have by then: certificates of the agents and of services, the
/// licence's contract.
async fn look(ports: &Ports, plan: &Plan, takes: Duration) -> Result<()> {
    let span = Span { now: ports.clock.now(), takes, safety: Duration::ZERO };
    expiry::refuse(&ports.credentials.expiries(), span)?;
    let own = &ports.here.changeover.certificates;
    if plan.has(|kind| *kind == StepKind::Certify) {
        own.check(&ports.source.changeover.certificates.hand_out().await?).await?;
    }
    let (mut source, mut target) = (Inventory::default(), Inventory::default());
    target.changeover = Facts { certificates: own.facts().await?, ..Facts::default() };
    if plan.options.licence {
        source.licence = ports.source.licences.standing().await?;
    }
    expiry::refuse(&expiry::of_plan(&source, &target, &plan.options), span)
}
