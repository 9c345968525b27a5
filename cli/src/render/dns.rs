//! DNS records as people read them: the lines of a zone file.

use std::fmt::Write;

use handover_engine::dns::{Advice, DnsFacts, RecordChange, Stage, advise};
use handover_engine::inventory::Inventory;

/// What changes, stage by stage.
pub fn advice(advice: &Advice, out: &mut String) {
    let who = if advice.automatic { "updated" } else { "to be changed by you" };
    for stage in Stage::ALL.into_iter().filter(|stage| advice.has(*stage)) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "DNS records, {who} at {}, {}:", advice.server, stage.title());
        for line in advice.at(stage).flat_map(RecordChange::lines) {
            let _ = writeln!(out, "  {line}");
        }
    }
}

/// What the server has, and what would change if the appliance moved without a swap of addresses.
pub fn inspected(source: &Inventory, target: &Inventory, out: &mut String) {
    let Some(facts) = &target.changeover.dns else { return };
    out.push('\n');
    found(facts, out);
    if facts.problem.is_some() {
        return;
    }
    match advise(&source.appliance, &target.appliance, facts, false) {
        Ok(found) if found.changes.is_empty() => out.push_str("DNS: no record changes\n"),
        Ok(found) => advice(&found, out),
        Err(failure) => {
            let _ =
                writeln!(out, "DNS: {}: {} ({})", failure.item, super::with_causes(&failure), failure.hint);
        }
    }
}

fn found(facts: &DnsFacts, out: &mut String) {
    let _ = match &facts.problem {
        Some(problem) => writeln!(out, "DNS: {problem}"),
        None => writeln!(out, "DNS at {}:", facts.server),
    };
    for set in &facts.records {
        for value in &set.values {
            let _ = writeln!(out, "  {} {} IN {} {value}", set.name, set.ttl, set.kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::dns::RecordKind;

    #[test]
    fn lines_stage_by_stage() {
        let change = |at, from: &[&str], to: &[&str]| RecordChange {
            at,
            name: "pool.example.net.".to_owned(),
            kind: RecordKind::A,
            from: from.iter().map(|value| (*value).to_owned()).collect(),
            to: to.iter().map(|value| (*value).to_owned()).collect(),
            was_ttl: 300,
            ttl: 60,
        };
        let changes =
            vec![change(Stage::Before, &["192.0.2.10"], &[]), change(Stage::End, &[], &["192.0.2.20"])];
        let mut out = String::new();
        advice(&Advice { server: "192.0.2.53:53".to_owned(), automatic: false, changes }, &mut out);
        assert_eq!(
            out,
            "DNS records, to be changed by you at 192.0.2.53:53, before the cut-over, to keep users away from the source:\n\
             \x20 - pool.example.net. 300 IN A 192.0.2.10\n\
             DNS records, to be changed by you at 192.0.2.53:53, at the end, to let the appliance be one of the round-robin hosts again:\n\
             \x20 + pool.example.net. 60 IN A 192.0.2.20\n"
        );
    }
}
