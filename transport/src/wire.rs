//! The engine's types and their form on the wire.
//!
//! Outgoing: [`IntoWire`]. Incoming: [`FromWire`], whose error names the field that was refused.

mod changes;
mod hooks;
mod room;
mod rows;
mod spots;
mod throttle;
mod tree;

pub(crate) use room::Told;
pub(crate) use rows::table;
pub(crate) use tree::path;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;

/// Our type, as it is sent. (`From` cannot be used: neither side of it is defined in this crate.)
pub trait IntoWire<M> {
    /// The message.
    fn into_wire(self) -> M;
}

/// Our type, from what was received.
pub trait FromWire<M>: Sized {
    /// The value, or the field that was refused.
    fn from_wire(message: M) -> Result<Self, BadField>;
}

/// A field of a message from the peer is missing or out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {problem}")]
pub struct BadField {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl BadField {
    fn missing(field: &'static str) -> Self {
        Self { field, problem: "is missing".to_owned() }
    }

    pub(crate) fn bad(field: &'static str, problem: impl ToString) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

impl From<BadField> for Failure {
    fn from(bad: BadField) -> Failure {
        Failure::permanent("message from the peer", "it is malformed")
            .because(bad)
            .hint("are both agents of the same release?")
    }
}

impl From<BadField> for tonic::Status {
    fn from(bad: BadField) -> tonic::Status {
        tonic::Status::invalid_argument(bad.to_string())
    }
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, BadField> {
    Digest::from_slice(bytes).ok_or_else(|| BadField::bad(field, "is not 32 bytes"))
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, BadField> {
    value.ok_or_else(|| BadField::missing(field))
}

/// Parses a name that came over the wire.
pub fn name<T: std::str::FromStr<Err = handover_engine::name::BadName>>(
    field: &'static str,
    text: &str,
) -> Result<T, BadField> {
    text.parse().map_err(|bad| BadField::bad(field, bad))
}
