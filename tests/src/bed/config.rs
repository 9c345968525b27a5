//! The agents' configuration and manifests, as an operator would write them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::Dataset;

/// Writes `appliance.toml` for both sides, and makes the directories that datasets land in.
pub fn write_manifests(root: &Path, datasets: &[Dataset]) -> Result<()> {
    for side in ["source", "target"] {
        fs::create_dir_all(root.join(side))?;
        let mut text = format!(
            "[appliance]\nname = \"demo\"\nrelease = \"1.0\"\nrole = \"standalone\"\nhost_name = \"{side}-host\"\n\
             domain = \"demo.example\"\naddresses = []\n"
        );
        for dataset in datasets {
            dataset_table(&mut text, side, dataset)?;
        }
        fs::write(root.join(side).join("appliance.toml"), text)?;
    }
    Ok(())
}

fn dataset_table(text: &mut String, side: &str, dataset: &Dataset) -> Result<()> {
    let pick = |source, target| if side == "source" { source } else { target };
    match dataset {
        Dataset::Database { name, source, target } => {
            let path = pick(source, target);
            make_parent(path)?;
            write!(
                text,
                "\n[[database]]\nname = \"{name}\"\nurl = \"sqlite:{}\"\nexclude = []\n",
                plain(path)?
            )?;
        }
        Dataset::Server { name, source, target } => {
            let url = if side == "source" { source } else { target };
            write!(text, "\n[[database]]\nname = \"{name}\"\nurl = \"{url}\"\n")?;
        }
        Dataset::Files { name, source, target } => {
            let path = pick(source, target);
            fs::create_dir_all(path)?;
            write!(
                text,
                "\n[[files]]\nname = \"{name}\"\nroot = \"{}\"\ninclude = []\nexclude = []\n",
                plain(path)?
            )?;
        }
        Dataset::Logs { name, source, target } => {
            let path = pick(source, target);
            fs::create_dir_all(path)?;
            let path = plain(path)?;
            write!(text, "\n[[log]]\nname = \"{name}\"\nroot = \"{path}\"\npattern = [\"*.log*\"]\n")?;
        }
    }
    Ok(())
}

fn make_parent(path: &Path) -> Result<()> {
    Ok(path.parent().map_or(Ok(()), fs::create_dir_all)?)
}

/// Writes `source.toml`.
pub fn write_source(root: &Path) -> Result<()> {
    Ok(fs::write(root.join("source/source.toml"), agent(root, "source")?)?)
}

/// Limits of signals that are off.
const OFF: &str = "cpu_percent = \"off\"\ndisk_percent = \"off\"\nreplica_lag_seconds = \"off\"\nthreads = \"off\"\nlatency_ms = \"off\"\n";

/// Writes `target.toml` for a source that listens at `address`.
pub fn write_target(root: &Path, address: &str) -> Result<()> {
    // Both agents, all servers and whoever else is at work share this machine: its load is no sign of users.
    let text =
        agent(root, "target")? + "\n[throttle]\n" + OFF + &format!("\n[source]\naddress = \"{address}\"\n");
    Ok(fs::write(root.join("target/target.toml"), text)?)
}

fn agent(root: &Path, side: &str) -> Result<String> {
    let root = plain(root)?;
    Ok(format!(
        "listen = \"127.0.0.1:0\"\nmanifest = \"{root}/{side}/appliance.toml\"\nstate = \"{root}/{side}/state\"\n\n\
         [tls]\ndir = \"{root}/pki/{side}\"\n"
    ))
}

/// The path as it may stand between quotes in TOML and in a URL.
fn plain(path: &Path) -> Result<String> {
    let text = path.display().to_string();
    ensure!(
        path.is_absolute() && !text.contains(['"', '\\', '?', '#', '%']),
        "{text:?} does not do for a test bed"
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write_manifests(root, &super::super::appliance_datasets(root)).unwrap();
        write_source(root).unwrap();
        write_target(root, "127.0.0.1:99").unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert!(
            read("target/appliance.toml")
                .contains(&format!("url = \"sqlite:{}/target/data/app.db\"", root.display()))
        );
        assert!(
            read("source/appliance.toml")
                .contains(&format!("root = \"{}/source/data/files\"", root.display()))
        );
        assert!(read("target/target.toml").ends_with("[source]\naddress = \"127.0.0.1:99\"\n"));
        assert!(root.join("target/data/files").is_dir() && read("source/source.toml").contains("pki/source"));
    }
}
