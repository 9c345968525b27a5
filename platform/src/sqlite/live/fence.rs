//! The fence: writers are refused, and let in again.

use std::time::Duration;

use handover_engine::ports::Result;

use super::super::catalog::{self, OWN};
use super::super::{estimate, held};
use super::{Shared, triggers};

impl Shared {
    /// Refuses writers, once those that write have ended or `wait` is over.
    pub(super) fn fence(&self, wait: Duration) -> Result<()> {
        self.hold()?;
        let fenced = self.change("its writers cannot be fenced off", wait, |db| {
            let schema = catalog::read(db, &[])?;
            triggers::fence(db, &schema)
        });
        if fenced.is_err() {
            held::let_go(&self.path);
        }
        fenced
    }

    /// Lets writers in again.
    pub(super) fn unfence(&self) -> Result<()> {
        held::let_go(&self.path);
        // Where none stands, nobody is waited for: a writer may be why it could not be put up.
        let stands = format!("SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = '{OWN}fence')");
        let stands = self.reader()?.query_row(&stands, [], |row| row.get::<_, bool>(0));
        if !stands.map_err(self.failed("cannot be read"))? {
            return Ok(());
        }
        self.change("its fence cannot be taken away", estimate::BUSY, triggers::unfence)
    }

    /// Keeps the database open until somebody lets go of it.
    fn hold(&self) -> Result<()> {
        let open = || {
            let db = self.writer(estimate::BUSY)?;
            // It is not opened before it is read.
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
            Ok(db)
        };
        let db = open().map_err(self.failed::<rusqlite::Error>("cannot be opened"))?;
        held::hold(&self.path, db);
        Ok(())
    }
}
