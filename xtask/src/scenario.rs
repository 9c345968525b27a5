//! End-to-end scenarios: real processes, shown as they run, judged at the end by one JSON object.

mod crash;
mod eta;
mod ha;
mod lifecycle;
mod live;
mod memory;
mod reverse;
mod types;
mod verifying;
mod wizard;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use handover_tests::server::Engine;
use serde_json::{Map, Value, json};

use crate::shell::say;

/// What to run, and how. A scenario takes the options that mean something to it.
#[derive(Clone, Args)]
pub struct Options {
    /// The scenario; without one, those that exist are listed
    name: Option<String>,
    /// Database engine
    #[arg(long, default_value = "sqlite")]
    engine: String,
    /// Number of kills (crash: 50, live-crash: 30)
    #[arg(long)]
    kills: Option<u32>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rows of the database (2,000,000; eta: 6,000,000)
    #[arg(long)]
    rows: Option<u64>,
    /// Pairs of runs (live-tenfold)
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// How long it is followed at least, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Share of the full amount of data, for a quick look
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
}

impl Options {
    /// The engine, if it has a server.
    fn server(&self) -> Result<Engine> {
        [Engine::Mariadb, Engine::Postgres]
            .into_iter()
            .find(|engine| engine.name() == self.engine)
            .with_context(|| format!("--engine {}: mariadb and postgres have a server", self.engine))
    }

    /// Rows of the database.
    fn rows(&self) -> u64 {
        self.rows.unwrap_or(2_000_000)
    }

    /// A share of an amount.
    fn scaled(&self, amount: u64) -> u64 {
        ((amount as f64 * self.scale) as u64).max(1)
    }
}

/// What a scenario found.
struct Outcome {
    ok: bool,
    figures: Value,
}

struct Scenario {
    name: &'static str,
    about: &'static str,
    run: fn(&Options) -> Result<Outcome>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "crash",
        about: "kill -9 of agents and database servers at random moments: nothing is lost, nothing sent again",
        run: crash::run,
    },
    Scenario {
        name: "eta",
        about: "how well a migration foretells its end: after a quarter of the time, wrong by at most a fifth of it",
        run: eta::run,
    },
    Scenario {
        name: "ha",
        about: "a database with a replica, on four real hosts: the new pair replicates, nothing differs, an abort gives the old one back",
        run: ha::run,
    },
    Scenario {
        name: "lifecycle",
        about: "on two real hosts: rehearsed, refused, on trial, given up with nothing lost, then for good and proven",
        run: lifecycle::run,
    },
    Scenario {
        name: "live",
        about: "a database is moved while it is written to: writers wait for a moment, nothing differs",
        run: live::run,
    },
    Scenario {
        name: "live-tenfold",
        about: "the same by turns with --rows and with a tenth of them: writers wait at most 1.2 times as long",
        run: live::tenfold::run,
    },
    Scenario {
        name: "live-crash",
        about: "the same under kill -9 of agents and database servers and cuts of the link, in the cut-over too: nothing differs",
        run: live::crash::run,
    },
    Scenario {
        name: "memory",
        about: "a 4 GiB file and a table of 10 million rows (--engine: and rows of 64 MiB): at most 256 MiB resident per agent",
        run: memory::run,
    },
    Scenario {
        name: "reverse",
        about: "after the cut-over the source follows: an abort brings home all that was written at the target",
        run: reverse::run,
    },
    Scenario {
        name: "types",
        about: "every type and kind of object of --engine mariadb or postgres: not one value differs",
        run: types::run,
    },
    Scenario {
        name: "verify",
        about: "what verifying a copy costs while its source is written to: what is read, and what of it travels",
        run: verifying::run,
    },
    Scenario {
        name: "wizard",
        about: "a whole appliance on two real hosts: services, swapped settings and a reboot, certificates, licence, logs",
        run: wizard::run,
    },
    Scenario {
        name: "wizard-crash",
        about: "the same, with a host crash or a cut of the link after every step: always migrated or undone",
        run: wizard::crash,
    },
    Scenario {
        name: "dead-man",
        about: "a swap that cuts the hosts off from each other undoes itself on both",
        run: wizard::dead_man,
    },
];

/// Runs the scenario and prints its figures on the last line.
pub fn run(options: &Options) -> ExitCode {
    let wanted = options.name.as_deref();
    let Some(scenario) = SCENARIOS.iter().find(|s| Some(s.name) == wanted) else {
        list(wanted);
        return ExitCode::from(2);
    };
    say(format!("scenario {}: {} (seed {})", scenario.name, scenario.about, options.seed));
    let (ok, document) = document(scenario.name, options.seed, (scenario.run)(options));
    println!("{document}");
    ExitCode::from(u8::from(!ok))
}

fn document(name: &str, seed: u64, result: Result<Outcome>) -> (bool, Value) {
    let outcome = result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Outcome { ok: false, figures: json!({ "error": format!("{error:#}") }) }
    });
    let mut document = Map::from_iter([
        ("scenario".to_owned(), json!(name)),
        ("ok".to_owned(), json!(outcome.ok)),
        ("seed".to_owned(), json!(seed)),
    ]);
    if let Value::Object(figures) = outcome.figures {
        document.extend(figures);
    }
    (outcome.ok, Value::Object(document))
}

fn list(wanted: Option<&str>) {
    if let Some(name) = wanted {
        eprintln!("error: there is no scenario `{name}`");
    }
    eprintln!("scenarios:");
    for Scenario { name, about, .. } in SCENARIOS {
        eprintln!("  {name:12} {about}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_one_object() {
        let (ok, document) = document("x", 3, Ok(Outcome { ok: true, figures: json!({"kills": 4}) }));
        assert!(ok);
        assert_eq!(document, json!({"scenario": "x", "ok": true, "seed": 3, "kills": 4}));
        let (ok, document) = super::document("x", 3, Err(anyhow::anyhow!("broken").context("outer")));
        assert!(!ok && document["ok"] == false && document["error"] == "outer: broken");
        assert!(!document.to_string().contains('\n'));
    }
}
