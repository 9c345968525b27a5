//! Restores on real servers that are cut short at every run of a program: the agent is killed, the program fails, or the server dies. Either the
//! old database is whole by itself afterwards, or the new one is with the old one kept, once.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_engine::ports::Backups;
use handover_engine::ports::backups::Standing;
use handover_tests::server::{Engine, Server};

use support::servers::{dump, mariadb, postgres};
use support::tools::{Counted, Cut};
use support::{Host, restore};

/// Tables that only one of them has, one that both have, and something that acts of every kind.
fn maria(own: &str) -> String {
    format!(
        "CREATE TABLE customer (id INT PRIMARY KEY, name VARCHAR(80)) ENGINE=InnoDB;
        CREATE TABLE of_{own} (id INT PRIMARY KEY, customer INT, FOREIGN KEY (customer) REFERENCES customer (id)) ENGINE=InnoDB;
        CREATE SEQUENCE numbers;
        INSERT INTO customer VALUES (1, '{own}'), (2, 'both'); INSERT INTO of_{own} VALUES (1, 1);
        CREATE FUNCTION f_{own}(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
        CREATE PROCEDURE p_{own}() DELETE FROM of_{own};
        CREATE TRIGGER t_{own} BEFORE INSERT ON customer FOR EACH ROW SET new.name = concat(new.name, '!');
        CREATE TRIGGER t BEFORE UPDATE ON customer FOR EACH ROW SET new.name = '{own}';
        CREATE VIEW v_{own} AS SELECT name FROM customer WHERE id < f_{own}(100);
        CREATE EVENT e_{own} ON SCHEDULE EVERY 1 YEAR STARTS '2030-01-01 00:00:00' DO DELETE FROM of_{own};"
    )
}

fn postgresql(own: &str) -> String {
    format!(
        "CREATE TABLE customer (id INT PRIMARY KEY, name TEXT); INSERT INTO customer VALUES (1, '{own}');
        CREATE TABLE of_{own} (id INT REFERENCES customer); CREATE VIEW v_{own} AS SELECT name FROM customer"
    )
}

/// Which runs are cut short.
type Runs = std::iter::StepBy<std::ops::RangeFrom<usize>>;

fn every(from: usize, step: usize) -> Runs {
    (from..).step_by(step)
}

struct Stage {
    server: Server,
    counted: Counted,
    host: Host,
    old: String,
    new: String,
}

impl Stage {
    /// A server with the old database, and a backup of the new one.
    async fn new(engine: Engine, server_dies: bool) -> Self {
        let options: &[&str] = match engine {
            Engine::Mariadb => &["--log-bin-trust-function-creators=1", "--innodb-buffer-pool-size=32M"],
            Engine::Postgres => &[],
        };
        let server = Server::start(engine, options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (number, own, programs): (PathBuf, &Path, &[&str]) = match engine {
            Engine::Mariadb => {
                (server.data().with_file_name("pid"), Path::new("/usr/bin"), &["mariadb", "mariadb-dump"])
            }
            Engine::Postgres => {
                (server.data().join("postmaster.pid"), engine.programs(), &["psql", "pg_dump", "pg_restore"])
            }
        };
        let counted = Counted::of(dir.path(), own, programs, server_dies.then_some(number.as_path()));
        let dataset = match engine {
            Engine::Mariadb => mariadb(&server, "shop"),
            Engine::Postgres => postgres(&server, "shop", Some(dir.path().join("programs"))),
        };
        let place = dir.path().join("backups");
        let host = Host::at(dir, place, vec![dataset], counted.tools.clone(), None);
        let mut stage = Self { server, counted, host, old: String::new(), new: String::new() };
        stage.lay("new");
        stage.host.make("b-1").await.unwrap();
        stage.new = dump(&stage.server, "shop");
        stage.lay("old");
        stage.old = dump(&stage.server, "shop");
        assert_ne!(stage.old, stage.new);
        stage
    }

    fn lay(&self, own: &str) {
        self.server.drop_databases("shop").unwrap();
        match self.server.engine() {
            Engine::Mariadb => {
                let charset = if own == "old" { "latin1" } else { "utf8mb4" };
                self.server.run("", &format!("CREATE DATABASE shop CHARACTER SET {charset}")).unwrap();
                self.server.run("shop", &maria(own)).unwrap();
            }
            Engine::Postgres => {
                self.server.create("shop").unwrap();
                self.server.run("shop", &postgresql(own)).unwrap();
            }
        }
        let _ = fs::remove_dir_all(self.host.place().join(".kept"));
    }

    fn databases(&self) -> Vec<String> {
        let list = match self.server.engine() {
            Engine::Mariadb => "SELECT schema_name FROM information_schema.schemata ORDER BY 1",
            Engine::Postgres => "SELECT datname FROM pg_database ORDER BY 1",
        };
        let all = self.server.run("", list).unwrap();
        all.lines().filter(|name| name.starts_with("shop")).map(str::to_owned).collect()
    }

    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.host.place().join(".kept")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// The old one as if nothing had been begun, or the new one with the old one kept; whether it is the new one.
    fn is_new(&self, when: &str) -> bool {
        let (stands, databases, kept) = (dump(&self.server, "shop"), self.databases(), self.kept());
        if stands == self.old {
            assert!(databases == ["shop"] && kept.is_empty(), "{when}: {databases:?}, {kept:?}");
            return false;
        }
        assert_eq!(stands, self.new, "{when}");
        assert!(databases.len() == 2 && databases[1].starts_with("shop__before_"), "{when}: {databases:?}");
        let before = &databases[1];
        let rows = self
            .server
            .run(before, "SELECT name FROM customer ORDER BY id; SELECT count(*) FROM of_old")
            .unwrap();
        if self.server.engine() == Engine::Mariadb {
            assert_eq!(rows, "old\nboth\n1\n", "{when}");
            assert_eq!(kept.len(), 1, "{when}: {kept:?}");
            let text = zstd::decode_all(fs::File::open(&kept[0]).unwrap()).unwrap();
            let text = String::from_utf8(text).unwrap();
            for part in ["t_old", "f_old", "p_old", "v_old", "e_old"] {
                assert!(text.contains(part), "{when}: {part}");
            }
        } else {
            assert_eq!((rows.as_str(), dump(&self.server, before) == self.old), ("old\n0\n", true), "{when}");
        }
        true
    }

    /// A restore whose run number `at` is cut short; whether there was such a one.
    async fn cut(&mut self, at: usize, how: Cut, server_dies: bool) -> bool {
        self.counted.arm(at, how);
        let order = restore("b-1", None);
        self.host.backups.begin(&order).await.unwrap();
        let is_running =
            async || matches!(self.host.backups.standing(&order).await.unwrap(), Standing::Running { .. });
        let hangs = how != Cut::Failed && !server_dies;
        while is_running().await && !(hangs && self.counted.is_reached()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.counted.disarm();
        if server_dies && self.counted.is_reached() {
            self.server.restart().unwrap();
        } else if hangs && self.counted.is_reached() {
            self.host.restart(self.counted.tools.clone()).await;
        }
        self.host.settled().await;
        self.counted.is_reached()
    }

    /// The agent is killed at this run, and the next one at that run of what it does about it; whether there were such ones.
    async fn cut_twice(&mut self, at: usize, again: usize, how: Cut) -> (bool, bool) {
        self.counted.arm(at, how);
        let order = restore("b-1", None);
        self.host.backups.begin(&order).await.unwrap();
        let is_running =
            async || matches!(self.host.backups.standing(&order).await.unwrap(), Standing::Running { .. });
        while is_running().await && !self.counted.is_reached() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let is_cut = self.counted.is_reached();
        self.counted.arm(again, how);
        self.host.restart(self.counted.tools.clone()).await;
        while self.host.backups.unsettled().unwrap().is_some() && !self.counted.is_reached() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let is_cut_again = self.counted.is_reached();
        self.counted.disarm();
        self.host.restart(self.counted.tools.clone()).await;
        self.host.settled().await;
        (is_cut, is_cut_again)
    }

    /// Cuts these runs short, each in a restore of its own.
    async fn cut_everywhere(mut self, how: Cut, server_dies: bool, at_least: (usize, usize), runs: Runs) {
        let (mut taken_back, mut ended) = (0, 0);
        for at in runs {
            self.lay("old");
            let is_reached = self.cut(at, how, server_dies).await;
            let when = format!("run {at} is cut ({how:?})");
            if self.is_new(&when) {
                ended += 1;
            } else {
                taken_back += 1;
                if taken_back % 4 == 1 {
                    self.host.restore("b-1", None).await.unwrap();
                    assert!(self.is_new(&format!("given again after {when}")), "{when}");
                }
            }
            if !is_reached {
                assert!(
                    taken_back >= at_least.0 && ended >= at_least.1,
                    "{taken_back} taken back, {ended} ended"
                );
                return;
            }
        }
    }
}

/// Runs of programs before and after what decides, at least; the last of which is not cut short.
const MARIADB: (usize, usize) = (10, 4);
const POSTGRES: (usize, usize) = (6, 1);
/// Of every second one.
const HALF: (usize, usize) = (5, 2);

#[tokio::test]
async fn an_agent_that_is_killed_before_it_tells_mariadb_anything() {
    Stage::new(Engine::Mariadb, false).await.cut_everywhere(Cut::Before, false, MARIADB, every(1, 1)).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_when_mariadb_has_done_half() {
    Stage::new(Engine::Mariadb, false).await.cut_everywhere(Cut::Half, false, MARIADB, every(1, 1)).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_when_mariadb_has_done_it() {
    Stage::new(Engine::Mariadb, false).await.cut_everywhere(Cut::After, false, MARIADB, every(1, 1)).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_sees_to_what_another_has_left() {
    let mut stage = Stage::new(Engine::Mariadb, false).await;
    let (mut taken_back, mut ended) = (0, 0);
    // Before the tables change places, and after that.
    for (at, how) in [(13, Cut::Half), (14, Cut::After), (17, Cut::Half)] {
        for again in every(1 + at % 3, 3) {
            stage.lay("old");
            let (is_cut, is_cut_again) = stage.cut_twice(at, again, how).await;
            assert!(is_cut, "{at}");
            let is_new = stage.is_new(&format!("run {at} is cut ({how:?}), then {again}"));
            *if is_new { &mut ended } else { &mut taken_back } += 1;
            if !is_cut_again {
                break;
            }
        }
    }
    assert!(taken_back > 3 && ended > 3, "{taken_back} taken back, {ended} ended");
}

#[tokio::test]
async fn a_program_of_mariadb_that_fails() {
    Stage::new(Engine::Mariadb, false).await.cut_everywhere(Cut::Failed, false, MARIADB, every(1, 1)).await;
}

#[tokio::test]
async fn a_mariadb_server_that_dies() {
    Stage::new(Engine::Mariadb, true).await.cut_everywhere(Cut::After, true, HALF, every(1, 2)).await;
}

#[tokio::test]
async fn a_mariadb_server_that_dies_at_another_run() {
    Stage::new(Engine::Mariadb, true).await.cut_everywhere(Cut::After, true, HALF, every(2, 2)).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_before_it_tells_postgres_anything() {
    Stage::new(Engine::Postgres, false).await.cut_everywhere(Cut::Before, false, POSTGRES, every(1, 1)).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_when_postgres_has_done_half() {
    Stage::new(Engine::Postgres, false).await.cut_everywhere(Cut::Half, false, POSTGRES, every(1, 1)).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_when_postgres_has_done_it() {
    Stage::new(Engine::Postgres, false).await.cut_everywhere(Cut::After, false, POSTGRES, every(1, 1)).await;
}

#[tokio::test]
async fn a_program_of_postgres_that_fails() {
    Stage::new(Engine::Postgres, false).await.cut_everywhere(Cut::Failed, false, POSTGRES, every(1, 1)).await;
}

#[tokio::test]
async fn a_postgres_server_that_dies() {
    Stage::new(Engine::Postgres, true).await.cut_everywhere(Cut::After, true, POSTGRES, every(1, 1)).await;
}

#[tokio::test]
async fn a_table_that_stays_in_use_is_not_waited_for_without_end() {
    let stage = Stage::new(Engine::Mariadb, false).await;
    stage.lay("old");
    let mut busy = stage.server.client("shop");
    let mut busy = busy
        .args(["-e", "BEGIN; SELECT * FROM customer; SELECT sleep(600)"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let in_use = "SELECT count(*) FROM information_schema.processlist WHERE state = 'User sleep'";
    while stage.server.run("", in_use).unwrap().trim() != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = stage.host.restore("b-1", None).await.unwrap_err();
    assert!(refused.what.contains("Lock wait timeout") && refused.hint.contains("in use"), "{refused}");
    // Nothing had given way.
    assert_eq!(stage.host.backups.unsettled().unwrap(), None);
    assert!(!stage.is_new("a table was in use"));
    busy.kill().unwrap();
    busy.wait().unwrap();
}
