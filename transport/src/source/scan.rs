//! A scan's entries, in messages of a sane size.

use futures::StreamExt;
use futures::stream::BoxStream;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Answers;
use handover_engine::tree::Entry;
use handover_proto::v1;
use prost::Message;
use tonic::Status;

use crate::MAX_MESSAGE_BYTES;
use crate::failure::to_status;
use crate::wire::IntoWire;

/// Entries of one scan message, and their bytes: bounded well below the largest message, however long paths and attributes are.
const SCAN_BATCH: usize = 512;
const SCAN_BYTES: usize = 8 << 20;

/// A stream of messages.
pub type Replies = BoxStream<'static, Result<v1::ScanReply, Status>>;

/// A scan as it travels.
pub fn replies(dataset: DatasetName, batches: Answers<Vec<Entry>>) -> Replies {
    let replies = batches.flat_map(move |batch| {
        let messages = match batch {
            Ok(entries) => messages(&dataset, entries),
            Err(failure) => vec![Err(to_status(failure))],
        };
        futures::stream::iter(messages)
    });
    replies.boxed()
}

/// Entries as messages; one that no message can carry ends the scan, by name.
fn messages(dataset: &DatasetName, entries: Vec<Entry>) -> Vec<Result<v1::ScanReply, Status>> {
    let (mut replies, mut open, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in entries {
        let path = entry.path.clone();
        let entry: v1::Entry = entry.into_wire();
        let len = entry.encoded_len();
        if len > MAX_MESSAGE_BYTES / 2 {
            let item = format!("{dataset}, {path}");
            let failure =
                Failure::operator(item, format!("its extended attributes are too large: {len} bytes"))
                    .hint("leave it out (`exclude` in the source's manifest), or remove attributes");
            replies.push(Err(to_status(failure)));
            return replies;
        }
        if open.len() == SCAN_BATCH || bytes + len > SCAN_BYTES && !open.is_empty() {
            replies.push(Ok(v1::ScanReply { entries: std::mem::take(&mut open) }));
            bytes = 0;
        }
        bytes += len;
        open.push(entry);
    }
    if !open.is_empty() {
        replies.push(Ok(v1::ScanReply { entries: open }));
    }
    replies
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::tree::{EntryKind, Meta, RelPath, Stamp};

    fn entry(name: &str, attribute: usize) -> Entry {
        let xattrs = [(b"user.a".to_vec(), vec![7; attribute])].into();
        let meta = Meta { mode: 0o644, uid: 0, gid: 0, mtime: Default::default(), xattrs };
        let kind = EntryKind::File { size: 0, sparse: false, linked: false };
        Entry { path: RelPath::new(name.as_bytes()).unwrap(), kind, meta, stamp: Stamp::default() }
    }

    #[test]
    fn large_attributes_travel_in_messages_of_their_own() {
        let dataset: DatasetName = "www".parse().unwrap();
        let entries: Vec<Entry> = (0..700).map(|n| entry(&format!("f{n}"), 64 << 10)).collect();
        let replies = messages(&dataset, entries);
        let replies: Vec<v1::ScanReply> = replies.into_iter().collect::<Result<_, _>>().unwrap();
        assert!(replies.iter().all(|reply| reply.encoded_len() <= SCAN_BYTES + 1024));
        assert_eq!(replies.iter().map(|reply| reply.entries.len()).sum::<usize>(), 700);
        let small = messages(&dataset, (0..700).map(|n| entry(&format!("f{n}"), 1)).collect());
        assert_eq!(small.len(), 2);
        let none = messages(&dataset, vec![entry("a", 1), entry("huge", MAX_MESSAGE_BYTES)]);
        let status = none.into_iter().last().unwrap().unwrap_err();
        assert!(status.message().contains("www, huge"), "{status:?}");
    }
}
