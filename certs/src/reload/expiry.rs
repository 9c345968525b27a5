//! When to warn of a certificate's end.

use time::Duration;

/// Warned about this often.
pub(super) const WARN_EVERY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// Time enough to renew by hand, holidays included.
const NOTICE: Duration = Duration::days(21);
/// Certificates too short for that are warned about in the last third of their life.
const SHARE: i32 = 3;

/// Whether a certificate with this much time left, out of so much, is to be warned about.
pub(super) fn is_near(left: Duration, lifetime: Duration) -> bool {
    left < NOTICE.min(lifetime / SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_weeks_or_the_last_third() {
        for (left, lifetime, expected) in
            [(22, 90, false), (20, 90, true), (-1, 90, true), (3, 7, false), (2, 7, true), (20, 3650, true)]
        {
            assert_eq!(
                is_near(Duration::days(left), Duration::days(lifetime)),
                expected,
                "{left} of {lifetime}"
            );
        }
    }
}
