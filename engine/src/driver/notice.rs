//! Notice of a planned cut-over, through both hosts' hooks: beside everything else, and at least once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Driver;
use crate::journal::{Event, Record};
use crate::ports::Result;
use crate::ports::hooks::{Hooks, Moment, Occasion};
use crate::time::Timestamp;

/// A host that cannot be told now is told again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What became of a notice.
pub(super) struct Noticed {
    /// The time that it told.
    at: Option<Timestamp>,
    warnings: Vec<String>,
}

impl Driver {
    /// Of a cut-over that was planned before this agent started, and was not told of to its end.
    pub(super) fn give_owed_notice(&mut self) {
        if let Some(planned) = self.migration.outcome.planned.filter(|planned| !planned.is_told) {
            self.give_notice(Some(planned.at));
        }
    }

    /// Tells that a cut-over was planned, or is planned no more. Nobody waits for it; what is on its way of another time is given up.
    pub(super) fn give_notice(&mut self, at: Option<Timestamp>) {
        self.notices.abort_all();
        let occasion = Occasion { migration: self.migration.id.clone(), moment: Moment::Notice, at };
        let hosts = [("source", self.ports.source.hooks.clone()), ("target", self.ports.here.hooks.clone())];
        let patience = self.settings.patience;
        self.notices.spawn(async move {
            let mut warnings = Vec::new();
            for (side, hooks) in hosts {
                match tell(hooks, &occasion, patience).await {
                    Ok(more) => warnings.extend(more),
                    Err(failure) => warnings.push(format!("the {side}'s hooks at notice: {failure}")),
                }
            }
            Noticed { at, warnings }
        });
    }

    /// Notes what became of a notice; none where it was given up.
    pub(super) async fn take_noticed(&mut self, noticed: Option<Noticed>) -> Result<()> {
        let Some(Noticed { at, warnings }) = noticed else { return Ok(()) };
        if let Some(planned) = &mut self.migration.outcome.planned {
            planned.is_told |= at == Some(planned.at);
        }
        let mut records = vec![Record::Outcome(Box::new(self.migration.outcome.clone()))];
        records.extend(warnings.into_iter().map(|text| {
            let item = "hooks".to_owned();
            Record::Event(Event::Note { item, text })
        }));
        self.commit(&records).await?;
        self.show().await
    }
}

/// Tries until the host could be told, for so long.
async fn tell(hooks: Arc<dyn Hooks>, occasion: &Occasion, patience: Duration) -> Result<Vec<String>> {
    let began = Instant::now();
    loop {
        match hooks.run(occasion).await {
            Err(failure) if failure.is_transient() && began.elapsed() < patience => sleep(AGAIN_AFTER).await,
            told => return told,
        }
    }
}
