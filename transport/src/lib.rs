//! gRPC over mutually authenticated TLS: the engine's ports on the wire.
//!
//! The only crate that reads `handover-proto`. Wire types stop here: what comes in is converted into the engine's types,
//! and each refusal names the field it is about.

pub mod client;
pub mod connect;
pub mod control;
mod failure;
pub mod frames;
pub mod listen;
mod probe;
pub mod source;
mod trusted;
pub mod version;
pub mod wire;

/// No single message may be larger than this.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// Bytes of a chunk that one frame carries at most, before compression.
pub const FRAME_BYTES: usize = 1 << 20;
/// How often certificate files are looked at for changes.
pub const RELOAD_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

pub use tonic::transport::Error as ServeError;
