//! A real file tree, copied whole (`tree`) and passed over again with nothing changed (`unchanged`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use handover_tests::bed::{Bed, Dataset};
use handover_tests::compare;
use handover_tests::locate::Binaries;

use super::{Case, Options, bench_dir, pairs, sshd::Sshd, timed_pass};
use crate::packages;
use crate::shell::{human, run_visibly, say, seconds};
use crate::workplace::{Workplace, remove};

const PEER: &str = "rsync -aHAX --fsync over ssh";
const RSYNC: [&str; 2] = ["-aHAX", "--fsync"];
/// What the base tree holds besides the essential packages: about 10,000 files, 500 MB.
const INCLUDE: &str =
    "systemd,systemd-sysv,dbus,libpam-systemd,mariadb-server,openssl,iproute2,procps,ca-certificates";

/// Runs both cases.
pub fn run(binaries: &Binaries, options: &Options) -> Result<Vec<Case>> {
    packages::install(packages::FILE_PEERS)?;
    let tree = debian_tree()?;
    let place = Workplace::fresh("bench/files")?;
    let sshd = Sshd::start(&place.path().join("ssh"))?;
    let (ours_to, peer_to) = (place.path().join("bed/target/data/tree"), place.path().join("peer"));
    let dataset = Dataset::Files { name: "tree".to_owned(), source: tree.clone(), target: ours_to.clone() };
    let root = place.path().join("bed");
    fs::create_dir_all(&root)?;
    let mut bed = Bed::at(&root, binaries.clone(), vec![dataset], "info")?;
    let size = compare::trees(&tree, &tree)?;
    say(format!("a tree of {} files, {}: {} pairs", size.files, human(size.bytes), options.pairs));
    let measured = pairs(
        options.pairs,
        |_| ours(&mut bed, &ours_to),
        |_| {
            empty(&peer_to)?;
            Ok(vec![timed_rsync(&sshd, &tree, &peer_to)?, timed_rsync(&sshd, &tree, &peer_to)?])
        },
    )?;
    let arrived = compare::trees(&tree, &ours_to)?;
    ensure!(arrived.found == 0, "our copy is not the same: {}", arrived.describe());
    let case = |name, n: usize| {
        Case::of(name, PEER, &measured.iter().map(|(o, p)| (o[n], p[n])).collect::<Vec<_>>())
    };
    Ok(vec![case("tree", 0), case("unchanged", 1)])
}

/// A first pass onto an empty target with an empty journal, and a second one.
fn ours(bed: &mut Bed, to: &Path) -> Result<Vec<f64>> {
    bed.target.kill()?;
    empty(to)?;
    bed.target.restart_afresh()?;
    let digest = bed.plan()?;
    Ok(vec![timed_pass(bed, &["start", &digest])?, timed_pass(bed, &["sync"])?])
}

fn timed_rsync(sshd: &Sshd, from: &Path, to: &Path) -> Result<f64> {
    rustix::fs::sync();
    seconds(|| sshd.rsync(&RSYNC, from, to))
}

fn empty(dir: &Path) -> Result<()> {
    remove(dir)?;
    Ok(fs::create_dir_all(dir)?)
}

/// A Debian base tree, kept from one run to the next.
fn debian_tree() -> Result<PathBuf> {
    let cache = bench_dir()?.join("cache");
    let (tree, making) = (cache.join("tree"), cache.join("tree.part"));
    if tree.is_dir() {
        return Ok(tree);
    }
    ensure!(rustix::process::geteuid().is_root(), "making a Debian base tree needs root");
    remove(&making)?;
    fs::create_dir_all(&cache)?;
    say("making a Debian base tree with mmdebstrap (once)");
    let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    let sources = sources.into_iter().find(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0));
    run_mmdebstrap(&making, sources)?;
    fs::rename(&making, &tree)?;
    Ok(tree)
}

fn run_mmdebstrap(dir: &Path, sources: Option<&str>) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--variant=minbase"])
        .arg(format!("--include={INCLUDE}"))
        .arg("bookworm")
        .arg(dir);
    run_visibly(command.args(sources))
}
