//! Engines' programs: found, run, and quoted when they fail.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::work::io_failed;

/// Lines of what a program says that are kept: the first ones and the last ones.
const LINES: usize = 1000;
/// Lines that a failure quotes.
const QUOTED: usize = 5;
const LINE_BYTES: usize = 400;

/// What to do about what programs say.
const HINTS: [(&str, &str); 7] = [
    ("No space left on device", FULL),
    // tar, of a file that it could write a part of.
    ("Wrote only ", FULL),
    ("Disk quota exceeded", FULL),
    ("is full", FULL),
    ("Disk full", FULL),
    ("Lock wait timeout", "its tables are in use: stop its services, and try again"),
    ("TLS/SSL error", "`tls` and `ca` in the `url` say which certificates are trusted (docs/mariadb.md)"),
];
const FULL: &str =
    "free space where it is written: at the dataset's place, or where its server keeps its data";
const OTHERWISE: &str =
    "put right what it says, and try again (docs/backups.md tells which privileges it needs)";

/// Where programs are looked for.
#[derive(Debug, Clone)]
pub struct Tools {
    directories: Vec<PathBuf>,
}

impl Default for Tools {
    /// Where the agent's environment says.
    fn default() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        Self { directories: std::env::split_paths(&path).collect() }
    }
}

impl Tools {
    /// In these directories alone.
    pub fn within(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// The first of `names` that is there; else what to install.
    pub fn find(&self, item: &str, names: &[&str], package: &str) -> Result<PathBuf> {
        let places =
            names.iter().flat_map(|name| self.directories.iter().map(move |directory| directory.join(name)));
        places.into_iter().find(|place| place.is_file()).ok_or_else(|| {
            let name = names.first().copied().unwrap_or_default();
            Failure::operator(item, format!("its backups need {name}, which is not on this host"))
                .hint(format!("apt-get install {package}"))
        })
    }

    /// A program to run, with nothing of this process' environment that could redirect it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C");
        if let Ok(path) = std::env::join_paths(&self.directories) {
            command.env("PATH", path);
        }
        command.current_dir("/").kill_on_drop(true);
        command
    }
}

/// A program that runs. It is killed when this is dropped.
pub struct Running {
    child: Child,
    said: JoinHandle<Vec<String>>,
    name: String,
    item: String,
}

/// How a program ended.
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Lines that it said.
    pub said: Vec<String>,
    name: String,
    item: String,
}

impl Ended {
    /// Its failure, in its own words.
    pub fn failure(&self) -> Failure {
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        };
        let last = self.said.len().saturating_sub(QUOTED);
        let said = self.said[last..].join("; ");
        let what = format!("{} {how}", self.name);
        if said.is_empty() {
            return Failure::operator(&self.item, what);
        }
        let hint = HINTS.iter().find(|(words, _)| said.contains(*words)).map_or(OTHERWISE, |(_, hint)| *hint);
        Failure::operator(&self.item, format!("{what}: {said}")).hint(hint)
    }
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command, item: &str) -> Result<Self> {
        let program = PathBuf::from(command.as_std().get_program());
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        command.stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            Failure::operator(item, format!("{} cannot be run", program.display())).because(error)
        })?;
        let stderr = child.stderr.take();
        let said = tokio::spawn(async move {
            let mut lines = Vec::new();
            if let Some(stderr) = stderr {
                let mut from = BufReader::new(stderr);
                let mut line = Vec::new();
                while from.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
                    if lines.len() == LINES {
                        lines.remove(LINES / 2);
                    }
                    lines.push(shown(&line));
                    line.clear();
                }
            }
            lines
        });
        Ok(Self { child, said, name, item: item.to_owned() })
    }

    /// What it prints.
    pub fn output(&mut self) -> Result<ChildStdout> {
        let none = || Failure::permanent(&self.item, format!("{} prints nothing", self.name));
        self.child.stdout.take().ok_or_else(none)
    }

    /// Gives it what comes, and then the end of it. A program that takes no more has ended, and says why.
    pub async fn feed(&mut self, mut pieces: mpsc::Receiver<std::io::Result<Bytes>>) -> Result<()> {
        let Some(mut stdin) = self.child.stdin.take() else { return Ok(()) };
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map_err(|error| {
                Failure::operator(&self.item, "the backup cannot be unpacked")
                    .because(error)
                    .hint("`handover backups --verify` looks at it; restore another one")
            })?;
            if stdin.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = stdin.shutdown().await;
        Ok(())
    }

    /// As [`Self::feed`], of one text.
    pub async fn tell(&mut self, text: &[u8]) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(text).await;
            let _ = stdin.shutdown().await;
        }
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Result<Ended> {
        let status = self.child.wait().await.map_err(|error| {
            Failure::operator(&self.item, format!("{} cannot be waited for", self.name)).because(error)
        })?;
        let said = (&mut self.said).await.unwrap_or_default();
        Ok(Ended { status, said, name: self.name, item: self.item })
    }

    /// Waits for its end, which must be a good one.
    pub async fn succeed(self) -> Result<()> {
        let ended = self.end().await?;
        if ended.status.success() { Ok(()) } else { Err(ended.failure()) }
    }
}

/// Runs a program to its good end; what it prints.
pub async fn printed(mut command: Command, item: &str, input: &[u8]) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(command, item)?;
    let (mut output, mut out) = (running.output()?, Vec::new());
    let (_, read) = tokio::join!(running.tell(input), output.read_to_end(&mut out));
    running.succeed().await?;
    read.map_err(|error| Failure::operator(item, "what a tool prints cannot be read").because(error))?;
    Ok(out)
}

/// The first line that a program prints of its version.
pub async fn version(tools: &Tools, program: &Path, item: &str) -> Result<String> {
    let mut command = tools.command(program);
    command.arg("--version");
    let text = printed(command, item, b"").await?;
    Ok(shown(text.split(|byte| *byte == b'\n').next().unwrap_or_default()))
}

/// A line as it may stand in a message: without what would steer a terminal.
fn shown(line: &[u8]) -> String {
    let line = &line[..line.len().min(LINE_BYTES)];
    String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

/// A file for the agent alone, gone with its last user: passwords are never on a command line.
pub struct PrivateFile(PathBuf);

impl PrivateFile {
    /// In `directory`, with these contents.
    pub fn new(directory: &Path, contents: &[u8]) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = directory.join(format!("private-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let make = || {
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(contents)
        };
        let made = make().map_err(io_failed(&path, "cannot be written"));
        let file = Self(path);
        made.map(|()| file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
