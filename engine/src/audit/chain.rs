//! Whether a log is the one that was written.

use std::collections::HashSet;

use serde::Deserialize;

use super::Head;
use crate::digest::Digest;

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not an entry.
    #[error("line {line} is no entry of an audit log: it was changed")]
    Unreadable {
        /// The line, from 1.
        line: usize,
    },
    /// The end of the file is missing.
    #[error("line {line}, the last one, is torn: the file was cut short or not written to its end")]
    Torn {
        /// The line, from 1.
        line: usize,
    },
    /// Entries are missing.
    #[error("entries {first} to {last} were removed: line {line} is entry {}", last + 1)]
    Removed {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
        /// The line where they belong.
        line: usize,
    },
    /// An entry stands before an older one.
    #[error("entry {seq} was moved: it is in line {line}, before entry {before}")]
    Moved {
        /// The entry.
        seq: u64,
        /// Where it is.
        line: usize,
        /// The one that belongs there.
        before: u64,
    },
    /// An entry too many.
    #[error("line {line} was put in: it says to be entry {seq}, which is above it already")]
    Inserted {
        /// What it says to be.
        seq: u64,
        /// Where it is.
        line: usize,
    },
    /// Two entries that were not written one after the other.
    #[error("entry {seq} was changed or replaced: entry {} was written after another one", seq + 1)]
    Changed {
        /// The entry.
        seq: u64,
    },
    /// The first entry was not the first.
    #[error("the beginning was removed: entry 1 was written after another one")]
    Beginning,
    /// The end is missing.
    #[error("entries {} to {told} were cut off: the report was signed when entry {told} was the last one", has + 1)]
    CutOff {
        /// The last entry that is there.
        has: u64,
        /// The last entry when the report was signed.
        told: u64,
    },
    /// All entries fit together, but they are others.
    #[error(
        "entry {seq} is not the one that was the last when the report was signed: it, or some before it, was written anew"
    )]
    Rewritten {
        /// The entry.
        seq: u64,
    },
}

/// What of an entry makes the chain.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    before: Digest,
}

/// The lines of a log's file. An empty last one is the end of the one before.
pub fn lines(file: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = file.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    lines
}

/// The head of a log, if every line is the one that was written there. What a rewritten end shows is [`of_head`]'s to find.
pub fn check<S: AsRef<str>>(lines: &[S]) -> Result<Head, Broken> {
    let links = read(lines)?;
    let mut head = Head::NONE;
    for (at, (link, line)) in links.iter().zip(lines).enumerate() {
        in_order(&links, at)?;
        if link.before != head.digest {
            return Err(if head.seq == 0 { Broken::Beginning } else { Broken::Changed { seq: head.seq } });
        }
        head = Head::after(link.seq, line.as_ref());
    }
    Ok(head)
}

fn read<S: AsRef<str>>(lines: &[S]) -> Result<Vec<Link>, Broken> {
    let mut links = Vec::with_capacity(lines.len());
    for (at, text) in lines.iter().enumerate() {
        let line = at + 1;
        let link = serde_json::from_str(text.as_ref()).map_err(|error| match error.classify() {
            serde_json::error::Category::Eof if line == lines.len() => Broken::Torn { line },
            _ => Broken::Unreadable { line },
        });
        links.push(link?);
    }
    Ok(links)
}

/// Whether the entry in this place has this place's number.
fn in_order(links: &[Link], at: usize) -> Result<(), Broken> {
    let (line, wanted, seq) = (at + 1, at as u64 + 1, links[at].seq);
    if seq == wanted {
        return Ok(());
    }
    if seq < wanted {
        return Err(Broken::Inserted { seq, line });
    }
    let later: HashSet<u64> = links[at..].iter().map(|link| link.seq).collect();
    if later.contains(&wanted) {
        return Err(Broken::Moved { seq, line, before: wanted });
    }
    let last = (wanted..seq).take_while(|number| !later.contains(number)).last().unwrap_or(wanted);
    Err(Broken::Removed { first: wanted, last, line })
}

/// Whether a log that [`check`] has passed is the one, or goes on from the one, whose head was `told`.
pub fn of_head<S: AsRef<str>>(lines: &[S], told: Head) -> Result<(), Broken> {
    if told.seq == 0 {
        return Ok(());
    }
    let has = lines.len() as u64;
    let line = usize::try_from(told.seq - 1).ok().and_then(|at| lines.get(at));
    match line {
        None => Err(Broken::CutOff { has, told: told.seq }),
        Some(line) if Head::after(told.seq, line.as_ref()) != told => {
            Err(Broken::Rewritten { seq: told.seq })
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Act, Entry};
    use crate::time::Timestamp;

    fn log_of(names: &[&str]) -> Vec<String> {
        let mut head = Head::NONE;
        let entry = |(at, name): (usize, &&str)| {
            let seq = at as u64 + 1;
            let act = Act::Asked { what: format!("start {name}") };
            let by = "spiffe://a/handover/operator/ada".to_owned();
            let at = Timestamp::from_millis(1000);
            let line = Entry { seq, at, by, migration: None, act, before: head.digest }.line();
            head = Head::after(seq, &line);
            line
        };
        names.iter().enumerate().map(entry).collect()
    }

    fn log() -> Vec<String> {
        log_of(&["a", "b", "c", "d", "e"])
    }

    #[test]
    fn a_log_as_it_was_written_is_whole() {
        let log = log();
        let head = check(&log).unwrap();
        assert_eq!(head, Head::after(5, &log[4]));
        assert_eq!(check::<&str>(&[]), Ok(Head::NONE));
        for (at, line) in log.iter().enumerate() {
            of_head(&log, Head::after(at as u64 + 1, line)).unwrap();
        }
        let file = log.join("\n") + "\n";
        assert_eq!(lines(&file), log);
        assert_eq!(lines(""), Vec::<&str>::new());
    }

    #[test]
    fn whoever_changes_it_is_found() {
        type Tamper = fn(&mut Vec<String>);
        let table: [(Tamper, Broken); 10] = [
            (|log| log[2] = log[2].replace("ada", "eve"), Broken::Changed { seq: 3 }),
            (|log| log[0].push(' '), Broken::Changed { seq: 1 }),
            (|log| drop(log.remove(0)), Broken::Removed { first: 1, last: 1, line: 1 }),
            (|log| drop(log.drain(1..3)), Broken::Removed { first: 2, last: 3, line: 2 }),
            (|log| log.swap(1, 3), Broken::Moved { seq: 4, line: 2, before: 2 }),
            (|log| log.insert(2, log[1].clone()), Broken::Inserted { seq: 2, line: 3 }),
            (|log| log[1] = "{}".to_owned(), Broken::Unreadable { line: 2 }),
            (|log| log[4].truncate(30), Broken::Torn { line: 5 }),
            (|log| log[3].truncate(30), Broken::Unreadable { line: 4 }),
            (
                // Whoever numbers the others anew does not know what they were written after.
                |log| {
                    log.remove(0);
                    for (at, line) in log.iter_mut().enumerate() {
                        *line = line.replace(&format!("\"seq\":{}", at + 2), &format!("\"seq\":{}", at + 1));
                    }
                },
                Broken::Beginning,
            ),
        ];
        for (tamper, expected) in table {
            let mut changed = log();
            tamper(&mut changed);
            assert_eq!(check(&changed), Err(expected), "{changed:#?}");
        }
    }

    #[test]
    fn every_byte_but_those_of_the_end_is_covered() {
        let log = log();
        for line in 0..log.len() - 1 {
            for at in 0..log[line].len() {
                let mut changed = log.clone();
                let mut bytes = changed[line].clone().into_bytes();
                bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
                changed[line] = String::from_utf8(bytes).unwrap();
                assert!(check(&changed).is_err(), "line {line}, byte {at}");
            }
        }
    }

    #[test]
    fn a_head_finds_what_the_chain_alone_cannot() {
        let log = log();
        let head = check(&log).unwrap();
        let cut = &log[..3];
        check(cut).unwrap();
        assert_eq!(of_head(cut, head), Err(Broken::CutOff { has: 3, told: 5 }));
        // All written anew from an entry on.
        let anew = log_of(&["a", "b", "x", "d", "e", "f"]);
        check(&anew).unwrap();
        assert_eq!(of_head(&anew, head), Err(Broken::Rewritten { seq: 5 }));
        let mut end = log.clone();
        end[4] = end[4].replace("ada", "eve");
        check(&end).unwrap();
        assert_eq!(of_head(&end, head), Err(Broken::Rewritten { seq: 5 }));
        assert_eq!(of_head(&end, Head::NONE), Ok(()));
    }
}
