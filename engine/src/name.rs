//! Names of things that the operator, the journal and the wire all refer to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is no valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a valid name: use 1 to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`, starting with a letter or digit"
)]
pub struct BadName(pub String);

/// Bytes of a name.
const LONGEST: usize = 64;

fn checked(text: &str) -> Result<String, BadName> {
    let ok = (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if ok { Ok(text.to_owned()) } else { Err(BadName(text.to_owned())) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                checked(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// One database, file tree, log directory or ticket queue; unique in a manifest, equal on both hosts.
    DatasetName
}
name! {
    /// One durable run of an approved plan.
    MigrationId
}

impl MigrationId {
    /// The name of no migration, for who only looks, or writes where no migration has built anything.
    pub fn nobody() -> Self {
        Self("nobody".to_owned())
    }
}

name! {
    /// What the target holds open at the source. Chosen by the target, so that asking twice is harmless.
    LeaseId
}
name! {
    /// A backup of a host's datasets: the name of its directory.
    BackupId
}

impl BackupId {
    /// The name of a backup that was made for `migration` on an occasion.
    pub fn of(migration: &MigrationId, occasion: &str) -> Self {
        let (mut name, end) = (migration.as_str().to_owned(), format!("-{occasion}"));
        // Names are ASCII.
        name.truncate(LONGEST - end.len());
        Self(name + &end)
    }
}

name! {
    /// What keeps a database's changes at the source for one migration. Chosen by the target.
    CaptureId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["db", "a.b-c_9", "0", &"x".repeat(64)] {
            assert!(good.parse::<DatasetName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<DatasetName>().is_err(), "{bad}");
        }
    }
}
