//! What ends one day and is needed until a migration is done: certificates, the maintenance contract of a licence.

use std::time::Duration;

use crate::changeover::{CertificateAction, CertificateFacts};
use crate::check::{Finding, Severity};
use crate::failure::Failure;
use crate::inventory::Inventory;
use crate::licence::Standing;
use crate::plan::Options;
use crate::ports::Result;
use crate::time::Timestamp;

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// What it is about.
    pub item: String,
    /// Which one it is, as the subject of a sentence.
    pub which: String,
    /// When it ends.
    pub ends: Timestamp,
    /// What to do.
    pub hint: String,
}

/// How long things have to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From now on.
    pub now: Timestamp,
    /// So long is what goes on, or comes next, expected to take.
    pub takes: Duration,
    /// So long before an end somebody is to look after it.
    pub safety: Duration,
}

impl Expiry {
    /// Of the agent of a side.
    pub fn of_agent(side: &str, ends: Timestamp) -> Self {
        let hint = "`handover certs renew` it; agents take a new one without a restart".to_owned();
        Self { item: "certificate".to_owned(), which: format!("the {side}'s"), ends, hint }
    }

    fn of_service(name: &str, side: &str, ends: Timestamp) -> Self {
        let hint = format!("renew it at the {side}, where [[certificate]] says that it is");
        Self { item: format!("certificate {name}"), which: format!("the {side}'s"), ends, hint }
    }

    /// What is to be said of it: an error where it has ended or will have before all is done, a warning where it ends soon.
    pub fn finding(&self, span: Span) -> Option<Finding> {
        let Self { item, which, ends, hint } = self;
        let (severity, what) = if *ends <= span.now {
            (Severity::Error, format!("{which} ended at {ends}"))
        } else if *ends <= after(span.now, span.takes) {
            (Severity::Error, format!("{which} ends at {ends}, before all is expected to be done"))
        } else if *ends <= after(span.now, span.safety) {
            (Severity::Warning, format!("{which} ends at {ends}"))
        } else {
            return None;
        };
        Some(Finding::new(severity, item, what, hint))
    }
}

fn after(at: Timestamp, time: Duration) -> Timestamp {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(at.millis().saturating_add(ms))
}

/// What a plan with these options needs of two hosts: the certificates that services of the target are to have, and the licence's contract.
pub fn of_plan(source: &Inventory, target: &Inventory, options: &Options) -> Vec<Expiry> {
    let mut out = Vec::new();
    if options.follow && !options.data_only {
        for one in &target.changeover.certificates {
            let (side, facts) = match one.action {
                CertificateAction::Copy => ("source", &source.changeover),
                CertificateAction::Keep => ("target", &target.changeover),
                // It is made at the cut-over.
                CertificateAction::Reissue => continue,
            };
            let found = facts.certificates.iter().find(|there| there.name == one.name);
            out.extend(
                found.and_then(|found| found.expires).map(|ends| Expiry::of_service(&one.name, side, ends)),
            );
        }
    }
    if let (true, Standing::Valid(licence)) = (options.licence, &source.licence)
        && let Some(ends) = licence.maintenance_until
    {
        let which = format!("the maintenance contract of {}", licence.guid);
        let hint = "renew it with the vendor, and put the new licence in place".to_owned();
        out.push(Expiry { item: "licence".to_owned(), which, ends, hint });
    }
    out
}

/// The certificates of services that are in place at the target.
pub fn in_use(certificates: &[CertificateFacts]) -> Vec<Expiry> {
    let certificates = certificates.iter();
    certificates.filter_map(|one| Some(Expiry::of_service(&one.name, "target", one.expires?))).collect()
}

/// Refuses what needs something that has ended, or will have before it is done.
pub fn refuse(expiries: &[Expiry], span: Span) -> Result<()> {
    let mut found = expiries.iter().filter_map(|expiry| expiry.finding(span));
    match found.find(|finding| finding.severity == Severity::Error) {
        Some(Finding { item, what, hint, .. }) => Err(Failure::operator(item, what).hint(hint)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licence::Licence;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + hours * 3_600_000)
    }

    #[test]
    fn it_ends_in_time_soon_or_too_soon() {
        let (error, warning) = (Some(Severity::Error), Some(Severity::Warning));
        for (ends, takes, safety, severity, part) in [
            (-1, 0, 24, error, "the target's ended at"),
            (0, 0, 0, error, "ended at"),
            (2, 3, 24, error, "before all is expected to be done"),
            (2, 3, 0, error, "before all is expected to be done"),
            (4, 3, 24, warning, "the target's ends at"),
            (24, 3, 24, warning, "ends at"),
            (25, 3, 24, None, ""),
            (1, 0, 0, None, ""),
        ] {
            let span = Span { now: at(0), takes: HOUR * takes, safety: HOUR * safety };
            let expiry = Expiry::of_agent("target", at(ends));
            let found = expiry.finding(span);
            assert_eq!(found.as_ref().map(|found| found.severity), severity, "{ends} {takes} {safety}");
            assert!(found.is_none_or(|found| found.what.contains(part)), "{part}");
            assert_eq!(refuse(&[expiry], span).is_err(), severity == error);
        }
    }

    #[test]
    fn a_plan_needs_what_it_puts_in_place() {
        let mut source = Inventory::default();
        let one = |name: &str, action, hours| CertificateFacts {
            name: name.to_owned(),
            action,
            names: Vec::new(),
            fingerprint: None,
            expires: Some(at(hours)),
            problem: None,
        };
        let mut target = source.clone();
        source.changeover.certificates =
            vec![one("www", CertificateAction::Keep, 1), one("mail", CertificateAction::Keep, 2)];
        target.changeover.certificates = vec![
            one("www", CertificateAction::Copy, 3),
            one("own", CertificateAction::Keep, 4),
            one("new", CertificateAction::Reissue, 5),
            one("gone", CertificateAction::Copy, 6),
        ];
        let licence = Licence { guid: "4f1c".into(), holder: String::new(), maintenance_until: Some(at(7)) };
        source.licence = Standing::Valid(licence);
        let told = |options: Options| {
            let all = of_plan(&source, &target, &options);
            all.iter().map(|one| format!("{}: {} {}", one.item, one.which, one.ends)).collect::<Vec<_>>()
        };
        let follow = Options { follow: true, ..Options::default() };
        let services = [
            format!("certificate www: the source's {}", at(1)),
            format!("certificate own: the target's {}", at(4)),
        ];
        assert_eq!(told(follow.clone()), services);
        assert_eq!(told(Options::default()), [""; 0]);
        let licence = told(Options { data_only: true, licence: true, ..follow });
        assert_eq!(licence, [format!("licence: the maintenance contract of 4f1c {}", at(7))]);
        assert_eq!(in_use(&target.changeover.certificates).len(), 4);
    }
}
