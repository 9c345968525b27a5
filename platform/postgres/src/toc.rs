//! The table of contents of a `pg_dump` archive in custom format: one entry for each object, with its statement.
//!
//! Layout: PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c, `WriteHead` and `WriteToc`.

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// What it is: `TABLE`, `FK CONSTRAINT`, ….
    pub kind: String,
    /// Its name, as `pg_dump` tags it.
    pub tag: String,
    /// The schema it is in, or empty.
    pub namespace: String,
    /// The role that owns it, or empty.
    pub owner: String,
    /// Its table access method, or empty.
    pub access_method: String,
    /// The table space it is in, or empty.
    pub tablespace: String,
    /// Where it belongs.
    pub section: Section,
    /// The statements that make it.
    pub make: String,
    /// The statement that drops it.
    pub drop: String,
}

/// The part of a dump that an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Section {
    /// None: comments and grants, which follow what they are about.
    #[default]
    None,
    /// Before the rows.
    Before,
    /// The rows themselves.
    Rows,
    /// After the rows.
    After,
}

/// The archive is not one, or of a version that is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArchive {
    /// Does not begin as an archive does.
    #[error("pg_dump wrote no archive")]
    Magic,
    /// A version that this release does not read.
    #[error("pg_dump wrote an archive of version {0}.{1}")]
    Version(u8, u8),
    /// It ends early.
    #[error("pg_dump's archive is cut off")]
    CutOff,
    /// A name or statement in another encoding.
    #[error("a name or statement in the schema is not UTF-8")]
    Text,
}

struct Reader<'a> {
    bytes: &'a [u8],
    int_size: usize,
    off_size: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BadArchive> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or(BadArchive::CutOff)?;
        self.bytes = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, BadArchive> {
        Ok(self.take(1)?[0])
    }

    /// A sign, then the magnitude, least significant byte first.
    fn int(&mut self) -> Result<i64, BadArchive> {
        let negative = self.byte()? != 0;
        let size = self.int_size;
        let value = self.take(size)?.iter().rev().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
        Ok(if negative { -value } else { value })
    }

    fn text(&mut self) -> Result<Option<String>, BadArchive> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(None) };
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map(Some).map_err(|_| BadArchive::Text)
    }

    fn word(&mut self) -> Result<String, BadArchive> {
        Ok(self.text()?.unwrap_or_default())
    }

    fn entry(&mut self, minor: u8) -> Result<Entry, BadArchive> {
        self.int()?; // its number
        self.int()?; // whether it has rows
        self.text()?; // the catalog's table
        self.text()?; // its place in that
        let (tag, kind) = (self.word()?, self.word()?);
        let section = match self.int()? {
            2 => Section::Before,
            3 => Section::Rows,
            4 => Section::After,
            _ => Section::None,
        };
        let (make, drop) = (self.word()?, self.word()?);
        self.text()?; // the COPY statement
        let (namespace, tablespace, access_method) = (self.word()?, self.word()?, self.word()?);
        if minor >= 16 {
            self.int()?; // the kind of relation
        }
        let owner = self.word()?;
        self.text()?; // once told of row identifiers
        while self.text()?.is_some() {} // what it depends on
        let offset = self.off_size + 1;
        self.take(offset)?; // where its rows are
        Ok(Entry { kind, tag, namespace, owner, access_method, tablespace, section, make, drop })
    }
}

/// Reads an archive's entries, in its order: what depends on something comes after it.
pub fn parse(archive: &[u8]) -> Result<Vec<Entry>, BadArchive> {
    let rest = archive.strip_prefix(b"PGDMP").ok_or(BadArchive::Magic)?;
    let mut reader = Reader { bytes: rest, int_size: 4, off_size: 8 };
    let (major, minor, _) = (reader.byte()?, reader.byte()?, reader.byte()?);
    if major != 1 || !(14..=16).contains(&minor) {
        return Err(BadArchive::Version(major, minor));
    }
    reader.int_size = reader.byte()?.into();
    reader.off_size = reader.byte()?.into();
    reader.byte()?; // format
    if minor >= 15 {
        reader.byte()?; // compression
    } else {
        reader.int()?;
    }
    for _ in 0..7 {
        reader.int()?; // when it was made
    }
    for _ in 0..3 {
        reader.text()?; // database, versions of server and pg_dump
    }
    let count = reader.int()?;
    (0..count).map(|_| reader.entry(minor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_archive() {
        assert_eq!(parse(b"CREATE TABLE"), Err(BadArchive::Magic));
        assert_eq!(parse(b"PGDMP\x01\x02\x00\x04\x08\x01"), Err(BadArchive::Version(1, 2)));
        assert_eq!(parse(b"PGDMP\x01\x0e\x00\x04\x08\x01\x00"), Err(BadArchive::CutOff));
    }
}
