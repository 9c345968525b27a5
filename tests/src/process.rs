//! An agent as a process of its own: started, killed, started again on the same port, measured.

mod usage;

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::poll;

pub use usage::Usage;

/// How long an agent may take until it listens, on a machine busy with other tests.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);

/// What an agent is started with.
#[derive(Debug, Clone)]
pub struct Program {
    /// `source` or `target`.
    pub name: &'static str,
    /// The executable.
    pub binary: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its state directory, where it writes `address`.
    pub state: PathBuf,
    /// Where its log goes, appended over restarts.
    pub log: PathBuf,
    /// Its log filter (`HANDOVER_LOG`); the log is in JSON.
    pub filter: String,
}

/// A running agent. Killed when dropped; its log is shown when a test fails.
#[derive(Debug)]
pub struct Agent {
    program: Program,
    child: Option<Child>,
    address: String,
    past: Usage,
}

impl Agent {
    /// Starts the agent and waits until it listens.
    pub fn start(program: Program) -> Result<Self> {
        let mut agent = Self { program, child: None, address: String::new(), past: Usage::default() };
        agent.launch()?;
        agent.pin_port()?;
        Ok(agent)
    }

    /// Where it listens: `host:port`, the same after a restart.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        &self.program.state
    }

    /// Its log so far.
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    /// Kills it as a crash would: SIGKILL, no last words.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            self.past = self.past.then(&Usage::of(child.id()));
            child
                .kill()
                .and_then(|()| child.wait())
                .with_context(|| format!("killing the {}", self.program.name))?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has; its exit code.
    pub fn stop(&mut self) -> Result<Option<i32>> {
        let Some(mut child) = self.child.take() else { bail!("the {} does not run", self.program.name) };
        self.past = self.past.then(&Usage::of(child.id()));
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )?;
        let ended = poll::until("the agent to end", Duration::from_secs(30), || Ok(child.try_wait()?));
        if ended.is_err() {
            self.child = Some(child);
        }
        Ok(ended?.code())
    }

    /// Starts it again, after a kill or a stop, on the port it had.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        // An outgoing connection may sit on the port for a moment.
        let launched = self.launch().or_else(|_| self.launch()).or_else(|_| self.launch());
        launched.with_context(|| format!("starting the {} again", self.program.name))
    }

    /// Starts it again with an empty state directory, as on its first day.
    pub fn restart_afresh(&mut self) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(&self.program.state)?;
        self.restart()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Peak memory and processor time over all its lives.
    pub fn usage(&self) -> Usage {
        match &self.child {
            Some(child) => self.past.then(&Usage::of(child.id())),
            None => self.past,
        }
    }

    fn launch(&mut self) -> Result<()> {
        let Program { name, binary, config, state, log, filter } = &self.program;
        fs::create_dir_all(state)?;
        let written = state.join("address");
        fs::remove_file(&written).or_else(|e| if written.exists() { Err(e) } else { Ok(()) })?;
        let stderr = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(binary);
        command.arg("--config").arg(config).env("HANDOVER_LOG", filter).env("HANDOVER_LOG_FORMAT", "json");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut child = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
        let listens = poll::until(&format!("the {name} to listen"), LISTENS_WITHIN, || {
            if let Some(status) = child.try_wait()? {
                bail!("the {name} ended at once ({status}):\n{}", tail(log));
            }
            Ok(fs::read_to_string(&written).ok().filter(|address| !address.trim().is_empty()))
        });
        self.child = Some(child);
        self.address = listens?.trim().to_owned();
        Ok(())
    }

    /// Puts the port the agent was given into its configuration, for the next start.
    fn pin_port(&self) -> Result<()> {
        let config = fs::read_to_string(&self.program.config)?;
        let pinned = config.replace("\"127.0.0.1:0\"", &format!("\"{}\"", self.address));
        Ok(fs::write(&self.program.config, pinned)?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the {}:\n{}", self.program.name, tail(&self.program.log));
        }
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = File::open(log).ok().and_then(|file| std::io::read_to_string(file).ok()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A stand-in that writes its address where its configuration says and then does what `rest` says.
    fn program(dir: &Path, rest: &str) -> Program {
        let binary = dir.join("agent.sh");
        let state = dir.join("state");
        let script = format!("#!/bin/sh\n. \"$2\"\necho hello >&2\n{rest}\n");
        fs::write(&binary, script.replace("STATE", &state.display().to_string())).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let config = dir.join("agent.conf");
        fs::write(&config, "listen=\"127.0.0.1:0\"\n").unwrap();
        Program { name: "source", binary, config, state, log: dir.join("log"), filter: "info".to_owned() }
    }

    const LISTENS: &str =
        "[ $listen = 127.0.0.1:0 ] && listen=127.0.0.1:4711\necho $listen > STATE/address\nexec sleep 600";

    #[test]
    fn a_restart_keeps_the_port() {
        let dir = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(program(dir.path(), LISTENS)).unwrap();
        assert_eq!(agent.address(), "127.0.0.1:4711");
        assert!(agent.is_running() && agent.usage().peak_kib > 0);
        agent.kill().unwrap();
        assert!(!agent.is_running());
        agent.restart().unwrap();
        assert!(agent.is_running());
        assert_eq!(agent.address(), "127.0.0.1:4711");
        assert!(fs::read_to_string(dir.path().join("agent.conf")).unwrap().contains("4711"));
        assert_eq!(agent.stop().unwrap(), None);
        agent.restart_afresh().unwrap();
        assert_eq!(fs::read_to_string(agent.log()).unwrap(), "hello\nhello\nhello\n");
    }

    #[test]
    fn an_agent_that_ends_at_once_shows_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let error = Agent::start(program(dir.path(), "exit 7")).unwrap_err().to_string();
        assert!(error.contains("hello") && error.contains('7'), "{error}");
    }
}
