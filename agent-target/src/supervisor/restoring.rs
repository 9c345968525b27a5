//! The end of restores, in the audit log. They go on after they were answered, and those at the source after this agent has ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use handover_engine::audit::{Act, Begun, Entry};
use handover_engine::backup::Restored;
use handover_engine::ports::Result;
use handover_engine::ports::backups::Standing;
use handover_engine::time::Clock;
use handover_platform::SystemClock;

use super::{ENTRIES, Supervisor};

/// How often a host is asked how far it is.
const LOOK: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Takes up those that had been begun when this agent last ended: nothing starts while one of them still goes on.
    pub(super) async fn take_up_restores(self: &Arc<Self>) -> Result<()> {
        for (asked, begun) in self.begun_restores().await? {
            self.restores.lock().await.push((begun.host, begun.order.clone()));
            self.note_end(asked, begun);
        }
        Ok(())
    }

    /// Those whose end is not in the log, by the entry that asked for them.
    async fn begun_restores(&self) -> Result<BTreeMap<u64, Begun>> {
        let (mut open, mut after) = (BTreeMap::new(), 0);
        loop {
            let lines = self.store.audit(after, ENTRIES).await?;
            if lines.is_empty() {
                return Ok(open);
            }
            after += lines.len() as u64;
            for line in lines {
                // One that cannot be read is for `audit --verify` to tell.
                match serde_json::from_str::<Entry>(&line).map(|entry| entry.act) {
                    Ok(Act::Answered { asked, begun: Some(begun), .. }) => drop(open.insert(asked, begun)),
                    Ok(Act::Ended { asked, .. }) => drop(open.remove(&asked)),
                    _ => {}
                }
            }
        }
    }

    /// Waits for the end of what was begun, and writes it down.
    pub fn note_end(self: &Arc<Self>, asked: u64, begun: Begun) {
        let (me, stop) = (self.clone(), self.stop.clone());
        self.drivers.spawn(async move {
            let ended = tokio::select! {
                biased;
                // It is taken up when the agent is started again.
                () = stop.cancelled() => return,
                ended = me.ended_as(&begun) => ended,
            };
            let what = format!("{} at the {}, asked for by {}", begun.order.words(), begun.host, begun.by);
            let (done, failed) = match ended {
                Ok(done) => (Some(done), None),
                Err(why) => (None, Some(why)),
            };
            let act = Act::Ended { asked, what, done, failed };
            if let Err(failure) = me.store.note(SystemClock.now(), None, None, act).await {
                me.give_up(failure);
            }
        });
    }

    /// How it ended. A host that cannot be reached is asked until it can.
    async fn ended_as(&self, begun: &Begun) -> std::result::Result<String, String> {
        loop {
            match self.backups_of(begun.host).standing(&begun.order).await {
                Ok(Standing::Restored { datasets }) => return Ok(words(&datasets)),
                Ok(Standing::Failed { failure }) => return Err(failure.to_string()),
                Ok(Standing::Unknown) => {
                    return Err(
                        "the host's agent ended before it was done, and ends it or takes it back by itself: its log tells which".to_owned()
                    );
                }
                Ok(Standing::Made { .. } | Standing::Verified { .. } | Standing::Running { .. }) => {}
                Err(failure) => tracing::debug!(%failure, "a restore cannot be asked after"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What was put back, and where what stood there is.
fn words(datasets: &[Restored]) -> String {
    let one = |one: &Restored| match &one.before {
        Some(before) => format!("{}, before now {before}", one.dataset),
        None => one.dataset.to_string(),
    };
    format!("put back {}", datasets.iter().map(one).collect::<Vec<_>>().join("; "))
}
