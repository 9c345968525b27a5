//! A server and its replica, and the manifest that names both.

use std::time::Duration;

use handover_engine::name::MigrationId;
use handover_platform::access::Side;
use handover_platform::manifest::Manifest;
use handover_platform::replicas::LocalReplicas;
use handover_tests::poll;
use tempfile::TempDir;

use crate::support::Server;

pub const WITHIN: Duration = Duration::from_secs(60);

/// A server and the one that is, or becomes, its replica.
pub struct Servers {
    pub primary: Server,
    pub replica: Server,
    pub dir: TempDir,
    databases: Vec<String>,
}

pub fn migration() -> MigrationId {
    "m-1".parse().unwrap()
}

impl Servers {
    /// Both without data of the appliance; the account for replicas is at the primary.
    pub fn start(options: &[&str]) -> Self {
        let primary = Server::start(&["--local-infile=1", "--server-id=7"]);
        let options: Vec<&str> =
            ["--local-infile=1", "--server-id=8"].iter().chain(options).copied().collect();
        let replica = Server::start(&options);
        primary.sql(
            "",
            "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'pa''ss\\\\word'; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'",
        );
        Self { primary, replica, dir: tempfile::tempdir().unwrap(), databases: Vec::new() }
    }

    /// A database at the primary.
    pub fn holding(mut self, name: &str, statements: &str) -> Self {
        self.primary.sql("", &format!("CREATE DATABASE {name}"));
        self.primary.sql(name, statements);
        self.databases.push(name.to_owned());
        self
    }

    /// The replica follows, made by hand.
    pub fn linked(self) -> Self {
        let port = self.primary.port();
        // All there is at the primary is in its log.
        self.replica.sql(
            "",
            &format!(
                "SET GLOBAL gtid_slave_pos = ''; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'repl', \
                 MASTER_PASSWORD = 'pa''ss\\\\word', MASTER_USE_GTID = slave_pos; START SLAVE"
            ),
        );
        self.caught_up();
        self
    }

    pub fn port(&self) -> u16 {
        self.primary.port()
    }

    /// What a manifest says, with how the replica signs in.
    pub fn replicas_with(&self, side: Side, login: &str) -> LocalReplicas {
        let section = |name: &String| {
            format!(
                "[[database]]\nname = \"{name}\"\nurl = \"{}\"\nreplica = \"{}\"\n{login}\n",
                self.primary.url(name),
                self.replica.url(name)
            )
        };
        let sections: String = self.databases.iter().map(section).collect();
        let file = self.dir.path().join("appliance.toml");
        std::fs::write(&file, format!("[appliance]\nname = \"shop\"\n{sections}")).unwrap();
        LocalReplicas::new(&Manifest::read(&file).unwrap(), self.dir.path(), side)
    }

    /// The target's, as it should be.
    pub fn target(&self) -> LocalReplicas {
        let login = format!("replication = \"mariadb://repl:pa'ss%5Cword@127.0.0.1:{}/x\"", self.port());
        self.replicas_with(Side::Target, &login)
    }

    pub fn source(&self) -> LocalReplicas {
        self.replicas_with(Side::Source, "")
    }

    /// Its primary, and whether it receives what that logs.
    pub fn slave(&self) -> (String, String) {
        let status = self.replica.sql("", "SHOW SLAVE STATUS");
        let column = |at| status.split('\t').nth(at).unwrap_or_default().to_owned();
        (column(1), column(10))
    }

    /// Waits until the replica has all that is at the primary now.
    pub fn caught_up(&self) {
        let at = self.primary.sql("", "SELECT @@gtid_binlog_pos");
        let done = poll::until("the replica to catch up", WITHIN, || {
            Ok((self.replica.sql("", "SELECT @@gtid_slave_pos") == at).then_some(()))
        });
        done.unwrap_or_else(|error| panic!("{error}: {}", self.replica.sql("", "SHOW SLAVE STATUS")));
    }

    /// The last transaction that began at the replica itself.
    pub fn own_transactions(&self) -> Option<String> {
        let all = self.replica.sql("", "SELECT @@gtid_binlog_state");
        all.trim().split(',').find(|one| one.contains("-8-")).map(str::to_owned)
    }

    pub fn both(&self, database: &str, query: &str) -> (String, String) {
        (self.primary.sql(database, query), self.replica.sql(database, query))
    }
}
