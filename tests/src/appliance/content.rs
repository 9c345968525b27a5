//! Bytes to fill files and columns with: log text that compresses, and random bytes that do not.

use std::io::Write;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// Bytes of log text to cut pieces from.
const POOL: usize = 1 << 20;

/// A generator of its own for every seed and part, so that one part's size does not shift the others.
pub fn seeded(seed: u64, part: &str) -> StdRng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(part.as_bytes());
    StdRng::from_seed(*hasher.finalize().as_bytes())
}

/// Makes bytes of both kinds, fast.
pub struct Content {
    rng: StdRng,
    pool: Vec<u8>,
}

impl Content {
    /// A maker for this seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = seeded(seed, "content");
        let mut pool = Vec::with_capacity(POOL + 256);
        while pool.len() < POOL {
            log_line(&mut rng, &mut pool);
        }
        Self { rng, pool }
    }

    /// Appends `len` random bytes.
    pub fn random(&mut self, len: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + len, 0);
        self.rng.fill_bytes(&mut out[start..]);
    }

    /// Appends `len` bytes of log text, with a number here and there that occurs nowhere else.
    pub fn text(&mut self, len: usize, out: &mut Vec<u8>) {
        let end = out.len() + len;
        while out.len() < end {
            let piece = self.rng.random_range(200..4000).min(POOL);
            let start = self.rng.random_range(0..=self.pool.len() - piece);
            out.extend_from_slice(&self.pool[start..start + piece]);
            out.extend_from_slice(format!(" #{:016x}\n", self.rng.next_u64()).as_bytes());
        }
        out.truncate(end);
    }

    /// Writes `len` bytes: the first half random, the rest text.
    pub fn write_mixed(&mut self, len: u64, out: &mut impl Write) -> Result<()> {
        let mut buffer = Vec::with_capacity(POOL);
        let mut written = 0;
        while written < len {
            buffer.clear();
            let half = len / 2;
            let limit = if written < half { half } else { len };
            let step = usize::try_from((limit - written).min(POOL as u64))?;
            if written < half {
                self.random(step, &mut buffer);
            } else {
                self.text(step, &mut buffer);
            }
            out.write_all(&buffer)?;
            written += step as u64;
        }
        Ok(())
    }
}

fn log_line(rng: &mut StdRng, out: &mut Vec<u8>) {
    const WORDS: [&str; 16] = [
        "accepted",
        "connection",
        "from",
        "queue",
        "mail",
        "delivered",
        "to",
        "relay",
        "status",
        "sent",
        "timeout",
        "warning:",
        "session",
        "closed",
        "user",
        "retry",
    ];
    let (hour, minute, second) = (rng.random_range(0..24), rng.random_range(0..60), rng.random_range(0..60));
    let pid = rng.random_range(300..65_000);
    out.extend_from_slice(format!("2024-03-14T{hour:02}:{minute:02}:{second:02} app[{pid}]:").as_bytes());
    for _ in 0..rng.random_range(4..14) {
        out.push(b' ');
        out.extend_from_slice(WORDS[rng.random_range(0..WORDS.len())].as_bytes());
    }
    out.extend_from_slice(
        format!(" 10.0.{}.{}\n", rng.random_range(0..256), rng.random_range(0..256)).as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_long_as_asked_for_and_repeatable() {
        for len in [0, 1, 999, 1 << 20, (3 << 20) + 1] {
            let [mut a, mut b] = [Vec::new(), Vec::new()];
            Content::new(3).write_mixed(len, &mut a).unwrap();
            Content::new(3).write_mixed(len, &mut b).unwrap();
            assert!(a.len() as u64 == len && a == b, "{len}");
        }
    }
}
