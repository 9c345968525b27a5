//! What is backed up: a host's datasets, and how their tools get at them.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use handover_engine::name::DatasetName;
use handover_engine::ports::TreeReader;

/// Reads a password; again at every use, so that it may be changed.
pub type Password = Arc<dyn Fn() -> io::Result<Option<String>> + Send + Sync>;

/// A dataset of this host.
#[derive(Clone)]
pub struct Dataset {
    /// Its name.
    pub name: DatasetName,
    /// What it is.
    pub contents: Contents,
}

impl Dataset {
    /// How messages name it.
    pub fn item(&self) -> String {
        format!("dataset {}", self.name)
    }
}

/// What a dataset is.
#[derive(Clone)]
pub enum Contents {
    /// An SQLite database: its file.
    Sqlite(PathBuf),
    /// A database of a MariaDB server.
    Mariadb(MariadbServer),
    /// A database of a PostgreSQL server.
    Postgres(PostgresServer),
    /// A file tree.
    Tree(Tree),
}

impl Contents {
    /// As `backup.json` names it.
    pub fn engine(&self) -> &'static str {
        match self {
            Contents::Sqlite(_) => "sqlite",
            Contents::Mariadb(_) => "mariadb",
            Contents::Postgres(_) => "postgres",
            Contents::Tree(_) => "files",
        }
    }
}

/// A MariaDB server, a database in it, and how to sign in.
#[derive(Clone)]
pub struct MariadbServer {
    /// Account.
    pub user: String,
    /// Its password.
    pub password: Password,
    /// Host; unused with a socket.
    pub host: String,
    /// Port; unused with a socket.
    pub port: u16,
    /// A local socket.
    pub socket: Option<PathBuf>,
    /// Connect with TLS or not at all.
    pub tls: bool,
    /// The certificate authority of the server's certificate; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// The database.
    pub database: String,
}

/// A PostgreSQL server, a database in it, and how to sign in.
#[derive(Clone)]
pub struct PostgresServer {
    /// Role.
    pub user: String,
    /// Its password.
    pub password: Password,
    /// Host; unused with a socket.
    pub host: String,
    /// Port, also part of the socket's name.
    pub port: u16,
    /// The directory of the local socket.
    pub socket: Option<PathBuf>,
    /// The certificate authority of the server's certificate; none for a connection without TLS.
    pub ca: Option<PathBuf>,
    /// The database.
    pub database: String,
    /// A database to be connected to while that one is made, renamed or dropped.
    pub maintenance: String,
    /// The directory of its programs, where they are not the system's.
    pub programs: Option<PathBuf>,
}

/// A file tree.
#[derive(Clone)]
pub struct Tree {
    /// Its root.
    pub root: PathBuf,
    /// Tells what belongs to it, as the manifest's globs say.
    pub reader: Arc<dyn TreeReader>,
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.contents.engine())
    }
}
