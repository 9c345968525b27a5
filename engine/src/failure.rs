//! What went wrong, in the one form that crosses every port: a class that decides what happens next, the
//! item it happened to, and a hint that tells the operator what to do.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Who can make it right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Trying again may succeed (lost link, restarting peer, lock wait): the driver retries with backoff.
    Transient,
    /// Somebody must act (full disk, wrong password): the migration stops in `Failed` and can be resumed.
    NeedsOperator,
    /// Resuming cannot help (foreign plan, broken invariant): only abort is left.
    Permanent,
}

/// One failure: what happened to which item, and what to do about it.
///
/// Never holds row data or secrets: it is logged, journaled and shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Decides between retry, stop and abort.
    pub class: Class,
    /// What it happened to, as the operator knows it: a dataset, table, file, host or plan.
    pub item: String,
    /// What happened, without its cause.
    pub what: String,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What the operator can do.
    pub hint: String,
    /// That is to give the migration up, and to begin another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begins_anew: bool,
    #[serde(skip)]
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure of `class` that happened to `item`.
    pub fn new(class: Class, item: impl Into<String>, what: impl Into<String>) -> Self {
        let (item, what) = (item.into(), what.into());
        Self { class, item, what, causes: Vec::new(), hint: String::new(), begins_anew: false, source: None }
    }

    /// Shorthand for [`Class::Transient`].
    pub fn transient(item: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Class::Transient, item, what)
    }

    /// Shorthand for [`Class::NeedsOperator`].
    pub fn operator(item: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Class::NeedsOperator, item, what)
    }

    /// Shorthand for [`Class::Permanent`].
    pub fn permanent(item: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Class::Permanent, item, what)
    }

    /// Says what the operator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        (self.hint, self.begins_anew) = (hint.into(), false);
        self
    }

    /// Says how the operator gives the migration up and begins another one. That is for the way there: on the way back there is
    /// something to lose.
    #[must_use]
    pub fn begin_anew(mut self, hint: impl Into<String>) -> Self {
        (self.hint, self.begins_anew) = (hint.into(), true);
        self
    }

    /// Keeps the cause; its whole chain is shown after `what`.
    #[must_use]
    pub fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        let mut next: Option<&dyn Error> = Some(&source);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self.source = Some(Arc::new(source));
        self
    }

    /// True when its hint is to give the migration up and begin another one.
    pub fn begins_anew(&self) -> bool {
        self.begins_anew
    }

    /// True when the driver should try again by itself.
    pub fn is_transient(&self) -> bool {
        self.class == Class::Transient
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.item, self.what)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

impl Error for Failure {}

impl PartialEq for Failure {
    fn eq(&self, other: &Self) -> bool {
        self.class == other.class && self.to_string() == other.to_string()
    }
}

impl Eq for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_item_causes_and_hint() {
        let cause = std::io::Error::other("no space left on device");
        let failure =
            Failure::operator("files/www", "cannot write a chunk").because(cause).hint("free some space");
        assert_eq!(
            failure.to_string(),
            "files/www: cannot write a chunk: no space left on device (free some space)"
        );
    }

    #[test]
    fn that_a_migration_is_to_be_begun_anew_goes_with_the_hint_that_says_so() {
        let lost = Failure::operator("log", "it is lost").begin_anew("abort, and start again");
        let text = serde_json::to_string(&lost).unwrap();
        assert!(serde_json::from_str::<Failure>(&text).unwrap().begins_anew(), "{text}");
        assert!(!lost.hint("mend it").begins_anew());
        // As an earlier release writes it, and reads it.
        let old = r#"{"class":"needs_operator","item":"log","what":"it is lost","hint":"mend it"}"#;
        let read: Failure = serde_json::from_str(old).unwrap();
        assert!(!read.begins_anew());
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
    }
}
