//! Running one command, with all that it starts, for so long and no longer.

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

/// So much of what it prints is kept, its end.
const KEPT_BYTES: usize = 4096;
/// Once it has ended, what it has printed is waited for so long: a process that has left its group may hold the pipe open.
const PRINTED: Duration = Duration::from_millis(200);

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; none when it was killed because its time was over.
    pub status: Option<ExitStatus>,
    /// The end of what it printed, as lines that may stand in a message.
    pub lines: Vec<String>,
}

impl Ended {
    /// It ended by itself, with exit code 0.
    pub fn is_well(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// How it ended, in words.
    pub fn how(&self) -> String {
        match self.status.map(|status| (status.code(), status.signal())) {
            None => "took too long and was killed".to_owned(),
            Some((Some(code), _)) => format!("ended with exit code {code}"),
            Some((None, Some(signal))) => format!("was ended by signal {signal}"),
            Some((None, None)) => "ended in an unknown way".to_owned(),
        }
    }
}

/// A process and its group; killed when dropped. Until it is waited for, its number cannot be another's.
struct Group(Option<Child>);

impl Group {
    fn pid(child: &Child) -> Option<Pid> {
        i32::try_from(child.id()).ok().and_then(Pid::from_raw)
    }

    fn kill(child: &Child) {
        if let Some(pid) = Self::pid(child) {
            // Whoever is not there any more needs no signal.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The leader has ended: ends what it leaves behind, and only then lets its number go.
    fn end(mut self) -> io::Result<ExitStatus> {
        let Some(mut child) = self.0.take() else { return Err(io::Error::other("it was waited for")) };
        Self::kill(&child);
        child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            Self::kill(&child);
            // One that the kernel holds cannot be waited for here.
            if !matches!(child.try_wait(), Ok(Some(_))) {
                std::thread::spawn(move || child.wait());
            }
        }
    }
}

/// Runs it without a shell and without the agent's own environment, and kills its process group when it ends, when its time is over, or
/// when this is dropped.
pub async fn run(command: &[String], limit: Duration) -> io::Result<Ended> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (printed, to) = io::pipe()?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(to.try_clone()?)
        .stderr(to)
        .process_group(0)
        .spawn()?;
    let pid = Group::pid(&child).ok_or(io::ErrorKind::InvalidData)?;
    let group = Group(Some(child));
    let mut ended = end_of(pid);
    let mut printed = Receiver::from_owned_fd(printed.into())?;
    let mut kept = VecDeque::new();
    let has_ended = {
        let reading = keep(&mut printed, &mut kept);
        tokio::pin!(reading);
        let mut is_silent = false;
        let ending = async {
            loop {
                tokio::select! {
                    _ = &mut ended => return,
                    () = &mut reading, if !is_silent => is_silent = true,
                }
            }
        };
        tokio::time::timeout(limit, ending).await
    };
    let status = match has_ended {
        Ok(()) => Some(group.end()?),
        Err(_) => {
            drop(group);
            None
        }
    };
    let _ = tokio::time::timeout(PRINTED, keep(&mut printed, &mut kept)).await;
    let kept: Vec<u8> = kept.into();
    Ok(Ended { status, lines: lines(&kept) })
}

/// Says when it has ended, and leaves it to be waited for: until then its number is its own. On a thread of its own, which ends with it.
fn end_of(pid: Pid) -> oneshot::Receiver<()> {
    let (done, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), exited).is_err_and(|error| error == rustix::io::Errno::INTR) {}
        // Who does not listen any more has killed it.
        let _ = done.send(());
    });
    ended
}

/// Reads to the end, and keeps the last of it.
async fn keep(printed: &mut Receiver, kept: &mut VecDeque<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(read) = printed.read(&mut buffer).await
        && read > 0
    {
        kept.extend(&buffer[..read]);
        kept.drain(..kept.len().saturating_sub(KEPT_BYTES));
    }
}

/// Lines as they may stand in a message: without what would steer a terminal.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned();
    text.lines().map(clean).filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    async fn sh(script: &str, limit: Duration) -> Ended {
        run(&["/bin/sh", "-c", script].map(str::to_owned), limit).await.unwrap()
    }

    #[tokio::test]
    async fn it_is_told_how_a_command_ended() {
        for (script, is_well, how, last) in [
            ("echo one; echo two >&2", true, "ended with exit code 0", Some("two")),
            ("exit 3", false, "ended with exit code 3", None),
            ("printf 'a\\033[2Jb\\n'; kill -9 $$", false, "was ended by signal 9", Some("a[2Jb")),
            (
                "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end",
                true,
                "ended with exit code 0",
                Some("end"),
            ),
            ("echo $HOME; pwd", true, "ended with exit code 0", Some("/")),
        ] {
            let ended = sh(script, WITHIN).await;
            assert_eq!((ended.is_well(), ended.how().as_str()), (is_well, how), "{script}");
            assert_eq!(ended.lines.last().map(String::as_str), last, "{script}");
            assert!(ended.lines.iter().map(String::len).sum::<usize>() <= KEPT_BYTES);
        }
    }

    #[tokio::test]
    async fn none_of_its_processes_outlives_it() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        for (end, limit) in [("exit 1", WITHIN), ("wait", Duration::from_millis(300))] {
            let ended = sh(&format!("sleep 600 & echo $$ $! > {}; {end}", pids.display()), limit).await;
            assert_eq!(ended.status.is_none(), end == "wait");
            for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
                let runs = || {
                    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                    stat.rsplit(')')
                        .next()
                        .is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
                };
                while runs() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_run() {
        run(&["/nowhere/at/all".to_owned()], WITHIN).await.unwrap_err();
        run(&[], WITHIN).await.unwrap_err();
    }
}
