//! Rows on the wire.

use handover_engine::rows::{
    HeldChunk, Key, KeyRange, RowsHeader, RowsRequest, RowsWanted, SnapshotId, TableName,
};
use handover_proto::v1;

use super::{BadField, digest, name, required};

impl From<TableName> for v1::TableName {
    fn from(table: TableName) -> Self {
        Self { schema: table.schema, name: table.name }
    }
}

/// The message `TableName`.
fn table(message: Option<v1::TableName>) -> Result<TableName, BadField> {
    let message = required("table", message)?;
    if message.name.is_empty() {
        return Err(BadField::bad("table.name", "is empty"));
    }
    Ok(TableName { schema: message.schema, name: message.name })
}

impl From<KeyRange> for v1::KeyRange {
    fn from(range: KeyRange) -> Self {
        Self { after: range.after.map(|key| key.0), until: range.until.map(|key| key.0) }
    }
}

fn range(message: v1::KeyRange) -> KeyRange {
    KeyRange { after: message.after.map(Key), until: message.until.map(Key) }
}

impl From<HeldChunk> for v1::HeldChunk {
    fn from(chunk: HeldChunk) -> Self {
        let digest = chunk.digest.0.to_vec().into();
        Self { range: Some(chunk.range.into()), rows: chunk.rows, bytes: chunk.bytes, digest }
    }
}

impl TryFrom<v1::HeldChunk> for HeldChunk {
    type Error = BadField;
    fn try_from(message: v1::HeldChunk) -> Result<Self, BadField> {
        Ok(Self {
            range: range(required("chunk.range", message.range)?),
            rows: message.rows,
            bytes: message.bytes,
            digest: digest("chunk.digest", &message.digest)?,
        })
    }
}

impl From<RowsRequest> for v1::RowsRequest {
    fn from(request: RowsRequest) -> Self {
        let wanted = match request.wanted {
            RowsWanted::Range(range) => v1::rows_request::Wanted::Range(range.into()),
            RowsWanted::Recheck(chunks) => {
                let chunks = chunks.into_iter().map(Into::into).collect();
                v1::rows_request::Wanted::Recheck(v1::Recheck { chunks })
            }
        };
        Self {
            lease: request.lease.into(),
            snapshot: request.snapshot.0,
            table: Some(request.table.into()),
            budget: request.budget,
            wanted: Some(wanted),
        }
    }
}

impl TryFrom<v1::RowsRequest> for RowsRequest {
    type Error = BadField;
    fn try_from(message: v1::RowsRequest) -> Result<Self, BadField> {
        let wanted = match required("wanted", message.wanted)? {
            v1::rows_request::Wanted::Range(r) => RowsWanted::Range(range(r)),
            v1::rows_request::Wanted::Recheck(recheck) => {
                let chunks = recheck.chunks.into_iter().map(TryInto::try_into);
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

impl From<RowsHeader> for v1::RowsHeader {
    fn from(header: RowsHeader) -> Self {
        Self {
            table: Some(header.table.into()),
            range: Some(header.range.into()),
            rows: header.rows,
            bytes: header.bytes,
            digest: header.digest.0.to_vec().into(),
            unchanged: header.unchanged,
        }
    }
}

impl TryFrom<v1::RowsHeader> for RowsHeader {
    type Error = BadField;
    fn try_from(message: v1::RowsHeader) -> Result<Self, BadField> {
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
