//! A server's load, as it tells it itself. A role that is no `pg_monitor` sees what its own sessions do alone, and no lag.

use async_trait::async_trait;
use handover_engine::change::LogPosition;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::Result;
use handover_engine::ports::gauge::{DatabaseLoad, Gauge};
use handover_engine::reserve::LogKept;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::live::slot;
use crate::sql::literal;

/// Statements of others, our processes, and how far the slowest replica is behind with what it shows.
const LOOK: &str = "SELECT count(*) FILTER (WHERE state = 'active' AND application_name <> 'handover' \
        AND backend_type = 'client backend'), \
    pg_catalog.string_agg(pid::pg_catalog.text, ' ') FILTER (WHERE application_name = 'handover'), \
    (SELECT max(EXTRACT(epoch FROM replay_lag)) FROM pg_catalog.pg_stat_replication) \
    FROM pg_catalog.pg_stat_activity";

/// Looks at the load of a database's server.
pub struct PostgresGauge {
    dataset: DatasetName,
    settings: Settings,
    open: Mutex<Option<Looking>>,
}

struct Looking {
    conn: Conn,
    place: Option<String>,
}

impl PostgresGauge {
    /// The server of the database of `settings`.
    pub fn new(dataset: DatasetName, settings: &Settings) -> Self {
        Self { dataset, settings: settings.clone(), open: Mutex::default() }
    }

    async fn look(&self, looking: &Looking) -> Result<DatabaseLoad> {
        let item = || format!("{}, {}", self.dataset, self.settings.location());
        let refused = |error: tokio_postgres::Error| failed(item(), "its load cannot be looked at", &error);
        let asked = Instant::now();
        looking.conn.text("SELECT 1").await.map_err(refused)?;
        let latency = asked.elapsed();
        let row = looking.conn.rows(LOOK).await.map_err(refused)?.pop().unwrap_or_default();
        let text = |column: usize| row.get(column).and_then(Option::as_deref);
        Ok(DatabaseLoad {
            latency,
            threads: text(0).and_then(|count| count.parse().ok()),
            replica_lag: text(2).and_then(|lag| lag.parse().ok()),
            ours: text(1).unwrap_or_default().split(' ').filter_map(|pid| pid.parse().ok()).collect(),
            place: looking.place.clone(),
        })
    }
}

#[async_trait]
impl Gauge for PostgresGauge {
    async fn load(&self) -> Result<DatabaseLoad> {
        let mut open = self.open.lock().await;
        // One that fails, or is not waited for to the end, is not used again.
        let looking = match open.take() {
            Some(looking) => looking,
            None => {
                let conn = Conn::open(&self.dataset, &self.settings).await?;
                // Only some roles may ask.
                let place = conn.text("SHOW data_directory").await.ok().flatten();
                Looking { conn, place }
            }
        };
        let load = self.look(&looking).await?;
        *open = Some(looking);
        Ok(load)
    }

    async fn log(&self, capture: &CaptureId, _after: &LogPosition) -> Result<LogKept> {
        let conn = Conn::open(&self.dataset, &self.settings).await?;
        let sql = format!(
            "SELECT wal_status, safe_wal_size FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
            literal(&slot::name(capture, &self.settings.database))
        );
        // Versions before 13 do not tell.
        let row = conn.rows(&sql).await.ok().and_then(|mut rows| rows.pop()).unwrap_or_default();
        let text = |column: usize| row.get(column).and_then(Option::as_deref);
        // Behind the limit, it is below 0.
        let room = text(1)
            .and_then(|bytes| bytes.parse::<i64>().ok())
            .map(|bytes| u64::try_from(bytes).unwrap_or(0));
        Ok(LogKept { room, endangered: text(0) == Some("unreserved"), ..LogKept::default() })
    }

    async fn rest(&self) {
        *self.open.lock().await = None;
    }
}
