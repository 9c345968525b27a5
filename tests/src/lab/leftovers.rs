//! What a lab leaves in the system, and how it goes: by control group, so that it is found whoever started it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::host::run;
use super::{hosts_dir, label};
use crate::bed::Output;
use crate::poll;

const GROUPS: &str = "/sys/fs/cgroup";
const NSPAWN: &str = "/run/systemd/nspawn";
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Ends and removes all that a lab in `dir` may have, in the order in which it can be removed.
pub fn clear(lab: &str, dir: &Path) -> Result<()> {
    let prefix = label(lab, "");
    for group in groups_of(&prefix) {
        empty(&group)?;
        remove_group(&group);
    }
    for host in fs::read_dir(hosts_dir(dir)).into_iter().flatten().flatten() {
        let root = host.path().join("root");
        if Output::of(Command::new("mountpoint").arg("--quiet").arg(&root))?.code == Some(0) {
            run("umount", &["--recursive", &root.display().to_string()])?;
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_labelled(&name, &prefix) {
            run("ip", &["netns", "delete", &name])?;
        }
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// A command that will run in a control group of its own; its arguments are still to come.
pub fn within_group(label: &str, program: &str) -> Result<Command> {
    let mut enter = String::new();
    for root in roots() {
        let group = root.join(label);
        fs::create_dir_all(&group)?;
        enter += &format!("echo $$ > '{}/cgroup.procs'; ", group.display());
    }
    let mut command = Command::new("sh");
    command.arg("-ec").arg(enter + "exec \"$@\"").arg("sh").arg(program);
    Ok(command)
}

/// Whether anything runs in a control group or below it.
pub fn is_inhabited(label: &str) -> bool {
    roots().iter().any(|root| !inhabitants(&root.join(label)).is_empty())
}

/// nspawn wants its run-time directory in memory.
pub fn make_room_for_nspawn() -> Result<()> {
    fs::create_dir_all(NSPAWN)?;
    let kind = Output::of(Command::new("stat").args(["--file-system", "--format=%T", NSPAWN]))?.success()?;
    if kind.stdout.trim() != "tmpfs" {
        run("mount", &["-t", "tmpfs", "tmpfs", NSPAWN])?;
    }
    Ok(())
}

/// Whether a label is of this lab, and of no other whose name begins with this one's: hosts have no hyphen in their names.
fn is_labelled(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|host| !host.contains('-'))
}

/// Where groups are made: in systemd's own hierarchies, where there are several.
fn roots() -> Vec<PathBuf> {
    let split: Vec<_> = ["systemd", "unified"]
        .iter()
        .map(|name| Path::new(GROUPS).join(name))
        .filter(|p| p.is_dir())
        .collect();
    if split.is_empty() { vec![PathBuf::from(GROUPS)] } else { split }
}

fn groups_of(prefix: &str) -> Vec<PathBuf> {
    let entries = roots().into_iter().flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
    let named = entries.filter(|entry| is_labelled(&entry.file_name().to_string_lossy(), prefix));
    named.map(|entry| entry.path()).collect()
}

fn empty(group: &Path) -> Result<()> {
    poll::until(&format!("{} to be empty", group.display()), GONE_WITHIN, || {
        let left = inhabitants(group);
        for pid in &left {
            // It may have ended meanwhile.
            let _ = kill_process(*pid, Signal::KILL);
        }
        Ok(left.is_empty().then_some(()))
    })
}

fn inhabitants(group: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    for dir in walkdir::WalkDir::new(group).into_iter().flatten().filter(|entry| entry.file_type().is_dir()) {
        let listed = fs::read_to_string(dir.path().join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw));
    }
    found
}

/// Depth first; a group that somebody else has removed is gone all the same.
fn remove_group(group: &Path) {
    let inner = walkdir::WalkDir::new(group).contents_first(true).into_iter().flatten();
    for dir in inner.filter(|entry| entry.file_type().is_dir()) {
        let _ = fs::remove_dir(dir.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_not_taken_for_one_whose_name_goes_on() {
        let wizard = label("wizard", "");
        assert!(
            is_labelled(&label("wizard", "a"), &wizard) && is_labelled(&label("wizard", "link"), &wizard)
        );
        assert!(!is_labelled(&label("wizard-crash", "a"), &wizard));
    }
}
