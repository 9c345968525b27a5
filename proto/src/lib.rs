//! The wire: gRPC messages and services, generated from `handover/v1`. Only `transport` reads this crate.

/// Version 1 of the protocol.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated; the .proto files are documented"
)]
#[allow(clippy::semicolon_if_nothing_returned, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("handover.v1");
}
