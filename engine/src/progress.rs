//! Progress as data: how much of each step is done, and when the whole should end. Renderings are elsewhere.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::plan::PlannedStep;

/// One step's progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepProgress {
    /// Its id (`copy:mail`).
    pub step: String,
    /// What a person reads.
    pub title: String,
    /// Where it stands.
    pub state: StepState,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes to do; grows when more is found than was planned.
    pub bytes_total: u64,
    /// Rows done.
    pub rows: u64,
    /// Rows to do.
    pub rows_total: u64,
    /// Files done.
    pub files: u64,
    /// Files to do.
    pub files_total: u64,
    /// Expected time of the whole step in milliseconds.
    pub expected_ms: u64,
    /// When it began in this run.
    #[serde(skip)]
    since: Option<Instant>,
    /// What the workers have counted in this run.
    #[serde(skip)]
    counted: Amount,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Waiting,
    /// Being worked on.
    Running,
    /// Done.
    Done,
}

/// What was done, to be added to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Rows.
    pub rows: u64,
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

impl StepProgress {
    /// A step that has not begun.
    pub fn planned(step: &PlannedStep) -> Self {
        Self {
            step: step.step.id(),
            title: step.step.title(),
            state: StepState::Waiting,
            bytes: 0,
            bytes_total: step.bytes,
            rows: 0,
            rows_total: step.rows,
            files: 0,
            files_total: step.files,
            expected_ms: step.expected_ms,
            since: None,
            counted: Amount::default(),
        }
    }

    /// It is being worked on.
    pub fn start(&mut self) {
        self.state = StepState::Running;
        self.since = Some(Instant::now());
    }

    /// How far it has got can be told, by what there is to move.
    fn is_measured(&self) -> bool {
        self.bytes_total + self.rows_total + self.files_total > 0
    }

    /// Milliseconds it is expected to take yet, where work takes `pace` times as long as the plan says.
    fn left_ms(&self, pace: f64) -> f64 {
        let whole = self.expected_ms as f64 * pace;
        match self.since.filter(|_| self.state == StepState::Running && !self.is_measured()) {
            // Nothing tells how far it is; it is not over, however long it takes.
            Some(since) => (whole - since.elapsed().as_secs_f64() * 1000.0).max(whole / 10.0),
            None => whole * (1.0 - self.share()),
        }
    }

    /// Adds what was done. What is done is never more than there is to do.
    pub fn add(&mut self, amount: Amount) {
        self.counted.bytes += amount.bytes;
        self.counted.rows += amount.rows;
        self.counted.files += amount.files;
        self.reach(self.counted);
    }

    /// So much at least is done. What the journal holds is shown at once after a restart, before the workers have counted
    /// it again.
    pub fn reach(&mut self, amount: Amount) {
        self.bytes = self.bytes.max(amount.bytes);
        self.rows = self.rows.max(amount.rows);
        self.files = self.files.max(amount.files);
        self.bytes_total = self.bytes_total.max(self.bytes);
        self.rows_total = self.rows_total.max(self.rows);
        self.files_total = self.files_total.max(self.files);
    }

    /// It is done: what there was to do is what was done.
    pub fn finish(&mut self) {
        self.state = StepState::Done;
        (self.bytes_total, self.rows_total, self.files_total) = (self.bytes, self.rows, self.files);
    }

    /// The share that is done, from 0 to 1; 1 only when the step is done.
    pub fn share(&self) -> f64 {
        if self.state == StepState::Done {
            return 1.0;
        }
        // Files cost by number and by size: the slower of the two counts tells the truth. Rows are counted alone, since a
        // database's bytes on disk are not those of its rows in transit.
        let bytes_total = if self.rows_total > 0 { 0 } else { self.bytes_total };
        let parts = [(self.bytes, bytes_total), (self.rows, self.rows_total), (self.files, self.files_total)];
        let shares =
            parts.iter().filter(|(_, total)| *total > 0).map(|(done, total)| *done as f64 / *total as f64);
        shares
            .fold(None, |least: Option<f64>, share| Some(least.map_or(share, |l| l.min(share))))
            .unwrap_or(0.0)
            .min(0.999)
    }
}

/// A migration's progress, as watchers see it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The steps of the task at hand.
    pub steps: Vec<StepProgress>,
    /// The share of the task that is done, from 0 to 1. Never falls within a task, also not over a restart.
    pub share: f64,
    /// Bytes per second over the last seconds.
    pub bytes_per_second: f64,
    /// Milliseconds until the task should be done, once that can be told.
    pub remaining_ms: Option<u64>,
    /// Bytes copied in this task.
    pub bytes_done: u64,
    /// Bytes to copy in this task.
    pub bytes_total: u64,
    /// Rows copied in this task.
    pub rows_done: u64,
    /// Files copied in this task.
    pub files_done: u64,
}

/// Folds amounts into [`Progress`].
#[derive(Debug)]
pub struct Meter {
    steps: Vec<StepProgress>,
    shown: f64,
    /// How long something was seen to move, and when it was looked at last.
    moving: Duration,
    looked: Instant,
    /// Expected milliseconds of work that were done already when the meter began.
    head_start_ms: f64,
    /// How long something had moved, and how much, once work had got under way: it begins slowly.
    warm: Option<(Duration, f64)>,
    /// Bytes done at moments of the last seconds.
    window: std::collections::VecDeque<(Instant, u64)>,
}

/// Over how long the rate is measured.
const WINDOW: Duration = Duration::from_secs(5);
/// The plan's expectation counts as much as so much work that was seen: the first moments alone mislead.
const TRUSTED_MS: f64 = 1500.0;
/// No expected end is told before this much of the work was seen.
const ENOUGH_MS: f64 = 300.0;

impl Meter {
    /// A meter of these steps; `shown` is the share that watchers have seen already.
    pub fn new(steps: Vec<StepProgress>, shown: f64) -> Self {
        let mut meter = Self {
            steps,
            shown,
            moving: Duration::ZERO,
            looked: Instant::now(),
            head_start_ms: 0.0,
            warm: None,
            window: std::collections::VecDeque::new(),
        };
        meter.head_start_ms = meter.moved_ms();
        meter
    }

    /// The step with this id.
    pub fn step(&mut self, id: &str) -> Option<&mut StepProgress> {
        self.steps.iter_mut().find(|step| step.step == id)
    }

    /// Forgets how long the steps took so far: call it when what was done before a restart has been added.
    pub fn begin(&mut self) {
        (self.moving, self.looked, self.warm) = (Duration::ZERO, Instant::now(), None);
        self.head_start_ms = self.moved_ms();
        self.window.clear();
    }

    /// The progress now.
    pub fn read(&mut self) -> Progress {
        let total: f64 = self.steps.iter().map(|s| s.expected_ms as f64).sum();
        let done: f64 = self.steps.iter().map(|s| s.expected_ms as f64 * s.share()).sum();
        let now = Instant::now();
        let moves = |s: &StepProgress| s.state == StepState::Running && s.counted != Amount::default();
        if self.steps.iter().any(moves) {
            self.moving += now - self.looked;
        }
        self.looked = now;
        if total > 0.0 {
            self.shown = self.shown.max(done / total).min(1.0);
        }
        let remaining_ms = self.remaining();
        let copied = |f: fn(&StepProgress) -> u64| -> u64 {
            self.steps.iter().filter(|s| s.step.starts_with("copy:")).map(f).sum()
        };
        let bytes_done = copied(|s| s.bytes);
        Progress {
            share: self.shown,
            remaining_ms,
            bytes_done,
            bytes_total: copied(|s| s.bytes_total),
            rows_done: copied(|s| s.rows),
            files_done: copied(|s| s.files),
            bytes_per_second: self.rate(),
            steps: self.steps.clone(),
        }
    }

    /// Expected milliseconds of what was moved.
    fn moved_ms(&self) -> f64 {
        let measured = self.steps.iter().filter(|s| s.is_measured());
        measured.map(|s| s.expected_ms as f64 * s.share()).sum()
    }

    /// The plan's expectation of what is left, corrected by how its expectation of what was moved compares with the time in
    /// which that moved. Steps that move nothing say nothing about the pace: preparing a target, or taking a snapshot, takes as
    /// long as it takes.
    fn remaining(&mut self) -> Option<u64> {
        let seen = self.moved_ms() - self.head_start_ms;
        if seen < ENOUGH_MS {
            return None;
        }
        let (since, before) = *self.warm.get_or_insert((self.moving, seen));
        let is_enough = seen - before >= ENOUGH_MS;
        let (moving, seen) =
            if is_enough { (self.moving - since, seen - before) } else { (self.moving, seen) };
        let pace = (moving.as_secs_f64() * 1000.0 + TRUSTED_MS) / (seen + TRUSTED_MS);
        Some(self.steps.iter().map(|s| s.left_ms(pace)).sum::<f64>() as u64)
    }

    fn rate(&mut self) -> f64 {
        let now = Instant::now();
        let bytes: u64 = self.steps.iter().map(|s| s.bytes).sum();
        self.window.push_back((now, bytes));
        while self.window.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.window.pop_front();
        }
        let Some((since, before)) = self.window.front() else { return 0.0 };
        let seconds = (now - *since).as_secs_f64();
        if seconds < 0.05 { 0.0 } else { bytes.saturating_sub(*before) as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::StepKind;

    fn step(name: &str, bytes: u64, expected_ms: u64) -> StepProgress {
        let step = StepKind::Copy(name.parse().unwrap());
        StepProgress::planned(&PlannedStep { step, rows: 0, files: 0, bytes, expected_ms })
    }

    #[tokio::test(start_paused = true)]
    async fn never_above_one_and_never_backwards() {
        let mut meter = Meter::new(vec![step("a", 100, 1000)], 0.0);
        let mut last = 0.0;
        for _ in 0..5 {
            meter.step("copy:a").unwrap().add(Amount { bytes: 50, ..Amount::default() });
            let progress = meter.read();
            assert!(progress.share >= last && progress.share < 1.0, "{}", progress.share);
            assert!(progress.bytes_done <= progress.bytes_total);
            last = progress.share;
        }
        meter.step("copy:a").unwrap().state = StepState::Done;
        assert_eq!(meter.read().share, 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_shows_no_less() {
        let mut meter = Meter::new(vec![step("a", 100, 1000)], 0.7);
        assert_eq!(meter.read().share, 0.7);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_to_do_is_done_when_done() {
        let mut meter = Meter::new(vec![step("a", 0, 10)], 0.0);
        assert_eq!(meter.read().share, 0.0);
        meter.step("copy:a").unwrap().state = StepState::Done;
        assert_eq!(meter.read().share, 1.0);
        assert_eq!(Meter::new(Vec::new(), 0.0).read().share, 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_expected_end_follows_the_pace() {
        let mut meter = Meter::new(vec![step("a", 1000, 10_000)], 0.0);
        assert_eq!(meter.read().remaining_ms, None);
        tokio::time::advance(Duration::from_secs(10)).await;
        meter.step("copy:a").unwrap().add(Amount { bytes: 500, ..Amount::default() });
        meter.step("copy:a").unwrap().state = StepState::Running;
        // Half took 10 s where 5 were expected: the other half will take 10 as well, or a little less if the plan is right after all.
        assert_eq!(meter.read().remaining_ms, Some(8_846));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_beginning_is_no_sign_of_the_pace() {
        let mut meter = Meter::new(vec![step("a", 1000, 10_000)], 0.0);
        meter.step("copy:a").unwrap().start();
        let mut move_on = async |seconds, bytes: u64| {
            meter.step("copy:a").unwrap().add(Amount { bytes: 1, ..Amount::default() });
            meter.read();
            tokio::time::advance(Duration::from_secs(seconds)).await;
            meter.step("copy:a").unwrap().add(Amount { bytes: bytes - 1, ..Amount::default() });
            meter.read().remaining_ms
        };
        // A tenth in 5 s, and the next four tenths in as much as the plan says.
        assert_eq!(move_on(5, 100).await, Some(23_400));
        assert_eq!(move_on(4, 400).await, Some(5_000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_nothing_says_nothing_about_the_pace() {
        let bare = StepProgress { step: "prepare".to_owned(), ..step("x", 0, 100) };
        let finish = StepProgress { step: "finish:a".to_owned(), ..step("y", 0, 2_000) };
        let mut meter = Meter::new(vec![bare, step("a", 1000, 10_000), finish], 0.0);
        meter.step("prepare").unwrap().start();
        tokio::time::advance(Duration::from_secs(30)).await;
        meter.read();
        meter.step("prepare").unwrap().finish();
        meter.step("copy:a").unwrap().start();
        tokio::time::advance(Duration::from_secs(5)).await;
        meter.read();
        tokio::time::advance(Duration::from_secs(5)).await;
        meter.step("copy:a").unwrap().add(Amount { bytes: 500, ..Amount::default() });
        // As the plan says: 5 s of copying, and 2 of finishing.
        assert_eq!(meter.read().remaining_ms, Some(7_000));
        tokio::time::advance(Duration::from_secs(5)).await;
        meter.step("copy:a").unwrap().add(Amount { bytes: 500, ..Amount::default() });
        meter.read();
        meter.step("copy:a").unwrap().finish();
        meter.step("finish:a").unwrap().start();
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(meter.read().remaining_ms, Some(500));
        // It is not over before it says so.
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(meter.read().remaining_ms, Some(200));
    }
}
