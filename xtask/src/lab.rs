//! `cargo xtask lab`: whole hosts to try things on (`handover_tests::lab`), up until they are taken down.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use handover_tests::lab::{Lab, Shape, down};

use crate::packages;
use crate::shell::{cargo, run_visibly, say};

/// The lab of the command line; tests have others, under names of their own.
const NAME: &str = "own";
const HOSTS: [&str; 4] = ["a", "b", "c", "d"];

/// What to do with the lab.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boots hosts named a, b, c, d; takes down what was up
    Up {
        /// How many
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
        hosts: u8,
        /// Makes the packages and installs the agents: the source's on `a`, the target's and the command line on the others
        #[arg(long)]
        agents: bool,
    },
    /// Ends the hosts and removes all they had
    Down,
    /// Runs a command on a host
    Exec {
        /// The host
        host: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Ends a host as a power failure would
    Crash {
        /// The host
        host: String,
    },
    /// Boots a host that has crashed
    Boot {
        /// The host
        host: String,
    },
    /// Shapes the link between all hosts from now on; what is not given is without a limit
    Link(Shaped),
}

#[derive(Args)]
struct Shaped {
    /// Milliseconds each way
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Megabits per second each way
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Percent of the frames that are lost
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Nothing passes
    #[arg(long)]
    cut: bool,
}

/// Does it; the exit code of `exec` is its command's.
pub fn run(options: &Options) -> Result<ExitCode> {
    match &options.command {
        Command::Up { hosts, agents } => up(usize::from(*hosts), *agents)?,
        Command::Down => down(NAME)?,
        Command::Exec { host, command } => {
            let status = Lab::open(NAME)?.host(host)?.command()?.args(command).status()?;
            return Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
        }
        Command::Crash { host } => Lab::open(NAME)?.host(host)?.crash()?,
        Command::Boot { host } => Lab::open(NAME)?.host(host)?.boot()?,
        Command::Link(shaped) => Lab::open(NAME)?.shape(&shaped.shape())?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Shaped {
    fn shape(&self) -> Shape {
        let rate = (self.rate * 1e6) as u64;
        Shape { delay_ms: self.delay, rate, loss: self.loss / 100.0, cut: self.cut }
    }
}

fn up(hosts: usize, agents: bool) -> Result<()> {
    packages::install(packages::LAB)?;
    // Without agents only the link's program is needed.
    let what: &[&str] = if agents { &["--bins"] } else { &["--bin", "handover-lab-carrier"] };
    run_visibly(cargo(&["build", "--quiet", "--workspace"]).args(what))?;
    let lab = Lab::up(NAME, &HOSTS[..hosts])?;
    if agents {
        say("installing the agents");
        lab.install_agents("a")?;
    }
    say(format!("up: {}; `cargo xtask lab exec a -- COMMAND`", HOSTS[..hosts].join(", ")));
    lab.keep();
    Ok(())
}
