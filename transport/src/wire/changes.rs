//! Changes on the wire.

use handover_engine::change::{Change, Changes, LogPosition};
use handover_engine::ports::ChangesRequest;
use handover_engine::rows::Key;
use handover_engine::time::Timestamp;
use handover_proto::v1;
use std::time::Duration;

use super::rows::table;
use super::{BadField, FromWire, IntoWire, name, required};

impl IntoWire<v1::ChangesRequest> for ChangesRequest {
    fn into_wire(self) -> v1::ChangesRequest {
        v1::ChangesRequest {
            dataset: self.dataset.into(),
            capture: self.capture.into(),
            after: self.after.0,
            wait_ms: self.wait.as_millis() as u64,
        }
    }
}

impl FromWire<v1::ChangesRequest> for ChangesRequest {
    fn from_wire(message: v1::ChangesRequest) -> Result<Self, BadField> {
        Ok(Self {
            dataset: name("dataset", &message.dataset)?,
            capture: name("capture", &message.capture)?,
            after: LogPosition(message.after),
            wait: Duration::from_millis(message.wait_ms),
        })
    }
}

impl IntoWire<v1::Change> for Change {
    fn into_wire(self) -> v1::Change {
        use v1::change::Kind;
        let at = self.table();
        let kind = match self {
            Change::Row { key, .. } => Kind::Key(key.0),
            Change::Cleared { .. } => Kind::Cleared(true),
            Change::Children { columns, values, .. } => {
                Kind::Children(v1::Children { columns, values: values.0 })
            }
        };
        v1::Change { table: at, kind: Some(kind) }
    }
}

impl FromWire<v1::Change> for Change {
    fn from_wire(message: v1::Change) -> Result<Self, BadField> {
        use v1::change::Kind;
        let table = message.table;
        Ok(match required("changes.kind", message.kind)? {
            Kind::Key(key) => Change::Row { table, key: Key(key) },
            Kind::Cleared(_) => Change::Cleared { table },
            Kind::Children(children) => {
                Change::Children { table, columns: children.columns, values: Key(children.values) }
            }
        })
    }
}

impl IntoWire<v1::ChangesReply> for Changes {
    fn into_wire(self) -> v1::ChangesReply {
        v1::ChangesReply {
            tables: self.tables.into_iter().map(IntoWire::into_wire).collect(),
            changes: self.changes.into_iter().map(IntoWire::into_wire).collect(),
            until: self.until.0,
            at_ms: self.at.millis(),
            is_end: self.is_end,
        }
    }
}

impl FromWire<v1::ChangesReply> for Changes {
    fn from_wire(message: v1::ChangesReply) -> Result<Self, BadField> {
        let tables = message.tables.into_iter().map(|name| table(Some(name)));
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        let changes = message.changes.into_iter().map(Change::from_wire).collect::<Result<Vec<_>, _>>()?;
        if changes.iter().any(|change| change.table() as usize >= tables.len()) {
            return Err(BadField::bad("changes.table", "is no place in `tables`"));
        }
        Ok(Self {
            tables,
            changes,
            until: LogPosition(message.until),
            at: Timestamp::from_millis(message.at_ms),
            is_end: message.is_end,
        })
    }
}
