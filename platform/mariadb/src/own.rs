//! Which of a server's connections are this process's: their work is not taken for that of others.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

static OWN: Mutex<BTreeSet<(String, u32)>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<(String, u32)>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection was opened to a server, which knows it by this number.
pub fn opened(server: &str, id: u32) {
    own().insert((server.to_owned(), id));
}

/// The connections to a server, with some that have ended.
pub fn of(server: &str) -> Vec<u32> {
    own().iter().filter(|(of, _)| of == server).map(|(_, id)| *id).collect()
}

/// The server no longer knows these.
pub fn ended(server: &str, ids: impl Iterator<Item = u32>) {
    let mut own = own();
    for id in ids {
        own.remove(&(server.to_owned(), id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_known_by_server() {
        opened("a server", 7);
        opened("a server", 8);
        opened("another", 7);
        ended("a server", [7, 99].into_iter());
        assert_eq!(of("a server"), [8]);
        assert_eq!(of("another"), [7]);
    }
}
