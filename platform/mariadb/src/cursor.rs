//! One open query, and chunks cut from it one after the other.

use std::sync::Arc;

use bytes::Bytes;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::{Key, KeyRange, RowsChunk, RowsHeader, TableName, text};
use mysql_async::prelude::Queryable;
use mysql_async::{QueryResult, Row, TextProtocol, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::session::Session;
use crate::shape::Shape;

const WHAT: &str = "cannot be read";

/// What is read.
#[derive(Clone)]
pub struct Plan {
    pub table: TableName,
    pub range: KeyRange,
    pub shape: Arc<Shape>,
    pub query: String,
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
    let opened = session.conn().query_iter(plan.query.as_str()).await;
    let failure = match opened {
        Ok(result) => {
            let mut reading =
                Reading { result, position: 0, pending: None, plan: &plan, after: plan.range.after.clone() };
            let mut failure = reading.begin().await.err();
            while failure.is_none() {
                let Some(Ask { budget, reply }) = ask.take() else { break };
                match reading.chunk(budget).await {
                    Ok(chunk) => drop(reply.send(Ok(chunk))),
                    Err(error) => {
                        failure = Some(error);
                        ask = Some(Ask { budget, reply });
                        break;
                    }
                }
                ask = asks.recv().await;
            }
            if failure.is_none() {
                let _ = reading.result.drop_result().await;
            }
            failure
        }
        Err(error) => Some(Error::Sql(error)),
    };
    if let (Some(error), Some(Ask { reply, .. })) = (failure, ask) {
        let failure = match error {
            Error::Sql(error) => session.failed(Some(&plan.table.name), WHAT, error),
            Error::Failure(failure) => failure,
        };
        drop(reply.send(Err(failure)));
    }
    session
}

enum Error {
    Sql(mysql_async::Error),
    Failure(Failure),
}

impl From<mysql_async::Error> for Error {
    fn from(error: mysql_async::Error) -> Self {
        Self::Sql(error)
    }
}

struct Reading<'a> {
    result: QueryResult<'a, 'static, TextProtocol>,
    /// Rows read, for tables without a key.
    position: u64,
    pending: Option<Row>,
    plan: &'a Plan,
    after: Option<Key>,
}

impl Reading<'_> {
    async fn begin(&mut self) -> std::result::Result<(), Error> {
        if let (true, Some(key)) = (self.plan.shape.is_by_position(), &self.plan.range.after) {
            self.position = self.plan.shape.position(&key.0).map_err(Error::Failure)?;
        }
        self.pending = self.result.next().await?;
        Ok(())
    }

    async fn chunk(&mut self, budget: u64) -> std::result::Result<RowsChunk, Error> {
        let (mut block, mut rows, mut key) = (Vec::new(), 0, Vec::new());
        while let Some(row) = self.pending.take() {
            if rows > 0 && block.len() as u64 >= budget {
                self.pending = Some(row);
                break;
            }
            let at = block.len();
            print(&mut block, &row);
            drop(row);
            rows += 1;
            self.position += 1;
            self.pending = self.result.next().await?;
            let is_end = self.pending.is_none() || block.len() as u64 >= budget;
            if is_end {
                key = self.key(&block[at..block.len() - 1]);
            }
        }
        let until =
            if self.pending.is_some() { Some(Key(Bytes::from(key))) } else { self.plan.range.until.clone() };
        let after = std::mem::replace(&mut self.after, until.clone());
        let header = RowsHeader {
            table: self.plan.table.clone(),
            range: KeyRange { after, until },
            rows,
            bytes: block.len() as u64,
            digest: Digest::of(&block),
            unchanged: false,
        };
        Ok(RowsChunk { header, block: block.into() })
    }

    /// The key of a row of the block.
    fn key(&self, row: &[u8]) -> Vec<u8> {
        if self.plan.shape.is_by_position() {
            return self.position.to_string().into_bytes();
        }
        let values: Vec<&[u8]> = text::values(row).collect();
        let parts: Vec<&[u8]> =
            self.plan.shape.key().iter().filter_map(|n| values.get(*n).copied()).collect();
        parts.join(&b'\t')
    }
}

/// Values above this size are measured before they are written, so that the block grows once.
const LARGE: usize = 1 << 20;

fn print(block: &mut Vec<u8>, row: &Row) {
    for at in 0..row.len() {
        if at > 0 {
            block.push(b'\t');
        }
        match row.as_ref(at) {
            Some(Value::Bytes(bytes)) => {
                if bytes.len() > LARGE {
                    let escapes = bytes.iter().filter(|b| **b < 14 || **b == b'\\').count();
                    block.reserve_exact(bytes.len() + escapes + 64);
                }
                text::escape_into(block, bytes);
            }
            Some(Value::NULL) | None => block.extend_from_slice(text::NULL),
            Some(other) => text::escape_into(block, other.as_sql(true).as_bytes()),
        }
    }
    block.push(b'\n');
}

/// Reads a whole range on a connection, in one chunk.
pub async fn read_whole(session: &mut Session, plan: &Plan) -> Result<RowsChunk> {
    let done = async {
        let result = session.conn().query_iter(plan.query.as_str()).await?;
        let mut reading =
            Reading { result, position: 0, pending: None, plan, after: plan.range.after.clone() };
        reading.begin().await?;
        reading.chunk(u64::MAX).await
    };
    let done = done.await;
    done.map_err(|error| match error {
        Error::Sql(error) => session.failed(Some(&plan.table.name), WHAT, error),
        Error::Failure(failure) => failure,
    })
}
