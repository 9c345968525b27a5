//! What libraries take from the environment alone. Agents see to it by themselves, whoever starts them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use handover_mariadb::CLIENT_SETTINGS;

type Variable = (&'static str, &'static str);

/// Threads share one arena of memory. Of their own accord they have several, and each keeps what was freed in it, while chunks are
/// handed from thread to thread: what an agent needs is there several times.
const ALLOCATOR: Variable = ("MALLOC_ARENA_MAX", "1");

/// The process has executed itself, so that it does not once more: from a program that has capabilities by its file, the loader takes the
/// allocator's variable away each time.
const EXECUTED: Variable = ("HANDOVER_ENVIRONMENT", "1");

/// Gives this process the variables that its libraries are to find, by executing its program once more: it keeps its number, its
/// files and its arguments. What is set already stays as it is. To be called before anything else is begun.
///
/// Returns where nothing is to be done, or where the program cannot be executed: then the agent runs without them.
pub fn complete_environment() {
    let missing = missing(|name| std::env::var_os(name).is_some());
    if missing.is_empty() {
        return;
    }
    let error = execute_again(missing);
    super::log_to_stderr();
    tracing::warn!(%error, "settings of libraries cannot be made: with large values the agent may need some 300 MiB more");
}

/// What is to be set before the program is executed again; none where that was done, or everything is there.
fn missing(is_set: impl Fn(&str) -> bool) -> Vec<Variable> {
    if is_set(EXECUTED.0) {
        return Vec::new();
    }
    let mut missing: Vec<Variable> =
        CLIENT_SETTINGS.into_iter().chain([ALLOCATOR]).filter(|(name, _)| !is_set(name)).collect();
    if !missing.is_empty() {
        missing.push(EXECUTED);
    }
    missing
}

/// Comes back with an error alone.
fn execute_again(with: Vec<Variable>) -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    // By its path, since the name of the process is taken from it.
    let mut command = match std::env::current_exe() {
        Ok(program) => Command::new(program),
        Err(error) => return error,
    };
    if let Some(name) = name {
        command.arg0(name);
    }
    command.args(arguments).envs(with).exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_stays_and_nothing_is_done_twice() {
        let [first, second] = CLIENT_SETTINGS;
        let check = |set: &[&str], expected: &[Variable]| {
            assert_eq!(missing(|name| set.contains(&name)), expected, "{set:?}");
        };
        check(&[], &[first, second, ALLOCATOR, EXECUTED]);
        check(&[first.0, ALLOCATOR.0], &[second, EXECUTED]);
        check(&[second.0], &[first, ALLOCATOR, EXECUTED]);
        // The client's are the user's: the allocator's is to be there all the same.
        check(&[first.0, second.0], &[ALLOCATOR, EXECUTED]);
        check(&[first.0, second.0, ALLOCATOR.0], &[]);
        // As the loader leaves it.
        check(&[first.0, second.0, EXECUTED.0], &[]);
        check(&[EXECUTED.0], &[]);
    }
}
