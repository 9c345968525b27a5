//! Spools in memory: what was added is durable, how far it is carried out not always.

use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::change::{Change, Changes, LogPosition};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::{Backlog, Direction, Result, Spool, SpoolMark, Spools, Window};
use handover_engine::rows::TableName;

use super::world::{Port, Side, World};

/// Changes that are taken at once, at most.
const MOST: usize = 5;

/// A spool.
#[derive(Default)]
pub struct Waiting {
    position: Option<LogPosition>,
    /// All that was ever added, each with the tables that it speaks of.
    changes: Vec<(Vec<TableName>, Change)>,
    /// How far it is carried out, and how far that is remembered by an agent that ends now.
    done: usize,
    remembered: usize,
}

impl Waiting {
    pub fn crash(&mut self) {
        self.done = self.remembered;
    }

    fn window(&self, most: usize) -> Option<Window> {
        let some = self.changes[self.done..].iter().take(most.min(MOST));
        let mut window = Window { tables: Vec::new(), changes: Vec::new(), end: SpoolMark::default() };
        for (tables, change) in some {
            let name = &tables[change.table() as usize];
            let at = window.tables.iter().position(|table| table == name).unwrap_or_else(|| {
                window.tables.push(name.clone());
                window.tables.len() - 1
            });
            let mut change = change.clone();
            let (Change::Row { table, .. } | Change::Cleared { table } | Change::Children { table, .. }) =
                &mut change;
            *table = u32::try_from(at).expect("few tables");
            window.changes.push(change);
        }
        window.end = mark(self.done + window.changes.len());
        (!window.changes.is_empty()).then_some(window)
    }
}

fn mark(at: usize) -> SpoolMark {
    SpoolMark { segment: 0, offset: at as u64 }
}

/// The way to a spool.
struct SpoolPort {
    port: Port,
    name: (DatasetName, bool),
}

impl SpoolPort {
    fn look<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        self.port.with(|world| act(world.spools.entry(self.name.clone()).or_default()))
    }

    async fn change(&self, what: &str, act: impl FnOnce(&mut Waiting) + Send) -> Result<()> {
        let what = format!("spool {}{}: {what}", self.name.0, if self.name.1 { " back" } else { "" });
        let act = |world: &mut World| {
            act(world.spools.entry(self.name.clone()).or_default());
            Ok(())
        };
        self.port.call(Side::Target, &what, act).await
    }
}

#[async_trait]
impl Spool for SpoolPort {
    async fn position(&self) -> Result<Option<LogPosition>> {
        Ok(self.look(|waiting| waiting.position.clone()))
    }

    async fn begin(&self, at: &LogPosition) -> Result<()> {
        self.change("begin", |waiting| waiting.position = Some(at.clone())).await
    }

    async fn append(&self, part: &Changes) -> Result<()> {
        self.change("append", |waiting| {
            waiting.position = Some(part.until.clone());
            let changes = part.changes.iter().map(|change| (part.tables.clone(), change.clone()));
            waiting.changes.extend(changes);
        })
        .await
    }

    async fn oldest(&self, most: usize) -> Result<Option<Window>> {
        Ok(self.look(|waiting| waiting.window(most)))
    }

    async fn done(&self, mark: SpoolMark) -> Result<()> {
        self.change("done", |waiting| {
            waiting.remembered = waiting.done;
            waiting.done = usize::try_from(mark.offset).expect("few changes");
        })
        .await
    }

    fn backlog(&self) -> Backlog {
        let changes = self.look(|waiting| waiting.changes.len() - waiting.done) as u64;
        Backlog { changes, ..Backlog::default() }
    }

    fn end(&self) -> SpoolMark {
        self.look(|waiting| mark(waiting.changes.len()))
    }

    async fn remove(&self) -> Result<()> {
        self.change("remove", |waiting| *waiting = Waiting::default()).await
    }
}

#[async_trait]
impl Spools for Port {
    async fn spool(
        &self,
        _: &MigrationId,
        dataset: &DatasetName,
        direction: Direction,
    ) -> Result<Arc<dyn Spool>> {
        let name = (dataset.clone(), direction == Direction::Back);
        Ok(Arc::new(SpoolPort { port: self.clone(), name }))
    }
}
