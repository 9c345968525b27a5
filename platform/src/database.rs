//! The databases of a manifest, by engine.

use std::path::PathBuf;
use std::sync::Arc;

use handover_engine::changeover::SettingsRows;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::gauge::Gauge;
use handover_engine::ports::scratch::Scratch;
use handover_engine::ports::settings_table::{At, SettingsTable};
use handover_engine::ports::{Database, DatabaseTarget, FencedDatabase, LiveDatabase};
use handover_mariadb::{
    MariaDatabase, MariaFenced, MariaGauge, MariaLive, MariaScratch, MariaSettingsTable, MariaTarget,
};
use handover_postgres::{
    PostgresDatabase, PostgresFenced, PostgresGauge, PostgresLive, PostgresScratch, PostgresSettingsTable,
    PostgresTarget,
};

use crate::fitted::FittedDatabase;
use crate::sqlite::{
    SqliteDatabase, SqliteFenced, SqliteGauge, SqliteLive, SqliteScratch, SqliteSettingsTable, SqliteTarget,
};

/// Where a database is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// A database of a MariaDB server.
    Mariadb(handover_mariadb::Settings),
    /// A database of a PostgreSQL server.
    Postgres(handover_postgres::Settings),
}

impl Place {
    /// Reads a manifest's `url`. The problem that is told shows no password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => {
                let path = PathBuf::from(url.strip_prefix("sqlite:").unwrap_or_default());
                if path.is_absolute() {
                    Ok(Self::Sqlite(path))
                } else {
                    Err("write the path absolutely: sqlite:/var/lib/…".to_owned())
                }
            }
            "mariadb" | "mysql" => {
                handover_mariadb::Settings::parse(url).map(Self::Mariadb).map_err(|error| error.to_string())
            }
            "postgres" | "postgresql" => {
                handover_postgres::Settings::parse(url).map(Self::Postgres).map_err(|error| error.to_string())
            }
            _ => Err("write sqlite:/absolute/path, mariadb://… or postgres://…".to_owned()),
        }
    }

    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Mariadb(_) => "mariadb",
            Self::Postgres(_) => "postgres",
        }
    }

    /// As an inventory shows it.
    pub fn location(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Mariadb(settings) => settings.location(),
            Self::Postgres(settings) => settings.location(),
        }
    }

    /// The database, to be read without the excluded tables. Private copies are made in `scratch`.
    pub fn database(&self, name: DatasetName, exclude: Vec<String>, scratch: PathBuf) -> Arc<dyn Database> {
        match self.clone() {
            Self::Sqlite(path) => Arc::new(SqliteDatabase::new(name, path, exclude, scratch)),
            Self::Mariadb(settings) => Arc::new(MariaDatabase::new(name, settings, exclude)),
            Self::Postgres(settings) => Arc::new(PostgresDatabase::new(name, &settings, exclude)),
        }
    }

    /// The database, to be followed without the excluded tables.
    pub fn live(&self, name: DatasetName, exclude: Vec<String>) -> Arc<dyn LiveDatabase> {
        match self.clone() {
            Self::Sqlite(path) => Arc::new(SqliteLive::new(name, path, exclude)),
            Self::Mariadb(settings) => Arc::new(MariaLive::new(name, settings, exclude)),
            Self::Postgres(settings) => Arc::new(PostgresLive::new(name, &settings, exclude)),
        }
    }

    /// The database, to be written to behind its fence.
    pub fn fenced(&self, name: DatasetName) -> Arc<dyn FencedDatabase> {
        match self.clone() {
            Self::Sqlite(path) => Arc::new(SqliteFenced::new(name, path)),
            Self::Mariadb(settings) => Arc::new(MariaFenced::new(name, settings)),
            Self::Postgres(settings) => Arc::new(PostgresFenced::new(name, &settings)),
        }
    }

    /// Looks at the database's load, and at that of its replica.
    pub fn gauge(&self, name: DatasetName, replica: Option<handover_mariadb::Settings>) -> Arc<dyn Gauge> {
        match self.clone() {
            Self::Sqlite(path) => Arc::new(SqliteGauge::new(name, path)),
            Self::Mariadb(settings) => Arc::new(MariaGauge::new(name, settings, replica)),
            Self::Postgres(settings) => Arc::new(PostgresGauge::new(name, &settings)),
        }
    }

    /// The settings of one on a server of MariaDB.
    pub fn into_mariadb(self) -> Option<handover_mariadb::Settings> {
        if let Self::Mariadb(settings) = self { Some(settings) } else { None }
    }

    /// Whether the database is on this host, as far as its URL tells.
    pub fn is_local(&self) -> bool {
        let is_here = |host: &str| {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        match self {
            Self::Sqlite(_) => true,
            Self::Mariadb(settings) => settings.socket.is_some() || is_here(&settings.host),
            Self::Postgres(settings) => settings.socket.is_some() || is_here(&settings.host),
        }
    }

    /// A scratch database beside it, for rehearsals.
    pub fn scratch(&self, name: DatasetName) -> Arc<dyn Scratch> {
        match self.clone() {
            Self::Sqlite(path) => Arc::new(SqliteScratch::new(name, path)),
            Self::Mariadb(settings) => Arc::new(MariaScratch::new(name, settings)),
            Self::Postgres(settings) => Arc::new(PostgresScratch::new(name, &settings)),
        }
    }

    /// The place of that scratch database.
    pub fn rehearsal(&self, name: &DatasetName) -> Self {
        match self {
            Self::Sqlite(path) => Self::Sqlite(SqliteScratch::beside(path.clone())),
            Self::Mariadb(settings) => Self::Mariadb(MariaScratch::beside(settings)),
            Self::Postgres(settings) => Self::Postgres(PostgresScratch::beside(name, settings)),
        }
    }

    /// The database as it would be with the rows that were tried. Private copies are made in `scratch`.
    pub fn fitted(&self, name: DatasetName, scratch: PathBuf) -> Arc<dyn Database> {
        Arc::new(FittedDatabase::new(name, self, scratch))
    }

    /// The same place, for who moves no accounts.
    pub(crate) fn without_accounts(&self) -> Self {
        let mut place = self.clone();
        match &mut place {
            Self::Sqlite(_) => {}
            Self::Mariadb(settings) => settings.accounts.clear(),
            Self::Postgres(settings) => settings.accounts.clear(),
        }
        place
    }

    /// Settings that are rows of it, or of what a migration builds beside it.
    pub fn settings_table(&self, rows: SettingsRows, at: At<'_>) -> Arc<dyn SettingsTable> {
        match self.clone() {
            Self::Sqlite(path) => Arc::new(SqliteSettingsTable::new(rows, path, at)),
            Self::Mariadb(settings) => Arc::new(MariaSettingsTable::new(rows, settings, at)),
            Self::Postgres(settings) => Arc::new(PostgresSettingsTable::new(rows, &settings, at)),
        }
    }

    /// The place where the database of a migration lands.
    pub fn target(&self, name: DatasetName, migration: &MigrationId) -> Arc<dyn DatabaseTarget> {
        match self.clone() {
            Self::Sqlite(path) => Arc::new(SqliteTarget::new(name, path, migration)),
            Self::Mariadb(settings) => Arc::new(MariaTarget::new(name, settings, migration)),
            Self::Postgres(settings) => Arc::new(PostgresTarget::new(name, &settings, migration)),
        }
    }
}
