//! What workers tell: journaled, counted, and kept for watchers.

use super::Driver;
use crate::journal::{Event, Record};
use crate::pass::Message;
use crate::ports::Result;
use crate::progress::{Meter, StepState};
use crate::report::Outcome;

impl Driver {
    /// Takes messages: one journal transaction for all their records, then the answers to those who wait for it.
    pub(super) async fn take(&mut self, messages: Vec<Message>) -> Result<()> {
        let mut records = Vec::new();
        let mut flushed = Vec::new();
        let mut is_told = false;
        for message in messages {
            is_told |= is_told_at_the_end(&message);
            match message {
                Message::Records(more) => records.extend(more),
                Message::Flush(done) => flushed.push(done),
                Message::Following(dataset, figures) => {
                    self.seen.following.insert(dataset, figures);
                }
                Message::FollowingTree(dataset, figures) => {
                    self.seen.following_trees.insert(dataset, figures);
                }
                Message::Room(room) => self.seen.room = Some(room),
                other => records.extend(count(other, &mut self.migration.outcome, &mut self.meter)),
            }
        }
        if is_told {
            records.push(Record::Outcome(Box::new(self.migration.outcome.clone())));
        }
        records.iter().for_each(|record| self.mark(record));
        if !records.is_empty() {
            self.commit(&records).await?;
        }
        for done in flushed {
            // A worker that no longer waits has been stopped.
            let _ = done.send(());
        }
        Ok(())
    }

    /// Marks what a record says of a step.
    fn mark(&mut self, record: &Record) {
        match record {
            Record::Event(Event::StepStarted { step }) => {
                if let Some(step) = self.meter.step(step) {
                    step.start();
                }
            }
            Record::StepDone(step) => {
                self.migration.steps_done.push(step.clone());
                if let Some(step) = self.meter.step(step) {
                    step.finish();
                }
            }
            _ => {}
        }
    }
}

/// Whether it is told at the end: a crash must not forget it once the step that found it is done.
fn is_told_at_the_end(message: &Message) -> bool {
    matches!(
        message,
        Message::LeftOut(_)
            | Message::CopyBegins(_)
            | Message::Verified(..)
            | Message::Cutover(_)
            | Message::Checked(..)
            | Message::RepairBegins(_)
            | Message::VerifyingEnds(_)
            | Message::BackedUp(_)
            | Message::Kept { .. }
            | Message::Fitted(..)
    )
}

/// Takes a message that is not a record; the record it makes, if it makes one.
fn count(message: Message, outcome: &mut Outcome, meter: &mut Meter) -> Option<Record> {
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
