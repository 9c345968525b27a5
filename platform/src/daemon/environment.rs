//! What libraries take from the environment alone. Agents see to it by themselves, whoever starts them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use handover_mariadb::CLIENT_SETTINGS;

type Variable = (&'static str, &'static str);

/// Threads share one arena of memory. Of their own accord they have several, and each keeps what was freed in it, while chunks are
/// handed from thread to thread: what an agent needs is there several times.
const ALLOCATOR: Variable = ("MALLOC_ARENA_MAX", "1");

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

/// None, once those of the client are there, so that the program is executed again once: from one that has capabilities by its
/// file, the loader takes the allocator's away each time.
fn missing(is_set: impl Fn(&str) -> bool) -> Vec<Variable> {
    if CLIENT_SETTINGS.iter().all(|(name, _)| is_set(name)) {
        return Vec::new();
    }
    CLIENT_SETTINGS.into_iter().chain([ALLOCATOR]).filter(|(name, _)| !is_set(name)).collect()
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
        check(&[], &[first, second, ALLOCATOR]);
        check(&[first.0, ALLOCATOR.0], &[second]);
        check(&[second.0], &[first, ALLOCATOR]);
        check(&[first.0, second.0, ALLOCATOR.0], &[]);
        check(&[first.0, second.0], &[]);
    }
}
