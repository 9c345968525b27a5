//! What watchers see.

use futures::StreamExt;
use handover_engine::journal::Journal;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Answers, Result};
use handover_platform::store::Store;
use handover_transport::control::Seen;
use tokio::sync::mpsc;

use super::Supervisor;

/// Events that a watcher gets at once.
const EVENTS: u32 = 256;

impl Supervisor {
    /// Events and statuses of a migration, from an event on.
    pub(super) async fn seen(&self, id: &MigrationId, after: u64) -> Result<Answers<Seen>> {
        let migration = self.migration(id).await?;
        let (to, seen) = mpsc::channel(16);
        let store = self.store.clone();
        let is_over = migration.state.phase.is_final();
        let Some(handle) = self.handle(id).filter(|_| !is_over) else {
            let status = self.status(migration).await?;
            let id = id.clone();
            tokio::spawn(async move {
                let mut cursor = after;
                if send_events(&store, &id, &mut cursor, &to).await {
                    let _ = to.send(Ok(Seen::Status(Box::new(status)))).await;
                }
            });
            return Ok(tokio_stream::wrappers::ReceiverStream::new(seen).boxed());
        };
        let (id, mut status) = (id.clone(), handle.status());
        let me = self.me.clone();
        tokio::spawn(async move {
            let mut cursor = after;
            loop {
                let now = status.borrow_and_update().clone();
                let last = now.state.phase.is_final();
                // Events first: whoever sees a status has seen what led to it.
                if now.last_event > cursor && !send_events(&store, &id, &mut cursor, &to).await {
                    return;
                }
                let Some(now) = me.upgrade().map(|me| me.shown(now)) else { return };
                if to.send(Ok(Seen::Status(Box::new(now)))).await.is_err()
                    || last
                    || status.changed().await.is_err()
                {
                    return;
                }
            }
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(seen).boxed())
    }
}

/// Sends all events after the cursor and moves it; false when the watcher has gone or the journal cannot be read.
async fn send_events(
    store: &Store,
    id: &MigrationId,
    cursor: &mut u64,
    to: &mpsc::Sender<Result<Seen>>,
) -> bool {
    loop {
        let events = match store.events(id, *cursor, EVENTS).await {
            Ok(events) => events,
            Err(failure) => {
                let _ = to.send(Err(failure)).await;
                return false;
            }
        };
        let Some(last) = events.last() else { return true };
        *cursor = last.seq;
        for event in events {
            if to.send(Ok(Seen::Event(event))).await.is_err() {
                return false;
            }
        }
    }
}
