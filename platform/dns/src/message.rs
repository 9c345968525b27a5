//! Record sets as messages of DNS have them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use handover_engine::dns::{RecordKind, RecordSet, TextRecord};
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::failure::ServerError;

/// A name that is absolute.
pub fn name(text: &str) -> Result<Name, ServerError> {
    let mut name =
        Name::from_ascii(text).map_err(|error| ServerError::Unsendable(format!("{text}: {error}")))?;
    name.set_fqdn(true);
    Ok(name)
}

/// As record sets have it.
pub fn text(name: &Name) -> String {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    name.to_ascii()
}

/// The type of a kind.
pub fn record_type(kind: RecordKind) -> RecordType {
    match kind {
        RecordKind::A => RecordType::A,
        RecordKind::Aaaa => RecordType::AAAA,
        RecordKind::Cname => RecordType::CNAME,
    }
}

/// Asks for records of a name.
pub fn question(name: Name, record_type: RecordType) -> Message {
    let mut message = Message::query();
    // It is to say what it knows, not what others say.
    message.metadata.recursion_desired = false;
    message.add_query(Query::query(name, record_type));
    message
}

/// The records of an answer that are of this name and kind.
pub fn found(answer: &Message, owner: &Name, kind: RecordKind) -> RecordSet {
    let mut set = RecordSet { name: text(owner), kind, ttl: 0, values: BTreeSet::new() };
    for record in answer.answers.iter().filter(|record| record.name == *owner) {
        let value = match &record.data {
            RData::A(A(address)) if kind == RecordKind::A => address.to_string(),
            RData::AAAA(AAAA(address)) if kind == RecordKind::Aaaa => address.to_string(),
            RData::CNAME(CNAME(other)) if kind == RecordKind::Cname => text(other),
            _ => continue,
        };
        set.ttl = record.ttl;
        set.values.insert(value);
    }
    set
}

fn data(kind: RecordKind, value: &str) -> Result<RData, ServerError> {
    let bad = || ServerError::Unsendable(format!("`{value}` is no {kind}"));
    Ok(match kind {
        RecordKind::A => RData::A(A(value.parse::<Ipv4Addr>().map_err(|_| bad())?)),
        RecordKind::Aaaa => RData::AAAA(AAAA(value.parse::<Ipv6Addr>().map_err(|_| bad())?)),
        RecordKind::Cname => RData::CNAME(CNAME(name(value)?)),
    })
}

fn records(set: &RecordSet, owner: &Name, ttl: u32) -> Result<Vec<Record>, ServerError> {
    let record = |value: &String| Ok(Record::from_rdata(owner.clone(), ttl, data(set.kind, value)?));
    set.values.iter().map(record).collect()
}

/// Of no record of this name and type: of the class that says what is meant by that.
fn bare(owner: &Name, kind: RecordKind, class: DNSClass) -> Record {
    let mut record = Record::update0(owner.clone(), 0, record_type(kind));
    record.dns_class = class;
    record
}

fn update(zone: Name) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_query(Query::query(zone, RecordType::SOA));
    message
}

/// Replaces a set by another one of the same name and kind, if it is exactly what it is taken for (RFC 2136, sections 2.4.2, 2.4.3, 2.5).
pub fn replacing(zone: Name, from: &RecordSet, to: &RecordSet) -> Result<Message, ServerError> {
    let owner = name(&to.name)?;
    let mut message = update(zone);
    match from.values.is_empty() {
        true => message.add_answer(bare(&owner, from.kind, DNSClass::NONE)),
        false => message.add_answers(records(from, &owner, 0)?),
    };
    if !from.values.is_empty() {
        message.add_authority(bare(&owner, from.kind, DNSClass::ANY));
    }
    message.add_authorities(records(to, &owner, to.ttl)?);
    Ok(message)
}

/// The texts of a name.
#[derive(Debug, Default)]
pub struct Found {
    /// The name that it stands for.
    pub alias: Option<String>,
    /// For how many seconds others may keep them.
    pub ttl: Option<u32>,
    /// What they say.
    pub values: BTreeSet<String>,
}

/// The texts of an answer that are of this name.
pub fn found_texts(answer: &Message, owner: &Name) -> Found {
    let mut found = Found::default();
    for record in answer.answers.iter().filter(|record| record.name == *owner) {
        match &record.data {
            RData::CNAME(CNAME(other)) => found.alias = Some(text(other)),
            RData::TXT(told) => {
                found.ttl = Some(record.ttl);
                found.values.insert(String::from_utf8_lossy(&told.txt_data.concat()).into_owned());
            }
            _ => {}
        }
    }
    found
}

/// Puts in a text that others may keep for `ttl` seconds, or takes it away where that is none; others of its name stay (RFC 2136, sections 2.5.1
/// and 2.5.4).
pub fn changing_text(zone: Name, record: &TextRecord, ttl: Option<u32>) -> Result<Message, ServerError> {
    let data = RData::TXT(TXT::new(vec![record.value.clone()]));
    let mut line = Record::from_rdata(name(&record.name)?, ttl.unwrap_or(0), data);
    if ttl.is_none() {
        line.dns_class = DNSClass::NONE;
    }
    let mut message = update(zone);
    message.add_authority(line);
    Ok(message)
}
