//! When the steps of a plan were worked on.

use serde::{Deserialize, Serialize};

use crate::journal::{Event, Logged};
use crate::plan::Plan;
use crate::time::Timestamp;

/// A step of the plan, and when it was worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id (`copy:mail`).
    pub step: String,
    /// What a person reads.
    pub title: String,
    /// Milliseconds that the plan had expected.
    pub expected_ms: u64,
    /// When it began, the first time; none where it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// When it ended, the last time; none while it goes on, or where it was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// How many times it was begun, or tried again.
    #[serde(default)]
    pub attempts: u64,
}

impl Operation {
    /// Those of a plan that has not begun.
    pub(super) fn all(plan: &Plan) -> Vec<Self> {
        let operation = |step: &crate::plan::PlannedStep| Self {
            step: step.step.id(),
            title: step.step.title(),
            expected_ms: step.expected_ms,
            from: None,
            to: None,
            attempts: 0,
        };
        plan.steps.iter().map(operation).collect()
    }

    /// Takes what has happened to it; of other steps, nothing.
    pub(super) fn take(&mut self, logged: &Logged) {
        match &logged.event {
            Event::StepStarted { step } if *step == self.step => {
                self.from.get_or_insert(logged.at);
                self.to = None;
                self.attempts += 1;
            }
            // Between two times it is the way back, or what goes by its name, that is tried again.
            Event::Retry { step, .. } if *step == self.step && self.is_under_way() => self.attempts += 1,
            Event::StepDone { step } if *step == self.step => self.to = Some(logged.at),
            _ => {}
        }
    }

    fn is_under_way(&self) -> bool {
        self.from.is_some() && self.to.is_none()
    }

    /// Milliseconds from its first beginning to its last end.
    pub fn took_ms(&self) -> Option<u64> {
        u64::try_from(self.to?.millis() - self.from?.millis()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn a_step_lasts_from_its_first_beginning_to_its_last_end() {
        let began = |step: &str| Event::StepStarted { step: step.to_owned() };
        let done = |step: &str| Event::StepDone { step: step.to_owned() };
        let again = || Event::Retry {
            step: "copy:db".to_owned(),
            failure: Failure::transient("source", "it does not answer"),
            after_ms: 100,
        };
        let told = |events: &[Event]| {
            let (step, title) = ("copy:db".to_owned(), "copy db".to_owned());
            let mut one = Operation { step, title, expected_ms: 5, from: None, to: None, attempts: 0 };
            for (at, event) in (0_i64..).zip(events) {
                let at = Timestamp::from_millis(at * 10);
                one.take(&Logged { seq: 1, at, event: event.clone() });
            }
            (one.from.map(|at| at.millis()), one.to.map(|at| at.millis()), one.attempts, one.took_ms())
        };
        let copy = || began("copy:db");
        let ended = || done("copy:db");
        assert_eq!(told(&[began("prepare"), done("prepare")]), (None, None, 0, None));
        assert_eq!(told(&[copy(), began("copy:www"), ended()]), (Some(0), Some(20), 1, Some(20)));
        assert_eq!(told(&[copy(), again(), ended()]), (Some(0), Some(20), 2, Some(20)));
        // What is tried again before or after it is something else.
        assert_eq!(told(&[again(), copy(), ended(), again()]), (Some(10), Some(20), 1, Some(10)));
        // A later pass does it once more.
        assert_eq!(told(&[copy(), ended(), copy()]), (Some(0), None, 2, None));
        assert_eq!(told(&[copy(), ended(), copy(), ended()]), (Some(0), Some(30), 2, Some(30)));
    }
}
