//! A server's load, as it tells it itself.
//!
//! What its replicas lag behind it does not know: the one that the manifest names is asked itself. Where it is a replica, it tells how far
//! it is behind.

mod beside;

use std::collections::BTreeMap;

use async_trait::async_trait;
use handover_engine::change::LogPosition;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::Result;
use handover_engine::ports::gauge::{DatabaseLoad, Gauge};
use handover_engine::reserve::LogKept;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::beside::Beside;
use crate::live::position::{Gtids, Place};
use crate::own;
use crate::replica::status;
use crate::session::{Role, Session};
use crate::settings::Settings;
use crate::sql;

/// Where a file of the binary log begins, behind its magic number.
const START: u64 = 4;
/// No more files are looked at: what is that far behind is not told to the byte.
const MOST_FILES: usize = 100;
const WHAT: &str = "its load cannot be looked at";

/// Looks at the load of a database's server.
pub struct MariaGauge {
    dataset: DatasetName,
    settings: Settings,
    open: Mutex<Option<Looking>>,
    replica: Option<Mutex<Beside>>,
}

struct Looking {
    session: Session,
    place: Option<String>,
    /// The server's number.
    id: u64,
}

impl MariaGauge {
    /// The server of the database that the settings name, and its replica.
    pub fn new(dataset: DatasetName, settings: Settings, replica: Option<Settings>) -> Self {
        let replica = replica.map(|replica| Mutex::new(Beside::new(dataset.clone(), replica)));
        Self { dataset, settings, open: Mutex::default(), replica }
    }

    /// Both servers are asked at once: one that does not answer costs no more than its own time.
    async fn look(&self, looking: &mut Looking) -> Result<DatabaseLoad> {
        let Looking { session, place, id } = looking;
        let (load, behind) = tokio::join!(self.here(session), self.lag_beside(*id));
        let load = load?;
        let replica_lag = load.replica_lag.into_iter().chain(behind).reduce(f64::max);
        Ok(DatabaseLoad { replica_lag, place: place.clone(), ..load })
    }

    /// How far the replica that the manifest names is behind the server of this number.
    async fn lag_beside(&self, server: u64) -> Option<f64> {
        self.replica.as_ref()?.lock().await.lag(server).await
    }

    /// What the server tells of itself.
    async fn here(&self, session: &mut Session) -> Result<DatabaseLoad> {
        let asked = Instant::now();
        session.run(WHAT, "DO 1").await?;
        let latency = asked.elapsed();
        let running = session.record(WHAT, "SHOW GLOBAL STATUS LIKE 'Threads_running'").await?.number(1);
        let (ours, busy) = self.ours(session).await?;
        // Taken one after the other: it may have become less in between.
        let threads = u32::try_from(running.saturating_sub(busy)).unwrap_or(u32::MAX);
        let replica_lag = lag(session).await;
        Ok(DatabaseLoad { latency, threads: Some(threads), replica_lag, ours, place: None })
    }

    /// The kernel's numbers of the threads of our connections, and how many of them are at work. Every account may see its own.
    async fn ours(&self, session: &mut Session) -> Result<(Vec<u32>, u64)> {
        let server = self.settings.server();
        let known = own::of(&server);
        let ids: Vec<String> = known.iter().map(ToString::to_string).collect();
        let query = format!(
            "SELECT ID, TID, COMMAND <> 'Sleep' FROM information_schema.PROCESSLIST WHERE ID IN (0,{})",
            ids.join(",")
        );
        let rows = session.records(WHAT, &query).await?;
        let alive: BTreeMap<u64, u32> =
            rows.iter().map(|row| (row.number(0), u32::try_from(row.number(1)).unwrap_or(0))).collect();
        own::ended(&server, known.into_iter().filter(|id| !alive.contains_key(&u64::from(*id))));
        let busy = rows.iter().map(|row| row.number(2)).sum();
        Ok((alive.into_values().filter(|tid| *tid > 0).collect(), busy))
    }
}

/// How far the server is behind its own primaries, in seconds; none where it has none, or the account may not ask (REPLICA MONITOR).
async fn lag(session: &mut Session) -> Option<f64> {
    let all = status::slaves(session).await.ok()?;
    let worst = all.iter().filter_map(|slave| slave.behind).max()?;
    Some(worst as f64)
}

/// How long the server keeps its log, in milliseconds; none where it keeps it until it is told otherwise.
async fn keeps(session: &mut Session) -> Option<u64> {
    let mut seconds = 0;
    // The second is the first one's unit before 10.6.
    for (variable, unit) in [("@@binlog_expire_logs_seconds", 1.0), ("@@expire_logs_days", 86_400.0)] {
        if seconds == 0
            && let Ok(Some(row)) = session.try_record(&format!("SELECT {variable}")).await
        {
            seconds = (row.text(0).parse::<f64>().unwrap_or(0.0) * unit) as u64;
        }
    }
    (seconds > 0).then(|| seconds * 1000)
}

/// About how many bytes of the log are behind a position: the files from the one that it is in to the newest.
async fn behind(session: &mut Session, position: &Gtids) -> Option<u64> {
    let files = session.try_records("SHOW BINARY LOGS").await.ok()?;
    let mut sum = 0;
    for (name, size) in files.iter().rev().take(MOST_FILES).map(|row| (row.text(0), row.number(1))) {
        sum += size;
        let start = format!("SELECT BINLOG_GTID_POS({}, {START})", sql::text(&name));
        let start = session.try_record(&start).await.ok()??.maybe(0);
        if start.and_then(|start| start.parse().ok()).is_some_and(|start| position.reaches(&start)) {
            break;
        }
    }
    Some(sum)
}

#[async_trait]
impl Gauge for MariaGauge {
    async fn load(&self) -> Result<DatabaseLoad> {
        let mut open = self.open.lock().await;
        // One that fails, or is not waited for to the end, is not used again.
        let mut looking = match open.take() {
            Some(looking) => looking,
            None => {
                let mut session = Session::open(&self.dataset, &self.settings, Role::Reader).await?;
                let row = session.record(WHAT, "SELECT @@datadir, @@server_id").await?;
                Looking { session, place: row.maybe(0), id: row.number(1) }
            }
        };
        let load = self.look(&mut looking).await;
        if load.is_ok() {
            *open = Some(looking);
        } else {
            // A server that was restarted numbers its connections anew.
            let server = self.settings.server();
            own::ended(&server, own::of(&server).into_iter());
        }
        load
    }

    async fn log(&self, _capture: &CaptureId, after: &LogPosition) -> Result<LogKept> {
        let mut session = Session::open(&self.dataset, &self.settings, Role::Reader).await?;
        let keeps_ms = keeps(&mut session).await;
        let place: Option<Place> = after.0.parse().ok();
        let bytes = match place {
            Some(place) => behind(&mut session, &place.state).await,
            None => None,
        };
        Ok(LogKept { bytes, keeps_ms, ..LogKept::default() })
    }

    async fn rest(&self) {
        *self.open.lock().await = None;
        if let Some(replica) = &self.replica {
            replica.lock().await.rest();
        }
    }
}
