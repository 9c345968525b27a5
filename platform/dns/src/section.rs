//! `[dns]`: the names that lead users to the appliance, and the server that has them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use serde::Deserialize;

/// The longest that others may be let keep a record: a week.
const LONGEST_TTL: u32 = 7 * 24 * 3600;

/// `[dns]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsSection {
    /// The server that answers for the names' zones, as `address:port`: their primary, not a resolver.
    pub server: SocketAddr,
    /// Names that lead to the appliance, and follow it.
    #[serde(default)]
    pub service_names: Vec<String>,
    /// Names that lead to several hosts, the appliance's among them.
    #[serde(default)]
    pub round_robin: Vec<String>,
    /// For how many seconds others may keep records that were put in. None: as long as those before.
    #[serde(default)]
    pub ttl: Option<u32>,
    /// How the server is told. None: the operator changes the records.
    #[serde(default)]
    pub update: Option<UpdateSection>,
}

/// `[dns.update]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateSection {
    /// The key's name, as the server knows it.
    pub key_name: String,
    /// What it signs with.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// The file with its secret, in base64, absolute. For nobody but its owner.
    pub secret_file: PathBuf,
}

/// What updates are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-384.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// HMAC with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

impl From<Algorithm> for TsigAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        }
    }
}

/// A name in lower case with its final dot; none where it is no name.
pub(crate) fn absolute(name: &str) -> Option<String> {
    let mut parsed = Name::from_ascii(name).ok().filter(|parsed| parsed.num_labels() > 0)?;
    parsed.set_fqdn(true);
    Some(parsed.to_lowercase().to_ascii())
}

impl DnsSection {
    /// Its service names, absolute.
    pub(crate) fn service_names(&self) -> Vec<String> {
        self.service_names.iter().filter_map(|name| absolute(name)).collect()
    }

    /// Its round-robin names, absolute.
    pub(crate) fn round_robin(&self) -> Vec<String> {
        self.round_robin.iter().filter_map(|name| absolute(name)).collect()
    }
}

/// What makes no sense: the key, and what is wrong with it.
pub fn check(section: &DnsSection) -> Result<(), (&'static str, String)> {
    let refuse = |key, problem: String| Err((key, problem));
    if section.server.port() == 0 {
        return refuse("server", "write an address with a port, like \"192.0.2.53:53\"".to_owned());
    }
    let mut known = HashSet::new();
    for (key, names) in [("service_names", &section.service_names), ("round_robin", &section.round_robin)] {
        for name in names {
            let Some(absolute) = absolute(name).filter(|_| name.trim_end_matches('.').contains('.')) else {
                return refuse(key, format!("`{name}` is no full DNS name, like www.example.net"));
            };
            if !known.insert(absolute) {
                return refuse(key, format!("`{name}` is there twice"));
            }
        }
    }
    if known.is_empty() {
        return refuse("service_names", "write a name here or into `round_robin`".to_owned());
    }
    if section.ttl.is_some_and(|ttl| ttl > LONGEST_TTL) {
        return refuse("ttl", format!("write 0 to {LONGEST_TTL} seconds"));
    }
    let Some(update) = &section.update else { return Ok(()) };
    if absolute(&update.key_name).is_none() {
        return refuse("update.key_name", format!("`{}` is no name of a key", update.key_name));
    }
    if !update.secret_file.is_absolute() || update.secret_file.file_name().is_none() {
        return refuse("update.secret_file", "write the absolute path of a file".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "server = '192.0.2.53:53'\nservice_names = ['WWW.example.net']\nround_robin = ['pool.example.net.']\n\
                        ttl = 60\n[update]\nkey_name = 'handover'\nsecret_file = '/etc/handover/dns.key'\n";

    fn read(text: &str) -> Result<DnsSection, String> {
        let section: DnsSection = toml::from_str(text).map_err(|error| error.to_string())?;
        check(&section).map_err(|(key, problem)| format!("`{key}`: {problem}"))?;
        Ok(section)
    }

    #[test]
    fn names_are_made_alike() {
        let section = read(GOOD).unwrap();
        assert_eq!(section.service_names(), ["www.example.net."]);
        assert_eq!(section.round_robin(), ["pool.example.net."]);
        assert_eq!(section.update.unwrap().algorithm, Algorithm::HmacSha256);
    }

    #[test]
    fn bad_ones_are_refused_by_key() {
        for (text, part) in [
            (GOOD.replace("192.0.2.53:53", "192.0.2.53"), "server"),
            (GOOD.replace(":53'", ":0'"), "`server`: write an address with a port"),
            (GOOD.replace("WWW.example.net", "www"), "`service_names`: `www` is no full DNS name"),
            (GOOD.replace("WWW.example.net", "a..b"), "`service_names`: `a..b` is no full DNS name"),
            (GOOD.replace("WWW", "pool"), "`round_robin`: `pool.example.net.` is there twice"),
            (
                GOOD.replace("['WWW.example.net']", "[]").replace("['pool.example.net.']", "[]"),
                "`service_names`: write a name",
            ),
            (GOOD.replace("ttl = 60", "ttl = 9999999"), "`ttl`: write 0 to 604800"),
            (GOOD.replace("'handover'", "''"), "`update.key_name`"),
            (GOOD.replace("/etc", "etc"), "`update.secret_file`: write the absolute path"),
            (format!("{GOOD}algorithm = 'hmac-md5'"), "hmac-md5"),
            (format!("{GOOD}secret = 'x'"), "secret"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
