//! What workers tell, counted and shown.

use crate::journal::{Event, Record};
use crate::pass::Message;
use crate::progress::{Meter, StepState};
use crate::report::Outcome;

/// Takes a message that is not a record; the record it makes, if it makes one.
pub fn count(message: Message, outcome: &mut Outcome, meter: &mut Meter) -> Option<Record> {
    match message {
        Message::Applied { bytes, resent } => {
            outcome.chunks_applied += 1;
            outcome.chunks_resent += u64::from(resent);
            outcome.bytes_arrived += bytes;
        }
        Message::Progress { step, amount } => {
            if let Some(step) = meter.step(&step) {
                step.state = StepState::Running;
                step.add(amount);
            }
        }
        Message::Reached { step, amount } => {
            if let Some(step) = meter.step(&step) {
                step.reach(amount);
            }
        }
        Message::Total { step, amount } => {
            if let Some(step) = meter.step(&step) {
                step.rows_total = amount.rows.max(step.rows);
                step.files_total = amount.files.max(step.files);
                step.bytes_total = amount.bytes.max(step.bytes);
            }
        }
        Message::Note { item, text } => return Some(Record::Event(Event::Note { item, text })),
        Message::CopyBegins(dataset) => outcome.forget_left_out(&dataset),
        Message::LeftOut(item) => outcome.leave_out(item),
        Message::Verified(dataset, pass, verified, differences) => {
            outcome.verify(dataset, pass, verified, differences);
        }
        Message::Checked(dataset, checked) => {
            if let Some(verifying) = &mut outcome.verifying {
                verifying.checked.insert(dataset, checked);
            }
        }
        Message::RepairBegins(dataset) => outcome.begin_repair(&dataset),
        Message::VerifyingEnds(why) => outcome.verifying_ended = Some(why),
        Message::BackedUp(made) => outcome.back_up(made),
        Message::Kept { dataset, kept, text } => {
            let item = format!("dataset {dataset}");
            let place = kept.place.clone();
            let known = outcome.kept.insert(dataset, kept);
            // Found again by an abort that was interrupted, it was told before.
            if known.is_none_or(|known| known.place != place) {
                return Some(Record::Event(Event::Note { item, text }));
            }
        }
        Message::Fitted(dataset, fitted) => drop(outcome.fitted.insert(dataset, *fitted)),
        Message::Cutover(cutover) => outcome.cutover = Some(cutover),
        Message::Following(..)
        | Message::FollowingTree(..)
        | Message::Room(_)
        | Message::Records(_)
        | Message::Flush(_) => {}
    }
    None
}
