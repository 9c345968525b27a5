//! PEM files with several certificates or several revocation lists: what a CA swap lives on.

use std::cmp::Reverse;
use std::path::Path;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateRevocationListDer;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::file::{self, FileError};

const CERTIFICATE: &str = "CERTIFICATE";
const CRL: &str = "X509 CRL";

/// The parts of a PEM file that have a tag, in order.
fn parts(path: &Path, tag: &str) -> Result<Vec<Pem>, FileError> {
    let parsed = pem::parse_many(file::read(path)?).map_err(|error| FileError {
        path: path.to_owned(),
        what: "is not PEM: write it again".to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    })?;
    Ok(parsed.into_iter().filter(|part| part.tag() == tag).collect())
}

fn encode(parts: &[Pem]) -> String {
    pem::encode_many_config(parts, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// The certificates of `first`, then those of `second` that are not among them.
pub(crate) fn certificates(first: &Path, second: &Path) -> Result<String, FileError> {
    let mut all = parts(first, CERTIFICATE)?;
    for other in parts(second, CERTIFICATE)? {
        if !all.contains(&other) {
            all.push(other);
        }
    }
    Ok(encode(&all))
}

/// Only the first certificate of a file: a CA's own.
pub(crate) fn first_certificate(path: &Path) -> Result<String, FileError> {
    let mut own = parts(path, CERTIFICATE)?;
    own.truncate(1);
    Ok(encode(&own))
}

/// The newest list of each issuer in `own` and in `files` (those that exist).
pub(crate) fn revocation_lists(own: Option<&[u8]>, files: &[&Path]) -> Result<String, FileError> {
    let mut all: Vec<Pem> = own.map(|der| Pem::new(CRL, der)).into_iter().collect();
    for path in files.iter().filter(|path| path.exists()) {
        all.extend(parts(path, CRL)?);
    }
    all.sort_by_cached_key(|part| Reverse(rank(part.contents())));
    let mut kept: Vec<Pem> = Vec::new();
    for list in all {
        let same_issuer = |other: &Pem| issuer(other.contents()) == issuer(list.contents());
        if !kept.iter().any(same_issuer) {
            kept.push(list);
        }
    }
    Ok(encode(&kept))
}

/// Puts newer lists before older ones. webpki looks at the first list of an issuer alone, so that a stale list left in the
/// file would hide what a newer one revokes.
pub(crate) fn newest_first(lists: &mut [CertificateRevocationListDer<'_>]) {
    lists.sort_by_cached_key(|list| Reverse(rank(list)));
}

/// Orders the lists of one issuer: by number, then by time for issuers that do not number them.
fn rank(list: &[u8]) -> (usize, Vec<u8>, i64) {
    let Ok((_, parsed)) = CertificateRevocationList::from_der(list) else { return Default::default() };
    let number = parsed.crl_number().map(|number| number.to_bytes_be()).unwrap_or_default();
    (number.len(), number, parsed.last_update().timestamp())
}

fn issuer(list: &[u8]) -> Option<Vec<u8>> {
    CertificateRevocationList::from_der(list).ok().map(|(_, parsed)| parsed.issuer().as_raw().to_vec())
}
