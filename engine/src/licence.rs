//! A licence moves with its appliance: valid on one host at a time, and never on none for good.
//!
//! The document is kept, durably, where it goes to before it is withdrawn where it comes from, and is instated only once that is durable. So at
//! every moment and after any crash it is valid on one host at most, and from the moment that it is withdrawn both hold it. The same
//! three acts, the other way round, undo the move.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::check::{Finding, Severity};
use crate::digest::Digest;
use crate::failure::Failure;
use crate::name::MigrationId;
use crate::ports::Result;
use crate::ports::licences::{Held, Licences};
use crate::time::Timestamp;

/// Bytes that a licence has at most.
pub const LARGEST: usize = 1 << 20;

/// A licence as its issuer signed it. The engine moves it as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Document(pub Bytes);

impl Document {
    /// Tells it from others.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a licence of {} bytes", self.0.len())
    }
}

/// What a licence says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// Its identifier (GUID).
    pub guid: String,
    /// To whom it was issued.
    #[serde(default)]
    pub holder: String,
    /// Until when its maintenance contract is active; for ever where nothing is said.
    #[serde(default)]
    pub maintenance_until: Option<Timestamp>,
}

/// How a host stands with its licence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Standing {
    /// Its manifest declares none.
    #[default]
    Undeclared,
    /// There is none in its place.
    None,
    /// There is one, and its issuer has signed it.
    Valid(Licence),
    /// What lies in its place is none.
    Invalid {
        /// Why.
        problem: String,
        /// What to do.
        hint: String,
    },
}

impl Standing {
    /// Whether nothing is declared.
    pub fn is_undeclared(&self) -> bool {
        *self == Self::Undeclared
    }

    /// The identifier, where there is a licence.
    pub fn guid(&self) -> Option<&str> {
        if let Self::Valid(licence) = self { Some(&licence.guid) } else { None }
    }
}

/// What keeps a licence from moving from one host to another; nothing when it may.
pub fn unmet(source: &Standing, target: &Standing, now: Timestamp) -> Vec<Finding> {
    let error = |what: String, hint: &str| Finding::new(Severity::Error, "licence", what, hint);
    let declare = "add [licence] to its appliance.toml, or plan without --licence";
    let mut out = Vec::new();
    match source {
        Standing::Undeclared => out.push(error("the source's manifest declares none".to_owned(), declare)),
        Standing::None => out.push(error(
            "the source has none".to_owned(),
            "is `file` right in its [licence]? plan without --licence where there is none to move",
        )),
        Standing::Invalid { problem, hint } => {
            out.push(error(format!("the source's is not valid: {problem}"), hint));
        }
        Standing::Valid(licence) => {
            if let Some(until) = licence.maintenance_until.filter(|until| *until <= now) {
                out.push(error(
                    format!("the maintenance contract of {} ended on {until}", licence.guid),
                    "renew it with the vendor and put the new licence in place, or plan without --licence",
                ));
            }
        }
    }
    match target {
        Standing::Undeclared => out.push(error("the target's manifest declares none".to_owned(), declare)),
        Standing::None => {}
        Standing::Valid(licence) => out.push(error(
            format!("the target has one already: {}", licence.guid),
            "the source's moves only to a target without one: plan without --licence, or take the target's away",
        )),
        Standing::Invalid { problem, .. } => out.push(error(
            format!("something lies at the target in its place that is none: {problem}"),
            "look at it and move it away",
        )),
    }
    out
}

/// As [`unmet`], the first as a failure.
pub fn refuse_unmet(source: &Standing, target: &Standing, now: Timestamp) -> Result<()> {
    match unmet(source, target, now).into_iter().next() {
        Some(Finding { item, what, hint, .. }) => Err(Failure::operator(item, what).hint(hint)),
        None => Ok(()),
    }
}

/// Moves the licence. Idempotent: whatever of it was done before is found done.
pub async fn carry(source: &dyn Licences, target: &dyn Licences, migration: &MigrationId) -> Result<()> {
    let Held { valid, kept, .. } = source.held(migration).await?;
    let document = valid.or(kept).ok_or_else(|| {
        Failure::operator("licence", "the source has none any more")
            .hint("put it back in place there, and resume")
    })?;
    // Before anything is withdrawn.
    let there = target.held(migration).await?;
    if there.valid.is_some_and(|valid| valid != document) {
        if there.is_of_kept {
            // It had moved before this try, and was renewed since.
            return Ok(());
        }
        return Err(Failure::operator("licence", "the target has one of its own in its place")
            .hint("look at it, move it away, then resume"));
    }
    target.keep(migration, &document).await?;
    source.withdraw(migration, document.digest()).await?;
    target.instate(migration).await
}

/// Takes a move back, as far as it went: the source's licence is valid there again, and what came of it at the target is not. One that
/// was renewed there meanwhile comes home as it is. Idempotent.
pub async fn bring_back(source: &dyn Licences, target: &dyn Licences, migration: &MigrationId) -> Result<()> {
    for (side, licences) in [("source", source), ("target", target)] {
        if licences.standing().await?.is_undeclared() {
            return Err(Failure::operator(
                "licence",
                format!("the {side}'s manifest declares none any more"),
            )
            .hint(
                "put [licence] back into its appliance.toml as it was, restart the agent, then abort again",
            ));
        }
    }
    let (home, there) = (source.held(migration).await?, target.held(migration).await?);
    // What the source keeps was withdrawn there. A source that has lost all it had gets what the target keeps.
    let withdrawn = home.kept.clone().or(there.kept.clone().filter(|_| home.valid.is_none()));
    if let Some(withdrawn) = withdrawn {
        let ours = there.valid.filter(|valid| there.is_of_kept || *valid == withdrawn);
        if home.valid.is_none() {
            source.keep(migration, ours.as_ref().unwrap_or(&withdrawn)).await?;
        }
        if let Some(ours) = ours {
            target.withdraw(migration, ours.digest()).await?;
        }
        if home.valid.is_none() {
            source.instate(migration).await?;
        }
    }
    forget(source, target, migration).await
}

/// Forgets what a move, or taking one back, would need.
pub async fn forget(source: &dyn Licences, target: &dyn Licences, migration: &MigrationId) -> Result<()> {
    target.forget(migration).await?;
    source.forget(migration).await
}

#[cfg(test)]
mod tests;
