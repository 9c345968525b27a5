//! Room in memory for large chunks: a process holds one of them at a time at each of its stations (reading, sending,
//! receiving), however many streams run side by side.
//!
//! A chunk holds at least one row, and a row may be far larger than a usual chunk; several such rows at once would need more
//! memory than an agent may have.

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A chunk of more bytes than this is large. No smaller than what a peer's stream may send before anybody reads it: so a
/// stream that waits for room has not been sent whole, and its sender begins no other large chunk.
pub const LARGE_BYTES: usize = 16 << 20;

/// Room for one large chunk.
#[derive(Debug)]
pub struct Room(Semaphore);

/// The room is taken until this is dropped, or the bytes that it was given to.
#[derive(Debug)]
pub struct Taken(#[expect(dead_code, reason = "held for its drop")] SemaphorePermit<'static>);

struct Held<T> {
    data: T,
    _taken: Taken,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.data.as_ref()
    }
}

impl Room {
    /// Room that nobody has taken.
    #[expect(clippy::new_without_default, reason = "for statics alone")]
    pub const fn new() -> Self {
        Self(Semaphore::const_new(1))
    }

    /// Waits until the room is free, and takes it. Whoever has taken it must not wait for another's turn in it.
    pub async fn take(&'static self) -> Taken {
        loop {
            // The semaphore is never closed.
            if let Ok(permit) = self.0.acquire().await {
                return Taken(permit);
            }
        }
    }
}

impl Taken {
    /// Bytes that give the room back when the last part of them is dropped.
    pub fn until_dropped(self, data: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held { data, _taken: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn the_room_is_free_again_with_the_last_part() {
        static ROOM: Room = Room::new();
        let mut all = ROOM.take().await.until_dropped(b"abc".to_vec());
        let part = all.split_to(1);
        assert_eq!((&part[..], &all[..]), (&b"a"[..], &b"bc"[..]));
        drop(all);
        assert!(ROOM.take().now_or_never().is_none());
        drop(part);
        assert!(ROOM.take().now_or_never().is_some());
    }
}
