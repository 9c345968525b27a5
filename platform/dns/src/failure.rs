//! What goes wrong with a server, and what to do about it.

use std::net::SocketAddr;

use handover_engine::failure::Failure;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::tsig::TsigError;

/// What a server answered, or why it did not.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It was not reached, or went away.
    #[error("it is not reached")]
    Unreachable(#[source] std::io::Error),
    /// It took too long.
    #[error("it does not answer")]
    Silent,
    /// What came is no answer to what was asked.
    #[error("its answer makes no sense: {0}")]
    Garbled(String),
    /// It does not answer for the name itself.
    #[error("it does not answer for {0} itself")]
    NotItsOwn(String),
    /// It refuses the key.
    #[error("it refuses the key: {}", key_problem(.0))]
    Key(TsigError),
    /// The answer is not signed as it should be.
    #[error("its answer is not signed with the key: {0}")]
    Unsigned(String),
    /// A record set is not what it was when it was looked at.
    #[error("its records are changing")]
    Changing,
    /// It refuses.
    #[error("it answers {0}")]
    Refused(ResponseCode),
    /// What is to be sent cannot be put into a message.
    #[error("it cannot be asked: {0}")]
    Unsendable(String),
}

fn key_problem(error: &TsigError) -> String {
    match error {
        TsigError::BadKey => "it knows none of this name and algorithm (BADKEY)".to_owned(),
        TsigError::BadSig => "its secret is another one (BADSIG)".to_owned(),
        TsigError::BadTime => "its clock is another one (BADTIME)".to_owned(),
        TsigError::BadTrunc => "BADTRUNC".to_owned(),
        TsigError::Unknown(code) => format!("error {code}"),
    }
}

impl ServerError {
    fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent | Self::Garbled(_) | Self::Changing => true,
            Self::Refused(code) => *code == ResponseCode::ServFail,
            Self::NotItsOwn(_) | Self::Key(_) | Self::Unsigned(_) | Self::Unsendable(_) => false,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Silent | Self::Garbled(_) => {
                "is `server` of [dns] the zone's primary, and does a firewall let this host reach it over TCP?"
            }
            Self::NotItsOwn(_) => {
                "write the primary server of the name's zone into `server` of [dns], no resolver"
            }
            Self::Key(TsigError::BadTime) => "set the clocks of both hosts",
            Self::Key(_) | Self::Unsigned(_) => {
                "compare [dns.update] with the server's key: name, algorithm, secret"
            }
            Self::Changing => "somebody else changes them at the same time",
            Self::Refused(_) => "let the key change these names (bind9: `update-policy` of the zone)",
            Self::Unsendable(_) => "look at the names in [dns]",
        }
    }

    /// For the operator.
    pub fn into_failure(self, server: SocketAddr) -> Failure {
        let (hint, item) = (self.hint(), format!("dns server {server}"));
        let failure = match self.is_passing() {
            true => Failure::transient(item, self.to_string()),
            false => Failure::operator(item, self.to_string()),
        };
        match self {
            Self::Unreachable(error) => failure.because(error),
            _ => failure,
        }
        .hint(hint)
    }
}
