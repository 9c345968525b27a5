//! The engines that have servers, and what they need of a host.

use std::path::Path;

/// A database engine with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MariaDB.
    Mariadb,
    /// PostgreSQL.
    Postgres,
}

impl Engine {
    /// As the manifest and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Mariadb => "mariadb",
            Engine::Postgres => "postgres",
        }
    }

    /// The packages that bring the server and its tools.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Engine::Mariadb => &["mariadb-server"],
            Engine::Postgres => &["postgresql-15"],
        }
    }

    /// The user that it runs as.
    pub(super) fn user(self) -> &'static str {
        match self {
            Engine::Mariadb => "mysql",
            Engine::Postgres => "postgres",
        }
    }

    /// The folder of its programs.
    pub fn programs(self) -> &'static Path {
        Path::new(match self {
            Engine::Mariadb => "/usr/sbin",
            Engine::Postgres => "/usr/lib/postgresql/15/bin",
        })
    }
}
