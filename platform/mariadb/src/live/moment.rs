//! When a change can be seen. The log tells of a transaction before its commit has come to an end.

use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::time::{Instant, sleep};

use super::event;
use super::position::Spot;
use crate::database::snapshot_position;
use crate::session::Session;

const WHAT: &str = "the binary log cannot be followed";
/// How long a commit may take from the log to the rows; it may wait for a replica (rpl_semi_sync_master_wait_point = AFTER_SYNC).
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(1);

/// Up to where the log's transactions are seen by whoever reads now.
async fn seen(session: &mut Session) -> Result<Spot> {
    session.run(WHAT, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    let position = snapshot_position(session).await?;
    session.run(WHAT, "COMMIT").await?;
    let (file, offset) = position.unwrap_or_default();
    Ok(Spot { file, offset })
}

fn late(session: &Session, what: &str) -> Failure {
    Failure::transient(
        session.item().to_owned(),
        format!("{what} is in the binary log, and does not come to its end"),
    )
    .hint("look for commits that wait (SHOW PROCESSLIST), for a replica for example")
}

/// Waits until everything before a spot is seen by whoever reads.
pub async fn until_seen(session: &mut Session, spot: &Spot) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while seen(session).await? < *spot {
        if Instant::now() > deadline {
            return Err(late(session, "a transaction"));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// The XA transactions that are prepared, each as an event names it.
pub async fn prepared(session: &mut Session) -> Result<Vec<Vec<u8>>> {
    let rows = session.records(WHAT, "XA RECOVER").await?;
    let xid = |row: &crate::session::Record| {
        event::xid(row.number(0), row.number(1), row.number(2), row.bytes(3).unwrap_or_default())
    };
    Ok(rows.iter().map(xid).collect())
}

/// Waits until none of these XA transactions is prepared any more.
pub async fn until_completed(session: &mut Session, xids: &[Vec<u8>]) -> Result<()> {
    if xids.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let prepared = prepared(session).await?;
        if !xids.iter().any(|xid| prepared.contains(xid)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(late(session, "an XA transaction"));
        }
        sleep(PAUSE).await;
    }
}
