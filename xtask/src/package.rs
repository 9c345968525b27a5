//! `cargo xtask package`: the Debian packages, of a release build.

use anyhow::Result;
use handover_tests::locate::{Binaries, Profile, target_dir};
use handover_tests::packaging;

use crate::packages;
use crate::shell::{human, say};

/// Builds the programs and packs them.
pub fn run() -> Result<()> {
    packages::install(packages::LAB)?;
    say("building the programs");
    let binaries = Binaries::build(Profile::Release)?;
    let made = packaging::build(&binaries, &target_dir()?.join("package"))?;
    for package in made.all() {
        say(format!("{} ({})", package.display(), human(package.metadata()?.len())));
    }
    Ok(())
}
