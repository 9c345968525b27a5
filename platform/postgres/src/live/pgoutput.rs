//! What the output plugin `pgoutput` writes of a database's changes.
//!
//! Layout: PostgreSQL manual, "Logical Replication Message Formats", version 1 of the protocol.

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; transactions come whole, in the order of their commits.
    Begin {
        /// Where the record of its commit begins.
        commit: u64,
        /// When it was committed, in microseconds since 2000.
        at: i64,
        /// Its number, without the epoch.
        xid: u32,
    },
    /// It ends.
    Commit {
        /// Where the record of its commit ends.
        end: u64,
    },
    /// What a table looks like. Told before its first row.
    Relation(Relation<'a>),
    /// A row was made.
    Insert { table: u32, new: Tuple<'a> },
    /// A row was changed; the old one is told where its identity changed, or is the whole row.
    Update { table: u32, old: Option<Tuple<'a>>, new: Tuple<'a> },
    /// A row was deleted.
    Delete { table: u32, old: Tuple<'a> },
    /// Tables were emptied.
    Truncate { tables: Vec<u32> },
    /// Nothing that matters here: a type's name, a transaction's origin.
    Other,
}

/// A table as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Its number in the catalog.
    pub table: u32,
    /// Its published columns: name in the client's encoding, number and modifier of the type.
    pub columns: Vec<(&'a [u8], u32, i32)>,
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL, or not part of what is told.
    Null,
    /// A large value that did not change.
    Unchanged,
    /// As its type prints it.
    Text(&'a [u8]),
}

/// The values of a row.
pub type Tuple<'a> = Vec<Value<'a>>;

/// The message is cut off, or of a kind that is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It ends early.
    #[error("a message of the change log is cut off")]
    CutOff,
    /// Its kind, or that of a part, is unknown.
    #[error("the change log holds a message of the unknown kind {0:#04x}")]
    Kind(u8),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BadMessage> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(BadMessage::CutOff)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadMessage> {
        self.take(N)?.try_into().map_err(|_| BadMessage::CutOff)
    }

    fn u8(&mut self) -> Result<u8, BadMessage> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, BadMessage> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, BadMessage> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, BadMessage> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, BadMessage> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, BadMessage> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// Text that ends with a zero byte.
    fn name(&mut self) -> Result<&'a [u8], BadMessage> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or(BadMessage::CutOff)?;
        let name = self.take(length)?;
        self.take(1)?;
        Ok(name)
    }

    fn relation(&mut self) -> Result<Relation<'a>, BadMessage> {
        let table = self.u32()?;
        self.name()?; // its schema
        self.name()?;
        self.u8()?; // what identifies its rows
        let count = self.u16()?;
        let mut columns = Vec::with_capacity(count.into());
        for _ in 0..count {
            self.u8()?; // whether it is part of the identity
            columns.push((self.name()?, self.u32()?, self.i32()?));
        }
        Ok(Relation { table, columns })
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, BadMessage> {
        let count = self.u16()?;
        let mut values = Vec::with_capacity(count.into());
        for _ in 0..count {
            values.push(match self.u8()? {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                b't' => {
                    let length = usize::try_from(self.u32()?).map_err(|_| BadMessage::CutOff)?;
                    Value::Text(self.take(length)?)
                }
                kind => return Err(BadMessage::Kind(kind)),
            });
        }
        Ok(values)
    }

    fn marked(&mut self, marks: &[u8]) -> Result<Tuple<'a>, BadMessage> {
        match self.u8()? {
            mark if marks.contains(&mark) => self.tuple(),
            mark => Err(BadMessage::Kind(mark)),
        }
    }

    fn update(&mut self) -> Result<Message<'a>, BadMessage> {
        let table = self.u32()?;
        let old = match self.0.first() {
            Some(b'K' | b'O') => Some(self.marked(b"KO")?),
            _ => None,
        };
        Ok(Message::Update { table, old, new: self.marked(b"N")? })
    }

    fn truncate(&mut self) -> Result<Message<'a>, BadMessage> {
        let count = self.u32()?;
        self.u8()?; // CASCADE, RESTART IDENTITY
        let tables = (0..count).map(|_| self.u32()).collect::<Result<_, _>>()?;
        Ok(Message::Truncate { tables })
    }
}

/// Reads one message.
pub fn parse(message: &[u8]) -> Result<Message<'_>, BadMessage> {
    let mut reader = Reader(message);
    Ok(match reader.u8()? {
        b'B' => Message::Begin { commit: reader.u64()?, at: reader.i64()?, xid: reader.u32()? },
        b'C' => {
            reader.u8()?; // flags, of which there are none
            reader.u64()?; // where its record begins
            Message::Commit { end: reader.u64()? }
        }
        b'R' => Message::Relation(reader.relation()?),
        b'I' => Message::Insert { table: reader.u32()?, new: reader.marked(b"N")? },
        b'U' => reader.update()?,
        b'D' => Message::Delete { table: reader.u32()?, old: reader.marked(b"KO")? },
        b'T' => reader.truncate()?,
        b'Y' | b'O' => Message::Other,
        kind => return Err(BadMessage::Kind(kind)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_server_writes() {
        let relation = b"R\0\0\x40\x01public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\0\x19\xff\xff\xff\xff";
        let columns = vec![(&b"id"[..], 23, -1), (&b"v"[..], 25, -1)];
        let (one, tab) = (Value::Text(b"1"), Value::Text(b"a\tb"));
        let table: [(&[u8], Result<Message<'_>, BadMessage>); 10] = [
            (
                b"B\0\0\0\0\x01\0\0\x10\0\0\0\0\0\0\0\x07\0\0\x02\xdd",
                Ok(Message::Begin { commit: 0x0100_0010, at: 7, xid: 733 }),
            ),
            (
                b"C\0\0\0\0\0\x01\0\0\x10\0\0\0\0\x01\0\0\x40\0\0\0\0\0\0\0\x07",
                Ok(Message::Commit { end: 0x0100_0040 }),
            ),
            (relation, Ok(Message::Relation(Relation { table: 0x4001, columns }))),
            (
                b"I\0\0\x40\x01N\0\x03t\0\0\0\x011t\0\0\0\x03a\tbn",
                Ok(Message::Insert { table: 0x4001, new: vec![one, tab, Value::Null] }),
            ),
            (
                b"U\0\0\x40\x01K\0\x01t\0\0\0\x011N\0\x01u",
                Ok(Message::Update { table: 0x4001, old: Some(vec![one]), new: vec![Value::Unchanged] }),
            ),
            (
                b"U\0\0\x40\x01N\0\x01t\0\0\0\x011",
                Ok(Message::Update { table: 0x4001, old: None, new: vec![one] }),
            ),
            (b"D\0\0\x40\x01O\0\x01t\0\0\0\x011", Ok(Message::Delete { table: 0x4001, old: vec![one] })),
            (b"T\0\0\0\x02\x01\0\0\0\x01\0\0\0\x02", Ok(Message::Truncate { tables: vec![1, 2] })),
            (b"Y\0\0\x40\x01a\0b\0", Ok(Message::Other)),
            (b"Q", Err(BadMessage::Kind(b'Q'))),
        ];
        for (bytes, expected) in table {
            assert_eq!(parse(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = b"U\0\0\x40\x01K\0\x01t\0\0\0\x011N\0\x01u";
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        // A length that nobody sent is not made room for.
        assert_eq!(parse(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xffab"), Err(BadMessage::CutOff));
    }
}
