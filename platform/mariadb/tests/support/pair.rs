//! A database that is followed, and its copy.

use std::sync::Arc;
use std::time::Duration;

use handover_engine::change::{Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::name::CaptureId;
use handover_engine::ports::{Database, DatabaseSnapshot, DatabaseTarget, LiveDatabase, Result};
use handover_engine::rows::KeyRange;
use handover_mariadb::{MariaDatabase, MariaLive, MariaTarget};
use handover_platform::contract::live;

use super::Server;

pub const WAIT: Duration = Duration::from_millis(200);

/// The capture of all tests.
pub fn capture() -> CaptureId {
    "contract".parse().unwrap()
}

/// A source, live.
pub fn live_at(server: &Server, from: &str) -> MariaLive {
    MariaLive::new("db".parse().unwrap(), server.settings(from), Vec::new())
}

pub struct Pair {
    pub server: Arc<Server>,
    pub from: String,
    pub live: MariaLive,
    pub target: MariaTarget,
    pub after: LogPosition,
}

impl Pair {
    /// Copies a database and follows it.
    pub async fn new(server: &Arc<Server>, name: &str, make: &str) -> Self {
        let from = server.database(name, make);
        let live = live_at(server, &from);
        let to = server.settings(&server.fresh(&format!("{name}_to")));
        let target = MariaTarget::new("db".parse().unwrap(), to, &"m".parse().unwrap());
        let after = live.begin(&capture()).await.unwrap();
        let pair = Self { server: server.clone(), from, live, target, after };
        let view = pair.view().await;
        pair.target.prepare(view.schema()).await.unwrap();
        for table in &view.schema().tables {
            let whole = view.read(&table.name, &KeyRange::default(), u64::MAX).await.unwrap();
            pair.target.apply(&[whole]).await.unwrap();
        }
        pair.target.index(view.schema()).await.unwrap();
        pair
    }

    pub async fn view(&self) -> Arc<dyn DatabaseSnapshot> {
        let settings = self.server.settings(&self.from);
        MariaDatabase::new("db".parse().unwrap(), settings, Vec::new()).snapshot().await.unwrap()
    }

    /// Runs statements at the source.
    pub fn sql(&self, statements: &str) -> String {
        self.server.sql(&self.from, statements)
    }

    /// Carries everything; the failure, if there is one.
    pub async fn try_follow(&mut self) -> Result<()> {
        self.after = live::follow(&self.live, &self.target, self.after.clone()).await?;
        Ok(())
    }

    /// Carries everything, and compares all followed tables.
    pub async fn follow(&mut self, when: &str) {
        self.try_follow().await.unwrap();
        let view = self.view().await;
        for table in view.schema().tables.iter().filter(|table| table.followed) {
            let there = view.read(&table.name, &KeyRange::default(), u64::MAX).await.unwrap();
            let here = self.target.reread(&table.name, &KeyRange::default()).await.unwrap();
            let (here, there) = (here.block.escape_ascii(), there.block.escape_ascii());
            assert_eq!(here.to_string(), there.to_string(), "{when}: table {}", table.name);
        }
    }

    /// The next part of the log.
    pub async fn part(&mut self) -> Result<Changes> {
        let part = self.live.changes(&capture(), &self.after, WAIT).await?;
        self.after = part.until.clone();
        Ok(part)
    }

    /// What stops following.
    pub async fn failure(&mut self) -> Failure {
        self.try_follow().await.unwrap_err()
    }

    /// An agent that was started anew.
    pub fn restart(&mut self) {
        self.live = live_at(&self.server, &self.from);
    }

    pub async fn done(self) {
        self.live.end(&capture(), false).await.unwrap();
        self.target.undo().await.unwrap();
    }
}
