//! Handover's PKI: issue, load, reload and verify identities.
//!
//! Each certificate carries one SPIFFE id (<https://spiffe.io/docs/latest/spiffe-about/spiffe-concepts/>) in a URI SAN,
//! which names the role of its holder. A peer is known by that id, never by a DNS name.

pub mod authority;
pub mod file;
pub mod identity;
pub mod material;
pub mod peer;
pub mod reload;
pub mod summary;
pub mod tls;
