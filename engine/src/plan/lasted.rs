//! What steps took the last time: those that do not grow with the data are expected to take as long again.

use std::collections::BTreeMap;

use super::{PlannedStep, StepKind};
use crate::journal::{Event, Logged};
use crate::time::Timestamp;

/// The finest time that is told apart. Times are rounded up to it, or twice, four times… as much, so that the same hosts make the same plan.
const GRAIN_MS: u64 = 100;

/// Milliseconds that steps took, by their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lasted(BTreeMap<String, u64>);

impl Lasted {
    /// Takes in a migration's events, oldest first. What was taken in before, counts less. A step that was begun again counts from its last
    /// beginning.
    pub fn take(&mut self, events: &[Logged]) {
        let mut since: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for Logged { at, event, .. } in events {
            match event {
                Event::StepStarted { step } => {
                    since.insert(step, *at);
                }
                Event::StepDone { step } => {
                    if let Some(from) = since.remove(step.as_str()) {
                        let took = u64::try_from(at.millis() - from.millis()).unwrap_or(0);
                        self.0.insert(step.clone(), rounded(took));
                    }
                }
                Event::State { .. } | Event::Note { .. } | Event::Retry { .. } => {}
            }
        }
    }

    /// Has steps be expected to take what they took, where the data does not tell more.
    pub(super) fn correct(&self, steps: &mut [PlannedStep]) {
        for step in steps.iter_mut().filter(|step| !grows(&step.step)) {
            if let Some(took) = self.0.get(&step.step.id()) {
                step.expected_ms = *took;
            }
        }
    }
}

/// Whether sizes tell how long a step takes.
fn grows(step: &StepKind) -> bool {
    use StepKind::{Copy, Finish, Fit, Index, Refit, Replicate, Verify};
    matches!(step, Copy(_) | Fit(_) | Index(_) | Finish(_) | Verify(_) | Refit(_) | Replicate)
}

fn rounded(ms: u64) -> u64 {
    GRAIN_MS.saturating_mul(ms.div_ceil(GRAIN_MS).max(1).checked_next_power_of_two().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(at_ms: i64, event: Event) -> Logged {
        Logged { seq: 1, at: Timestamp::from_millis(at_ms), event }
    }

    #[test]
    fn the_last_time_counts_and_data_tells_more() {
        let began = |step: &str, at| logged(at, Event::StepStarted { step: step.to_owned() });
        let done = |step: &str, at| logged(at, Event::StepDone { step: step.to_owned() });
        let mut lasted = Lasted::default();
        lasted.take(&[began("serve", 0), done("serve", 9_000), began("stage", 0), done("stage", 30)]);
        lasted.take(&[
            began("serve", 0),
            began("copy:shop", 10),
            // The agent ended meanwhile.
            began("serve", 50_000),
            done("serve", 51_100),
            done("copy:shop", 60_000),
            began("reboot", 60_000),
            done("fence", 61_000),
        ]);
        let step = |step| PlannedStep { step, rows: 0, files: 0, bytes: 0, expected_ms: 777 };
        let shop = || "shop".parse().unwrap();
        let kinds =
            [StepKind::Stage, StepKind::Serve, StepKind::Reboot, StepKind::Fence, StepKind::Copy(shop())];
        let mut steps: Vec<_> = kinds.into_iter().map(step).collect();
        lasted.correct(&mut steps);
        let expected: Vec<_> = steps.iter().map(|step| step.expected_ms).collect();
        assert_eq!(expected, [100, 1600, 777, 777, 777]);
    }

    #[test]
    fn about_the_same_time_is_the_same() {
        for (ms, expected) in [(0, 100), (100, 100), (101, 200), (390, 400), (401, 800), (30_000, 51_200)] {
            assert_eq!(rounded(ms), expected, "{ms}");
        }
    }
}
