//! The schema as it was read last. Reading it, and comparing it with what it was when a capture began, takes the longer the more there is in
//! it, and what is asked for comes in many parts: both are done once for each version of the schema.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handover_engine::rows::Schema;
use rusqlite::Connection;

use super::super::{catalog, error};
use super::Shared;

/// What tells schemas of a database apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: i64,
    /// The file's own number: SQLite counts changes of the schema, VACUUM among them (SQLite manual, "PRAGMA `schema_version`").
    number: i64,
}

/// A schema that was read, and what of it is known to be as it was. Its settings and state may have changed since, but for the encoding.
pub struct Known {
    version: Version,
    pub schema: Schema,
    /// Names of what was compared: tables, and what keeps the definitions of captures.
    unchanged: Mutex<BTreeSet<String>>,
}

impl Known {
    fn unchanged(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.unchanged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was found to be as it was, in this version of the schema.
    pub fn is_unchanged(&self, name: &str) -> bool {
        self.unchanged().contains(name)
    }

    /// It was found to be as it was.
    pub fn found_unchanged(&self, name: &str) {
        self.unchanged().insert(name.to_owned());
    }
}

impl Shared {
    /// The schema that a transaction sees; read, where it is not the one that was read last.
    pub(super) fn schema(&self, db: &Connection) -> error::Result<Arc<Known>> {
        let number = db.pragma_query_value(None, "schema_version", |row| row.get(0))?;
        let version = Version { inode: self.inode()?, number };
        let mut last = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(|known| known.version == version) {
            return Ok(known.clone());
        }
        let schema = catalog::read(db, &self.exclude)?;
        let known = Arc::new(Known { version, schema, unchanged: Mutex::default() });
        *last = Some(known.clone());
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use handover_engine::name::CaptureId;
    use handover_engine::rows::{Key, TableName};

    use super::super::{Names, SqliteLive};
    use super::*;

    fn write(path: &Path, sql: &str) {
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }

    fn known(shared: &Shared) -> Arc<Known> {
        let db = shared.reader().unwrap();
        db.execute_batch("BEGIN").unwrap();
        shared.schema(&db).unwrap()
    }

    #[test]
    fn a_schema_is_read_and_compared_once_until_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        write(&path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
        let live = SqliteLive::new("shop".parse().unwrap(), path.clone(), Vec::new());
        let (shared, capture): (_, CaptureId) = (&live.shared, "followed".parse().unwrap());
        let definitions = Names::of(&capture).definitions;
        let after = shared.begin(&capture).unwrap();
        let (table, keys) = (TableName::plain("t"), [Key("i1".into())]);
        let first = known(shared);
        assert!(!first.is_unchanged("t") && !first.is_unchanged(&definitions));
        write(&path, "UPDATE t SET v = 'b'");
        shared.changes(&capture, &after).unwrap();
        shared.rows(&table, &keys, 1).unwrap();
        assert!(Arc::ptr_eq(&first, &known(shared)), "read anew");
        assert!(first.is_unchanged("t") && first.is_unchanged(&definitions), "not compared, or not kept");
        // Another version, and another file with the same one.
        write(&path, "ALTER TABLE t ADD COLUMN w");
        let second = known(shared);
        assert!(!Arc::ptr_eq(&first, &second) && !second.is_unchanged("t"));
        assert_eq!(second.schema.tables[0].columns.len(), 3);
        let copy = dir.path().join("b.db");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        assert!(!Arc::ptr_eq(&second, &known(shared)), "another file is not looked at");
        // What has changed is told however often it is asked for.
        for _ in 0..2 {
            assert!(shared.rows(&table, &keys, 1).unwrap_err().to_string().contains("was changed"));
        }
    }
}
