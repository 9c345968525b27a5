//! The last words of a unit.

use std::time::Duration;

use crate::process;

const JOURNALCTL: &str = "/usr/bin/journalctl";
/// So many lines are read, the last ones, and of them the last are told. Neither `--boot`, since a process in a container that is kept from
/// the kernel's settings is told another boot than the journal was, nor `--since`, of which journalctl shows the first ones.
const READ: &str = "20";
const TOLD: usize = 6;
/// A longer line is cut.
const LINE_BYTES: usize = 250;
/// A journal that takes longer is not waited for: a failure is told without it.
const WITHIN: Duration = Duration::from_secs(5);
const SYNCED_WITHIN: Duration = Duration::from_secs(2);

/// The last lines of its journal; none where they cannot be had.
pub async fn last_lines(unit: &str) -> Vec<String> {
    // What a unit printed last may be on its way to the journal; one that cannot be asked for it has the rest.
    let sync = [JOURNALCTL, "--sync"].map(str::to_owned);
    let _ = process::run(&sync, SYNCED_WITHIN).await;
    let words = ["--unit", unit, "--lines", READ, "--no-pager", "--output", "cat"];
    let command: Vec<String> = std::iter::once(JOURNALCTL).chain(words).map(str::to_owned).collect();
    match process::run(&command, WITHIN).await {
        Ok(ended) if ended.is_well() => {
            ended.lines.into_iter().filter(|line| line != "-- No entries --").collect()
        }
        Ok(ended) => {
            tracing::warn!(unit, how = ended.how(), "the journal of a service cannot be read");
            Vec::new()
        }
        Err(error) => {
            tracing::warn!(unit, %error, "the journal of a service cannot be read");
            Vec::new()
        }
    }
}

/// The last of the lines, as they end a message.
pub fn told(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let last = &lines[lines.len().saturating_sub(TOLD)..];
    let cut = |line: &String| match line.floor_char_boundary(LINE_BYTES) {
        whole if whole == line.len() => line.clone(),
        at => format!("{}…", &line[..at]),
    };
    format!("; its journal: {}", last.iter().map(cut).collect::<Vec<_>>().join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_told() {
        let lines = |count: usize, length: usize| -> Vec<String> {
            (0..count).map(|at| format!("{at}{}", "x".repeat(length))).collect()
        };
        assert_eq!(told(&[]), "");
        assert_eq!(told(&lines(2, 0)), "; its journal: 0 | 1");
        assert_eq!(told(&lines(9, 0)), "; its journal: 3 | 4 | 5 | 6 | 7 | 8");
        for long in [lines(20, 4000), vec!["\u{1f41f}".repeat(900); 9]] {
            let long = told(&long);
            assert!((1000..2048).contains(&long.len()) && long.ends_with('…'), "{long}");
        }
    }
}
