//! What the tests of decisions are played on: databases of two versions at two hosts.

use std::fs;
use std::path::{Path, PathBuf};

use handover_tests::bed::{Bed, Dataset, SERVED};
use handover_tests::locate::{Binaries, Profile, target_dir};
use handover_tests::poll;
use handover_tests::server::{Engine, Server};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use super::super::SETTLES_WITHIN;
use super::versions::{MARIADB, POSTGRES, SQLITE, new_version, old_version};

/// A database of one host.
pub enum Side {
    File(PathBuf),
    Server(Server),
}

impl Side {
    /// Runs SQL; the first column of what it answers, a line each.
    fn try_run(&self, sql: &str) -> anyhow::Result<String> {
        let path = match self {
            Self::Server(server) => return server.run("app", sql),
            Self::File(path) => path,
        };
        let db = Connection::open(path)?;
        db.busy_timeout(SETTLES_WITHIN)?;
        db.execute_batch("PRAGMA foreign_keys = ON")?;
        if !sql.starts_with("SELECT") {
            db.execute_batch(sql)?;
            return Ok(String::new());
        }
        let mut query = db.prepare(sql)?;
        let lines = query.query_map([], |row| {
            Ok(match row.get::<_, rusqlite::types::Value>(0)? {
                rusqlite::types::Value::Integer(number) => format!("{number}\n"),
                rusqlite::types::Value::Text(text) => format!("{text}\n"),
                other => format!("{other:?}\n"),
            })
        })?;
        Ok(lines.collect::<rusqlite::Result<String>>()?)
    }

    #[track_caller]
    pub fn run(&self, sql: &str) -> String {
        self.try_run(sql).unwrap()
    }

    /// The text has one of these parts.
    #[track_caller]
    pub fn refuses(&self, sql: &str, part: &str) {
        let refused = format!("{:#}", self.try_run(sql).unwrap_err());
        let refused = refused.to_lowercase();
        assert!(part.split('|').any(|part| refused.contains(part)), "{sql}: {refused}");
    }
}

/// Both hosts, before anything is planned.
pub struct Stage {
    pub from: Side,
    pub to: Side,
    pub bed: Bed,
    schema: &'static str,
    pub root: TempDir,
}

impl Stage {
    pub fn new(engine: Option<Engine>) -> Self {
        let dir = target_dir().unwrap().join("tmp");
        fs::create_dir_all(&dir).unwrap();
        let root = tempfile::Builder::new().prefix("bed-").tempdir_in(dir).unwrap();
        let dialect = match engine {
            None => &SQLITE,
            Some(Engine::Mariadb) => &MARIADB,
            Some(Engine::Postgres) => &POSTGRES,
        };
        let (from, to, dataset) = match engine {
            None => files(root.path()),
            Some(engine) => servers(engine),
        };
        let (manuals, landing) = (root.path().join("source/manuals"), root.path().join("target/manuals"));
        fs::create_dir_all(&manuals).unwrap();
        fs::write(manuals.join("one"), "first").unwrap();
        let tree = Dataset::Files { name: "manuals".to_owned(), source: manuals, target: landing };
        from.run(&old_version(dialect));
        to.run(&new_version(dialect));
        let binaries = Binaries::find(Profile::Same).unwrap();
        let bed = Bed::at(root.path(), binaries, vec![dataset, tree], SERVED).unwrap();
        Self { from, to, bed, schema: dialect.schema, root }
    }

    pub fn decisions(&self, name: &str, decisions: &[&str]) -> String {
        let file = self.root.path().join(name);
        let one = |decision: &&str| format!("[[decision]]\n{}\n", decision.replace("@", self.schema));
        fs::write(&file, format!("format = 1\n{}", decisions.iter().map(one).collect::<String>())).unwrap();
        file.display().to_string()
    }

    /// What has to be decided about the rows of the old version.
    pub fn all_decided(&self) -> String {
        self.decisions(
            "decisions.toml",
            &[
                "table = '@member'\nkey = 'id 3'\naction = 'rename'\ncolumn = 'email'\nsuffix = '.old'",
                "table = '@member'\nkey = 'id 4'\naction = 'drop'",
                "table = '@member'\nkey = 'id 6'\naction = 'keep'",
                "table = '@note'\nkey = 'id 7'\naction = 'drop'",
                "table = '@note'\nkey = 'id 8'\naction = 'merge'\ncolumn = 'member_id'\nnull = true",
                "table = '@note'\nkey = 'id 9'\naction = 'drop'",
            ],
        )
    }

    pub fn plan(&self, decisions: &str) -> Value {
        self.bed.json(&["plan", "--follow", "--overwrite", "--decisions", decisions]).unwrap()
    }

    pub fn start(&self, plan: &Value) {
        self.bed.json(&["start", plan["digest"].as_str().unwrap()]).unwrap();
    }

    /// Waits for a state; an agent that is down is waited for.
    #[track_caller]
    pub fn reach(&self, what: &str, is_reached: impl Fn(&Value) -> bool) -> Value {
        poll::until(what, SETTLES_WITHIN, || {
            let Ok(status) = self.bed.json(&["status"]) else { return Ok(None) };
            Ok(is_reached(&status).then_some(status))
        })
        .unwrap()
    }

    pub fn is_following(&self) {
        self.reach("following", |status| {
            assert_eq!(status["condition"], "good", "{status}");
            status["phase"] == "following" && status["activity"] == "following"
        });
    }

    #[track_caller]
    pub fn ends(&self, args: &[&str]) {
        self.bed.cli(args).unwrap().success().unwrap();
    }

    /// Nothing is left of what rows were tried in.
    #[track_caller]
    pub fn has_no_scratch(&self) {
        match &self.to {
            Side::File(path) => {
                let name = format!("{}.handover-rehearsal", path.display());
                assert!(!Path::new(&name).exists(), "{name} is still there");
            }
            Side::Server(server) => {
                let list = match server.engine() {
                    Engine::Mariadb => "SELECT schema_name FROM information_schema.schemata",
                    Engine::Postgres => "SELECT datname FROM pg_database",
                };
                let names = server.run("", list).unwrap();
                assert!(!names.contains("app__handover"), "{names}");
            }
        }
    }

    /// What the target's users had before.
    #[track_caller]
    pub fn target_is_as_it_was(&self) {
        assert_eq!(self.to.run("SELECT email FROM member"), "tried@example.org\n");
        assert_eq!(self.to.run("SELECT count(*) FROM note"), "0\n");
    }

    /// All that is at the target is as the new version's schema and the decisions want it.
    #[track_caller]
    pub fn target_has_it_all(&self) {
        let same = |sql: &str| assert_eq!(self.to.run(sql), self.from.run(sql), "{sql}");
        same("SELECT concat_ws('|', id, email) FROM member WHERE id NOT IN (3, 4, 5) ORDER BY id");
        same("SELECT concat_ws('|', id, member_id, body) FROM note WHERE id NOT IN (7, 8) ORDER BY id");
        let expected = "3|member1@example.org.old\n6|member5@example.org\n";
        let found =
            self.to.run("SELECT concat_ws('|', id, email) FROM member WHERE id IN (3, 4, 5, 6) ORDER BY id");
        assert_eq!(found, expected);
        assert_eq!(self.to.run("SELECT body FROM note WHERE id IN (7, 8) AND member_id IS NULL"), "note 8\n");
        assert_eq!(self.to.run("SELECT count(*) FROM note WHERE currency <> 'EUR'"), "0\n");
        assert_eq!(self.to.run("SELECT count(*) FROM member WHERE since <> 'ever'"), "0\n");
        // What the new version has filled itself.
        assert_eq!(self.to.run("SELECT code FROM currency ORDER BY code"), "EUR\nGBP\nUSD\n");
        assert_eq!(self.to.run("SELECT n FROM tally"), "0\n", "a trigger has seen what was loaded");
        self.to.refuses("INSERT INTO member (email) VALUES ('member1@example.org')", "uniq|duplicate");
    }
}

fn files(root: &Path) -> (Side, Side, Dataset) {
    let (source, target) = (root.join("source/app.db"), root.join("target/app.db"));
    for path in [&source, &target] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    let dataset =
        Dataset::Database { name: "app".to_owned(), source: source.clone(), target: target.clone() };
    (Side::File(source), Side::File(target), dataset)
}

fn servers(engine: Engine) -> (Side, Side, Dataset) {
    let options: &[&str] = match engine {
        Engine::Mariadb => &["--local-infile=1"],
        Engine::Postgres => &[],
    };
    let start = || {
        let server = Server::start(engine, options).unwrap();
        server.create("app").unwrap();
        server
    };
    let (from, to) = (start(), start());
    let dataset = Dataset::Server { name: "app".to_owned(), source: from.url("app"), target: to.url("app") };
    (Side::Server(from), Side::Server(to), dataset)
}
