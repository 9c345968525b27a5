//! Cutting by content, so that an insertion moves no block but those around it (FastCDC: Xia et al., USENIX ATC 2016; the
//! crate's 2020 variant), and matching against the blocks that the target has.

use std::collections::HashMap;

use fastcdc::v2020::FastCDC;
use handover_engine::digest::Digest;
use handover_engine::tree::{Block, Piece};

/// The average block, for files up to a gigabyte.
const AVERAGE: u32 = 64 << 10;
/// A file's blocks grow by this factor when it would have too many.
const STEP: u32 = 4;
/// The largest average block: the longest block, four times as long, must fit into a segment.
const LARGEST: u32 = 1 << 20;
/// About how many blocks a file should have at most (beyond 64 GiB there are more).
const BLOCKS: u64 = 64 << 10;

/// The average block for a file: that of the basis it is compared with, or one that suits its size.
pub fn average(size: u64, basis: &[Block]) -> u32 {
    let (bytes, count) = basis
        .iter()
        .filter(|b| b.digest.is_some())
        .fold((0, 0), |(bytes, count), block| (bytes + u64::from(block.len), count + 1));
    let fits = |average: u32| {
        if count >= 4 {
            bytes / count < u64::from(average) * 5 / 2
        } else {
            size / u64::from(average) <= BLOCKS
        }
    };
    let mut average = AVERAGE;
    while average < LARGEST && !fits(average) {
        average *= STEP;
    }
    average
}

/// Cuts and matches one file.
pub struct Matcher<'a> {
    basis: &'a [Block],
    /// Basis blocks by digest; made when it is first needed.
    known: Option<HashMap<Digest, u32>>,
    /// The basis block that should come next, if nothing changed.
    expected: Option<usize>,
    average: usize,
    longest: usize,
}

/// A basis block that is smaller than this share of the average is cut anew, unless it is one of the last: a log that grows a
/// little at a time would come to have a block for each time.
const SMALL_SHARE: usize = 4;
/// So many.
const LAST: usize = 64;
/// The largest block that a small file was held as.
const WHOLE: usize = handover_engine::tree::LARGE_FILE as usize;

impl<'a> Matcher<'a> {
    /// `offset` is where in the file reading begins.
    pub fn new(basis: &'a [Block], average: u32, offset: u64) -> Self {
        let mut at = 0;
        let expected = basis.iter().position(|block| {
            let here = at == offset;
            at += u64::from(block.len);
            here
        });
        let average = average as usize;
        let whole = basis.iter().map(|block| block.len as usize).filter(|len| *len <= WHOLE).max();
        let longest = (average * 4).max(whole.unwrap_or(0));
        Self { basis, known: None, expected, average, longest }
    }

    /// The most bytes that the next block can have.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// A hole comes next: blocks of the basis that were holes are behind us.
    pub fn skip_hole(&mut self) {
        while let Some(at) = self.expected
            && self.basis.get(at).is_some_and(|block| block.digest.is_none())
        {
            self.expected = Some(at + 1);
        }
    }

    /// The next block at the start of `window`: its piece and length. `window` holds [`Self::longest`] bytes, or all that
    /// are left.
    pub fn next(&mut self, window: &[u8]) -> (Piece, usize) {
        // In step with the basis: hashing alone tells that nothing changed, no cutting needed.
        if let Some(at) = self.expected
            && let Some(Block { len, digest: Some(digest) }) = self.basis.get(at)
            && (*len as usize >= self.average / SMALL_SHARE || self.basis.len() - at <= LAST)
            && let Some(bytes) = window.get(..*len as usize)
            && Digest::of(bytes) == *digest
        {
            self.expected = Some(at + 1);
            return (run(at), *len as usize);
        }
        let cutter = FastCDC::new(window, self.average / 4, self.average, self.average * 4);
        let (_, len) = cutter.cut(0, window.len());
        let digest = Digest::of(&window[..len]);
        let block = Block { len: u32::try_from(len).unwrap_or(u32::MAX), digest: Some(digest) };
        if let Some(at) = self.find(&digest).filter(|at| self.basis[*at].len == block.len) {
            self.expected = Some(at + 1);
            return (run(at), len);
        }
        // Changed in place, same length: the block after it is likely the one after it here.
        let in_place = self.expected.filter(|at| self.basis.get(*at).is_some_and(|b| b.len == block.len));
        self.expected = in_place.map(|at| at + 1);
        (Piece::Data(block), len)
    }

    fn find(&mut self, digest: &Digest) -> Option<usize> {
        let basis = self.basis;
        let known = self.known.get_or_insert_with(|| {
            // Of equal blocks the first: a run that begins there is the longest.
            let mut known = HashMap::with_capacity(basis.len());
            for (block, at) in basis.iter().zip(0_u32..) {
                if let Some(digest) = block.digest {
                    known.entry(digest).or_insert(at);
                }
            }
            known
        });
        known.get(digest).map(|at| *at as usize)
    }
}

fn run(at: usize) -> Piece {
    Piece::Basis { first: u32::try_from(at).unwrap_or(u32::MAX), count: 1 }
}

/// Adds a piece; consecutive blocks of the basis become one run.
pub fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    if let (Some(Piece::Basis { first, count }), Piece::Basis { first: next, count: 1 }) =
        (pieces.last_mut(), &piece)
        && *first + *count == *next
    {
        *count += 1;
        return;
    }
    pieces.push(piece);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(data: &[u8], basis: &[Block]) -> Vec<(Piece, usize)> {
        let mut matcher = Matcher::new(basis, average(data.len() as u64, basis), 0);
        let (mut at, mut out) = (0, Vec::new());
        while at < data.len() {
            let end = data.len().min(at + matcher.longest());
            let (piece, len) = matcher.next(&data[at..end]);
            out.push((piece, len));
            at += len;
        }
        out
    }

    fn blocks(data: &[u8]) -> Vec<Block> {
        let block = |(piece, _): (Piece, usize)| match piece {
            Piece::Data(block) => block,
            other => panic!("{other:?} without a basis"),
        };
        cut(data, &[]).into_iter().map(block).collect()
    }

    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn a_byte_at_the_head_costs_little() {
        let old = noise(32 << 20, 1);
        let new = [b"x", &old[..]].concat();
        let sent: usize = cut(&new, &blocks(&old))
            .iter()
            .filter(|(p, _)| matches!(p, Piece::Data(_)))
            .map(|(_, len)| len)
            .sum();
        assert!(sent < old.len() / 50, "{sent} bytes");
    }

    #[test]
    fn an_unchanged_file_costs_nothing_and_is_one_run() {
        let data = noise(8 << 20, 2);
        let mut pieces = Vec::new();
        for (piece, _) in cut(&data, &blocks(&data)) {
            push(&mut pieces, piece);
        }
        assert_eq!(pieces.len(), 1);
        assert!(matches!(pieces[0], Piece::Basis { first: 0, .. }));
    }

    #[test]
    fn huge_files_have_larger_blocks_and_a_basis_keeps_its_own() {
        assert_eq!(average(1 << 30, &[]), 64 << 10);
        assert_eq!(average(8 << 30, &[]), 256 << 10);
        assert_eq!(average(1 << 42, &[]), 1 << 20);
        let basis = blocks(&noise(8 << 20, 3));
        assert_eq!(average(1 << 42, &basis), 64 << 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn basis_and_pieces_make_the_file(
            edits in proptest::collection::vec((0_usize..1 << 20, 0_usize..5000, 0_usize..5000), 0..6)
        ) {
            let old = noise(1 << 20, 4);
            let mut new = old.clone();
            for (at, remove, insert) in edits {
                let at = at.min(new.len());
                let end = (at + remove).min(new.len());
                new.splice(at..end, noise(insert, 5));
            }
            let basis = blocks(&old);
            let mut starts = vec![0_usize];
            for block in &basis { starts.push(starts.last().unwrap() + block.len as usize) }
            let (mut made, mut at) = (Vec::new(), 0);
            for (piece, len) in cut(&new, &basis) {
                match piece {
                    Piece::Data(_) => made.extend_from_slice(&new[at..at + len]),
                    Piece::Basis { first, .. } => {
                        made.extend_from_slice(&old[starts[first as usize]..starts[first as usize + 1]]);
                    }
                    Piece::Hole { .. } => unreachable!("no holes here"),
                }
                at += len;
            }
            prop_assert!(made == new);
        }
    }
}
