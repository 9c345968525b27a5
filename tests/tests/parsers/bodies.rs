//! What must hold of everything that reads bytes from the peer: it reads them or refuses them, and what it has read
//! survives being written and read again. The fuzz targets (`fuzz/`) and a test on stable run the same functions.

use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::plan::Plan;
use handover_engine::rows::{HeldChunk, RowsHeader, RowsRequest, Schema, text};
use handover_engine::tree::{Block, Entry, PackRequest, PackedFile, Piece};
use handover_platform::sqlite::parse_row;
use handover_proto::v1;
use handover_transport::frames::{Compressor, Receiver, frames};
use handover_transport::wire::{FromWire, IntoWire};
use prost::Message;

/// A block of rows.
pub fn rows_block(bytes: &[u8]) {
    let Ok(rows) = text::rows(bytes) else { return };
    for value in rows.flat_map(text::values) {
        let Ok(plain) = text::unescape(value) else { continue };
        let mut escaped = Vec::new();
        text::escape_into(&mut escaped, &plain);
        let again = text::unescape(&escaped).expect("what is escaped can be read");
        assert_eq!(plain, again, "a value survives");
    }
}

/// A row of an SQLite table; the first byte is the table's width.
pub fn sqlite_row(bytes: &[u8]) {
    let Some((width, row)) = bytes.split_first() else { return };
    if let Ok(values) = parse_row(row, usize::from(*width)) {
        assert_eq!(values.len(), usize::from(*width), "a row has its table's width");
    }
}

/// A stream of frames, each with its length in front.
pub fn frame_stream(mut bytes: &[u8]) {
    let mut receiver = Receiver::default();
    while let Ok(frame) = v1::Frame::decode_length_delimited(&mut bytes) {
        match receiver.take(frame) {
            Ok(Some(chunk)) => {
                let _ = chunk.is_whole();
                let mut second = Receiver::default();
                let sent = frames(chunk.clone(), &mut Compressor::default());
                let back: Vec<_> =
                    sent.into_iter().filter_map(|f| second.take(f).expect("our own")).collect();
                assert_eq!(back, [chunk], "a chunk survives");
            }
            Ok(None) => {}
            // The stream is given up.
            Err(_) => return,
        }
    }
    let _ = receiver.end();
}

/// One message of the bulk or source API; the first byte tells which.
pub fn wire_message(bytes: &[u8]) {
    let Some((which, message)) = bytes.split_first() else { return };
    match which % 8 {
        0 => survives::<RowsRequest, v1::RowsRequest>(message),
        1 => survives::<HeldChunk, v1::HeldChunk>(message),
        2 => survives::<RowsHeader, v1::RowsHeader>(message),
        3 => survives::<Entry, v1::Entry>(message),
        4 => survives::<Block, v1::Block>(message),
        5 => survives::<PackRequest, v1::PackRequest>(message),
        6 => survives::<PackedFile, v1::PackedFile>(message),
        _ => survives::<Piece, v1::Piece>(message),
    }
}

fn survives<T, M>(bytes: &[u8])
where
    T: FromWire<M> + IntoWire<M> + Clone + PartialEq + std::fmt::Debug,
    M: Message + Default,
{
    let Ok(message) = M::decode(bytes) else { return };
    let Ok(value) = T::from_wire(message) else { return };
    let sent = value.clone().into_wire().encode_to_vec();
    let back = T::from_wire(M::decode(&sent[..]).expect("our own")).expect("our own");
    assert_eq!(back, value, "a message survives");
}

/// A document that travels as JSON: schema, inventory, plan or failure.
pub fn document(bytes: &[u8]) {
    if let Ok(schema) = serde_json::from_slice::<Schema>(bytes) {
        let _ = schema.structure();
    }
    if let Ok(inventory) = serde_json::from_slice::<Inventory>(bytes) {
        let _ = inventory.structure();
    }
    if let Ok(plan) = serde_json::from_slice::<Plan>(bytes) {
        let _ = (plan.digest(), plan.datasets().count());
    }
    if let Ok(failure) = serde_json::from_slice::<Failure>(bytes) {
        let _ = failure.to_string();
    }
}
