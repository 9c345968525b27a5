//! Watching a migration until it settles: bars on a terminal, lines elsewhere, JSON lines with `--json`. A watcher that
//! loses its agent comes back to it and misses nothing.

mod bars;

use std::io::IsTerminal;
use std::time::Duration;

use futures::TryStreamExt;
use handover_engine::driver::Status;
use handover_engine::journal::Logged;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_transport::control::client::RemoteControl;
use handover_transport::control::{Control, Seen};
use serde_json::json;
use tokio::time::Instant;

use self::bars::Bars;
use crate::exit::{self, Code};
use crate::{documents, render};

/// How long an agent that cannot be reached is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);
/// Without a terminal, progress is told this often.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Where what is seen goes.
enum Show {
    Bars(Box<Bars>),
    Lines { last: Option<Instant> },
    Json,
}

impl Show {
    fn event(&mut self, event: &Logged) {
        match self {
            Show::Bars(bars) => bars.event(&render::event(event)),
            Show::Lines { .. } => println!("{}", render::event(event)),
            Show::Json => println!("{}", json!({ "event": event })),
        }
    }

    fn status(&mut self, status: &Status) {
        match self {
            Show::Bars(bars) => bars.show(status),
            Show::Lines { last } => {
                if last.is_none_or(|at| at.elapsed() >= LINE_EVERY) && status.state.task.is_some() {
                    *last = Some(Instant::now());
                    println!("{}: {}", status.state, render::share(status));
                }
            }
            Show::Json => println!("{}", json!({ "status": documents::status(status) })),
        }
    }

    fn end(self, status: &Status) {
        match self {
            Show::Bars(bars) => {
                bars.finish(status);
                println!("{}", render::status(status));
            }
            Show::Lines { .. } => println!("{}", render::status(status)),
            Show::Json => {}
        }
    }
}

/// Watches until the migration settles.
pub async fn watch(control: &RemoteControl, id: &MigrationId, json: bool) -> Result<Code> {
    let mut show = match (json, std::io::stdout().is_terminal()) {
        (true, _) => Show::Json,
        (false, true) => Show::Bars(Box::default()),
        (false, false) => Show::Lines { last: None },
    };
    let (mut cursor, mut lost) = (0, None);
    loop {
        match follow(control, id, &mut cursor, &mut show).await {
            Ok(Some(status)) => {
                show.end(&status);
                return Ok(exit::settled(&status.state, &control.report(id).await?.totals));
            }
            // The agent has stopped in good order: it may be on its way back.
            Ok(None) => {}
            Err(failure) if failure.is_transient() => {
                let since = *lost.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(failure);
                }
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(failure) => return Err(failure),
        }
        lost = None;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Follows one stream to its end; returns the status in which the migration has settled.
async fn follow(
    control: &RemoteControl,
    id: &MigrationId,
    cursor: &mut u64,
    show: &mut Show,
) -> Result<Option<Status>> {
    let mut seen = control.watch(id, *cursor).await?;
    while let Some(seen) = seen.try_next().await? {
        match seen {
            Seen::Event(event) => {
                *cursor = event.seq;
                show.event(&event);
            }
            Seen::Status(status) => {
                show.status(&status);
                if exit::is_settled(&status.state) {
                    return Ok(Some(*status));
                }
            }
        }
    }
    Ok(None)
}
