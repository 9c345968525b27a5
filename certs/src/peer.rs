//! Who is on the other side of a connection.

use rustls_pki_types::CertificateDer;

use crate::identity::{Identity, IdentityError};

/// The identity of a peer from the certificates it presented; they have been verified by the handshake.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Result<Identity, IdentityError> {
    Identity::from_certificate(certificates.first().ok_or(IdentityError::Certificate)?)
}
