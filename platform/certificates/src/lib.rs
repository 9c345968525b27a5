//! The TLS certificates of an appliance's services, behind the engine's port
//! [`Certificates`](handover_engine::ports::changeover::Certificates).
//!
//! A certificate is checked before anything is changed ([`Checked`]), put in place so that it can be put back at any moment
//! ([`LocalCertificates`]), and then asked for over TLS: what counts is what a service serves.

mod acme;
mod checked;
mod command;
mod item;
mod local;
mod material;
#[cfg(test)]
mod minted;
mod names;
mod place;
mod probe;
mod record;
mod reissue;
mod section;

pub use checked::{Checked, WARN_SECONDS};
pub use local::{LocalCertificates, Reloader};
pub use material::{Pair, Unfit};
pub use section::{CertificateSection, check};
