//! Prints a journal as this release writes it, as SQL: the fixture that later releases must still open.
//!
//! `cargo run -p handover-platform --example journal_fixture > platform/tests/fixtures/journal/v2.sql` (`v` and the journal's version)

use std::collections::BTreeMap;
use std::path::Path;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::journal::{Event, Journal, Landing, Migration, Record};
use handover_engine::phase::{Condition, State};
use handover_engine::plan::{Options, PLAN_FORMAT, Plan, PlannedStep, Side, StepKind};
use handover_engine::report::Outcome;
use handover_engine::rows::{
    ColumnSpec, Ddl, HeldChunk, Key, KeyRange, Schema, SnapshotId, TableKey, TableName, TableSpec,
};
use handover_engine::time::Timestamp;
use handover_engine::tree::{Block, Entry, EntryKind, IndexEntry, Meta, RelPath, Stamp, digest_of_blocks};
use handover_platform::store::{Store, VERSION};

type Error = Box<dyn std::error::Error>;

fn plan() -> Plan {
    let kinds =
        [StepKind::Prepare, StepKind::Copy(name("mail")), StepKind::Copy(name("www")), StepKind::Publish];
    let step = |step| PlannedStep { step, rows: 3, files: 2, bytes: 100, expected_ms: 200 };
    let side = |agent: &str| Side {
        agent: agent.to_owned(),
        structure: BTreeMap::from([("release".to_owned(), "9.2".to_owned())]),
    };
    Plan {
        format: PLAN_FORMAT,
        appliance: "museum".to_owned(),
        options: Options { overwrite: true, datasets: vec![name("mail"), name("www")], ..Options::default() },
        source: side("old-host"),
        target: side("new-host"),
        steps: kinds.into_iter().map(step).collect(),
        dns: None,
        left_behind: Vec::new(),
    }
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name")
}

fn migration(plan: Plan) -> Migration {
    Migration {
        id: name("m-museum"),
        digest: plan.digest(),
        plan,
        started_by: "spiffe://handover/operator/ada".to_owned(),
        started_at: Timestamp::from_millis(1_700_000_000_123),
        state: State::started(),
        steps_done: Vec::new(),
        pass: 1,
        shown: 0.0,
        outcome: Outcome::default(),
    }
}

fn schema() -> Schema {
    let column = |name: &str| ColumnSpec { name: name.to_owned(), declared: "TEXT".to_owned() };
    let table = TableSpec {
        name: TableName::plain("message"),
        columns: vec![column("id"), column("body")],
        key: TableKey::Columns(vec![0]),
        estimated_rows: 3,
        estimated_bytes: 60,
        cuts: Vec::new(),
        followed: false,
    };
    let sql = "CREATE TABLE message (id TEXT PRIMARY KEY, body TEXT)".to_owned();
    Schema {
        engine: "sqlite".to_owned(),
        version: "3.50.0".to_owned(),
        settings: BTreeMap::from([("encoding".to_owned(), "UTF-8".to_owned())]),
        before_load: vec![Ddl { kind: "table".to_owned(), name: "message".to_owned(), sql }],
        after_load: Vec::new(),
        state: BTreeMap::new(),
        tables: vec![table],
    }
}

fn rows(after: Option<&'static str>, until: Option<&'static str>, count: u64) -> Record {
    let key = |key: &'static str| Key(key.into());
    let range = KeyRange { after: after.map(key), until: until.map(key) };
    let digest = Digest::of(until.unwrap_or("end").as_bytes());
    let chunk = HeldChunk { range, rows: count, bytes: count * 10, digest };
    let table = TableName::plain("message");
    Record::Rows { dataset: name("mail"), table, snapshot: SnapshotId("s-1".to_owned()), chunk }
}

fn entry(path: &str, kind: EntryKind, size: u64) -> Entry {
    let time = Timestamp { seconds: 1_600_000_000, nanos: 7 };
    let xattrs = BTreeMap::from([(b"user.kind".to_vec(), b"page".to_vec())]);
    let meta = Meta { mode: 0o640, uid: 33, gid: 34, mtime: time, xattrs };
    let stamp = Stamp { inode: 11, size, mtime: time, ctime: time };
    Entry { path: RelPath::new(path).expect("a path"), kind, meta, stamp }
}

fn file(path: &str, size: u64) -> Entry {
    entry(path, EntryKind::File { size, sparse: false, linked: false }, size)
}

fn tree() -> Vec<Record> {
    let block = |len, of: &[u8]| Block { len, digest: Some(Digest::of(of)) };
    let blocks = vec![block(1 << 20, b"one"), Block { len: 1 << 19, digest: None }];
    let landing = |source: Entry, digest, blocks: Vec<Block>| {
        let landed = Stamp { inode: 22, ..source.stamp };
        Landing {
            entry: IndexEntry { source, landed, digest, pass: 1 },
            segments: vec![0; blocks.len().min(1)],
            blocks,
        }
    };
    let link = entry("a/link", EntryKind::Symlink { target: b"../b".to_vec() }, 0);
    let entries = vec![
        landing(entry("a", EntryKind::Directory, 0), Digest::of(b""), Vec::new()),
        landing(link, Digest::of(b""), Vec::new()),
        landing(file("a-b", 5), Digest::of(b"hello"), Vec::new()),
        landing(file("large", 3 << 19), digest_of_blocks(&blocks), blocks.clone()),
    ];
    let entry = file("part", 8 << 20);
    vec![
        Record::Landed { dataset: name("www"), entries },
        Record::Partial { dataset: name("www"), entry, offset: 0, blocks, segments: vec![0] },
    ]
}

fn records() -> Vec<Record> {
    let failure = Failure::operator("dataset www", "no space left on device").hint("free some space");
    let failed = State { condition: Condition::Failed(failure.clone()), ..State::started() };
    let mut records = vec![
        Record::Event(Event::State { state: State::started(), by: Some("ada".to_owned()) }),
        Record::Event(Event::StepStarted { step: "prepare".to_owned() }),
        Record::StepDone("prepare".to_owned()),
        Record::Event(Event::StepDone { step: "prepare".to_owned() }),
        Record::Database { dataset: name("mail"), schema: Box::new(schema()) },
        rows(None, Some("i5"), 2),
        rows(Some("i5"), None, 1),
    ];
    records.extend(tree());
    records.extend([
        Record::Event(Event::Retry { step: "copy:www".to_owned(), failure, after_ms: 100 }),
        Record::Shown(0.25),
        Record::Outcome(Box::new(Outcome { chunks_applied: 4, bytes_arrived: 35, ..Outcome::default() })),
        Record::State(failed.clone()),
        Record::Event(Event::State { state: failed, by: None }),
    ]);
    records
}

/// Everything in the database at `path`, as SQL.
fn dump(path: &Path) -> Result<String, rusqlite::Error> {
    let db = rusqlite::Connection::open(path)?;
    let mut out = format!("PRAGMA user_version = {VERSION};\n");
    let mut tables = Vec::new();
    let mut made =
        db.prepare("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
    let mut rows = made.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        out.push_str(&format!("{sql};\n"));
        if kind == "table" {
            tables.push(name);
        }
    }
    for table in tables {
        let columns: Vec<String> = db
            .prepare(&format!("SELECT 'quote(' || name || ')' FROM pragma_table_info('{table}')"))?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let values = columns.join(" || ', ' || ");
        let mut select = db.prepare(&format!("SELECT {values} FROM {table}"))?;
        for row in select.query_map([], |row| row.get::<_, String>(0))? {
            out.push_str(&format!("INSERT INTO {table} VALUES ({});\n", row?));
        }
    }
    Ok(out)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("journal.db");
    let store = Store::open(&path).await?;
    let migration = migration(plan());
    store.keep_plan(&migration.plan).await?;
    store.create(&migration).await?;
    store.commit(&migration.id, Timestamp::from_millis(1_700_000_001_000), &records()).await?;
    print!("{}", dump(&path)?);
    Ok(())
}
