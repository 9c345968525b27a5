//! Writers at a source: sysbench, pgbench, and one of our own for SQLite.

mod own;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handover_tests::poll;
use handover_tests::server::{Engine, Server};

use crate::packages::{self, Needed};
use crate::shell::run_quietly;

/// Connections that write.
const WRITERS: &str = "2";
/// How long a tool may take to see that it is refused.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// What a load reached.
pub struct Measured {
    /// Transactions per second.
    pub per_second: f64,
    /// The time that 99 of 100 took no longer than, in milliseconds.
    pub p99_ms: f64,
}

/// A load that can be run.
pub enum Load {
    /// Of a server, by its tool.
    Server { engine: Engine, tool: Vec<String>, environment: Vec<(String, String)>, dir: PathBuf },
    /// Of an SQLite database.
    Sqlite(PathBuf, u64),
}

/// The tools' packages.
pub fn tools(engine: Engine) -> &'static [Needed] {
    const MARIADB: &[Needed] = &[packages::SERVERS[0], ("sysbench", "sysbench")];
    const POSTGRES: &[Needed] = &[packages::SERVERS[1]];
    match engine {
        Engine::Mariadb => MARIADB,
        Engine::Postgres => POSTGRES,
    }
}

/// Settings of the servers.
pub fn settings(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::Mariadb => &["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G", "--local-infile=1"],
        Engine::Postgres => &["--max_wal_size=4GB", "--maintenance_work_mem=256MB", "--shared_buffers=512MB"],
    }
}

impl Load {
    /// Makes the tables of a tool's load.
    pub fn server(server: &Server, rows: u64, dir: &Path) -> Result<Self> {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let engine = server.engine();
        let (tool, environment) = match engine {
            Engine::Mariadb => {
                let mut tool =
                    text(&["sysbench", "oltp_read_write", "--db-driver=mysql", "--mysql-user=root"]);
                tool.extend(text(&["--mysql-db=app", "--tables=4", "--percentile=99"]));
                tool.push(format!("--threads={WRITERS}"));
                tool.push(format!("--mysql-socket={}", server.socket().display()));
                tool.push(format!("--table-size={}", (rows / 4).max(1)));
                run_quietly(Command::new(&tool[0]).args(&tool[1..]).arg("prepare"))?;
                (tool, Vec::new())
            }
            Engine::Postgres => {
                let scale = (rows / 100_000).max(1).to_string();
                run_quietly(server.tool("pgbench").args(["-i", "-q", "-s", &scale, "app"]))?;
                let tool = server.tool("pgbench");
                let mut words = vec![tool.get_program().to_string_lossy().into_owned()];
                words.extend(tool.get_args().map(|word| word.to_string_lossy().into_owned()));
                words.extend(text(&["-n", "-c", WRITERS, "-j", WRITERS]));
                let pair = |(name, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| {
                    Some((name.to_string_lossy().into_owned(), value?.to_string_lossy().into_owned()))
                };
                (words, tool.get_envs().filter_map(pair).collect())
            }
        };
        Ok(Load::Server { engine, tool, environment, dir: dir.to_owned() })
    }

    /// The same load of what has taken the database's place.
    pub fn moved(&self, data: &super::Data) -> Self {
        match (self, data) {
            (Load::Server { engine, tool, environment, dir }, super::Data::Servers { from, to }) => {
                let (old, new) = (from.socket().display().to_string(), to.socket().display().to_string());
                let (old_port, new_port) = (from.port().to_string(), to.port().to_string());
                let there = |word: &String| {
                    if *word == old_port { new_port.clone() } else { word.replace(&old, &new) }
                };
                let (tool, environment) = (tool.iter().map(there).collect(), environment.clone());
                Load::Server { engine: *engine, tool, environment, dir: dir.clone() }
            }
            (Load::Sqlite(_, rows), super::Data::Sqlite { target, .. }) => {
                Load::Sqlite(target.clone(), *rows)
            }
            _ => unreachable!("a load is made with its data"),
        }
    }

    /// Makes a database of our own.
    pub fn sqlite(path: &Path, rows: u64) -> Result<Self> {
        own::make(path, rows)?;
        Ok(Load::Sqlite(path.to_owned(), rows))
    }

    /// Runs it for a while, at a rate or as fast as it goes.
    pub fn measure(&self, rate: Option<f64>, time: Duration) -> Result<Measured> {
        let mut running = self.run(rate)?;
        poll::pause(Duration::from_secs(1));
        let mark = running.mark()?;
        poll::pause(time);
        let measured = running.since(mark)?;
        running.stop()?;
        Ok(measured)
    }

    /// Runs it at a rate until it is refused.
    pub fn start(&self, rate: f64) -> Result<Running> {
        self.run(Some(rate))
    }

    fn run(&self, rate: Option<f64>) -> Result<Running> {
        match self {
            Load::Sqlite(path, rows) => Ok(Running::Own(own::Writer::start(path, *rows, rate)?)),
            Load::Server { engine, tool, environment, dir } => {
                let log = dir.join("load.log");
                let mut command = Command::new(&tool[0]);
                command.args(&tool[1..]).envs(environment.iter().cloned());
                match engine {
                    Engine::Mariadb => {
                        command.args(["--time=0", "--report-interval=1"]);
                        command.args(rate.map(|rate| format!("--rate={}", rate as u64)));
                        command.arg("run");
                    }
                    Engine::Postgres => {
                        command.args(["-T", "86400", "-P", "1"]);
                        command.args(rate.iter().flat_map(|rate| ["-R".to_owned(), format!("{rate:.0}")]));
                        command.arg("app");
                    }
                }
                let out = File::create(&log)?;
                command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
                let child = command.spawn().with_context(|| format!("{command:?}"))?;
                Ok(Running::Tool { engine: *engine, child, log })
            }
        }
    }
}

/// A load at work; ended when dropped.
pub enum Running {
    Tool { engine: Engine, child: Child, log: PathBuf },
    Own(own::Writer),
}

/// A moment of a load.
pub enum Mark {
    Line(usize),
    Count(usize, Instant),
}

impl Running {
    /// This moment.
    pub fn mark(&mut self) -> Result<Mark> {
        Ok(match self {
            Running::Tool { .. } => Mark::Line(self.seconds()?.len()),
            Running::Own(writer) => Mark::Count(writer.count(), Instant::now()),
        })
    }

    /// What was reached since then.
    pub fn since(&mut self, mark: Mark) -> Result<Measured> {
        match (self, mark) {
            (Running::Own(writer), Mark::Count(count, at)) => writer.since(count, at.elapsed()),
            (running, Mark::Line(line)) => {
                let seconds = running.seconds()?.split_off(line);
                ensure!(!seconds.is_empty(), "the load tells nothing");
                let count = seconds.len() as f64;
                let sum = |of: fn(&Second) -> f64| seconds.iter().map(of).sum::<f64>();
                Ok(Measured { per_second: sum(|s| s.0) / count, p99_ms: sum(|s| s.1) / count })
            }
            _ => anyhow::bail!("a mark of another load"),
        }
    }

    /// What a tool has told, second by second.
    fn seconds(&mut self) -> Result<Vec<Second>> {
        let Running::Tool { engine, log, .. } = self else { return Ok(Vec::new()) };
        let text = std::fs::read_to_string(log)?;
        let parse = match engine {
            Engine::Mariadb => sysbench,
            Engine::Postgres => pgbench,
        };
        Ok(text.lines().filter_map(parse).collect())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(match self {
            Running::Own(writer) => writer.has_ended(),
            Running::Tool { child, .. } => child.try_wait()?.is_some(),
        })
    }

    /// It must end by itself, since nobody may write any more.
    pub fn ended_refused(&mut self) -> Result<()> {
        match self {
            Running::Own(writer) => writer.ended_refused(ENDS_WITHIN),
            Running::Tool { child, log, .. } => {
                poll::until("the writers to be refused", ENDS_WITHIN, || Ok(child.try_wait()?))?;
                let told = std::fs::read_to_string(&*log)?;
                ensure!(
                    told.contains("handover"),
                    "the writers ended for another reason: {}",
                    handover_tests::process::tail(log)
                );
                Ok(())
            }
        }
    }

    fn stop(&mut self) -> Result<()> {
        if let Running::Tool { child, .. } = self {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.stop();
    }
}

/// Transactions, and the time that 99 of 100 took no longer than in milliseconds (pgbench: mean and three standard deviations).
type Second = (f64, f64);

fn number_after(line: &str, mark: &str) -> Option<f64> {
    let rest = &line[line.find(mark)? + mark.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// `[ 2s ] thds: 2 tps: 512.10 qps: … lat (ms,99%): 5.77 err/s: …`
fn sysbench(line: &str) -> Option<Second> {
    Some((number_after(line, " tps: ")?, number_after(line, "lat (ms,99%): ")?))
}

/// `progress: 3.0 s, 512.1 tps, lat 3.904 ms stddev 1.210, …`
fn pgbench(line: &str) -> Option<Second> {
    let rest = line.strip_prefix("progress: ")?;
    let mean = number_after(rest, "lat ")?;
    Some((number_after(rest, " s, ")?, mean + 3.0 * number_after(rest, "stddev ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_tell_is_read() {
        let line = "[ 2s ] thds: 2 tps: 512.10 qps: 10242.03 (r/w/o: 7169.42/2048.41/1024.20) lat (ms,99%): 5.77 err/s: 0.00 reconn/s: 0.00";
        assert_eq!(sysbench(line), Some((512.10, 5.77)));
        let line = "progress: 3.0 s, 512.1 tps, lat 3.900 ms stddev 1.200, 0 failed, lag 0.100 ms";
        assert_eq!(pgbench(line), Some((512.1, 7.5)));
        assert_eq!(sysbench("Threads started!"), None);
        assert_eq!(pgbench("pgbench: error: client 0 aborted"), None);
    }
}
