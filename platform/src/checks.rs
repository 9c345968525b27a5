//! The vendor's check scripts, run on a scratch database without a network.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use handover_engine::name::DatasetName;
use handover_engine::rehearsal::report::Checked;

use crate::hooks::run::{self, Ended};
use crate::hooks::trust;
use crate::manifest::{CheckScriptSection, Manifest};

/// Runs a command in a network namespace of its own, which has nothing in it.
const UNSHARE: &str = "/usr/bin/unshare";
/// How it is told to: as root, and as another user where the kernel lets one.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-current-user", "--net"]];
/// How long finding out may take.
const PROBE: Duration = Duration::from_secs(10);

/// This host's check scripts.
#[derive(Debug)]
pub struct CheckScripts {
    scripts: Vec<CheckScriptSection>,
}

/// How a script is kept from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seal {
    /// It is not, as the manifest says.
    Open,
    /// By this way of `unshare`.
    Sealed(&'static [&'static str]),
}

impl CheckScripts {
    /// Those that `manifest` names.
    pub fn new(manifest: &Manifest) -> Self {
        let mut scripts = manifest.check_script.clone();
        scripts.sort_by(|a, b| a.name.cmp(&b.name));
        Self { scripts }
    }

    /// Runs those that look at a database. `environment` tells them where it is; of the agent's own nothing is passed on.
    pub async fn run(&self, dataset: &DatasetName, environment: &[(String, String)]) -> Vec<Checked> {
        let mut out = Vec::new();
        let is_meant =
            |script: &&CheckScriptSection| script.database.as_ref().is_none_or(|name| name == dataset);
        for script in self.scripts.iter().filter(is_meant) {
            let (well, said) = match run_one(script, dataset, environment).await {
                Ok(said) => (true, said),
                Err(said) => (false, said),
            };
            tracing::info!(script = script.name, %dataset, well, "a check script has run");
            out.push(Checked { name: script.name.clone(), dataset: dataset.clone(), well, said });
        }
        out
    }
}

/// What it printed last; with how it ended before, where that is not well.
async fn run_one(
    script: &CheckScriptSection,
    dataset: &DatasetName,
    environment: &[(String, String)],
) -> Result<Vec<String>, Vec<String>> {
    let directory = script.program.parent().unwrap_or(Path::new("/"));
    trust::check(directory, &script.program)
        .map_err(|problem| vec![format!("it is not run: {} ({})", problem.what, problem.hint)])?;
    let seal = if script.network { Seal::Open } else { seal().await.map_err(|why| vec![why])? };
    let mut command = command(seal, &script.program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("HANDOVER_DATASET", dataset.as_str())
        .envs(environment.iter().cloned());
    let ran = run::carry_out(command, script.limit()).await;
    let (ended, last) = ran.map_err(|error| vec![format!("it cannot be run: {error}")])?;
    let bad = match ended {
        Ended::Well => return Ok(last),
        Ended::Badly { how, .. } => format!("it {how}"),
        Ended::Late { .. } => format!("it took longer than {} s and was killed", script.seconds),
    };
    Err([vec![bad], last].concat())
}

fn command(seal: Seal, program: &Path) -> Command {
    match seal {
        Seal::Open => Command::new(program),
        Seal::Sealed(way) => {
            let mut command = Command::new(UNSHARE);
            command.args(way).arg("--").arg(program);
            command
        }
    }
}

/// The way that this host seals a process off; none is no reason to run it unsealed.
async fn seal() -> Result<Seal, String> {
    for way in WAYS {
        let mut command = command(Seal::Sealed(way), Path::new("/bin/true"));
        command.env_clear();
        if run::carry_out(command, PROBE).await.is_ok_and(|(ended, _)| ended == Ended::Well) {
            return Ok(Seal::Sealed(way));
        }
    }
    Err(format!(
        "it is not run: this host cannot seal it off from the network ({UNSHARE} --net is refused); install util-linux, let the \
         agent make network namespaces, or write `network = true` in its section"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(dir: &Path, text: &str, network: bool) -> CheckScriptSection {
        let program = dir.join("check");
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        CheckScriptSection { name: "check".to_owned(), program, database: None, seconds: 20, network }
    }

    async fn said(text: &str, network: bool) -> (bool, String) {
        let dir = tempfile::tempdir().unwrap();
        let scripts = CheckScripts { scripts: vec![script(dir.path(), text, network)] };
        let environment = [("HANDOVER_DATABASE".to_owned(), "/x.db".to_owned())];
        let checked = scripts.run(&"main".parse().unwrap(), &environment).await.remove(0);
        (checked.well, checked.said.join("|"))
    }

    #[tokio::test]
    async fn a_script_is_told_the_database_and_nothing_else() {
        assert_eq!(
            said("echo $HANDOVER_DATASET $HANDOVER_DATABASE $HOME", true).await,
            (true, "main /x.db".to_owned())
        );
        assert_eq!(said("echo odd; exit 3", true).await, (false, "it ended with exit code 3|odd".to_owned()));
    }

    #[tokio::test]
    async fn a_script_has_no_network_unless_it_may() {
        let count = "tail -n +3 /proc/net/dev | wc -l";
        let sealed = said(count, false).await;
        if sealed.1.contains("it is not run") {
            // A host without the possibility: refused, never run unsealed.
            assert!(!sealed.0 && sealed.1.contains("network = true"), "{sealed:?}");
            return;
        }
        assert_eq!(sealed, (true, "1".to_owned()), "only a loopback that is down");
        let open = said("readlink /proc/self/ns/net", true).await;
        assert_ne!(said("readlink /proc/self/ns/net", false).await, open);
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(open.1, ours.display().to_string());
    }
}
