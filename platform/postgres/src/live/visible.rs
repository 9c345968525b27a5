//! Which transactions are seen.

/// Which transactions a snapshot shows.
pub struct Visible {
    /// The first number that is not given yet.
    next: u64,
    running: Vec<u64>,
}

impl Visible {
    /// Reads `xmin:xmax:xip,…`.
    pub fn of(snapshot: &str) -> Option<Self> {
        let mut parts = snapshot.split(':');
        let next = parts.nth(1)?.parse().ok()?;
        let running = parts.next()?.split(',').filter_map(|number| number.parse().ok()).collect();
        Some(Self { next, running })
    }

    /// Whether it shows a transaction that has run lately, by its number without the epoch.
    pub fn shows(&self, xid: u32) -> bool {
        let near = (self.next & !0xffff_ffff) | u64::from(xid);
        // The nearest number that ends so: the epoch may have changed in between.
        let full = if near > self.next.saturating_add(1 << 31) {
            near.saturating_sub(1 << 32)
        } else if near.saturating_add(1 << 31) < self.next {
            near + (1 << 32)
        } else {
            near
        };
        full < self.next && !self.running.contains(&full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_seen_once_they_do_not_run() {
        let epoch = 1_u64 << 32;
        for (snapshot, xid, expected) in [
            ("100:100:".to_owned(), 99, true),
            ("100:100:".to_owned(), 100, false),
            ("97:100:97,99".to_owned(), 98, true),
            ("97:100:97,99".to_owned(), 99, false),
            // The epoch has just changed, or is about to.
            (format!("{0}:{0}:", epoch + 5), 4_294_967_290, true),
            (format!("{0}:{0}:", epoch + 5), 4, true),
            (format!("{}:{}:{}", epoch - 6, epoch + 5, epoch - 6), 4_294_967_290, false),
            (format!("{0}:{0}:", epoch - 3), 5, false),
        ] {
            assert_eq!(Visible::of(&snapshot).unwrap().shows(xid), expected, "{snapshot} {xid}");
        }
        assert!(Visible::of("").is_none());
    }
}
