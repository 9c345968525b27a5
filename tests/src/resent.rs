//! Counts chunks that were sent although the target's journal held them already, from the outside: the source's log
//! of what it served against copies of the target's journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::Connection;
use serde_json::Value;

use crate::appliance::Changed;

/// A chunk: its dataset and its name there.
type Chunk = (String, String);

/// A chunk that the source sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    chunk: Chunk,
    at_ms: i64,
}

/// Every chunk that the journal was ever seen to hold, with the times it was applied at.
#[derive(Debug, Default)]
pub struct Applied(BTreeMap<Chunk, BTreeSet<i64>>);

impl Applied {
    /// Adds what the journal in a target's state directory holds. The target must not run; the journal is copied
    /// first, so that looking does not mend what a crash left.
    pub fn absorb(&mut self, state: &Path) -> Result<()> {
        let copy = tempfile::tempdir_in(state.parent().unwrap_or(state))?;
        for name in ["journal.db", "journal.db-wal"] {
            if state.join(name).exists() {
                fs::copy(state.join(name), copy.path().join(name))?;
            }
        }
        if !copy.path().join("journal.db").exists() {
            return Ok(());
        }
        let db = Connection::open(copy.path().join("journal.db"))?;
        if !db.table_exists(None, "applied")? {
            return Ok(());
        }
        let mut statement = db.prepare("SELECT dataset, CAST(chunk AS TEXT), at_ms FROM applied")?;
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        for row in rows {
            let (chunk, at_ms) = row?;
            self.0.entry(chunk).or_default().insert(at_ms);
        }
        Ok(())
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn before(&self, chunk: &Chunk, from: i64, to: i64) -> bool {
        from < to && self.0.get(chunk).is_some_and(|times| times.range(from..to).next().is_some())
    }
}

/// Reads the chunks from the source's log.
pub fn served(log: &Path) -> Result<Vec<Served>> {
    let file = fs::File::open(log).with_context(|| format!("the source's log {}", log.display()))?;
    let mut found = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        // A kill may have cut a line short.
        let Ok(line) = serde_json::from_slice::<Value>(&line) else { continue };
        if line["target"] == "handover::served" {
            found.extend(one_served(&line));
        }
    }
    Ok(found)
}

/// Bytes of a dataset's file that the source's log says were served.
pub fn bytes_served(log: &Path, dataset: &str, file: &str) -> Result<u64> {
    let file = format!("file/{file}");
    let opened = fs::File::open(log).with_context(|| format!("the source's log {}", log.display()))?;
    let mut sum = 0;
    for line in BufReader::new(opened).split(b'\n') {
        let Ok(line) = serde_json::from_slice::<Value>(&line?) else { continue };
        let fields = line.get("fields").unwrap_or(&line);
        let chunk = fields["chunk"].as_str().unwrap_or_default();
        let of_file = chunk == file || chunk.strip_prefix(&file).is_some_and(|rest| rest.starts_with('@'));
        if fields["dataset"] == dataset && of_file {
            let bytes = &fields["bytes"];
            sum += bytes.as_u64().or_else(|| bytes.as_str()?.parse().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

fn one_served(line: &Value) -> Option<Served> {
    let fields = line.get("fields").unwrap_or(line);
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    let at = &fields["at_ms"];
    let at_ms = at.as_i64().or_else(|| at.as_str()?.parse().ok())?;
    Some(Served { chunk: (text("dataset")?, text("chunk")?), at_ms })
}

/// A pass over data that does not change meanwhile.
#[derive(Debug, Clone)]
pub struct Round {
    /// When it began, in milliseconds since the epoch.
    pub begun_ms: i64,
    /// What was changed just before it; `None` for a first pass, before which the journal held nothing.
    pub changed: Option<Changed>,
}

/// The chunks that were sent in vain: applied earlier in the same round, or in an earlier one and not changed since.
pub fn resent(rounds: &[Round], served: &[Served], applied: &Applied) -> Vec<String> {
    let mut found = Vec::new();
    for Served { chunk, at_ms } in served {
        let Some(n) = rounds.iter().rposition(|round| round.begun_ms <= *at_ms) else { continue };
        let again = applied.before(chunk, rounds[n].begun_ms, *at_ms);
        let unchanged = rounds[n].changed.as_ref().is_some_and(|changed| !touches(changed, &chunk.1));
        let first =
            rounds[..n].iter().rposition(|r| r.changed.is_none()).map_or(i64::MIN, |r| rounds[r].begun_ms);
        if again || (unchanged && applied.before(chunk, first, rounds[n].begun_ms)) {
            found.push(format!("{} {} at {at_ms}", chunk.0, chunk.1));
        }
    }
    found
}

/// Whether a change touches a chunk: `table/<name> after <key>`, `file/<path>` or `file/<path>@<offset>`.
fn touches(changed: &Changed, chunk: &str) -> bool {
    if let Some(rest) = chunk.strip_prefix("table/") {
        // The first chunk of a table comes after nothing; the last " after" is the one before the key.
        return changed.has_table(rest.rsplit_once(" after").map_or(rest, |(name, _)| name));
    }
    let path = chunk.strip_prefix("file/").unwrap_or(chunk);
    let whole = path.rsplit_once('@').map_or(path, |(whole, _)| whole);
    changed.files.contains(path) || changed.files.contains(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(rows: &[(&str, i64)]) -> Applied {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        let db = Connection::open(state.join("journal.db")).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE applied (migration, dataset, chunk, at_ms)",
        )
        .unwrap();
        for (chunk, at) in rows {
            db.execute("INSERT INTO applied VALUES ('m-1', 'd', ?1, ?2)", (chunk, at)).unwrap();
        }
        let mut applied = Applied::default();
        applied.absorb(&state).unwrap();
        applied
    }

    fn sent(chunk: &str, at_ms: i64) -> Served {
        Served { chunk: ("d".to_owned(), chunk.to_owned()), at_ms }
    }

    #[test]
    fn a_chunk_sent_after_it_was_applied_counts() {
        let applied = applied(&[("table/t after 00", 20), ("file/a@4096", 30)]);
        assert_eq!(applied.len(), 2);
        let rounds = [Round { begun_ms: 10, changed: None }];
        let check =
            |served: &[Served], expected| assert_eq!(resent(&rounds, served, &applied).len(), expected);
        check(&[sent("table/t after 00", 15), sent("file/a@4096", 12)], 0);
        check(&[sent("table/t after 00", 15), sent("table/t after 00", 19)], 0);
        check(&[sent("table/t after 00", 25), sent("file/a@4096", 31), sent("file/b", 99)], 2);
    }

    #[test]
    fn a_later_round_may_send_what_changed() {
        let applied = applied(&[("table/t after", 20), ("file/a@4096", 30), ("file/b", 31)]);
        let changed =
            Changed { tables: ["t".to_owned(), "u*".to_owned()].into(), files: ["a".to_owned()].into() };
        let rounds = [Round { begun_ms: 10, changed: None }, Round { begun_ms: 100, changed: Some(changed) }];
        let served = [sent("table/t after", 110), sent("file/a@4096", 111), sent("file/b", 112)];
        assert_eq!(resent(&rounds, &served, &applied), ["d file/b at 112"]);
        let changed = rounds[1].changed.as_ref().unwrap();
        for (chunk, touched) in
            [("table/t after 0a", true), ("table/ux after ", true), ("table/ta after 0a", false)]
        {
            assert_eq!(touches(changed, chunk), touched, "{chunk}");
        }
    }

    #[test]
    fn reads_the_log_and_skips_what_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let good = r#"{"timestamp":"x","target":"handover::served","fields":{"dataset":"d","chunk":"file/a","bytes":7,"at_ms":12}}"#;
        fs::write(&log, format!("{good}\n{{\"target\":\"other\"}}\n{}\n{good}\n", &good[..40])).unwrap();
        assert_eq!(served(&log).unwrap(), [sent("file/a", 12), sent("file/a", 12)]);
    }
}
