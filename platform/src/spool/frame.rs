//! Records as they lie in a segment: the length, the digest, the contents.

use std::fs::File;
use std::io::Read as _;

use handover_engine::digest::Digest;

/// Bytes before a record's contents.
pub const FRAME: usize = 4 + 32;
/// Nothing that was written is larger: a length beyond it is damage.
const LARGEST: u32 = 1 << 30;

/// A record's contents with what comes before them.
pub fn around(contents: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME + contents.len());
    // A part is bounded by its sender, and by the largest message.
    frame.extend_from_slice(&u32::try_from(contents.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(&Digest::of(contents).0);
    frame.extend_from_slice(contents);
    frame
}

/// What lies where a record should.
pub enum Framed {
    /// Its contents.
    Whole(Vec<u8>),
    /// The last bytes of the file, which are not, or not yet, a record: nobody was told that they are there.
    CutOff,
    /// Something else, with more behind it.
    Damaged,
}

/// Reads the record at the file's place, before whose end there are `room` bytes.
pub fn read(file: &mut File, room: u64) -> std::io::Result<Framed> {
    let mut frame = [0; FRAME];
    if room < FRAME as u64 {
        return Ok(Framed::CutOff);
    }
    file.read_exact(&mut frame)?;
    let (len, digest) = frame.split_at(4);
    let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]);
    let behind = room - FRAME as u64;
    if len > LARGEST || u64::from(len) > behind {
        return Ok(Framed::CutOff);
    }
    let mut contents = vec![0; len as usize];
    file.read_exact(&mut contents)?;
    Ok(if Digest::of(&contents).0 == digest {
        Framed::Whole(contents)
    } else if u64::from(len) == behind {
        Framed::CutOff
    } else {
        Framed::Damaged
    })
}
