//! Putting a tree back: unpacked beside its root, then one exchange of two names.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};

use super::{PROPERTIES, exchange, tar};
use crate::beside::{self, number, told};
use crate::contents::{Dataset, Tree};
use crate::note::Begun as Of;
use crate::restore::{Before, Restoring, Settled};
use crate::shelf::sync;
use crate::tool::Running;
use crate::work::{Work, blocking, io_failed};
use crate::{archive, room};

/// A restore that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// The tree's root.
    root: PathBuf,
    /// The directory that the new one is built in.
    stage: PathBuf,
    /// That directory's number, whatever it is called by then; none before it is whole and about to be put in place.
    built: Option<u64>,
    /// Where what stands there goes; none where nothing does.
    before: Option<PathBuf>,
}

/// Puts it in place; what stood there is under another name beside it.
pub async fn restore(dataset: &Dataset, tree: &Tree, at: &Restoring<'_>, work: &Work) -> Result<Before> {
    let item = dataset.item();
    let root = std::fs::canonicalize(&tree.root).unwrap_or_else(|_| tree.root.clone());
    exchange::refuse_mounts(&item, &root)?;
    room::check(&item, &root, at.kept.contents_bytes)?;
    let stage = beside::path(&root, beside::BUILT);
    let mut begun = Begun { root, stage, built: None, before: None };
    work.step("note")?;
    at.pen.write(Of::Files(begun.clone()))?;
    work.step("build")?;
    let number = exchange::fresh_stage(&begun.stage)?;
    unpack(&item, &begun.stage, &at.file, work).await?;
    if begun.root.exists() {
        work.step("carry over")?;
        exchange::carry_over(tree, &begun.root, &begun.stage).await?;
        begun.before = Some(beside::free_before(&begun.root, at.id));
    }
    begun.built = Some(number);
    work.step("note the exchange")?;
    at.pen.write(Of::Files(begun.clone()))?;
    let work = work.clone();
    blocking(&item, move || {
        exchange::put_in_place(&begun.stage, &begun.root, begun.before.as_deref(), &work)?;
        Ok(told(begun.before.as_ref()))
    })
    .await
}

async fn unpack(item: &str, stage: &Path, file: &Path, work: &Work) -> Result<()> {
    let mut command = work.tools.command(&tar(&work.tools, item)?);
    command.args(["--extract", "--file=-", "--same-permissions", "--delay-directory-restore"]);
    if rustix::process::geteuid().is_root() {
        command.arg("--same-owner");
    }
    command.args(PROPERTIES).arg("--directory").arg(stage).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running::start(command, item)?;
    running.feed(archive::read(file, work)).await?;
    running.succeed().await
}

/// Ends what was put in place, and takes back what was not.
pub async fn settle(item: &str, begun: &Begun, work: &Work) -> Result<Settled> {
    let (begun, work) = (begun.clone(), work.clone());
    blocking(item, move || {
        let directory = beside::above(&begun.root);
        if begun.built.is_some() && number(&begun.root) == begun.built {
            sync(directory).map_err(io_failed(directory, "cannot be made durable"))?;
            return Ok(Settled::Ended(told(begun.before.as_ref())));
        }
        // Nothing else may be at the name of the old tree by now; if it is, it is not ours.
        let misnamed = begun.before.iter().filter(|before| number(before) == begun.built);
        for ours in misnamed.chain([&begun.stage]).filter(|path| number(path).is_some()) {
            work.step("remove what was built")?;
            std::fs::remove_dir_all(ours)
                .and_then(|()| sync(directory))
                .map_err(io_failed(ours, "cannot be removed"))?;
        }
        Ok(Settled::TakenBack)
    })
    .await
}
