//! Rehearsals of PostgreSQL databases.

mod support;

use std::path::Path;
use std::sync::Arc;

use handover_engine::ports::scratch::Scratch;
use handover_engine::rehearsal::ConflictKind;
use handover_platform::contract::rehearsal::{At, Rehearsed, rehearsal_contract, run};
use handover_postgres::PostgresScratch;
use support::Server;

struct Postgres {
    server: Arc<Server>,
    from: String,
    to: String,
    directory: tempfile::TempDir,
}

impl Postgres {
    /// Databases with these options.
    fn new(from: &str, to: &str) -> Self {
        let server = Server::shared();
        let (from, to) = (server.create("rehearsed", from), server.create("tried", to));
        Self { server, from, to, directory: tempfile::tempdir().unwrap() }
    }

    /// The scratch database's name, where it is there.
    fn scratch_name(&self) -> String {
        let like = format!("{}\\_\\_handover\\_%", self.to.replace('_', "\\_"));
        self.server.sql("postgres", &format!("SELECT datname FROM pg_database WHERE datname LIKE '{like}'"))
    }
}

impl Rehearsed for Postgres {
    fn url(&self) -> String {
        self.server.url("postgres", &self.from)
    }

    fn scratch(&self) -> Arc<dyn Scratch> {
        Arc::new(PostgresScratch::new("main".parse().unwrap(), &self.server.settings(&self.to)))
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn sql(&self, at: At, statements: &str) -> String {
        let database = match at {
            At::Source => self.from.clone(),
            At::Target => self.to.clone(),
            At::Scratch => self.scratch_name(),
        };
        self.server.sql(&database, statements)
    }

    fn columns(&self) -> &'static str {
        "code VARCHAR(4), age INTEGER, score INTEGER CHECK (score < 100)"
    }

    fn customer(&self) -> &'static str {
        "public.customer"
    }

    fn kinds(&self) -> (ConflictKind, ConflictKind) {
        (ConflictKind::Length, ConflictKind::Check)
    }

    fn is_there(&self) -> bool {
        !self.scratch_name().is_empty()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_contract_of_rehearsals() {
    rehearsal_contract(&Postgres::new("", "")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_heirs_and_other_encodings_are_tried() {
    let latin = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    let postgres = Postgres::new("", latin);
    let tables = |more: &str| {
        format!(
            "CREATE TABLE part (id integer, region text, note text {more}, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
             CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a');
             CREATE TABLE part_rest PARTITION OF part DEFAULT;
             CREATE TABLE parent (id integer PRIMARY KEY, v text {more}); CREATE TABLE child (w text) INHERITS (parent);
             CREATE TABLE refers (id integer PRIMARY KEY, r text, n integer{})",
            if more.is_empty() { "" } else { ", FOREIGN KEY (r, n) REFERENCES part (region, id)" }
        )
    };
    postgres.sql(At::Source, &tables(""));
    postgres.sql(
        At::Source,
        "INSERT INTO part VALUES (1, 'a', 'ü'), (2, 'b', NULL), (3, 'b', '€'); INSERT INTO parent VALUES (1, 'p');
         INSERT INTO child VALUES (1, NULL, 'w'); INSERT INTO refers VALUES (1, 'a', 1), (2, 'b', 2), (3, NULL, 9)",
    );
    postgres.sql(At::Target, &tables("NOT NULL"));
    let found = run(&postgres, "t1", "").await.unwrap().report;
    let listed = found.tables.iter().flat_map(|table| &table.listed);
    let mut told: Vec<String> = listed.map(|c| format!("{} {} {}", c.kind, c.table, c.key)).collect();
    told.sort();
    assert_eq!(
        told,
        [
            "foreign-key public.refers id 2",
            "not-null public.child ctid (0,1)",
            "not-null public.part_rest region b, id 2",
            "type public.part_rest region b, id 3",
        ]
    );
    assert_eq!(postgres.sql(At::Scratch, "SELECT encode(convert_to(note, 'UTF8'), 'hex') FROM part"), "c3bc");
    postgres.scratch().drop_scratch().await.unwrap();
    assert!(!postgres.is_there());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_ours_is_left_alone() {
    let postgres = Postgres::new("", "");
    postgres.sql(At::Source, "CREATE TABLE t (id integer PRIMARY KEY)");
    run(&postgres, "t1", "").await.unwrap();
    let name = postgres.scratch_name();
    postgres.scratch().drop_scratch().await.unwrap();
    postgres.server.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
    let failure = run(&postgres, "t2", "").await.err().unwrap();
    assert!(failure.to_string().contains("is none of ours"), "{failure}");
    postgres.scratch().drop_scratch().await.unwrap();
    assert!(postgres.is_there());
}
