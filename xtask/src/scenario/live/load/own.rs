//! A writer for SQLite.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handover_tests::appliance::seeded;
use handover_tests::poll;
use rand::Rng;
use rusqlite::Connection;

use super::Measured;

/// How long a transaction waits for another.
const BUSY: Duration = Duration::from_secs(10);

/// Makes the database: accounts with a unique number, and a journal of what happened to them.
pub fn make(path: &Path, rows: u64) -> Result<()> {
    let db = Connection::open(path)?;
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         BEGIN;
         CREATE TABLE account (id INTEGER PRIMARY KEY, number TEXT UNIQUE, balance INTEGER, note TEXT);
         CREATE TABLE entry (id INTEGER PRIMARY KEY, account INTEGER REFERENCES account, amount INTEGER);
         CREATE INDEX entry_account ON entry (account);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO account SELECT i, 'no ' || i, 0, printf('%060d', i) FROM n;
         COMMIT;"
    ))
    .context("making the database")
}

/// A thread that writes, at a rate or as fast as it goes, until it is refused or stopped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    /// Milliseconds of each transaction.
    times: Arc<Mutex<Vec<f64>>>,
    thread: Option<JoinHandle<rusqlite::Result<()>>>,
}

impl Writer {
    pub fn start(path: &Path, rows: u64, rate: Option<f64>) -> Result<Self> {
        let db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        db.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")?;
        let (stop, times) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, taken) = (stop.clone(), times.clone());
        let thread = std::thread::spawn(move || write(&db, rows, rate, &stopped, &taken));
        Ok(Self { stop, times, thread: Some(thread) })
    }

    /// Transactions so far.
    pub fn count(&self) -> usize {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What was reached after the first `count`, in so much time.
    pub fn since(&self, count: usize, time: Duration) -> Result<Measured> {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner)[count..].to_vec();
        ensure!(!times.is_empty(), "nothing was written");
        times.sort_by(f64::total_cmp);
        let p99_ms = times[(times.len() * 99 / 100).min(times.len() - 1)];
        Ok(Measured { per_second: times.len() as f64 / time.as_secs_f64(), p99_ms })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// It must end by itself, since nobody may write any more.
    pub fn ended_refused(&mut self, within: Duration) -> Result<()> {
        let thread = self.thread.take().context("the writer has ended before")?;
        poll::until("the writer to be refused", within, || Ok(thread.is_finished().then_some(())))?;
        let ended = thread.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        let told = ended.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(told.contains("handover"), "the writer ended for another reason: {told:?}");
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // How it ended is told by `ended_refused`, where that matters.
            let _ = thread.join();
        }
    }
}

fn write(
    db: &Connection,
    rows: u64,
    rate: Option<f64>,
    stop: &AtomicBool,
    times: &Mutex<Vec<f64>>,
) -> rusqlite::Result<()> {
    let mut rng = seeded(1, "writer");
    let accounts = i64::try_from(rows).unwrap_or(i64::MAX);
    let begun = Instant::now();
    let mut due = 0.0;
    while !stop.load(Ordering::Relaxed) {
        if let Some(rate) = rate {
            due += 1.0 / rate;
            let ahead = due - begun.elapsed().as_secs_f64();
            if ahead > 0.0 {
                poll::pause(Duration::from_secs_f64(ahead));
            }
        }
        let at = Instant::now();
        let (one, other) = (rng.random_range(1..=accounts), rng.random_range(1..=accounts));
        let amount = rng.random_range(1..100);
        db.execute_batch("BEGIN IMMEDIATE")?;
        let done = transaction(db, one, other, amount, rng.random_range(0..20));
        db.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        done?;
        times.lock().unwrap_or_else(PoisonError::into_inner).push(at.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(())
}

/// Money goes from one account to another; now and then two accounts change numbers, and old entries go.
fn transaction(db: &Connection, one: i64, other: i64, amount: i64, dice: u32) -> rusqlite::Result<()> {
    let mut add = db.prepare_cached("UPDATE account SET balance = balance + ?2 WHERE id = ?1")?;
    let mut note = db.prepare_cached("INSERT INTO entry (account, amount) VALUES (?1, ?2)")?;
    for (account, amount) in [(one, -amount), (other, amount)] {
        add.execute((account, amount))?;
        note.execute((account, amount))?;
    }
    if dice == 0 && one != other {
        let mut number = db.prepare_cached("UPDATE account SET number = ?2 WHERE id = ?1")?;
        let mut ask = db.prepare_cached("SELECT number FROM account WHERE id = ?1")?;
        let (a, b): (String, String) =
            (ask.query_row([one], |row| row.get(0))?, ask.query_row([other], |row| row.get(0))?);
        number.execute((one, "on its way"))?;
        number.execute((other, a))?;
        number.execute((one, b))?;
    }
    if dice == 1 {
        db.prepare_cached("DELETE FROM entry WHERE id IN (SELECT id FROM entry ORDER BY id LIMIT 10)")?
            .execute([])?;
    }
    Ok(())
}
