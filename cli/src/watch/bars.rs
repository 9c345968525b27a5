//! Progress bars.

use std::collections::BTreeMap;

use handover_engine::driver::Status;
use handover_engine::progress::{StepProgress, StepState};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::render;

/// A bar has this many steps; its share is shown beside it.
const STEPS: u64 = 1000;

/// One bar a step, and one for all.
pub struct Bars {
    all: MultiProgress,
    steps: BTreeMap<String, ProgressBar>,
    total: ProgressBar,
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants: a bad one shows in every run.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━╌")
}

fn bar(prefix: &str, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(STEPS).with_prefix(prefix.to_owned());
    bar.set_style(style(template));
    bar
}

impl Default for Bars {
    fn default() -> Self {
        let all = MultiProgress::new();
        let total = all.add(bar("total", "{prefix:<24} {bar:30.green} {percent:>3} % {msg}"));
        Self { all, steps: BTreeMap::new(), total }
    }
}

fn amounts(step: &StepProgress) -> String {
    let mut parts = Vec::new();
    if step.rows > 0 {
        parts.push(format!("{} rows", step.rows));
    }
    if step.files > 0 {
        parts.push(format!("{} files", step.files));
    }
    if step.bytes > 0 {
        parts.push(render::bytes(step.bytes));
    }
    parts.join(", ")
}

impl Bars {
    /// Shows a line above the bars.
    pub fn event(&self, line: &str) {
        // A terminal that has gone away shows nothing more.
        let _ = self.all.println(line);
    }

    /// Moves the bars.
    pub fn show(&mut self, status: &Status) {
        for step in &status.progress.steps {
            if step.state == StepState::Waiting && !self.steps.contains_key(&step.step) {
                continue;
            }
            let bar = self.steps.entry(step.step.clone()).or_insert_with(|| {
                let made = bar(&step.title, "{prefix:<24} {bar:30.cyan} {percent:>3} % {msg}");
                self.all.insert_before(&self.total, made)
            });
            bar.set_position((step.share() * STEPS as f64) as u64);
            bar.set_message(amounts(step));
        }
        self.total.set_position((status.progress.share * STEPS as f64) as u64);
        self.total.set_message(render::share(status));
    }

    /// Leaves the bars as they are.
    pub fn finish(self, status: &Status) {
        if status.state.task.is_none() {
            self.total.set_position(STEPS);
        }
        self.steps.values().for_each(ProgressBar::abandon);
        self.total.abandon();
    }
}
