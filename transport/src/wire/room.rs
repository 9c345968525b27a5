//! What may run out, on the wire.

use std::collections::BTreeMap;

use handover_engine::change::LogPosition;
use handover_engine::name::DatasetName;
use handover_engine::ports::Followed;
use handover_engine::reserve::{Disk, LogKept};
use handover_engine::time::Timestamp;
use handover_proto::v1;

use super::{BadField, FromWire, IntoWire, name};

/// Disks, and what is kept of logs.
pub type Told = (Vec<Disk>, BTreeMap<DatasetName, LogKept>);

impl IntoWire<v1::RoomRequest> for Vec<Followed> {
    fn into_wire(self) -> v1::RoomRequest {
        let followed = |one: Followed| v1::Followed {
            dataset: one.dataset.into(),
            capture: one.capture.into(),
            after: one.after.0,
            known_at_ms: one.known_at.millis(),
        };
        v1::RoomRequest { followed: self.into_iter().map(followed).collect() }
    }
}

impl FromWire<v1::RoomRequest> for Vec<Followed> {
    fn from_wire(message: v1::RoomRequest) -> Result<Self, BadField> {
        let followed = |one: v1::Followed| {
            Ok(Followed {
                dataset: name("followed.dataset", &one.dataset)?,
                capture: name("followed.capture", &one.capture)?,
                after: LogPosition(one.after),
                known_at: Timestamp::from_millis(one.known_at_ms),
            })
        };
        message.followed.into_iter().map(followed).collect()
    }
}

impl IntoWire<v1::RoomReply> for Told {
    fn into_wire(self) -> v1::RoomReply {
        let disk = |Disk { place, free, total }| v1::Disk { place, free, total };
        let log = |(dataset, log): (DatasetName, LogKept)| v1::LogKept {
            dataset: dataset.into(),
            bytes: log.bytes,
            room: log.room,
            keeps_ms: log.keeps_ms,
            age_ms: log.age_ms,
            endangered: log.endangered,
        };
        v1::RoomReply {
            disks: self.0.into_iter().map(disk).collect(),
            logs: self.1.into_iter().map(log).collect(),
        }
    }
}

impl FromWire<v1::RoomReply> for Told {
    fn from_wire(message: v1::RoomReply) -> Result<Self, BadField> {
        let disk = |v1::Disk { place, free, total }| Disk { place, free, total };
        let log = |log: v1::LogKept| {
            let v1::LogKept { dataset, bytes, room, keeps_ms, age_ms, endangered } = log;
            Ok((name("logs.dataset", &dataset)?, LogKept { bytes, room, keeps_ms, age_ms, endangered }))
        };
        Ok((
            message.disks.into_iter().map(disk).collect(),
            message.logs.into_iter().map(log).collect::<Result<_, BadField>>()?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_travel_whole() {
        let asked = vec![Followed {
            dataset: "shop".parse().unwrap(),
            capture: "c1".parse().unwrap(),
            after: LogPosition("0-1-7".to_owned()),
            known_at: Timestamp::from_millis(1_700_000_000_123),
        }];
        assert_eq!(Vec::<Followed>::from_wire(asked.clone().into_wire()).unwrap(), asked);
        let log = LogKept {
            bytes: Some(1),
            room: None,
            keeps_ms: Some(u64::MAX),
            age_ms: Some(0),
            endangered: true,
        };
        let disk = Disk { place: "/a b".to_owned(), free: 1, total: 2 };
        let told: Told = (vec![disk], [("shop".parse().unwrap(), log)].into());
        assert_eq!(Told::from_wire(told.clone().into_wire()).unwrap(), told);
        let mut bad = told.into_wire();
        bad.logs[0].dataset = "a/b".to_owned();
        assert_eq!(Told::from_wire(bad).unwrap_err().field, "logs.dataset");
    }
}
