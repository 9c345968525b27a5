//! The database's rows: every storage class, keys with gaps, values at the ends of their ranges.

use std::path::Path;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::content::seeded;
use super::{Spec, schema};

/// A value as SQLite stores it. Text is bytes: SQLite holds what is no UTF-8, too.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(Vec<u8>),
    /// BLOB.
    Blob(Vec<u8>),
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Integer(i) => ValueRef::Integer(*i),
            Cell::Real(r) => ValueRef::Real(*r),
            Cell::Text(t) => ValueRef::Text(t),
            Cell::Blob(b) => ValueRef::Blob(b),
        }))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.as_bytes().to_vec())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text.into_bytes())
    }
}

/// One table: its share of all rows in thousandths, how a row is inserted, and row number `i`.
struct Table {
    share: u64,
    insert: &'static str,
    row: fn(&mut StdRng, i64) -> Vec<Cell>,
}

const TABLES: [Table; 15] = [
    Table { share: 100, insert: "customer (id, name, email, balance, note)", row: customer },
    Table { share: 200, insert: "invoice (id, customer_id, cents, issued)", row: invoice },
    Table { share: 260, insert: "invoice_line", row: invoice_line },
    Table { share: 150, insert: "reading", row: reading },
    Table { share: 50, insert: "anything (_rowid_, v, w)", row: anything },
    Table { share: 50, insert: "word", row: word },
    Table { share: 50, insert: "place", row: place },
    Table { share: 30, insert: "object", row: object },
    Table { share: 50, insert: "event (rowid, at, level, message)", row: event },
    Table { share: 15, insert: "\"odd table; -- 'x'\"", row: odd },
    Table { share: 5, insert: "attachment", row: attachment },
    Table { share: 10, insert: "setting", row: setting },
    Table { share: 10, insert: "mostly_null", row: mostly_null },
    Table { share: 10, insert: "names_rowid", row: names_rowid },
    Table { share: 20, insert: "ticket", row: ticket },
];

/// Makes the database.
pub fn make(path: &Path, spec: &Spec) -> Result<()> {
    let mut db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON;")?;
    db.execute_batch(schema::SCHEMA).context("the schema")?;
    let tx = db.transaction()?;
    for table in &TABLES {
        let rows = (spec.rows * table.share).div_ceil(1000);
        fill(&tx, spec.seed, table, rows).with_context(|| format!("filling {}", table.insert))?;
    }
    tx.execute_batch(
        "INSERT INTO memo SELECT subject, body FROM ticket WHERE id % 3 = 0;
         INSERT INTO empty_table VALUES (77, 'gone'); DELETE FROM empty_table;
         DELETE FROM ticket WHERE id % 11 = 0;",
    )?;
    tx.commit()?;
    if spec.wal {
        db.execute_batch("PRAGMA journal_mode = WAL;")?;
    }
    Ok(())
}

fn fill(db: &Connection, seed: u64, table: &Table, rows: u64) -> Result<()> {
    let mut rng = seeded(seed, table.insert);
    let columns = (table.row)(&mut rng.clone(), 1).len();
    let marks = vec!["?"; columns].join(",");
    let mut insert = db.prepare(&format!("INSERT INTO {} VALUES ({marks})", table.insert))?;
    for i in 1..=i64::try_from(rows)? {
        insert.execute(params_from_iter((table.row)(&mut rng, i)))?;
    }
    Ok(())
}

/// A database of one table of `rows` rows of about 100 bytes: for measurements of size.
pub fn wide_table(path: &Path, rows: u64) -> Result<()> {
    let db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    db.execute_batch(
        "CREATE TABLE measurement (id INTEGER PRIMARY KEY, meter INTEGER NOT NULL, value REAL, state TEXT, raw BLOB)",
    )?;
    db.execute(
        "INSERT INTO measurement
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         SELECT i, i * 7919 % 1000, i / 7.0, 'state of the meter at ' || i, randomblob(40) FROM n",
        [i64::try_from(rows)?],
    )?;
    Ok(())
}

fn customer(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let email = if i % 9 == 0 { Cell::Null } else { format!("User{i}@example.org").into() };
    let balance = Cell::Real(f64::from(rng.random_range(-100_000..100_000)) / 100.0);
    vec![Cell::Integer(i), sentence(rng, 2).into(), email, balance, edge(rng)]
}

fn invoice(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let issued = format!("20{:02}-{:02}-11", rng.random_range(10..25), rng.random_range(1..13));
    let customer = i.div_euclid(2).max(1);
    vec![
        Cell::Integer(i * 3),
        Cell::Integer(customer),
        Cell::Integer(rng.random_range(0..1_000_000)),
        issued.into(),
    ]
}

fn invoice_line(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let article = format!("article {}", rng.random_range(0..5_000));
    vec![Cell::Integer(i / 3), Cell::Integer(i % 3), article.into(), Cell::Integer(rng.random_range(1..100))]
}

fn reading(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let id = if i % 1000 == 0 { -i } else { i };
    let value = Cell::Real(f64::from_bits(0x3ff0_0000_0000_0000 | rng.next_u64() >> 12));
    vec![Cell::Integer(id), format!("meter-{:03}", i % 500).into(), value, blob(rng, 24), edge(rng)]
}

fn anything(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let rowid = match i {
        1 => i64::MIN,
        2 => i64::MAX,
        i => (i - 1000) * 7,
    };
    vec![Cell::Integer(rowid), edge(rng), edge(rng)]
}

fn word(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    vec![format!("{}\t{i}\\N\n", sentence(rng, 1)).into(), sentence(rng, 6).into()]
}

fn place(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let region = ["north", "North", "nörd", "", "so\tuth"][usize::try_from(i % 5).unwrap_or(0)];
    vec![region.into(), Cell::Integer(i), edge(rng)]
}

fn object(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let digest = blake3::hash(&i.to_le_bytes()).as_bytes()[..20].to_vec();
    vec![Cell::Blob(digest), Cell::Integer(rng.random_range(0..1 << 40)), "kind".into()]
}

fn event(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let at = 1_700_000_000 + i * rng.random_range(1..4);
    vec![
        Cell::Integer(i * 2),
        Cell::Integer(at),
        ["INFO", "warn"][usize::from(rng.random_bool(0.1))].into(),
        sentence(rng, 9).into(),
    ]
}

fn odd(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    vec![Cell::Integer(i), sentence(rng, 2).into(), "it's \"quoted\"".into(), blob(rng, 5)]
}

fn attachment(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let size = if i == 5 { 3 << 20 } else { rng.random_range(0..9_000) };
    vec![Cell::Integer(i), format!("scan {i}.pdf").into(), blob(rng, size)]
}

fn setting(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    vec![format!("Section{}/Key{i}", i % 7).into(), edge(rng)]
}

fn mostly_null(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    let c = if rng.random_bool(0.1) { sentence(rng, 1).into() } else { Cell::Null };
    vec![Cell::Null, if i % 10 == 0 { Cell::Integer(i) } else { Cell::Null }, c, Cell::Null]
}

fn names_rowid(_: &mut StdRng, i: i64) -> Vec<Cell> {
    vec![format!("row {}", i * 31 % 1009).into(), Cell::Integer(i)]
}

fn ticket(rng: &mut StdRng, i: i64) -> Vec<Cell> {
    vec![Cell::Integer(i), sentence(rng, 5).into(), sentence(rng, 40).into()]
}

fn sentence(rng: &mut StdRng, words: usize) -> String {
    const WORDS: [&str; 20] = [
        "mail", "server", "does", "not", "answer", "größe", "naïve", "日本", "disk", "full", "again",
        "printer", "the", "of", "invoice", "missing", "running", "ran", "😀", "x",
    ];
    let mut text = String::new();
    for n in 0..words {
        text.push_str(if n == 0 { "" } else { " " });
        text.push_str(WORDS[rng.random_range(0..WORDS.len())]);
    }
    text
}

fn blob(rng: &mut StdRng, len: usize) -> Cell {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    Cell::Blob(bytes)
}

/// Any storage class, often at the end of its range.
fn edge(rng: &mut StdRng) -> Cell {
    match rng.random_range(0..24) {
        0..=3 => Cell::Null,
        4 => Cell::Integer(i64::MIN),
        5 => Cell::Integer(i64::MAX),
        6 => Cell::Integer((1 << 53) + 1),
        7 => Cell::Integer(0),
        8 => Cell::Real(f64::MAX),
        9 => Cell::Real(f64::from_bits(1)),
        10 => Cell::Real([f64::INFINITY, f64::NEG_INFINITY][usize::from(rng.random_bool(0.5))]),
        11 => Cell::Real([-0.0, 3.0, 1e300, 9_007_199_254_740_993.0][rng.random_range(0..4)]),
        12 => Cell::Real(0.1 + 0.2),
        13 => Cell::Text(b"nul \0 in the middle".to_vec()),
        14 => Cell::Text(b"no utf-8: \xff\xfe\xc0\x80".to_vec()),
        15 => "tab\tnewline\nreturn\r\\N \\. backslash\\".into(),
        16 => "".into(),
        17 => "12345678901234567890".into(),
        18 => Cell::Blob(Vec::new()),
        19 => Cell::Blob(b"text as a blob".to_vec()),
        20 => blob(rng, 33),
        21 => Cell::Real(f64::from_bits(rng.next_u64() & 0x7fef_ffff_ffff_ffff)),
        22 => Cell::Integer(rng.next_u64().cast_signed()),
        _ => sentence(rng, 3).into(),
    }
}
