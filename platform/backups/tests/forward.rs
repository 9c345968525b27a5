//! Restores to MariaDB that cannot be ended once their tables are in place: programs write to these, and from there on it only goes forward.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use handover_backups::Tools;
use handover_engine::ports::Backups;
use handover_tests::server::{Engine, Server};

use support::servers::{dump, mariadb};
use support::tools::{instead, reached};
use support::{Host, restore};

/// A script that is the server's own program but where a file of this name is there: then it keeps what it is told, counts its runs, and does this.
fn unless(host: &Host, file: &str, case: &str, then: &str) -> Tools {
    let dir = host.dir.path();
    let at = dir.display();
    let script = format!(
        "if [ -e '{at}/{file}' ] && [ \"$1\" != --version ]; then
  told='{at}'/told-$$; cat > \"$told\"
  if {case}; then echo run >> '{at}/runs'; {then}; fi
  exec /usr/bin/mariadb \"$@\" < \"$told\"
fi
exec /usr/bin/mariadb \"$@\""
    );
    instead(dir, "mariadb", &script)
}

/// What acts is refused: the account may not make it.
fn refusing(host: &Host) -> Tools {
    let then =
        "echo 'ERROR 1227 (42000) at line 9: Access denied; you need the SET USER privilege' >&2; exit 1";
    unless(host, "refuse", "case \"$*\" in *' -- shop') true;; *) false;; esac", then)
}

/// The tables are about to change places.
fn hanging(host: &Host) -> Tools {
    let then = format!("touch '{}'; while :; do sleep 0.02; done", host.dir.path().join("reached").display());
    unless(host, "hang", "grep -q 'RENAME TABLE' \"$told\"", &then)
}

struct Stage {
    server: Server,
    host: Host,
    new: String,
}

impl Stage {
    /// A server with the old database, and a backup of the new one.
    async fn new() -> Self {
        let server = Server::start(Engine::Mariadb, &["--log-bin-trust-function-creators=1"]).unwrap();
        let host = Host::new(tempfile::tempdir().unwrap(), vec![mariadb(&server, "shop")]);
        let mut stage = Self { server, host, new: String::new() };
        stage.lay("new");
        stage.host.make("b-1").await.unwrap();
        stage.new = dump(&stage.server, "shop");
        stage.lay("old");
        stage
    }

    fn lay(&self, own: &str) {
        self.server.drop_databases("shop").unwrap();
        self.server.create("shop").unwrap();
        let made = format!(
            "CREATE TABLE customer (id INT PRIMARY KEY, name VARCHAR(80)) ENGINE=InnoDB;
            CREATE TABLE of_{own} (id INT PRIMARY KEY, customer INT, FOREIGN KEY (customer) REFERENCES customer (id)) ENGINE=InnoDB;
            INSERT INTO customer VALUES (1, '{own}'), (2, 'both'); INSERT INTO of_{own} VALUES (1, 1);
            CREATE TRIGGER t_{own} BEFORE UPDATE ON customer FOR EACH ROW SET new.name = '{own}';
            CREATE VIEW v_{own} AS SELECT name FROM customer"
        );
        self.server.run("shop", &made).unwrap();
        let _ = fs::remove_dir_all(self.host.place().join(".kept"));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.host.dir.path().join(name)
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.file("runs")).unwrap_or_default().lines().count()
    }

    /// The database that what stood there is in.
    fn kept(&self) -> String {
        let all = self.server.run("", "SELECT schema_name FROM information_schema.schemata").unwrap();
        all.lines().find(|name| name.starts_with("shop__before_")).unwrap().to_owned()
    }

    fn names(&self, database: &str) -> String {
        self.server.run(database, "SELECT name FROM customer ORDER BY id").unwrap()
    }

    /// A program writes to what is in place.
    fn write(&self) {
        self.server.run("shop", "INSERT INTO customer VALUES (3, 'since')").unwrap();
    }

    /// The new one, with all that acts, and what was written to it.
    fn is_ended(&self) {
        assert_eq!(self.names("shop"), "new\nboth\nsince\n");
        self.server.run("shop", "DELETE FROM customer WHERE id = 3").unwrap();
        assert_eq!(dump(&self.server, "shop"), self.new);
        let scratch = "SELECT count(*) FROM information_schema.schemata WHERE schema_name LIKE '%restore%'";
        assert_eq!(self.server.run("", scratch).unwrap(), "0\n");
    }

    /// A restore whose tables are in place, and that cannot be ended.
    async fn stuck(&mut self) {
        self.lay("old");
        let tools = refusing(&self.host);
        fs::write(self.file("refuse"), "").unwrap();
        self.host.restart(tools).await;
        let failed = self.host.restore("b-1", None).await.unwrap_err();
        assert_eq!(failed.what.matches("are put back and stay").count(), 1, "{failed}");
        assert!(
            failed.what.contains("SET USER") && failed.hint.contains("ends the restore by itself"),
            "{failed}"
        );
        assert!(self.host.backups.unsettled().unwrap().is_some());
        self.write();
    }

    async fn tried_again(&self) {
        let before = self.runs();
        let wait = async {
            while self.runs() == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), wait).await.expect("the agent does not try again");
    }

    /// An agent ends right before the tables change places.
    async fn cut(&mut self) {
        self.lay("old");
        let _ = fs::remove_file(self.file("reached"));
        let tools = hanging(&self.host);
        fs::write(self.file("hang"), "").unwrap();
        self.host.restart(tools).await;
        self.host.backups.begin(&restore("b-1", None)).await.unwrap();
        reached(&self.host.dir).await;
        self.host.stop.cancel();
        self.host.backups.ended().await;
        fs::remove_file(self.file("hang")).unwrap();
    }
}

#[tokio::test]
async fn what_is_written_once_the_tables_are_in_place_stays() {
    let mut stage = Stage::new().await;
    stage.stuck().await;
    // Whatever ends in between, and is started again.
    let tools = refusing(&stage.host);
    stage.host.restart(tools.clone()).await;
    stage.tried_again().await;
    stage.server.restart().unwrap();
    stage.tried_again().await;
    assert_eq!(stage.names("shop"), "new\nboth\nsince\n");
    fs::remove_file(stage.file("refuse")).unwrap();
    stage.host.settled().await;
    stage.is_ended();
    assert_eq!(stage.names(&stage.kept()), "old\nboth\n");

    // Nor does it depend on what stood there.
    stage.stuck().await;
    stage.server.drop_databases("shop__before_").unwrap();
    stage.host.restart(tools).await;
    stage.tried_again().await;
    fs::remove_file(stage.file("refuse")).unwrap();
    stage.host.settled().await;
    stage.is_ended();
}

#[tokio::test]
async fn what_programs_do_to_tables_that_are_in_place_is_theirs() {
    let mut stage = Stage::new().await;
    stage.stuck().await;
    stage.server.run("shop", "DROP TABLE of_new").unwrap();
    let tools = refusing(&stage.host);
    stage.host.restart(tools).await;
    stage.tried_again().await;
    fs::remove_file(stage.file("refuse")).unwrap();
    stage.host.settled().await;
    assert_eq!(stage.names("shop"), "new\nboth\nsince\n");
    assert_eq!(stage.server.run("shop", "SELECT count(*) FROM v_new").unwrap(), "3\n");

    // Where there is none of them, it is another server.
    stage.stuck().await;
    stage.server.run("shop", "DROP TABLE of_new, customer; CREATE TABLE another (id INT)").unwrap();
    stage.host.restart(Tools::default()).await;
    let refused = stage.host.restore("b-1", None).await.unwrap_err();
    assert!(refused.what.contains("is not where a restore") && refused.hint.contains("`url`"), "{refused}");
    assert_eq!(stage.server.run("shop", "SELECT count(*) FROM another").unwrap(), "0\n");
}

#[tokio::test]
async fn a_rename_that_nobody_heard_of_or_that_is_half_done_is_ended() {
    let mut stage = Stage::new().await;
    let last = "shop__handover_restore.of_new TO shop.of_new";
    for rest in ["", last] {
        stage.cut().await;
        let kept = stage.kept();
        // As servers before 10.6 leave it where they crash: table by table.
        let moved = format!(
            "RENAME TABLE shop.customer TO {kept}.customer, shop.of_old TO {kept}.of_old, \
             shop__handover_restore.customer TO shop.customer{}{rest}",
            if rest.is_empty() { "" } else { ", " }
        );
        stage.server.run("", &moved).unwrap();
        stage.write();
        stage.host.restart(Tools::default()).await;
        stage.host.settled().await;
        stage.is_ended();
        assert_eq!(stage.names(&kept), "old\nboth\n");
    }
    // Before any of what was built is in place, it is taken back.
    stage.cut().await;
    let kept = stage.kept();
    stage.server.run("", &format!("RENAME TABLE shop.of_old TO {kept}.of_old")).unwrap();
    stage.server.run("shop", "INSERT INTO customer VALUES (3, 'since')").unwrap();
    stage.host.restart(Tools::default()).await;
    stage.host.settled().await;
    assert_eq!(stage.names("shop"), "old\nboth\nsince\n");
    assert_eq!(
        stage.server.run("shop", "SELECT count(*) FROM of_old; SELECT count(*) FROM v_old").unwrap(),
        "1\n3\n"
    );
}

#[tokio::test]
async fn what_stands_there_is_not_taken_for_what_was_built() {
    let mut stage = Stage::new().await;
    stage.cut().await;
    // Somebody has tidied up; tables of the same names are in place.
    stage.server.drop_databases("shop__handover_restore").unwrap();
    stage.server.run("shop", "CREATE TABLE of_new (id INT)").unwrap();
    stage.host.restart(Tools::default()).await;
    let refused = stage.host.restore("b-1", None).await.unwrap_err();
    assert!(
        refused.what.contains("its table customer is not where") && refused.hint.contains("by hand"),
        "{refused}"
    );
    assert_eq!(stage.names("shop"), "old\nboth\n");
}
