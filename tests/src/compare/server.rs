//! Two databases on servers, compared by what the engine's own tools say of them: its dump, or its checksums.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};

use super::Comparison;
use crate::server::{Engine, Server};

/// A database on a server.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The server.
    pub server: &'a Server,
    /// The database's name.
    pub database: &'a str,
}

/// Compares schema and rows. Rows may be in any order; each is a line of its table.
pub fn servers(left: Side<'_>, right: Side<'_>) -> Result<Comparison> {
    compare(left, right, Dump::default())
}

/// Compares schemas by the engine's dump, and rows by its checksums and counts, table by table: for what is too much to be sorted.
///
/// The sums are MariaDB's `CHECKSUM TABLE … EXTENDED`, and of PostgreSQL `hashtextextended` over each row's text.
pub fn servers_by_checksum(left: Side<'_>, right: Side<'_>) -> Result<Comparison> {
    let mut found = compare(left, right, Dump { schema_alone: true, ..Dump::default() })?;
    found.join(rows_by_checksum(left, right)?);
    Ok(found)
}

/// The part of [`servers_by_checksum`] that looks at rows.
pub fn rows_by_checksum(left: Side<'_>, right: Side<'_>) -> Result<Comparison> {
    let mut found = Comparison::default();
    let sums = std::thread::scope(|scope| {
        [left, right].map(|side| scope.spawn(move || sums(side))).map(|side| side.join())
    });
    let [left, right] = sums.map(|sum| sum.unwrap_or_else(|_| Err(anyhow!("a checksum panicked"))));
    found.join(same_sums(&left?, &right?));
    Ok(found)
}

/// Compares what was told of two databases, or of one at two times: the left one is called the source.
pub fn same_sums(left: &Sums, right: &Sums) -> Comparison {
    let mut found = Comparison::default();
    for (table, sum) in left {
        found.rows += sum.rows;
        match right.get(table) {
            Some(other) if other == sum => {}
            other => found.differs(format!("table {table}: {sum:?} at the source, {other:?} at the target")),
        }
    }
    for table in right.keys().filter(|table| !left.contains_key(*table)) {
        found.differs(format!("table {table} is only at the target"));
    }
    found
}

/// What an engine says of the rows of a database's tables, by name.
pub type Sums = BTreeMap<String, Sum>;

/// What an engine says of a table's rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Sum {
    rows: u64,
    sum: String,
}

/// Asks for the sums of a database.
pub fn sums(side: Side<'_>) -> Result<Sums> {
    let list = match side.server.engine() {
        Engine::Mariadb => {
            // The last ones are what a migration that has not ended keeps its state in.
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' \
             AND table_name NOT LIKE '\\_\\_handover\\_%'"
        }
        Engine::Postgres => {
            // The last one is what a migration that has not ended keeps for its undo.
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'handover_state', 'handover_fence')"
        }
    };
    let of = |table: &str| {
        let query = match side.server.engine() {
            Engine::Mariadb => {
                let quoted = format!("`{}`", table.replace('`', "``"));
                format!("SELECT COUNT(*) FROM {quoted}; CHECKSUM TABLE {quoted} EXTENDED")
            }
            Engine::Postgres => {
                format!(
                    "SELECT count(*) FROM {table}; SELECT sum(hashtextextended(t::text, 0)) FROM {table} t"
                )
            }
        };
        let told = side.server.run(side.database, &query)?;
        let (rows, sum) = told.split_once('\n').with_context(|| format!("{told:?}"))?;
        // MariaDB names the database too, and that may differ.
        let sum = sum.rsplit('\t').next().unwrap_or_default().trim().to_owned();
        anyhow::Ok(Sum { rows: rows.parse()?, sum })
    };
    let tables = side.server.run(side.database, list)?;
    tables.lines().map(|table| Ok((table.to_owned(), of(table)?))).collect()
}

/// As [`servers`], while a migration has not ended: without what the target keeps for an undo inside a database.
pub fn servers_between_passes(left: Side<'_>, right: Side<'_>) -> Result<Comparison> {
    compare(left, right, Dump { without: Some("handover_state"), ..Dump::default() })
}

/// What of a database is dumped.
#[derive(Debug, Clone, Copy, Default)]
struct Dump {
    /// Not this schema (PostgreSQL).
    without: Option<&'static str>,
    /// No rows.
    schema_alone: bool,
}

fn compare(left: Side<'_>, right: Side<'_>, what: Dump) -> Result<Comparison> {
    let dir = tempfile::tempdir()?;
    let (a, b) = (dir.path().join("left"), dir.path().join("right"));
    let mut found = Comparison::default();
    let (tables, rows, bytes) = dump(left, &a, Dump { without: None, ..what })?;
    (found.tables, found.rows, found.bytes) = (tables, rows, bytes);
    dump(right, &b, what)?;
    let (mut a, mut b) = (Lines::open(&a)?, Lines::open(&b)?);
    loop {
        match (&a.line, &b.line) {
            (None, None) => return Ok(found),
            (Some(x), Some(y)) if x == y => {
                a.next()?;
                b.next()?;
            }
            (Some(x), y) if y.as_ref().is_none_or(|y| x < y) => {
                found.differs(format!("only at the source: {}", shown(x)));
                a.next()?;
            }
            (_, y) => {
                found.differs(format!("only at the target: {}", y.as_deref().map(shown).unwrap_or_default()));
                b.next()?;
            }
        }
    }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(300)]).into_owned()
}

struct Lines {
    from: BufReader<File>,
    line: Option<Vec<u8>>,
}

impl Lines {
    fn open(path: &std::path::Path) -> Result<Self> {
        let mut lines = Self { from: BufReader::with_capacity(1 << 20, File::open(path)?), line: None };
        lines.next()?;
        Ok(lines)
    }

    fn next(&mut self) -> Result<()> {
        let mut line = Vec::new();
        self.line = (self.from.read_until(b'\n', &mut line)? > 0).then_some(line);
        Ok(())
    }
}

fn tool(side: Side<'_>, what: Dump) -> Command {
    match side.server.engine() {
        Engine::Mariadb => {
            let mut tool = side.server.tool("mariadb-dump");
            tool.args([
                "--skip-comments",
                "--skip-dump-date",
                "--hex-blob",
                "--skip-extended-insert",
                "--single-transaction",
            ]);
            tool.args([
                "--routines",
                "--triggers",
                "--events",
                "--default-character-set=binary",
                "--skip-add-locks",
            ]);
            tool.args(what.schema_alone.then_some("--no-data"));
            tool.arg("--max-allowed-packet=1G").arg(side.database);
            tool
        }
        Engine::Postgres => {
            let mut tool = side.server.tool("pg_dump");
            // Options stand before the database's name.
            tool.arg("--quote-all-identifiers");
            tool.args(what.schema_alone.then_some("--schema-only"));
            tool.args(what.without.map(|schema| format!("--exclude-schema={schema}")));
            tool.arg(side.database);
            tool
        }
    }
}

/// Writes the dump's lines, sorted, each with the table it belongs to; tells tables, rows and bytes.
fn dump(side: Side<'_>, to: &std::path::Path, what: Dump) -> Result<(u64, u64, u64)> {
    let mut tool = tool(side, what);
    let mut dumping = tool.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut sorting = Command::new("sort")
        .env("LC_ALL", "C")
        .args(["-S", "25%"])
        .stdin(Stdio::piped())
        .stdout(File::create(to)?)
        .spawn()?;
    let (out, mut told) =
        (dumping.stdout.take().context("no output")?, dumping.stderr.take().context("no output")?);
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        told.read_to_string(&mut text).map(|_| text)
    });
    let mut counted = (0, 0, 0);
    let mut sink = BufWriter::with_capacity(1 << 20, sorting.stdin.take().context("no input")?);
    let (mut from, mut table, mut line) = (BufReader::with_capacity(1 << 20, out), Vec::new(), Vec::new());
    while {
        line.clear();
        from.read_until(b'\n', &mut line)? > 0
    } {
        if line.starts_with(b"CREATE TABLE ") {
            counted.0 += 1;
        }
        for start in [&b"COPY "[..], b"CREATE TABLE "] {
            if line.starts_with(start) {
                table = line[start.len()..].split(|b| *b == b' ').next().unwrap_or_default().to_vec();
            }
        }
        let is_row = match side.server.engine() {
            Engine::Mariadb => line.starts_with(b"INSERT INTO "),
            Engine::Postgres => line.contains(&b'\t'),
        };
        // Session settings, comments and counters of the dump itself.
        if line.starts_with(b"--")
            || line.starts_with(b"\\restrict")
            || line.starts_with(b"\\unrestrict")
            || line == b"\n"
        {
            continue;
        }
        counted.1 += u64::from(is_row);
        counted.2 += line.len() as u64;
        sink.write_all(&table)?;
        sink.write_all(b" ")?;
        sink.write_all(&line)?;
    }
    sink.flush()?;
    drop(sink);
    let ended = dumping.wait()?;
    let told = errors.join().unwrap_or_else(|_| Ok(String::new()))?;
    ensure!(ended.success(), "the dump of {} failed: {told}", side.database);
    ensure!(sorting.wait()?.success(), "sort failed");
    Ok(counted)
}
