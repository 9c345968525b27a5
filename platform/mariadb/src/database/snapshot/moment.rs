//! The moment that transactions begin at: the same for all of them, and what the binary log calls it.

use std::collections::BTreeMap;

use handover_engine::ports::Result;

use super::WHAT;
use crate::session::Session;
use crate::sql;

/// How often connections are opened anew until they show one moment, where they cannot be made to.
const ATTEMPTS: usize = 20;

/// What a snapshot shows, as the binary log names it.
pub struct Moment {
    pub file: String,
    pub offset: u64,
    pub gtids: String,
}

impl Moment {
    /// With the last transaction before a place, for which the server reads the file up to there.
    pub async fn at(file: String, offset: u64, session: &mut Session) -> Self {
        let query = format!("SELECT BINLOG_GTID_POS({}, {offset})", sql::text(&file));
        let gtids = session.record(WHAT, &query).await.map(|row| row.text(0)).unwrap_or_default();
        Self { file, offset, gtids }
    }

    /// Notes it in a schema's state.
    pub fn note(self, state: &mut BTreeMap<String, String>) {
        state.insert("binlog/file".to_owned(), self.file);
        state.insert("binlog/position".to_owned(), self.offset.to_string());
        state.insert("binlog/gtid".to_owned(), self.gtids);
    }
}

const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// Begins them all.
pub async fn begin_all(sessions: &mut [Session]) -> Result<()> {
    for session in sessions {
        session.run(WHAT, BEGIN).await?;
        session.mark(WHAT).await?;
    }
    Ok(())
}

/// File and offset of the binary log now; none when there is none, or it may not be asked for.
pub async fn log_position(lock: &mut Session) -> Result<Option<(String, u64)>> {
    // 1227: no BINLOG MONITOR privilege. A transaction tells it to everybody.
    match lock.try_record("SHOW MASTER STATUS").await {
        Ok(row) => Ok(row.map(|row| (row.text(0), row.number(1)))),
        Err(_) => {
            lock.run(WHAT, BEGIN).await?;
            let position = snapshot_position(lock).await?;
            lock.run(WHAT, "COMMIT").await?;
            Ok(position)
        }
    }
}

/// The binary log's position that a transaction's view was taken at.
pub async fn snapshot_position(session: &mut Session) -> Result<Option<(String, u64)>> {
    let rows = session.records(WHAT, "SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    let value =
        |name: &str| rows.iter().find(|row| row.text(0).eq_ignore_ascii_case(name)).map(|row| row.text(1));
    let (file, offset) = (value("binlog_snapshot_file"), value("binlog_snapshot_position"));
    Ok(file.filter(|f| !f.is_empty()).zip(offset.and_then(|o| o.parse().ok())))
}

/// Without a lock: transactions begin until all have begun at one position of the binary log. Where there is none, or
/// writers are too busy, one connection has to do.
pub async fn agree(sessions: &mut Vec<Session>) -> Result<Option<(String, u64)>> {
    for _ in 0..ATTEMPTS {
        begin_all(sessions).await?;
        let mut positions = Vec::new();
        for session in sessions.iter_mut() {
            positions.push(snapshot_position(session).await?);
        }
        if positions[0].is_none() {
            break;
        }
        if positions.iter().all(|position| *position == positions[0]) {
            return Ok(positions.swap_remove(0));
        }
    }
    sessions.truncate(1);
    begin_all(sessions).await?;
    snapshot_position(&mut sessions[0]).await
}
