//! What a migration is: its words, plan, phases, journal, pipeline, driver and report; and the ports
//! (small traits) through which it reaches the real host.
//!
//! This crate does no IO. It knows no gRPC, no SQL, no files and no processes: adapters in `platform`
//! and `transport` implement [`ports`] and are handed to the driver.

pub mod chunk;
pub mod digest;
pub mod failure;
pub mod inventory;
pub mod name;
pub mod ports;
pub mod rows;
pub mod time;
pub mod tree;
