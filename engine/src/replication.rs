//! Replication between database servers: what part a server plays in it, as the server itself tells, and the replicas that a manifest
//! names.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::DatasetName;

/// What a server takes from another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its primary, as host and port.
    pub of: String,
    /// It receives what is written there, and applies it.
    pub running: bool,
    /// How far it is behind, in seconds; none where it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_seconds: Option<u64>,
    /// Where it is, by global transaction ids.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub position: String,
    /// What has stopped it, or keeps it from its primary. Never row data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The part that a server plays, by its real state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServerRole {
    /// Where the replicas are that take its log now.
    #[serde(default)]
    pub replicas: Vec<String>,
    /// The servers that it is a replica of itself.
    #[serde(default)]
    pub follows: Vec<Link>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica of {}, ", self.of)?;
        match (self.running, self.behind_seconds) {
            (true, Some(seconds)) => write!(f, "running, {seconds} s behind")?,
            (true, None) => f.write_str("running")?,
            (false, _) => f.write_str("not running")?,
        }
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl fmt::Display for ServerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let primary = match self.replicas.len() {
            0 => None,
            1 => Some(format!("primary of the replica {}", self.replicas[0])),
            many => Some(format!("primary of {many} replicas ({})", self.replicas.join(", "))),
        };
        let parts: Vec<String> =
            primary.into_iter().chain(self.follows.iter().map(Link::to_string)).collect();
        f.write_str(if parts.is_empty() { "stand-alone" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

/// The replica that a manifest names beside a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFacts {
    /// Where it is; never credentials.
    pub server: String,
    /// What part it plays; none where it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ServerRole>,
}

/// What an inventory tells of a server that databases of the manifest are on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationFacts {
    /// Its databases.
    pub datasets: Vec<DatasetName>,
    /// Where it is; never credentials.
    pub server: String,
    /// What part it plays; none where it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ServerRole>,
    /// The replica that the manifest names for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaFacts>,
    /// What keeps the agent from handling the replica, with what to do; without a replica, why the part it plays is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl ReplicationFacts {
    /// Its databases, for messages.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.datasets.iter().map(DatasetName::as_str).collect();
        names.join(", ")
    }

    /// Whether a plan for these datasets (all where there are none) has to do with its replica.
    pub fn is_replicated_of(&self, chosen: &[DatasetName]) -> bool {
        let is_chosen = chosen.is_empty() || self.datasets.iter().any(|name| chosen.contains(name));
        self.replica.is_some() && is_chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_in_words() {
        let link = |running, behind_seconds, error: Option<&str>| Link {
            of: "db1:3306".into(),
            running,
            behind_seconds,
            position: String::new(),
            error: error.map(str::to_owned),
        };
        let table = [
            (ServerRole::default(), "stand-alone"),
            (
                ServerRole { replicas: vec!["db2".into()], ..ServerRole::default() },
                "primary of the replica db2",
            ),
            (
                ServerRole {
                    replicas: vec!["db2".into(), "db3".into()],
                    follows: vec![link(true, Some(0), None)],
                },
                "primary of 2 replicas (db2, db3); replica of db1:3306, running, 0 s behind",
            ),
            (
                ServerRole {
                    follows: vec![link(false, None, Some("it has stopped"))],
                    ..ServerRole::default()
                },
                "replica of db1:3306, not running: it has stopped",
            ),
        ];
        for (role, expected) in table {
            assert_eq!(role.to_string(), expected);
        }
    }
}
