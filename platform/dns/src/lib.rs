//! The DNS records of an appliance, behind the engine's port [`NameServer`](handover_engine::ports::NameServer).
//!
//! The server that answers for the records is asked over TCP and told by updates (RFC 2136), signed by a key that both know (TSIG, RFC 8945). An
//! update names what it expects to find: what somebody else has changed meanwhile is left as it is.
//!
//! The texts by which an authority is shown that names are ours ([`Challenges`](handover_engine::ports::Challenges)) go the same way.

mod challenge;
mod failure;
mod local;
mod message;
mod record;
mod secret;
mod section;
mod server;

pub use local::LocalNames;
pub use section::{DnsSection, UpdateSection, check};
