//! Databases that are brought into the target's schemas, as text.

use std::fmt::Write;

use handover_engine::name::DatasetName;
use handover_engine::rehearsal::decision::Decisions;
use handover_engine::rehearsal::fitted::Fitted;

/// What a plan will do about rows that do not fit.
pub fn planned(decisions: &Decisions, out: &mut String) {
    out.push_str(
        "databases are brought into the schemas that stand at the target; rows that do not fit, and about which nothing is decided, stop it\n\
         the source does not follow the target: an abort after the cut-over leaves what was written since at the target alone, aside\n",
    );
    for decision in &decisions.decision {
        // Writing to a string cannot fail.
        let _ = match &decision.database {
            Some(database) => writeln!(out, "  decided for {database}: {}", decision.shown()),
            None => writeln!(out, "  decided: {}", decision.shown()),
        };
    }
}

/// What was done about them.
pub fn told(dataset: &DatasetName, fitted: &Fitted, out: &mut String) {
    let Fitted { rows, left_out, changed, .. } = fitted;
    let _ = writeln!(
        out,
        "  {dataset}: of {rows} rows at the source {left_out} were left out and {changed} changed, as was decided"
    );
    for table in &fitted.tables {
        let (name, rows) = (&table.table, table.rows);
        let _ =
            writeln!(out, "    {name}: {rows} rows, {} left out, {} changed", table.left_out, table.changed);
    }
    for (what, decisions) in [("decided", &fitted.used), ("decision that matched nothing", &fitted.unused)] {
        for decision in decisions {
            let _ = writeln!(out, "    {what}: {decision}");
        }
    }
    for finding in &fitted.findings {
        let _ = writeln!(out, "    {}: {}", finding.item, finding.what);
    }
}

#[cfg(test)]
mod tests {
    use handover_engine::rehearsal::fitted::FittedTable;
    use handover_engine::rows::TableName;

    use super::*;

    #[test]
    fn decisions_and_what_came_of_them_are_told() {
        let fitted = Fitted {
            rows: 30,
            left_out: 2,
            changed: 1,
            tables: vec![FittedTable { table: TableName::plain("users"), rows: 20, left_out: 2, changed: 1 }],
            used: vec!["drop: users, id 7".to_owned()],
            unused: vec!["keep: users, id 9".to_owned()],
            findings: Vec::new(),
        };
        let mut out = String::new();
        told(&"main".parse().unwrap(), &fitted, &mut out);
        for part in [
            "of 30 rows",
            "users: 20 rows, 2 left out, 1 changed",
            "decided: drop: users, id 7",
            "nothing: keep: users",
        ] {
            assert!(out.contains(part), "{part}: {out}");
        }
    }
}
