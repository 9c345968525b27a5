//! TLS to the server.

use std::path::Path;
use std::sync::Arc;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A configuration that trusts servers whose certificate the authorities in the file have signed.
pub fn config(item: &str, ca: &Path) -> Result<ClientConfig> {
    let unusable = |what: String| {
        Failure::operator(item, format!("{}: {what}", ca.display())).hint("correct `ca` in `url`")
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca).map_err(|e| unusable(e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        // A system's list may hold one that rustls does not take; the others are still good.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate authority".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
