//! The certificates with which the two agents know each other.

use crate::expiry::Expiry;

/// When they end.
pub trait Credentials: Send + Sync {
    /// Both of them, as far as they are known now: the other agent's as it was shown last.
    fn expiries(&self) -> Vec<Expiry>;
}

/// Nothing is known of them.
#[derive(Debug, Clone, Copy)]
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn expiries(&self) -> Vec<Expiry> {
        Vec::new()
    }
}
