//! What `handover certs show` prints: an identity's certificate, or a CA and what it has issued.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::authority::{self, Authority, AuthorityError, Issued};
use crate::clock;
use crate::identity::Identity;

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Summary {
    /// An identity, as `handover certs issue` writes it.
    Identity(CertificateSummary),
    /// A CA.
    Authority(AuthoritySummary),
}

/// A certificate in words. Times are RFC 3339, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateSummary {
    /// Whose it is.
    pub identity: Identity,
    /// Its serial number in hex.
    pub serial: String,
    /// Who issued it.
    pub issuer: String,
    /// From when it is good.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// The kind of key; `other` for one that this program does not make.
    pub key_algorithm: String,
    /// When it was revoked, as far as the directory's files tell.
    pub revoked: Option<String>,
    /// Whole days left; negative when it has expired.
    pub days_left: i64,
}

/// A CA in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthoritySummary {
    /// The trust domain that it issues for.
    pub trust_domain: String,
    /// Until when the CA itself is good (RFC 3339).
    pub not_after: String,
    /// Whole days left; negative when it has expired.
    pub days_left: i64,
    /// What it has issued, oldest first.
    pub issued: Vec<CertificateSummary>,
}

/// Reads a directory of either kind at the host's time. Verifies nothing.
pub fn of_directory(dir: &Path) -> Result<Summary, AuthorityError> {
    if dir.join("ca.key").exists() {
        return Ok(Summary::Authority(AuthoritySummary::of(&Authority::open(dir)?, clock::now())));
    }
    CertificateSummary::of_directory(dir).map(Summary::Identity)
}

impl CertificateSummary {
    /// Reads an identity's directory. Revoked is what its `crl.pem` says, which may be older than the CA's.
    pub fn of_directory(dir: &Path) -> Result<Self, AuthorityError> {
        let details = authority::details_in(dir)?;
        let lists = authority::revocation_lists(&dir.join("crl.pem"))?;
        Ok(Self {
            serial: details.serial(),
            revoked: details.revoked(&lists).map(rfc3339),
            not_before: rfc3339(details.not_before),
            not_after: rfc3339(details.not_after),
            key_algorithm: details
                .key_algorithm
                .map_or("other".to_owned(), |algorithm| algorithm.to_string()),
            days_left: whole_days(details.not_after - clock::now()),
            identity: details.identity,
            issuer: details.issuer,
        })
    }

    fn of_record(issued: &Issued, issuer: &str, now: OffsetDateTime) -> Self {
        let time =
            |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self {
            identity: issued.identity.clone(),
            serial: issued.serial.clone(),
            issuer: issuer.to_owned(),
            not_before: rfc3339(time(issued.not_before)),
            not_after: rfc3339(time(issued.not_after)),
            key_algorithm: issued.key_algorithm.to_string(),
            revoked: issued.revoked_at.map(|at| rfc3339(time(at))),
            days_left: whole_days(time(issued.not_after) - now),
        }
    }
}

impl AuthoritySummary {
    fn of(authority: &Authority, now: OffsetDateTime) -> Self {
        let record = |issued| CertificateSummary::of_record(issued, authority.name(), now);
        Self {
            trust_domain: authority.trust_domain().to_owned(),
            not_after: rfc3339(authority.not_after()),
            days_left: whole_days(authority.not_after() - now),
            issued: authority.list().iter().map(record).collect(),
        }
    }
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

/// Rounded down, so that an hour past the end is -1, not 0.
fn whole_days(left: time::Duration) -> i64 {
    left.whole_seconds().div_euclid(24 * 3600)
}

/// `12 days left`, or what is worse.
fn left(days: i64) -> String {
    match days {
        i64::MIN..=-1 => "expired".to_owned(),
        1 => "1 day left".to_owned(),
        _ => format!("{days} days left"),
    }
}

impl fmt::Display for CertificateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "identity    {}", self.identity)?;
        writeln!(f, "serial      {}", self.serial)?;
        writeln!(f, "issuer      {}", self.issuer)?;
        writeln!(f, "key         {}", self.key_algorithm)?;
        writeln!(f, "good from   {}", self.not_before)?;
        write!(f, "good until  {} ({})", self.not_after, left(self.days_left))?;
        match &self.revoked {
            Some(at) => write!(f, "\nrevoked     {at}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AuthoritySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "authority   {}", self.trust_domain)?;
        writeln!(f, "good until  {} ({})", self.not_after, left(self.days_left))?;
        write!(f, "issued      {}", self.issued.len())?;
        for certificate in &self.issued {
            write!(f, "\n\n{certificate}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Summary::Identity(summary) => summary.fmt(f),
            Summary::Authority(summary) => summary.fmt(f),
        }
    }
}
