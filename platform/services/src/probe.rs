//! Asking a service once whether it is well.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process;
use crate::section::Check;

/// One question takes no longer; a service that does not answer may answer the next.
const ONE_QUESTION: Duration = Duration::from_secs(10);
/// A status line is not longer.
const STATUS_LINE: u64 = 256;
/// Of what a command printed, so much is told.
const TOLD_CHARS: usize = 300;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Asks; what is not well with it, in words. Takes no longer than `limit`.
pub async fn ask(check: &Check, limit: Duration) -> Result<(), String> {
    let limit = limit.min(ONE_QUESTION);
    match check {
        Check::Tcp { address } => {
            let asked = tokio::time::timeout(limit, TcpStream::connect(address)).await;
            let problem = match asked {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            Err(format!("tcp://{address}: {problem}"))
        }
        Check::Http { address, host, path } => {
            let told = |problem: String| format!("http://{host}{path}: {problem}");
            match tokio::time::timeout(limit, get(address, host, path)).await {
                Ok(Ok(200..=399)) => Ok(()),
                Ok(Ok(status)) => Err(told(format!("it answers with status {status}"))),
                Ok(Err(error)) => Err(told(error.to_string())),
                Err(_) => Err(told("no answer".to_owned())),
            }
        }
        Check::Command(command) => {
            let told = |problem: String| format!("{}: {problem}", command[0]);
            refuse_others(&command[0]).map_err(told)?;
            match process::run(command, limit).await {
                Ok(ended) if ended.is_well() => Ok(()),
                Ok(ended) => {
                    let last: String =
                        ended.lines.last().iter().flat_map(|line| line.chars()).take(TOLD_CHARS).collect();
                    let saying = if last.is_empty() { String::new() } else { format!(", saying: {last}") };
                    Err(told(format!("it {}{saying}", ended.how())))
                }
                Err(error) => Err(told(format!("it cannot be run: {error}"))),
            }
        }
    }
}

/// Refuses an executable that somebody else may have written: it would act as the agent.
fn refuse_others(program: &str) -> Result<(), String> {
    let found = std::fs::metadata(program).map_err(|error| format!("it cannot be run: {error}"))?;
    let is_trusted = found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw();
    if is_trusted && found.mode() & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    Err("it is not run: others than root or the agent's user may write to it (chown root and chmod go-w it)"
        .to_owned())
}

/// The status of the answer to a GET.
async fn get(address: &str, host: &str, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: handover\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    let mut answer = stream.take(STATUS_LINE);
    while !line.contains(&b'\n') && answer.read_buf(&mut line).await? > 0 {}
    status(&line).ok_or_else(|| io::Error::other("what answers does not speak HTTP"))
}

fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line.split(|byte| *byte == b'\n').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    version.starts_with("HTTP/1.").then_some(())?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tokio::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Answers every connection with these bytes; nothing: it never answers.
    async fn server(answer: &'static [u8]) -> (tokio::task::JoinHandle<()>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = async move {
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !answer.is_empty() && !asked.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut asked).await.unwrap();
                }
                stream.write_all(answer).await.unwrap();
                if answer.is_empty() {
                    held.push(stream);
                }
            }
        };
        (tokio::spawn(serving), address)
    }

    #[tokio::test]
    async fn answers_are_judged() {
        for (answer, problem) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nfine"[..], None),
            (b"HTTP/1.0 302 Found\r\n\r\n", None),
            (b"HTTP/1.1 503 Busy\r\n\r\n", Some("it answers with status 503")),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", Some("it answers with status 404")),
            (b"220 mail ESMTP\r\n", Some("does not speak HTTP")),
            (b"\xff\xfe", Some("does not speak HTTP")),
            (b"", Some("no answer")),
        ] {
            let (serving, address) = server(answer).await;
            let check = Check::Http { address: address.clone(), host: "localhost".into(), path: "/x".into() };
            let limit = if answer.is_empty() { Duration::from_millis(100) } else { LIMIT };
            let told = ask(&check, limit).await.err();
            assert_eq!(told.is_some(), problem.is_some(), "{told:?}");
            assert!(told.unwrap_or_default().contains(problem.unwrap_or_default()));
            ask(&Check::Tcp { address }, LIMIT).await.unwrap();
            serving.abort();
        }
    }

    #[tokio::test]
    async fn what_does_not_listen_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let told = ask(&Check::Tcp { address: address.clone() }, LIMIT).await.unwrap_err();
        assert!(told.starts_with(&format!("tcp://{address}: ")), "{told}");
        ask(&Check::Http { address, host: "x".into(), path: "/".into() }, LIMIT).await.unwrap_err();
    }

    #[tokio::test]
    async fn commands_tell_by_their_exit_code() {
        let sh = |script: &str| Check::Command(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        ask(&sh("exit 0"), LIMIT).await.unwrap();
        let told = ask(&sh("echo no queue; exit 2"), LIMIT).await.unwrap_err();
        assert_eq!(told, "/bin/sh: it ended with exit code 2, saying: no queue");
        let told = ask(&sh("sleep 600"), Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(told, "/bin/sh: it took too long and was killed");
        let told = ask(&Check::Command(vec!["/nowhere".into()]), LIMIT).await.unwrap_err();
        assert!(told.starts_with("/nowhere: it cannot be run"), "{told}");
    }

    #[tokio::test]
    async fn what_others_may_write_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("check");
        std::os::unix::fs::symlink("/bin/true", &program).unwrap();
        let check = Check::Command(vec![program.display().to_string()]);
        ask(&check, LIMIT).await.unwrap();
        std::fs::remove_file(&program).unwrap();
        std::fs::copy("/bin/true", &program).unwrap();
        for (mode, is_run) in [(0o755, true), (0o775, false), (0o757, false)] {
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
            let told = ask(&check, LIMIT).await;
            assert_eq!(told.is_ok(), is_run, "{mode:o}: {told:?}");
            assert!(told.is_ok() || told.unwrap_err().contains("chmod go-w"));
        }
    }
}
