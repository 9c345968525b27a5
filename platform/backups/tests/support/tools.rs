//! Engines' programs that a test stands before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_backups::Tools;
use handover_tests::poll;
use tempfile::TempDir;

/// How long something may take to begin.
const WITHIN: Duration = Duration::from_secs(30);

/// Programs that do something else before they do what they should: `name` is a shell script.
pub fn instead(dir: &Path, name: &str, script: &str) -> Tools {
    let programs = dir.join("programs");
    fs::create_dir_all(&programs).unwrap();
    let file = programs.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    Tools::within(vec![programs, "/usr/bin".into(), "/bin".into()])
}

/// A tar that says that it has begun, and hangs for as long as a file is there.
pub fn hanging(dir: &Path, wanted: &str) -> Tools {
    let place = dir.display();
    let hang = format!("touch '{place}/reached'; while [ -e '{place}/hang' ]; do sleep 0.02; done");
    instead(dir, "tar", &format!("case \"$1\" in {wanted}) {hang};; esac\nexec /usr/bin/tar \"$@\""))
}

/// Waits until it has.
pub async fn reached(dir: &TempDir) {
    let file = dir.path().join("reached");
    let wait = tokio::task::spawn_blocking(move || {
        poll::until("the tool to begin", WITHIN, || Ok(file.exists().then_some(()))).unwrap();
    });
    wait.await.unwrap();
}

/// What becomes of a run of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing of what it was told is done.
    Before,
    /// The first half of the lines that it was told are carried out.
    Half,
    /// All of it is done, and nobody hears of it.
    After,
    /// It fails.
    Failed,
}

/// Programs that are counted: one of their runs is cut short.
pub struct Counted {
    dir: PathBuf,
    /// They, and what they need.
    pub tools: Tools,
}

impl Counted {
    /// These programs of a directory. `server` is a file with the number of the server's process: it is killed with the run that is cut, where
    /// one is named.
    pub fn of(dir: &Path, directory: &Path, programs: &[&str], server: Option<&Path>) -> Self {
        let at = dir.join("counted");
        fs::create_dir_all(&at).unwrap();
        let (state, own) = (at.display(), directory.display());
        // A program that hangs is killed by who has run it.
        let end = match server {
            Some(file) => format!("kill -9 $(head -n 1 '{}'); exit 1", file.display()),
            None => "while :; do sleep 0.02; done".to_owned(),
        };
        let mut tools = Tools::default();
        for name in programs {
            let script = format!(
                "run() {{ '{own}/{name}' \"$@\"; }}
if [ -e '{state}/at' ] && [ \"$1\" != --version ]; then
  n=$(($(cat '{state}/runs') + 1)); echo $n > '{state}/runs'
  if [ $n = $(cat '{state}/at') ]; then
    case $(cat '{state}/how') in
      Half) cat > '{state}/told'; head -n $(($(wc -l < '{state}/told') / 2)) '{state}/told' | run \"$@\" > /dev/null;;
      After) run \"$@\" > /dev/null;;
      Failed) touch '{state}/reached'; echo 'it is out of order' >&2; exit 1;;
    esac
    touch '{state}/reached'
    {end}
  fi
fi
exec '{own}/{name}' \"$@\""
            );
            tools = instead(dir, name, &script);
        }
        Self { dir: at, tools }
    }

    /// The run of this number is cut short, from now on.
    pub fn arm(&self, at: usize, how: Cut) {
        let _ = fs::remove_file(self.dir.join("reached"));
        fs::write(self.dir.join("runs"), "0").unwrap();
        fs::write(self.dir.join("how"), format!("{how:?}")).unwrap();
        fs::write(self.dir.join("at"), at.to_string()).unwrap();
    }

    /// Nothing is cut short any more.
    pub fn disarm(&self) {
        let _ = fs::remove_file(self.dir.join("at"));
    }

    /// Whether it has come to that.
    pub fn is_reached(&self) -> bool {
        self.dir.join("reached").exists()
    }
}
