//! Reading the change log, part by part.
//!
//! The server decodes its log from the slot's place on, whole transactions up to some number of rows, and keeps what it found
//! (on disk, where it is much) until it is fetched. Parts are cut from that: what one call leaves the next one goes on with.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::time::Instant;
use tokio_postgres::RowStream;
use tokio_postgres::error::SqlState;

use super::At;
use super::known::{Followed, Known};
use super::part::Part;
use super::pgoutput::{Message, Relation, Tuple, parse};
use super::position::{Inside, Lsn, Position};
use super::slot::Slot;
use super::visible::Visible;
use crate::connect::Conn;
use crate::sql::literal;

/// Rows after which the server ends with the transaction that it is in.
const ROWS: u64 = 500_000;
/// The largest number that it takes.
const MOST: u64 = i32::MAX as u64;
/// How long the log may take to be on disk by itself.
const FLUSHED: Duration = Duration::from_millis(50);
/// How long a transaction that is in the log may take to be seen.
const SEEN: Duration = Duration::from_secs(30);
/// Shortest and longest time between two looks.
const STEPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));

/// Sessions that read the log for one capture, and how far they have come.
pub struct Reading {
    slot: String,
    /// Asks the server; text is UTF-8.
    pub conn: Conn,
    /// Reads the log; text is the database's own.
    log: Conn,
    rows: Option<Pin<Box<RowStream>>>,
    /// Rows that came, and after how many the server was to end.
    received: u64,
    limit: u64,
    /// Where the reading began.
    from: Position,
    /// The log is told up to here once all rows have come, unless they came to the limit.
    covers: Lsn,
    tables: HashMap<u32, Option<Arc<Followed>>>,
    transaction: Option<Transaction>,
    /// Up to where changes were told.
    pub position: Position,
    /// Up to where there is nothing else to tell.
    reached: Lsn,
}

/// A transaction that is being told of.
struct Transaction {
    commit: Lsn,
    xid: u32,
    at: i64,
    /// Its messages about rows so far.
    counted: u64,
    /// How many of them were told before.
    told: u64,
}

/// Where the log ends, and when it was asked.
pub struct End {
    /// The end of what is written.
    pub written: Lsn,
    /// The end of what is on disk.
    pub flushed: Lsn,
    /// Microseconds since 1970, by the server's clock.
    pub now: i64,
}

impl Reading {
    /// Sessions that have read nothing.
    pub fn new(slot: String, conn: Conn, log: Conn, position: Position) -> Self {
        Self {
            slot,
            conn,
            log,
            rows: None,
            received: 0,
            limit: ROWS,
            from: position,
            covers: Lsn::default(),
            tables: HashMap::new(),
            transaction: None,
            position,
            reached: Lsn::default(),
        }
    }

    /// True while its sessions are there.
    pub fn is_alive(&self) -> bool {
        !self.conn.is_closed() && !self.log.is_closed()
    }

    /// True when everything before a place was told, or there was nothing to tell.
    pub fn has_reached(&self, place: Lsn) -> bool {
        self.rows.is_none() && self.reached >= place
    }

    /// True when there are rows left that were read from the log.
    pub fn is_open(&self) -> bool {
        self.rows.is_some()
    }

    /// Where the log ends now.
    pub async fn end(&self, at: &At) -> Result<End> {
        let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn(), \
                   (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8";
        let rows =
            self.conn.rows(sql).await.map_err(|e| at.failed("the end of its log cannot be asked for", &e))?;
        let row: Vec<String> = rows.into_iter().flatten().flatten().collect();
        let unknown = || Failure::permanent(at.item(), "the server does not tell where its log ends");
        let [written, flushed, now] = &row[..] else { return Err(unknown()) };
        let place = |text: &str| text.parse::<Lsn>().map_err(|_| unknown());
        Ok(End {
            written: place(written)?,
            flushed: place(flushed)?,
            now: now.parse().map_err(|_| unknown())?,
        })
    }

    /// Waits until the log is on disk up to a place: what was committed without waiting for that is only then decoded.
    pub async fn flushed(&self, at: &At, end: &End) -> Result<Lsn> {
        let deadline = Instant::now() + FLUSHED;
        let mut flushed = end.flushed;
        while flushed < end.written {
            if Instant::now() >= deadline {
                // The commit of a message is waited for.
                let sql = "SELECT pg_catalog.pg_logical_emit_message(true, 'handover', '')";
                self.conn.text(sql).await.map_err(|e| at.failed("its log cannot be written to", &e))?;
            } else {
                tokio::time::sleep(STEPS.0).await;
            }
            flushed = self.end(at).await?.flushed;
        }
        Ok(flushed)
    }

    /// Has the server decode the log, from its slot's place on.
    pub async fn open(&mut self, at: &At, flushed: Lsn) -> Result<()> {
        let slot = Slot { at, conn: &self.conn, name: &self.slot };
        let deadline = Instant::now() + Duration::from_secs(10);
        let sql = format!(
            "SELECT data FROM pg_catalog.pg_logical_slot_peek_binary_changes({0}, NULL, {1}, \
             'proto_version', '1', 'publication_names', {0})",
            literal(&self.slot),
            self.limit
        );
        loop {
            let confirmed = slot.confirmed().await?;
            if confirmed > self.position.base {
                return Err(slot.lost(&format!(
                    "they are asked for from {} on, and kept from {confirmed} on",
                    self.position.base
                )));
            }
            let error = match self.log.query_raw(&sql, std::iter::empty::<i32>()).await {
                Ok(rows) => {
                    self.rows = Some(Box::pin(rows));
                    break;
                }
                Err(error) => error,
            };
            if error.code() != Some(&SqlState::OBJECT_IN_USE) || Instant::now() >= deadline {
                return Err(self.refused(at, &error).await);
            }
            tokio::time::sleep(STEPS.1).await;
        }
        (self.received, self.covers, self.from) = (0, flushed, self.position);
        self.tables.clear();
        self.transaction = None;
        Ok(())
    }

    /// What stands behind an error of the log's reader.
    async fn refused(&self, at: &At, error: &tokio_postgres::Error) -> Failure {
        let slot = Slot { at, conn: &self.conn, name: &self.slot };
        // The error's own words are those of whatever came across the loss first.
        if let Err(lost) = slot.confirmed().await {
            return lost;
        }
        let message = error.as_db_error().map(|db| db.message().to_owned()).unwrap_or_default();
        if message.contains("publication") && error.code() == Some(&SqlState::UNDEFINED_OBJECT) {
            return slot.lost(&format!("the publication {} is gone", self.slot));
        }
        at.failed("its change log cannot be read", error)
    }

    /// Adds to a part until it is full or nothing is left.
    pub async fn fill(&mut self, at: &At, known: &Known, part: &mut Part) -> Result<()> {
        while let Some(rows) = &mut self.rows {
            let row = match rows.next().await {
                Some(Ok(row)) => row,
                Some(Err(error)) => {
                    self.rows = None;
                    return Err(self.refused(at, &error).await);
                }
                None => {
                    self.rows = None;
                    self.ended();
                    return Ok(());
                }
            };
            self.received += 1;
            let data: &[u8] = row.try_get(0).map_err(|e| at.failed("its change log cannot be read", &e))?;
            self.take(at, known, data, part)?;
            if part.is_full() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// All rows have come.
    fn ended(&mut self) {
        if self.received < self.limit {
            self.reached = self.covers;
            self.position = Position::at(self.position.base.max(self.covers));
        }
        // What is not confirmed is read again: where that is all there was, more is read the next time.
        self.limit = if self.position == self.from { self.limit.saturating_mul(2).min(MOST) } else { ROWS };
    }

    /// Adds what a message tells.
    fn take(&mut self, at: &At, known: &Known, data: &[u8], part: &mut Part) -> Result<()> {
        let broken = |e| Failure::permanent(at.item(), "its change log cannot be understood").because(e);
        match parse(data).map_err(broken)? {
            Message::Begin { commit, at, xid } => {
                let commit = Lsn(commit);
                let told = if commit < self.position.base {
                    u64::MAX
                } else {
                    self.position
                        .inside
                        .filter(|inside| inside.commit == commit)
                        .map_or(0, |inside| inside.told)
                };
                self.transaction = Some(Transaction { commit, xid, at, counted: 0, told });
            }
            Message::Commit { end } => {
                let Some(transaction) = self.transaction.take() else { return Ok(()) };
                if transaction.commit >= self.position.base {
                    self.position = Position::at(Lsn(end));
                    part.at = Some(transaction.at);
                }
            }
            Message::Relation(relation) => {
                let table = known_as(at, known, &relation)?;
                self.tables.insert(relation.table, table);
            }
            Message::Insert { table, new } => self.row(at, table, part, None, Some(&new))?,
            Message::Update { table, old, new } => self.row(at, table, part, old.as_ref(), Some(&new))?,
            Message::Delete { table, old } => self.row(at, table, part, Some(&old), None)?,
            Message::Truncate { tables } => {
                if self.is_new(part) {
                    for number in tables {
                        if let Some(Some(table)) = self.tables.get(&number) {
                            part.add_cleared(number, table);
                        }
                    }
                    self.told();
                }
            }
            Message::Other => {}
        }
        Ok(())
    }

    /// Counts a message about rows; whether it has not been told before.
    fn is_new(&mut self, part: &mut Part) -> bool {
        let Some(transaction) = &mut self.transaction else { return false };
        transaction.counted += 1;
        let is_new = transaction.counted > transaction.told;
        if is_new {
            part.of_transaction(transaction.xid);
            part.at.get_or_insert(transaction.at);
        }
        is_new
    }

    /// A message of the transaction was told.
    fn told(&mut self) {
        if let Some(Transaction { commit, counted, .. }) = self.transaction {
            self.position.inside = Some(Inside { commit, told: counted });
        }
    }

    fn row(
        &mut self,
        at: &At,
        number: u32,
        part: &mut Part,
        old: Option<&Tuple<'_>>,
        new: Option<&Tuple<'_>>,
    ) -> Result<()> {
        if !self.is_new(part) {
            return Ok(());
        }
        if let Some(Some(table)) = self.tables.get(&number) {
            for row in [old, new].into_iter().flatten() {
                part.add_row(number, table, row, old.map(Vec::as_slice)).map_err(|e| {
                    let item = format!("{}, table {}", at.item(), table.name);
                    Failure::permanent(item, "its changes cannot be followed").because(e)
                })?;
            }
        }
        self.told();
        Ok(())
    }

    /// Waits until everybody sees these transactions: the log knows of them a moment before.
    pub async fn seen(&self, at: &At, xids: &[u32]) -> Result<()> {
        let (deadline, mut step) = (Instant::now() + SEEN, STEPS.0);
        loop {
            let snapshot = self.conn.text("SELECT pg_catalog.pg_current_snapshot()").await;
            let snapshot = snapshot.map_err(|e| at.failed("its transactions cannot be looked at", &e))?;
            let Some(visible) = Visible::of(&snapshot.unwrap_or_default()) else {
                return Err(Failure::permanent(at.item(), "the server tells of no transactions"));
            };
            if xids.iter().all(|xid| visible.shows(*xid)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Failure::transient(
                    at.item(),
                    "a transaction is in the log and yet not committed",
                )
                .hint("does the server wait for a standby (synchronous_standby_names) that is gone?"));
            }
            tokio::time::sleep(step).await;
            step = (step * 2).min(STEPS.1);
        }
    }
}

/// The table that a message is about, looking as it is known; `None` for one that is not followed.
fn known_as(at: &At, known: &Known, relation: &Relation<'_>) -> Result<Option<Arc<Followed>>> {
    let Some(table) = known.followed.get(&relation.table) else { return Ok(None) };
    let told = relation.columns.iter().map(|(name, kind, modifier)| (*name, *kind, *modifier));
    if !told.eq(table.columns.iter().map(|(name, kind, modifier)| (name.as_slice(), *kind, *modifier))) {
        return Err(at.altered(&table.name.to_string()));
    }
    Ok(Some(table.clone()))
}
