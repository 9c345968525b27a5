//! What is in the way of what comes next.

use std::fmt::Write;

use handover_engine::readiness::Readiness;

/// As it is shown below a status.
pub fn text(readiness: &Readiness) -> String {
    let next = readiness.next.map_or("what comes next", |operation| operation.as_str());
    if readiness.ready {
        return format!("\n  ready for {next}");
    }
    let mut out = format!("\n  not ready for {next}:");
    for unmet in &readiness.unmet {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n    {}: {} ({})", unmet.item, unmet.what, unmet.hint);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::phase::Operation;
    use handover_engine::readiness::Unmet;

    #[test]
    fn each_unmet_condition_has_a_line() {
        let ready = Readiness { next: Some(Operation::Cutover), ready: true, unmet: Vec::new() };
        assert_eq!(text(&ready), "\n  ready for cutover");
        let unmet =
            |item: &str| Unmet { item: item.to_owned(), what: "bad".to_owned(), hint: "mend it".to_owned() };
        let not = Readiness { ready: false, unmet: vec![unmet("a"), unmet("b")], ..ready };
        assert_eq!(text(&not), "\n  not ready for cutover:\n    a: bad (mend it)\n    b: bad (mend it)");
    }
}
