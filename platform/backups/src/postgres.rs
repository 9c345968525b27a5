//! PostgreSQL databases: by `pg_dump` in its custom format, which it compresses itself.

mod client;
pub mod restore;

use std::path::Path;
use std::process::Stdio;

use handover_engine::backup::Kept;
use handover_engine::ports::Result;

use self::client::{Client, literal};
use crate::archive::Archive;
use crate::contents::{Dataset, PostgresServer};
use crate::tool::{Running, version};
use crate::work::Work;

/// Schemas that a migration keeps for itself.
const OWN_SCHEMAS: [&str; 2] = ["handover_state", "handover_fence"];

/// Bytes that its backup needs, about: half of what it takes.
pub async fn size(dataset: &Dataset, server: &PostgresServer, work: &Work) -> Result<Option<u64>> {
    let client = Client::open(&dataset.item(), server, work).await?;
    let sql = format!(
        "SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = {}",
        literal(&server.database)
    );
    let rows = client.maintain(&sql).await?;
    Ok(rows.first().and_then(|bytes| bytes.parse::<u64>().ok()).map(|bytes| bytes / 2))
}

/// Backs it up; none where it is not there.
pub async fn make(
    dataset: &Dataset,
    server: &PostgresServer,
    directory: &Path,
    work: &Work,
) -> Result<Option<Kept>> {
    let item = dataset.item();
    let client = Client::open(&item, server, work).await?;
    if !client.databases().await?.contains(&server.database) {
        return Ok(None);
    }
    let program = client.program("pg_dump");
    let tool = version(&work.tools, &program, &item).await?;
    let file = format!("{}.dump", dataset.name);
    let mut archive = Archive::create(&directory.join(&file), work);
    let mut command = client.command(&program);
    command.args(["--format=custom", "--no-password", "--lock-wait-timeout=30s"]);
    for schema in OWN_SCHEMAS {
        command.args(["--exclude-schema", schema]);
    }
    command.args(["--dbname", &client.connection(&server.database)]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::start(command, &item)?;
    archive.pour(running.output()?).await?;
    running.succeed().await?;
    Ok(Some(archive.finish().await?.kept(dataset, tool, file)))
}

/// Has `pg_restore` read it to its end. No server is needed.
pub async fn test(item: &str, file: &Path, work: &Work) -> Result<()> {
    let program = client::newest(item, None, &work.tools, "pg_restore")?;
    let mut command = work.tools.command(&program);
    command.args(["--file=/dev/null"]).arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    Running::start(command, item)?.succeed().await
}
