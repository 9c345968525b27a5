//! The server: asked and told over TCP, a connection for each question. Over UDP anybody could answer for it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use handover_engine::dns::{RecordKind, RecordSet, TextRecord};
use handover_engine::time::Clock;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, RecordType, TSigner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::failure::ServerError;
use crate::message;
use crate::section::{UpdateSection, absolute};

/// A question is answered within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How far the clocks of both may be apart, in seconds, as RFC 8945 recommends.
const FUDGE: u16 = 300;

/// The server of the records' zones.
pub struct Server {
    address: SocketAddr,
    clock: Arc<dyn Clock>,
}

/// What updates are signed with.
pub struct Key(TSigner);

impl Key {
    /// The key of a section, with its secret.
    pub fn new(section: &UpdateSection, secret: Vec<u8>) -> Result<Self, ServerError> {
        let algorithm = TsigAlgorithm::from(section.algorithm);
        let name = message::name(&absolute(&section.key_name).unwrap_or_default())?;
        let signer = TSigner::new(secret, algorithm, name, FUDGE);
        signer.map(Self).map_err(|error| ServerError::Unsendable(error.to_string()))
    }
}

impl Server {
    /// The one at this address.
    pub fn new(address: SocketAddr, clock: Arc<dyn Clock>) -> Self {
        Self { address, clock }
    }

    /// What it has of a name and kind; nothing where there is no such name.
    pub async fn look_up(&self, name: &str, kind: RecordKind) -> Result<RecordSet, ServerError> {
        let owner = message::name(name)?;
        let answer = self.ask(owner.clone(), message::record_type(kind)).await?;
        Ok(message::found(&answer, &owner, kind))
    }

    /// Replaces a set by another one of the same name and kind, unless it is not `from` any more.
    pub async fn replace(&self, key: &Key, from: &RecordSet, to: &RecordSet) -> Result<(), ServerError> {
        let zone = self.zone(&to.name).await?;
        self.tell(key, message::replacing(zone, from, to)?).await
    }

    /// The texts of a name.
    pub async fn look_up_texts(&self, name: &str) -> Result<message::Found, ServerError> {
        let owner = message::name(name)?;
        let answer = self.ask(owner.clone(), RecordType::TXT).await?;
        Ok(message::found_texts(&answer, &owner))
    }

    /// Puts in a text that others may keep for `ttl` seconds, or takes it away where that is none. Whatever else there is of its name stays.
    pub async fn change_text(
        &self,
        key: &Key,
        record: &TextRecord,
        ttl: Option<u32>,
    ) -> Result<(), ServerError> {
        let zone = self.zone(&record.name).await?;
        self.tell(key, message::changing_text(zone, record, ttl)?).await
    }

    async fn tell(&self, key: &Key, mut update: Message) -> Result<(), ServerError> {
        let now = u64::try_from(self.clock.now().seconds).unwrap_or(0);
        let unsendable = |error: hickory_proto::ProtoError| ServerError::Unsendable(error.to_string());
        let verifier = update.finalize(&key.0, now).map_err(unsendable)?;
        let bytes = self.exchange(&update.to_vec().map_err(unsendable)?).await?;
        let answer = answer_to(&update, &bytes)?;
        // A key that it refuses cannot sign the refusal.
        if let Some(error) = answer.signature().and_then(|signature| signature.data.error) {
            return Err(ServerError::Key(error));
        }
        if let Some(mut verifier) = verifier {
            verifier.verify(&bytes).map_err(|error| match answer.response_code {
                ResponseCode::NoError => ServerError::Unsigned(error.to_string()),
                code => ServerError::Refused(code),
            })?;
        }
        match answer.response_code {
            ResponseCode::NoError => Ok(()),
            ResponseCode::NXRRSet
            | ResponseCode::YXRRSet
            | ResponseCode::NXDomain
            | ResponseCode::YXDomain => Err(ServerError::Changing),
            code => Err(ServerError::Refused(code)),
        }
    }

    /// The zone that a name is in: whose start of authority is told with the name's own.
    async fn zone(&self, name: &str) -> Result<Name, ServerError> {
        let owner = message::name(name)?;
        let answer = self.ask(owner.clone(), RecordType::SOA).await?;
        let told = answer.answers.iter().chain(&answer.authorities);
        let soa = told.filter(|record| record.record_type() == RecordType::SOA);
        let zones = soa.map(|record| record.name.clone()).filter(|zone| zone.zone_of(&owner));
        zones.max_by_key(Name::num_labels).ok_or_else(|| ServerError::NotItsOwn(name.to_owned()))
    }

    async fn ask(&self, owner: Name, record_type: RecordType) -> Result<Message, ServerError> {
        let name = message::text(&owner);
        let question = message::question(owner, record_type);
        let bytes = question.to_vec().map_err(|error| ServerError::Unsendable(error.to_string()))?;
        let answer = answer_to(&question, &self.exchange(&bytes).await?)?;
        match answer.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain if answer.authoritative => Ok(answer),
            ResponseCode::NoError | ResponseCode::NXDomain | ResponseCode::Refused => {
                Err(ServerError::NotItsOwn(name))
            }
            code => Err(ServerError::Refused(code)),
        }
    }

    /// Sends a message, and waits for one.
    async fn exchange(&self, message: &[u8]) -> Result<Vec<u8>, ServerError> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let length = u16::try_from(message.len()).map_err(|_| ErrorKind::InvalidInput)?;
            // In one segment: some servers do not wait for the rest of a message.
            stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        match tokio::time::timeout(ANSWERS_WITHIN, exchange).await {
            Ok(answer) => answer.map_err(ServerError::Unreachable),
            Err(_) => Err(ServerError::Silent),
        }
    }
}

/// The message in `bytes`, if it answers what was asked.
fn answer_to(asked: &Message, bytes: &[u8]) -> Result<Message, ServerError> {
    let answer = Message::from_vec(bytes).map_err(|error| ServerError::Garbled(error.to_string()))?;
    if answer.id != asked.id
        || answer.message_type != MessageType::Response
        || answer.op_code != asked.op_code
    {
        return Err(ServerError::Garbled("it is that to another question".to_owned()));
    }
    Ok(answer)
}
