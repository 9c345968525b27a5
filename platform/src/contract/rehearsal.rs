//! Rehearsing: exactly what the target's constraints refuse is found, whatever was rehearsed before.

mod cut;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handover_engine::name::DatasetName;
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::scratch::{Scratch, TrialLedger};
use handover_engine::ports::{Result, Source};
use handover_engine::rehearsal::ConflictKind::{self, ForeignKey, NotNull, Type, Unique};
use handover_engine::rehearsal::decision::Decisions;
use handover_engine::rehearsal::report::{DatabaseReport, TableReport};
use handover_engine::rehearsal::run::{Stage, rehearse};

use self::cut::{Calls, Cut};
use crate::SystemClock;
use crate::manifest::Manifest;
use crate::source::{CaptureLimits, LocalSource};
use crate::trials::Trials;

/// Where a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The source.
    Source,
    /// The target's own database.
    Target,
    /// The scratch database.
    Scratch,
}

/// A source and a target of one engine, both empty.
pub trait Rehearsed: Send + Sync {
    /// The source's `url`.
    fn url(&self) -> String;

    /// The scratch database beside the target's own.
    fn scratch(&self) -> Arc<dyn Scratch>;

    /// A directory for the agent's files.
    fn directory(&self) -> &Path;

    /// Runs statements; what the last one prints, values separated by `|`.
    fn sql(&self, at: At, statements: &str) -> String;

    /// The definitions of the columns `code` (at most four characters), `age` (an integer) and `score` (below 100) at the target.
    fn columns(&self) -> &'static str;

    /// Follows the definitions of a table at the target.
    fn after_table(&self) -> &'static str {
        ""
    }

    /// Statements in the engine's own dialect.
    fn dialect(&self, statements: String) -> String {
        statements
    }

    /// The table of customers, as reports name it.
    fn customer(&self) -> &'static str {
        "customer"
    }

    /// What a `code` that is too long, and a `score` that is too high, break.
    fn kinds(&self) -> (ConflictKind, ConflictKind);

    /// The scratch database is there.
    fn is_there(&self) -> bool;

    /// A rehearsal is cut short at every how many-th of its steps.
    fn stride(&self) -> u32 {
        9
    }
}

/// Rows of customers; each of about two kilobytes, so that they are several chunks.
const ROWS: u32 = 2600;
const SOURCE: &str = "
    CREATE TABLE country (id INTEGER PRIMARY KEY, name VARCHAR(40));
    CREATE TABLE legacy (id INTEGER PRIMARY KEY, x VARCHAR(10));
    CREATE TABLE customer (id INTEGER PRIMARY KEY, email VARCHAR(40), name VARCHAR(40), code VARCHAR(40),
        age VARCHAR(20), score INTEGER, country_id INTEGER, gone VARCHAR(10), pad VARCHAR(3000));
    INSERT INTO country VALUES (1, 'A'), (2, 'B');
    INSERT INTO legacy VALUES (1, 'x')";
/// What breaks something at the target, by the row's number.
const PLANT: &str = "
    UPDATE customer SET email = 'c50@example.org' WHERE id = 100;
    UPDATE customer SET name = NULL WHERE id = 200;
    UPDATE customer SET code = 'much too long' WHERE id = 300;
    UPDATE customer SET age = 'unknown' WHERE id = 400;
    UPDATE customer SET score = 200 WHERE id = 500;
    UPDATE customer SET country_id = 999 WHERE id = 600";

fn customers() -> String {
    let mut out = String::new();
    for id in 1..=ROWS {
        let head = if id % 100 == 1 { ";\nINSERT INTO customer VALUES " } else { "," };
        let country = 1 + id % 2;
        let _ = write!(
            out,
            "{head}({id}, 'c{id}@example.org', 'n{id}', 'k', '{id}', 5, {country}, 'x', '{}')",
            "p".repeat(2000)
        );
    }
    out
}

fn target<S: Rehearsed>(subject: &S) -> String {
    let tables = format!(
        "CREATE TABLE country (id INTEGER PRIMARY KEY, name VARCHAR(40)){after};
         CREATE TABLE currency (code VARCHAR(3) PRIMARY KEY){after};
         INSERT INTO currency VALUES ('EUR');
         CREATE TABLE customer (id INTEGER PRIMARY KEY, email VARCHAR(40) UNIQUE, name VARCHAR(40) NOT NULL, {},
            country_id INTEGER, pad VARCHAR(3000), currency VARCHAR(3) DEFAULT 'EUR',
            FOREIGN KEY (country_id) REFERENCES country (id), FOREIGN KEY (currency) REFERENCES currency (code)){after}",
        subject.columns(),
        after = subject.after_table(),
    );
    subject.dialect(tables)
}

/// What a rehearsal has found.
pub struct Run {
    /// Its report.
    pub report: DatabaseReport,
    /// The decisions that were carried out, by their places.
    pub used: BTreeSet<usize>,
}

impl Run {
    fn table(&self, name: &str) -> &TableReport {
        let found = self.report.tables.iter().find(|table| table.table.name == name);
        found.unwrap_or_else(|| panic!("the report names no table {name}"))
    }

    /// What is in the way of customers: kinds and numbers of rows, and the rows in their way.
    fn conflicts(&self) -> BTreeSet<(ConflictKind, String, Option<String>)> {
        let listed = &self.table("customer").listed;
        listed.iter().map(|c| (c.kind, c.key.clone(), c.other.clone())).collect()
    }

    fn says(&self, part: &str) -> bool {
        self.report.findings.iter().any(|finding| finding.to_text().contains(part))
    }
}

/// A finding as text.
trait ToText {
    fn to_text(&self) -> String;
}

impl ToText for handover_engine::check::Finding {
    fn to_text(&self) -> String {
        format!("{}: {}", self.item, self.what)
    }
}

fn dataset() -> DatasetName {
    match "main".parse() {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

/// One rehearsal by an agent that was just started.
pub async fn run<S: Rehearsed>(subject: &S, fresh: &str, decisions: &str) -> Result<Run> {
    run_for(subject, fresh, decisions, u32::MAX).await
}

/// One that is cut short after so many halves of calls.
async fn run_for<S: Rehearsed>(subject: &S, fresh: &str, decisions: &str, halves: u32) -> Result<Run> {
    let calls = Calls::halves(halves);
    let manifest = format!("[appliance]\nname = 'a'\n[[database]]\nname = 'main'\nurl = '{}'", subject.url());
    let manifest: Manifest = toml::from_str(&manifest).unwrap_or_else(|error| panic!("{error}"));
    let state = subject.directory().join("state");
    let limits = CaptureLimits::default();
    let source = LocalSource::new(
        &manifest,
        &state,
        Duration::from_secs(60),
        limits,
        Arc::new(SystemClock),
        Changeover::default(),
    )?;
    let ledger: Arc<dyn TrialLedger> = Arc::new(Trials::open(&subject.directory().join("rehearsal.db"))?);
    let ledger = Arc::new(Cut { inner: ledger, calls: calls.clone() });
    let decisions: Decisions =
        toml::from_str(&format!("format = 1\n{decisions}")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(decisions.check(), Ok(()));
    let used = Arc::new(Mutex::new(BTreeSet::new()));
    let stage = Stage {
        source: Source::of(source),
        dataset: dataset(),
        scratch: Arc::new(Cut { inner: subject.scratch(), calls }),
        ledger,
        decisions: Arc::new(decisions),
        used: used.clone(),
        tell: Arc::new(|_| ()),
    };
    let report = rehearse(stage, fresh).await?.report;
    let used = used.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Run { report, used })
}

fn decide<S: Rehearsed>(subject: &S, id: u32, rest: &str) -> String {
    format!("[[decision]]\ntable = '{}'\nkey = 'id {id}'\n{rest}\n", subject.customer())
}

/// Checks everything that is promised of scratch databases.
pub async fn rehearsal_contract<S: Rehearsed>(subject: &S) -> Result<()> {
    subject.sql(At::Source, SOURCE);
    subject.sql(At::Source, customers().trim_start_matches(';'));
    subject.sql(At::Target, &target(subject));
    let clean = run(subject, "t1", "").await?;
    assert_eq!(clean.conflicts(), BTreeSet::new(), "rows that break nothing are refused");
    assert!(clean.report.own_schema && !clean.report.continued);
    assert!(clean.report.chunks_loaded >= 4, "the table is one chunk: {}", clean.report.chunks_loaded);
    for part in
        ["no such table", "no column gone", "column currency takes its default", "currency: it is new"]
    {
        assert!(clean.says(part), "{part}: {:?}", clean.report.findings);
    }
    every_kind_is_found(subject).await?;
    one_changed_row_costs_one_chunk(subject).await?;
    the_first_row_stays(subject).await?;
    decisions_are_replayed(subject).await?;
    cut_short_anywhere_it_ends_the_same(subject).await?;
    a_repaired_target_begins_anew(subject).await?;
    subject.scratch().drop_scratch().await?;
    assert!(!subject.is_there(), "a scratch database that was dropped is there");
    subject.scratch().drop_scratch().await
}

fn counted<S: Rehearsed>(subject: &S, condition: &str) -> String {
    subject.sql(At::Scratch, &format!("SELECT count(*), sum(id) FROM customer WHERE {condition}"))
}

/// Each kind of conflict, and nothing else; what is good is there.
async fn every_kind_is_found<S: Rehearsed>(subject: &S) -> Result<()> {
    subject.sql(At::Source, PLANT);
    let run = run(subject, "t2", "").await?;
    let (long, high) = subject.kinds();
    let found = |kind, id: u32, other: Option<&str>| (kind, format!("id {id}"), other.map(str::to_owned));
    let expected = BTreeSet::from([
        found(Unique, 100, Some("id 50")),
        found(NotNull, 200, None),
        found(long, 300, None),
        found(Type, 400, None),
        found(high, 500, None),
        found(ForeignKey, 600, None),
    ]);
    assert_eq!(run.conflicts(), expected);
    let table = run.table("customer");
    assert_eq!((table.rows, table.loaded), (u64::from(ROWS), u64::from(ROWS) - 6));
    assert_eq!(table.conflicts.values().sum::<u64>(), 6);
    let sum: u32 = (1..=ROWS).sum::<u32>() - 2100;
    assert_eq!(counted(subject, "1 = 1"), format!("{}|{sum}", ROWS - 6));
    let values =
        subject.sql(At::Scratch, "SELECT email, name, code, age, score, currency FROM customer WHERE id = 7");
    assert_eq!(values, "c7@example.org|n7|k|7|5|EUR");
    assert_eq!(subject.sql(At::Scratch, "SELECT count(*) FROM currency"), "1");
    assert_eq!(subject.sql(At::Target, "SELECT count(*) FROM customer"), "0", "the target's own rows");
    Ok(())
}

/// What was tried stands, and what was found in it.
async fn one_changed_row_costs_one_chunk<S: Rehearsed>(subject: &S) -> Result<()> {
    let before = run(subject, "t3", "").await?;
    assert_eq!((before.report.chunks_loaded, before.report.continued), (0, true), "nothing had changed");
    assert_eq!(before.conflicts().len(), 6);
    subject.sql(At::Source, "UPDATE customer SET name = 'changed' WHERE id = 2000");
    let after = run(subject, "t4", "").await?;
    assert_eq!(after.report.chunks_loaded, 1);
    assert_eq!(after.conflicts(), before.conflicts());
    assert_eq!(counted(subject, "name = 'changed'"), "1|2000");
    // What was in the way goes, and with it the conflict of a row whose chunk has not changed.
    subject.sql(
        At::Source,
        "UPDATE customer SET email = 'other' WHERE id = 50; DELETE FROM customer WHERE id = 2600",
    );
    let repaired = run(subject, "t5", "").await?;
    assert_eq!(repaired.conflicts().len(), 5, "{:?}", repaired.conflicts());
    assert_eq!(counted(subject, "id IN (50, 100)"), "2|150");
    Ok(())
}

/// Of rows that break a unique constraint the first one is loaded, also where the other was there before.
async fn the_first_row_stays<S: Rehearsed>(subject: &S) -> Result<()> {
    subject.sql(At::Source, "UPDATE customer SET email = 'c2500@example.org' WHERE id = 10");
    let run = run(subject, "t6", "").await?;
    let (kind, key, other) = (Unique, "id 2500".to_owned(), Some("id 10".to_owned()));
    assert!(run.conflicts().contains(&(kind, key, other)), "{:?}", run.conflicts());
    assert_eq!(run.conflicts().len(), 6);
    assert_eq!(counted(subject, "email = 'c2500@example.org'"), "1|10");
    Ok(())
}

/// What was decided is done, told, and done again; without it all is as before.
async fn decisions_are_replayed<S: Rehearsed>(subject: &S) -> Result<()> {
    let decisions = [
        decide(subject, 200, "action = 'drop'"),
        decide(subject, 300, "action = 'rename'\ncolumn = 'code'\nvalue = 'ok'"),
        decide(subject, 400, "action = 'merge'\ncolumn = 'age'\nnull = true"),
        decide(subject, 500, "kind = 'unique'\naction = 'drop'"),
        decide(subject, 600, "kind = 'foreign-key'\naction = 'merge'\ncolumn = 'country_id'\nvalue = '2'"),
        decide(subject, 2500, "action = 'keep'"),
    ];
    let undecided = run(subject, "t7", "").await?.conflicts();
    for _ in 0..2 {
        let run = run(subject, "t8", &decisions.concat()).await?;
        let left: Vec<_> = run.conflicts().into_iter().map(|(_, key, _)| key).collect();
        assert_eq!(left, ["id 500"]);
        assert_eq!(run.used, BTreeSet::from([0, 1, 2, 4, 5]), "the fourth is about another kind");
        assert_eq!(run.report.chunks_loaded, 0);
        assert_eq!(counted(subject, "id IN (10, 200, 500)"), counted(subject, "1 = 0"));
        assert_eq!(counted(subject, "code = 'ok' OR age IS NULL"), "2|700");
        assert_eq!(counted(subject, "id = 600 AND country_id = 2"), "1|600");
        assert_eq!(counted(subject, "email = 'c2500@example.org'"), "1|2500");
        let table = run.table("customer");
        assert_eq!((table.decided, table.rows - table.loaded), (6, 3));
    }
    let renamed = decide(subject, 2500, "action = 'rename'\ncolumn = 'email'\nsuffix = '-2'");
    let merged = decide(subject, 2500, "action = 'merge'\ncolumn = 'name'\nother = true");
    run(subject, "t9", &renamed).await?;
    assert_eq!(counted(subject, "email IN ('c2500@example.org', 'c2500@example.org-2')"), "2|2510");
    run(subject, "t10", &merged).await?;
    assert_eq!(counted(subject, "id IN (10, 2500)"), "1|2500");
    assert_eq!(subject.sql(At::Scratch, "SELECT name FROM customer WHERE id = 2500"), "n10");
    let again = run(subject, "t11", "").await?;
    assert_eq!(again.conflicts(), undecided, "what was decided is still done");
    assert_eq!((again.used.len(), again.report.chunks_loaded), (0, 0));
    Ok(())
}

/// Whatever step a crash falls between, the next rehearsal finds what one without a crash finds.
async fn cut_short_anywhere_it_ends_the_same<S: Rehearsed>(subject: &S) -> Result<()> {
    let decisions = [
        decide(subject, 2500, "action = 'keep'"),
        decide(subject, 600, "action = 'merge'\ncolumn = 'country_id'\nvalue = '1'"),
    ]
    .concat();
    let mut halves = 0;
    loop {
        let (email, name) = (format!("c{halves}@example.net"), format!("cut {halves}"));
        // What was in the way goes and comes; a chunk of each changes.
        subject.sql(At::Source, &format!("UPDATE customer SET email = '{email}' WHERE id IN (10, 2500)"));
        subject.sql(At::Source, &format!("UPDATE customer SET name = '{name}' WHERE id = 1300"));
        let is_cut = run_for(subject, &format!("cut{halves}"), &decisions, halves).await.is_err();
        let run = run(subject, &format!("whole{halves}"), &decisions).await?;
        let left: BTreeSet<String> = run.conflicts().into_iter().map(|(_, key, _)| key).collect();
        let expected = ["id 200", "id 300", "id 400", "id 500"].map(str::to_owned);
        assert_eq!(left, BTreeSet::from(expected), "cut after {halves} halves");
        assert_eq!(counted(subject, &format!("email = '{email}'")), "1|2500", "cut after {halves} halves");
        assert_eq!(counted(subject, &format!("name = '{name}'")), "1|1300", "cut after {halves} halves");
        let table = run.table("customer");
        let there = format!("{}|", table.loaded);
        assert!(
            counted(subject, "1 = 1").starts_with(&there),
            "cut after {halves} halves: rows twice, or lost"
        );
        assert_eq!(table.rows - table.loaded, 5, "cut after {halves} halves");
        if !is_cut {
            assert!(halves > 50, "nothing was cut short");
            return Ok(());
        }
        halves += subject.stride();
    }
}

/// A target whose schema has changed is tried from the start.
async fn a_repaired_target_begins_anew<S: Rehearsed>(subject: &S) -> Result<()> {
    subject.sql(At::Target, "DROP TABLE customer");
    let looser = target(subject).replace(" UNIQUE", "").replace("NOT NULL", "");
    let looser = looser.split_once("CREATE TABLE customer").map(|(_, rest)| rest).unwrap_or_default();
    subject.sql(At::Target, &format!("CREATE TABLE customer{looser}"));
    let run = run(subject, "t12", "").await?;
    assert!(!run.report.continued && run.report.chunks_loaded >= 4);
    assert_eq!(run.conflicts().len(), 4, "{:?}", run.conflicts());
    Ok(())
}
