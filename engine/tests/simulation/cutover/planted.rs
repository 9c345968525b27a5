//! Faults that are planted on purpose: what a driver would do that orders its acts wrongly, or does not journal them. Each must be found.

use handover_engine::journal::Record;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The target is published before the source is fenced off.
    PublishesFirst,
    /// It is not journaled that a cut-over is being called off.
    ForgetsCallingOff,
    /// It is not journaled that publishing begins.
    ForgetsCommitted,
    /// The target is withdrawn without having been fenced off.
    LeavesTargetOpen,
    /// What was written at the target is not asked for before it is withdrawn.
    ForgetsRest,
    /// The source's fence goes before the target is withdrawn, whose own was not put up.
    LiftsFirst,
}

impl Planted {
    pub const ALL: [Self; 6] = [
        Self::PublishesFirst,
        Self::ForgetsCallingOff,
        Self::ForgetsCommitted,
        Self::LeavesTargetOpen,
        Self::ForgetsRest,
        Self::LiftsFirst,
    ];
}

/// What is journaled of these records.
pub fn written(planted: Option<Planted>, records: &[Record]) -> Vec<Record> {
    let mut records = records.to_vec();
    match planted {
        Some(Planted::ForgetsCallingOff) => {
            records.retain(|record| !matches!(record, Record::StepDone(step) if step == "calling-off"));
        }
        Some(Planted::ForgetsCommitted) => {
            for record in &mut records {
                if let Record::Outcome(outcome) = record
                    && let Some(cutover) = &mut outcome.cutover
                {
                    cutover.committed &= cutover.live_at.is_some();
                }
            }
        }
        _ => {}
    }
    records
}
