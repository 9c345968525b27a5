//! Backups of MariaDB databases as scripts, in two parts: what is run of them, and where.

use std::path::Path;

use bytes::Bytes;
use handover_engine::ports::Result;
use tokio::sync::mpsc;

use super::DIVIDE;
use super::client::Client;
use crate::archive;
use crate::work::Work;

/// Part of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Tables with their rows.
    Tables,
    /// What acts by itself: triggers, routines, events; then views.
    Rest,
}

/// Runs part of a script in a database.
pub async fn load(client: &Client, database: &str, file: &Path, part: Part, work: &Work) -> Result<()> {
    let mut shell = client.shell(database)?;
    let (to, halves) = mpsc::channel(4);
    // There is room for it: nothing has been sent yet.
    let _ = to.try_send(Ok(client.begins().into()));
    let pieces = archive::read(file, work);
    let ((), ()) = futures::try_join!(divide(pieces, part, to), shell.feed(halves))?;
    shell.succeed().await
}

type Piece = std::io::Result<Bytes>;

/// Passes on what comes before or after the line that divides a script.
async fn divide(mut pieces: mpsc::Receiver<Piece>, part: Part, to: mpsc::Sender<Piece>) -> Result<()> {
    let (mut held, mut is_past) = (Vec::new(), false);
    while let Some(piece) = pieces.recv().await {
        let piece = match piece {
            Ok(piece) => piece,
            failed => {
                let _ = to.send(failed).await;
                return Ok(());
            }
        };
        if is_past {
            if part == Part::Tables || to.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        held.extend_from_slice(&piece);
        if let Some(at) = line_of(&held) {
            is_past = true;
            let rest = held.split_off(at);
            let wanted = if part == Part::Tables { std::mem::take(&mut held) } else { rest };
            if to.send(Ok(wanted.into())).await.is_err() || part == Part::Tables {
                return Ok(());
            }
        } else {
            // The line may be cut by the end of a piece.
            let keep = held.len().min(DIVIDE.len());
            let rest = held.split_off(held.len() - keep);
            let whole = std::mem::replace(&mut held, rest);
            if part == Part::Tables && to.send(Ok(whole.into())).await.is_err() {
                return Ok(());
            }
        }
    }
    if part == Part::Tables && !is_past {
        let _ = to.send(Ok(held.into())).await;
    }
    Ok(())
}

/// Where the line that divides begins. Values have no line ends in them, but for those that are escaped.
fn line_of(text: &[u8]) -> Option<usize> {
    let found = text.windows(DIVIDE.len()).position(|part| part == DIVIDE)?;
    (found == 0 || text[found - 1] == b'\n').then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn halves(pieces: &[&[u8]], part: Part) -> Vec<u8> {
        let (to, from) = mpsc::channel(1024);
        for piece in pieces {
            to.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
        }
        drop(to);
        let (to, mut out) = mpsc::channel(1024);
        divide(from, part, to).await.unwrap();
        let mut all = Vec::new();
        while let Some(piece) = out.recv().await {
            all.extend_from_slice(&piece.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn a_script_is_divided_wherever_its_pieces_end() {
        let script = [b"CREATE TABLE t (a INT);\n".as_slice(), DIVIDE, b"CREATE TRIGGER x;\n"].concat();
        for cut in 0..script.len() {
            let pieces = [&script[..cut], &script[cut..]];
            assert_eq!(halves(&pieces, Part::Tables).await, b"CREATE TABLE t (a INT);\n", "{cut}");
            let rest = halves(&pieces, Part::Rest).await;
            assert_eq!(rest, [DIVIDE, b"CREATE TRIGGER x;\n"].concat(), "{cut}");
        }
        let bytes: Vec<&[u8]> = script.chunks(1).collect();
        assert_eq!(halves(&bytes, Part::Tables).await, b"CREATE TABLE t (a INT);\n");
        assert_eq!(halves(&[b"no line".as_slice()], Part::Tables).await, b"no line");
    }
}
