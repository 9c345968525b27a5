//! What both hosts offer to whoever copies and follows their databases, and what the source takes behind its fences.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use handover_engine::change::{Change, Changes, LogPosition};
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::name::{CaptureId, DatasetName, LeaseId};
use handover_engine::ports::{
    Answers, ChangeSource, ChangesRequest, Fence, FencedSource, KeysRequest, Opened, Parts, Result,
    RowSource, Source, SourceHost, TreeSource,
};
use handover_engine::rows::{
    Key, KeyRange, KeyedRows, RowsChunk, RowsHeader, RowsRequest, RowsWanted, Schema, SnapshotId, TableName,
};
use handover_engine::time::Clock;
use handover_engine::tree::{Changed, Cursor, Entry, FileRequest, PackChunk, PackRequest, Segment, Spots};

use super::base::{Base, key, number};
use super::planted::Planted;
use super::world::{Port, Side, World};
use crate::model::{self, Table};

/// Changes that are told at once, at most.
const MOST: usize = 6;

/// The way to one of the hosts.
pub struct HostPort {
    port: Port,
    side: Side,
}

/// A host as a source.
pub fn source(port: &Port, side: Side) -> Source {
    Source::of(Arc::new(HostPort { port: port.clone(), side }))
}

impl HostPort {
    async fn call<T: Send>(
        &self,
        what: &str,
        dataset: &DatasetName,
        act: impl FnOnce(&mut Base) -> Result<T> + Send,
    ) -> Result<T> {
        let side = self.side;
        let what = format!("{side:?}, {dataset}: {what}");
        self.port.call(side, &what, |world| act(base(world, side, dataset)?)).await
    }

    /// Something that is written to the source behind its fence.
    async fn behind<T: Send>(
        &self,
        what: &str,
        fence: &Fence,
        act: impl FnOnce(&mut Base) -> Result<T> + Send,
    ) -> Result<T> {
        let side = self.side;
        let name = format!("{side:?}, {}: {what} behind the fence", fence.dataset);
        let act = |world: &mut World| {
            let base = base(world, side, &fence.dataset)?;
            if base.fences.contains(&fence.capture) {
                return act(base);
            }
            world.wrong(format!("{name}: there is no fence"));
            Err(Failure::operator(fence.dataset.to_string(), "its users are not fenced off"))
        };
        self.port.call(side, &name, act).await
    }
}

fn base<'a>(world: &'a mut World, side: Side, dataset: &DatasetName) -> Result<&'a mut Base> {
    let base = world.host(side).bases.get_mut(dataset);
    base.ok_or_else(|| Failure::operator(dataset.to_string(), format!("the {side:?} has no such database")))
}

/// Triggers would see what is written.
fn armed(base: &Base) -> Result<()> {
    if base.disarmed { Ok(()) } else { Err(Failure::permanent("database", "its triggers are not put away")) }
}

fn position(at: u64) -> LogPosition {
    LogPosition(at.to_string())
}

#[async_trait]
impl SourceHost for HostPort {
    async fn inspect(&self) -> Result<Inventory> {
        Err(Failure::permanent("source", "a driver does not inspect"))
    }

    async fn open(&self, lease: &LeaseId, dataset: &DatasetName, _: Parts) -> Result<Opened> {
        let side = self.side;
        let what = format!("{side:?}, {dataset}: open");
        let act = |world: &mut World| {
            let (schema, rows) = {
                let base = base(world, side, dataset)?;
                (base.schema(), base.rows.clone())
            };
            let host = world.host(side);
            if let Some(snapshot) = host.leases.get(lease) {
                return Ok(Opened { snapshot: snapshot.clone(), schema: host.shown[&snapshot.0].0.clone() });
            }
            let snapshot = SnapshotId(format!("{side:?} {}", host.shown.len()));
            host.shown.insert(snapshot.0.clone(), (schema.clone(), rows));
            host.leases.insert(lease.clone(), snapshot.clone());
            Ok(Opened { snapshot, schema })
        };
        self.port.call(side, &what, act).await
    }

    async fn close(&self, lease: &LeaseId) -> Result<()> {
        let side = self.side;
        let act = |world: &mut World| {
            world.host(side).leases.remove(lease);
            Ok(())
        };
        self.port.call(side, &format!("{side:?}: close"), act).await
    }
}

#[async_trait]
impl RowSource for HostPort {
    async fn rows(&self, request: RowsRequest) -> Result<Answers<RowsChunk>> {
        let side = self.side;
        let act = |world: &mut World| {
            let host = world.host(side);
            if host.leases.get(&request.lease) != Some(&request.snapshot) {
                return Err(Failure::transient("rows", "the snapshot is gone"));
            }
            let table = &host.shown[&request.snapshot.0].1[&request.table];
            Ok(answer(&request, table))
        };
        let chunks = self.port.call(side, &format!("{side:?}: rows of {}", request.table), act).await?;
        Ok(futures::stream::iter(chunks.into_iter().map(Ok)).boxed())
    }
}

fn answer(request: &RowsRequest, table: &Table) -> Vec<RowsChunk> {
    let read = |range: &KeyRange| model::read(&request.table, table, range, u64::MAX);
    match &request.wanted {
        RowsWanted::Range(range) => vec![read(range)],
        RowsWanted::Recheck(held) => held
            .iter()
            .map(|held| {
                let mut chunk = read(&held.range);
                if chunk.header.digest == held.digest {
                    chunk.header.unchanged = true;
                    chunk.block = bytes::Bytes::new();
                }
                chunk
            })
            .collect(),
    }
}

#[async_trait]
impl ChangeSource for HostPort {
    async fn begin(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<LogPosition> {
        self.call("keep changes", dataset, |base| {
            let end = base.end();
            base.captures.entry(capture.clone()).or_insert(end);
            Ok(position(end))
        })
        .await
    }

    async fn changes(&self, request: ChangesRequest) -> Result<Changes> {
        let after: u64 = request.after.0.parse().expect("a position");
        let at = self.port.now();
        let forgets = self.port.with(|world| world.planted) == Some(Planted::ForgetsRest);
        let act = |base: &mut Base| {
            let logged = base.logged(&request.capture, after)?;
            let is_fenced = !base.is_writable();
            let some = if forgets && is_fenced { 0 } else { MOST };
            Ok((
                logged.iter().take(some).cloned().collect::<Vec<_>>(),
                logged.len() <= MOST || (forgets && is_fenced),
            ))
        };
        let (logged, is_end) = self.call("changes", &request.dataset, act).await?;
        if logged.is_empty() && !request.wait.is_zero() {
            tokio::time::sleep(request.wait).await;
        }
        let until = position(after + logged.len() as u64);
        let mut tables: Vec<TableName> = Vec::new();
        let changes = logged.into_iter().map(|(name, key)| {
            let at = tables.iter().position(|table| *table == name).unwrap_or_else(|| {
                tables.push(name);
                tables.len() - 1
            });
            told(u32::try_from(at).expect("few tables"), key)
        });
        let changes = changes.collect();
        Ok(Changes { tables, changes, until, at, is_end })
    }

    async fn confirm(&self, dataset: &DatasetName, capture: &CaptureId, until: &LogPosition) -> Result<()> {
        let until: u64 = until.0.parse().expect("a position");
        self.call("confirm", dataset, |base| {
            base.captures.entry(capture.clone()).and_modify(|kept| *kept = until.max(*kept));
            Ok(())
        })
        .await
    }

    async fn end(&self, dataset: &DatasetName, capture: &CaptureId, keep_fence: bool) -> Result<()> {
        let end = |base: &mut Base| {
            base.captures.remove(capture);
            if !keep_fence {
                base.unfence(capture);
            }
            Ok(())
        };
        self.call(if keep_fence { "end, but for the fence" } else { "end" }, dataset, end).await
    }

    async fn keys(&self, request: KeysRequest) -> Result<Answers<RowsChunk>> {
        let read = |base: &mut Base| Ok(found(&request, &base.rows[&request.table]));
        let chunk = self.call("keys", &request.dataset, read).await?;
        Ok(futures::stream::once(async move { Ok(chunk) }).boxed())
    }

    async fn fence(&self, dataset: &DatasetName, capture: &CaptureId, _: Duration) -> Result<()> {
        self.call("fence", dataset, |base| {
            base.fences.insert(capture.clone());
            Ok(())
        })
        .await
    }

    async fn may_fence(&self, dataset: &DatasetName) -> Result<()> {
        self.call("may fence", dataset, |_| Ok(())).await
    }

    async fn unfence(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()> {
        self.call("unfence", dataset, |base| {
            base.unfence(capture);
            Ok(())
        })
        .await
    }
}

fn told(table: u32, row: Option<i64>) -> Change {
    match row {
        Some(number) => Change::Row { table, key: key(number) },
        None => Change::Cleared { table },
    }
}

/// The rows of these keys as they are now.
fn found(request: &KeysRequest, rows: &Table) -> RowsChunk {
    let keys = request.keys.iter().map(number);
    let some: Table = keys.filter_map(|key| rows.get_key_value(&key)).map(|(k, v)| (*k, v.clone())).collect();
    let read = model::read(&request.table, &some, &KeyRange::default(), u64::MAX);
    let range = KeyRange { after: None, until: request.keys.last().cloned() };
    RowsChunk {
        header: RowsHeader { range, digest: Digest::of(&read.block), ..read.header },
        block: read.block,
    }
}

#[async_trait]
impl FencedSource for HostPort {
    async fn make_ready(&self, fence: &Fence) -> Result<()> {
        self.behind("make ready", fence, |base| {
            base.disarmed = true;
            Ok(())
        })
        .await
    }

    async fn apply_keys(&self, fence: &Fence, rows: KeyedRows) -> Result<()> {
        self.behind("apply", fence, |base| {
            armed(base)?;
            base.put(&rows.chunk.header.table, &rows.keys, &rows.chunk.block);
            Ok(())
        })
        .await
    }

    async fn clear(&self, fence: &Fence, table: &TableName) -> Result<()> {
        self.behind("clear", fence, |base| {
            armed(base)?;
            base.rows.get_mut(table).expect("a table").clear();
            Ok(())
        })
        .await
    }

    async fn children(&self, _: &Fence, _: &TableName, _: &[u32], _: &[Key]) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }

    async fn fill(&self, fence: &Fence, chunk: RowsChunk) -> Result<()> {
        self.behind("fill", fence, |base| {
            armed(base)?;
            base.put(&chunk.header.table, &[], &chunk.block);
            Ok(())
        })
        .await
    }

    async fn stand_down(&self, fence: &Fence) -> Result<()> {
        self.behind("stand down", fence, |base| {
            base.disarmed = false;
            Ok(())
        })
        .await
    }

    async fn set_positions(&self, fence: &Fence, schema: &Schema) -> Result<()> {
        self.behind("set positions", fence, |base| {
            base.set_positions(schema);
            Ok(())
        })
        .await
    }
}

fn no_tree() -> Failure {
    Failure::permanent("source", "there is no tree")
}

#[async_trait]
impl TreeSource for HostPort {
    async fn scan(&self, _: &DatasetName) -> Result<Answers<Vec<Entry>>> {
        Err(no_tree())
    }

    async fn scan_at(&self, _: &DatasetName, _: &Spots) -> Result<Answers<Vec<Entry>>> {
        Err(no_tree())
    }

    async fn changed(&self, _: &DatasetName, _: Option<Cursor>, _: Duration) -> Result<Changed> {
        Err(no_tree())
    }

    async fn pack(&self, _: PackRequest) -> Result<PackChunk> {
        Err(no_tree())
    }

    async fn file(&self, _: FileRequest) -> Result<Answers<Segment>> {
        Err(no_tree())
    }
}
