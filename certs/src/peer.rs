//! Who is on the other side of a connection.

use rustls_pki_types::CertificateDer;

use crate::details::Details;
use crate::identity::{Identity, IdentityError};

/// When the certificate ends that a peer presented, as in [`peer_identity`].
pub fn peer_not_after(certificates: &[CertificateDer<'_>]) -> Option<time::OffsetDateTime> {
    let certificate = Details::read(certificates.first()?).ok()?;
    Some(certificate.not_after)
}

/// The identity of a peer from the certificates it presented (`peer_certificates()` of a rustls connection), which the
/// handshake has verified. Do not pass certificates that came another way.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Result<Identity, IdentityError> {
    Identity::from_certificate(certificates.first().ok_or(IdentityError::Missing)?)
}
