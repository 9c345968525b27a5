//! Faults that are planted on purpose: what a driver would do that orders its acts wrongly, or does not journal them. Each must be found.

use handover_engine::journal::Record;
use handover_engine::report::Back;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The target is published while the source is not fenced off.
    PublishesFirst,
    /// It is not journaled that publishing begins.
    ForgetsCommitted,
    /// The target's fence does not stand until it is withdrawn. (Where it never stood, the driver itself finds that out.)
    LeavesTargetOpen,
    /// What was written at the target is not asked for before it is withdrawn.
    ForgetsRest,
    /// The fences of both go before the target is withdrawn.
    LiftsFirst,
    /// It is not journaled that a cut-over is being called off.
    ForgetsCallingOff,
}

impl Planted {
    pub const ALL: [Self; 6] = [
        Self::PublishesFirst,
        Self::ForgetsCommitted,
        Self::LeavesTargetOpen,
        Self::ForgetsRest,
        Self::LiftsFirst,
        Self::ForgetsCallingOff,
    ];
}

/// Whether it says that everything written at the target is at the source again.
pub fn is_home(record: &Record) -> bool {
    let Record::Outcome(outcome) = record else { return false };
    outcome.cutover.is_some_and(|cutover| cutover.back == Back::Returned)
}

/// What is journaled of these records.
pub fn written(planted: Option<Planted>, records: &[Record]) -> Vec<Record> {
    let mut records = records.to_vec();
    if planted == Some(Planted::ForgetsCommitted) {
        for record in &mut records {
            if let Record::Outcome(outcome) = record
                && let Some(cutover) = &mut outcome.cutover
            {
                cutover.committed &= cutover.live_at.is_some();
            }
        }
    }
    if planted == Some(Planted::ForgetsCallingOff) {
        records.retain(|record| !matches!(record, Record::StepDone(step) if step == "calling-off"));
    }
    records
}
