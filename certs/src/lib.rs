//! Handover's PKI: issue, load, reload and verify identities.
//!
//! Each certificate carries one SPIFFE id (<https://spiffe.io/docs/latest/spiffe-about/spiffe-concepts/>) in a URI SAN,
//! which names the role of its holder. A peer is known by that id, never by a DNS name.
//!
//! - [`authority`] issues, renews and revokes; [`summary`] tells what there is;
//! - [`material`] loads and checks one identity's files; [`tls`] turns them into rustls configs, and is the only place
//!   that does; [`reload`] keeps both current while connections live on;
//! - [`signed`] signs texts with an identity's key, and checks them offline;
//! - [`identity`] and [`peer`] say who somebody is.

pub mod authority;
mod bundle;
mod clock;
mod details;
pub mod file;
pub mod identity;
pub mod material;
pub mod peer;
pub mod reload;
pub mod signed;
pub mod summary;
pub mod tls;
