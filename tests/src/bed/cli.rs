//! What the command line answers.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let output = command.output().with_context(|| format!("running {shown}"))?;
        Ok(Self {
            command: shown,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Everything it printed.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// An error unless it succeeded.
    pub fn success(self) -> Result<Self> {
        ensure!(self.code == Some(0), "{} failed ({:?}):\n{}", self.command, self.code, self.text());
        Ok(self)
    }

    /// The document it printed; an error unless it succeeded.
    pub fn json(self) -> Result<Value> {
        let output = self.success()?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("{} printed no JSON:\n{}", output.command, output.text()))
    }
}

/// How far a migration is, of `status --json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all, as far as is known.
    pub bytes_total: u64,
    /// Rows done.
    pub rows_done: u64,
    /// Files done.
    pub files_done: u64,
    /// The share of the whole task that is shown, from 0 to 1.
    pub share: f64,
}

/// `status --json`; fields not used here are left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Status {
    /// The migration's name.
    pub migration: String,
    /// Its phase.
    pub phase: String,
    /// `good`, `paused` or `failed`, the last with what failed.
    #[serde(default)]
    pub condition: Value,
    /// What failed.
    #[serde(default)]
    pub failure: Value,
    /// What it is busy with.
    pub activity: String,
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
    /// What may be asked of it now.
    #[serde(default)]
    pub allowed: Vec<String>,
}

impl Status {
    /// True when nothing goes on and nothing is wrong.
    pub fn is_settled(&self) -> bool {
        ["idle", "following_back"].contains(&self.activity.as_str()) && !self.is_stuck()
    }

    /// True when it failed or was paused.
    pub fn is_stuck(&self) -> bool {
        ["failed", "paused"].iter().any(|c| self.condition == **c || self.condition.get(*c).is_some())
    }

    /// The share that is done, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.progress.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(condition: &Value, activity: &str, settled: bool, stuck: bool) {
        let document = json!({"migration": "m-1", "phase": "following", "condition": condition, "activity": activity,
            "progress": {"share": 0.25, "bytes_done": 5, "bytes_total": 20, "rate": 1.0}, "new": 1});
        let status: Status = serde_json::from_value(document).unwrap();
        assert_eq!(
            (status.is_settled(), status.is_stuck(), status.share()),
            (settled, stuck, 0.25),
            "{condition}"
        );
    }

    #[test]
    fn reads_a_status() {
        check(&json!("good"), "idle", true, false);
        check(&json!("good"), "copying", false, false);
        check(&json!("paused"), "idle", false, true);
        check(&json!({"failed": {"item": "x"}}), "idle", false, true);
        check(&json!("failed"), "idle", false, true);
    }

    #[test]
    fn a_failure_shows_what_was_printed() {
        let output = Output::of(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert_eq!((output.code, output.text().as_str()), (Some(3), "out\nerr\n"));
        let error = output.json().unwrap_err().to_string();
        assert!(error.contains("failed (Some(3))") && error.contains("err"), "{error}");
    }
}
