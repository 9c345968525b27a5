//! Databases on servers, as datasets.

use std::path::PathBuf;
use std::sync::Arc;

use handover_backups::{Contents, Dataset, MariadbServer, PostgresServer};
use handover_tests::server::{Engine, Server};

/// Everything of a database, as the server's own tools tell it independently.
const DUMP: [&str; 8] = [
    "--skip-comments",
    "--routines",
    "--events",
    "--triggers",
    "--hex-blob",
    "--order-by-primary",
    "--skip-dump-date",
    "--skip-extended-insert",
];

/// A dataset `shop` over the local socket, as the administrator.
pub fn mariadb(server: &Server, database: &str) -> Dataset {
    let contents = Contents::Mariadb(MariadbServer {
        user: "root".to_owned(),
        password: Arc::new(|| Ok(None)),
        host: "localhost".to_owned(),
        port: 0,
        socket: Some(server.socket()),
        tls: false,
        ca: None,
        database: database.to_owned(),
    });
    Dataset { name: "shop".parse().unwrap(), contents }
}

/// The same, with the programs of a directory.
pub fn postgres(server: &Server, database: &str, programs: Option<PathBuf>) -> Dataset {
    let contents = Contents::Postgres(PostgresServer {
        user: "postgres".to_owned(),
        password: Arc::new(|| Ok(Some("not: needed".to_owned()))),
        host: "localhost".to_owned(),
        port: server.port(),
        socket: Some(server.socket()),
        ca: None,
        database: database.to_owned(),
        maintenance: "postgres".to_owned(),
        programs,
    });
    Dataset { name: "shop".parse().unwrap(), contents }
}

/// All of it as text.
pub fn dump(server: &Server, database: &str) -> String {
    let mut tool = match server.engine() {
        Engine::Mariadb => {
            let mut tool = server.tool("mariadb-dump");
            tool.args(DUMP);
            tool
        }
        Engine::Postgres => {
            let mut tool = server.tool("pg_dump");
            tool.arg("--inserts");
            tool
        }
    };
    let out = tool.arg(database).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // Each run has random words of its own in these lines.
    text.lines().filter(|line| !line.contains("restrict")).collect::<Vec<_>>().join("\n")
}
