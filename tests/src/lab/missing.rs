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
