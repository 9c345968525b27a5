//! What is in the way of what comes next.

use std::time::Duration;

use handover_engine::check::{Finding, Severity};
use handover_engine::driver::Status;
use handover_engine::readiness::{Facts, readiness};
use handover_engine::time::Clock;
use handover_platform::SystemClock;

use super::Supervisor;

/// A certificate that ends sooner is renewed before a migration is begun.
const CERTIFICATE_WARNING_MS: i64 = 14 * 86_400_000;

impl Supervisor {
    fn facts(&self) -> Facts {
        Facts {
            now: SystemClock.now(),
            calendar: self.settings.calendar.clone(),
            reserve: self.settings.reserve,
            certificate_ends: self.notary.not_after(),
        }
    }

    /// A status as it is shown.
    pub(super) fn shown(&self, status: Status) -> Status {
        Status { readiness: readiness(&status, &self.facts()), ..status }
    }

    /// What is in the way of a start, beside what the two hosts hold.
    pub(super) fn unready_to_start(&self) -> Vec<Finding> {
        let Facts { now, calendar, certificate_ends, .. } = self.facts();
        let mut findings = Vec::new();
        if let Err(refused) = calendar.refuse_start(now, Duration::ZERO) {
            findings.push(Finding::new(Severity::Error, refused.item, refused.what, refused.hint));
        }
        if certificate_ends.millis() - now.millis() < CERTIFICATE_WARNING_MS {
            let what = format!("the target's ends at {certificate_ends}");
            let hint = "`handover certs renew` it; agents take a new one without a restart";
            findings.push(Finding::new(Severity::Warning, "certificate", what, hint));
        }
        findings
    }
}
