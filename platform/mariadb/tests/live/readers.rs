//! Triggers are put aside beside a transaction that has read their tables, and keeps them from being dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_engine::failure::Class;
use handover_engine::ports::{FencedDatabase, KeyedTarget, LiveDatabase};
use handover_engine::rows::{Key, KeyedRows, TableName};
use handover_mariadb::MariaFenced;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::time::timeout;

use crate::support::Server;
use crate::support::pair::{capture, live_at};

const TABLES: &str =
    "CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1); CREATE TABLE u LIKE t;";
const TRIGGERS: &str = "CREATE TRIGGER acts BEFORE UPDATE ON t FOR EACH ROW SET NEW.v = NEW.v + 100;
    CREATE TRIGGER also BEFORE UPDATE ON u FOR EACH ROW SET NEW.v = NEW.v + 100;";
/// Less than a trigger waits for a reader.
const SOON: Duration = Duration::from_secs(5);

/// A database behind its fence, and a transaction that reads it.
struct Fenced {
    server: Arc<Server>,
    name: String,
    reader: Conn,
}

impl Fenced {
    async fn new(name: &str) -> Self {
        let server = Server::shared();
        let name = server.database(name, &format!("{TABLES}{TRIGGERS}"));
        let live = live_at(&server, &name);
        live.begin(&capture()).await.unwrap();
        live.fence(&capture(), SOON).await.unwrap();
        let socket = server.socket().display().to_string();
        let options = OptsBuilder::default().socket(Some(socket)).user(Some("root")).db_name(Some(&name));
        let reader = Conn::new(options).await.unwrap();
        Self { server, name, reader }
    }

    async fn begin_reading(&mut self) {
        for statement in ["BEGIN", "SELECT * FROM t"] {
            self.reader.query_drop(statement).await.unwrap();
        }
    }

    async fn end_reading(&mut self) {
        self.reader.query_drop("COMMIT").await.unwrap();
    }

    /// As an agent that was started anew reaches it.
    fn agent(&self) -> MariaFenced {
        MariaFenced::new("db".parse().unwrap(), self.server.settings(&self.name))
    }

    /// Waits until so many of an agent's statements wait for somebody.
    async fn until_waiting(&self, expected: usize) {
        let query = format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{}' \
             AND (state LIKE 'Waiting for table metadata lock' OR info LIKE 'SELECT GET\\_LOCK%')",
            self.name
        );
        let begun = Instant::now();
        while self.server.sql("", &query).trim().parse::<usize>().unwrap() < expected {
            assert!(begun.elapsed() < SOON, "in vain: {}", self.server.sql("", "SHOW PROCESSLIST"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn triggers(&self) -> String {
        let query = format!(
            "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = '{}' \
             AND trigger_name NOT LIKE '\\_\\_handover%' ORDER BY 1",
            self.name
        );
        self.server.sql("", &query)
    }

    /// The source takes writes again, its triggers act, and nothing is left.
    fn assert_is_as_it_was(&self) {
        assert_eq!(self.triggers(), "acts\nalso\n");
        self.server.sql(&self.name, "UPDATE t SET v = 5 WHERE id = 1");
        assert_eq!(self.server.sql(&self.name, "SELECT v FROM t; SHOW TABLES"), "105\nt\nu\n");
    }
}

/// The call is repeated by an agent that was started again, when the target has taken over and its changes come home.
#[tokio::test(flavor = "multi_thread")]
async fn made_ready_once_more_nothing_waits_for_a_reader() {
    let mut fenced = Fenced::new("ready_late").await;
    let there = fenced.server.database("ready_there", TABLES);
    fenced.agent().make_ready().await.unwrap();
    assert_eq!(fenced.triggers(), "");
    fenced.begin_reading().await;
    let agent = fenced.agent();
    timeout(SOON, agent.make_ready()).await.expect("it waits for the reader").unwrap();
    fenced.server.sql(&there, "UPDATE t SET v = 7");
    let (table, keys) = (TableName::plain("t"), vec![Key("1".into())]);
    let chunk = live_at(&fenced.server, &there).rows(&table, &keys, u64::MAX).await.unwrap();
    let rows = [KeyedRows { keys, chunk }];
    timeout(SOON, agent.apply_keys(&rows)).await.expect("a row that comes home waits for it").unwrap();
    assert_eq!(fenced.server.sql(&fenced.name, "SELECT v FROM t"), "7\n");
    fenced.end_reading().await;
    live_at(&fenced.server, &fenced.name).unfence(&capture()).await.unwrap();
    fenced.assert_is_as_it_was();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_behind_a_reader_and_a_trigger_gets_an_answer() {
    let mut fenced = Fenced::new("ready_bound").await;
    fenced.begin_reading().await;
    let agent = fenced.agent();
    let ready = tokio::spawn(async move { agent.make_ready().await });
    fenced.until_waiting(1).await;
    let asked = Instant::now();
    assert!(!fenced.server.allows(&fenced.name, "INSERT INTO t VALUES (2, 2)"), "it passes the fence");
    assert!(asked.elapsed() < 4 * SOON, "{:?}", asked.elapsed());
    let failure = ready.await.unwrap().unwrap_err();
    assert!(failure.class == Class::Transient && failure.hint.contains("SHOW PROCESSLIST"), "{failure:?}");
    // What has been dropped by then is not lost.
    fenced.end_reading().await;
    fenced.agent().make_ready().await.unwrap();
    assert_eq!(fenced.triggers(), "");
    fenced.agent().stand_down().await.unwrap();
    assert_eq!(fenced.triggers(), "acts\nalso\n");
    live_at(&fenced.server, &fenced.name).unfence(&capture()).await.unwrap();
    fenced.assert_is_as_it_was();
}

/// An agent whose host is gone has left a session that its server knows nothing of, and that still waits to drop a trigger. The one that was
/// started again calls the cut-over off.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_about_to_be_dropped_is_not_lost() {
    let mut fenced = Fenced::new("ready_crossed").await;
    fenced.begin_reading().await;
    let agent = fenced.agent();
    let gone = tokio::spawn(async move { agent.make_ready().await });
    fenced.until_waiting(1).await;
    let live = live_at(&fenced.server, &fenced.name);
    let off = tokio::spawn(async move { live.unfence(&capture()).await });
    fenced.until_waiting(2).await;
    fenced.end_reading().await;
    gone.await.unwrap().unwrap();
    off.await.unwrap().unwrap();
    fenced.assert_is_as_it_was();
}
