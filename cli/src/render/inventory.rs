//! What both hosts have told of themselves.

use std::fmt::Write;

use handover_engine::inventory::{DatasetFacts, Inventory};
use handover_engine::licence::{Licence, Standing};

use super::{bytes, changeover, dns};

/// Both hosts.
pub fn inventories(source: &Inventory, target: &Inventory) -> String {
    let mut out = format!("{}\n{}", inventory("source", source), inventory("target", target));
    dns::inspected(source, target, &mut out);
    out
}

fn inventory(side: &str, inventory: &Inventory) -> String {
    let (host, appliance) = (&inventory.host, &inventory.appliance);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{side}: {} ({}, {}), {} cpus, {}",
        host.host_name,
        host.os,
        host.kernel,
        host.cpus,
        bytes(host.memory_bytes)
    );
    let _ = writeln!(
        out,
        "  appliance {} {} ({}), {} {}",
        appliance.name,
        appliance.release,
        appliance.role,
        appliance.host_name,
        appliance.addresses.join(" ")
    );
    licence(&inventory.licence, &mut out);
    changeover::facts(&inventory.changeover, &mut out);
    for disk in &host.disks {
        let _ = writeln!(
            out,
            "  disk {} ({}): {} of {} free",
            disk.mount_point,
            disk.file_system,
            bytes(disk.available_bytes),
            bytes(disk.total_bytes)
        );
    }
    for dataset in &inventory.datasets {
        let _ = writeln!(out, "  {}: {}", dataset.name, facts(&dataset.facts));
    }
    out
}

fn facts(facts: &DatasetFacts) -> String {
    match facts {
        DatasetFacts::Database(d) => {
            let rows: u64 = d.tables.iter().map(|table| table.rows).sum();
            let (tables, size) = (d.tables.len(), bytes(d.bytes));
            format!("{} {} at {}: {tables} tables, {rows} rows, {size}", d.engine, d.version, d.location)
        }
        DatasetFacts::Files(t) => format!("files at {}: {} files, {}", t.root, t.files, bytes(t.bytes)),
        DatasetFacts::Unreadable { problem, .. } => format!("cannot be read: {problem}"),
    }
}

/// A host's licence, on a line of its own.
fn licence(standing: &Standing, out: &mut String) {
    let _ = match standing {
        Standing::Undeclared => Ok(()),
        Standing::None => writeln!(out, "  licence: none"),
        Standing::Invalid { problem, .. } => writeln!(out, "  licence: not valid: {problem}"),
        Standing::Valid(Licence { guid, holder, maintenance_until }) => {
            let holder = if holder.is_empty() { String::new() } else { format!(" of {holder}") };
            let until =
                maintenance_until.map_or_else(String::new, |until| format!(", maintained until {until}"));
            writeln!(out, "  licence {guid}{holder}{until}")
        }
    };
}
