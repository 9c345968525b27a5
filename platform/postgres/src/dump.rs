//! A database's schema by `pg_dump`, as one statement list for each object.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::rows::TableName;
use tokio::process::Command;

use crate::settings::Settings;
use crate::toc::{self, Entry};

/// The schema that the target's own notes are kept in while a migration runs.
pub const OWN_SCHEMA: &str = "handover_state";
/// The schema at a source that a fence against writes is kept in.
pub const FENCE_SCHEMA: &str = "handover_fence";
/// The name of its triggers.
pub const FENCE_TRIGGER: &str = "handover_fence";
/// What the comment of a publication of ours begins with.
pub const OWN_COMMENT: &str = "handover: ";

/// What to leave out, and which snapshot to look through.
#[derive(Debug, Default)]
pub struct Scope<'a> {
    /// An exported snapshot; without one, what is there now.
    pub snapshot: Option<&'a str>,
    /// Tables to leave out.
    pub exclude: &'a [TableName],
    /// The server's major version, which decides about the program.
    pub major: u32,
}

/// Runs `pg_dump` and reads the objects of its archive, in an order in which they can be made.
pub async fn entries(dataset: &DatasetName, settings: &Settings, scope: &Scope<'_>) -> Result<Vec<Entry>> {
    let program = program(dataset, settings, scope.major)?;
    let failed = |what: String| {
        Failure::operator(format!("{dataset}, {}", settings.location()), what)
            .hint("run the same pg_dump --schema-only by hand to see what it needs")
    };
    let mut command = command(&program, settings, scope)
        .map_err(|e| failed("the password file cannot be read".to_owned()).because(e))?;
    let output = command
        .output()
        .await
        .map_err(|e| failed(format!("{} cannot be run", program.display())).because(e))?;
    if !output.status.success() {
        return Err(complaint(dataset, settings, &String::from_utf8_lossy(&output.stderr)));
    }
    toc::parse(&output.stdout).map_err(|e| failed("its schema cannot be read".to_owned()).because(e))
}

fn command(program: &Path, settings: &Settings, scope: &Scope<'_>) -> std::io::Result<Command> {
    let mut command = Command::new(program);
    command.args(["--schema-only", "--format=custom", "--compress=0", "--encoding=UTF8", "--no-password"]);
    command.args(["--lock-wait-timeout=30s", "--exclude-schema", OWN_SCHEMA]);
    command.args(["--exclude-schema", FENCE_SCHEMA]);
    if let Some(snapshot) = scope.snapshot {
        command.arg(format!("--snapshot={snapshot}"));
    }
    for table in scope.exclude {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        command.arg(format!("--exclude-table={}.{}", quoted(&table.schema), quoted(&table.name)));
    }
    command.args(["--dbname", &connection_string(settings)]);
    // Nothing of the caller's environment may redirect it.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command
        .env("LC_ALL", "C")
        .env("PGCONNECT_TIMEOUT", "10")
        .env("PGOPTIONS", "-c extra_float_digits=1 -c standard_conforming_strings=on");
    if let Some(password) = settings.password()? {
        command.env("PGPASSWORD", password);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// The settings for libpq, without the password.
fn connection_string(settings: &Settings) -> String {
    let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let host = match &settings.socket {
        Some(directory) => directory.display().to_string(),
        None => settings.host.clone(),
    };
    let mut out = format!(
        "host={} port={} dbname={} user={} application_name=handover",
        value(&host),
        settings.port,
        value(&settings.database),
        value(&settings.user)
    );
    match &settings.ca {
        Some(ca) if settings.socket.is_none() => {
            out += &format!(" sslmode=verify-full sslrootcert={}", value(&ca.display().to_string()));
        }
        _ => out += " sslmode=disable",
    }
    out
}

/// The program of the server's major version or the next newer one.
fn program(dataset: &DatasetName, settings: &Settings, major: u32) -> Result<PathBuf> {
    if let Some(named) = &settings.pg_dump {
        return Ok(named.clone());
    }
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> = installed
        .filter(|entry| entry.path().join("bin/pg_dump").exists())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|version| *version >= major)
        .collect();
    versions.sort_unstable();
    versions.first().map(|version| format!("/usr/lib/postgresql/{version}/bin/pg_dump").into()).ok_or_else(
        || {
            Failure::operator(
                dataset.to_string(),
                format!("there is no pg_dump for PostgreSQL {major} on this host"),
            )
            .hint(format!(
                "apt-get install postgresql-client-{major}, or name the program with `?pg_dump=` in `url`"
            ))
        },
    )
}

/// What `pg_dump` could not do, from its last words.
fn complaint(dataset: &DatasetName, settings: &Settings, text: &str) -> Failure {
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("error:")).collect();
    let said = lines.first().copied().unwrap_or(text).trim().to_owned();
    let item = format!("{dataset}, {}", settings.location());
    let what = "its schema cannot be read";
    if said.contains("permission denied") {
        return Failure::operator(item, what)
            .because(Said(said))
            .hint("grant it to the role of `url`: the preflight shows the statements");
    }
    let passing =
        ["connection", "shutting down", "starting up", "lock timeout", "terminat", "snapshot", "deadlock"];
    let class = if passing.iter().any(|word| said.contains(word)) && !said.contains("certificate") {
        handover_engine::failure::Class::Transient
    } else {
        handover_engine::failure::Class::NeedsOperator
    };
    Failure::new(class, item, what).because(Said(said)).hint("this is what pg_dump says")
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);
