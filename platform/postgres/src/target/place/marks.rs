//! Marks of our databases, in the last line of their comments: whose they are, and how far.

use std::collections::BTreeMap;

use handover_engine::ports::Result;

use super::Place;
use crate::connect::Conn;
use crate::sql::{literal, quote};

/// What stands between a database's own comment and the marks.
pub(super) const MARK: &str = "\nhandover: ";

/// Marks of a database that exists.
pub(super) type Marks = BTreeMap<String, String>;

impl Place {
    /// The marks of a database; `None` when there is no such database.
    pub(super) async fn marks(&self, admin: &Conn, database: &str) -> Result<Option<Marks>> {
        let Some(comment) = self.comment(admin, database).await? else { return Ok(None) };
        let marks = comment.rsplit_once(MARK).map_or("", |(_, marks)| marks);
        let pairs = marks.split(' ').filter_map(|pair| pair.split_once('='));
        Ok(Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    /// The comment of a database, marks and all; `None` when there is no such database.
    async fn comment(&self, admin: &Conn, database: &str) -> Result<Option<String>> {
        let sql = format!(
            "SELECT coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '') \
             FROM pg_catalog.pg_database WHERE datname = {}",
            literal(database)
        );
        admin.text(&sql).await.map_err(self.failed("the server cannot be asked"))
    }

    /// Whether a database exists and is this migration's.
    pub(super) async fn is_ours(&self, admin: &Conn, database: &str) -> Result<bool> {
        let marks = self.marks(admin, database).await?.unwrap_or_default();
        Ok(marks.get("migration") == Some(&self.migration.to_string()))
    }

    /// Whether what is being built is there, and ready for tables.
    pub(super) async fn is_ready(&self, admin: &Conn) -> Result<bool> {
        let marks = self.marks(admin, &self.partial).await?;
        Ok(marks.is_some_and(|marks| marks.contains_key("ready")))
    }

    /// Adds a mark.
    pub(super) async fn mark(&self, admin: &Conn, database: &str, name: &str, value: &str) -> Result<()> {
        let mut marks = self.marks(admin, database).await?.unwrap_or_default();
        marks.insert(name.to_owned(), value.to_owned());
        self.set_marks(admin, database, &marks).await
    }

    async fn set_marks(&self, admin: &Conn, database: &str, marks: &Marks) -> Result<()> {
        let comment = self.comment(admin, database).await?.unwrap_or_default();
        let own = comment.rsplit_once(MARK).map_or(comment.as_str(), |(own, _)| own);
        let pairs: Vec<String> = marks.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = if pairs.is_empty() { own.to_owned() } else { format!("{own}{MARK}{}", pairs.join(" ")) };
        let text = if text.is_empty() { "NULL".to_owned() } else { literal(&text) };
        let sql = format!("COMMENT ON DATABASE {} IS {text}", quote(database));
        admin.batch_execute(&sql).await.map_err(self.failed("a database cannot be marked"))
    }

    /// Takes the marks off the published database.
    pub async fn unmark(&self) -> Result<()> {
        let admin = self.writer().await?;
        self.set_marks(&admin, &self.settings.database, &Marks::new()).await
    }
}
