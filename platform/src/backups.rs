//! This host's backups: what its manifest names, for who makes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use handover_backups::{Guard, LocalBackups, Running};

use futures::FutureExt;
use handover_backups::{Contents, Dataset, MariadbServer, PostgresServer, Setting, Tools, Tree};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::time::Clock;
use tokio_util::sync::CancellationToken;

use crate::database::Place;
use crate::hooks::note;
use crate::manifest::Manifest;
use crate::source::place;
use crate::tree::{FileTree, Filter};

/// The directory of backups in the state directory, where the manifest names no other.
const DIRECTORY: &str = "backups";

/// The backups of the host that `manifest` describes. `guard` refuses restores that are not safe, `running` tells whose backups stay; work ends
/// with `stop`.
pub fn of(
    manifest: &Manifest,
    state: &Path,
    guard: Guard,
    running: Running,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<LocalBackups> {
    let directory = manifest.backups.directory.clone().unwrap_or_else(|| state.join(DIRECTORY));
    let (datasets, keep, tools) = (datasets(manifest)?, manifest.backups.keep, Tools::default());
    LocalBackups::new(Setting { datasets, directory, keep, tools, guard, running, clock }, stop)
}

/// At a source the one migration is running that is noted in `state`.
pub fn noted(state: &Path) -> Running {
    let state = state.to_owned();
    Arc::new(move || {
        let file = note::file(&state).display().to_string();
        let noted = match note::noted(&state) {
            Err(error) => Err(Failure::operator(file, "cannot be read").because(error)),
            Ok(None) => Ok(Vec::new()),
            Ok(Some(name)) => name
                .parse::<MigrationId>()
                .map(|migration| vec![migration])
                .map_err(|error| Failure::operator(file, "names no migration").because(error)),
        };
        std::future::ready(noted).boxed()
    })
}

/// What can be backed up.
pub fn datasets(manifest: &Manifest) -> Result<Vec<Dataset>> {
    let mut out = Vec::new();
    for section in &manifest.database {
        out.push(Dataset { name: section.name.clone(), contents: contents(place(section)?) });
    }
    for section in manifest.trees() {
        let filter = Filter::new(&section.include, &section.exclude)?;
        let reader = FileTree::reader(section.name.clone(), section.root.clone(), filter);
        let reader = Arc::new(if section.is_log { reader.of_logs() } else { reader });
        out.push(Dataset {
            name: section.name,
            contents: Contents::Tree(Tree { root: section.root, reader }),
        });
    }
    Ok(out)
}

fn contents(place: Place) -> Contents {
    match place {
        Place::Sqlite(path) => Contents::Sqlite(path),
        Place::Mariadb(settings) => Contents::Mariadb(MariadbServer {
            user: settings.user.clone(),
            host: settings.host.clone(),
            port: settings.port,
            socket: settings.socket.clone(),
            tls: settings.tls,
            ca: settings.ca.clone(),
            database: settings.database.clone(),
            password: Arc::new(move || settings.password()),
        }),
        Place::Postgres(settings) => Contents::Postgres(PostgresServer {
            user: settings.user.clone(),
            host: settings.host.clone(),
            port: settings.port,
            socket: settings.socket.clone(),
            ca: settings.ca.clone(),
            database: settings.database.clone(),
            maintenance: settings.maintenance.clone(),
            programs: settings.pg_dump.as_deref().and_then(Path::parent).map(PathBuf::from),
            password: Arc::new(move || settings.password()),
        }),
    }
}
