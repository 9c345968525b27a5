//! Whether a lab can run on this machine, and if not, why, in words.

use std::path::Path;
use std::process::Command;

use crate::bed::Output;

/// The programs a lab needs, and the Debian packages that bring them.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/systemd-nspawn", "systemd-container"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/dpkg-deb", "dpkg"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/unshare", "util-linux"),
];

/// Why no lab can run here; `None` if one can.
pub fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("booting hosts needs root".to_owned());
    }
    if let Some((program, package)) = PROGRAMS.iter().find(|(program, _)| !Path::new(program).exists()) {
        return Some(format!("{program} is missing: apt-get install {package}"));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("this kernel gives no TAP devices (/dev/net/tun is missing)".to_owned());
    }
    let mut try_it = Command::new("unshare");
    try_it.args(["--net", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "true"]);
    match Output::of(&mut try_it) {
        Ok(output) if output.code == Some(0) => None,
        Ok(output) => Some(format!("namespaces cannot be made here: {}", output.text().trim())),
        Err(error) => Some(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::locate::workspace_root;

    /// Where there is no lab, its tests are left out by their module's name.
    #[test]
    fn what_needs_hosts_is_among_the_tests_of_the_lab() {
        let tests = workspace_root().join("tests/tests");
        let own = [tests.join("e2e/lab.rs"), tests.join("e2e/lab")];
        for entry in walkdir::WalkDir::new(&tests) {
            let path = entry.unwrap().into_path();
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            if !is_source || own.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("lab::"), "{} belongs below {}", path.display(), own[1].display());
        }
    }
}
