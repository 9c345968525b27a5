//! One end of a lab's link; `tests/src/lab/link.rs` starts it in a host's namespace.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dir, host, all @ ..] = words.as_slice() else { anyhow::bail!("usage: DIR HOST ALL-HOSTS…") };
    handover_tests::lab::carry(Path::new(dir), host, all)
}
