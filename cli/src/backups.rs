//! Backups: making, listing, verifying and restoring them.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use handover_engine::backup::{Backup, Host, Restored, Shelf};
use handover_engine::failure::Failure;
use handover_engine::name::{BackupId, DatasetName};
use handover_engine::ports::Result;
use handover_engine::ports::backups::{Standing, Wanted};
use handover_transport::control::Control;
use serde_json::{Value, json};

use crate::render::bytes;

/// How often work is asked after.
const LOOK: Duration = Duration::from_millis(300);
/// How many looks apart a line says how far it is.
const LOOKS: u32 = 30;

/// What to back up.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The host: source or target.
    #[arg(long, default_value = "source")]
    pub host: Host,
    /// Only this dataset; may be given several times.
    #[arg(long = "dataset", value_name = "NAME")]
    pub datasets: Vec<DatasetName>,
    /// The backup's name; one is made up when it is left out.
    #[arg(long)]
    pub name: Option<BackupId>,
}

/// Which backups to look at.
#[derive(Debug, Args)]
pub struct BackupsArguments {
    /// Those of this host alone: source or target.
    #[arg(long)]
    pub host: Option<Host>,
    /// Read this one again, or all of them: each file is what was written, and its tool can read it.
    #[arg(long, value_name = "ID", num_args = 0..=1)]
    pub verify: Option<Option<BackupId>>,
}

/// What to restore.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The backup's name, as `handover backups` lists it.
    pub id: BackupId,
    /// Only this dataset.
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<DatasetName>,
    /// The host that it lies on: source or target. Needed where both have one of that name.
    #[arg(long)]
    pub host: Option<Host>,
}

/// What is printed: text, and the document.
type Printed = (String, Value);

/// Makes a backup, and waits for it.
pub async fn make(control: &impl Control, asked: BackupArguments, json: bool) -> Result<Printed> {
    let wanted = Wanted::Make { id: asked.name, datasets: asked.datasets };
    match work(control, asked.host, wanted, json).await? {
        Standing::Made { backup } => {
            let text = format!("{}\nevery file was read again: it is good", whole(asked.host, &backup));
            Ok((text, json!({ "host": asked.host, "backup": backup })))
        }
        other => Err(unexpected(&other)),
    }
}

/// Lists backups, or verifies them.
pub async fn look(control: &impl Control, asked: BackupsArguments, json: bool) -> Result<Printed> {
    let hosts = asked.host.map_or_else(|| Host::BOTH.to_vec(), |host| vec![host]);
    let mut shelves = Vec::new();
    for host in hosts {
        shelves.push((host, control.backups(host).await?));
    }
    let Some(which) = asked.verify else {
        let text: Vec<String> = shelves.iter().map(|(host, shelf)| listed(*host, shelf)).collect();
        let document = shelves.iter().map(|(host, shelf)| (host.to_string(), json!(shelf))).collect();
        return Ok((text.join("\n"), Value::Object(document)));
    };
    let is_wanted = |backup: &&Backup| which.as_ref().is_none_or(|id| backup.id == *id);
    let (mut text, mut documents) = (Vec::new(), Vec::new());
    for (host, shelf) in &shelves {
        for backup in shelf.backups.iter().filter(is_wanted) {
            work(control, *host, Wanted::Verify { id: backup.id.clone() }, json).await?;
            text.push(format!("{} of the {host} is good: {}", backup.id, bytes(backup.bytes())));
            documents.push(json!({ "host": host, "backup": backup.id }));
        }
    }
    match which {
        Some(id) if documents.is_empty() => Err(unknown(&id)),
        _ if documents.is_empty() => Ok(("no backups".to_owned(), json!({ "verified": [] }))),
        _ => Ok((text.join("\n"), json!({ "verified": documents }))),
    }
}

/// Restores what is in a backup, and waits for it.
pub async fn restore(control: &impl Control, asked: RestoreArguments, json: bool) -> Result<Printed> {
    let host = match asked.host {
        Some(host) => host,
        None => find(control, &asked.id).await?,
    };
    let wanted = Wanted::Restore { id: asked.id.clone(), dataset: asked.dataset };
    match work(control, host, wanted, json).await? {
        Standing::Restored { datasets } => {
            let text: Vec<String> = datasets.iter().map(restored).collect();
            Ok((text.join("\n"), json!({ "host": host, "backup": asked.id, "restored": datasets })))
        }
        other => Err(unexpected(&other)),
    }
}

/// The host that has a backup.
async fn find(control: &impl Control, id: &BackupId) -> Result<Host> {
    let mut found = Vec::new();
    for host in Host::BOTH {
        if control.backups(host).await?.backups.iter().any(|backup| backup.id == *id) {
            found.push(host);
        }
    }
    match found[..] {
        [host] => Ok(host),
        [] => Err(unknown(id)),
        _ => Err(Failure::operator(format!("backup {id}"), "both hosts have one of this name")
            .hint("say which: --host source, or --host target")),
    }
}

/// Has work done, and waits for its end. It goes on when nobody waits.
async fn work(control: &impl Control, host: Host, wanted: Wanted, json: bool) -> Result<Standing> {
    let order = control.begin_backups(host, wanted, "").await?;
    let mut looks = 0;
    loop {
        match control.backups_standing(host, &order).await? {
            Standing::Running { bytes: done } => {
                looks += 1;
                if looks % LOOKS == 0 && !json {
                    println!("{} at the {host}: {} so far", order.id(), bytes(done));
                }
            }
            Standing::Failed { failure } => return Err(failure),
            Standing::Unknown => {
                return Err(Failure::transient(host.as_str(), "its agent has been restarted")
                    .hint("give the command again: what is whole is not made again"));
            }
            done => return Ok(done),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn unknown(id: &BackupId) -> Failure {
    Failure::operator(format!("backup {id}"), "there is none of this name")
        .hint("`handover backups` lists those that there are")
}

fn unexpected(standing: &Standing) -> Failure {
    Failure::permanent("backup", format!("the agent answered something else: {standing:?}"))
        .hint("are both agents of the same release?")
}

fn whole(host: Host, backup: &Backup) -> String {
    let mut out = format!("backup {} of the {host}: {}", backup.id, bytes(backup.bytes()));
    for kept in &backup.datasets {
        let _ = write!(out, "\n  {}: {}, {} by {}", kept.dataset, kept.file, bytes(kept.bytes), kept.tool);
        for note in &kept.notes {
            let _ = write!(out, "\n    {note}");
        }
    }
    for absent in &backup.absent {
        let _ = write!(out, "\n  {absent}: is not there");
    }
    out
}

fn listed(host: Host, shelf: &Shelf) -> String {
    if shelf.backups.is_empty() && shelf.unreadable.is_empty() {
        return format!("{host}: no backups");
    }
    let mut out = format!("{host}: {}", shelf.directory);
    for backup in &shelf.backups {
        let names: Vec<&str> = backup.datasets.iter().map(|kept| kept.dataset.as_str()).collect();
        let (id, at, occasion) = (&backup.id, backup.made_at, backup.occasion);
        let _ = write!(out, "\n  {id}  {at}  {occasion}  {}  {}", bytes(backup.bytes()), names.join(", "));
    }
    for (name, problem) in &shelf.unreadable {
        let _ = write!(out, "\n  {name}  NOT READABLE: {problem}");
    }
    out
}

fn restored(one: &Restored) -> String {
    match &one.before {
        Some(before) => format!("{} is restored; what stood there is {before}", one.dataset),
        None => format!("{} is restored; nothing stood there", one.dataset),
    }
}

#[cfg(test)]
mod tests {
    use handover_engine::backup::{FORMAT, Kept, Occasion};
    use handover_engine::digest::Digest;

    use super::*;

    #[test]
    fn what_there_is_is_told_by_host() {
        let kept = Kept {
            dataset: "app".parse().unwrap(),
            engine: "sqlite".to_owned(),
            tool: "SQLite".to_owned(),
            file: "app.db.zst".to_owned(),
            bytes: 2_000_000,
            contents_bytes: 5_000_000,
            digest: Digest::of(b""),
            entries: None,
            settings: Default::default(),
            notes: Vec::new(),
        };
        let backup = Backup {
            format: FORMAT,
            id: "m-1-start".parse().unwrap(),
            made_at: Default::default(),
            occasion: Occasion::Start,
            migration: None,
            host: "old".to_owned(),
            datasets: vec![kept],
            absent: vec!["www".parse().unwrap()],
        };
        assert!(whole(Host::Source, &backup).contains("app: app.db.zst"));
        assert!(whole(Host::Source, &backup).ends_with("www: is not there"));
        let shelf = Shelf {
            directory: "/srv".to_owned(),
            backups: vec![backup],
            unreadable: vec![("x".to_owned(), "torn".to_owned())],
        };
        let text = listed(Host::Target, &shelf);
        assert!(text.starts_with("target: /srv\n  m-1-start  1970-01-01T00:00:00Z  start  "), "{text}");
        assert!(text.ends_with("app\n  x  NOT READABLE: torn"), "{text}");
        assert_eq!(listed(Host::Source, &Shelf::default()), "source: no backups");
    }
}
