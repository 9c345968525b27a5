//! What a migration is: its words, plan, phases, journal, pipeline, driver and report; and the ports
//! (small traits) through which it reaches the real host.
//!
//! This crate does no IO. It knows no gRPC, no SQL, no files and no processes: adapters in `platform`
//! and `transport` implement [`ports`] and are handed to the driver.

pub mod audit;
pub mod backup;
pub mod calendar;
pub mod change;
pub mod changeover;
pub mod check;
pub mod chunk;
pub mod digest;
pub mod dns;
pub mod driver;
pub mod expiry;
pub mod failure;
pub mod follow;
pub mod home;
pub mod inventory;
pub mod journal;
pub mod kept;
pub mod licence;
pub mod mode;
pub mod name;
pub mod pass;
pub mod phase;
pub mod plan;
pub mod ports;
pub mod progress;
pub mod readiness;
pub mod rehearsal;
pub mod replication;
pub mod report;
pub mod reserve;
pub mod rows;
pub mod throttle;
pub mod time;
pub mod tree;
