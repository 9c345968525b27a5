//! Every type of an engine, and every kind of object, moved from one server to another.

use std::time::Duration;

use anyhow::Result;
use handover_tests::bed::{Bed, Dataset};
use handover_tests::compare::{Side, servers};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::server::{Engine, Server};
use handover_tests::types;
use serde_json::json;

use super::{Options, Outcome};
use crate::packages;
use crate::shell::say;
use crate::workplace::Workplace;

/// Runs the scenario.
pub fn run(options: &Options) -> Result<Outcome> {
    let engine = options.server()?;
    packages::install(packages::SERVERS)?;
    let place = Workplace::fresh("scenario-types")?;
    let binaries = Binaries::build(Profile::Release)?;
    say("starting two servers, and making a database with every type");
    let (from, to) = (Server::start(engine, &[])?, Server::start(engine, &[])?);
    types::make(&from, "app")?;
    if engine == Engine::Mariadb {
        // Settings of a session that must not matter.
        to.run("", "SET GLOBAL sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE', GLOBAL time_zone = '-09:30'")?;
    }
    let (columns, values) = types::size(&from, "app")?;
    let dataset = Dataset::Server { name: "app".to_owned(), source: from.url("app"), target: to.url("app") };
    let bed = Bed::at(place.path(), binaries, vec![dataset], "info")?;
    say(format!("moving {columns} columns, {values} values: {}", bed.start()?));
    bed.settle(Duration::from_secs(600))?;
    // What the migration keeps for an undo goes.
    bed.cli(&["finalize"])?.success()?;
    bed.settle(Duration::from_secs(600))?;
    let found = servers(Side { server: &from, database: "app" }, Side { server: &to, database: "app" })?;
    println!("{}", found.describe());
    Ok(Outcome {
        ok: found.found == 0,
        figures: json!({
            "engine": engine.name(),
            "columns": columns,
            "values": values,
            "tables": found.tables,
            "rows": found.rows,
            "differences": found.found,
        }),
    })
}
