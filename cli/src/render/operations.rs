//! The steps of a plan as a report tells them, and what they have changed beside the data.

use std::fmt::Write;

use handover_engine::report::{Change, Operation};

use super::time;

/// When each step began and ended, a line each.
pub fn operations(operations: &[Operation], out: &mut String) {
    for one in operations {
        let again = match one.attempts {
            0 | 1 => String::new(),
            attempts => format!(", {attempts} attempts"),
        };
        let expected = time(one.expected_ms);
        let when = match (one.from, one.to) {
            (None, _) => "not begun".to_owned(),
            (Some(from), None) => format!("begun at {from}, not ended{again}"),
            (Some(from), Some(to)) => {
                let took = time(one.took_ms().unwrap_or(0));
                format!("{took} (expected {expected}): {from} to {to}{again}")
            }
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {:<34} {when}", one.title);
    }
}

/// What was changed, and what of it was taken back, a line each.
pub fn changed(changes: &[Change], out: &mut String) {
    for one in changes {
        let at = one.host.map_or_else(String::new, |host| format!(" at the {host}"));
        let facts: Vec<_> = one.facts.iter().map(|(name, fact)| format!("{name} {fact}")).collect();
        let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        let undone = one.undone_at.map_or_else(String::new, |at| format!("; taken back at {at}"));
        let _ = writeln!(out, "  changed{at}: {}: {}{facts}{undone}", one.item, one.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::backup::Host;
    use handover_engine::time::Timestamp;

    #[test]
    fn steps_with_their_times() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let step = |title: &str, from, to, attempts| Operation {
            step: "x".into(),
            title: title.into(),
            expected_ms: 2_000,
            from,
            to,
            attempts,
        };
        let all = [
            step("copy shop", at(0), at(3), 1),
            step("reboot both systems", at(4), at(5), 3),
            step("restart the services", at(6), None, 1),
            step("move the licence", None, None, 0),
        ];
        let mut out = String::new();
        operations(&all, &mut out);
        let lines: Vec<_> =
            out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let (took, expected) = (time(3_000), time(2_000));
        assert_eq!(
            lines[0],
            format!("copy shop {took} (expected {expected}): 1970-01-01T00:00:00Z to 1970-01-01T00:00:03Z")
        );
        assert!(lines[1].ends_with("1970-01-01T00:00:05Z, 3 attempts"), "{out}");
        assert_eq!(lines[2], "restart the services begun at 1970-01-01T00:00:06Z, not ended");
        assert_eq!(lines[3], "move the licence not begun");
    }

    #[test]
    fn changes_with_their_hosts() {
        let at = Timestamp::default();
        let change = |host, item: &str, what: &str, facts: &[(&str, &str)], undone_at| Change {
            step: "x".into(),
            host,
            item: item.into(),
            what: what.into(),
            facts: facts.iter().map(|(name, fact)| ((*name).to_owned(), (*fact).to_owned())).collect(),
            at,
            undone_at,
        };
        let all = [
            change(Some(Host::Target), "licence", "put in place", &[("guid", "4f1c")], None),
            change(None, "dns www. A", "- a; + b", &[], Some(at)),
        ];
        let mut out = String::new();
        changed(&all, &mut out);
        assert_eq!(
            out,
            "  changed at the target: licence: put in place (guid 4f1c)\n  \
             changed: dns www. A: - a; + b; taken back at 1970-01-01T00:00:00Z\n"
        );
    }
}
