//! File trees: by tar, which keeps owners, modes, attributes, links and holes. What belongs to a tree is told by who migrates it.

mod exchange;
pub mod restore;

use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use futures::StreamExt;
use handover_engine::backup::Kept;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::sync::mpsc;

use crate::archive::{self, Archive};
use crate::contents::{Dataset, Tree};
use crate::tool::{Ended, Running, Tools, version};
use crate::work::Work;

/// The package that brings tar.
const PACKAGE: &str = "tar";
/// Notes of files that changed.
const NOTED: usize = 100;
/// What tar keeps beside contents.
const PROPERTIES: [&str; 4] = ["--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*"];

fn tar(tools: &Tools, item: &str) -> Result<std::path::PathBuf> {
    tools.find(item, &["tar"], PACKAGE)
}

/// Bytes that its backup needs at most.
pub async fn size(tree: &Tree) -> Result<Option<u64>> {
    if !tree.root.exists() {
        return Ok(None);
    }
    let facts = tree.reader.facts().await?;
    let entries = facts.files + facts.directories + facts.others;
    Ok(Some(facts.bytes.saturating_add(entries.saturating_mul(512))))
}

/// Backs it up; none where it is not there.
pub async fn make(dataset: &Dataset, tree: &Tree, directory: &Path, work: &Work) -> Result<Option<Kept>> {
    if !tree.root.exists() {
        return Ok(None);
    }
    let item = dataset.item();
    let program = tar(&work.tools, &item)?;
    let tool = version(&work.tools, &program, &item).await?;
    let file = format!("{}.tar.zst", dataset.name);
    let mut command = work.tools.command(&program);
    command.args([
        "--create",
        "--file=-",
        "--format=posix",
        "--sparse",
        "--pax-option=delete=atime,delete=ctime",
    ]);
    command.args(PROPERTIES).arg("--directory").arg(&tree.root);
    // Of what comes before the list, and not after it.
    command.args(["--no-recursion", "--null", "--verbatim-files-from", "--files-from=-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(command, &item)?;
    let (output, mut archive) = (running.output()?, Archive::create(&directory.join(&file), work));
    let (to, names) = mpsc::channel(4);
    let (entries, (), ()) = futures::try_join!(list(tree, to), running.feed(names), archive.pour(output))?;
    let notes = changed(&running.end().await?)?;
    let written = archive.finish().await?;
    Ok(Some(Kept { entries: Some(entries), notes, ..written.kept(dataset, tool, file) }))
}

/// Sends the names of all entries, each with a NUL after it; how many they were.
async fn list(tree: &Tree, to: mpsc::Sender<std::io::Result<Bytes>>) -> Result<u64> {
    let (mut scan, mut entries) = (tree.reader.scan(), 0);
    while let Some(batch) = scan.next().await {
        let mut names = Vec::new();
        for entry in batch? {
            entries += 1;
            names.extend_from_slice(b"./");
            names.extend_from_slice(entry.path.as_bytes());
            names.push(0);
        }
        if to.send(Ok(names.into())).await.is_err() {
            // tar has ended early, and tells why.
            break;
        }
    }
    Ok(entries)
}

/// Files that changed while tar read them, which it notes; what else it says is a failure.
fn changed(ended: &Ended) -> Result<Vec<String>> {
    let is_note = |line: &String| {
        [
            "file changed as we read it",
            "File removed before we read it",
            "Cannot stat: No such file",
            "Exiting with failure",
            "socket ignored",
        ]
        .iter()
        .any(|words| line.contains(words))
            || line.contains("File shrank by")
    };
    if !ended.status.success() && (ended.status.code().is_none() || !ended.said.iter().all(is_note)) {
        return Err(ended.failure());
    }
    let lines = ended.said.iter().filter(|line| !line.contains("Exiting with failure"));
    Ok(lines.take(NOTED).cloned().collect())
}

/// Has tar read it to its end, and counts.
pub async fn test(item: &str, kept: &Kept, file: &Path, work: &Work) -> Result<()> {
    let mut command = work.tools.command(&tar(&work.tools, item)?);
    command.args(["--list", "--file=-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(command, item)?;
    let output = running.output()?;
    let (lines, ()) = futures::try_join!(count_lines(output), running.feed(archive::read(file, work)))?;
    running.succeed().await?;
    // Files that vanished while they were read are in the list, and not in the archive.
    let expected = kept.entries.unwrap_or(lines);
    if lines == expected || (lines < expected && !kept.notes.is_empty()) {
        return Ok(());
    }
    Err(Failure::operator(item, format!("its backup holds {lines} entries, and should hold {expected}"))
        .hint("make another backup"))
}

async fn count_lines(mut from: impl tokio::io::AsyncRead + Unpin) -> Result<u64> {
    use tokio::io::AsyncReadExt;
    let (mut buffer, mut lines) = (vec![0; 64 << 10], 0);
    loop {
        let read = from
            .read(&mut buffer)
            .await
            .map_err(|error| Failure::operator("tar", "what it prints cannot be read").because(error))?;
        if read == 0 {
            return Ok(lines);
        }
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}
