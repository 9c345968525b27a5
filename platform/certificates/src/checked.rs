//! A certificate is checked before anything is changed: key, chain, dates, names.

use handover_engine::time::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::material::{Pair, Unfit};
use crate::names;

/// One that expires within this time is told of.
pub const WARN_SECONDS: i64 = 7 * 24 * 3600;
/// Hosts' clocks are not all the same; one that was issued just now is good.
const CLOCKS_DIFFER_SECONDS: i64 = 60;

/// A chain that may be put in place with its key.
#[derive(Debug)]
pub struct Checked {
    pair: Pair,
    names: Vec<String>,
    expires: Timestamp,
    warning: Option<String>,
}

impl Checked {
    /// Checks, in this order: that key and certificate belong together, the chain, the dates at `now`, and that it is good for all
    /// the names that are `wanted`.
    pub fn new(pair: Pair, now: Timestamp, wanted: &[String]) -> Result<Self, Unfit> {
        let parsed: Vec<_> = pair.chain.iter().map(parse).collect::<Result<_, _>>()?;
        let leaf = &parsed[0];
        keys_match(&pair)?;
        let names = names::of(leaf);
        not_a_ca(leaf, parsed.len(), &names)?;
        for (number, two) in parsed.windows(2).enumerate() {
            signed_by(&two[0], &two[1], number + 1)?;
        }
        for (number, certificate) in parsed.iter().enumerate() {
            let is_root = number > 0 && certificate.issuer() == certificate.subject();
            if !is_root {
                valid_at(certificate, now)?;
            }
        }
        let missing = names::missing(&pair.chain[0], &names, wanted);
        if !missing.is_empty() {
            let what =
                format!("it is not good for {}, only for {}", names::shown(&missing), names::shown(&names));
            let hint = "have one issued for these names, or set `names` in the certificate's section";
            return Err(Unfit::new(what, hint));
        }
        let expires = leaf.validity().not_after.timestamp();
        let warning = warning(leaf, expires - now.seconds);
        Ok(Self { names, expires: Timestamp { seconds: expires, nanos: 0 }, warning, pair })
    }

    /// Chain and key.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// The names that it is for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When the host's own certificate expires.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// What does not stand in the way, but should be known.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

pub(crate) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Unfit> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => {
            let what = "a certificate of the chain cannot be read";
            Err(Unfit::new(what, "write the chain again, as PEM; `openssl x509 -noout -text` tells more"))
        }
    }
}

pub(crate) fn keys_match(pair: &Pair) -> Result<(), Unfit> {
    let hint = "RSA (2048 bits or more), ECDSA with P-256, P-384 or P-521, and Ed25519 keys are taken";
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&pair.key)
        .map_err(|error| Unfit::new(format!("the key cannot be used ({error})"), hint))?;
    // Where either side's public key is unknown, `keys_match` says so with an error: that is no match.
    rustls::sign::CertifiedKey::new(pair.chain.clone(), key).keys_match().map_err(|_| {
        Unfit::new(
            "the key does not belong to the certificate",
            "put the key there that the certificate was issued for; the host's own certificate comes first",
        )
    })
}

/// `openssl req -x509` marks what it signs itself as a CA's, so that this alone says little: what signs others, was made a CA by another,
/// or is for no host, is refused.
fn not_a_ca(leaf: &X509Certificate<'_>, chain: usize, names: &[String]) -> Result<(), Unfit> {
    let usage = leaf.key_usage().ok().flatten();
    let signs = usage.is_some_and(|usage| usage.value.key_cert_sign());
    if leaf.is_ca() && (signs || chain > 1 || names.is_empty()) {
        let what = format!("the first certificate ({}) is a CA's", names::subject(leaf));
        return Err(Unfit::new(what, "put the host's own certificate first, and with it its own key"));
    }
    Ok(())
}

fn signed_by(one: &X509Certificate<'_>, next: &X509Certificate<'_>, number: usize) -> Result<(), Unfit> {
    let is_signed = one.issuer() == next.subject()
        && next.is_ca()
        && one.verify_signature(Some(next.public_key())).is_ok();
    if is_signed {
        return Ok(());
    }
    let what = format!(
        "certificate {} of the chain ({}) did not sign the one before it ({})",
        number + 1,
        names::subject(next),
        names::subject(one)
    );
    let hint = "put the chain in order: the host's own certificate, the CA that signed it, the CA above that; nothing else";
    Err(Unfit::new(what, hint))
}

pub(crate) fn valid_at(certificate: &X509Certificate<'_>, now: Timestamp) -> Result<(), Unfit> {
    let validity = certificate.validity();
    let moment = |seconds: i64| Timestamp { seconds, nanos: 0 };
    let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now.seconds > to {
        let what = format!("{} expired at {}", names::subject(certificate), moment(to));
        return Err(Unfit::new(what, "renew it, or choose action = \"reissue\" or \"keep\" at the target"));
    }
    if now.seconds + CLOCKS_DIFFER_SECONDS < from {
        let what = format!("{} is not valid before {}", names::subject(certificate), moment(from));
        return Err(Unfit::new(what, "set this host's clock, or have it issued again"));
    }
    Ok(())
}

fn warning(leaf: &X509Certificate<'_>, left: i64) -> Option<String> {
    if left < WARN_SECONDS {
        let hours = left.max(0) / 3600;
        return Some(format!("it expires within {hours} h: renew it before it is moved"));
    }
    let marked = "it is marked as a CA's: some clients will not have it; have one issued that is not";
    leaf.is_ca().then(|| marked.to_owned())
}

#[cfg(test)]
mod tests;
