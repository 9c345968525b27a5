//! What is in the way of what comes next.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use handover_engine::check::{Finding, Severity};
use handover_engine::driver::Status;
use handover_engine::expiry::{self, Expiry, Span};
use handover_engine::name::MigrationId;
use handover_engine::phase::Operation;
use handover_engine::plan::StepKind;
use handover_engine::ports::{Credentials, Result};
use handover_engine::readiness::{Facts, readiness};
use handover_engine::report::{Terms, When};
use handover_engine::time::Clock;
use handover_platform::SystemClock;

use super::Supervisor;

/// An agent's certificate that ends sooner is renewed before a migration is begun.
const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// The certificates of both agents, for a driver.
pub(super) struct AgentsOf(pub(super) Weak<Supervisor>);

impl Credentials for AgentsOf {
    fn expiries(&self) -> Vec<Expiry> {
        self.0.upgrade().map_or_else(Vec::new, |supervisor| supervisor.agents())
    }
}

impl Supervisor {
    fn facts(&self, id: &MigrationId) -> Facts {
        Facts {
            now: SystemClock.now(),
            calendar: self.settings.calendar.clone(),
            reserve: self.settings.reserve,
            expiries: self.agents().into_iter().chain(self.expiries_of(id)).collect(),
        }
    }

    /// The agents' own certificates; the source's as it was shown last.
    fn agents(&self) -> Vec<Expiry> {
        let source = self.source.certificate_ends().map(|ends| Expiry::of_agent("source", ends));
        [Expiry::of_agent("target", self.notary.not_after())].into_iter().chain(source).collect()
    }

    /// What a migration needs beside them.
    fn expiries_of(&self, id: &MigrationId) -> Vec<Expiry> {
        let all = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id).cloned().unwrap_or_default()
    }

    pub(super) fn remember_expiries(&self, id: &MigrationId, expiries: Vec<Expiry>) {
        self.expiries.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), expiries);
    }

    fn span(&self, takes: Duration) -> Span {
        let safety = Duration::from_secs(u64::from(self.settings.calendar.safety_hours) * 3600);
        Span { now: SystemClock.now(), takes, safety }
    }

    /// A status as it is shown.
    pub(super) fn shown(&self, status: Status) -> Status {
        Status { readiness: readiness(&status, &self.facts(&status.migration)), ..status }
    }

    /// What of the things that a plan needs ends soon.
    pub(super) fn ending(&self, expiries: &[Expiry]) -> Vec<Finding> {
        let span = self.span(Duration::ZERO);
        let early = Span { safety: span.safety.max(CERTIFICATE_WARNING), ..span };
        let agents = self.agents();
        let agents = agents.iter().filter_map(|agent| agent.finding(early));
        agents.chain(expiries.iter().filter_map(|expiry| expiry.finding(span))).collect()
    }

    /// Refuses what needs something that ends before it is expected to be done, be it a certificate of an agent.
    pub(super) fn refuse_ending(&self, expiries: &[Expiry], takes: Duration) -> Result<()> {
        let span = self.span(takes);
        expiry::refuse(&self.agents(), span)?;
        expiry::refuse(expiries, span)
    }

    /// Refuses a cut-over, or an acceptance, for which something has ended or will have until it is done.
    pub(super) async fn refuse_expired(
        &self,
        id: &MigrationId,
        operation: Operation,
        terms: &Terms,
    ) -> Result<()> {
        match operation {
            Operation::Cutover if !matches!(terms.when, When::DryRun | When::Never) => {
                let begins =
                    if let When::At(at) = terms.when { at.millis() - SystemClock.now().millis() } else { 0 };
                let begins = Duration::from_millis(u64::try_from(begins).unwrap_or(0));
                let takes = begins.saturating_add(Duration::from_millis(terms.max_downtime_ms));
                self.refuse_ending(&self.expiries_of(id), takes)
            }
            // What users are served with from then on, as it is in place now.
            Operation::Accept
                if self.migration(id).await?.plan.steps.iter().any(|one| one.step == StepKind::Serve) =>
            {
                let certificates = self.datasets.changeover().certificates.facts().await?;
                self.refuse_ending(&expiry::in_use(&certificates), Duration::ZERO)
            }
            _ => Ok(()),
        }
    }

    /// What is in the way of a start, beside what the two hosts hold.
    pub(super) fn unready_to_start(&self) -> Vec<Finding> {
        match self.settings.calendar.refuse_start(SystemClock.now(), Duration::ZERO) {
            Err(refused) => vec![Finding::new(Severity::Error, refused.item, refused.what, refused.hint)],
            Ok(()) => Vec::new(),
        }
    }
}
