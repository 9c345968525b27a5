//! One open query, and chunks cut from it one after the other.

use std::sync::Arc;

use bytes::Bytes;
use handover_engine::chunk::room::{LARGE_BYTES, Room};
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyRange, RowsChunk, RowsHeader, TableName, text};
use mysql_async::prelude::Queryable;
use mysql_async::{QueryResult, Row, TextProtocol, Value, from_value_opt};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::session::{Session, record};
use crate::shape::Shape;

const WHAT: &str = "cannot be read";
/// Values above this size are measured before they are written, so that the block grows once.
const LARGE: usize = 1 << 20;

/// Of the tables whose rows may be large, one chunk is read at a time; one that is large keeps the room until it is sent…
static ROOM: Room = Room::new();
/// …or looked at. Apart, since what is read again may be compared with a chunk that has room already.
static ROOM_AGAIN: Room = Room::new();

/// What is read.
#[derive(Clone)]
pub struct Plan {
    table: TableName,
    range: KeyRange,
    shape: Arc<Shape>,
    database: String,
    query: String,
    aside: Option<Arc<Mutex<Session>>>,
}

/// How a table's rows are found, beyond its shape.
pub struct Place<'a> {
    pub database: &'a str,
    /// The table has a column of positions.
    pub positioned: bool,
    /// Another connection that sees the same rows: large values are read through it, piece by piece.
    pub aside: Option<Arc<Mutex<Session>>>,
}

impl Plan {
    /// To read a range of a table.
    pub fn new(table: &TableName, range: &KeyRange, shape: Shape, place: Place<'_>) -> Result<Self> {
        let Place { database, positioned, aside } = place;
        let aside = aside.filter(|_| !shape.in_pieces().is_empty());
        let query = shape.select(database, range, positioned, aside.is_some())?;
        let (table, range, shape) = (table.clone(), range.clone(), Arc::new(shape));
        Ok(Self { table, range, shape, database: database.to_owned(), query, aside })
    }

    /// To read the rows of a condition on the key, whose last key ends the range.
    pub fn of_keys(
        table: &TableName,
        range: &KeyRange,
        shape: Shape,
        place: Place<'_>,
        condition: &str,
    ) -> Self {
        let aside = place.aside.filter(|_| !shape.in_pieces().is_empty());
        let query = shape.select_where(place.database, condition, aside.is_some());
        let (table, range, database) = (table.clone(), range.clone(), place.database.to_owned());
        Self { table, range, shape: Arc::new(shape), database, query, aside }
    }

    /// No more rows than these, of a table with a key.
    pub fn at_most(mut self, rows: u64) -> Self {
        self.query.push_str(&format!(" LIMIT {rows}"));
        self
    }

    /// How many rows of a table without a key lie before the range.
    fn position(&self) -> Result<u64> {
        match &self.range.after {
            Some(key) if self.shape.is_by_position() => self.shape.position(&key.0),
            _ => Ok(0),
        }
    }
}

struct Ask {
    budget: u64,
    reply: oneshot::Sender<Result<RowsChunk>>,
}

/// A query that is open, in a task that owns its connection.
pub struct Cursor {
    pub table: TableName,
    /// What is left of its range.
    pub rest: KeyRange,
    /// The connection, by the server's number.
    pub connection: u32,
    asks: mpsc::Sender<Ask>,
    task: JoinHandle<Session>,
}

impl Cursor {
    /// Opens a query. The task lives as long as the cursor.
    pub fn open(mut session: Session, plan: Plan) -> Self {
        let connection = session.conn().id();
        let (asks, receiver) = mpsc::channel(1);
        let (table, rest) = (plan.table.clone(), plan.range.clone());
        Self { table, rest, connection, asks, task: tokio::spawn(serve(session, plan, receiver)) }
    }

    /// The next chunk, and whether it is the last.
    pub async fn next(&mut self, budget: u64) -> Result<(RowsChunk, bool)> {
        let (reply, answer) = oneshot::channel();
        let lost = || Failure::transient(format!("table {}", self.table), "reading was stopped");
        self.asks.send(Ask { budget, reply }).await.map_err(|_| lost())?;
        let chunk = answer.await.map_err(|_| lost())??;
        let is_last = chunk.header.range.until == self.rest.until;
        self.rest.after.clone_from(&chunk.header.range.until);
        Ok((chunk, is_last))
    }

    /// Breaks its connection off.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Ends the query; the connection, when it is still of use. What is left of the result is read and dropped: the
    /// caller has killed the query if that may be much.
    pub async fn close(self) -> Option<Session> {
        drop(self.asks);
        self.task.await.ok()
    }
}

async fn serve(mut session: Session, plan: Plan, mut asks: mpsc::Receiver<Ask>) -> Session {
    let mut ask = asks.recv().await;
    if let Err(failure) = answer(&mut session, &plan, &mut asks, &mut ask).await
        && let Some(Ask { reply, .. }) = ask
    {
        drop(reply.send(Err(failure)));
    }
    session
}

/// Answers until nobody asks any more. After a failure `ask` is what was not answered.
async fn answer(
    session: &mut Session,
    plan: &Plan,
    asks: &mut mpsc::Receiver<Ask>,
    ask: &mut Option<Ask>,
) -> Result<()> {
    let (position, last) = (plan.position()?, last_key(session, plan).await?);
    let done: std::result::Result<(), mysql_async::Error> = async {
        let result = session.conn().query_iter(plan.query.as_str()).await?;
        let mut reading = Reading::new(result, plan, position, last, &ROOM);
        while let Some(Ask { budget, reply }) = ask.take() {
            match reading.chunk(budget).await {
                Ok(chunk) => drop(reply.send(Ok(chunk))),
                Err(error) => {
                    *ask = Some(Ask { budget, reply });
                    return Err(error);
                }
            }
            *ask = asks.recv().await;
        }
        let _ = reading.result.drop_result().await;
        Ok(())
    }
    .await;
    done.map_err(|error| session.failed(Some(&plan.table.name), WHAT, error))
}

/// The last key of the range, of a table with large rows.
async fn last_key(session: &mut Session, plan: &Plan) -> Result<Option<Vec<u8>>> {
    if !plan.shape.may_be_large() {
        return Ok(None);
    }
    let query = plan.shape.last(&plan.database, &plan.range)?;
    let row = session.conn().query_first::<Row, _>(query.as_str()).await;
    let row = row.map_err(|error| session.failed(Some(&plan.table.name), WHAT, error))?;
    Ok(row.map(|row| plan.shape.last_key(&record(row))))
}

struct Reading<'a> {
    result: QueryResult<'a, 'static, TextProtocol>,
    /// Rows read, for tables without a key.
    position: u64,
    /// A row that was looked at, to see whether there is another one.
    pending: Option<Row>,
    /// The last key, of a table whose rows may be large: looking at a row would hold it until it is asked for.
    last: Option<Vec<u8>>,
    plan: &'a Plan,
    after: Option<Key>,
    room: &'static Room,
}

impl<'a> Reading<'a> {
    fn new(
        result: QueryResult<'a, 'static, TextProtocol>,
        plan: &'a Plan,
        position: u64,
        last: Option<Vec<u8>>,
        room: &'static Room,
    ) -> Self {
        Self { result, position, pending: None, last, plan, after: plan.range.after.clone(), room }
    }

    async fn chunk(&mut self, budget: u64) -> std::result::Result<RowsChunk, mysql_async::Error> {
        let room = if self.plan.shape.may_be_large() { Some(self.room.take().await) } else { None };
        let (mut block, mut rows) = (Vec::new(), 0);
        let until = loop {
            let row = match self.pending.take() {
                Some(row) => Some(row),
                None => self.result.next().await?,
            };
            let Some(row) = row else { break self.plan.range.until.clone() };
            let begins = block.len();
            self.print(&mut block, row).await?;
            rows += 1;
            self.position += 1;
            if block.len() as u64 >= budget {
                let key = self.key(&block[begins..block.len() - 1]);
                let is_end = self.is_end(&key).await?;
                break if is_end { self.plan.range.until.clone() } else { Some(Key(Bytes::from(key))) };
            }
        };
        let after = std::mem::replace(&mut self.after, until.clone());
        let header = RowsHeader {
            table: self.plan.table.clone(),
            range: KeyRange { after, until },
            rows,
            bytes: block.len() as u64,
            digest: Digest::of(&block),
            unchanged: false,
        };
        let block = match room.filter(|_| block.len() > LARGE_BYTES) {
            Some(room) => room.until_dropped(block),
            None => block.into(),
        };
        Ok(RowsChunk { header, block })
    }

    /// Each value is dropped as soon as it is written.
    async fn print(&self, block: &mut Vec<u8>, row: Row) -> std::result::Result<(), mysql_async::Error> {
        let mut values = row.unwrap_raw();
        let large = self.large(&mut values);
        let key = if large.is_empty() { Vec::new() } else { self.key_of(&values) };
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                block.push(b'\t');
            }
            match (value, large.iter().find(|(column, _)| *column == at)) {
                (_, Some((column, bytes))) => self.print_large(block, &key, *column, *bytes).await?,
                (Some(Value::Bytes(bytes)), None) => {
                    if bytes.len() > LARGE {
                        let escapes = bytes.iter().filter(|b| **b < 14 || **b == b'\\').count();
                        block.reserve_exact(bytes.len() + escapes + 64);
                    }
                    text::escape_into(block, &bytes);
                }
                (Some(Value::NULL) | None, None) => block.extend_from_slice(text::NULL),
                (Some(other), None) => text::escape_into(block, other.as_sql(true).as_bytes()),
            }
        }
        block.push(b'\n');
        Ok(())
    }

    /// Takes what stands behind the columns: which values the row is without, and how many bytes each has.
    fn large(&self, values: &mut Vec<Option<Value>>) -> Vec<(usize, u64)> {
        if self.plan.aside.is_none() {
            return Vec::new();
        }
        let columns = self.plan.shape.in_pieces();
        let lengths = values.split_off(values.len() - columns.len());
        let bytes = |length: Option<Value>| from_value_opt::<Option<u64>>(length?).ok().flatten();
        columns.iter().zip(lengths).filter_map(|(column, length)| Some((*column, bytes(length)?))).collect()
    }

    async fn print_large(
        &self,
        block: &mut Vec<u8>,
        key: &[u8],
        column: usize,
        bytes: u64,
    ) -> std::result::Result<(), mysql_async::Error> {
        let Some(aside) = &self.plan.aside else { return Ok(()) };
        let Plan { shape, database, .. } = self.plan;
        let other = |what: String| mysql_async::Error::Other(what.into());
        let pieces = shape.pieces(database, key, column, bytes).map_err(|e| other(e.to_string()))?;
        // Of arbitrary bytes some need an escape.
        block.reserve_exact(usize::try_from(bytes + bytes / 32).unwrap_or(0) + 64);
        let (mut session, mut read) = (aside.lock().await, 0);
        let mut pieces = session.conn().query_iter(pieces).await?;
        while let Some(piece) = pieces.next().await? {
            if let Some(Some(Value::Bytes(piece))) = piece.unwrap_raw().pop() {
                read += piece.len() as u64;
                text::escape_into(block, &piece);
            }
        }
        session.let_go().await?;
        if read == bytes {
            return Ok(());
        }
        Err(other(format!("a value of {bytes} bytes was read as {read} bytes, in pieces")))
    }

    /// No row follows the one with this key.
    async fn is_end(&mut self, key: &[u8]) -> std::result::Result<bool, mysql_async::Error> {
        if let Some(last) = &self.last {
            return Ok(last == key);
        }
        self.pending = self.result.next().await?;
        Ok(self.pending.is_none())
    }

    /// The key of a row of a table that has one.
    fn key_of(&self, values: &[Option<Value>]) -> Vec<u8> {
        let mut key = Vec::new();
        for (n, at) in self.plan.shape.key().iter().enumerate() {
            if n > 0 {
                key.push(b'\t');
            }
            match values.get(*at) {
                Some(Some(Value::Bytes(bytes))) => text::escape_into(&mut key, bytes),
                Some(Some(other)) => text::escape_into(&mut key, other.as_sql(true).as_bytes()),
                _ => key.extend_from_slice(text::NULL),
            }
        }
        key
    }

    /// The key of a row of the block.
    fn key(&self, row: &[u8]) -> Vec<u8> {
        if self.plan.shape.is_by_position() {
            return self.position.to_string().into_bytes();
        }
        self.plan.shape.key_of(row)
    }
}

/// Reads a whole range on a connection, in one chunk.
pub async fn read_whole(session: &mut Session, plan: &Plan) -> Result<RowsChunk> {
    read_at_once(session, plan, &ROOM_AGAIN).await
}

/// Reads a range on a connection, no further than a budget and `rows` rows, which its plan is bound to.
pub async fn read_part(session: &mut Session, plan: &Plan, budget: u64, rows: u64) -> Result<RowsChunk> {
    let done = match session.conn().query_iter(plan.query.as_str()).await {
        Ok(result) => {
            let mut reading = Reading::new(result, plan, 0, None, &ROOM_AGAIN);
            let chunk = reading.chunk(budget).await;
            let _ = reading.result.drop_result().await;
            chunk
        }
        Err(error) => Err(error),
    };
    let mut chunk = done.map_err(|error| session.failed(Some(&plan.table.name), WHAT, error))?;
    if chunk.header.rows == rows {
        // There may be more.
        let text = chunk.block.strip_suffix(b"\n").unwrap_or(&chunk.block);
        let last = text.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        chunk.header.range.until = Some(Key(plan.shape.key_of(last).into()));
    }
    Ok(chunk)
}

/// Reads the rows of a list of keys on a connection, to be sent.
pub async fn read_keys(session: &mut Session, plan: &Plan) -> Result<RowsChunk> {
    read_at_once(session, plan, &ROOM).await
}

async fn read_at_once(session: &mut Session, plan: &Plan, room: &'static Room) -> Result<RowsChunk> {
    let position = plan.position()?;
    let done = match session.conn().query_iter(plan.query.as_str()).await {
        Ok(result) => Reading::new(result, plan, position, None, room).chunk(u64::MAX).await,
        Err(error) => Err(error),
    };
    done.map_err(|error| session.failed(Some(&plan.table.name), WHAT, error))
}
