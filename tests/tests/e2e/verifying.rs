//! A copy is verified, and put right, while its source is in use.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, Dataset, SERVED};
use handover_tests::compare::{Side, rows_by_checksum};
use handover_tests::locate::{Binaries, Profile, target_dir};
use handover_tests::poll;
use handover_tests::server::{Engine, Server};
use rusqlite::Connection;
use serde_json::Value;

use super::{SETTLES_WITHIN, settle_and_compare};

/// Changes that a writer has made, at least, before what it disturbs counts.
const BUSY: u64 = 50;
/// Between two of them others may write too: SQLite lets one at a time, and not in turn.
const BETWEEN: Duration = Duration::from_millis(3);

/// Starts a migration that follows its source, and waits until it does.
pub fn follow(bed: &Bed) {
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    wait_for(bed, "following");
}

fn wait_for(bed: &Bed, activity: &str) {
    poll::until(activity, SETTLES_WITHIN, || {
        // An agent that is down is waited for.
        let Ok(status) = bed.json(&["status"]) else { return Ok(None) };
        assert_eq!(status["condition"], "good", "{status}");
        Ok((status["activity"] == activity).then_some(()))
    })
    .unwrap();
}

pub fn following(seed: u64) -> Bed {
    let bed = Bed::temporary(&Spec::small(seed)).unwrap();
    follow(&bed);
    bed
}

/// Verifies with these arguments; the report. Its exit code tells whether something differs.
fn verify(bed: &Bed, args: &[&str], code: i32) -> Value {
    let args: Vec<&str> = ["verify", "--watch"].iter().chain(args).copied().collect();
    let output = bed.cli(&args).unwrap();
    assert_eq!(output.code, Some(code), "{}\n{}", output.text(), bed.cli(&["report"]).unwrap().text());
    bed.json(&["report"]).unwrap()
}

/// What a list of the report names.
fn named(report: &Value, list: &str) -> Vec<String> {
    let list = report["outcome"][list].as_array().unwrap().iter();
    let mut out: Vec<String> =
        list.map(|d| format!("{}: {}", d["item"].as_str().unwrap(), d["what"].as_str().unwrap())).collect();
    out.sort();
    out
}

/// The database that is not yet in its place.
pub fn unfinished(bed: &Bed) -> Connection {
    let id = bed.status().unwrap().migration;
    let path = PathBuf::from(format!("{}.handover-{id}", bed.copy().database.display()));
    assert!(path.exists(), "{}", path.display());
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db
}

/// Changes one row, deletes one and adds one at the target, none of which the source's writer touches; what must be found.
fn plant(db: &Connection) -> [String; 3] {
    let id = |sql: &str| -> i64 { db.query_row(sql, [], |row| row.get(0)).unwrap() };
    let (invoice, reading) = (id("SELECT max(id) FROM invoice"), id("SELECT min(id) FROM reading"));
    db.execute_batch(&format!(
        "UPDATE invoice SET cents = cents + 1 WHERE id = {invoice}; DELETE FROM reading WHERE id = {reading};
         INSERT INTO word (rowid, key, value) VALUES (999999, 'planted', 'x');",
    ))
    .unwrap();
    [
        format!("table invoice, id {invoice}: its values are not the source's"),
        format!("table reading, id {reading}: it is missing at the target"),
        "table word, rowid 999999: it is not at the source".to_owned(),
    ]
}

/// Somebody who writes all the time.
struct Writer {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(mut write: impl FnMut(u64) + Send + 'static) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), made.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                write(count.fetch_add(1, Ordering::Relaxed));
                poll::pause(BETWEEN);
            }
        });
        let writer = Self { stop, made, thread: Some(thread) };
        writer.wait(BUSY);
        writer
    }

    /// Waits until so many more changes are made.
    fn wait(&self, more: u64) {
        let from = self.made();
        poll::until("the writer", SETTLES_WITHIN, || Ok((self.made() >= from + more).then_some(()))).unwrap();
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A writer to a bed's SQLite database: rows come, change and go, and one row changes all the time.
fn sqlite_writer(bed: &Bed) -> Writer {
    let db = Connection::open(&bed.original().database).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    Writer::start(move |n| {
        db.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             UPDATE invoice SET cents = (cents + 1) % 1000 WHERE id = 1;
             UPDATE invoice SET issued = '{n}' WHERE id = 10 + {n} % 400;
             INSERT INTO reading (meter, value) VALUES ('w{n}', {n});
             DELETE FROM reading WHERE meter = 'w{}';
             INSERT OR REPLACE INTO word VALUES ('w{}', '{n}');
             COMMIT",
            n.saturating_sub(20),
            n % 30,
        ))
        .unwrap();
    })
}

#[test]
fn nothing_differs_while_everything_changes() {
    let bed = following(61);
    let writer = sqlite_writer(&bed);
    for _ in 0..3 {
        let before = writer.made();
        let report = verify(&bed, &[], 0);
        assert!(writer.made() > before, "nobody wrote");
        let verified = &report["outcome"]["verified"]["app"];
        assert!(verified["read"]["rows"].as_u64().unwrap() > 1000, "{report}");
        assert_eq!(
            (&verified["differences"], &report["totals"]["repaired"]),
            (&0.into(), &0.into()),
            "{report}"
        );
        assert!(report["outcome"]["verified"]["files"]["read"]["files"].as_u64().unwrap() > 100, "{report}");
    }
    let seen = bed.cli(&["watch"]).unwrap().text();
    assert!(seen.contains("not verified, since they are not followed"), "{seen}");
    writer.end();
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
}

#[test]
fn what_differs_is_named_and_put_right() {
    let bed = following(62);
    let writer = sqlite_writer(&bed);
    let planted = plant(&unfinished(&bed));
    let report = verify(&bed, &[], 7);
    assert_eq!(named(&report, "differences"), planted);
    // Not in the source's place as it is, be it later or tried.
    for how in [&[] as &[&str], &["--dry-run"], &["--at", "2100-01-31T02:30:00Z"]] {
        let args: Vec<&str> = ["cutover"].iter().chain(how).copied().collect();
        let refused = bed.cli(&args).unwrap();
        let is_told = refused.text().contains("3 differences") && refused.text().contains("verify --repair");
        assert!(refused.code == Some(5) && is_told, "{}", refused.text());
    }
    let readiness = bed.json(&["status"]).unwrap()["readiness"].clone();
    assert!(readiness["ready"] == false && readiness.to_string().contains("3 differences"), "{readiness}");
    let repaired = verify(&bed, &["--repair"], 0);
    assert_eq!(named(&repaired, "repaired"), planted);
    assert_eq!((&repaired["totals"]["repaired"], &repaired["totals"]["differences"]), (&3.into(), &0.into()));
    let again = verify(&bed, &[], 0);
    assert_eq!((&again["totals"]["repaired"], &again["totals"]["differences"]), (&0.into(), &0.into()));
    writer.end();
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
}

#[test]
fn trees_are_read_again_and_put_right() {
    let bed = following(63);
    let (original, copy) = (bed.original().files, bed.copy().files);
    let name = std::fs::read_dir(&original)
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| entry.metadata().unwrap().is_file() && entry.metadata().unwrap().len() > 100);
    let place = copy.join(name.unwrap().file_name());
    let meta = std::fs::metadata(&place).unwrap();
    let mut bytes = std::fs::read(&place).unwrap();
    bytes[0] ^= 1;
    // As a failing disk would: nothing but the contents tells.
    std::fs::write(&place, &bytes).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&place)
        .unwrap()
        .set_modified(meta.modified().unwrap())
        .unwrap();
    verify(&bed, &["--repair"], 0);
    let found = bed.compare().unwrap();
    assert!(!found.named.iter().any(|what| what.contains("files")), "{}", found.describe());
}

#[test]
fn an_interrupted_verification_goes_on() {
    let mut bed = following(64);
    let whole = verify(&bed, &[], 0)["outcome"]["verified"]["app"]["read"].clone();
    let planted = plant(&unfinished(&bed));
    bed.json(&["verify"]).unwrap();
    // With three tables to be looked at more closely there is time for this.
    let tables = |bed: &Bed, least: u64| {
        poll::until("a table to be through", SETTLES_WITHIN, || {
            let report = bed.json(&["report"])?;
            let verifying = &report["outcome"]["verifying"];
            assert!(!verifying.is_null(), "it is over: {report}");
            let tables = verifying["checked"]["app"]["tables"].as_u64().unwrap_or(0);
            Ok((tables >= least).then_some(tables))
        })
        .unwrap()
    };
    let through = tables(&bed, 1);
    bed.target.kill().unwrap();
    bed.target.restart().unwrap();
    assert!(tables(&bed, through) >= through, "it began again");
    bed.json(&["pause"]).unwrap();
    assert_eq!(bed.json(&["status"]).unwrap()["condition"], "paused");
    bed.json(&["resume"]).unwrap();
    wait_for(&bed, "following");
    let report = bed.json(&["report"]).unwrap();
    assert_eq!(report["outcome"]["verified"]["app"]["read"]["tables"], whole["tables"], "{report}");
    assert_eq!(named(&report, "differences"), planted);
}

#[test]
fn a_cutover_may_come_in_between() {
    let bed = following(65);
    // Reading all of it takes a while.
    bed.json(&["throttle", "--max-rate", "100KB"]).unwrap();
    bed.json(&["verify"]).unwrap();
    assert_eq!(bed.json(&["status"]).unwrap()["activity"], "verifying");
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
    let refused = bed.cli(&["verify"]).unwrap();
    assert!(refused.code == Some(5) && refused.text().contains("possible now"), "{}", refused.text());
}

#[test]
fn a_plan_that_does_not_follow_is_put_right_by_a_pass() {
    let bed = Bed::temporary(&Spec::small(66)).unwrap();
    bed.start().unwrap();
    bed.settle(SETTLES_WITHIN).unwrap();
    const DELETE: &str = "DELETE FROM invoice WHERE id = (SELECT max(id) FROM invoice)";
    let refused = bed.cli(&["verify", "--repair"]).unwrap();
    assert!(refused.code == Some(5) && refused.text().contains("handover sync"), "{}", refused.text());
    Connection::open(bed.copy().database).unwrap().execute_batch(DELETE).unwrap();
    verify(&bed, &[], 7);
    bed.cli(&["sync", "--watch"]).unwrap().success().unwrap();
    settle_and_compare(&bed);
}

/// Two servers, and a bed between them.
pub fn servers(engine: Engine, schema: &str) -> (Server, Server, Bed, tempfile::TempDir) {
    let options: &[&str] = match engine {
        Engine::Mariadb => &["--local-infile=1"],
        Engine::Postgres => &[],
    };
    let (from, to) = (Server::start(engine, options).unwrap(), Server::start(engine, options).unwrap());
    from.create("app").unwrap();
    from.run("app", schema).unwrap();
    let dir = target_dir().unwrap().join("tmp");
    std::fs::create_dir_all(&dir).unwrap();
    let root = tempfile::Builder::new().prefix("bed-").tempdir_in(dir).unwrap();
    let dataset = Dataset::Server { name: "app".to_owned(), source: from.url("app"), target: to.url("app") };
    let bed = Bed::at(root.path(), Binaries::find(Profile::Same).unwrap(), vec![dataset], SERVED).unwrap();
    (from, to, bed, root)
}

const NUMBERS: &str = "INSERT INTO parent (id, code, v) SELECT n, CONCAT('c', n), 0 FROM
     (WITH RECURSIVE n AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM n WHERE n < 900) SELECT n FROM n) AS numbers;
     INSERT INTO child (a, b, parent) SELECT id % 7, CONCAT('Key ', id), id FROM parent;";

fn schema(engine: Engine) -> String {
    let inno = if engine == Engine::Mariadb { " ENGINE=InnoDB" } else { "" };
    format!(
        "CREATE TABLE parent (id INT PRIMARY KEY, code VARCHAR(20) UNIQUE, v INT){inno};
         CREATE TABLE child (a INT, b VARCHAR(20), parent INT, PRIMARY KEY (a, b),
           CONSTRAINT p FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE){inno};
         {NUMBERS}"
    )
}

/// The database that a server's copy is made in.
fn copy_in_making(engine: Engine, to: &Server) -> String {
    let list = match engine {
        Engine::Mariadb => "SELECT schema_name FROM information_schema.schemata",
        Engine::Postgres => "SELECT datname FROM pg_database",
    };
    let names = to.run("", list).unwrap();
    names.lines().find(|name| name.starts_with("app")).unwrap_or_else(|| panic!("{names}")).to_owned()
}

/// On a server: rows come and go by cascades too, a row changes all the time, and three rows are planted.
fn a_server_is_verified(engine: Engine) {
    let (from, to, bed, _root) = servers(engine, &schema(engine));
    follow(&bed);
    let mut client = from.client("app");
    let writer = Writer::start(move |n| {
        let id = 100 + n % 300;
        let sql = format!(
            "BEGIN; UPDATE parent SET v = v + 1 WHERE id = 1; UPDATE parent SET v = {n} WHERE id = {id};
             DELETE FROM parent WHERE id = {}; INSERT INTO parent VALUES ({}, 'n{n}', {n});
             INSERT INTO child VALUES ({n}, 'new', {}); UPDATE parent SET id = {} WHERE id = {}; COMMIT;",
            500 + n % 300,
            2000 + n,
            2000 + n,
            100_000 + n,
            1990 + n,
        );
        handover_tests::server::run(&mut client, &sql).unwrap();
    });
    let report = verify(&bed, &[], 0);
    assert!(report["outcome"]["verified"]["app"]["read"]["rows"].as_u64().unwrap() > 1000, "{report}");
    let plant = "DELETE FROM child WHERE a = 3 AND b = 'Key 3'; UPDATE parent SET v = -1 WHERE id = 7;
                 INSERT INTO parent VALUES (55555, 'planted', 0);";
    to.run(&copy_in_making(engine, &to), plant).unwrap();
    let found = named(&verify(&bed, &[], 7), "differences");
    assert_eq!(found.len(), 3, "{found:?}");
    for (found, (table, rest)) in found.iter().zip([
        ("child", "a 3, b Key 3: it is missing at the target"),
        ("parent", "id 55555: it is not at the source"),
        ("parent", "id 7: its values are not the source's"),
    ]) {
        assert!(found.contains(table) && found.ends_with(rest), "{found}");
    }
    assert_eq!(named(&verify(&bed, &["--repair"], 0), "repaired"), found);
    verify(&bed, &[], 0);
    writer.end();
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    let side = |server| Side { server, database: "app" };
    let found = rows_by_checksum(side(&from), side(&to)).unwrap();
    assert_eq!(found.found, 0, "{}", found.describe());
}

#[test]
fn a_mariadb_in_use_is_verified() {
    a_server_is_verified(Engine::Mariadb);
}

#[test]
fn a_postgresql_in_use_is_verified() {
    a_server_is_verified(Engine::Postgres);
}
