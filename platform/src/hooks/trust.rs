//! Which executables are run: those that nobody but root and the agent's own user can have written.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Why an executable is not run.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

const EXECUTABLE: u32 = 0o111;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Refuses a hook, or a directory on the way to it, that somebody else may write to: whoever can, acts as the agent.
pub fn check(directory: &Path, hook: &Path) -> Result<(), Problem> {
    let problem = |what: String, hint: &str| Problem { what, hint: hint.to_owned() };
    let look = |path: &Path| {
        fs::symlink_metadata(path).map_err(|error| {
            let hint = "is the executable in `hooks.directory` of this host's manifest, under this name?";
            problem(format!("{} cannot be looked at: {error}", path.display()), hint)
        })
    };
    let found = look(hook)?;
    if !found.is_file() {
        let hint = "put the executable itself there; it may call whatever lies elsewhere";
        return Err(problem(format!("{} is no regular file", hook.display()), hint));
    }
    if found.mode() & EXECUTABLE == 0 {
        return Err(problem(format!("{} is not executable", hook.display()), "chmod 755 it"));
    }
    let directory = fs::canonicalize(directory).map_err(|error| {
        problem(format!("{} cannot be looked at: {error}", directory.display()), "is the directory there?")
    })?;
    refuse_others(hook, &found, false)?;
    for (depth, path) in directory.ancestors().enumerate() {
        refuse_others(path, &look(path)?, depth > 0)?;
    }
    Ok(())
}

/// In a directory above, sticky is enough: nobody can put something else in the place of what is not his.
fn refuse_others(path: &Path, found: &Metadata, is_above: bool) -> Result<(), Problem> {
    let is_sticky = is_above && found.mode() & STICKY != 0;
    let is_trusted = found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw();
    let who = match (is_trusted, found.mode() & WRITABLE_BY_OTHERS) {
        (false, _) => "belongs to somebody else",
        (true, writable) if writable != 0 && !is_sticky => "may be written to by others",
        _ => return Ok(()),
    };
    Err(Problem {
        what: format!("{} {who} than root or the agent's user", path.display()),
        hint: "chown root and chmod go-w it, and look at what it holds now".to_owned(),
    })
}
