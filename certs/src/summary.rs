//! What `handover certs show` prints.

use std::fmt;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{AuthorityError, now};
use crate::file;
use crate::identity::{Identity, IdentityError};

/// A certificate in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateSummary {
    /// Whose it is.
    pub identity: Identity,
    /// Its serial number in hex.
    pub serial: String,
    /// Who issued it.
    pub issuer: String,
    /// From when it is good (RFC 3339).
    pub not_before: String,
    /// Until when (RFC 3339).
    pub not_after: String,
    /// Whole days left; negative when it has expired.
    pub days_left: i64,
}

/// Reads the certificate in an identity's directory.
pub fn of_directory(dir: &Path) -> Result<CertificateSummary, AuthorityError> {
    let bytes = file::read(&dir.join("cert.pem"))?;
    let certificate = CertificateDer::from_pem_slice(&bytes).map_err(|_| IdentityError::Certificate)?;
    let identity = Identity::from_certificate(&certificate)?;
    let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| IdentityError::Certificate)?;
    let (from, to) = (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
    let text = |time: time::OffsetDateTime| time.format(&Rfc3339).unwrap_or_else(|_| time.to_string());
    Ok(CertificateSummary {
        identity,
        serial: crate::authority::hex(parsed.raw_serial()),
        issuer: parsed.issuer().to_string(),
        not_before: text(from),
        not_after: text(to),
        days_left: (to - now()).whole_days(),
    })
}

impl fmt::Display for CertificateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "identity    {}", self.identity)?;
        writeln!(f, "serial      {}", self.serial)?;
        writeln!(f, "issuer      {}", self.issuer)?;
        writeln!(f, "good from   {}", self.not_before)?;
        write!(f, "good until  {} ({} days left)", self.not_after, self.days_left)
    }
}
