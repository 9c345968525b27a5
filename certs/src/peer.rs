//! Who is on the other side of a connection.

use rustls_pki_types::CertificateDer;

use crate::identity::{Identity, IdentityError};

/// The identity of a peer from the certificates it presented (`peer_certificates()` of a rustls connection), which the
/// handshake has verified. Do not pass certificates that came another way.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Result<Identity, IdentityError> {
    Identity::from_certificate(certificates.first().ok_or(IdentityError::Missing)?)
}
