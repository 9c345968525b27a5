//! End-to-end tests, and what they share with the scenarios: appliances, processes, an independent comparison.
//!
//! Nothing here uses the product's own crates: what judges a migration must not share its mistakes.

pub mod acme;
pub mod appliance;
pub mod bed;
pub mod certificate;
pub mod compare;
pub mod lab;
pub mod link;
pub mod locate;
pub mod name_server;
pub mod packaging;
pub mod poll;
pub mod process;
pub mod resent;
pub mod server;
pub mod types;
