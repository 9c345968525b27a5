//! Running one executable, with all that it starts, for so long and no longer.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::{mpsc, oneshot};

/// Lines that are kept of what it prints, the last ones, and their length.
const LINES: usize = 8;
const LINE_BYTES: usize = 400;
/// Once it has ended, what it has printed is waited for so long: a process that has left its group may hold the pipe open.
const PRINTED: Duration = Duration::from_millis(200);

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// With exit code 0.
    Well,
    /// Otherwise.
    Badly {
        /// How.
        how: String,
        /// The last lines that it printed.
        last: Vec<String>,
    },
    /// It was killed when its time was over.
    Late {
        /// The last lines that it printed.
        last: Vec<String>,
    },
}

/// The process group of what runs; killed when dropped. None once its leader has been waited for: then its number may be another's.
#[derive(Clone, Default)]
struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn kill(&self) {
        if let Some(pid) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // Whoever is not there any more needs no signal.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Waits for the leader, kills what it leaves behind, and only then lets its number go. Blocks.
    fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let pid = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = pid {
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while waitid(WaitId::Pid(pid), ended).is_err_and(|error| error == rustix::io::Errno::INTR) {}
        }
        let mut group = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = group.take() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        child.wait()
    }
}

/// Kills the group unless it has ended.
struct KillOnDrop(Group);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Runs `path` with this environment and nothing else, and kills its process group when it ends, when its time is over, or when this is
/// dropped.
pub async fn run(
    path: &Path,
    environment: Vec<(&'static str, String)>,
    limit: Duration,
) -> io::Result<Ended> {
    let mut command = Command::new(path);
    command.env_clear().envs(environment);
    Ok(carry_out(command, limit).await?.0)
}

/// As [`run`], of a command that names its environment itself. Also returns the last lines that it printed, however it ended.
pub async fn carry_out(mut command: Command, limit: Duration) -> io::Result<(Ended, Vec<String>)> {
    let mut child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = Group(Arc::new(Mutex::new(i32::try_from(child.id()).ok().and_then(Pid::from_raw))));
    let killer = KillOnDrop(group.clone());
    let (to, mut printed) = mpsc::channel(64);
    listen(child.stdout.take(), to.clone());
    listen(child.stderr.take(), to);
    let (done, mut ended) = oneshot::channel();
    std::thread::spawn(move || done.send(group.wait(&mut child)));
    let mut last = VecDeque::new();
    let timer = tokio::time::sleep(limit);
    tokio::pin!(timer);
    let (mut is_late, mut is_silent) = (false, false);
    let status = loop {
        tokio::select! {
            status = &mut ended => break status,
            line = printed.recv(), if !is_silent => match line {
                Some(line) => keep(&mut last, line),
                None => is_silent = true,
            },
            () = &mut timer, if !is_late => {
                is_late = true;
                killer.0.kill();
            }
        }
    };
    let rest = async {
        while let Some(line) = printed.recv().await {
            keep(&mut last, line);
        }
    };
    let _ = tokio::time::timeout(PRINTED, rest).await;
    let status = status.map_err(io::Error::other)??;
    let last = Vec::from(last);
    let ended = match (is_late, status.success()) {
        (true, _) => Ended::Late { last: last.clone() },
        (false, true) => Ended::Well,
        (false, false) => Ended::Badly { how: how(status), last: last.clone() },
    };
    Ok((ended, last))
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn keep(last: &mut VecDeque<String>, line: String) {
    if last.len() == LINES {
        last.pop_front();
    }
    last.push_back(line);
}

/// Sends what is printed, line by line, for as long as somebody holds the pipe open and somebody listens. On a thread of its own: a
/// process that has left the group may hold it for long.
fn listen(pipe: Option<impl Read + Send + 'static>, to: mpsc::Sender<String>) {
    let Some(mut pipe) = pipe else { return };
    std::thread::spawn(move || {
        let (mut buffer, mut line) = ([0; 4096], Vec::new());
        loop {
            let read = match pipe.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            for byte in &buffer[..read] {
                match byte {
                    b'\n' if to.blocking_send(text(&mut line)).is_err() => return,
                    b'\n' => {}
                    // Of an endless line its beginning is kept.
                    _ if line.len() < LINE_BYTES => line.push(*byte),
                    _ => {}
                }
            }
            if read == 0 {
                if !line.is_empty() {
                    let _ = to.blocking_send(text(&mut line));
                }
                return;
            }
        }
    });
}

/// A line as it may stand in a message: without what would steer a terminal.
fn text(line: &mut Vec<u8>) -> String {
    let text = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).collect();
    line.clear();
    text
}
