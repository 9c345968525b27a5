//! MariaDB databases: by `mariadb-dump`, in one transaction. The file is a script that `mariadb` can run as a whole; tables come first, and
//! what acts by itself after a line of ours, so that a restore can put the tables in place in between.

mod acts;
mod client;
pub mod restore;
mod script;

use std::path::Path;

use handover_engine::backup::Kept;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;

use self::client::{Client, text};
use crate::archive::{self, Archive};
use crate::contents::{Dataset, MariadbServer};
use crate::tool::version;
use crate::work::{Work, blocking, io_failed};

/// Stands between the tables and what acts by itself: triggers, routines, events; then views.
pub const DIVIDE: &[u8] = b"-- handover: tables end here; what follows acts by itself\n";
/// What the tool ends with.
const END: &[u8] = b"-- Dump completed";
/// How much of the end is looked at.
const TAIL: usize = 512;
/// Our own tables and triggers begin so.
pub const OWN: &str = "__handover_";

/// Bytes that its backup needs, about: half of what its tables take.
pub async fn size(dataset: &Dataset, server: &MariadbServer, work: &Work) -> Result<Option<u64>> {
    let client = Client::open(&dataset.item(), server, work)?;
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(data_length), 0) AS UNSIGNED) FROM information_schema.tables WHERE table_schema = {}",
        text(&server.database)
    );
    let bytes: u64 = client.one(&sql).await?.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    Ok(Some(bytes / 2))
}

/// Backs it up; none where it is not there.
pub async fn make(
    dataset: &Dataset,
    server: &MariadbServer,
    directory: &Path,
    work: &Work,
) -> Result<Option<Kept>> {
    let item = dataset.item();
    let client = Client::open(&item, server, work)?;
    let Some(charset) = client.charset(&server.database).await? else { return Ok(None) };
    let views = acts::views(&client, &server.database).await?;
    let tool = version(&work.tools, &client.dump, &item).await?;
    let file = format!("{}.sql.zst", dataset.name);
    let mut archive = Archive::create(&directory.join(&file), work);
    let mut tables =
        vec!["--single-transaction".to_owned(), "--hex-blob".to_owned(), "--skip-triggers".to_owned()];
    tables.extend(views.iter().map(|view| format!("--ignore-table={}.{view}", server.database)));
    client.pour(&tables, &[&server.database], &mut archive).await?;
    acts::pour(&client, &server.database, &views, &mut archive).await?;
    let settings = [("character_set", charset.character_set), ("collation", charset.collation)];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
    Ok(Some(Kept { settings, ..archive.finish().await?.kept(dataset, tool, file) }))
}

/// Unpacks it, and looks for what the tool ends with.
pub async fn test(item: &str, file: &Path, work: &Work) -> Result<()> {
    let (item, file, work) = (item.to_owned(), file.to_owned(), work.clone());
    blocking(&item.clone(), move || {
        let mut tail = Vec::new();
        let unpacked = archive::unpacked(&file, |piece| {
            tail.extend_from_slice(&piece[piece.len().saturating_sub(TAIL)..]);
            tail.drain(..tail.len().saturating_sub(TAIL));
            work.got_on(piece.len())
        });
        unpacked.map_err(io_failed(&file, "the backup cannot be unpacked"))?;
        if tail.windows(END.len()).any(|part| part == END) {
            return Ok(());
        }
        Err(Failure::operator(item, "its backup does not end as mariadb-dump ends")
            .hint("make another backup"))
    })
    .await
}
