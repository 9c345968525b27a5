//! `[appliance]`: what it is as a whole.

use serde::Deserialize;

/// `[appliance]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appliance {
    /// Its name; the same on both hosts.
    pub name: String,
    /// The release it runs.
    #[serde(default)]
    pub release: String,
    /// Its role.
    #[serde(default)]
    pub role: Role,
    /// The host name that users know it by.
    #[serde(default)]
    pub host_name: String,
    /// Its domain.
    #[serde(default)]
    pub domain: String,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// The part a host plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The only host.
    #[default]
    Standalone,
    /// The master of a high-availability pair.
    HaMaster,
    /// The replica of a high-availability pair.
    HaReplica,
}

impl Role {
    /// As it is written in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Standalone => "standalone",
            Role::HaMaster => "ha-master",
            Role::HaReplica => "ha-replica",
        }
    }
}
