//! A database that is followed by hand.

use std::sync::Arc;
use std::time::Duration;

use super::Server;
use handover_engine::change::{Change, Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::name::CaptureId;
use handover_engine::ports::{Database, DatabaseTarget, LiveDatabase};
use handover_engine::rows::KeyRange;
use handover_postgres::{PostgresLive, PostgresTarget};

pub const WAIT: Duration = Duration::from_millis(100);

pub fn capture(name: &str) -> CaptureId {
    name.parse().unwrap()
}

pub fn live(server: &Server, database: &str) -> PostgresLive {
    PostgresLive::new("shop".parse().unwrap(), &server.settings(database), Vec::new())
}

/// What captures and fences leave in a database.
pub fn traces(server: &Server, database: &str) -> String {
    server.sql(
        database,
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()
         UNION ALL SELECT pubname FROM pg_publication WHERE pubname LIKE 'handover%'
         UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'handover_fence'
         UNION ALL SELECT tgname FROM pg_trigger WHERE tgname LIKE 'handover%'",
    )
}

/// A database that is followed into a copy.
pub struct Followed {
    pub server: Arc<Server>,
    pub from: String,
    pub live: PostgresLive,
    pub target: PostgresTarget,
    pub after: LogPosition,
}

impl Followed {
    /// Copies what `schema` makes.
    pub async fn new(schema: &str) -> Self {
        Self::on(Server::shared(), schema).await
    }

    pub async fn on(server: Arc<Server>, schema: &str) -> Self {
        let from = server.create("followed", "");
        server.sql(&from, schema);
        let live = live(&server, &from);
        let after = live.begin(&capture("contract")).await.unwrap();
        let view = super::source(&server, &from).snapshot().await.unwrap();
        let target = super::target(&server, &server.name("copy"));
        target.prepare(view.schema()).await.unwrap();
        for batch in super::all_chunks(&*view, 1 << 20).await.chunks(4) {
            target.apply(batch).await.unwrap();
        }
        target.index(view.schema()).await.unwrap();
        Self { server, from, live, target, after }
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.from, sql)
    }

    /// Carries all changes.
    pub async fn follow(&mut self) -> Result<(), Failure> {
        let after = self.after.clone();
        self.after = handover_platform::contract::live::follow(&self.live, &self.target, after).await?;
        Ok(())
    }

    /// The next part of the log.
    pub async fn next(&mut self) -> Result<Changes, Failure> {
        let told = self.live.changes(&capture("contract"), &self.after, WAIT).await?;
        self.after.clone_from(&told.until);
        Ok(told)
    }

    /// Every table that is followed has the source's rows.
    pub async fn assert_same(&self, when: &str) {
        let view = super::source(&self.server, &self.from).snapshot().await.unwrap();
        for table in view.schema().tables.iter().filter(|table| table.followed) {
            let there = view.read(&table.name, &KeyRange::default(), u64::MAX).await.unwrap();
            let here = self.target.reread(&table.name, &KeyRange::default()).await.unwrap();
            let (here, there) = (here.block.escape_ascii(), there.block.escape_ascii());
            assert!(here.to_string() == there.to_string(), "{when}: {}:\n{here}\n{there}", table.name);
        }
    }

    pub async fn done(self) {
        self.live.end(&capture("contract"), false).await.unwrap();
        assert_eq!(traces(&self.server, &self.from), "");
        self.target.undo().await.unwrap();
    }
}

/// A session that runs something and stays.
pub fn session(server: &Server, database: &str, sql: &str) -> tokio::process::Child {
    let mut psql = tokio::process::Command::new("/usr/lib/postgresql/15/bin/psql");
    psql.args(["-X", "-q", "-U", "postgres", "-p", &super::PORT.to_string(), "-h"]).arg(&server.dir);
    psql.args(["-c", sql, "-c", "SELECT pg_sleep(600)", database]);
    psql.stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    psql.kill_on_drop(true).spawn().unwrap()
}

/// Waits until a condition holds.
pub async fn until(server: &Server, database: &str, condition: &str) {
    for _ in 0..600 {
        if server.sql(database, condition) == "t" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("in vain: {condition}");
}

/// Keys that a part tells of, by table.
pub fn keys(told: &Changes, table: &str) -> Vec<String> {
    let is_it = |at: u32| told.tables[at as usize].name == table;
    let key = |change: &Change| match change {
        Change::Row { table, key } if is_it(*table) => Some(String::from_utf8_lossy(&key.0).into_owned()),
        _ => None,
    };
    told.changes.iter().filter_map(key).collect()
}
