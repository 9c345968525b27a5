//! Who somebody is: `spiffe://<trust-domain>/handover/<role>/<name>`.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the holder of a certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves an appliance's data.
    Source,
    /// Fetches it, and answers operators and watchers.
    Target,
    /// Plans and runs migrations.
    Operator,
    /// Looks on.
    Watcher,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Source, Role::Target, Role::Operator, Role::Watcher];

    /// The word in a SPIFFE id.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Target => "target",
            Role::Operator => "operator",
            Role::Watcher => "watcher",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| IdentityError::Role(text.to_owned()))
    }
}

/// Somebody's identity. Made by [`Identity::new`], by parsing a SPIFFE id, or from a certificate: all check the parts.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity {
    /// The trust domain.
    pub trust_domain: String,
    /// The role.
    pub role: Role,
    /// The name, unique for the role within the trust domain.
    pub name: String,
}

/// A text or a certificate that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a role.
    #[error("`{0}` is no role: use source, target, operator or watcher")]
    Role(String),
    /// Not a trust domain.
    #[error("`{0}` is no trust domain: use up to 255 of a-z, 0-9, `.`, `-` and `_`")]
    TrustDomain(String),
    /// Not a name.
    #[error("`{0}` is no name: use 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`")]
    Name(String),
    /// Not the form of an id.
    #[error("`{0}` is not of the form spiffe://<trust-domain>/handover/<role>/<name>")]
    Form(String),
    /// Not a certificate.
    #[error("the certificate cannot be read as X.509: issue it again with `handover certs issue`")]
    Certificate,
    /// A peer without a certificate.
    #[error("the peer presented no certificate: give it one with `handover certs issue`")]
    Missing,
    /// No URI, or several.
    #[error(
        "the certificate carries {0} URIs where exactly one SPIFFE id belongs: issue it with `handover certs issue`"
    )]
    UriCount(usize),
}

impl Identity {
    /// Checks the parts: the trust domain by the SPIFFE specification, the name by ours, which is stricter.
    pub fn new(trust_domain: &str, role: Role, name: &str) -> Result<Self, IdentityError> {
        let domain_ok = (1..=255).contains(&trust_domain.len())
            && trust_domain
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
        if !domain_ok {
            return Err(IdentityError::TrustDomain(trust_domain.to_owned()));
        }
        let name_ok = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && name.bytes().any(|b| b != b'.');
        if !name_ok {
            return Err(IdentityError::Name(name.to_owned()));
        }
        Ok(Self { trust_domain: trust_domain.to_owned(), role, name: name.to_owned() })
    }

    /// The identity in a certificate: its one URI SAN. Does not verify the certificate.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (rest, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| IdentityError::Certificate)?;
        let sans = parsed.subject_alternative_name().map_err(|_| IdentityError::Certificate)?;
        if !rest.is_empty() {
            return Err(IdentityError::Certificate);
        }
        let names = sans.map(|san| san.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|n| if let GeneralName::URI(uri) = n { Some(*uri) } else { None })
            .collect();
        match uris[..] {
            [uri] => uri.parse(),
            _ => Err(IdentityError::UriCount(uris.len())),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/handover/{}/{}", self.trust_domain, self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts[..] {
            [domain, "handover", role, name] => Self::new(domain, role.parse()?, name),
            _ => Err(form()),
        }
    }
}

impl TryFrom<String> for Identity {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> String {
        identity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips() {
        let identity = Identity::new("acme.example", Role::Target, "mail-2").unwrap();
        assert_eq!(identity.to_string(), "spiffe://acme.example/handover/target/mail-2");
        assert_eq!(identity.to_string().parse(), Ok(identity));
    }

    #[test]
    fn names_and_domains_have_bounds() {
        let new = |domain: &str, name: &str| Identity::new(domain, Role::Source, name);
        assert!(new(&"a".repeat(255), &"n".repeat(64)).is_ok());
        assert!(matches!(new(&"a".repeat(256), "n"), Err(IdentityError::TrustDomain(_))));
        assert!(matches!(new("a", &"n".repeat(65)), Err(IdentityError::Name(_))));
    }

    #[test]
    fn json_holds_the_id_and_checks_it() {
        let identity = Identity::new("acme.example", Role::Watcher, "wall").unwrap();
        let json = serde_json::to_string(&identity).unwrap();
        assert_eq!(json, r#""spiffe://acme.example/handover/watcher/wall""#);
        assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), identity);
        assert!(serde_json::from_str::<Identity>(r#""spiffe://acme.example/handover/king/wall""#).is_err());
        assert_eq!(serde_json::to_string(&Role::Operator).unwrap(), r#""operator""#);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "SPIFFE://a/handover/target/b",
            "spiffe://a:443/handover/target/b",
            "spiffe://u@a/handover/target/b",
            "spiffe://a/handover/Target/b",
            "spiffe://a/handover//b",
            "spiffe://a/handover/target/b/",
            "spiffe://a/handover/target/b?x",
            "spiffe://a/handover/target/b#x",
            "spiffe://a/handover/target/%62",
            "spiffe://a/handover/target/b\n",
            "spiffe://a/handover/target/\u{e9}",
            " spiffe://a/handover/target/b",
            "",
            "https://a/handover/target/b",
            "spiffe://a/handover/target",
            "spiffe://a/handover/target/b/c",
            "spiffe://a/other/target/b",
            "spiffe://A/handover/target/b",
            "spiffe:///handover/target/b",
            "spiffe://a/handover/king/b",
            "spiffe://a/handover/target/",
            "spiffe://a/handover/target/..",
            "spiffe://a/handover/target/b c",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
