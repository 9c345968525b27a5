//! One moment, seen by several connections.

mod moment;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::{DatabaseSnapshot, Result};
use handover_engine::rows::{Key, KeyRange, RowsChunk, Schema, SnapshotId, TableKey, TableName};
use tokio::sync::{Mutex, Semaphore};

pub use self::moment::snapshot_position;
use self::moment::{Moment, agree, begin_all, log_position};
use super::cuts::Cutter;
use crate::catalog::{self, Catalog};
use crate::cursor::{Cursor, Place, Plan};
use crate::session::{Role, Session};
use crate::settings::Settings;
use crate::sql::quote;

const WHAT: &str = "no snapshot can be taken";
/// How long writers may make the lock wait, in seconds.
const LOCK_WAIT: u32 = 10;
/// Smaller tables are not cut into ranges.
const WORTH_SPLITTING: u64 = 32 << 20;

/// A view of a database.
pub struct Snapshot {
    dataset: DatasetName,
    settings: Settings,
    id: SnapshotId,
    catalog: Catalog,
    pool: Mutex<Pool>,
    /// For large values; none where there is a single connection.
    aside: Option<Arc<Mutex<Session>>>,
    /// One for every connection: who holds one finds a connection, idle or in a parked cursor.
    lanes: Semaphore,
    /// A connection was lost, and with it the view.
    lost: AtomicBool,
}

struct Pool {
    idle: Vec<Session>,
    parked: Vec<Cursor>,
}

/// Connections of a view, whose transactions are still to begin.
async fn connect(dataset: &DatasetName, settings: &Settings) -> Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for _ in 0..=settings.connections {
        let mut session = Session::open(dataset, settings, Role::Reader).await?;
        session.enter(&settings.database).await?;
        session.run(WHAT, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        // A session that may write to the binary log keeps what it has read locked, whatever it goes back to. Without
        // BINLOG ADMIN that cannot be helped.
        let _ = session.try_run("SET SESSION sql_log_bin = 0").await;
        sessions.push(session);
    }
    Ok(sessions)
}

/// Takes snapshots of databases of one server, all of one moment.
pub async fn take_together(all: &[(&DatasetName, &Settings)]) -> Result<Vec<Snapshot>> {
    let [(dataset, settings), rest @ ..] = all else { return Ok(Vec::new()) };
    if rest.is_empty() {
        return Ok(vec![take(dataset, settings, &[]).await?]);
    }
    let mut views = Vec::new();
    for (dataset, settings) in all {
        views.push(connect(dataset, settings).await?);
    }
    let mut lock = Session::open(dataset, settings, Role::Reader).await?;
    lock.run(WHAT, &format!("SET lock_wait_timeout = {LOCK_WAIT}")).await?;
    lock.run(WHAT, "FLUSH TABLES WITH READ LOCK").await?;
    let seen = async {
        let mut seen = Vec::new();
        for ((_, settings), sessions) in all.iter().zip(&mut views) {
            lock.enter(&settings.database).await?;
            seen.push(see(sessions, &mut lock, settings, &[]).await?);
        }
        Ok::<_, Failure>(seen)
    }
    .await;
    lock.run(WHAT, "UNLOCK TABLES").await?;
    let mut out = Vec::new();
    for (((dataset, settings), sessions), (catalog, moment)) in all.iter().zip(views).zip(seen?) {
        out.push(Snapshot::of(dataset, settings, sessions, catalog, moment, &mut lock).await?);
    }
    Ok(out)
}

/// Takes a snapshot.
pub async fn take(dataset: &DatasetName, settings: &Settings, exclude: &[String]) -> Result<Snapshot> {
    let mut sessions = connect(dataset, settings).await?;
    let mut lock = Session::open(dataset, settings, Role::Reader).await?;
    lock.enter(&settings.database).await?;
    lock.run(WHAT, &format!("SET lock_wait_timeout = {LOCK_WAIT}")).await?;
    // 1227: no RELOAD privilege.
    let locked = lock.run_unless(WHAT, "FLUSH TABLES WITH READ LOCK", &[1227]).await?;
    let (catalog, moment) = if locked {
        let seen = see(&mut sessions, &mut lock, settings, exclude).await;
        lock.run(WHAT, "UNLOCK TABLES").await?;
        seen?
    } else {
        let position = agree(&mut sessions).await?;
        let session = &mut sessions[0];
        let catalog = catalog::read(session, &settings.database, exclude).await?;
        session.let_go().await.map_err(|error| session.failed(None, WHAT, error))?;
        let moment = match position {
            Some((file, offset)) => Some(Moment::at(file, offset, &mut lock).await),
            None => None,
        };
        (catalog, moment)
    };
    Snapshot::of(dataset, settings, sessions, catalog, moment, &mut lock).await
}

/// Begins all transactions behind a lock that lets nobody commit.
async fn see(
    sessions: &mut [Session],
    lock: &mut Session,
    settings: &Settings,
    exclude: &[String],
) -> Result<(Catalog, Option<Moment>)> {
    begin_all(sessions).await?;
    let moment = match log_position(lock).await? {
        Some((file, offset)) => {
            let gtids = lock.record(WHAT, "SELECT @@global.gtid_binlog_pos").await?.text(0);
            Some(Moment { file, offset, gtids })
        }
        None => None,
    };
    Ok((catalog::read(lock, &settings.database, exclude).await?, moment))
}

impl Snapshot {
    /// The view that transactions see which have begun.
    async fn of(
        dataset: &DatasetName,
        settings: &Settings,
        mut sessions: Vec<Session>,
        mut catalog: Catalog,
        moment: Option<Moment>,
        lock: &mut Session,
    ) -> Result<Self> {
        if let Some(moment) = moment {
            moment.note(&mut catalog.schema.state);
        }
        catalog::accounts(lock, settings, &mut catalog).await?;
        let aside = if sessions.len() > 1 { sessions.pop() } else { None };
        let id = lock.record(WHAT, "SELECT UUID()").await?.text(0);
        Ok(Self {
            dataset: dataset.clone(),
            settings: settings.clone(),
            id: SnapshotId(id),
            catalog,
            aside: aside.map(|session| Arc::new(Mutex::new(session))),
            lanes: Semaphore::new(sessions.len()),
            pool: Mutex::new(Pool { idle: sessions, parked: Vec::new() }),
            lost: AtomicBool::new(false),
        })
    }

    fn transactional(&self, table: &TableName) -> bool {
        self.catalog.tables.get(&table.name).is_none_or(|table| table.transactional)
    }

    /// A connection of the view. To be called with a lane.
    async fn session(&self, pool: &mut Pool) -> Result<Session> {
        loop {
            if let Some(session) = pool.idle.pop() {
                return Ok(session);
            }
            let Some(at) = pool.parked.iter().position(|cursor| self.transactional(&cursor.table)) else {
                return Err(self.gone());
            };
            let oldest = pool.parked.remove(at);
            if let Some(session) = self.end(oldest).await {
                return Ok(session);
            }
        }
    }

    /// Ends a query in the middle of its result; the connection, when it still has the view. Without the kill, all that is
    /// left of the result would have to be taken.
    async fn end(&self, cursor: Cursor) -> Option<Session> {
        if let Ok(mut killer) = Session::open(&self.dataset, &self.settings, Role::Reader).await {
            // It may have ended by itself.
            let _ = killer.run_unless(WHAT, &format!("KILL QUERY {}", cursor.connection), &[1094]).await;
        }
        let mut session = cursor.close().await?;
        // The kill may have come late, and stops the next statement instead.
        let _ = session.run_unless(WHAT, "DO 0", &[1317]).await;
        session.let_go().await.ok().map(|()| session)
    }

    fn gone(&self) -> Failure {
        Failure::transient(
            format!("{}, {}", self.dataset, self.settings.database),
            "the snapshot was lost with its connections",
        )
        .hint("check that the server runs; a new snapshot is taken when the migration is resumed")
    }

    async fn parked(&self, table: &TableName, range: &KeyRange) -> Option<Cursor> {
        let mut pool = self.pool.lock().await;
        let at = pool.parked.iter().position(|cursor| cursor.table == *table && cursor.rest == *range)?;
        Some(pool.parked.remove(at))
    }

    async fn cursor(&self, table: &TableName, range: &KeyRange) -> Result<Cursor> {
        if let Some(cursor) = self.parked(table, range).await {
            return Ok(cursor);
        }
        let database = &self.settings.database;
        let aside = self.aside.clone().filter(|_| self.transactional(table));
        let place = Place { database, positioned: false, aside };
        let plan = Plan::new(table, range, self.catalog.shape(table)?, place)?;
        let session = if self.transactional(table) {
            self.session(&mut *self.pool.lock().await).await?
        } else {
            // Others read on while this one waits for writers.
            let mut session = Session::open(&self.dataset, &self.settings, Role::Reader).await?;
            let lock = format!("LOCK TABLES {}.{} READ", quote(&self.settings.database), quote(&table.name));
            session.run_on(&table.name, "cannot be locked", &lock).await?;
            session
        };
        Ok(Cursor::open(session, plan))
    }

    /// The connection for large values is still of use, if there was one.
    async fn has_aside(&self) -> bool {
        match &self.aside {
            Some(aside) => aside.lock().await.let_go().await.is_ok(),
            None => true,
        }
    }

    /// A cursor has done its work: its connection is free again, and so is its table.
    async fn free(&self, cursor: Cursor) {
        let is_ours = self.transactional(&cursor.table);
        let Some(session) = cursor.close().await else { return };
        if is_ours {
            self.put_back(session).await;
        }
    }

    /// A cursor has failed. Another connection than its own may be why: then its query is still at work.
    async fn free_failed(&self, cursor: Cursor) {
        let is_ours = self.transactional(&cursor.table);
        let session = self.end(cursor).await;
        if !is_ours {
            return;
        }
        match session {
            Some(session) if self.has_aside().await => self.put_back(session).await,
            _ => self.lost.store(true, Ordering::Relaxed),
        }
    }

    /// Keeps a connection that lets go of what it has read.
    async fn put_back(&self, mut session: Session) {
        match session.let_go().await {
            Ok(()) => self.pool.lock().await.idle.push(session),
            Err(_) => self.lost.store(true, Ordering::Relaxed),
        }
    }
}

#[async_trait]
impl DatabaseSnapshot for Snapshot {
    fn id(&self) -> SnapshotId {
        self.id.clone()
    }

    fn schema(&self) -> &Schema {
        &self.catalog.schema
    }

    async fn read(&self, table: &TableName, range: &KeyRange, budget: u64) -> Result<RowsChunk> {
        let _lane = self.lanes.acquire().await.map_err(|_| self.gone())?;
        if self.lost.load(Ordering::Relaxed) {
            return Err(self.gone());
        }
        let mut cursor = self.cursor(table, range).await?;
        match cursor.next(budget).await {
            Ok((chunk, true)) => {
                self.free(cursor).await;
                Ok(chunk)
            }
            Ok((chunk, false)) => {
                self.pool.lock().await.parked.push(cursor);
                Ok(chunk)
            }
            Err(failure) => {
                self.free_failed(cursor).await;
                Err(failure)
            }
        }
    }

    async fn split(&self, table: &TableName, parts: usize) -> Result<Vec<Key>> {
        let Some(spec) = self.catalog.schema.table(table) else { return Ok(Vec::new()) };
        let is_keyed = matches!(spec.key, TableKey::Columns(_));
        if parts < 2 || spec.estimated_bytes < WORTH_SPLITTING || !is_keyed || !self.transactional(table) {
            return Ok(Vec::new());
        }
        let shape = self.catalog.shape(table)?;
        let _lane = self.lanes.acquire().await.map_err(|_| self.gone())?;
        let mut session = self.session(&mut *self.pool.lock().await).await?;
        let mut cutter = Cutter { session: &mut session, database: &self.settings.database, shape: &shape };
        let cuts = cutter.cuts(parts).await;
        self.put_back(session).await;
        cuts
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // Nobody wants what is left of their results.
        self.pool.get_mut().parked.iter().for_each(Cursor::abort);
    }
}
