//! Waiting on conditions, each with a deadline that names what did not happen.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Looks at a condition until it gives something, or fails, or `deadline` has passed.
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begun.elapsed() > deadline {
            bail!("waited {deadline:?} in vain: {what}");
        }
        pause(STEP);
    }
}

/// Lets time pass: for the moment of a planned accident, never to wait for something.
#[expect(clippy::disallowed_methods, reason = "the one place that may: between two looks at a condition")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Milliseconds since the epoch, by the clock that the agents log and journal with.
pub fn wall_ms() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// A moment as the agents' documents write it, in milliseconds since the epoch.
pub fn ms(at: &Value) -> Option<i64> {
    Some(at["seconds"].as_i64()? * 1000 + at["nanos"].as_i64()? / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read() {
        let at = serde_json::json!({ "seconds": 7, "nanos": 8_999_999 });
        assert_eq!((ms(&at), ms(&Value::Null)), (Some(7_008), None));
    }

    #[test]
    fn gives_what_it_found() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(10), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn says_what_did_not_happen() {
        let never: Result<()> = until("the cows to come home", Duration::ZERO, || Ok(None));
        assert!(never.unwrap_err().to_string().contains("the cows to come home"));
    }

    #[test]
    fn a_failure_ends_the_wait() {
        let failed: Result<()> = until("x", Duration::from_secs(60), || bail!("broken"));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    }
}
