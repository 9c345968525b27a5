//! File systems that are mounted below a tree's root.

use std::path::Path;

use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::tree::RelPath;

/// Where they are, relative to the root.
pub fn below(dataset: &DatasetName, root: &Path) -> Result<Vec<RelPath>> {
    let failed = |what: &'static str| {
        let item = format!("{dataset}, {}", root.display());
        move |error: std::io::Error| Failure::operator(item.clone(), what).because(error)
    };
    let root = std::fs::canonicalize(root).map_err(failed("the tree's root cannot be found"))?;
    let mounts = std::fs::read("/proc/self/mountinfo").map_err(failed("what is mounted cannot be told"))?;
    Ok(among(&mounts, root.as_os_str().as_encoded_bytes()))
}

/// Those of a table of mounts (proc(5), `/proc/pid/mountinfo`: the fifth field) that lie below `root`.
fn among(mounts: &[u8], root: &[u8]) -> Vec<RelPath> {
    let below = mounts.split(|&b| b == b'\n').filter_map(|line| {
        let place = unescaped(line.split(|&b| b == b' ').nth(4)?);
        let below = place.strip_prefix(root)?;
        let below = if root == b"/" { below } else { below.strip_prefix(b"/")? };
        RelPath::new(below).ok().filter(|path| !path.is_root())
    });
    below.collect()
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(field.len()), field);
    while let [first, tail @ ..] = rest {
        let code =
            tail.get(..3).filter(|code| *first == b'\\' && code.iter().all(|d| (b'0'..=b'7').contains(d)));
        match code
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 8).ok())
        {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_by_where_they_lie_below_the_root() {
        let table = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 22 0:5 / /srv/www rw - ext4 /dev/vdb rw\n\
            31 30 0:6 / /srv/www/up\\040loads rw - tmpfs tmpfs rw\n\
            32 22 0:7 / /srv/www-other rw - tmpfs tmpfs rw\n";
        let found = |root: &str| {
            let found = among(table, root.as_bytes());
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("/srv/www"), ["up loads"]);
        assert_eq!(found("/srv"), ["www", "www/up loads", "www-other"]);
        assert_eq!(found("/"), ["srv/www", "srv/www/up loads", "srv/www-other"]);
        assert!(found("/home").is_empty());
    }
}
