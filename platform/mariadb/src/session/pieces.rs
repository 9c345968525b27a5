//! Text blocks as files that are loaded.

use bytes::Bytes;

/// Bytes of a file that are sent together, in packets of their own: below the smallest max_allowed_packet.
const PIECE: usize = 256 << 10;

/// A text block as `LOAD DATA` reads it, piece by piece: it knows no escapes for vertical tab and form feed, and takes them
/// as they are.
pub struct Pieces {
    file: Bytes,
    at: usize,
}

impl Pieces {
    /// Those of a block.
    pub fn of(file: Bytes) -> Self {
        Self { file, at: 0 }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let from = self.at;
        let end = self.file.len().min(from + PIECE);
        if from == end {
            return None;
        }
        let (mut at, mut clean, mut changed) = (from, from, Vec::new());
        while let Some(found) = memchr::memchr(b'\\', &self.file[at..end]) {
            let escape = at + found;
            let raw = match self.file.get(escape + 1) {
                Some(b'v') => Some(0x0b),
                Some(b'f') => Some(0x0c),
                _ => None,
            };
            if let Some(raw) = raw {
                changed.extend_from_slice(&self.file[clean..escape]);
                changed.push(raw);
                clean = escape + 2;
            }
            // The escape may reach beyond the piece: then the piece reaches as far.
            at = escape + 2;
            if at >= end {
                break;
            }
        }
        self.at = end.max(at).min(self.file.len());
        if changed.is_empty() {
            return Some(self.file.slice(from..self.at));
        }
        changed.extend_from_slice(&self.file[clean.min(self.at)..self.at]);
        Some(changed.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_know_only_what_load_data_knows() {
        let check = |text: &[u8], expected: &[u8]| {
            let whole: Vec<u8> = Pieces::of(Bytes::copy_from_slice(text)).flatten().collect();
            assert!(whole == expected, "{}", text.escape_ascii());
        };
        check(br"a\\v\v\f\\\v\n\0", b"a\\\\v\x0b\x0c\\\\\x0b\\n\\0");
        check(b"", b"");
        for shift in PIECE - 4..PIECE + 3 {
            let mut text = vec![b'x'; shift];
            let mut expected = text.clone();
            text.extend_from_slice(br"\\v\v\nend\f");
            expected.extend_from_slice(b"\\\\v\x0b\\nend\x0c");
            check(&text, &expected);
        }
    }
}
