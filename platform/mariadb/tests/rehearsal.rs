//! Rehearsals of MariaDB databases.

mod support;

use std::path::Path;
use std::sync::Arc;

use handover_engine::ports::scratch::Scratch;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rehearsal::ConflictKind;
use handover_mariadb::{MariaDatabase, MariaScratch, MariaTarget};
use handover_platform::contract::rehearsal::{At, Rehearsed, rehearsal_contract};
use support::Server;

struct Maria {
    server: Arc<Server>,
    from: String,
    to: String,
    directory: tempfile::TempDir,
}

impl Maria {
    fn new() -> Self {
        let server = Server::shared();
        let (from, to) = (server.database("rehearsed", ""), server.database("tried", ""));
        Self { server, from, to, directory: tempfile::tempdir().unwrap() }
    }

    fn scratch_name(&self) -> String {
        format!("{}__handover_rehearsal", self.to)
    }
}

impl Rehearsed for Maria {
    fn url(&self) -> String {
        self.server.url(&self.from)
    }

    fn scratch(&self) -> Arc<dyn Scratch> {
        Arc::new(MariaScratch::new("main".parse().unwrap(), self.server.settings(&self.to)))
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn sql(&self, at: At, statements: &str) -> String {
        let scratch = self.scratch_name();
        let database = match at {
            At::Source => &self.from,
            At::Target => &self.to,
            At::Scratch => &scratch,
        };
        self.server.sql(database, statements).trim().replace('\t', "|")
    }

    fn columns(&self) -> &'static str {
        "code VARCHAR(4), age INTEGER, score INTEGER CHECK (score < 100)"
    }

    fn kinds(&self) -> (ConflictKind, ConflictKind) {
        (ConflictKind::Length, ConflictKind::Check)
    }

    fn is_there(&self) -> bool {
        !self.server.sql("", &format!("SHOW DATABASES LIKE '{}'", self.scratch_name())).trim().is_empty()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_keeps_the_contract_of_rehearsals() {
    rehearsal_contract(&Maria::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_an_enum_go_by_their_names() {
    let maria = Maria::new();
    let (from, to) = ("ENUM('new', 'old', 'gone')", "ENUM('old', 'new')");
    let table = |state: &str| {
        format!("CREATE TABLE t (id INT PRIMARY KEY, state {state} CHARACTER SET latin1, s SET('x','y'))")
    };
    maria.sql(At::Source, &table(from));
    maria.sql(
        At::Source,
        "INSERT INTO t VALUES (1, 'new', 'x,y'), (2, 'old', ''), (3, 'gone', 'y'), (4, NULL, NULL)",
    );
    maria.sql(At::Target, &table(to));
    let run = handover_platform::contract::rehearsal::run(&maria, "t1", "").await.unwrap();
    let told: Vec<String> = run.report.tables[0].listed.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["type state: t, id 3"]);
    assert_eq!(
        maria.sql(
            At::Scratch,
            "SELECT GROUP_CONCAT(id, IFNULL(state, '-'), IFNULL(s, '-') ORDER BY id) FROM t"
        ),
        "1newx,y,2old,4--"
    );
    // A migration is not held up by a scratch database that is there.
    let name = || "main".parse().unwrap();
    let source = MariaDatabase::new(name(), maria.server.settings(&maria.from), Vec::new());
    let target = MariaTarget::new(name(), maria.server.settings(&maria.to), &"m1".parse().unwrap());
    target.prepare(source.snapshot().await.unwrap().schema()).await.unwrap();
    target.undo().await.unwrap();
    assert!(maria.is_there());
    maria.scratch().drop_scratch().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_ours_is_left_alone() {
    let maria = Maria::new();
    maria.sql(At::Source, "CREATE TABLE t (id INT PRIMARY KEY)");
    let name = maria.scratch_name();
    maria.server.sql("", &format!("CREATE DATABASE `{name}`; CREATE TABLE `{name}`.precious (id INT)"));
    let failure = handover_platform::contract::rehearsal::run(&maria, "t1", "").await.err().unwrap();
    assert!(failure.to_string().contains("no scratch database of ours"), "{failure}");
    maria.scratch().drop_scratch().await.unwrap();
    assert!(maria.is_there());
}
