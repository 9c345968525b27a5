//! The source's side of following: changes from the row-format binary log, rows by key, and the fence.
//!
//! The server keeps the log by itself, so nothing is put into the database but the fence's triggers. What InnoDB's foreign keys
//! change is not in the log: rows that reference a changed row are told as [`Change::Children`], by the values that the log
//! has of the referenced row. Tables behind those, which change along with rows that changed along with others themselves, are not
//! followed (`catalog/references.rs`). Neither are sequences, nor what sessions write with `sql_log_bin = 0`.
//!
//! [`Change::Children`]: handover_engine::change::Change::Children

mod aside;
mod event;
mod fence;
mod fenced;
mod follow;
mod lookup;
mod moment;
mod part;
pub mod position;
pub mod replicated;
mod statement;
mod tables;
mod value;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::{LiveDatabase, Result};
use handover_engine::rows::{Key, RowsChunk, TableName};
use tokio::sync::Mutex;

pub use self::fence::APPLYING;
pub use self::fenced::MariaFenced;
use self::follow::Follower;
use self::position::Spot;
use crate::catalog::{self, Catalog};
use crate::privileges;
use crate::session::{Role, Session};
use crate::settings::Settings;

const WHAT: &str = "the binary log cannot be followed";

/// A database whose changes are followed.
pub struct MariaLive {
    live: Live,
    catalog: Mutex<Option<Arc<Catalog>>>,
    /// One at a time: captures of one database follow each other.
    follower: Mutex<Option<Follower>>,
    idle: Mutex<Vec<Session>>,
    /// For the rest of large values.
    aside: Mutex<Option<Arc<Mutex<Session>>>>,
    /// Whether the fence stands, where that was looked at since it was last touched.
    fenced: Mutex<Option<bool>>,
}

/// Where the database is.
struct Live {
    dataset: DatasetName,
    settings: Settings,
    exclude: Vec<String>,
}

impl Live {
    async fn session(&self) -> Result<Session> {
        Session::open(&self.dataset, &self.settings, Role::Reader).await
    }
}

impl MariaLive {
    /// The database that the settings name, without the excluded tables.
    pub fn new(dataset: DatasetName, settings: Settings, exclude: Vec<String>) -> Self {
        Self {
            live: Live { dataset, settings, exclude },
            catalog: Mutex::default(),
            follower: Mutex::default(),
            idle: Mutex::default(),
            aside: Mutex::default(),
            fenced: Mutex::default(),
        }
    }

    async fn catalog(&self) -> Result<Arc<Catalog>> {
        let mut catalog = self.catalog.lock().await;
        if let Some(catalog) = &*catalog {
            return Ok(catalog.clone());
        }
        let mut session = self.live.session().await?;
        session.enter(&self.live.settings.database).await?;
        let read = catalog::read(&mut session, &self.live.settings.database, &self.live.exclude).await?;
        let new = Arc::new(read);
        *catalog = Some(new.clone());
        Ok(new)
    }

    async fn follower(&self, after: &LogPosition) -> Result<Follower> {
        Follower::open(&self.live, self.catalog().await?, after).await
    }

    async fn reader(&self) -> Result<Session> {
        if let Some(session) = self.idle.lock().await.pop() {
            return Ok(session);
        }
        self.live.session().await
    }

    async fn aside(&self) -> Result<Arc<Mutex<Session>>> {
        let mut aside = self.aside.lock().await;
        if let Some(aside) = &*aside {
            return Ok(aside.clone());
        }
        let new = Arc::new(Mutex::new(self.live.session().await?));
        *aside = Some(new.clone());
        Ok(new)
    }

    /// Refuses to go on where changes are applied behind the fence.
    async fn check_fence(&self, session: &mut Session) -> Result<()> {
        let mut fenced = self.fenced.lock().await;
        let stands = match *fenced {
            Some(stands) => stands,
            None => fence::stands(session, &self.live.settings.database).await?,
        };
        *fenced = Some(stands);
        drop(fenced);
        if stands && replicated::applies(session).await? {
            return Err(replicated::passed(session).await);
        }
        Ok(())
    }

    /// Takes the fence away.
    async fn lift(&self) -> Result<()> {
        *self.fenced.lock().await = None;
        aside::put_back(&self.live).await?;
        let down = fence::down(&self.live).await;
        *self.fenced.lock().await = None;
        down
    }
}

/// Refuses a server whose log does not tell everything.
async fn check(session: &mut Session, database: &str) -> Result<()> {
    if let Some((what, fix)) = catalog::unfollowable(session).await? {
        return Err(Failure::operator(
            session.item().to_owned(),
            format!("changes cannot be followed: {what}"),
        )
        .hint(format!("{fix}; sessions that are open already keep what they have")));
    }
    let row = session.record(WHAT, "SHOW MASTER STATUS").await?;
    let is_listed = |column: usize| row.text(column).split(',').any(|name| name == database);
    if !row.text(2).is_empty() && !is_listed(2) || is_listed(3) {
        return Err(Failure::operator(session.item().to_owned(), "the binary log leaves the database out")
            .hint(
                "take binlog_do_db and binlog_ignore_db out of the server's configuration and restart it",
            ));
    }
    // Without the privilege to ask (REPLICA MONITOR), one that is stopped is taken for no replica.
    let replicates = replicated::applies(session).await?
        || session.try_records("SHOW ALL SLAVES STATUS").await.is_ok_and(|rows| !rows.is_empty());
    let logs = session.record(WHAT, "SELECT @@log_slave_updates").await?.text(0) == "1";
    if replicates && !logs {
        return Err(Failure::operator(
            session.item().to_owned(),
            "the server is a replica, and its binary log leaves out what it replicates",
        )
        .hint("set log_slave_updates in its configuration and restart it, or name the primary in `url`"));
    }
    Ok(())
}

/// A position up to which everything is seen by whoever reads now.
async fn position(session: &mut Session) -> Result<LogPosition> {
    // Asking which transaction a place in a file belongs to (BINLOG_GTID_POS) would read the file up to there.
    let position = session.record(WHAT, "SELECT @@global.gtid_binlog_pos").await?.text(0);
    let row = session.record(WHAT, "SHOW MASTER STATUS").await?;
    let spot = Spot { file: row.text(0), offset: row.number(1) };
    moment::until_seen(session, &spot).await?;
    Ok(LogPosition(position))
}

/// Where the changes of a database are to be read from, for whoever reads what it holds afterwards.
pub async fn begin(session: &mut Session, database: &str) -> Result<LogPosition> {
    check(session, database).await?;
    let position = position(session).await?;
    // What was prepared before that position is not told when it is committed behind it.
    if !moment::prepared(session).await?.is_empty() {
        let what = "an XA transaction is prepared at the server";
        return Err(Failure::transient(session.item().to_owned(), what)
            .hint("wait until it ends, or end it (XA RECOVER shows it)"));
    }
    Ok(position)
}

#[async_trait]
impl LiveDatabase for MariaLive {
    async fn begin(&self, _capture: &CaptureId) -> Result<LogPosition> {
        let mut session = self.live.session().await?;
        let position = begin(&mut session, &self.live.settings.database).await?;
        *self.catalog.lock().await = None;
        // The server says now if it does not send its log.
        *self.follower.lock().await = Some(self.follower(&position).await?);
        Ok(position)
    }

    async fn changes(&self, _capture: &CaptureId, after: &LogPosition, wait: Duration) -> Result<Changes> {
        let mut place = self.follower.lock().await;
        // One that fails, or is not waited for to the end, has lost its place.
        let mut follower = match place.take().filter(|follower| follower.told == *after) {
            Some(follower) => follower,
            None => self.follower(after).await?,
        };
        let changes = follower.part(wait).await?;
        if changes.is_end {
            self.check_fence(follower.watch()).await?;
        }
        *place = Some(follower);
        Ok(changes)
    }

    async fn confirm(&self, _capture: &CaptureId, _until: &LogPosition) -> Result<()> {
        // The server lets its log go by itself.
        Ok(())
    }

    async fn end(&self, _capture: &CaptureId, keep_fence: bool) -> Result<()> {
        *self.follower.lock().await = None;
        if keep_fence {
            return Ok(());
        }
        self.lift().await
    }

    async fn kept(&self, _capture: &CaptureId) -> Result<Option<u64>> {
        // The server keeps its log as long as it is set to, whoever reads it.
        Ok(None)
    }

    async fn rows(&self, table: &TableName, keys: &[Key], budget: u64) -> Result<RowsChunk> {
        let (catalog, mut session) = (self.catalog().await?, self.reader().await?);
        let aside = self.aside().await?;
        let rows = lookup::Rows { live: &self.live, catalog: &catalog, table, aside: &aside };
        let read = rows.read(&mut session, keys, budget).await;
        let mut idle = self.idle.lock().await;
        if read.is_err() {
            // The server may have gone, and all connections with it.
            idle.clear();
            *self.aside.lock().await = None;
        } else if idle.len() < self.live.settings.connections {
            idle.push(session);
        }
        read
    }

    async fn may_fence(&self) -> Result<()> {
        privileges::may_fence(&mut self.live.session().await?, &self.live.settings.database).await
    }

    async fn fence(&self, _capture: &CaptureId, wait: Duration) -> Result<()> {
        *self.fenced.lock().await = None;
        let up = fence::up(&self.live, wait).await;
        *self.fenced.lock().await = None;
        up
    }

    async fn unfence(&self, _capture: &CaptureId) -> Result<()> {
        self.lift().await
    }
}
