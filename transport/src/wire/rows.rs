//! Rows on the wire.

use handover_engine::rows::{
    HeldChunk, Key, KeyRange, RowsHeader, RowsRequest, RowsWanted, SnapshotId, TableName,
};
use handover_proto::v1;

use super::{BadField, FromWire, IntoWire, digest, name, required};

impl IntoWire<v1::TableName> for TableName {
    fn into_wire(self) -> v1::TableName {
        let table = self;
        v1::TableName { schema: table.schema, name: table.name }
    }
}

/// The message `TableName`.
pub fn table(message: Option<v1::TableName>) -> Result<TableName, BadField> {
    let message = required("table", message)?;
    if message.name.is_empty() {
        return Err(BadField::bad("table.name", "is empty"));
    }
    Ok(TableName { schema: message.schema, name: message.name })
}

impl IntoWire<v1::KeyRange> for KeyRange {
    fn into_wire(self) -> v1::KeyRange {
        let range = self;
        v1::KeyRange { after: range.after.map(|key| key.0), until: range.until.map(|key| key.0) }
    }
}

fn range(message: v1::KeyRange) -> KeyRange {
    KeyRange { after: message.after.map(Key), until: message.until.map(Key) }
}

impl IntoWire<v1::HeldChunk> for HeldChunk {
    fn into_wire(self) -> v1::HeldChunk {
        let chunk = self;
        let digest = chunk.digest.0.to_vec().into();
        v1::HeldChunk { range: Some(chunk.range.into_wire()), rows: chunk.rows, bytes: chunk.bytes, digest }
    }
}

impl FromWire<v1::HeldChunk> for HeldChunk {
    fn from_wire(message: v1::HeldChunk) -> Result<Self, BadField> {
        Ok(Self {
            range: range(required("chunk.range", message.range)?),
            rows: message.rows,
            bytes: message.bytes,
            digest: digest("chunk.digest", &message.digest)?,
        })
    }
}

impl IntoWire<v1::RowsRequest> for RowsRequest {
    fn into_wire(self) -> v1::RowsRequest {
        let request = self;
        let wanted = match request.wanted {
            RowsWanted::Range(range) => v1::rows_request::Wanted::Range(range.into_wire()),
            RowsWanted::Recheck(chunks) => {
                let chunks = chunks.into_iter().map(IntoWire::into_wire).collect();
                v1::rows_request::Wanted::Recheck(v1::Recheck { chunks })
            }
        };
        v1::RowsRequest {
            lease: request.lease.into(),
            snapshot: request.snapshot.0,
            table: Some(request.table.into_wire()),
            budget: request.budget,
            wanted: Some(wanted),
        }
    }
}

impl FromWire<v1::RowsRequest> for RowsRequest {
    fn from_wire(message: v1::RowsRequest) -> Result<Self, BadField> {
        let wanted = match required("wanted", message.wanted)? {
            v1::rows_request::Wanted::Range(r) => RowsWanted::Range(range(r)),
            v1::rows_request::Wanted::Recheck(recheck) => {
                let chunks = recheck.chunks.into_iter().map(FromWire::from_wire);
                RowsWanted::Recheck(chunks.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self {
            lease: name("lease", &message.lease)?,
            snapshot: SnapshotId(message.snapshot),
            table: table(message.table)?,
            budget: message.budget,
            wanted,
        })
    }
}

impl IntoWire<v1::RowsHeader> for RowsHeader {
    fn into_wire(self) -> v1::RowsHeader {
        let header = self;
        v1::RowsHeader {
            table: Some(header.table.into_wire()),
            range: Some(header.range.into_wire()),
            rows: header.rows,
            bytes: header.bytes,
            digest: header.digest.0.to_vec().into(),
            unchanged: header.unchanged,
        }
    }
}

impl FromWire<v1::RowsHeader> for RowsHeader {
    fn from_wire(message: v1::RowsHeader) -> Result<Self, BadField> {
        Ok(Self {
            table: table(message.table)?,
            range: range(required("rows.range", message.range)?),
            rows: message.rows,
            bytes: message.bytes,
            digest: digest("rows.digest", &message.digest)?,
            unchanged: message.unchanged,
        })
    }
}
