//! What it leads to when the target has taken over and does not come up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Options;
use super::options::without_cutover;
use crate::failure::Failure;

/// What a failure leads to that comes after the target has taken over, and before users are let in: of its certificates, its label, or its
/// services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is left to the operator: trying again, or an abort.
    #[default]
    Stop,
    /// Everything is undone at once, as an abort does it.
    Undo,
}

impl OnFailure {
    /// Both.
    pub const BOTH: [OnFailure; 2] = [OnFailure::Stop, OnFailure::Undo];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            OnFailure::Stop => "stop",
            OnFailure::Undo => "undo",
        }
    }

    /// Whether it is left to the operator. Left out of documents then: earlier plans keep their digests.
    pub(super) fn is_stop(&self) -> bool {
        *self == OnFailure::Stop
    }

    /// Refuses to undo by itself what would lose something: nobody is asked then.
    pub(crate) fn check(self, options: &Options) -> Result<(), Failure> {
        const ITEM: &str = "on-failure";
        if self.is_stop() {
            return Ok(());
        }
        if !options.follow {
            return Err(without_cutover(ITEM, "everything is undone by itself"));
        }
        if options.one_way || options.decisions.is_some() {
            return Err(Failure::operator(
                ITEM,
                "nothing would bring home what was written at the target until everything is undone",
            )
            .hint("plan without --one-way and --decisions; or leave it to the operator: --on-failure stop"));
        }
        Ok(())
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text does not say what a failure leads to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is nothing that a failure leads to: write stop or undo")]
pub struct BadOnFailure(String);

impl FromStr for OnFailure {
    type Err = BadOnFailure;

    fn from_str(text: &str) -> Result<Self, BadOnFailure> {
        Self::BOTH.into_iter().find(|one| one.as_str() == text).ok_or_else(|| BadOnFailure(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::sample::{database, inventory};
    use crate::inventory::{DatasetFacts, TreeFacts};
    use crate::plan::sample::make;

    #[test]
    fn it_is_part_of_the_plan_where_it_is_not_left_to_the_operator() {
        let source = inventory(&[("db", database(5))]);
        let plan = |on_failure| {
            let options = Options { follow: true, on_failure, ..Options::default() };
            make(&source, &source, options).unwrap()
        };
        let (stop, undo) = (plan(OnFailure::Stop), plan(OnFailure::Undo));
        let text = |plan: &crate::plan::Plan| String::from_utf8(plan.to_bytes()).unwrap();
        assert!(!text(&stop).contains("on_failure"), "earlier plans keep their digests");
        assert!(text(&undo).contains("\"on_failure\":\"undo\""), "{}", text(&undo));
        assert_ne!(stop.digest(), undo.digest());
        for plan in [stop, undo] {
            assert_eq!(serde_json::from_slice::<crate::plan::Plan>(&plan.to_bytes()).unwrap(), plan);
        }
    }

    #[test]
    fn nothing_is_undone_by_itself_that_would_not_come_home() {
        let tree = || DatasetFacts::Files(TreeFacts::default());
        let source = inventory(&[("db", database(5)), ("www", tree())]);
        let undo = Options { follow: true, on_failure: OnFailure::Undo, ..Options::default() };
        assert!(make(&source, &source, undo.clone()).is_ok());
        let refused = |options: Options| {
            let failure = make(&source, &source, options).unwrap_err();
            assert_eq!(failure.item, "on-failure");
            assert!(!failure.hint.is_empty());
            failure.what
        };
        assert!(refused(Options { follow: false, ..undo.clone() }).contains("follows its source"));
        assert!(refused(Options { one_way: true, ..undo.clone() }).contains("bring home"));
        // Files come home, too.
        let files = Options { datasets: vec!["www".parse().unwrap()], ..undo };
        assert!(make(&source, &source, files).is_ok());
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for one in OnFailure::BOTH {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        assert!("abort".parse::<OnFailure>().unwrap_err().to_string().contains("stop or undo"));
    }
}
