//! A certificate that a program obtains: an ACME client, or whatever else this host's administrators trust.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process_group};

use crate::material::{Pair, Unfit};
use crate::place;

/// No program may take longer: an authority that checks DNS waits for it to spread.
const LIMIT: Duration = Duration::from_secs(600);
/// Bytes of what it prints last that are told.
const TOLD_BYTES: usize = 400;

/// Ends the program with all that it has started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Whoever is not there any more needs no signal.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs the program, which is to write the chain to `$HANDOVER_CERTIFICATE` and the key to `$HANDOVER_KEY`, for `$HANDOVER_NAMES`
/// (separated by commas). Both lie in `directory`, which is made for it, for the agent alone, and is gone afterwards.
pub async fn obtain(command: &[String], names: &[String], directory: &Path) -> Result<Pair, Unfit> {
    let hint = "run it by hand with the same environment; see docs/certificates.md";
    let [program, arguments @ ..] = command else {
        return Err(Unfit::new("`acme_command` names no program", hint));
    };
    trusted(Path::new(program))?;
    let unusable = |error: std::io::Error| Unfit::new(format!("{program} cannot be run ({error})"), hint);
    clear(directory).and_then(|()| place::make_directory(directory)).map_err(unusable)?;
    let (chain, key) = (directory.join("chain.pem"), directory.join("key.pem"));
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("HOME", directory)
        .env("HANDOVER_NAMES", names.join(","))
        .env("HANDOVER_CERTIFICATE", &chain)
        .env("HANDOVER_KEY", &key)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    run(command, program).await?;
    let read = |path: &Path| {
        let read = place::read(path).map_err(unusable)?;
        read.ok_or_else(|| Unfit::new(format!("{program} has not written {}", path.display()), hint))
    };
    let pair = Pair::read(&read(&chain)?.contents, &read(&key)?.contents);
    clear(directory).map_err(unusable)?;
    pair
}

async fn run(mut command: tokio::process::Command, program: &str) -> Result<(), Unfit> {
    let hint = "put right what it complains of, then resume";
    let unusable = |error: std::io::Error| Unfit::new(format!("{program} cannot be run ({error})"), hint);
    let child = command.spawn().map_err(unusable)?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = Group(pid);
    let Ok(output) = tokio::time::timeout(LIMIT, child.wait_with_output()).await else {
        let what = format!("{program} took longer than {} s and was ended", LIMIT.as_secs());
        return Err(Unfit::new(what, hint));
    };
    // It has been waited for: its number may be another's by now.
    group.0 = None;
    let output = output.map_err(unusable)?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let last: String =
        printed.trim().chars().rev().take(TOLD_BYTES).collect::<Vec<_>>().into_iter().rev().collect();
    Err(Unfit::new(format!("{program} failed ({}), saying: {last}", output.status), hint))
}

/// Takes away the directory of a program.
pub fn clear(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a program that somebody else than root and the agent's user can have written: whoever can, acts as the agent.
pub fn trusted(program: &Path) -> Result<(), Unfit> {
    let hint = "chown root and chmod go-w it, and look at what it holds now";
    let refuse = |what: String, hint: &str| Err(Unfit::new(what, hint));
    let writable = |found: &Metadata| {
        let is_own = [0, geteuid().as_raw()].contains(&found.uid());
        let is_sticky = found.is_dir() && found.mode() & 0o1000 != 0;
        !is_own || (found.mode() & 0o022 != 0 && !is_sticky)
    };
    let real = match std::fs::canonicalize(program) {
        Ok(real) => real,
        Err(error) => {
            return refuse(format!("{} cannot be looked at: {error}", program.display()), "is it installed?");
        }
    };
    for path in real.ancestors() {
        match path.symlink_metadata() {
            Ok(found) if path == real && (!found.is_file() || found.mode() & 0o111 == 0) => {
                return refuse(format!("{} is no program", path.display()), "chmod 755 it");
            }
            Ok(found) if writable(&found) => {
                return refuse(format!("{} may be written to by others", path.display()), hint);
            }
            Ok(_) => {}
            Err(error) => return refuse(format!("{}: {error}", path.display()), hint),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
